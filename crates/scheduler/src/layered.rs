//! An ordered set with changes laid over it, for plans: the cache stays as it is, and only the few
//! entries that the plan touched are kept apart.

use std::cmp::Reverse;
use std::collections::btree_set::Iter;
use std::collections::{BTreeSet, BinaryHeap};
use std::iter::Peekable;

use crate::numbered::Numbered;

/// An entry of an ordered set that belongs to something with a number.
pub(crate) trait Entry: Ord + Clone {
    /// The number; unique in a set.
    fn number(&self) -> u32;
}

/// A view of a set in which some entries have moved or gone.
pub(crate) struct Layered<'a, E: Entry> {
    /// Never goes back: an entry that was passed has moved, and its place is in `places`.
    base: Peekable<Iter<'a, E>>,
    /// Where the touched entries are; `None` if they are out.
    moved: Numbered<Option<E>>,
    /// All places that touched entries have had. Those that they have left are dropped when they
    /// come first.
    places: BinaryHeap<Reverse<E>>,
}

impl<'a, E: Entry> Layered<'a, E> {
    pub(crate) fn new(base: &'a BTreeSet<E>) -> Self {
        Self {
            base: base.iter().peekable(),
            moved: Numbered::default(),
            places: BinaryHeap::new(),
        }
    }

    /// The first entry.
    pub(crate) fn first(&mut self) -> Option<&E> {
        while let Some(entry) = self.base.peek()
            && self.moved.contains_key(&entry.number())
        {
            self.base.next();
        }
        while let Some(Reverse(entry)) = self.places.peek()
            && !self.is_at(entry)
        {
            self.places.pop();
        }
        match (self.base.peek(), self.places.peek()) {
            (Some(base), Some(Reverse(extra))) => Some(if extra < *base { extra } else { base }),
            (Some(base), None) => Some(base),
            (None, extra) => extra.map(|Reverse(extra)| extra),
        }
    }

    /// Whether a touched entry is in this place now.
    fn is_at(&self, entry: &E) -> bool {
        let place = self.moved.get(&entry.number());
        place.and_then(Option::as_ref) == Some(entry)
    }

    /// Moves an entry, or takes it out.
    pub(crate) fn set(&mut self, number: u32, entry: Option<E>) {
        self.places.extend(entry.clone().map(Reverse));
        self.moved.insert(number, entry);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Entry for (u8, u32) {
        fn number(&self) -> u32 {
            self.1
        }
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_set_that_was_changed(
            ranks in prop::collection::vec(0u8..8, 1..12),
            moves in prop::collection::vec((0usize..12, prop::option::of(0u8..8)), 0..40),
        ) {
            let numbers = 0u32..;
            let base: BTreeSet<(u8, u32)> = ranks.iter().copied().zip(numbers).collect();
            let mut twin = base.clone();
            let mut layered = Layered::new(&base);
            for (number, rank) in moves {
                let number = u32::try_from(number % ranks.len()).unwrap();
                twin.retain(|entry| entry.1 != number);
                twin.extend(rank.map(|rank| (rank, number)));
                layered.set(number, rank.map(|rank| (rank, number)));
                prop_assert_eq!(layered.first(), twin.first());
            }
        }
    }
}
