//! A set of slot numbers as ranges: a service with 100,000 replicas is one entry. Owns no meaning.

use std::collections::BTreeMap;

use swarm_types::Slot;

/// A set of numbers, kept as disjoint ranges that do not touch, so that equal sets are equal maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotSet {
    /// The last number of each range, by its first.
    ranges: BTreeMap<u64, u64>,
    count: u64,
}

impl SlotSet {
    /// How many numbers it holds.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn insert(&mut self, slot: Slot) {
        let number = slot.0;
        if self.range_of(number).is_some() {
            return;
        }
        let (mut first, mut last) = (number, number);
        if let Some((&start, &end)) = self.ranges.range(..number).next_back()
            && end + 1 == number
        {
            first = start;
        }
        if let Some(next) = number.checked_add(1)
            && let Some(end) = self.ranges.remove(&next)
        {
            last = end;
        }
        self.ranges.insert(first, last);
        self.count += 1;
    }

    pub(crate) fn remove(&mut self, slot: Slot) {
        let number = slot.0;
        let Some((first, last)) = self.range_of(number) else {
            return;
        };
        self.ranges.remove(&first);
        if first < number {
            self.ranges.insert(first, number - 1);
        }
        if number < last {
            self.ranges.insert(number + 1, last);
        }
        self.count -= 1;
    }

    /// The numbers that it holds, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Slot> {
        self.ranges
            .iter()
            .flat_map(|(first, last)| (*first..=*last).map(Slot))
    }

    /// The numbers from 1 on that it does not hold, ascending.
    pub(crate) fn free(&self) -> impl Iterator<Item = Slot> {
        let mut next = Some(1);
        let mut ranges = self.ranges.iter().peekable();
        std::iter::from_fn(move || {
            while let Some((_, last)) = ranges.next_if(|(first, _)| Some(**first) <= next) {
                // A range that is left behind (it holds only 0) does not pull the number back.
                next = last
                    .checked_add(1)
                    .map(|after| after.max(next.unwrap_or(1)));
            }
            let number = next?;
            next = number.checked_add(1);
            Some(Slot(number))
        })
    }

    fn range_of(&self, number: u64) -> Option<(u64, u64)> {
        let (first, last) = self.ranges.range(..=number).next_back()?;
        (number <= *last).then_some((*first, *last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_behaves_like_a_plain_set(
            changes in prop::collection::vec((0u64..12, any::<bool>()), 0..60),
        ) {
            let (mut set, mut plain) = (SlotSet::default(), BTreeSet::new());
            for (number, is_insert) in changes {
                if is_insert {
                    set.insert(Slot(number));
                    plain.insert(number);
                } else {
                    set.remove(Slot(number));
                    plain.remove(&number);
                }
                prop_assert_eq!(set.count(), plain.len() as u64);
                let held: BTreeSet<u64> = set.iter().map(|slot| slot.0).collect();
                prop_assert_eq!(held, plain.clone());
                let free: Vec<u64> = set.free().take(5).map(|slot| slot.0).collect();
                let plain_free: Vec<u64> = (1..).filter(|n| !plain.contains(n)).take(5).collect();
                prop_assert_eq!(free, plain_free);
                // Equal content has one form only.
                let mut again = SlotSet::default();
                plain.iter().rev().for_each(|number| again.insert(Slot(*number)));
                prop_assert_eq!(&again, &set);
            }
        }
    }

    #[test]
    fn the_largest_number_is_no_trap() {
        let mut set = SlotSet::default();
        set.insert(Slot(u64::MAX));
        set.insert(Slot(u64::MAX - 1));
        assert_eq!(set.count(), 2);
        set.remove(Slot(u64::MAX));
        assert_eq!(set.iter().collect::<Vec<_>>(), [Slot(u64::MAX - 1)]);
    }
}
