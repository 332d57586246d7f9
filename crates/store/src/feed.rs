//! The change feed: subscriptions with filters, routed and filtered by the publisher.
//!
//! One message per commit and subscriber, never a scan over subscribers that cannot match: plain
//! subscriptions are listed by kind, keyed ones by (kind, key). Every queue is bounded; a
//! subscriber that falls behind is told so and loses its queue, it never holds a commit up.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use swarm_types::{AnyObject, Id, Kind, NodeId, ServiceId, Version};

use crate::transaction::{Action, Change, Commit};

/// Changes that wait for one subscriber at most. A loop that is this far behind reads the whole
/// state again faster than it would read the changes.
pub const SUBSCRIBER_CHANGES_MAX: usize = 10_000;

/// Routes a subscription by something cheaper than a predicate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

    /// Only changes for which this holds.
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
        self.picked
            .as_ref()
            .map_or(self.commit.changes.len(), |picked| picked.len())
            .max(1)
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
    queue: Arc<Queue>,
    local: VecDeque<Event>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<QueueState>,
}

#[derive(Debug, Default)]
struct QueueState {
    events: VecDeque<Event>,
    weight: usize,
    limit: usize,
    delivered: Version,
    lagged: bool,
    closed: bool,
    waker: Option<Waker>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        // The state is valid between any two statements, so a panic elsewhere cannot break it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an event over; `false` when the subscriber is gone or was cut off.
    fn push(&self, event: Event) -> bool {
        let waker = {
            let mut state = self.lock();
            if state.closed || state.lagged {
                return false;
            }
            if state.weight + event.weight() > state.limit && !state.events.is_empty() {
                // What waits is dropped whole: a gap in the middle would be worse than a restart.
                state.events.clear();
                state.weight = 0;
                state.lagged = true;
            } else {
                state.weight += event.weight();
                state.events.push_back(event);
            }
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}

impl Subscription {
    /// The next item if there is one.
    pub fn try_next(&mut self) -> Option<Received> {
        if let Some(event) = self.local.pop_front() {
            return Some(Received::Event(event));
        }
        let queue = Arc::clone(&self.queue);
        let mut state = queue.lock();
        self.refill(&mut state);
        if let Some(event) = self.local.pop_front() {
            return Some(Received::Event(event));
        }
        if state.lagged {
            return Some(Received::Lagged {
                last: state.delivered,
            });
        }
        state.closed.then_some(Received::Closed)
    }

    /// The next item, for an executor to poll. After `Lagged` or `Closed` it repeats itself.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Received> {
        if let Some(received) = self.try_next() {
            return Poll::Ready(received);
        }
        {
            let mut state = self.queue.lock();
            if state.events.is_empty() && !state.lagged && !state.closed {
                state.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        self.try_next().map_or(Poll::Pending, Poll::Ready)
    }

    /// The next item.
    pub async fn next(&mut self) -> Received {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Takes all that waits in one go.
    fn refill(&mut self, state: &mut QueueState) {
        if let Some(last) = state.events.back() {
            state.delivered = last.version();
            state.weight = 0;
            std::mem::swap(&mut self.local, &mut state.events);
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
    }
}

/// The publisher's side: who wants what.
#[derive(Debug, Default)]
pub struct Hub {
    next_id: u64,
    subscribers: BTreeMap<u64, Subscriber>,
    everything: BTreeSet<u64>,
    by_kind: BTreeMap<Kind, BTreeSet<u64>>,
    by_key: BTreeMap<(Kind, Key), BTreeSet<u64>>,
}

#[derive(Debug)]
struct Subscriber {
    queue: Arc<Queue>,
    start: Version,
    filter: Filter,
}

impl Hub {
    /// A hub without subscribers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Subscribes to the commits after `start`. At most `limit` changes wait for the subscriber.
    pub fn subscribe(&mut self, filter: Filter, start: Version, limit: usize) -> Subscription {
        let id = self.next_id;
        self.next_id += 1;
        let state = QueueState {
            limit,
            delivered: start,
            ..QueueState::default()
        };
        let queue = Arc::new(Queue {
            state: Mutex::new(state),
        });
        for index in self.routes(&filter) {
            self.route_mut(index).insert(id);
        }
        self.subscribers.insert(
            id,
            Subscriber {
                queue: Arc::clone(&queue),
                start,
                filter,
            },
        );
        Subscription {
            queue,
            local: VecDeque::new(),
        }
    }

    /// How many subscribers there are, not counting those found gone.
    pub fn len(&self) -> usize {
        self.subscribers.len()
    }

    /// Whether nobody listens.
    pub fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    /// Delivers a commit to everyone whose filter takes something of it.
    pub fn publish(&mut self, commit: &Arc<Commit>) {
        let mut gone = Vec::new();
        for id in &self.everything {
            let subscriber = &self.subscribers[id];
            if commit.version > subscriber.start {
                let event = Event {
                    commit: Arc::clone(commit),
                    picked: None,
                };
                if !subscriber.queue.push(event) {
                    gone.push(*id);
                }
            }
        }
        for (id, picked) in self.pick(commit) {
            let event = Event {
                commit: Arc::clone(commit),
                picked: Some(picked.into()),
            };
            if !self.subscribers[&id].queue.push(event) {
                gone.push(id);
            }
        }
        for id in gone {
            self.remove(id);
        }
    }

    /// Tells every subscriber that nothing follows.
    pub fn close(&mut self) {
        for (_, subscriber) in std::mem::take(&mut self.subscribers) {
            let waker = {
                let mut state = subscriber.queue.lock();
                state.closed = true;
                state.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
        *self = Self {
            next_id: self.next_id,
            ..Self::default()
        };
    }

    /// Which changes each filtered subscriber gets.
    fn pick(&self, commit: &Commit) -> BTreeMap<u64, Vec<u32>> {
        let mut picked: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        if self.by_kind.is_empty() && self.by_key.is_empty() {
            return picked;
        }
        for (index, change) in commit.changes.iter().enumerate() {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            for id in self.candidates(change) {
                let subscriber = &self.subscribers[&id];
                if commit.version > subscriber.start && subscriber.takes(change) {
                    picked.entry(id).or_default().push(index);
                }
            }
        }
        picked
    }

    fn candidates(&self, change: &Change) -> BTreeSet<u64> {
        let kind = change.object.kind();
        let mut found = self.by_kind.get(&kind).cloned().unwrap_or_default();
        if !self.by_key.is_empty() {
            for key in keys(change) {
                found.extend(self.by_key.get(&(kind, key)).into_iter().flatten());
            }
        }
        found
    }

    fn remove(&mut self, id: u64) {
        let Some(subscriber) = self.subscribers.remove(&id) else {
            return;
        };
        for route in self.routes(&subscriber.filter) {
            let empty = {
                let ids = self.route_mut(route.clone());
                ids.remove(&id);
                ids.is_empty()
            };
            match route {
                Route::Kind(kind) if empty => drop(self.by_kind.remove(&kind)),
                Route::Key(kind, key) if empty => drop(self.by_key.remove(&(kind, key))),
                Route::Everything | Route::Kind(_) | Route::Key(..) => {}
            }
        }
    }

    fn routes(&self, filter: &Filter) -> Vec<Route> {
        match filter {
            Filter::All => vec![Route::Everything],
            Filter::Any(selectors) => selectors
                .iter()
                .map(|selector| match &selector.key {
                    None => Route::Kind(selector.kind),
                    Some(key) => Route::Key(selector.kind, key.clone()),
                })
                .collect(),
        }
    }

    fn route_mut(&mut self, route: Route) -> &mut BTreeSet<u64> {
        match route {
            Route::Everything => &mut self.everything,
            Route::Kind(kind) => self.by_kind.entry(kind).or_default(),
            Route::Key(kind, key) => self.by_key.entry((kind, key)).or_default(),
        }
    }
}

#[derive(Clone)]
enum Route {
    Everything,
    Kind(Kind),
    Key(Kind, Key),
}

impl Subscriber {
    fn takes(&self, change: &Change) -> bool {
        let Filter::Any(selectors) = &self.filter else {
            return true;
        };
        selectors.iter().any(|selector| {
            selector.kind == change.object.kind()
                && selector
                    .key
                    .as_ref()
                    .is_none_or(|key| keys(change).any(|own| own == *key))
                && selector.accepts(change)
        })
    }
}

/// The keys by which a change can be wanted.
fn keys(change: &Change) -> impl Iterator<Item = Key> {
    let object = Key::Object(change.object.raw_id().clone());
    let sides = [Some(&change.object), change.old.as_ref()]
        .into_iter()
        .flatten();
    let tasks = sides.flat_map(|side| {
        let AnyObject::Task(task) = side else {
            return [None, None];
        };
        [
            task.node_id.clone().map(Key::TasksOnNode),
            task.service_id.clone().map(Key::TasksOfService),
        ]
    });
    std::iter::once(object).chain(tasks.flatten())
}
