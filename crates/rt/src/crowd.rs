//! Who has to go when places are few and strangers many.
//!
//! Places are counted by where their holders come from, so that one that comes in numbers cannot
//! keep others out: when all are taken, the oldest of the most numerous gives way to a newcomer
//! from elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// Bits of an address of IPv6 that tell networks apart; whoever has one has all in it.
const NETWORK_BITS: u32 = 64;

/// Where a connection comes from, as far as it costs to come from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin(IpAddr);

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                let network = u128::from(address) & (u128::MAX << NETWORK_BITS);
                IpAddr::V6(Ipv6Addr::from(network))
            }
        })
    }
}

/// Holders of places, by their numbers, which grow.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    by_origin: BTreeMap<Origin, BTreeSet<u64>>,
    count: usize,
}

impl Crowd {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// How many come from there.
    pub(crate) fn of(&self, origin: Origin) -> usize {
        self.by_origin.get(&origin).map_or(0, BTreeSet::len)
    }

    /// Takes one in.
    pub(crate) fn enter(&mut self, origin: Origin, number: u64) {
        if self.by_origin.entry(origin).or_default().insert(number) {
            self.count += 1;
        }
    }

    /// Lets one go, if it is still here.
    pub(crate) fn leave(&mut self, origin: Origin, number: u64) {
        if let Some(numbers) = self.by_origin.get_mut(&origin)
            && numbers.remove(&number)
        {
            self.count -= 1;
            if numbers.is_empty() {
                self.by_origin.remove(&origin);
            }
        }
    }

    /// Lets the one go that has to give way to somebody from there: the oldest from where the most
    /// come, if these have at least twice what the newcomers would have. `None` when the crowd is
    /// shared as fairly as that.
    pub(crate) fn give_way(&mut self, newcomer: Origin) -> Option<u64> {
        let share = self.of(newcomer) + 1;
        let (&origin, numbers) = self.by_origin.iter().max_by_key(|(_, it)| it.len())?;
        if numbers.len() < 2 * share {
            return None;
        }
        let oldest = *numbers.first()?;
        self.leave(origin, oldest);
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(address: &str) -> Origin {
        Origin::from(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn a_network_of_ipv6_is_one_origin_and_an_address_of_ipv4_as_well() {
        assert_eq!(origin("2001:db8::1"), origin("2001:db8::ffff:2"));
        assert_ne!(origin("2001:db8::1"), origin("2001:db8:0:1::1"));
        assert_eq!(origin("10.0.0.1"), origin("::ffff:10.0.0.1"));
        assert_ne!(origin("10.0.0.1"), origin("10.0.0.2"));
    }

    #[test]
    fn the_oldest_of_the_most_numerous_gives_way_to_others_and_to_nobody_of_its_own() {
        let (many, few, new) = (origin("10.0.0.1"), origin("10.0.0.2"), origin("10.0.0.3"));
        let mut crowd = Crowd::default();
        for number in 0..8 {
            crowd.enter(many, number);
        }
        crowd.enter(few, 8);
        assert_eq!(crowd.give_way(many), None);
        assert_eq!(crowd.give_way(new), Some(0));
        assert_eq!((crowd.count(), crowd.of(many)), (8, 7));
        crowd.enter(new, 9);
        // Seven against two and three, then six against four.
        assert_eq!(crowd.give_way(new), Some(1));
        crowd.enter(new, 10);
        assert_eq!(crowd.give_way(new), Some(2));
        crowd.enter(new, 11);
        assert_eq!(crowd.give_way(new), None);
        // One that gave way may be let go again, which changes nothing.
        crowd.leave(many, 0);
        assert_eq!(crowd.count(), 9);
        for number in 3..8 {
            crowd.leave(many, number);
        }
        assert_eq!((crowd.of(many), crowd.count()), (0, 4));
    }

    #[test]
    fn a_crowd_of_one_place_each_is_fair_enough() {
        let mut crowd = Crowd::default();
        assert_eq!(crowd.give_way(origin("10.0.0.9")), None);
        for last in 1..=5_u64 {
            crowd.enter(origin(&format!("10.0.0.{last}")), last);
        }
        assert_eq!(crowd.give_way(origin("10.0.0.9")), None);
    }
}
