//! A queue with the type of its loop erased.

use swarm_reconcile::{Batch, Outcome, Queue, QueueStatus, Reconciler, Wake};
use swarm_store::{Commit, Oversize, Root};
use swarm_types::{IdSource, Timestamp};

/// What the leader needs of a loop. The methods are those of [`Queue`].
pub(crate) trait Loop: Send {
    fn handle_commit(&mut self, commit: &Commit, view: &Root);
    fn handle_lag(&mut self, view: &Root);
    fn handle_timeout(&mut self, now: Timestamp);
    fn handle_outcome(&mut self, outcome: &Outcome);
    fn poll_transaction(
        &mut self,
        view: &Root,
        now: Timestamp,
        ids: &mut dyn IdSource,
    ) -> Option<Batch>;
    fn poll_timeout(&self) -> Option<Wake>;
    fn status(&self) -> QueueStatus;
    fn take_oversize(&mut self) -> Vec<Oversize>;
    fn cache_drift(&self, view: &Root) -> Option<String>;
}

impl<R: Reconciler + Send> Loop for Queue<R> {
    fn handle_commit(&mut self, commit: &Commit, view: &Root) {
        Self::handle_commit(self, commit, view);
    }
    fn handle_lag(&mut self, view: &Root) {
        Self::handle_lag(self, view);
    }
    fn handle_timeout(&mut self, now: Timestamp) {
        Self::handle_timeout(self, now);
    }
    fn handle_outcome(&mut self, outcome: &Outcome) {
        Self::handle_outcome(self, outcome);
    }
    fn poll_transaction(
        &mut self,
        view: &Root,
        now: Timestamp,
        ids: &mut dyn IdSource,
    ) -> Option<Batch> {
        Self::poll_transaction(self, view, now, ids)
    }
    fn poll_timeout(&self) -> Option<Wake> {
        Self::poll_timeout(self)
    }
    fn status(&self) -> QueueStatus {
        Self::status(self)
    }
    fn take_oversize(&mut self) -> Vec<Oversize> {
        Self::take_oversize(self)
    }
    fn cache_drift(&self, view: &Root) -> Option<String> {
        self.reconciler().cache_drift(view)
    }
}
