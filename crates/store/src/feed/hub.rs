//! The publisher's side: who wants what.
//!
//! Never a scan over subscribers that cannot match: plain subscriptions are listed by kind, keyed
//! ones by (kind, key). One message per commit and subscriber.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Mutex, PoisonError};

use swarm_types::{AnyObject, Kind, Task, Version};

use super::log::Log;
use super::queue::{Queue, Reader};
use super::{Event, Filter, Key, Selector, Source, Subscription};
use crate::transaction::{Change, Commit};

/// Subscribers by what they want. Hashed, because a change looks up several routes and must not pay
/// for the number of those who want others; never iterated, and the same in every run.
type Routes = HashMap<(Kind, Key), BTreeSet<u64>, BuildHasherDefault<DefaultHasher>>;

/// All subscribers.
#[derive(Debug, Default)]
pub struct Hub {
    next_id: u64,
    /// Subscribers without a filter.
    log: Arc<Log>,
    subscribers: BTreeMap<u64, Subscriber>,
    /// Sets may be empty. There are ten kinds, so this is found faster than hashed.
    by_kind: BTreeMap<Kind, BTreeSet<u64>>,
    by_key: Routes,
    /// Subscribers that were dropped since the last publication.
    gone: Arc<Mutex<Vec<u64>>>,
}

#[derive(Debug)]
struct Subscriber {
    queue: Arc<Queue>,
    start: Version,
    selectors: Vec<Selector>,
}

impl Hub {
    /// A hub without subscribers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Subscribes to the commits after `start`. At most `limit` changes wait for the subscriber.
    pub fn subscribe(&mut self, filter: Filter, start: Version, limit: usize) -> Subscription {
        self.remove_gone();
        let id = self.next_id;
        self.next_id += 1;
        let source = match filter {
            Filter::All => Source::Log(self.log.subscribe(id, start, limit)),
            Filter::Any(selectors) => {
                Source::Queue(self.subscribe_filtered(id, selectors, start, limit))
            }
        };
        Subscription {
            source,
            local: VecDeque::new(),
        }
    }

    fn subscribe_filtered(
        &mut self,
        id: u64,
        selectors: Vec<Selector>,
        start: Version,
        limit: usize,
    ) -> Reader {
        let queue = Arc::new(Queue::new(start, limit));
        for selector in &selectors {
            match &selector.key {
                None => self.by_kind.entry(selector.kind).or_default().insert(id),
                Some(key) => {
                    let route = (selector.kind, key.clone());
                    self.by_key.entry(route).or_default().insert(id)
                }
            };
        }
        self.subscribers.insert(
            id,
            Subscriber {
                queue: Arc::clone(&queue),
                start,
                selectors,
            },
        );
        Reader {
            queue,
            id,
            gone: Arc::clone(&self.gone),
        }
    }

    /// How many subscribers there are; not those that were dropped or lagged.
    pub fn len(&self) -> usize {
        let gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        let present = |id: &&u64| self.subscribers.contains_key(id);
        self.log.len() + self.subscribers.len() - gone.iter().filter(present).count()
    }

    /// Whether nobody listens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Delivers a commit to everyone whose filter takes something of it.
    pub fn publish(&mut self, commit: &Arc<Commit>) {
        self.remove_gone();
        self.log.publish(commit);
        let candidates = self.candidates(commit);
        for group in candidates.chunk_by(|one, two| one.0 == two.0) {
            let Some(subscriber) = group.first().and_then(|(id, _)| self.subscribers.get(id))
            else {
                continue;
            };
            let Some(event) = subscriber.event(commit, group.iter().map(|(_, index)| *index))
            else {
                continue;
            };
            if !subscriber.queue.push(event) {
                self.remove(group[0].0);
            }
        }
    }

    /// Tells every subscriber that nothing follows.
    pub fn close(&mut self) {
        self.log.close();
        for subscriber in self.subscribers.values() {
            subscriber.queue.close();
        }
        *self = Self {
            next_id: self.next_id,
            ..Self::default()
        };
    }

    /// Pairs of a subscriber and a change of its kind and key, sorted and without repetition.
    fn candidates(&self, commit: &Commit) -> Vec<(u64, u32)> {
        let mut found = Vec::new();
        if self.subscribers.is_empty() {
            return found;
        }
        for (index, change) in (0u32..).zip(&commit.changes) {
            let kind = change.object.kind();
            if let Some(ids) = self.by_kind.get(&kind) {
                found.extend(ids.iter().map(|id| (*id, index)));
            }
            if self.by_key.is_empty() {
                continue;
            }
            for key in keys(change) {
                if let Some(ids) = self.by_key.get(&(kind, key)) {
                    found.extend(ids.iter().map(|id| (*id, index)));
                }
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn remove_gone(&mut self) {
        let gone = {
            let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *gone)
        };
        for id in gone {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u64) {
        let Some(subscriber) = self.subscribers.remove(&id) else {
            return;
        };
        for selector in subscriber.selectors {
            match selector.key {
                None => {
                    if let Some(ids) = self.by_kind.get_mut(&selector.kind) {
                        ids.remove(&id);
                    }
                }
                Some(key) => leave(&mut self.by_key, (selector.kind, key), id),
            }
        }
    }
}

/// Takes a subscriber off one list, and the list away if it was the last one there.
fn leave(lists: &mut Routes, route: (Kind, Key), id: u64) {
    if let Some(ids) = lists.get_mut(&route) {
        ids.remove(&id);
        if ids.is_empty() {
            lists.remove(&route);
        }
    }
}

impl Subscriber {
    /// The commit as this subscriber sees it; `None` if nothing in it is for it.
    fn event(&self, commit: &Arc<Commit>, indices: impl Iterator<Item = u32>) -> Option<Event> {
        if commit.version <= self.start {
            return None;
        }
        let picked: Box<[u32]> = indices
            .filter(|index| self.takes(&commit.changes[*index as usize]))
            .collect();
        (!picked.is_empty()).then(|| Event {
            commit: Arc::clone(commit),
            picked: Some(picked),
        })
    }

    fn takes(&self, change: &Change) -> bool {
        self.selectors.iter().any(|selector| {
            selector.kind == change.object.kind()
                && selector
                    .key
                    .as_ref()
                    .is_none_or(|key| keys(change).any(|own| own == *key))
                && selector.accepts(change)
        })
    }
}

/// The keys by which a change can be wanted, each once.
fn keys(change: &Change) -> impl Iterator<Item = Key> {
    let object = Key::Object(change.object.raw_id().clone());
    let (new, old) = (task(Some(&change.object)), task(change.old.as_ref()));
    let node = |task: &Task| task.node_id.clone();
    let service = |task: &Task| task.service_id.clone();
    let nodes = both(new.and_then(node), old.and_then(node)).map(|id| id.map(Key::TasksOnNode));
    let services =
        both(new.and_then(service), old.and_then(service)).map(|id| id.map(Key::TasksOfService));
    std::iter::once(object).chain(nodes.into_iter().chain(services).flatten())
}

fn task(object: Option<&AnyObject>) -> Option<&Task> {
    if let Some(AnyObject::Task(task)) = object {
        Some(task)
    } else {
        None
    }
}

/// Most changes leave both alone, and what is looked up twice costs twice.
fn both<T: PartialEq>(new: Option<T>, old: Option<T>) -> [Option<T>; 2] {
    let old = old.filter(|old| new.as_ref() != Some(old));
    [new, old]
}
