//! Behaviour of the whole agent, through its public face.

mod rig;
mod session;
mod tasks;
