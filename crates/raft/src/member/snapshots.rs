//! The snapshots of a member: when one is due, what it makes superfluous, and how files under an
//! older data key go with it.

use swarm_api::raftpb;

use super::{DriveError, Member, drive_error};
use crate::disk::Disk;
use crate::log::{LogError, Position, Reset};
use crate::seal::{DataKey, KeyId, Keyring};
use crate::snapshot::{self, SnapshotMeta, SnapshotReader, SnapshotTicket, SnapshotWriter};

/// A snapshot that is being written, and the key that it is sealed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InFlight {
    at: Position,
    key: KeyId,
    /// Bytes of the entries that it covers and the one before did not.
    bytes: u64,
}

/// Files under an older data key are still needed until there is a snapshot that covers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rekeying {
    /// The last index that they may hold.
    until: u64,
    /// Ticks until the change is gone about anew, if nothing comes of it.
    wait: u32,
}

/// Ticks after which a change of the data key of which nothing came is gone about anew: a snapshot
/// failed, or what it makes superfluous could not be removed.
const REKEY_RETRY_TICKS: u32 = 10;

impl<D: Disk + Clone> Member<D> {
    /// Opens the newest snapshot for reading, if there is one.
    pub fn read_snapshot(&self) -> Result<Option<SnapshotReader<D>>, LogError> {
        if self.newest_snapshot.index == 0 {
            return Ok(None);
        }
        let disk = self.disk.clone();
        SnapshotReader::open(disk, self.newest_snapshot, &self.keys).map(Some)
    }

    /// Whether enough was applied since the last snapshot, or a peer waits for a newer one; and
    /// none is being written.
    pub fn snapshot_due(&self) -> bool {
        if self.core.wants_snapshot() {
            // After a failure a peer asks again with the next heartbeat, which is pause enough.
            return self.in_flight.is_none();
        }
        let applied = self.core.applied().index;
        let interval = self.config.snapshot_interval;
        let behind = applied - self.newest_snapshot.index;
        let is_wanted = match self.rekeying {
            // A snapshot of this very position may be there, and it has the old key.
            Some(rekeying) if behind > 0 => applied >= rekeying.until,
            Some(_) | None => {
                let is_long = self.applied_bytes >= self.config.snapshot_bytes;
                interval > 0 && (behind >= interval || is_long && behind > 0)
            }
        };
        is_wanted && self.in_flight.is_none() && applied >= self.snapshot_not_before
    }

    /// Begins a snapshot of what is applied right now: the caller freezes its state, then writes
    /// it with [`SnapshotWriter`] on any thread, then calls [`Member::finish_snapshot`] or
    /// [`Member::fail_snapshot`]. `None` when one is being written or nothing is applied.
    pub fn begin_snapshot(&mut self) -> Option<SnapshotTicket> {
        let meta = self.core.snapshot_meta();
        if self.in_flight.is_some() || meta.at.index <= self.newest_snapshot.index {
            return None;
        }
        self.in_flight = Some(InFlight {
            at: meta.at,
            key: self.keys.current().id(),
            bytes: self.applied_bytes,
        });
        let (key, salt) = (self.keys.current().clone(), self.log.fresh_salt());
        Some(SnapshotTicket {
            meta,
            identity: self.identity.clone(),
            key,
            salt,
        })
    }

    /// Takes note of a snapshot file that is durable, and forgets what it makes superfluous.
    pub fn finish_snapshot(&mut self, meta: &SnapshotMeta) -> Result<(), DriveError> {
        let in_flight = self.in_flight.take();
        let covered = in_flight.map_or(0, |it| it.bytes);
        self.applied_bytes = self.applied_bytes.saturating_sub(covered);
        if meta.at.index <= self.newest_snapshot.index {
            // A newer one came from the leader meanwhile.
            return self.forget().map_err(forget_error);
        }
        self.log
            .mark_snapshot(meta.at, Reset::Keep)
            .map_err(drive_error)?;
        self.newest_snapshot = meta.at;
        self.core
            .compact(meta, meta.at.index.saturating_sub(self.kept_behind()));
        let key = self.keys.current().id();
        let has_new_key = in_flight.is_some_and(|it| it.at == meta.at && it.key == key);
        match self.rekeying {
            Some(rekeying) if has_new_key && meta.at.index >= rekeying.until => {
                self.forget_older_keys().map_err(forget_error)
            }
            Some(_) => {
                self.make_news();
                self.forget().map_err(forget_error)
            }
            None => self.forget().map_err(forget_error),
        }
    }

    /// Seals all that is written from now on under another data key, and begins to make what is
    /// sealed under older ones superfluous: a snapshot becomes due. [`Member::is_rekeying`] says
    /// when no file needs the older keys any more. May be called again after a full disk, and after
    /// a restart with both keys.
    pub fn rekey(&mut self, key: DataKey) -> Result<(), DriveError> {
        let older = self.keys.all_but(key.id());
        self.keys = Keyring::with_older(key, older);
        let (records, bytes) = self.queued;
        self.log
            .rekey(self.keys.clone(), records, bytes)
            .map_err(drive_error)?;
        let until = self.log.last_before_active();
        let wait = REKEY_RETRY_TICKS;
        self.rekeying = Some(Rekeying { until, wait });
        self.make_news();
        Ok(())
    }

