//! Takes tasks from NEW to PENDING once what they need is allocated (spec 19.5).
//!
//! Two kinds of keys: one pass over everybody who waits for numbers or addresses, as they compete
//! for them, and a task by its id, which needs neither. The pass puts the reason on the tasks that
//! have to wait, and it runs again when a port or an address is freed, a service or a node changes,
//! or a network comes or goes. SwarmKit waits up to five minutes for that, and says nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_api::v1;
use swarm_reconcile::{Ctx, Reconciler, Step, drift_from_resync};
use swarm_store::{Change, Root, Write};
use swarm_types::{Service, Task, TaskId, TaskState, TaskStatus, Text, Timestamp};

use crate::attachments::{is_settled, predefined, publishes, wanted};
use crate::cache::{Cache, News, is_waiting};
use crate::pass;

/// The message of a task that is ready for the scheduler.
pub const PENDING_MESSAGE: &str = "pending task scheduling";
/// How the error of a task begins whose service has to wait for its ports.
pub const PORTS_ERR_PREFIX: &str = "service ports could not be allocated: ";

/// What one decision is about. The pass comes first: tasks wait for services.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Everybody who waits for numbers or addresses.
    Pass,
    /// One task.
    Task(TaskId),
}

/// The loop that allocates.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocator {
    cache: Cache,
}

impl Reconciler for Allocator {
    type Key = Key;
    const NAME: &'static str = "allocator";
    // What it gave in its last commit must not be given again.
    const DECIDES_FROM_CACHE: bool = true;

    fn observe(&mut self, change: &Change, view: &Root, dirty: &mut BTreeSet<Key>) {
        mark(self.cache.observe(change, view), dirty);
    }

    fn resync(&mut self, view: &Root, dirty: &mut BTreeSet<Key>) {
        let (cache, news) = Cache::build(view);
        self.cache = cache;
        mark(news, dirty);
    }

    fn reconcile(&self, view: &Root, key: &Key, ctx: &mut Ctx<'_>) -> Step {
        match key {
            Key::Pass => pass::run(&self.cache, view, ctx.now),
            Key::Task(id) => Step {
                writes: self.allocate_task(view, id, ctx.now).into_iter().collect(),
                ..Step::default()
            },
        }
    }

    fn cache_drift(&self, view: &Root) -> Option<String> {
        drift_from_resync(self, view)
    }
}

impl Allocator {
    /// The write that brings on a task without an address, or says why it waits; `None`: nothing
    /// to do.
    fn allocate_task(&self, view: &Root, id: &TaskId, now: Timestamp) -> Option<Write> {
        let task = view.task(id).filter(|task| is_waiting(task))?;
        let service = match &task.service_id {
            // A service that is gone takes its tasks along.
            Some(id) => Some(&**view.service(id)?),
            None => None,
        };
        let ingress = self.cache.ingress.as_ref();
        let waits_for_pass = service.is_some_and(|service| {
            !is_settled(service, ingress) || (publishes(service) && task.networks.is_empty())
        });
        if waits_for_pass {
            return None;
        }
        bring_on(view, task, service, None, now)
    }
}

fn mark(news: News, dirty: &mut BTreeSet<Key>) {
    if news.pass {
        dirty.insert(Key::Pass);
    }
    dirty.extend(news.tasks.into_iter().map(Key::Task));
}

/// The write that takes a waiting task to PENDING with its endpoint and its attachments, ingress
/// first, or says which network it waits for.
pub(crate) fn bring_on(
    view: &Root,
    task: &Task,
    service: Option<&Service>,
    ingress: Option<v1::NetworkAttachment>,
    now: Timestamp,
) -> Option<Write> {
    let attachments = match predefined(view, wanted(task, service)) {
        Ok(attachments) => attachments,
        Err(reason) => return with_reason(task, reason.into(), now),
    };
    let mut task = task.clone();
    let networks: Vec<_> = ingress.into_iter().chain(attachments).collect();
    // Versions of a task share what is not written.
    if task.networks.is_empty() && !networks.is_empty() {
        task.networks = networks.into();
    }
    if let Some(endpoint) = service.and_then(|service| service.endpoint.as_ref())
        && task.endpoint.as_ref() != Some(endpoint)
    {
        task.endpoint = Some(Arc::clone(endpoint));
    }
    let status = TaskStatus::new(TaskState::Pending, now, PENDING_MESSAGE);
    task.advance(status).ok()?;
    Some(Write::update(task))
}

/// The write that puts a reason on a waiting task; `None` when it is there already.
pub(crate) fn with_reason(task: &Task, err: Text, now: Timestamp) -> Option<Write> {
    if task.status().err == err {
        return None;
    }
    let mut task = task.clone();
    let status = TaskStatus {
        timestamp: Some(now),
        err,
        ..task.status().clone()
    };
    task.advance(status).ok()?;
    Some(Write::update(task))
}

#[cfg(test)]
mod tests;
