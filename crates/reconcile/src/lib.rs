//! The contract that every control loop implements, and the queue that drives it.
//!
//! # Owns
//! [`Reconciler`], [`Step`], [`Wake`], [`Ctx`], and [`Queue`], which holds what a loop would
//! otherwise hide: dirty keys, timers, and the one transaction in flight.
//!
//! # Does not own
//! Any decision, any clock, any commit. The shell waits and commits; the simulator does the same
//! under virtual time.
//!
//! # Invariants
//! * I-LOOP-1: a loop never decides on a view older than its last commit or than the newest change
//!   it consumed.
//! * I-LOOP-2: at most one transaction per loop is in flight.
//! * I-LOOP-3: a key whose write set was refused is dirty again.
//! * I-LOOP-4: a cache equals what `resync` would build from the view (the simulator compares).
//! * I-LOOP-5: a loop that decides from its cache has observed its own last commit.
//!
//! # Start reading at
//! [`Reconciler`], then [`Queue::poll_transaction`].
//!
//! # SwarmKit counterpart
//! The event loops in `manager/orchestrator/*`, `manager/allocator` and `manager/scheduler`, which
//! each have one of their own.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod queue;

use std::collections::BTreeSet;
use std::fmt;

use swarm_store::{Change, Root, Write, WriteSet};
use swarm_types::{IdSource, Timestamp};

pub use queue::{
    Batch, OVERSIZE_KEPT_MAX, Outcome, Queue, QueueStatus, RETRY_DELAY, STEPS_PER_TRANSACTION_MAX,
};

/// A control loop: a pure function from a view to writes, one key at a time.
pub trait Reconciler {
    /// What one decision is about: a service, a node, or one key for the whole cluster.
    type Key: Ord + Clone + fmt::Debug + Send;

    /// The loop's name in traces, metrics and `why`.
    const NAME: &'static str;

    /// Whether decisions rest on the cache rather than on the view alone. Such a loop is not asked
    /// before it has observed its own last commit (I-LOOP-5).
    const DECIDES_FROM_CACHE: bool = false;

    /// Maps a change to the keys it concerns, and updates the cache if there is one. It decides
    /// nothing: a decision taken here would die on failover. `view` is at or after the change.
    fn observe(&mut self, change: &Change, view: &Root, dirty: &mut BTreeSet<Self::Key>);

    /// Marks every key of the view and rebuilds the cache. Runs when leadership is gained and when
    /// events were lost.
    fn resync(&mut self, view: &Root, dirty: &mut BTreeSet<Self::Key>);

    /// Brings indices over the cache up to date, right before decisions and never between them. It
    /// writes nothing and decides nothing; it exists so that `observe` may put off work that one
    /// decision can do for a thousand changes. Loops without such indices ignore it.
    fn prepare(&mut self, _view: &Root, _now: Timestamp) {}

    /// The decision. Equal inputs give an equal step.
    fn reconcile(&self, view: &Root, key: &Self::Key, ctx: &mut Ctx<'_>) -> Step;

    /// Tells how a write set of this loop fared, for loops whose cache runs ahead of the store
    /// (the scheduler). Loops without such a cache ignore it.
    fn settled(&mut self, _key: &Self::Key, _accepted: Accepted) {}

    /// How the cache differs from the one that `resync` would build from the view, if it does
    /// (I-LOOP-4). Only meaningful when every commit up to the view was observed. Loops without a
    /// cache keep the default.
    fn cache_drift(&self, _view: &Root) -> Option<String> {
        None
    }

    /// Whether the next steps of this loop must see the writes of the ones before in the same
    /// transaction. Loops that decide about the whole cluster put one step into a transaction.
    fn steps_per_transaction(&self) -> usize {
        STEPS_PER_TRANSACTION_MAX
    }
}

/// [`Reconciler::cache_drift`] for loops that are nothing but their cache.
pub fn drift_from_resync<R>(own: &R, view: &Root) -> Option<String>
where
    R: Reconciler + Default + PartialEq + fmt::Debug,
{
    let mut fresh = R::default();
    fresh.resync(view, &mut BTreeSet::new());
    (fresh != *own).then(|| format!("{} has {own:#?}, resync builds {fresh:#?}", R::NAME))
}

/// Whether a write set was committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It was committed.
    Yes,
    /// Something that it touches had changed; nothing of it was written.
    No,
}

/// What a decision may use besides the view.
pub struct Ctx<'a> {
    /// The manager's clock; it never goes back within one process.
    pub now: Timestamp,
    /// Ids for new objects.
    pub ids: &'a mut dyn IdSource,
}

/// The result of one decision. Nothing in it means: converged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// What to write; all of it or nothing.
    pub writes: Vec<Write>,
    /// More sets, each of them written or refused by itself, for loops that decide about many
    /// objects in one step. `settled` is told about each set. Those that do not fit the transaction
    /// are dropped, and the key is looked at again after the commit.
    pub sets: Vec<WriteSet>,
    /// When to look again even if nothing changes.
    pub wake: Option<Wake>,
    /// There is more to do for this key than fits one write set; look again after this commit.
    pub more: bool,
}

impl Step {
    /// Asks to be woken at `at`, or earlier if that was asked already.
    pub fn wake_by(&mut self, at: Timestamp, why: &'static str) {
        if self.wake.is_none_or(|wake| at < wake.at) {
            self.wake = Some(Wake { at, why });
        }
    }
}

/// A timer is a value with a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wake {
    /// When.
    pub at: Timestamp,
    /// Why, for people.
    pub why: &'static str,
}
