//! The log that all subscribers without a filter share.
//!
//! The publisher appends once, however many listen. Each reader has a cursor; entries that every
//! cursor has passed are dropped. A reader that falls too far behind loses its claim on the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::task::Waker;

use swarm_types::Version;

use super::{Event, Rest};
use crate::transaction::Commit;

/// Changes between two looks at the cursors. The log keeps at most this many more than the slowest
/// subscriber may have waiting.
const SWEEP_CHANGES: u64 = 1_024;
/// Commits that a reader takes in one go: enough that readers rarely stand in the publisher's way,
/// few enough to be short.
const BATCH: usize = 512;
/// Looks at the end of the log before a reader goes to sleep, with [`PAUSES`] between them: two
/// microseconds in all. A publisher that is at work appends within that time, and waking a reader
/// costs it more than the reader waits.
const LOOKS: usize = 4;
/// Few looks with a pause disturb the publisher less than many, and find several commits.
const PAUSES: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Log {
    entries: RwLock<Entries>,
    /// The number of the next entry, for a look without the lock.
    end: Apart<AtomicU64>,
    closed: AtomicBool,
    parked: Mutex<Parked>,
}

/// On a cache line of its own, so that readers who look at it do not disturb who takes the lock.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

#[derive(Debug, Default)]
struct Entries {
    /// The number of the first entry here.
    first: u64,
    commits: VecDeque<Entry>,
    /// Changes in all entries ever appended, as they count.
    changes: u64,
    /// `changes` when the cursors were looked at last.
    swept: u64,
    cursors: BTreeMap<u64, Arc<Cursor>>,
}

#[derive(Debug)]
struct Entry {
    commit: Arc<Commit>,
    /// Changes up to and with this entry.
    changes: u64,
}

/// How far a reader is. Only the reader moves it; the publisher looks, under the write lock, which
/// keeps readers out.
#[derive(Debug)]
struct Cursor {
    next: AtomicU64,
    changes: AtomicU64,
    limit: u64,
    lagged: AtomicBool,
}

#[derive(Debug, Default)]
struct Parked {
    /// Grows whenever the wakers were taken.
    epoch: u64,
    wakers: Vec<Waker>,
}

impl Entries {
    fn end(&self) -> u64 {
        self.first + self.commits.len() as u64
    }

    /// Whether more waits than the reader may have; a single entry may always wait.
    fn is_behind(&self, cursor: &Cursor) -> bool {
        let waiting = self.end() - cursor.next.load(Ordering::Relaxed);
        let changes = self.changes - cursor.changes.load(Ordering::Relaxed);
        waiting > 1 && changes > cursor.limit
    }

    /// Lets go of slow readers and of what all others have read.
    fn sweep(&mut self) {
        self.swept = self.changes;
        let mut cursors = std::mem::take(&mut self.cursors);
        cursors.retain(|_, cursor| {
            let behind = self.is_behind(cursor);
            cursor.lagged.fetch_or(behind, Ordering::Relaxed);
            !behind
        });
        let oldest = cursors
            .values()
            .map(|cursor| cursor.next.load(Ordering::Relaxed))
            .min();
        self.cursors = cursors;
        let oldest = oldest.unwrap_or_else(|| self.end());
        while self.first < oldest && self.commits.pop_front().is_some() {
            self.first += 1;
        }
    }
}

impl Log {
    pub(super) fn subscribe(self: &Arc<Self>, id: u64, start: Version, limit: usize) -> Reader {
        let mut entries = self.write();
        let cursor = Arc::new(Cursor {
            next: AtomicU64::new(entries.end()),
            changes: AtomicU64::new(entries.changes),
            limit: u64::try_from(limit).unwrap_or(u64::MAX),
            lagged: AtomicBool::new(false),
        });
        entries.cursors.insert(id, Arc::clone(&cursor));
        drop(entries);
        Reader {
            log: Arc::clone(self),
            id,
            cursor,
            start,
            delivered: start,
            parked: None,
        }
    }

    /// How many readers have a claim on the log.
    pub(super) fn len(&self) -> usize {
        self.read().cursors.len()
    }

