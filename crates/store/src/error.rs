//! Why the store refuses. The texts of [`StoreError`] equal SwarmKit's, because clients match them.

use swarm_types::{Id, Kind, StateRegression};

/// A refused write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// An object with this id is there already.
    #[error("object already exists")]
    Exists {
        /// The kind.
        kind: Kind,
        /// The id.
        id: Id,
    },
    /// There is no object with this id.
    #[error("object does not exist")]
    NotExists {
        /// The kind.
        kind: Kind,
        /// The id.
        id: Id,
    },
    /// Another object of the kind has this name (compared without case).
    #[error("name conflicts with an existing object")]
    NameConflict {
        /// The kind.
        kind: Kind,
        /// The name.
        name: String,
    },
    /// The object was written since the caller read it.
    #[error("update out of sequence")]
    OutOfSequence {
        /// The kind.
        kind: Kind,
        /// The id.
        id: Id,
    },
    /// A task state would go back; the caller has a defect.
    #[error(transparent)]
    Regression(#[from] StateRegression),
}

/// A look-up that the kind has no index for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid find argument type")]
pub struct FindError {
    /// The kind that was searched.
    pub kind: Kind,
    /// The selector that does not apply to it.
    pub selector: &'static str,
}
