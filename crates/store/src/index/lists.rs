//! An index whose values have dozens of ids each, as nodes have tasks.
//!
//! A commit writes to many values at once, a few ids each, so what counts is how much memory one
//! write touches. Here it is one short list; a tree would copy a node on each level.

use std::sync::Arc;

use swarm_types::{CanonicalId, Id};

use crate::map::{Map, Set};

/// Ids in the list that writes copy. A full one is merged into the other list, whose copy is then
/// shared by so many writes.
const RECENT_MAX: usize = 16;
/// Ids in both lists; beyond that a set is cheaper. A set becomes lists again when it is down to
/// half of this, so that an id that comes and goes does not convert each time.
const LISTS_MAX: usize = 512;

/// The ids of one value.
#[derive(Clone, Debug)]
enum Ids {
    Lists(Arc<Lists>),
    /// Many ids, or some that are no plain values.
    Set(Set<Id>),
}

/// Both are sorted, and an id is in one of them.
#[derive(Clone, Debug, Default)]
struct Lists {
    settled: Arc<[CanonicalId]>,
    recent: [CanonicalId; RECENT_MAX],
    /// How many are in `recent`.
    len: usize,
}

impl Lists {
    fn recent(&self) -> &[CanonicalId] {
        &self.recent[..self.len]
    }

    fn len(&self) -> usize {
        self.settled.len() + self.len
    }

    fn iter(&self) -> Merged<'_> {
        Merged(&self.settled, self.recent())
    }

    /// Adds an id that is not there. There must be room in `recent`.
    fn insert(&mut self, id: CanonicalId) {
        let place = self.recent().partition_point(|other| *other < id);
        self.recent.copy_within(place..self.len, place + 1);
        self.recent[place] = id;
        self.len += 1;
    }

    fn remove(&mut self, id: CanonicalId) {
        if let Ok(place) = self.recent().binary_search(&id) {
            self.recent.copy_within(place + 1..self.len, place);
            self.len -= 1;
        } else if let Ok(place) = self.settled.binary_search(&id) {
            let (before, after) = (&self.settled[..place], &self.settled[place + 1..]);
            self.settled = [before, after].concat().into();
        }
    }
}

/// Two sorted lists as one.
struct Merged<'a>(&'a [CanonicalId], &'a [CanonicalId]);

impl Iterator for Merged<'_> {
    type Item = CanonicalId;
    fn next(&mut self) -> Option<CanonicalId> {
        let from = match (self.0.first(), self.1.first()) {
            (Some(first), Some(second)) if second < first => &mut self.1,
            (None, Some(_)) => &mut self.1,
            (Some(_), _) | (None, None) => &mut self.0,
        };
        let (first, rest) = from.split_first()?;
        *from = rest;
        Some(*first)
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self::Lists(Arc::default())
    }
}

impl Ids {
    fn iter(&self) -> Iter<'_> {
        match self {
            Self::Lists(lists) => Iter::Lists(lists.iter()),
            Self::Set(ids) => Iter::Set(ids.iter()),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Lists(lists) => lists.len(),
            Self::Set(ids) => ids.len(),
        }
    }

    fn contains(&self, id: &Id) -> bool {
        match self {
            Self::Lists(lists) => lists.iter().any(|other| Some(other) == id.canonical()),
            Self::Set(ids) => ids.contains(id),
        }
    }

    /// Adds an id that is not there. Nobody looks whether it is: that would read both lists.
    fn insert(&mut self, id: &Id) {
        debug_assert!(!self.contains(id), "{id} is there already");
        match (&mut *self, id.canonical()) {
            (Self::Lists(lists), Some(id)) => {
                let lists = Arc::make_mut(lists);
                lists.insert(id);
                if lists.len == RECENT_MAX {
                    self.merge();
                }
            }
            (Self::Lists(_), None) => {
                let ids = self.iter().chain([id.clone()]);
                *self = Self::Set(ids.collect());
            }
            (Self::Set(ids), _) => {
                ids.insert(id.clone());
            }
        }
    }

    fn merge(&mut self) {
        if let Self::Lists(lists) = self
            && lists.len() <= LISTS_MAX
        {
            let mut all = Vec::with_capacity(lists.len());
            all.extend(lists.iter());
            *self = Self::settled(all.into());
        } else {
            *self = Self::Set(self.iter().collect());
        }
    }

    fn settled(settled: Arc<[CanonicalId]>) -> Self {
        Self::Lists(Arc::new(Lists {
            settled,
            ..Lists::default()
        }))
    }

    /// Takes an id out; `true` when nothing is left.
    fn remove(&mut self, id: &Id) -> bool {
        match self {
            Self::Lists(lists) => {
                if let Some(id) = id.canonical() {
                    Arc::make_mut(lists).remove(id);
                }
            }
            Self::Set(ids) => {
                ids.remove(id);
                if ids.len() <= LISTS_MAX / 2 {
                    let plain: Option<Arc<[_]>> = ids.iter().map(Id::canonical).collect();
                    if let Some(plain) = plain {
                        *self = Self::settled(plain);
                    }
                }
            }
        }
        self.len() == 0
    }
}

