//! An accepted write: what goes into the transaction, and the answer once it is in.

use swarm_store::{Root, Transaction, WriteSet};
use swarm_types::Id;

use crate::refusal::{GONE_AFTER_WRITE, Refusal};

/// The writes of an accepted request, and how to answer it.
///
/// The answer is read back from the transaction, because only there the object carries the version
/// and the times that were stamped on it.
#[derive(Debug)]
#[must_use = "a plan does nothing until it is applied"]
pub struct Plan<R> {
    writes: WriteSet,
    id: Id,
    answer: fn(&Root, &Id) -> Option<R>,
}

impl<R> Plan<R> {
    pub(crate) fn new(writes: WriteSet, id: &Id, answer: fn(&Root, &Id) -> Option<R>) -> Self {
        Self {
            writes,
            id: id.clone(),
            answer,
        }
    }

    /// What will be written: all of it or nothing.
    pub fn writes(&self) -> &WriteSet {
        &self.writes
    }

    /// Writes into the transaction and makes the answer, which may be sent once the transaction is
    /// durable.
    ///
    /// # Errors
    /// [`Refusal`] when the store refuses; the transaction is unchanged then.
    pub fn apply(self, transaction: &mut Transaction) -> Result<R, Refusal> {
        transaction.apply_set(&self.writes)?;
        (self.answer)(transaction, &self.id).ok_or_else(|| GONE_AFTER_WRITE.refuse(&[&self.id]))
    }
}
