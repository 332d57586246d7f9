//! Log streams over real sockets: nodes and clients against a whole manager.
//!
//! What the broker decides is tested in its own crate; this is about streams, their ends, and who
//! waits for whom.

mod flow;
mod streams;
mod world;