impl PartialEq for Ids {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

/// The ids of one value in order.
enum Iter<'a> {
    Lists(Merged<'a>),
    Set(imbl::ordset::Iter<'a, Id, imbl::shared_ptr::DefaultSharedPtr>),
}

impl Iterator for Iter<'_> {
    type Item = Id;
    fn next(&mut self) -> Option<Id> {
        match self {
            Self::Lists(lists) => lists.next().map(Id::from),
            Self::Set(ids) => ids.next().cloned(),
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
    pub(crate) fn ids<'a>(&'a self, value: &V) -> impl Iterator<Item = Id> + use<'a, V> {
        self.values.get(value).into_iter().flat_map(Ids::iter)
    }

    /// The values that some id has, in order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.values.keys()
    }

    /// Moves an id from its old value to its new one; does nothing where they are equal.
    pub(crate) fn change(&mut self, id: &Id, old: Option<&V>, new: Option<&V>) {
        if old == new {
            return;
        }
        if let Some(old) = old
            && self.values.get_mut(old).is_some_and(|ids| ids.remove(id))
        {
            self.values.remove(old);
        }
        let Some(new) = new else {
            return;
        };
        match self.values.get_mut(new) {
            Some(ids) => ids.insert(id),
            None => {
                let mut ids = Ids::default();
                ids.insert(id);
                self.values.insert(new.clone(), ids);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Every third one, at most, has a form of its own.
    fn id(number: u32, has_free_forms: bool) -> Id {
        let is_free_form = has_free_forms && number.is_multiple_of(3);
        let free_form = if is_free_form { "x" } else { "" };
        format!("{free_form}{number:025}").parse().unwrap()
    }

    proptest! {
        /// Growth beyond both bounds and back, with a copy from which the other one is written.
        #[test]
        fn ids_agree_with_a_set(
            numbers in prop::collection::btree_set(0u32..2_000, 0..800),
            order in any::<u64>(),
            left in 0usize..300,
            has_free_forms in any::<bool>(),
        ) {
            let id = |number| id(number, has_free_forms);
            let mut numbers: Vec<u32> = numbers.into_iter().collect();
            numbers.sort_by_key(|number| order.wrapping_mul(u64::from(*number) * 2 + 1));
            let mut ids = Ids::default();
            let mut twin = BTreeSet::new();
            for number in &numbers {
                ids.insert(&id(*number));
                twin.insert(id(*number));
                prop_assert_eq!(ids.len(), twin.len());
            }
            prop_assert!(ids.iter().eq(twin.iter().cloned()));
            let (before, twin_before) = (ids.clone(), twin.clone());
            for number in numbers.iter().skip(left) {
                twin.remove(&id(*number));
                prop_assert_eq!(ids.remove(&id(*number)), twin.is_empty());
            }
            ids.remove(&id(5_000));
            prop_assert!(ids.iter().eq(twin.iter().cloned()));
            prop_assert_eq!(&ids, &Ids::Set(twin.into_iter().collect()));
            prop_assert!(before.iter().eq(twin_before));
        }
    }
}
