//! Drives one loop: collects dirty keys, packs steps into a transaction, remembers timers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_store::{Commit, Fit, Oversize, Room, Root, WriteSet};
use swarm_types::{IdSource, Timers, Timestamp, Version};

use crate::{Accepted, Ctx, Reconciler, Step, Wake};

/// Keys looked at for one transaction at most, so that a storm of converged keys cannot keep the
/// other loops from their turn.
pub const STEPS_PER_TRANSACTION_MAX: usize = 1_000;

/// A loop whose transaction the log refused waits so long before it asks again: a disk that is full
/// is full for a while, and asking at once would keep a processor busy with refusals.
pub const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Sets that were given up and of which nobody asked yet, at most; of more it is enough to know
/// these.
pub const OVERSIZE_KEPT_MAX: usize = 16;

/// Reason to be asked again at once.
const HAS_MORE_KEYS: &str = "more keys than are looked at in one turn";

/// Reason of the timer that ends this wait.
const WAITS_FOR_LOG: &str = "the log refused a transaction";

/// A transaction that a loop wants committed. Each set is applied or refused by itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The write sets, in the order in which the queue remembers their keys.
    pub sets: Vec<WriteSet>,
}

/// How a batch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was committed but for the sets at these positions, which had conflicts.
    Committed {
        /// The version that it led to (the current one, if every set was refused).
        version: Version,
        /// Positions of refused sets, ascending.
        refused: Vec<usize>,
    },
    /// Not all of it fitted an entry of the log. What did fit was committed.
    Parted {
        /// The version that this led to, or the one on which nothing fitted.
        version: Version,
        /// Sets that had conflicts, or that fit another transaction.
        refused: Vec<usize>,
        /// Sets that no entry can hold. Sent again they would not fit again.
        oversize: Vec<usize>,
    },
    /// Nothing was written: the log refused it, or leadership is gone.
    Failed,
}

impl Outcome {
    /// The end of a batch that was committed with a version, but for some of its sets.
    pub fn committed(version: Version, refused: Vec<usize>, oversize: Vec<usize>) -> Self {
        if oversize.is_empty() {
            return Self::Committed { version, refused };
        }
        Self::Parted {
            version,
            refused,
            oversize,
        }
    }
}

/// What a queue has to do, for status pages and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueStatus {
    /// The loop's name.
    pub name: &'static str,
    /// Keys that wait to be looked at.
    pub dirty: usize,
    /// Timers that are set.
    pub timers: usize,
    /// Write sets in flight.
    pub in_flight: usize,
    /// Steps run so far.
    pub steps: u64,
    /// Conflicts so far.
    pub conflicts: u64,
}

/// Owns everything that a loop would otherwise hide.
#[derive(Debug)]
pub struct Queue<R: Reconciler> {
    reconciler: R,
    dirty: BTreeSet<R::Key>,
    wakes: BTreeMap<R::Key, Wake>,
    /// The same keys by time: a service that fails as a whole sets as many timers as replicas.
    timers: Timers<R::Key>,
    /// The keys of the batch in flight, one for each of its sets.
    in_flight: Vec<R::Key>,
    /// A view older than our last commit, or than a change we consumed, would mislead us.
    version_min: Version,
    /// The newest commit that the reconciler has observed.
    observed: Version,
    /// Our newest commit that wrote something; it reaches `handle_commit` whatever the filter.
    committed: Version,
    pause: Pause,
    /// When so many keys had converged that the others got no turn, and nothing was written that
    /// would bring one.
    cut_short: Option<Timestamp>,
    steps: u64,
    conflicts: u64,
    /// Sets that were given up because no entry of the log can hold them, until somebody asks.
    oversize: Vec<Oversize>,
}

/// The wait after a refusal of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// There is none.
    None,
    /// It begins when somebody says what time it is.
    Begins,
    Until(Timestamp),
}

