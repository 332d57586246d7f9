//! The checkers: what they remember of the run, and which checks run when.
//!
//! Every commit is checked when it is applied, every process when it starts, caches and totals once
//! a virtual second.

pub(crate) mod commits;
pub(crate) mod ends;
mod placement;
mod processes;
pub(crate) mod trust;

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_store::{Action, Commit, Filter, Pipeline, Received, Root, Store, Subscription};
use swarm_types::{
    AnyObject, Cluster, Config, Extension, Network, Node, NodeState, Resource, Secret, Service,
    Task, TaskId, TaskState, Timestamp, Version, Volume,
};

use crate::invariants::{Checked, DURABLE, FEED, REPLICA, VERSIONS, Violation, ensure};
use crate::manager::replica::{Author, Entry};

/// Commits between comparisons of the whole store with its replica.
const COMMITS_PER_COMPARISON: u64 = 64;

/// What the checkers know.
pub(crate) struct Checker {
    /// Everything that was acknowledged so far.
    pub(crate) acked: Root,
    /// A member that only ever sees the log.
    shadow: Pipeline,
    feed: Option<Subscription>,
    mirror: Root,
    /// Tasks that the manager stopped to wait for: their processes may run beside a replacement.
    pub(crate) given_up: BTreeSet<TaskId>,
    /// On which node each task was started.
    pub(crate) started: std::collections::BTreeMap<TaskId, crate::event::NodeIx>,
    pub(crate) commits: u64,
    /// How often two processes of one replica ran at once, for a reason that is allowed.
    pub(crate) double_runs: u64,
}

impl Checker {
    pub(crate) fn new() -> Self {
        Self {
            acked: Root::default(),
            shadow: Pipeline::new(Root::default(), 1),
            feed: None,
            mirror: Root::default(),
            given_up: BTreeSet::new(),
            started: std::collections::BTreeMap::new(),
            commits: 0,
            double_runs: 0,
        }
    }

    /// The manager has started from a snapshot of this version, and replayed these entries.
    pub(crate) fn handle_start(
        &mut self,
        store: &Store,
        from: Version,
        entries: Vec<Entry>,
    ) -> Checked {
        let view = store.view();
        let acked = self.acked.version();
        ensure(view.version() >= acked, DURABLE, || {
            format!(
                "version {acked} was acknowledged, the log has {}",
                view.version()
            )
        })?;
        if from == acked && entries.is_empty() {
            compare(&view, &self.acked, DURABLE)?;
        }
        ensure(from <= acked, DURABLE, || {
            format!("the snapshot has version {from}, applied was {acked}")
        })?;
        for entry in entries {
            if entry.root.version() < acked {
                continue;
            }
            if entry.root.version() == acked {
                compare(&entry.root, &self.acked, DURABLE)?;
            } else {
                self.handle_entry(entry)?;
            }
        }
        let (view, feed) = store.view_and_watch_bounded(Filter::All, usize::MAX);
        self.mirror = Root::clone(&view);
        self.feed = Some(feed);
        Ok(())
    }

    /// The manager is gone, and its feed with it.
    pub(crate) fn handle_death(&mut self) {
        self.feed = None;
    }

    /// An entry was applied.
    pub(crate) fn handle_entry(&mut self, entry: Entry) -> Checked {
        let Entry {
            author,
            bytes,
            before,
            root,
            commit,
        } = entry;
        self.commits += 1;
        let expected = self.acked.version().next();
        ensure(
            root.version() == expected && commit.version == expected,
            VERSIONS,
            || {
                format!(
                    "{} came after {}: {author:?}",
                    root.version(),
                    self.acked.version()
                )
            },
        )?;
        self.replay(&bytes, &root, &commit)?;
        commits::check(author, &before, &root, &commit, &self.given_up)?;
        placement::check(author, &root, &commit)?;
        self.note(author, &root, &commit);
        self.acked = root;
        Ok(())
    }

