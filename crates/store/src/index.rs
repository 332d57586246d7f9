//! Secondary indices: from a value to the ids of the objects that have it.
//!
//! Indices hold ids, not objects: a status update then touches the object table and nothing else.

use std::borrow::Borrow;

use swarm_types::Id;

use crate::map::{Map, Set};

mod lists;

pub(crate) use lists::ListIndex;

/// The ids which share a value. Most values belong to one object (a slot, a name), and a set would
/// cost them a whole tree node each.
#[derive(Clone, Debug)]
pub(crate) enum Posting {
    One(Id),
    Many(Set<Id>),
}

impl Posting {
    pub(crate) fn iter(&self) -> PostingIter<'_> {
        match self {
            Self::One(id) => PostingIter::One(Some(id)),
            Self::Many(ids) => PostingIter::Many(ids.iter()),
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(ids) => ids.len(),
        }
    }

    /// Takes an id out; `true` when nothing is left.
    fn remove(&mut self, id: &Id) -> bool {
        match self {
            Self::One(only) => only == id,
            Self::Many(ids) => {
                ids.remove(id);
                let only = ids.get_min().filter(|_| ids.len() == 1).cloned();
                let empty = ids.is_empty();
                if let Some(only) = only {
                    // A slot has two tasks during every update; it must not keep a set for ever.
                    *self = Self::One(only);
                }
                empty
            }
        }
    }

    fn insert(&mut self, id: &Id) {
        match self {
            Self::One(first) if first == id => {}
            Self::One(first) => {
                *self = Self::Many([first.clone(), id.clone()].into_iter().collect());
            }
            Self::Many(ids) => {
                ids.insert(id.clone());
            }
        }
    }
}

impl PartialEq for Posting {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

/// The ids of a posting in order.
pub(crate) enum PostingIter<'a> {
    One(Option<&'a Id>),
    Many(imbl::ordset::Iter<'a, Id, imbl::shared_ptr::DefaultSharedPtr>),
}

impl<'a> Iterator for PostingIter<'a> {
    type Item = &'a Id;
    fn next(&mut self) -> Option<&'a Id> {
        match self {
            Self::One(id) => id.take(),
            Self::Many(ids) => ids.next(),
        }
    }
}

/// One index of a table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Index<V: Ord + Clone> {
    values: Map<V, Posting>,
}

impl<V: Ord + Clone> Default for Index<V> {
    fn default() -> Self {
        Self { values: Map::new() }
    }
}

impl<V: Ord + Clone> Index<V> {
    /// The ids that have the value, in order.
    pub(crate) fn ids<'a, Q>(&'a self, value: &Q) -> impl Iterator<Item = &'a Id> + use<'a, V, Q>
    where
        Q: Ord + ?Sized,
        V: Borrow<Q>,
    {
        self.values.get(value).into_iter().flat_map(Posting::iter)
    }

    pub(crate) fn first<Q>(&self, value: &Q) -> Option<&Id>
    where
        Q: Ord + ?Sized,
        V: Borrow<Q>,
    {
        self.values
            .get(value)
            .and_then(|posting| posting.iter().next())
    }

    pub(crate) fn count<Q>(&self, value: &Q) -> usize
    where
        Q: Ord + ?Sized,
        V: Borrow<Q>,
    {
        self.values.get(value).map_or(0, Posting::len)
    }

    /// The values and their ids from `low` on.
    pub(crate) fn from<Q>(&self, low: &Q) -> impl Iterator<Item = (&V, &Posting)>
    where
        Q: Ord + ?Sized,
        V: Borrow<Q>,
    {
        self.values
            .range::<_, Q>((std::ops::Bound::Included(low), std::ops::Bound::Unbounded))
    }

    pub(crate) fn insert(&mut self, value: V, id: &Id) {
        match self.values.get_mut(&value) {
            Some(posting) => posting.insert(id),
            None => {
                self.values.insert(value, Posting::One(id.clone()));
            }
        }
    }

    pub(crate) fn remove<Q>(&mut self, value: &Q, id: &Id)
    where
        Q: Ord + ?Sized,
        V: Borrow<Q>,
    {
        let posting = self.values.get_mut(value);
        if posting.is_some_and(|posting| posting.remove(id)) {
            self.values.remove(value);
        }
    }

    /// Moves an id from its old value to its new one; does nothing where they are equal.
    pub(crate) fn change(&mut self, id: &Id, old: Option<V>, new: Option<V>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.remove(&old, id);
        }
        if let Some(new) = new {
            self.insert(new, id);
        }
    }

    /// The same for a multi-valued index.
    pub(crate) fn change_all(
        &mut self,
        id: &Id,
        old: impl Iterator<Item = V>,
        new: impl Iterator<Item = V>,
    ) {
        let old: std::collections::BTreeSet<V> = old.collect();
        let new: std::collections::BTreeSet<V> = new.collect();
        for value in old.difference(&new) {
            self.remove(value, id);
        }
        for value in new.difference(&old) {
            self.insert(value.clone(), id);
        }
    }
}
