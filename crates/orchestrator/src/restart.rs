//! The rules of restarting, shared by all service loops (spec 10).
//!
//! Attempts, windows and delays are computed from the stored tasks of the replica, which the
//! reaper keeps for that purpose; nothing is remembered elsewhere. Does not own any write.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1::node_spec::Availability;
use swarm_store::Root;
use swarm_types::spec::{RestartCondition, restart_policy, stop_grace_period};
use swarm_types::{Node, NodeState, Slot, Task, TaskState, Timestamp};

/// How long a replacement waits at least for its predecessor to stop, from its own creation (spec
/// 10.4).
pub const OLD_TASK_TIMEOUT: Duration = Duration::from_secs(60);
/// What an old task gets beyond its grace period: the order to stop has to reach its node, which
/// takes up to 10 s for the kill, and its end has to reach the manager.
pub const OLD_TASK_MARGIN: Duration = Duration::from_secs(20);

/// Reason of the timer that ends a restart delay.
pub const WAITS_FOR_DELAY: &str = "restart delay";
/// Reason of the timer that ends the wait for the predecessor.
pub const WAITS_FOR_OLD_TASK: &str = "the task before it is still stopping";

/// What becomes of a live task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// Its delay is over: set the desired state to RUNNING.
    Start,
    /// It is in its start delay, or waits for its predecessor.
    Wait {
        /// Until when at most.
        until: Timestamp,
        /// What for.
        why: &'static str,
    },
    /// Shut it down and create a replacement.
    Replace(Cause),
    /// Shut it down, and let that be all.
    GiveUp(Cause, NoRestart),
}

/// Why a task cannot stay as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It ended.
    Ended,
    /// Its node is DOWN.
    NodeDown,
    /// Its node was drained.
    NodeDrained,
    /// Its node was removed.
    NodeGone,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended => "the task ended",
            Self::NodeDown => "its node is down",
            Self::NodeDrained => "its node is drained",
            Self::NodeGone => "its node was removed",
        })
    }
}

/// Why the restart policy forbids a replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRestart {
    /// The condition is NONE.
    Never,
    /// The condition is ON_FAILURE, and the task completed.
    Completed,
    /// All attempts are used up.
    AttemptsUsed {
        /// How many the policy allows.
        max: u64,
    },
}

impl fmt::Display for NoRestart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("its restart condition is none"),
            Self::Completed => f.write_str("it completed, and its restart condition is on-failure"),
            Self::AttemptsUsed { max } => write!(f, "all {max} restart attempts are used up"),
        }
    }
}

/// Judges a live task among the tasks of its replica.
///
/// A task that ends while it is still in its start delay is replaced only when the delay is over,
/// so that one which fails at once (a missing image) cannot loop faster than the delay.
pub fn verdict(view: &Root, task: &Task, replica: &[&Arc<Task>], now: Timestamp) -> Verdict {
    let is_pending = task.desired_state() < TaskState::Running;
    if is_pending && let Some((until, why)) = waits(view, task, replica, now) {
        return Verdict::Wait { until, why };
    }
    match (trouble(view, task), is_pending) {
        (None, true) => Verdict::Start,
        (None, false) => Verdict::Keep,
        (Some(cause), _) => no_restart(task, replica)
            .map_or(Verdict::Replace(cause), |why| Verdict::GiveUp(cause, why)),
    }
}

/// Why the task cannot stay, if it cannot. A node that is UNKNOWN, DISCONNECTED or paused is no
/// reason (spec 4.5).
pub fn trouble(view: &Root, task: &Task) -> Option<Cause> {
    if task.is_terminal() {
        return Some(Cause::Ended);
    }
    match view.node(task.node_id.as_ref()?) {
        None => Some(Cause::NodeGone),
        Some(node) if is_down(node) => Some(Cause::NodeDown),
        Some(node) if is_drained(node) => Some(Cause::NodeDrained),
        Some(_) => None,
    }
}

/// Why the policy of a task forbids to replace it; `None`: it may be replaced (spec 10.2).
pub fn no_restart(task: &Task, replica: &[&Arc<Task>]) -> Option<NoRestart> {
    let policy = restart_policy(&task.spec);
    match policy.condition {
        RestartCondition::None => return Some(NoRestart::Never),
        RestartCondition::OnFailure if task.state() == TaskState::Complete => {
            return Some(NoRestart::Completed);
        }
        RestartCondition::OnFailure | RestartCondition::Any => {}
    }
    let max = policy.max_attempts;
    if max == 0 {
        return None;
    }
    let ended_at = task.status().effective_time();
    let counts = |created_at: Timestamp| match (policy.window, ended_at) {
        (Some(window), Some(ended_at)) => {
            created_at > ended_at.saturating_sub(window) && created_at < ended_at
        }
        (None, _) | (_, None) => true,
    };
    let attempts = restarts(task, replica).filter(|at| counts(*at)).count();
    (attempts as u64 >= max).then_some(NoRestart::AttemptsUsed { max })
}

