//! An index whose values have dozens of ids each, as nodes have tasks.
//!
//! A commit writes to many values at once, a few ids each, so what counts is how much memory one
//! write touches. Here it is the end of a short list; a tree would copy a node on each level.

use std::cmp::Ordering;
use std::sync::Arc;

use swarm_types::Id;

use crate::map::{Map, Set};

/// Ids in the list that writes copy. A longer one is merged into the other list, whose copy is
/// then shared by so many writes.
const RECENT_MAX: usize = 16;
/// Ids in both lists; beyond that a set is cheaper. A set becomes lists again when it is down to
/// half of this, so that an id that comes and goes does not convert each time.
const LISTS_MAX: usize = 256;

/// The ids of one value.
#[derive(Clone, Debug)]
enum Ids {
    /// Both are sorted, and an id is in one of them.
    Lists {
        settled: Arc<[Id]>,
        recent: Arc<[Id]>,
    },
    Set(Set<Id>),
}

impl Default for Ids {
    fn default() -> Self {
        Self::Lists {
            settled: Arc::default(),
            recent: Arc::default(),
        }
    }
}

impl Ids {
    fn iter(&self) -> Iter<'_> {
        match self {
            Self::Lists { settled, recent } => Iter::Lists(settled, recent),
            Self::Set(ids) => Iter::Set(ids.iter()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Lists { settled, recent } => settled.len() + recent.len(),
            Self::Set(ids) => ids.len(),
        }
    }

    fn contains(&self, id: &Id) -> bool {
        match self {
            Self::Lists { settled, recent } => {
                settled.binary_search(id).is_ok() || recent.binary_search(id).is_ok()
            }
            Self::Set(ids) => ids.contains(id),
        }
    }

    /// Adds an id that is not there. Nobody looks whether it is: that would read both lists.
    fn insert(&mut self, id: &Id) {
        debug_assert!(!self.contains(id), "{id} is there already");
        match self {
            Self::Lists { recent, .. } => {
                let place = recent.partition_point(|other| other < id);
                *recent = with(recent, place, id);
                if recent.len() > RECENT_MAX {
                    self.merge();
                }
            }
            Self::Set(ids) => {
                ids.insert(id.clone());
            }
        }
    }

    fn merge(&mut self) {
        *self = if self.len() <= LISTS_MAX {
            let mut all = Vec::with_capacity(self.len());
            all.extend(self.iter().cloned());
            Self::settled(all.into())
        } else {
            Self::Set(self.iter().cloned().collect())
        };
    }

    fn settled(settled: Arc<[Id]>) -> Self {
        Self::Lists {
            settled,
            recent: Arc::default(),
        }
    }

    /// Takes an id out; `true` when nothing is left.
    fn remove(&mut self, id: &Id) -> bool {
        match self {
            Self::Lists { settled, recent } => {
                if let Ok(place) = recent.binary_search(id) {
                    *recent = without(recent, place);
                } else if let Ok(place) = settled.binary_search(id) {
                    *settled = without(settled, place);
                }
            }
            Self::Set(ids) => {
                ids.remove(id);
                if ids.len() <= LISTS_MAX / 2 {
                    *self = Self::settled(ids.iter().cloned().collect());
                }
            }
        }
        self.len() == 0
    }
}

/// A list with one id more at a place.
fn with(ids: &[Id], place: usize, id: &Id) -> Arc<[Id]> {
    let copy = |at: usize| match at.cmp(&place) {
        Ordering::Less => ids[at].clone(),
        Ordering::Equal => id.clone(),
        Ordering::Greater => ids[at - 1].clone(),
    };
    (0..=ids.len()).map(copy).collect()
}

/// A list without the id at a place.
fn without(ids: &[Id], place: usize) -> Arc<[Id]> {
    let copy = |at: usize| ids[at + usize::from(at >= place)].clone();
    (0..ids.len() - 1).map(copy).collect()
}

impl PartialEq for Ids {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

/// The ids of one value in order.
enum Iter<'a> {
    Lists(&'a [Id], &'a [Id]),
    Set(imbl::ordset::Iter<'a, Id, imbl::shared_ptr::DefaultSharedPtr>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Id;
    fn next(&mut self) -> Option<&'a Id> {
        match self {
            Self::Lists(one, two) => {
                let from = match (one.first(), two.first()) {
                    (Some(first), Some(second)) if second < first => two,
                    (None, Some(_)) => two,
                    (Some(_), _) | (None, None) => one,
                };
                let (first, rest) = from.split_first()?;
                *from = rest;
                Some(first)
            }
            Self::Set(ids) => ids.next(),
        }
    }
}

/// The index.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ListIndex<V: Ord + Clone> {
    values: Map<V, Ids>,
}

impl<V: Ord + Clone> Default for ListIndex<V> {
    fn default() -> Self {
        Self { values: Map::new() }
    }
}

impl<V: Ord + Clone> ListIndex<V> {
    /// The ids that have the value, in order.
    pub(crate) fn ids<'a>(&'a self, value: &V) -> impl Iterator<Item = &'a Id> + use<'a, V> {
        self.values.get(value).into_iter().flat_map(Ids::iter)
    }

    /// Moves an id from its old value to its new one; does nothing where they are equal.
    pub(crate) fn change(&mut self, id: &Id, old: Option<V>, new: Option<V>) {
        if old == new {
            return;
        }
        if let Some(old) = old
            && self.values.get_mut(&old).is_some_and(|ids| ids.remove(id))
        {
            self.values.remove(&old);
        }
        let Some(new) = new else {
            return;
        };
        match self.values.get_mut(&new) {
            Some(ids) => ids.insert(id),
            None => {
                let mut ids = Ids::default();
                ids.insert(id);
                self.values.insert(new, ids);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn id(number: u32) -> Id {
        let free_form = if number.is_multiple_of(3) { "x" } else { "" };
        format!("{free_form}{number:025}").parse().unwrap()
    }

    proptest! {
        /// Growth beyond both bounds and back, with a copy from which the other one is written.
        #[test]
        fn ids_agree_with_a_set(
            numbers in prop::collection::btree_set(0u32..1_000, 0..400),
            order in any::<u64>(),
            left in 0usize..100,
        ) {
            let mut numbers: Vec<u32> = numbers.into_iter().collect();
            numbers.sort_by_key(|number| order.wrapping_mul(u64::from(*number) * 2 + 1));
            let mut ids = Ids::default();
            let mut twin = BTreeSet::new();
            for number in &numbers {
                ids.insert(&id(*number));
                twin.insert(id(*number));
                prop_assert_eq!(ids.len(), twin.len());
            }
            prop_assert!(ids.iter().eq(&twin));
            let (before, twin_before) = (ids.clone(), twin.clone());
            for number in numbers.iter().skip(left) {
                twin.remove(&id(*number));
                prop_assert_eq!(ids.remove(&id(*number)), twin.is_empty());
            }
            ids.remove(&id(5_000));
            prop_assert!(ids.iter().eq(&twin));
            prop_assert_eq!(&ids, &Ids::settled(twin.into_iter().collect()));
            prop_assert!(before.iter().eq(&twin_before));
        }
    }
}
