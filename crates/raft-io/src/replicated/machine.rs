//! What the writers share with the log's thread, and what that thread drives: each entry is applied
//! and published, and who waits for it is told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use swarm_api::{raftpb, v1};
use swarm_raft::Position;
use swarm_raft::log::LogError;
use swarm_reconcile::Outcome;
use swarm_store::{Pipeline, Staged, Store, read_snapshot, write_snapshot};
use swarm_types::Version;

use super::Done;
use crate::driver::{Apply, Handle, Origin, Pending, ProposeError, RestoreError, SnapshotPieces};

/// The store, and what leads to its next commits.
pub(super) struct Shared {
    pub(super) store: Store,
    pub(super) writer: Mutex<Writer>,
}

/// What the writers and the log's thread share.
pub(super) struct Writer {
    pub(super) pipeline: Pipeline,
    /// Who waits for a staged commit, by the proposal's id. Bounded as the pipeline is.
    pub(super) waiting: BTreeMap<u64, Told>,
    /// Who was refused on a head of which this commit was the newest part. The one who asks again
    /// on the published view before it is there would be refused again. One for each loop at most.
    pub(super) refused: BTreeMap<u64, Vec<Told>>,
}

/// Who is told how a batch ended, and what is known of that already.
pub(super) struct Told {
    pub(super) refused: Vec<usize>,
    pub(super) oversize: Vec<usize>,
    pub(super) done: Done,
}

impl Told {
    pub(super) fn committed(self, version: Version) {
        (self.done)(Outcome::committed(version, self.refused, self.oversize));
    }
}

impl Shared {
    pub(super) fn writer(&self) -> MutexGuard<'_, Writer> {
        // What may panic under this lock is a caller's closure, and that works on a transaction of
        // its own: the pipeline is as it was.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Hands a staged commit to the log, under the lock under which it was staged, so that the
    /// order of commits is the order of proposals.
    pub(super) fn propose(
        &mut self,
        handle: &Handle,
        mut staged: Staged,
        told: Option<Told>,
    ) -> Result<Pending, ProposeError> {
        let data = Bytes::from(std::mem::take(&mut staged.bytes));
        match handle.submit(data, staged.epoch) {
            Ok(pending) => {
                if let Some(told) = told {
                    self.waiting.insert(staged.id, told);
                }
                Ok(pending)
            }
            Err(error) => {
                self.pipeline.unstage(&staged);
                if let Some(told) = told {
                    (told.done)(Outcome::Failed);
                }
                Err(error)
            }
        }
    }
}

/// What the log's thread drives.
pub(super) struct Machine {
    pub(super) shared: Arc<Shared>,
}

impl Apply for Machine {
    fn apply(&mut self, at: Position, data: &Bytes, _: Origin) {
        if data.is_empty() {
            return;
        }
        let mut writer = self.shared.writer();
        let applied = match writer.pipeline.applied(data) {
            Ok(applied) => applied,
            Err(error) => {
                tracing::error!(
                    index = at.index,
                    error = %swarm_rt::chain(&error),
                    "log entry skipped"
                );
                return;
            }
        };
        let waiting = applied.own.and_then(|id| writer.waiting.remove(&id));
        let refused = applied.own.and_then(|id| writer.refused.remove(&id));
        let published = applied.root.version();
        // Published under the writer's lock: a view is never newer than the pipeline knows.
        self.shared.store.publish(applied.root, applied.commit);
        drop(writer);
        self.shared.store.fan_out();
        // An entry of our own is published with the version that it was staged for.
        for told in waiting.into_iter().chain(refused.into_iter().flatten()) {
            told.committed(published);
        }
    }

    fn conf_change(&mut self, at: Position, _: &raftpb::ConfChange) {
        tracing::debug!(index = at.index, "membership change applied");
    }

    fn refused(&mut self, data: &Bytes) {
        let mut writer = self.shared.writer();
        let dropped = writer.pipeline.drop_from(data);
        let mut waiting: Vec<Done> = Vec::new();
        for id in &dropped {
            waiting.extend(writer.waiting.remove(id).map(|told| told.done));
            let refused = writer.refused.remove(id).into_iter().flatten();
            waiting.extend(refused.map(|told| told.done));
        }
        drop(writer);
        for done in waiting {
            done(Outcome::Failed);
        }
    }

    fn dropped(&mut self) {
        let mut writer = self.shared.writer();
        writer.pipeline.drop_waiting();
        let waiting = std::mem::take(&mut writer.waiting).into_values();
        let refused = std::mem::take(&mut writer.refused).into_values().flatten();
        drop(writer);
        for told in waiting.chain(refused) {
            (told.done)(Outcome::Failed);
        }
    }

    fn snapshot(&mut self) -> SnapshotPieces {
        let root = self.shared.writer().pipeline.published().clone();
        Box::new(std::iter::once_with(move || {
            Bytes::from(write_snapshot(&root, v1::ClusterSnapshot::default()))
        }))
    }

    fn restore(
        &mut self,
        _: Position,
        pieces: &mut dyn Iterator<Item = Result<Vec<u8>, LogError>>,
    ) -> Result<(), RestoreError> {
        let mut bytes = Vec::new();
        for piece in pieces {
            bytes.extend(piece?);
        }
        let (root, _) = read_snapshot(&bytes)?;
        let mut writer = self.shared.writer();
        writer.pipeline.reset(root.clone());
        self.shared.store.reset(root);
        Ok(())
    }
}
