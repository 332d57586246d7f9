//! Behaviour of the whole agent, through its public face.

mod disk;
mod garbage;
mod logs;
mod rig;
mod session;
mod tasks;
