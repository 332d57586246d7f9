//! What a client asks for, judged and understood.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::id::IdError;
use swarm_types::{Id, NodeId, ServiceId, Task, TaskId, Timestamp};

use crate::error::BrokerError;

/// Ids in one selector. Every listening node gets the whole selector, so this bounds messages to
/// about 25 KiB; a client that wants more subscribes several times.
pub const SELECTOR_IDS_MAX: usize = 1_000;

/// Names a subscription. Agents see it as text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(Id);

impl SubscriptionId {
    pub(crate) fn new(id: Id) -> Self {
        Self(id)
    }
}

impl FromStr for SubscriptionId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        text.parse().map(Self)
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The objects of a selector: a task belongs to it if any of the three names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) services: BTreeSet<ServiceId>,
    pub(crate) nodes: BTreeSet<NodeId>,
    pub(crate) tasks: BTreeSet<TaskId>,
}

/// A request that is in order.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) wanted: Wanted,
    pub(crate) follow: bool,
    /// What nodes are told, but for the id.
    pub(crate) message: v1::SubscriptionMessage,
}

impl Wanted {
    fn read(selector: &v1::LogSelector) -> Result<Self, BrokerError> {
        let count = selector.service_ids.len() + selector.node_ids.len() + selector.task_ids.len();
        if count == 0 {
            return Err(BrokerError::empty_selector());
        }
        if count > SELECTOR_IDS_MAX {
            return Err(BrokerError::too_many_ids(count, SELECTOR_IDS_MAX));
        }
        Ok(Self {
            services: ids(&selector.service_ids, "service")?,
            nodes: ids(&selector.node_ids, "node")?,
            tasks: ids(&selector.task_ids, "task")?,
        })
    }

    /// Refuses names of what does not exist: the stream would stay empty without a word. A removed
    /// service whose tasks are still there exists; nodes are judged by whether they listen.
    fn check(&self, view: &Root) -> Result<(), BrokerError> {
        let is_gone = |id: &&ServiceId| {
            view.service(id).is_none() && view.tasks_of_service(id).next().is_none()
        };
        if let Some(id) = self.services.iter().find(is_gone) {
            return Err(BrokerError::no_service(id));
        }
        match self.tasks.iter().find(|id| view.task(id).is_none()) {
            Some(id) => Err(BrokerError::no_task(id)),
            None => Ok(()),
        }
    }

    /// Whether the selector names this task or its service. Nodes are counted by themselves.
    pub(crate) fn takes(&self, task: &Task) -> bool {
        let by_service = task.service_id.as_ref();
        self.tasks.contains(&task.id) || by_service.is_some_and(|id| self.services.contains(id))
    }

    /// The tasks of the selector that there are now, each once.
    pub(crate) fn tasks<'a>(&'a self, view: &'a Root) -> impl Iterator<Item = &'a Arc<Task>> {
        let by_service = self
            .services
            .iter()
            .flat_map(|id| view.tasks_of_service(id));
        let by_id = self.tasks.iter().filter_map(|id| view.task(id));
        let by_id = by_id.filter(|task| {
            let service = task.service_id.as_ref();
            service.is_none_or(|id| !self.services.contains(id))
        });
        by_service.chain(by_id)
    }
}

impl Wish {
    pub(crate) fn read(
        selector: Option<v1::LogSelector>,
        options: Option<v1::LogSubscriptionOptions>,
        view: &Root,
    ) -> Result<Self, BrokerError> {
        let selector = selector.ok_or_else(BrokerError::no_selector)?;
        let wanted = Wanted::read(&selector)?;
        let options = options.unwrap_or_default();
        check_options(&options)?;
        wanted.check(view)?;
        let follow = options.follow;
        // Agents look into both without asking whether they are there (spec 1.2).
        let message = v1::SubscriptionMessage {
            id: String::new(),
            selector: Some(selector),
            options: Some(options),
            close: false,
        };
        Ok(Self {
            wanted,
            follow,
            message,
        })
    }
}

fn ids<T: FromStr<Err = IdError> + Ord>(
    texts: &[String],
    noun: &str,
) -> Result<BTreeSet<T>, BrokerError> {
    let read = |text: &String| {
        text.parse()
            .map_err(|error| BrokerError::invalid(format!("{noun} id {text:?}: {error}")))
    };
    texts.iter().map(read).collect()
}

fn check_options(options: &v1::LogSubscriptionOptions) -> Result<(), BrokerError> {
    let is_output = |stream: &&i32| {
        matches!(
            v1::LogStream::try_from(**stream),
            Ok(v1::LogStream::Stdout | v1::LogStream::Stderr)
        )
    };
    if let Some(stream) = options.streams.iter().find(|stream| !is_output(stream)) {
        return Err(BrokerError::invalid(format!(
            "log stream {stream} is neither stdout (1) nor stderr (2)"
        )));
    }
    match &options.since {
        Some(since) if Timestamp::from_wire(since).is_none() => Err(BrokerError::invalid(format!(
            "option since is not a time: {} s and {} ns",
            since.seconds, since.nanos
        ))),
        Some(_) | None => Ok(()),
    }
}
