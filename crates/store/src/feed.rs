//! The change feed: what a subscriber can ask for and what it gets.
//!
//! Filtered subscribers have a queue each, which the publisher fills only with what they want
//! ([`hub`]). Subscribers that want every commit read one log that they share ([`log`]), so that
//! publishing costs the same for one of them and for a thousand. Both are bounded; a subscriber
//! that falls behind is told so and starts over, it never holds a commit up.

mod hub;
mod log;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use swarm_types::{Id, Kind, NodeId, ServiceId, Version};

use crate::transaction::{Action, Change, Commit};

pub use hub::Hub;

/// Changes that wait for one subscriber at most. A loop that is this far behind reads the whole
/// state again faster than it would read the changes.
pub const SUBSCRIBER_CHANGES_MAX: usize = 10_000;

/// Routes a subscription by something cheaper than a predicate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// One object.
    Object(Id),
    /// Tasks on a node, before or after the change.
    TasksOnNode(NodeId),
    /// Tasks of a service.
    TasksOfService(ServiceId),
}

type Predicate = Arc<dyn Fn(&Change) -> bool + Send + Sync>;

/// One alternative of a filter: all its parts must hold.
#[derive(Clone)]
pub struct Selector {
    kind: Kind,
    actions: BTreeSet<Action>,
    key: Option<Key>,
    predicate: Option<Predicate>,
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Selector")
            .field("kind", &self.kind)
            .field("actions", &self.actions)
            .field("key", &self.key)
            .field("predicate", &self.predicate.is_some())
            .finish()
    }
}

impl Selector {
    /// Every change of a kind.
    pub fn kind(kind: Kind) -> Self {
        let actions = [Action::Create, Action::Update, Action::Remove].into();
        Self {
            kind,
            actions,
            key: None,
            predicate: None,
        }
    }

    /// Only these actions.
    #[must_use]
    pub fn actions(mut self, actions: impl IntoIterator<Item = Action>) -> Self {
        self.actions = actions.into_iter().collect();
        self
    }

    /// Only what this key routes.
    #[must_use]
    pub fn key(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// Only changes for which this holds. It runs on the publisher's side, for each change of the
    /// kind and the key, and must not use the store.
    #[must_use]
    pub fn matching(mut self, predicate: impl Fn(&Change) -> bool + Send + Sync + 'static) -> Self {
        self.predicate = Some(Arc::new(predicate));
        self
    }

    /// The rest of the test, once kind and key have matched.
    fn accepts(&self, change: &Change) -> bool {
        self.actions.contains(&change.action)
            && self
                .predicate
                .as_ref()
                .is_none_or(|predicate| predicate(change))
    }
}

/// What a subscriber wants: everything, or what one of the selectors takes.
#[derive(Clone, Debug)]
pub enum Filter {
    /// Every commit.
    All,
    /// Changes that one of these takes.
    Any(Vec<Selector>),
}

/// One commit as one subscriber sees it.
#[derive(Clone, Debug)]
pub struct Event {
    commit: Arc<Commit>,
    picked: Option<Box<[u32]>>,
}

impl Event {
    /// The version of the commit.
    pub fn version(&self) -> Version {
        self.commit.version
    }

    /// The whole commit.
    pub fn commit(&self) -> &Arc<Commit> {
        &self.commit
    }

    /// The changes that the filter took, in order.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        let all = self.picked.is_none().then_some(&self.commit.changes[..]);
        let picked = self.picked.as_deref().unwrap_or_default();
        all.unwrap_or_default().iter().chain(
            picked
                .iter()
                .map(|index| &self.commit.changes[*index as usize]),
        )
    }

    fn weight(&self) -> usize {
        self.changes().map(Change::weight).sum::<usize>().max(1)
    }
}

/// What a subscription yields.
#[derive(Clone, Debug)]
pub enum Received {
    /// The next commit with matching changes.
    Event(Event),
    /// The subscriber was too slow. Nothing follows; resume after `last` or read everything again.
    Lagged {
        /// The version up to which everything was delivered.
        last: Version,
    },
    /// The feed has ended.
    Closed,
}

/// A subscription; dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    source: Source,
    /// Taken from the source in one go and not yet handed out.
    local: VecDeque<Event>,
}

#[derive(Debug)]
enum Source {
    Queue(queue::Reader),
    Log(log::Reader),
}

/// What a source has beyond the events that it handed over.
enum Rest {
    /// Nothing now, more may come.
    Waiting,
    Lagged(Version),
    Closed,
}

impl Subscription {
    /// The next item if there is one.
    pub fn try_next(&mut self) -> Option<Received> {
        if let Some(event) = self.local.pop_front() {
            return Some(Received::Event(event));
        }
        let rest = match &mut self.source {
            Source::Queue(queue) => queue.refill(&mut self.local),
            Source::Log(log) => log.refill(&mut self.local),
        };
        if let Some(event) = self.local.pop_front() {
            return Some(Received::Event(event));
        }
        match rest {
            Rest::Waiting => None,
            Rest::Lagged(last) => Some(Received::Lagged { last }),
            Rest::Closed => Some(Received::Closed),
        }
    }

    /// The next item, for an executor to poll. After `Lagged` or `Closed` it repeats itself.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Received> {
        loop {
            if let Some(received) = self.try_next() {
                return Poll::Ready(received);
            }
            let parked = match &mut self.source {
                Source::Queue(queue) => queue.park(context.waker()),
                Source::Log(log) => log.park(context.waker()),
            };
            if parked {
                return Poll::Pending;
            }
        }
    }

    /// The next item.
    pub async fn next(&mut self) -> Received {
        poll_fn(|context| self.poll_next(context)).await
    }
}