    /// While the data key changes there must be something that no snapshot has, or none is due and
    /// the change waits for somebody to write. A member that does not lead waits for the leader to
    /// do this, or for a write.
    fn make_news(&mut self) {
        let has_news = self.core.applied().index > self.newest_snapshot.index;
        let (records, bytes) = (self.queued.0 + 1, self.queued.1);
        if has_news || !self.core.is_leader() || self.log.reserve(records, bytes).is_err() {
            return;
        }
        if self.core.propose_nothing().is_ok() {
            self.queued = (records, bytes);
        }
    }

    /// Somebody waits for the change, and it must not depend on what others write when the next
    /// attempt is made.
    pub(super) fn tick_rekeying(&mut self) {
        let Some(rekeying) = self.rekeying.as_mut().filter(|_| self.in_flight.is_none()) else {
            return;
        };
        rekeying.wait = rekeying.wait.saturating_sub(1);
        if rekeying.wait == 0 {
            rekeying.wait = REKEY_RETRY_TICKS;
            self.snapshot_not_before = 0;
            self.make_news();
        }
    }

    /// Whether files that are sealed under an older data key may still be there.
    pub fn is_rekeying(&self) -> bool {
        self.rekeying.is_some()
    }

    /// Takes note that a snapshot could not be written. The next one is due after a tenth of the
    /// interval, so that a full disk is not asked again for every entry; or some ticks later while
    /// the data key changes.
    pub fn fail_snapshot(&mut self) {
        self.in_flight = None;
        if let Some(rekeying) = &mut self.rekeying {
            rekeying.wait = REKEY_RETRY_TICKS;
        }
        self.core.snapshot_failed();
        let wait = self.config.snapshot_interval / 10 + 1;
        self.snapshot_not_before = self.core.applied().index + wait;
    }

    /// Makes a snapshot from the leader durable and starts the log behind it.
    pub(super) fn install(&mut self, meta: &SnapshotMeta, data: &[u8]) -> Result<(), LogError> {
        if self.newest_snapshot == meta.at {
            // An earlier attempt got this far.
            return Ok(());
        }
        let ticket = SnapshotTicket {
            meta: meta.clone(),
            identity: self.identity.clone(),
            key: self.keys.current().clone(),
            salt: self.log.fresh_salt(),
        };
        let mut writer = SnapshotWriter::begin(self.disk.clone(), &ticket)?;
        writer.push(data)?;
        writer.finish()?;
        self.log.mark_snapshot(meta.at, Reset::Discard)?;
        self.newest_snapshot = meta.at;
        self.applied_bytes = 0;
        Ok(())
    }

    /// Removes snapshots beyond those to keep, and segments that none of the kept ones needs.
    fn forget(&mut self) -> Result<(), LogError> {
        let keep = usize::try_from(self.config.keep_old_snapshots).unwrap_or(usize::MAX);
        self.forget_beyond(keep.saturating_add(1), self.kept_behind())
    }

    /// Removes all that the newest snapshot makes superfluous: it and the present segment are
    /// sealed under the newest key. A follower that lags gets the snapshot.
    fn forget_older_keys(&mut self) -> Result<(), LogError> {
        self.forget_beyond(1, 0)?;
        self.keys = Keyring::new(self.keys.current().clone());
        self.rekeying = None;
        Ok(())
    }

    fn forget_beyond(&mut self, keep: usize, kept_behind: u64) -> Result<(), LogError> {
        let all = snapshot::list(&mut self.disk)?;
        for at in all.iter().skip(keep) {
            self.disk.remove(&snapshot::file_name(*at))?;
        }
        if all.len() > keep {
            self.disk.sync_dir()?;
        }
        let kept = &all[..keep.min(all.len())];
        let oldest = kept.last().copied().unwrap_or_default();
        let newest = self.newest_snapshot.index;
        let needed = oldest.index.min(newest.saturating_sub(kept_behind)) + 1;
        self.log.compact(needed).map(drop)
    }

    /// The library hands out snapshots by name; the message needs the content, and the membership
    /// of today: a member that was added after the snapshot refuses one that does not name it.
    /// Replaying the additions that follow the snapshot changes nothing.
    ///
    /// The one that was named may have been replaced since, and its file be gone; the newest goes
    /// further, which is as good.
    pub(super) fn fill_snapshot(&self, message: &mut raftpb::Message) -> Result<(), LogError> {
        let Some(snapshot) = &mut message.snapshot else {
            return Ok(());
        };
        let at = self.newest_snapshot;
        let metadata = snapshot.metadata.get_or_insert_default();
        metadata.conf_state = Some(self.core.conf_state());
        (metadata.index, metadata.term) = (Some(at.index), Some(at.term));
        let mut reader = SnapshotReader::open(self.disk.clone(), at, &self.keys)?;
        let mut data = Vec::new();
        while let Some(chunk) = reader.next_chunk()? {
            data.extend_from_slice(&chunk);
        }
        snapshot.data = Some(data.into());
        Ok(())
    }

    fn kept_behind(&self) -> u64 {
        self.config.entries_for_slow_followers
    }
}

/// A file that cannot be removed costs space and nothing else.
fn forget_error(error: LogError) -> DriveError {
    if error.disk().is_some() {
        DriveError::Retry(error)
    } else {
        DriveError::Fatal(error)
    }
}
