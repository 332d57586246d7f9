//! How many active tasks of each service a node has.
//!
//! There is one of these for each node, and a plan makes one for each node that it touches, so the
//! frequent case, a single service, takes no allocation.

use swarm_types::ServiceId;

/// A service, or all tasks without one.
pub(crate) type Owner = Option<ServiceId>;

/// Counts by service. Each number of services has one form, so that equal counts are equal.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum ServiceCounts {
    #[default]
    None,
    One(Owner, u64),
    /// At least two, sorted, none of them zero.
    Many(Vec<(Owner, u64)>),
}

impl ServiceCounts {
    /// The count of a service.
    pub(crate) fn get(&self, owner: &Owner) -> u64 {
        match self {
            Self::One(only, count) if only == owner => *count,
            Self::None | Self::One(..) => 0,
            Self::Many(counts) => find(counts, owner).map_or(0, |index| counts[index].1),
        }
    }

    /// Adds one task.
    pub(crate) fn add(&mut self, owner: &Owner) {
        match self {
            Self::None => *self = Self::One(owner.clone(), 1),
            Self::One(only, count) if only == owner => *count += 1,
            Self::One(only, count) => {
                let mut counts = vec![(only.clone(), *count), (owner.clone(), 1)];
                counts.sort();
                *self = Self::Many(counts);
            }
            Self::Many(counts) => match find(counts, owner) {
                Ok(index) => counts[index].1 += 1,
                Err(index) => counts.insert(index, (owner.clone(), 1)),
            },
        }
    }

    /// Takes one task away that was added before.
    pub(crate) fn remove(&mut self, owner: &Owner) {
        match self {
            Self::One(only, count) if only == owner => {
                *count -= 1;
                if *count == 0 {
                    *self = Self::None;
                }
            }
            Self::None | Self::One(..) => {}
            Self::Many(counts) => {
                let Ok(index) = find(counts, owner) else {
                    return;
                };
                counts[index].1 -= 1;
                if counts[index].1 == 0 {
                    counts.remove(index);
                }
                if let [(owner, count)] = counts.as_slice() {
                    *self = Self::One(owner.clone(), *count);
                }
            }
        }
    }
}

fn find(counts: &[(Owner, u64)], owner: &Owner) -> Result<usize, usize> {
    counts.binary_search_by(|(other, _)| other.cmp(owner))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn owner(number: u8) -> Owner {
        (number > 0).then(|| format!("s{number}").parse().unwrap())
    }

    proptest! {
        #[test]
        fn they_count_like_a_map_and_have_one_form(
            steps in prop::collection::vec((any::<bool>(), 0u8..4), 0..40),
        ) {
            let mut counts = ServiceCounts::default();
            let mut twin: BTreeMap<u8, u64> = BTreeMap::new();
            for (is_added, number) in steps {
                let count = twin.entry(number).or_default();
                if is_added {
                    *count += 1;
                    counts.add(&owner(number));
                } else if *count > 0 {
                    *count -= 1;
                    counts.remove(&owner(number));
                }
                for number in 0..4 {
                    let expected = twin.get(&number).copied().unwrap_or(0);
                    prop_assert_eq!(counts.get(&owner(number)), expected);
                }
                let mut fresh = ServiceCounts::default();
                for (number, count) in &twin {
                    (0..*count).for_each(|_| fresh.add(&owner(*number)));
                }
                prop_assert_eq!(&counts, &fresh);
            }
        }
    }
}
