//! Task states: an order that is never walked backwards.

use std::fmt;

use swarm_api::v1;

/// How far a task is, or how far it is wanted to go. The order of the variants is the order of the
/// wire numbers; the gaps between the numbers are deliberate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u16)]
pub enum TaskState {
    /// Created by an orchestrator, not allocated yet.
    #[default]
    New = 0,
    /// Allocated, waits for a node.
    Pending = 64,
    /// Has a node; from here on the agent owns the status.
    Assigned = 192,
    /// The agent took it.
    Accepted = 256,
    /// The executor prepares it.
    Preparing = 320,
    /// Prepared, waits for the order to start.
    Ready = 384,
    /// Starting.
    Starting = 448,
    /// Runs (and is healthy, if it has a health check).
    Running = 512,
    /// Ended by itself with success.
    Complete = 576,
    /// Was stopped on request.
    Shutdown = 640,
    /// Ended with an error.
    Failed = 704,
    /// Could not be run by its node.
    Rejected = 768,
    /// To be deleted once it has stopped; only ever a desired state.
    Remove = 800,
    /// Its node is gone for so long that nobody can tell.
    Orphaned = 832,
}

/// All states in order.
pub const ALL: [TaskState; 14] = [
    TaskState::New,
    TaskState::Pending,
    TaskState::Assigned,
    TaskState::Accepted,
    TaskState::Preparing,
    TaskState::Ready,
    TaskState::Starting,
    TaskState::Running,
    TaskState::Complete,
    TaskState::Shutdown,
    TaskState::Failed,
    TaskState::Rejected,
    TaskState::Remove,
    TaskState::Orphaned,
];

impl TaskState {
    /// Whether a task in this observed state has ended for good.
    pub fn is_terminal(self) -> bool {
        self > Self::Running
    }

    /// The wire enum.
    pub fn to_wire(self) -> v1::TaskState {
        v1::TaskState::try_from(i32::from(self as u16)).expect("both enums hold the same numbers")
    }

    /// From a wire number; `None` for a number that no state has.
    pub fn from_wire(number: i32) -> Option<Self> {
        ALL.into_iter()
            .find(|state| i32::from(*state as u16) == number)
    }

    /// The name as users see it, in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Accepted => "accepted",
            Self::Preparing => "preparing",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Remove => "remove",
            Self::Orphaned => "orphaned",
        }
    }
}

impl fmt::Display for TaskState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A refusal to walk a state backwards (I-TASK-1, I-TASK-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task state never goes back: {from} to {to} was refused")]
pub struct StateRegression {
    /// The state that the task has.
    pub from: TaskState,
    /// The earlier state that was asked for.
    pub to: TaskState,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_equals_the_order_of_the_wire_numbers() {
        for pair in ALL.windows(2) {
            assert!(pair[0] < pair[1] && (pair[0] as u16) < (pair[1] as u16));
        }
    }

    #[test]
    fn every_number_round_trips_and_others_are_refused() {
        for state in ALL {
            assert_eq!(TaskState::from_wire(state.to_wire() as i32), Some(state));
        }
        for number in [-1, 1, 63, 65, 833, i32::MAX] {
            assert_eq!(TaskState::from_wire(number), None);
        }
    }

    #[test]
    fn running_is_the_last_state_that_is_not_terminal() {
        assert!(!TaskState::Running.is_terminal());
        assert!(TaskState::Complete.is_terminal());
    }
}
