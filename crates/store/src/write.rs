//! Writes as values: what a loop wants written, in sets that belong together.

use swarm_types::{AnyObject, Id, Kind, Object, Version};

use crate::error::StoreError;

/// Changes in one transaction that comes from a batch (SwarmKit's `MaxChangesPerTransaction`).
pub const TRANSACTION_CHANGES_MAX: usize = 200;
/// Bytes of one entry of the log at most: 1.5 MiB, as in SwarmKit.
pub const ENTRY_BYTES_MAX: usize = 1_572_864;
/// Encoded bytes in one transaction that comes from a batch: three quarters of an entry, as in
/// SwarmKit.
pub const TRANSACTION_BYTES_MAX: usize = ENTRY_BYTES_MAX / 4 * 3;
/// Encoded bytes of one set at most. The rest of the entry is for what a commit adds: versions,
/// times and frames of two hundred changes.
pub const SET_BYTES_MAX: usize = ENTRY_BYTES_MAX - 32 * 1024;

/// A write as a value. An update or delete carries the version that its author saw.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Add an object.
    Create(AnyObject),
    /// Replace an object; `meta.version` is the version that was seen.
    Update(AnyObject),
    /// Delete an object.
    Delete {
        /// The kind.
        kind: Kind,
        /// The id.
        id: Id,
        /// The version that was seen.
        version: Version,
    },
    /// Write nothing, but only go on if the object still has this version (`None`: is absent).
    Require {
        /// The kind.
        kind: Kind,
        /// The id.
        id: Id,
        /// The version that was seen.
        version: Option<Version>,
    },
}

impl Write {
    /// Adds an object.
    pub fn create(object: impl Into<AnyObject>) -> Self {
        Self::Create(object.into())
    }

    /// Replaces an object which still carries the version that was seen.
    pub fn update(object: impl Into<AnyObject>) -> Self {
        Self::Update(object.into())
    }

    /// Deletes an object that was seen.
    pub fn delete<O: Object>(object: &O) -> Self {
        Self::Delete {
            kind: O::KIND,
            id: object.raw_id().clone(),
            version: object.meta().version,
        }
    }

    /// Requires that an object is as it was seen.
    pub fn require<O: Object>(object: &O) -> Self {
        Self::Require {
            kind: O::KIND,
            id: object.raw_id().clone(),
            version: Some(object.meta().version),
        }
    }

    /// What is written.
    pub fn target(&self) -> (Kind, &Id) {
        match self {
            Self::Create(object) | Self::Update(object) => (object.kind(), object.raw_id()),
            Self::Delete { kind, id, .. } | Self::Require { kind, id, .. } => (*kind, id),
        }
    }

    /// How many bytes this takes in the log; about, for a deletion.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Create(object) | Self::Update(object) => crate::encode::encoded_len(object),
            Self::Delete { .. } => 64,
            Self::Require { .. } => 0,
        }
    }
}

/// Writes that belong together: all of them happen, or none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriteSet(pub Vec<Write>);

/// A write set that was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write {index} of the set was refused")]
pub struct Conflict {
    /// Which of its writes was refused first.
    pub index: usize,
    /// Why.
    #[source]
    pub error: StoreError,
}

/// Cuts write sets into transactions of at most [`TRANSACTION_CHANGES_MAX`] changes and
/// [`TRANSACTION_BYTES_MAX`] bytes, in order. A set is never cut: one that is larger than the
/// limits gets a transaction of its own, which the log may refuse.
pub fn batches(sets: impl IntoIterator<Item = WriteSet>) -> Vec<Vec<WriteSet>> {
    let mut batches = vec![Vec::new()];
    let (mut changes, mut bytes) = (0, 0);
    for set in sets {
        let set_bytes: usize = set.0.iter().map(Write::bytes).sum();
        let full = changes + set.0.len() > TRANSACTION_CHANGES_MAX
            || bytes + set_bytes > TRANSACTION_BYTES_MAX;
        if full && changes > 0 {
            batches.push(Vec::new());
            (changes, bytes) = (0, 0);
        }
        changes += set.0.len();
        bytes += set_bytes;
        batches
            .last_mut()
            .expect("starts with one and only grows")
            .push(set);
    }
    batches.retain(|batch| !batch.is_empty());
    batches
}

#[cfg(test)]
mod tests;
