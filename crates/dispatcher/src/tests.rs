//! Behaviour of the whole dispatcher, through its public face.

mod assignments;
mod drivers;
mod farewell;
mod orphans;
mod oversize;
mod property;
mod rig;
mod sessions;
mod standstill;
mod statuses;
mod terms;
mod volumes;
