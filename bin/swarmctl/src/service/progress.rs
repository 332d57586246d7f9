//! How far a service is, and when the wait for it is over. Pure: reads lists of the manager, and
//! gets the time as an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use swarm_api::v1;
use swarm_types::constraint::{Constraint, matches_all};
use swarm_types::engine::can_run;
use swarm_types::spec::{self, RestartCondition, ServiceMode};
use swarm_types::{NodeState, TaskState, convert};
use v1::node_spec::Availability;

use super::{down_nodes, is_running};
use crate::lookup::{is_live, place_of};

/// How long the manager has to leave a replica without a task before it counts as given up: in the
/// moment between an end and the replacement there is none either.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(1);

/// How far a service is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// How many tasks should run.
    pub(crate) desired: u64,
    /// The tasks that run.
    pub(crate) running: BTreeSet<String>,
    /// Replicas that did their work, and are not run again.
    completed: u64,
    /// Other wanted tasks by state.
    others: BTreeMap<TaskState, u64>,
    /// Replicas that are not run again although they failed, with their last error.
    gave_up: Vec<String>,
    /// What a task that does not run complains about.
    problem: String,
}

impl Progress {
    /// Measures a service by its tasks and the nodes.
    pub(crate) fn measure(service: &v1::Service, tasks: &[v1::Task], nodes: &[v1::Node]) -> Self {
        let down = down_nodes(nodes);
        let mut progress = Self {
            desired: desired(service, nodes),
            ..Self::default()
        };
        let mut replicas: BTreeMap<String, Vec<&v1::Task>> = BTreeMap::new();
        for task in tasks {
            replicas.entry(place_of(task)).or_default().push(task);
        }
        for (place, tasks) in replicas {
            if tasks.iter().any(|task| is_live(task)) {
                for task in tasks.iter().filter(|task| is_live(task)) {
                    progress.add_live(task, down.contains(task.node_id.as_str()));
                }
            } else {
                progress.add_ended(&place, &tasks);
            }
            progress.note_problem(&tasks);
        }
        progress
    }

    fn add_live(&mut self, task: &v1::Task, is_on_down_node: bool) {
        if is_running(task) && !is_on_down_node {
            self.running.insert(task.id.clone());
        } else {
            *self.others.entry(state(task)).or_default() += 1;
        }
    }

    /// A replica without a wanted task: done, given up, removed, or about to get its next task.
    fn add_ended(&mut self, place: &str, tasks: &[&v1::Task]) {
        let kept = tasks
            .iter()
            .filter(|task| task.desired_state < v1::TaskState::Remove as i32);
        let Some(last) = kept.max_by_key(|task| created(task)) else {
            return;
        };
        let policy = spec::restart_policy(&last.spec.clone().unwrap_or_default());
        let state = state(last);
        match policy.condition {
            _ if !state.is_terminal() => {}
            RestartCondition::None | RestartCondition::OnFailure
                if state == TaskState::Complete =>
            {
                self.completed += 1;
            }
            RestartCondition::Any | RestartCondition::OnFailure if policy.max_attempts == 0 => {}
            RestartCondition::None | RestartCondition::OnFailure | RestartCondition::Any => {
                let error = error(last);
                self.gave_up
                    .push(format!("replica {place} is {state} ({error})"));
            }
        }
    }

    /// Prefers the error of a wanted task; else the last one of its predecessors, while none runs.
    fn note_problem(&mut self, tasks: &[&v1::Task]) {
        let waiting = tasks.iter().any(|task| is_live(task) && !is_running(task));
        if !waiting || !self.problem.is_empty() {
            return;
        }
        let with_error = tasks.iter().filter(|task| !error(task).is_empty());
        if let Some(task) = with_error.max_by_key(|task| (is_live(task), created(task))) {
            self.problem = error(task).to_owned();
        }
    }

    /// What a task complains about; empty if none does.
    pub(crate) fn problem(&self) -> &str {
        &self.problem
    }

    fn is_complete(&self) -> bool {
        self.running.len() as u64 + self.completed == self.desired && self.others.is_empty()
    }

