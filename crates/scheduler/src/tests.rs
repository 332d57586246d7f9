//! The scheduler's behaviour, through its public face: a world in text, and what it does.

mod explaining;
mod filters;
mod passes;
mod placing;
mod properties;
mod twin;
mod world;
