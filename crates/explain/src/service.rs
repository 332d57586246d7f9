//! Explains a service: how many of its tasks run, and for the others what they wait for, tasks with
//! the same reason together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use swarm_api::ext;
use swarm_orchestrator::global::{Eligibility, eligibility};
use swarm_orchestrator::restart::NoRestart;
use swarm_orchestrator::slot::{Standing, Tuple, newest, standing};
use swarm_store::Root;
use swarm_types::spec::{self, ServiceMode};
use swarm_types::{Node, Service, Task, TaskState, Timestamp};

use crate::cause::{cause, failures};
use crate::finding::{Code, Finding, Object, answer};
use crate::words::{NAMES_MAX, count, error, node_name, several, task_name, times};
use crate::{place, revive};

/// Reasons in one answer; the rest is counted.
pub const REASONS_MAX: usize = 10;
/// How long after a failure a replica that runs again is still worth a word.
const RECENT: Duration = Duration::from_secs(300);

pub(crate) fn explain(view: &Root, now: Timestamp, service: &Service) -> ext::WhyResponse {
    let mut census = Census::new(view, now, service);
    census.take();
    let name = service.spec.name().to_owned();
    let problems = census.groups.keys().any(|key| key.is_problem());
    let is_complete = census.running == census.desired && !problems;
    let (running, desired) = (census.running, census.desired);
    let findings = census.findings();
    let headline = match findings.first() {
        _ if desired == 0 && running == 0 && findings.is_empty() => {
            format!("Service {name} wants no tasks.")
        }
        Some(first) if !is_complete => format!(
            "Service {name} runs {running} of {}; {}.",
            count(desired, "task"),
            first.text
        ),
        Some(_) | None => {
            format!(
                "Service {name} runs {running} of {}.",
                count(desired, "task")
            )
        }
    };
    let object = Object {
        kind: "service",
        id: service.id.to_string(),
        name,
    };
    answer(object, headline, findings, !is_complete)
}

/// Tasks with the same code and phrase are one reason. Worse codes come first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey {
    code: Code,
    text: String,
}

impl GroupKey {
    /// Whether it keeps the service from being as it should be.
    fn is_problem(&self) -> bool {
        !matches!(
            self.code,
            Code::Completed
                | Code::Stopped
                | Code::Stopping
                | Code::Remark
                | Code::Effect
                | Code::NotEligible
                | Code::Failing
        )
    }
}

/// A reason with the tasks that it holds for.
struct Group {
    finding: Finding,
    names: Vec<String>,
    /// The noun for its names.
    what: &'static str,
    /// One of the tasks, for the scheduler to judge.
    example: Option<Arc<Task>>,
}

struct Census<'a> {
    view: &'a Root,
    now: Timestamp,
    service: &'a Service,
    running: u64,
    desired: u64,
    groups: BTreeMap<GroupKey, Group>,
}

impl<'a> Census<'a> {
    fn new(view: &'a Root, now: Timestamp, service: &'a Service) -> Self {
        Self {
            view,
            now,
            service,
            running: 0,
            desired: 0,
            groups: BTreeMap::new(),
        }
    }

    fn take(&mut self) {
        let mut replicas: BTreeMap<Tuple, Vec<&'a Arc<Task>>> = BTreeMap::new();
        for task in self.view.tasks_of_service(&self.service.id) {
            match Tuple::of(self.service, task) {
                Some(tuple) => replicas.entry(tuple).or_default().push(task),
                None => self.add_task(task),
            }
        }
        let mut held = 0;
        for tasks in replicas.values() {
            held += u64::from(self.add_replica(tasks));
        }
        match spec::mode(&self.service.spec) {
            Some(ServiceMode::Replicated { replicas }) => self.desired = replicas,
            Some(ServiceMode::Global) => self.add_nodes(),
            Some(ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob) | None => {}
        }
        if held < self.desired {
            let missing = self.desired - held;
            let text = format!("{} not created yet", count(missing, "task"));
            self.add(Finding::new(Code::NotCreated, text), None, "task", None);
        }
    }

    /// Adds the tasks of a replica; whether it counts as one.
    fn add_replica(&mut self, tasks: &[&'a Arc<Task>]) -> bool {
        let standing = standing(self.service, tasks);
        for task in tasks {
            if task.is_live() || !task.is_terminal() {
                self.add_task(task);
            }
        }
        match (standing, newest(tasks)) {
            (Standing::Spent(why), Some(last)) => self.add_spent(last, why, tasks),
            (Standing::Dead, Some(last)) => {
                let finding = Finding::new(Code::BeingReplaced, "about to be replaced");
                self.add(finding, Some(last), "task", None);
            }
            (Standing::Filled, _) => self.add_failures(tasks),
            (Standing::Empty | Standing::Spent(_) | Standing::Dead, _) => {}
        }
        standing.is_replica()
    }

    fn add_task(&mut self, task: &'a Arc<Task>) {
        let finding = cause(self.view, self.now, task);
        let is_fine = finding
            .as_ref()
            .is_none_or(|finding| finding.code == Code::Remark);
        if is_fine && task.is_live() && task.state() == TaskState::Running {
            self.running += 1;
        }
        if let Some(finding) = finding {
            self.add(finding, Some(task), "task", Some(task));
        }
    }

    /// A replica whose last task ended, and which is not run again.
    fn add_spent(&mut self, last: &'a Arc<Task>, why: NoRestart, tasks: &[&'a Arc<Task>]) {
        let finding = match (why, last.state()) {
            (NoRestart::Completed, _) | (NoRestart::Never, TaskState::Complete) => {
                Finding::new(Code::Completed, format!("done: {why}"))
            }
            (NoRestart::Never | NoRestart::AttemptsUsed { .. }, state) => Finding::new(
                Code::GaveUp,
                format!("not run again, as {why}; {state}: {}", error(last)),
            )
            .step(format!("swarmctl task inspect {}", last.id))
            .step(revive::step(self.view, self.service, last, tasks)),
        };
        let finding = finding.since(last.status().effective_time());
        self.add(finding, Some(last), "task", None);
    }

