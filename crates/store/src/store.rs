//! The published root, its feed and its history: what readers and subscribers hold on to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use swarm_types::{Id, Kind, Timestamp, Version};

use crate::feed::{Filter, Hub, SUBSCRIBER_CHANGES_MAX, Subscription};
use crate::history::{Compacted, History, HistoryLimits, story};
use crate::root::{Root, View};
use crate::transaction::{Change, Commit, Transaction};

/// The store of one process. Readers take a [`View`] without waiting; one writer at a time makes a
/// commit and publishes it.
#[derive(Debug)]
pub struct Store {
    root: ArcSwap<Root>,
    writer: Mutex<()>,
    feed: Mutex<Feed>,
}

#[derive(Debug)]
struct Feed {
    hub: Hub,
    history: History,
    /// Commits that are published but not yet offered to subscribers.
    waiting: Vec<Arc<Commit>>,
}

impl Feed {
    fn fan_out(&mut self) {
        for commit in std::mem::take(&mut self.waiting) {
            self.hub.publish(&commit);
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new(Root::default(), HistoryLimits::default())
    }
}

impl Store {
    /// A store that begins with a root.
    pub fn new(root: Root, limits: HistoryLimits) -> Self {
        let history = History::new(limits, root.version());
        Self {
            root: ArcSwap::from_pointee(root),
            writer: Mutex::new(()),
            feed: Mutex::new(Feed {
                hub: Hub::new(),
                history,
                waiting: Vec::new(),
            }),
        }
    }

    /// The newest published version; never blocks.
    pub fn view(&self) -> View {
        self.root.load_full()
    }

    /// Runs a transaction and publishes it, or undoes everything when `write` refuses.
    ///
    /// For a store without a log: tests, benchmarks. A replicated store makes the commit from its
    /// own head, puts it through the log, and calls [`Store::publish`].
    ///
    /// # Errors
    /// What `write` returns.
    pub fn update<T, E>(
        &self,
        now: Timestamp,
        write: impl FnOnce(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let _one_writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut transaction = self.root.load().begin(now);
        let value = write(&mut transaction)?;
        if !transaction.is_empty() {
            let (root, commit) = transaction.finish();
            self.publish(root, Arc::new(commit));
            self.fan_out();
        }
        Ok(value)
    }

    /// Makes a commit visible to readers. Subscribers get it with the next [`Store::fan_out`].
    pub fn publish(&self, root: Root, commit: Arc<Commit>) {
        let mut feed = self.feed();
        self.root.store(Arc::new(root));
        feed.history.push(Arc::clone(&commit));
        feed.waiting.push(commit);
    }

    /// Replaces everything, after a snapshot was received. Subscribers are cut off and start over.
    pub fn reset(&self, root: Root) {
        let mut feed = self.feed();
        feed.waiting.clear();
        feed.hub.close();
        feed.history = History::new(feed.history.limits(), root.version());
        self.root.store(Arc::new(root));
    }

    /// Offers what was published to the subscribers; apart from `publish`, so that the commit path
    /// need not wait for it.
    pub fn fan_out(&self) {
        self.feed().fan_out();
    }

    /// A view and every matching change after it: no gap, no duplicate.
    pub fn view_and_watch(&self, filter: Filter) -> (View, Subscription) {
        self.view_and_watch_bounded(filter, SUBSCRIBER_CHANGES_MAX)
    }

    /// The same with a bound of the caller's on the changes that may wait.
    pub fn view_and_watch_bounded(&self, filter: Filter, limit: usize) -> (View, Subscription) {
        let mut feed = self.feed();
        // What waits is in the view already, so it must not reach the new subscriber.
        feed.fan_out();
        let view = self.root.load_full();
        let subscription = feed.hub.subscribe(filter, view.version(), limit);
        (view, subscription)
    }

    /// The commits after a version, from the history.
    ///
    /// # Errors
    /// [`Compacted`] when the history begins later.
    pub fn commits_since(&self, version: Version) -> Result<Vec<Arc<Commit>>, Compacted> {
        self.feed().history.since(version)
    }

    /// What is still known of one object's past, oldest first.
    pub fn history_of(&self, kind: Kind, id: &Id) -> Vec<(Arc<Commit>, Change)> {
        let window = self.feed().history.window();
        story(&window, kind, id)
    }

    fn feed(&self) -> MutexGuard<'_, Feed> {
        // Every step leaves the feed valid, so a panic elsewhere cannot break it.
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
