//! Questions to secret drivers: which ones the shell has to ask, and what becomes of the answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_store::Root;
use swarm_types::{NodeId, Secret, Task, TaskState, TaskStatus, Timestamp, Version};

use super::{Dispatcher, StreamId, Timer};
use crate::driven::{Need, SECRET_BYTES_LIMIT, SecretAnswer};
use crate::intake::Report;

/// Questions under way at most. A driver that hangs must not take the answers of others with it for
/// longer than its deadline.
pub const SECRET_REQUESTS_MAX: usize = 64;
/// Characters of a driver's error that reach the status of a task.
const ERROR_CHARS_MAX: usize = 512;

/// Names one question; never used twice by one dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretRequestId(pub u64);

/// A question to a driver.
#[derive(Clone, Debug)]
pub struct SecretRequest {
    /// To be handed back with the answer.
    pub id: SecretRequestId,
    /// The name of the driver.
    pub driver: String,
    /// The secret.
    pub secret: Arc<Secret>,
    /// The task that needs it.
    pub task: Arc<Task>,
}

/// The questions under way.
#[derive(Debug, Default)]
pub(super) struct SecretRequests {
    last: u64,
    under_way: BTreeMap<SecretRequestId, (NodeId, StreamId, Need)>,
    /// Nodes whose tasks may have a question.
    nodes: BTreeSet<NodeId>,
    /// Where the questions come from; in an older view their tasks may be missing.
    version_min: Version,
}

impl SecretRequests {
    /// A message from this version left questions.
    pub(super) fn look_at(&mut self, node: &NodeId, version: Version) {
        self.nodes.insert(node.clone());
        self.version_min = self.version_min.max(version);
    }
}

impl Dispatcher {
    /// The next question to a driver; call until it yields nothing. The answer belongs to
    /// [`Dispatcher::handle_secret`].
    pub fn poll_secret_request(&mut self, view: &Root) -> Option<SecretRequest> {
        if view.version() < self.version_min.max(self.secrets.version_min) {
            return None;
        }
        while self.secrets.under_way.len() < SECRET_REQUESTS_MAX {
            let node = self.secrets.nodes.first()?.clone();
            let session = self.sessions.get_mut(&node);
            let assignments = session.and_then(|session| session.assignments.as_mut());
            let due =
                assignments.and_then(|own| Some((own.stream, own.state.driven().take_due()?)));
            let Some((stream, need)) = due else {
                self.secrets.nodes.remove(&node);
                continue;
            };
            let Some((driver, secret, task)) = question(view, &need) else {
                self.forget_question(&node, &need);
                continue;
            };
            self.secrets.last += 1;
            let id = SecretRequestId(self.secrets.last);
            self.secrets.under_way.insert(id, (node, stream, need));
            return Some(SecretRequest {
                id,
                driver,
                secret,
                task,
            });
        }
        None
    }

    /// Takes the answer to a question, or why there is none.
    pub fn handle_secret(
        &mut self,
        now: Timestamp,
        id: SecretRequestId,
        answer: Result<SecretAnswer, String>,
        view: &Root,
    ) {
        let Some((node, stream, need)) = self.secrets.under_way.remove(&id) else {
            return;
        };
        let session = self.sessions.get_mut(&node);
        let assignments = session.and_then(|session| session.assignments.as_mut());
        let Some(assignments) = assignments.filter(|own| own.stream == stream) else {
            return;
        };
        match checked(answer) {
            Ok(answer) => {
                assignments.state.handle_secret(need, answer);
                assignments.is_due = assignments.state.backlog() > 0;
                self.ready.insert(node);
            }
            Err(reason) => {
                if let Some(at) = assignments.state.driven().fail(now, &need) {
                    let timer = Timer::Secrets(node);
                    let at = self.timers.get(&timer).map_or(at, |known| known.min(at));
                    self.timers.set(timer, at);
                }
                self.report(now, &need, &reason, view);
            }
        }
    }

    pub(super) fn retry_secrets(&mut self, now: Timestamp, node: NodeId) {
        let session = self.sessions.get_mut(&node);
        let Some(assignments) = session.and_then(|session| session.assignments.as_mut()) else {
            return;
        };
        if let Some(at) = assignments.state.driven().retry(now) {
            self.timers.set(Timer::Secrets(node.clone()), at);
        }
        self.secrets.nodes.insert(node);
    }

    fn forget_question(&mut self, node: &NodeId, need: &Need) {
        let session = self.sessions.get_mut(node);
        if let Some(assignments) = session.and_then(|session| session.assignments.as_mut()) {
            assignments.state.forget_question(need);
            assignments.is_due = assignments.state.backlog() > 0;
            self.ready.insert(node.clone());
        }
    }

    /// Says in the status of a task that was not sent yet what it waits for. Once it was sent its
    /// status is the agent's.
    fn report(&mut self, now: Timestamp, need: &Need, reason: &str, view: &Root) {
        let (task, secret) = need;
        let Some(stored) = view.task(task) else {
            return;
        };
        let Some(node) = &stored.node_id else {
            return;
        };
        if stored.state() > TaskState::Assigned {
            return;
        }
        let stored_secret = view.get::<Secret>(secret);
        let annotations = stored_secret.and_then(|secret| secret.spec.annotations.as_ref());
        let name = annotations.map_or_else(|| secret.to_string(), |own| own.name.clone());
        let reason: String = reason.chars().take(ERROR_CHARS_MAX).collect();
        let status = TaskStatus {
            message: format!("waiting for secret {name}").into(),
            err: format!("secret {name}: {reason}").into(),
            ..stored.status().clone()
        };
        let report = Report {
            node: node.clone(),
            task: task.clone(),
            status,
            // The questions have a pace of their own.
            is_step: true,
        };
        self.intake.put_status(now, report);
    }
}

/// What to ask; `None` when the secret or the task is gone, or needs no driver.
fn question(view: &Root, need: &Need) -> Option<(String, Arc<Secret>, Arc<Task>)> {
    let (task, secret) = need;
    let secret = view.get::<Secret>(secret)?;
    let driver = secret.spec.driver.as_ref()?;
    let task = view.task(task)?;
    Some((driver.name.clone(), Arc::clone(secret), Arc::clone(task)))
}

fn checked(answer: Result<SecretAnswer, String>) -> Result<SecretAnswer, String> {
    let answer = answer?;
    match answer.value.len() {
        0 => Err("the driver answered with no data".to_owned()),
        bytes if bytes >= SECRET_BYTES_LIMIT => Err(format!(
            "the driver answered with {bytes} bytes; a secret has less than {SECRET_BYTES_LIMIT}"
        )),
        _ => Ok(answer),
    }
}
