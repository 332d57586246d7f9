//! Behaviour of the whole dispatcher, through its public face.

mod assignments;
mod property;
mod rig;
mod sessions;
mod statuses;
mod volumes;
