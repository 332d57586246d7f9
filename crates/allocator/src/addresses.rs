//! Which addresses of a network are taken, and which one is next (spec 20: serial, without early
//! reuse). Does not know who has an address.
//!
//! Taken addresses are kept as runs, so that a full subnet costs one entry, and finding the next
//! free address costs O(log n) wherever the search begins.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

/// The taken addresses of one network.
///
/// Where the search for the next one begins is a hint: it is no function of the store, and a leader
/// that takes over begins behind the highest taken address. Two pools are equal if the same
/// addresses are taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool {
    /// First to last address of each run; runs neither touch nor overlap.
    runs: BTreeMap<u32, u32>,
    /// Holders beyond the first, of addresses that several objects claim.
    extra: BTreeMap<u32, u32>,
    taken: u64,
    next: u32,
}

impl PartialEq for Pool {
    fn eq(&self, other: &Self) -> bool {
        self.runs == other.runs && self.extra == other.extra
    }
}

impl Pool {
    /// One more object holds the address; the search goes on behind it.
    pub(crate) fn take(&mut self, address: Ipv4Addr) {
        let address = u32::from(address);
        self.next = address.saturating_add(1);
        if self.run_of(address).is_some() {
            *self.extra.entry(address).or_default() += 1;
            return;
        }
        self.taken += 1;
        let before = address
            .checked_sub(1)
            .and_then(|before| self.run_of(before))
            .map(|(first, _)| first);
        let after = address
            .checked_add(1)
            .and_then(|after| self.runs.remove(&after));
        let first = before.unwrap_or(address);
        self.runs.insert(first, after.unwrap_or(address));
    }

    /// One object less holds the address. Returns whether nobody holds it from now on.
    pub(crate) fn free(&mut self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        if let Some(count) = self.extra.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.extra.remove(&address);
            }
            return false;
        }
        let Some((first, last)) = self.run_of(address) else {
            return false;
        };
        self.taken -= 1;
        self.runs.remove(&first);
        if first < address {
            self.runs.insert(first, address - 1);
        }
        if address < last {
            self.runs.insert(address + 1, last);
        }
        true
    }

    /// Whether nothing is taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Lets the search begin behind the highest taken address.
    pub(crate) fn rewind(&mut self) {
        let last = self.runs.last_key_value().map(|(_, last)| *last);
        self.next = last.map_or(0, |last| last.saturating_add(1));
    }

    fn run_of(&self, address: u32) -> Option<(u32, u32)> {
        let (first, last) = self.runs.range(..=address).next_back()?;
        (address <= *last).then_some((*first, *last))
    }
}

/// Draws several addresses from a pool that stays as it is meanwhile.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pool: Option<&'a Pool>,
    range: RangeInclusive<u32>,
    reserved: u32,
    given: BTreeSet<u32>,
    next: u32,
}

impl<'a> Draft<'a> {
    /// Draws from these addresses but for the reserved one, which is the gateway's. No pool means
    /// that nothing is taken.
    pub(crate) fn new(
        pool: Option<&'a Pool>,
        range: RangeInclusive<u32>,
        reserved: Ipv4Addr,
    ) -> Self {
        Self {
            pool,
            range,
            reserved: reserved.into(),
            given: BTreeSet::new(),
            next: pool.map_or(0, |pool| pool.next),
        }
    }

    /// The next free address behind the one that was given last, from the start after the end.
    /// `None`: all are taken.
    pub(crate) fn draw(&mut self) -> Option<Ipv4Addr> {
        let (first, last) = (*self.range.start(), *self.range.end());
        let start = if self.range.contains(&self.next) {
            self.next
        } else {
            first
        };
        let before = start.checked_sub(1).filter(|before| *before >= first);
        let found = self
            .search(start, last)
            .or_else(|| self.search(first, before?))?;
        self.given.insert(found);
        self.next = found.saturating_add(1);
        Some(found.into())
    }

    /// At most so many addresses are left: more may be taken than counted, never fewer.
    pub(crate) fn left_max(&self) -> usize {
        let all = u64::from(*self.range.end())
            .saturating_add(1)
            .saturating_sub(u64::from(*self.range.start()));
        let taken = self.pool.map_or(0, |pool| pool.taken);
        let left = all
            .saturating_sub(taken)
            .saturating_sub(self.given.len() as u64);
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    fn search(&self, from: u32, to: u32) -> Option<u32> {
        let mut at = from;
        while at <= to {
            let run = self.pool.and_then(|pool| pool.run_of(at));
            match run {
                Some((_, last)) => at = last.checked_add(1)?,
                None if at == self.reserved || self.given.contains(&at) => {
                    at = at.checked_add(1)?;
                }
                None => return Some(at),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