    fn replay(&mut self, bytes: &[u8], root: &Root, commit: &Commit) -> Checked {
        let applied = self.shadow.applied(bytes);
        let applied = applied.map_err(|error| {
            Violation::new(REPLICA, format!("version {}: {error}", commit.version))
        })?;
        for change in &commit.changes {
            let (kind, id) = (change.object.kind(), change.object.raw_id());
            let (own, other) = (root.get_any(kind, id), applied.root.get_any(kind, id));
            ensure(own == other, REPLICA, || {
                format!("{kind:?} {id}: the leader has {own:#?}, a replica {other:#?}")
            })?;
        }
        if self.commits.is_multiple_of(COMMITS_PER_COMPARISON) {
            compare(&applied.root, root, REPLICA)?;
        }
        Ok(())
    }

    /// Reads the feed of changes and replays it.
    pub(crate) fn read_feed(&mut self, store: &Store) -> Checked {
        let Some(feed) = &mut self.feed else {
            return Ok(());
        };
        while let Some(received) = feed.try_next() {
            let Received::Event(event) = received else {
                return Err(Violation::new(
                    FEED,
                    format!("the feed ended: {received:?}"),
                ));
            };
            ensure(
                event.version() == self.mirror.version().next(),
                FEED,
                || format!("{} followed {}", event.version(), self.mirror.version()),
            )?;
            self.mirror = self.mirror.apply(event.commit()).map_err(|error| {
                Violation::new(FEED, format!("version {}: {error}", event.version()))
            })?;
        }
        compare(&self.mirror, &store.view(), FEED)
    }

    /// Remembers what allows two processes of one replica.
    fn note(&mut self, author: Author, root: &Root, commit: &Commit) {
        for change in &commit.changes {
            match &change.object {
                AnyObject::Task(task) => {
                    self.note_task(author, root, change.action, task, commit.at)
                }
                AnyObject::Node(node) => {
                    let is_gone =
                        change.action == Action::Remove || node.status.state == NodeState::Down;
                    if is_gone {
                        let tasks = root.tasks_on_node(&node.id).map(|task| task.id.clone());
                        self.given_up.extend(tasks);
                    }
                }
                AnyObject::Service(_)
                | AnyObject::Network(_)
                | AnyObject::Cluster(_)
                | AnyObject::Secret(_)
                | AnyObject::Resource(_)
                | AnyObject::Extension(_)
                | AnyObject::Config(_)
                | AnyObject::Volume(_) => {}
            }
        }
    }

    fn note_task(
        &mut self,
        author: Author,
        root: &Root,
        action: Action,
        task: &Arc<Task>,
        at: Timestamp,
    ) {
        let is_ended_by_manager = task.is_terminal() && author.name() != "dispatcher";
        let is_given_up = action == Action::Remove
            || task.desired_state() == TaskState::Remove
            || task.state() == TaskState::Orphaned
            || is_ended_by_manager;
        if is_given_up {
            self.given_up.insert(task.id.clone());
        }
        let old = commits::replica(root, task)
            .into_iter()
            .filter(|other| other.id != task.id)
            .filter(|other| other.meta.created_at <= task.meta.created_at)
            .filter(|other| commits::need_not_wait(task, other, at));
        self.given_up.extend(old.map(|other| other.id.clone()));
    }
}

/// Whether two stores hold the same objects.
pub(crate) fn compare(
    one: &Root,
    other: &Root,
    invariant: crate::invariants::Invariant,
) -> Checked {
    macro_rules! kinds {
        ($($kind:ty),*) => {$(
            ensure(one.count::<$kind>() == other.count::<$kind>(), invariant, || {
                format!("{} and {} objects of a kind: {}", one.count::<$kind>(),
                    other.count::<$kind>(), stringify!($kind))
            })?;
            for (one, other) in one.all::<$kind>().zip(other.all::<$kind>()) {
                ensure(Arc::ptr_eq(one, other) || one == other, invariant, || {
                    format!("{one:#?} is not {other:#?}")
                })?;
            }
        )*};
    }
    kinds!(Task, Node, Service, Network, Cluster);
    kinds!(Secret, Config, Volume, Resource, Extension);
    ensure(one.version() == other.version(), invariant, || {
        format!("versions {} and {}", one.version(), other.version())
    })
}
