//! An executor that starts nothing: every task is a scripted state machine.
//!
//! [`FakeNode`] is a whole machine with its processes. It has no runtime, no clock and no source of
//! randomness; the simulator owns one per node, calls [`FakeNode::begin`] and delivers the outcome
//! at the time it was told. It survives a crash of the agent, as processes do. [`FakeExecutor`]
//! puts the async contract around it, for tests of shells.
//!
//! Refuses to own: any behaviour of real processes beyond durations, results and exit codes.

mod adaptor;
mod node;
mod script;
mod task;

pub use adaptor::{FakeExecutor, Time};
pub use node::FakeNode;
pub use script::{Script, ScriptError};
pub use task::{Begun, FakeTask};

/// Where random numbers come from. Any `FnMut() -> u64` will do.
pub trait Draw {
    /// The next number, uniform over its whole range.
    fn next_u64(&mut self) -> u64;
}

impl<F: FnMut() -> u64> Draw for F {
    fn next_u64(&mut self) -> u64 {
        self()
    }
}
