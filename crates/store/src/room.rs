//! How much still fits one transaction: what every packer of write sets asks before it adds one.

use swarm_types::{Id, Kind};

use crate::write::{
    ENTRY_BYTES_MAX, SET_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_CHANGES_MAX, Write,
};

/// A set that no entry of the log can hold, by its largest object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a write of {bytes} bytes, most of them {kind} {id}, does not fit an entry of the log, which \
     holds {ENTRY_BYTES_MAX}; it is given up until the object changes: make its spec smaller, or \
     remove it"
)]
pub struct Oversize {
    /// The kind of its largest object.
    pub kind: Kind,
    /// The id of that.
    pub id: Id,
    /// Bytes of the whole set.
    pub bytes: usize,
}

/// Whether a set fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It does, and its room is reserved.
    Yes,
    /// It does not fit beside what is there; it will in the next transaction.
    Full,
    /// It never will, not even alone. What is there is as it was.
    Never(Oversize),
}

/// The room that is left in a transaction. What a set only requires changes nothing and takes none.
#[derive(Debug)]
pub struct Room {
    changes: usize,
    bytes: usize,
    is_fresh: bool,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            changes: TRANSACTION_CHANGES_MAX,
            bytes: TRANSACTION_BYTES_MAX,
            is_fresh: true,
        }
    }
}

impl Room {
    /// Reserves room for a set. A set larger than a transaction goes alone, up to
    /// [`SET_BYTES_MAX`].
    pub fn take(&mut self, writes: &[Write]) -> Fit {
        if writes.is_empty() {
            return Fit::Yes;
        }
        let bytes: usize = writes.iter().map(Write::bytes).sum();
        if bytes > SET_BYTES_MAX {
            return Fit::Never(oversize(writes, bytes));
        }
        let is_change = |write: &&Write| !matches!(write, Write::Require { .. });
        let changes = writes.iter().filter(is_change).count();
        let fits = changes <= self.changes && bytes <= self.bytes;
        if !fits && !self.is_fresh {
            return Fit::Full;
        }
        self.changes = self.changes.saturating_sub(changes);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.is_fresh = false;
        Fit::Yes
    }

    /// Whether not even a small set fits.
    pub fn is_full(&self) -> bool {
        self.changes == 0 || self.bytes == 0
    }
}

fn oversize(writes: &[Write], bytes: usize) -> Oversize {
    let largest = writes.iter().max_by_key(|write| write.bytes());
    let (kind, id) = largest.expect("has bytes, so it has writes").target();
    Oversize {
        kind,
        id: id.clone(),
        bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use swarm_types::Task;

    /// A write of about so many bytes.
    fn write(id: &str, bytes: usize) -> Write {
        let mut task = Task::new(id.parse().unwrap(), Arc::default());
        task.annotations = Some(Box::new(swarm_api::v1::Annotations {
            name: "x".repeat(bytes),
            ..Default::default()
        }));
        Write::create(task)
    }

    #[test]
    fn room_is_judged_with_the_set_that_is_added() {
        let mut room = Room::default();
        let third = [write("t", TRANSACTION_BYTES_MAX * 2 / 5)];
        assert_eq!(room.take(&third), Fit::Yes);
        assert_eq!(room.take(&third), Fit::Yes);
        assert_eq!(room.take(&third), Fit::Full, "the third would not fit");
        assert_eq!(
            room.take(&[write("s", 1)]),
            Fit::Yes,
            "a small one still does"
        );
    }

    #[test]
    fn a_set_larger_than_a_transaction_goes_alone() {
        let large = [write("t", TRANSACTION_BYTES_MAX + 1)];
        let mut room = Room::default();
        assert_eq!(room.take(&[write("s", 1)]), Fit::Yes);
        assert_eq!(room.take(&large), Fit::Full);
        let mut room = Room::default();
        assert_eq!(room.take(&large), Fit::Yes);
        assert!(room.is_full());
        assert_eq!(room.take(&[write("s", 1)]), Fit::Full);
    }

    #[test]
    fn a_set_larger_than_an_entry_never_fits_and_is_named() {
        let mut room = Room::default();
        let set = [write("small", 1), write("large", SET_BYTES_MAX)];
        let Fit::Never(oversize) = room.take(&set) else {
            panic!("it fits");
        };
        assert_eq!(oversize.id.to_string(), "large");
        assert!(oversize.bytes > SET_BYTES_MAX);
        assert_eq!(room.take(&[write("s", 1)]), Fit::Yes, "it took no room");
    }
}
