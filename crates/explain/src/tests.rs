//! Explanations of tiny worlds, as text.

mod nodes;
mod resolving;
mod services;
mod tasks;
mod world;