    /// `2/3 running, 1 pending`.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{}/{} running", self.running.len(), self.desired);
        if self.completed > 0 {
            text.push_str(&format!(", {} complete", self.completed));
        }
        for (state, count) in &self.others {
            text.push_str(&format!(", {count} {state}"));
        }
        if !self.gave_up.is_empty() {
            text.push_str(&format!(", {} given up", self.gave_up.len()));
        }
        text
    }
}

fn created(task: &v1::Task) -> (Option<(i64, i32)>, &str) {
    let at = task.meta.as_ref().and_then(|meta| meta.created_at.as_ref());
    (at.map(|at| (at.seconds, at.nanos)), &task.id)
}

fn error(task: &v1::Task) -> &str {
    task.status.as_ref().map_or("", |status| &status.err)
}

/// The state; NEW for a number from a newer manager.
fn state(task: &v1::Task) -> TaskState {
    let number = task.status.as_ref().map_or(0, |status| status.state);
    TaskState::from_wire(number).unwrap_or_default()
}

fn desired(service: &v1::Service, nodes: &[v1::Node]) -> u64 {
    let spec = service.spec.clone().unwrap_or_default();
    match spec::mode(&spec) {
        Some(ServiceMode::Replicated { replicas }) => replicas,
        Some(ServiceMode::Global) => {
            let task = spec.task.unwrap_or_default();
            let constraints = Constraint::parse_all(spec::constraints(&task)).unwrap_or_default();
            let eligible = |node: &&v1::Node| is_eligible(node, &task, &constraints);
            let eligible = nodes.iter().filter(eligible);
            eligible.count() as u64
        }
        Some(ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob) | None => 0,
    }
}

/// Whether a global service gets a task there (control-plane spec 7).
fn is_eligible(node: &v1::Node, task: &v1::TaskSpec, constraints: &[Constraint]) -> bool {
    convert::node_from_wire(node.clone()).is_ok_and(|node| {
        node.status.state != NodeState::Down
            && node.availability() == Availability::Active
            && matches_all(constraints, &node)
            && can_run(task, &node)
    })
}

/// How the wait stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not there yet.
    Waiting,
    /// All is well, but not for long enough.
    Watching {
        /// How much longer it has to stay so.
        left: Duration,
    },
    /// All was well for long enough.
    Converged,
    /// It will not get there by itself; why.
    Hopeless(String),
}

/// Judges one measurement after the other.
#[derive(Debug)]
pub(crate) struct Judge {
    monitor: Duration,
    /// The tasks that run, and since when all is well with just these.
    well: Option<(BTreeSet<String>, Duration)>,
    hopeless_since: Option<Duration>,
}

impl Judge {
    pub(crate) fn new(monitor: Duration) -> Self {
        Self {
            monitor,
            well: None,
            hopeless_since: None,
        }
    }

    /// Judges a measurement; `asked` is from the question to the answer, on any clock that does not
    /// go back. What was seen lasts from the first answer to the last question: who stood still in
    /// between has seen nothing of that time.
    pub(crate) fn judge(&mut self, progress: &Progress, asked: Range<Duration>) -> Verdict {
        if !progress.gave_up.is_empty() {
            self.well = None;
            let since = *self.hopeless_since.get_or_insert(asked.end);
            if asked.start.saturating_sub(since) < GIVEN_UP_AFTER {
                return Verdict::Waiting;
            }
            let first = &progress.gave_up[0];
            return Verdict::Hopeless(match progress.gave_up.len() {
                1 => format!("{first} and its restart policy allows no more attempts"),
                count => format!(
                    "{first} and so are {} more; their restart policy allows no more attempts",
                    count - 1
                ),
            });
        }
        self.hopeless_since = None;
        if !progress.is_complete() {
            self.well = None;
            return Verdict::Waiting;
        }
        let since = match &self.well {
            Some((running, since)) if *running == progress.running => *since,
            Some(_) | None => {
                self.well = Some((progress.running.clone(), asked.end));
                asked.end
            }
        };
        match self.monitor.checked_sub(asked.start.saturating_sub(since)) {
            Some(left) if !left.is_zero() => Verdict::Watching { left },
            Some(_) | None => Verdict::Converged,
        }
    }
}

#[cfg(test)]
mod tests;