/// When the replica was restarted with the spec version of `task`: the creation of every task but
/// the first. Tasks to be removed are not its history, and a task of a global service that came
/// back with its node is not a restart.
fn restarts(task: &Task, replica: &[&Arc<Task>]) -> impl Iterator<Item = Timestamp> {
    let mut runs: Vec<&Task> = replica
        .iter()
        .map(|run| &***run)
        .filter(|run| run.desired_state() < TaskState::Remove)
        .filter(|run| run.spec_version == task.spec_version)
        .collect();
    runs.sort_by_key(|run| (run.meta.created_at, &run.id));
    let is_global = task.slot == Slot(0);
    let restarts: Vec<Timestamp> = runs
        .windows(2)
        .filter(|pair| !is_global || ended_by_itself(pair[0]))
        .map(|pair| pair[1].meta.created_at)
        .collect();
    restarts.into_iter()
}

fn ended_by_itself(task: &Task) -> bool {
    task.is_terminal() && task.state() != TaskState::Shutdown
}

/// Until when a task with a start delay has to wait, and for what; `None`: it may start.
fn waits(
    view: &Root,
    task: &Task,
    replica: &[&Arc<Task>],
    now: Timestamp,
) -> Option<(Timestamp, &'static str)> {
    let created_at = task.meta.created_at;
    if created_at > now {
        // The clock went back, with a new leader on another machine: the time left is unknown, and
        // a task must not wait for hours (spec 5, step 4: unusable times start at once).
        return None;
    }
    let others = || {
        replica
            .iter()
            .filter(|other| other.id != task.id && !other.is_live())
    };
    let predecessor = others()
        .filter(|other| other.meta.created_at <= created_at)
        .max_by_key(|other| (other.meta.created_at, &other.id));
    // No restart: the one before had to leave its node, or was not wanted any more.
    let moves_off = predecessor.is_some_and(|other| {
        let node = other.node_id.as_ref().and_then(|id| view.node(id));
        node.is_some_and(|node| is_drained(node)) || other.desired_state() >= TaskState::Remove
    });
    let delay = restart_policy(&task.spec).delay;
    let delay_end = created_at.saturating_add(delay);
    if !moves_off && now < delay_end {
        return Some((delay_end, WAITS_FOR_DELAY));
    }
    let gives_up_at = others()
        .filter(|other| may_still_run(view, other))
        .map(|other| created_at.saturating_add(old_task_timeout(other)))
        .max()?;
    (now < gives_up_at).then_some((gives_up_at, WAITS_FOR_OLD_TASK))
}

/// How long a replacement waits for this task to stop: its grace period is what the user gave it,
/// and until it is over the task runs.
pub fn old_task_timeout(old: &Task) -> Duration {
    let grace = old.container().map(stop_grace_period).unwrap_or_default();
    OLD_TASK_TIMEOUT.max(grace.saturating_add(OLD_TASK_MARGIN))
}

/// Whether an old task may still be running: it got as far as a node, has not ended, and the node
/// is neither DOWN nor gone.
pub(crate) fn may_still_run(view: &Root, task: &Task) -> bool {
    task.state() >= TaskState::Assigned
        && !task.is_terminal()
        && task
            .node_id
            .as_ref()
            .and_then(|id| view.node(id))
            .is_some_and(|node| !is_down(node))
}

pub(crate) fn is_down(node: &Node) -> bool {
    node.status.state == NodeState::Down
}

pub(crate) fn is_drained(node: &Node) -> bool {
    node.availability() == Availability::Drain
}

/// Whether a change of a task can change a verdict about its replica. Most status updates cannot,
/// and 100,000 starting tasks send four each. Those of a task that is on its way out can: the time
/// of its status is what a window of restart attempts ends with.
pub(crate) fn concerns_replica(old: Option<&Task>, new: &Task) -> bool {
    let Some(old) = old else {
        return new.desired_state() < TaskState::Running
            || new.node_id.is_some()
            || new.is_terminal();
    };
    old.desired_state() != new.desired_state()
        || old.node_id != new.node_id
        || ((new.is_terminal() || !new.is_live()) && old.status() != new.status())
}

#[cfg(test)]
mod tests;