impl<R: Reconciler> Queue<R> {
    /// Starts a loop from a view: every key is dirty.
    pub fn new(mut reconciler: R, view: &Root) -> Self {
        let mut dirty = BTreeSet::new();
        reconciler.resync(view, &mut dirty);
        Self {
            reconciler,
            dirty,
            wakes: BTreeMap::new(),
            timers: Timers::new(),
            in_flight: Vec::new(),
            version_min: view.version(),
            observed: view.version(),
            committed: Version(0),
            pause: Pause::None,
            cut_short: None,
            steps: 0,
            conflicts: 0,
            oversize: Vec::new(),
        }
    }

    /// Takes notice of a commit; `view` is at or after it.
    pub fn handle_commit(&mut self, commit: &Commit, view: &Root) {
        self.version_min = self.version_min.max(commit.version);
        self.observed = self.observed.max(commit.version);
        for change in &commit.changes {
            self.reconciler.observe(change, view, &mut self.dirty);
        }
    }

    /// Events were lost: look at everything again.
    pub fn handle_lag(&mut self, view: &Root) {
        self.version_min = self.version_min.max(view.version());
        self.observed = self.observed.max(view.version());
        self.reconciler.resync(view, &mut self.dirty);
    }

    /// Moves the keys whose time has come to the dirty ones.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(key) = self.timers.pop_due(now) {
            self.wakes.remove(&key);
            self.dirty.insert(key);
        }
    }

    /// The earliest timer, with its reason.
    pub fn poll_timeout(&self) -> Option<Wake> {
        let timer = self.timers.next();
        let wake = timer.and_then(|(_, key)| self.wakes.get(key).copied());
        let pause = match self.pause {
            Pause::Until(at) => Some(Wake {
                at,
                why: WAITS_FOR_LOG,
            }),
            Pause::None | Pause::Begins => None,
        };
        let more = self.cut_short.map(|at| Wake {
            at,
            why: HAS_MORE_KEYS,
        });
        let all = wake.into_iter().chain(pause).chain(more);
        all.min_by_key(|wake| wake.at)
    }

    /// Whether there is something to decide, nothing in flight, and no pause after a refusal.
    pub fn is_runnable(&self) -> bool {
        self.in_flight.is_empty() && !self.dirty.is_empty() && self.pause == Pause::None
    }

    /// Decides until a transaction is full, or nothing is dirty. `None`: nothing to write, or a
    /// batch is in flight, or the view or the cache is too old, or the log refused a batch just
    /// now.
    pub fn poll_transaction(
        &mut self,
        view: &Root,
        now: Timestamp,
        ids: &mut dyn IdSource,
    ) -> Option<Batch> {
        if !self.in_flight.is_empty() || view.version() < self.version_min {
            return None;
        }
        if R::DECIDES_FROM_CACHE && self.observed < self.committed {
            return None;
        }
        if self.is_paused(now) {
            return None;
        }
        self.cut_short = None;
        if !self.dirty.is_empty() {
            self.reconciler.prepare(view, now);
        }
        let mut batch = Batch::default();
        let mut room = Room::default();
        // On the same view a key would decide the same again, and create every object twice.
        let mut again = Vec::new();
        for _ in 0..self.reconciler.steps_per_transaction() {
            let Some(key) = self.dirty.pop_first() else {
                break;
            };
            self.steps += 1;
            let mut ctx = Ctx {
                now,
                ids: &mut *ids,
            };
            let mut step = self.reconciler.reconcile(view, &key, &mut ctx);
            match room.take(&step.writes) {
                Fit::Yes => {}
                Fit::Full => {
                    // Decided for nothing; the key gets its turn in the next transaction.
                    self.reconciler.settled(&key, Accepted::No);
                    self.dirty.insert(key);
                    break;
                }
                Fit::Never(oversize) => {
                    step.writes.clear();
                    self.give_up(&key, oversize);
                }
            }
            if step.more {
                again.push(key.clone());
            }
            if !self.keep(&key, step, &mut room, &mut batch) {
                again.push(key);
                break;
            }
        }
        if batch.sets.is_empty() && again.is_empty() && !self.dirty.is_empty() {
            self.cut_short = Some(now);
        }
        self.dirty.extend(again);
        (!batch.sets.is_empty()).then_some(batch)
    }

    fn is_paused(&mut self, now: Timestamp) -> bool {
        if self.pause == Pause::Begins {
            self.pause = Pause::Until(now.saturating_add(RETRY_DELAY));
        }
        match self.pause {
            Pause::Until(at) if now < at => true,
            Pause::None | Pause::Begins | Pause::Until(_) => {
                self.pause = Pause::None;
                false
            }
        }
    }

    /// Takes over what a step decided; `false` when not all of it fits.
    fn keep(&mut self, key: &R::Key, step: Step, room: &mut Room, batch: &mut Batch) -> bool {
        match step.wake {
            Some(wake) => {
                self.wakes.insert(key.clone(), wake);
                self.timers.set(key.clone(), wake.at);
            }
            None => {
                self.wakes.remove(key);
                self.timers.clear(key);
            }
        }
        if !step.writes.is_empty() {
            batch.sets.push(WriteSet(step.writes));
            self.in_flight.push(key.clone());
        }
        for set in step.sets {
            if set.0.is_empty() {
                continue;
            }
            match room.take(&set.0) {
                Fit::Yes => {
                    batch.sets.push(set);
                    self.in_flight.push(key.clone());
                }
                Fit::Full => return false,
                Fit::Never(oversize) => self.give_up(key, oversize),
            }
        }
        true
    }

    /// Drops a set that can never be written. Its key is looked at again when something changes
    /// about it, and not before: it would be decided the same.
    fn give_up(&mut self, key: &R::Key, oversize: Oversize) {
        self.reconciler.settled(key, Accepted::No);
        if self.oversize.len() < OVERSIZE_KEPT_MAX {
            self.oversize.push(oversize);
        }
    }

    /// What was given up since somebody asked last, [`OVERSIZE_KEPT_MAX`] at most.
    pub fn take_oversize(&mut self) -> Vec<Oversize> {
        std::mem::take(&mut self.oversize)
    }

    /// Takes the result of the batch in flight.
    pub fn handle_outcome(&mut self, outcome: &Outcome) {
        let keys = std::mem::take(&mut self.in_flight);
        let mut given_up: &[usize] = &[];
        let (version, refused) = match outcome {
            Outcome::Committed { version, refused } => (*version, Some(refused)),
            Outcome::Parted {
                version,
                refused,
                oversize,
            } => {
                given_up = oversize;
                (*version, Some(refused))
            }
            Outcome::Failed => {
                self.pause = Pause::Begins;
                (self.version_min, None)
            }
        };
        self.version_min = self.version_min.max(version);
        if refused.is_some_and(|refused| refused.len() + given_up.len() < keys.len()) {
            self.committed = self.committed.max(version);
        }
        for (position, key) in keys.into_iter().enumerate() {
            let lost = refused.is_none_or(|refused| refused.binary_search(&position).is_ok());
            let is_written = !lost && given_up.binary_search(&position).is_err();
            let accepted = if is_written {
                Accepted::Yes
            } else {
                Accepted::No
            };
            self.reconciler.settled(&key, accepted);
            if lost {
                self.conflicts += 1;
                self.dirty.insert(key);
            }
        }
    }

    /// The loop itself, to read its cache.
    pub fn reconciler(&self) -> &R {
        &self.reconciler
    }

    /// What is to do.
    pub fn status(&self) -> QueueStatus {
        QueueStatus {
            name: R::NAME,
            dirty: self.dirty.len(),
            timers: self.wakes.len(),
            in_flight: self.in_flight.len(),
            steps: self.steps,
            conflicts: self.conflicts,
        }
    }

    /// The timer of a key, for explanations.
    pub fn wake_of(&self, key: &R::Key) -> Option<Wake> {
        self.wakes.get(key).copied()
    }
}

#[cfg(test)]
mod tests;
