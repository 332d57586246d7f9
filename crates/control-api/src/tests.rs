//! What the tests of this crate share, and those that look at all requests at once.

mod hostile;
mod refusals;
pub(crate) mod world;