    /// Appends a commit and wakes who waits.
    pub(super) fn publish(&self, commit: &Arc<Commit>) {
        {
            let mut entries = self.write();
            if entries.cursors.is_empty() {
                return;
            }
            entries.changes += commit.weight() as u64;
            let changes = entries.changes;
            entries.commits.push_back(Entry {
                commit: Arc::clone(commit),
                changes,
            });
            if changes - entries.swept >= SWEEP_CHANGES {
                entries.sweep();
            }
            self.end.0.store(entries.end(), Ordering::Release);
        }
        self.wake();
    }

    /// Nothing follows what waits.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        let wakers = {
            let mut parked = self.parked();
            if parked.wakers.is_empty() {
                return;
            }
            parked.epoch += 1;
            std::mem::take(&mut parked.wakers)
        };
        for waker in wakers {
            waker.wake();
        }
    }

    // The states behind the locks are valid between any two statements, so a panic elsewhere cannot
    // break them.

    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn parked(&self) -> MutexGuard<'_, Parked> {
        self.parked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The subscriber's side. Dropping it gives up its claim.
#[derive(Debug)]
pub(super) struct Reader {
    log: Arc<Log>,
    id: u64,
    cursor: Arc<Cursor>,
    start: Version,
    delivered: Version,
    /// Epoch and place of the waker that was left last.
    parked: Option<(u64, usize)>,
}

impl Reader {
    fn at_end(&self) -> bool {
        self.cursor.next.load(Ordering::Relaxed) == self.log.end.0.load(Ordering::Acquire)
    }

    /// Takes the next entries.
    pub(super) fn refill(&mut self, local: &mut VecDeque<Event>) -> Rest {
        // In this order: what was published before the end is there when the end is seen.
        let closed = self.log.closed.load(Ordering::Acquire);
        while local.is_empty() && !self.at_end() {
            let entries = self.log.read();
            let cursor = &self.cursor;
            if cursor.lagged.load(Ordering::Relaxed) || entries.is_behind(cursor) {
                cursor.lagged.store(true, Ordering::Relaxed);
                return Rest::Lagged(self.delivered);
            }
            let next = cursor.next.load(Ordering::Relaxed);
            // Nothing at or after a live cursor is ever dropped, so the difference is a place here.
            let place = usize::try_from(next - entries.first).unwrap_or(usize::MAX);
            let batch = entries.commits.range(place..).take(BATCH);
            let mut last = None;
            let mut taken = 0;
            for entry in batch {
                taken += 1;
                last = Some(entry);
                if entry.commit.version > self.start {
                    local.push_back(Event {
                        commit: Arc::clone(&entry.commit),
                        picked: None,
                    });
                }
            }
            if let Some(last) = last {
                self.delivered = self.delivered.max(last.commit.version);
                cursor.changes.store(last.changes, Ordering::Relaxed);
                cursor.next.store(next + taken, Ordering::Relaxed);
            }
        }
        if closed { Rest::Closed } else { Rest::Waiting }
    }

    /// Leaves a waker; `false` when there is something to read instead.
    pub(super) fn park(&mut self, waker: &Waker) -> bool {
        for _ in 0..LOOKS {
            for _ in 0..PAUSES {
                std::hint::spin_loop();
            }
            if !self.at_end() {
                return false;
            }
        }
        let mut parked = self.log.parked();
        // The publisher appends before it takes the wakers, so this look misses nothing.
        if !self.at_end() || self.log.closed.load(Ordering::Acquire) {
            return false;
        }
        let epoch = parked.epoch;
        match self.parked {
            // Polled again without news: the old waker goes, the list does not grow.
            Some((left, place)) if left == epoch => parked.wakers[place].clone_from(waker),
            Some(_) | None => {
                self.parked = Some((epoch, parked.wakers.len()));
                parked.wakers.push(waker.clone());
            }
        }
        true
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut entries = self.log.write();
        entries.cursors.remove(&self.id);
        if entries.cursors.is_empty() {
            entries.sweep();
        }
    }
}
