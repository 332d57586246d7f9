//! The broker by its public face: a store, nodes that listen, clients that subscribe.

mod completion;
mod following;
mod property;
mod publishing;
mod requests;
mod rig;