    /// A replica that has a task, but failed before: as long as that is recent, or the task does
    /// not run.
    fn add_failures(&mut self, tasks: &[&'a Arc<Task>]) {
        let Some((number, last)) = failures(tasks) else {
            return;
        };
        let at = last.status().effective_time();
        let is_recent = at.is_some_and(|at| self.now.saturating_since(at) < RECENT);
        let live = tasks.iter().find(|task| task.is_live());
        let runs = live.is_some_and(|task| task.state() == TaskState::Running);
        if runs && !is_recent {
            return;
        }
        let cause = live.and_then(|task| cause(self.view, self.now, task));
        if cause.is_some_and(|cause| cause.code == Code::RestartDelay) {
            // Tells the same.
            return;
        }
        let text = format!(
            "failed {}, the last time with: {}",
            times(number),
            error(last)
        );
        let finding = Finding::new(Code::Failing, text)
            .since(at)
            .about(&last.id)
            .step(format!("swarmctl task inspect {}", last.id));
        self.add(finding, Some(last), "task", None);
    }

    /// The nodes of a global service: how many should have a task, and why the others do not.
    fn add_nodes(&mut self) {
        for node in self.view.all::<Node>() {
            let verdict = eligibility(self.service, node);
            match verdict {
                Eligibility::Eligible => self.desired += 1,
                Eligibility::Paused
                | Eligibility::Drained
                | Eligibility::Down
                | Eligibility::Unfit
                | Eligibility::OtherEngine => {
                    let text = format!("gets no task: {verdict}");
                    self.insert(
                        Finding::new(Code::NotEligible, text),
                        Some(node_name(node)),
                        "node",
                    );
                }
            }
        }
    }

    fn add(
        &mut self,
        finding: Finding,
        task: Option<&Arc<Task>>,
        what: &'static str,
        example: Option<&Arc<Task>>,
    ) {
        let name = task.map(|task| task_name(self.view, task));
        let group = self.insert(finding, name, what);
        if group.example.is_none() {
            group.example = example.cloned();
        }
    }

    fn insert(&mut self, finding: Finding, name: Option<String>, what: &'static str) -> &mut Group {
        let key = GroupKey {
            code: finding.code,
            text: finding.text.clone(),
        };
        let (since, retry) = (finding.since, finding.retry);
        // Each replica that gave up is started by itself.
        let more_steps = if finding.code == Code::GaveUp {
            finding.steps.clone()
        } else {
            Vec::new()
        };
        let group = self.groups.entry(key).or_insert_with(|| Group {
            finding,
            names: Vec::new(),
            what,
            example: None,
        });
        if group.names.len() < NAMES_MAX {
            group.finding.steps.extend(more_steps);
        }
        group.names.extend(name);
        let earlier =
            |a: Option<Timestamp>, b: Option<Timestamp>| [a, b].into_iter().flatten().min();
        group.finding.since = earlier(group.finding.since, since);
        group.finding.retry = earlier(group.finding.retry, retry);
        group
    }

    /// The reasons, the worst first, the scheduler's verdicts added.
    fn findings(self) -> Vec<Finding> {
        let total = self.groups.len();
        let mut findings: Vec<Finding> = self
            .groups
            .into_values()
            .take(REASONS_MAX)
            .map(|group| {
                let mut finding = group.finding;
                if let Some(task) = &group.example {
                    place::detail(self.view, self.now, task, &mut finding);
                }
                let names: Vec<String> = ordered(group.names);
                match names[..] {
                    [] => finding,
                    _ => {
                        if names.len() > 1 {
                            finding.object_id.clear();
                        }
                        finding.named(&several(group.what, &names))
                    }
                }
            })
            .collect();
        if total > REASONS_MAX {
            let text = format!("{} more", count((total - REASONS_MAX) as u64, "reason"));
            findings.push(Finding::new(Code::Effect, text));
        }
        findings
    }
}

/// Each name once, `web.2` before `web.10`.
fn ordered(names: Vec<String>) -> Vec<String> {
    let names: BTreeSet<(usize, String)> =
        names.into_iter().map(|name| (name.len(), name)).collect();
    names.into_iter().map(|(_, name)| name).collect()
}
