//! IPv4 subnets: reading them, and cutting a free one out of the pools of the cluster. Pure
//! arithmetic; does not know what a network is.

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Longest prefix of a subnet from which addresses are given: below it there is no room for a
/// gateway and one endpoint.
pub(crate) const PREFIX_MAX: u8 = 29;

/// A block of addresses, aligned to its size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subnet {
    first: u32,
    prefix: u8,
}

/// A text that is no IPv4 block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotASubnet;

impl Subnet {
    /// The block of this size around an address; `None` for a prefix above 32.
    pub(crate) fn around(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        (prefix <= 32).then(|| Self {
            first: u32::from(address) & mask(prefix),
            prefix,
        })
    }

    /// Length of the prefix in bits.
    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    /// First address, which names the block.
    pub(crate) fn first(self) -> Ipv4Addr {
        self.first.into()
    }

    fn last(self) -> u32 {
        self.first | !mask(self.prefix)
    }

    /// Whether the address is in it.
    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == self.first
    }

    /// Whether the two share an address.
    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.first <= other.last() && other.first <= self.last()
    }

    /// The addresses that something can have: all but the first and the last.
    pub(crate) fn hosts(self) -> RangeInclusive<u32> {
        self.first.saturating_add(1)..=self.last().saturating_sub(1)
    }

    /// An address in it with its prefix behind, as objects carry it.
    pub(crate) fn cidr(self, address: Ipv4Addr) -> String {
        format!("{address}/{}", self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX
        .checked_shl(32 - u32::from(prefix.min(32)))
        .unwrap_or(0)
}

/// Reads the address of a text like `10.0.0.7/24`, or `10.0.0.7`.
pub(crate) fn address(text: &str) -> Option<Ipv4Addr> {
    text.split('/').next()?.parse().ok()
}

impl FromStr for Subnet {
    type Err = NotASubnet;
    fn from_str(text: &str) -> Result<Self, NotASubnet> {
        let (address, prefix) = text.split_once('/').ok_or(NotASubnet)?;
        let address: Ipv4Addr = address.parse().map_err(|_| NotASubnet)?;
        let prefix: u8 = prefix.parse().map_err(|_| NotASubnet)?;
        Self::around(address, prefix).ok_or(NotASubnet)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first(), self.prefix)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The lowest block of the wanted size in the first pool that has one which overlaps nothing used.
/// Takes one step for each used block and pool at most.
pub(crate) fn carve(pools: &[Subnet], prefix: u8, used: &[Subnet]) -> Option<Subnet> {
    let mut used = used.to_vec();
    used.sort_unstable();
    pools
        .iter()
        .filter(|pool| pool.prefix <= prefix)
        .find_map(|pool| carve_from(*pool, prefix, &used))
}

fn carve_from(pool: Subnet, prefix: u8, used: &[Subnet]) -> Option<Subnet> {
    let mut candidate = Subnet::around(pool.first(), prefix)?;
    // A block that starts earlier may end later, so each step looks at all of them.
    while let Some(taken) = used.iter().find(|taken| taken.overlaps(candidate)) {
        let beyond = taken.last().max(candidate.last()).checked_add(1)?;
        candidate = Subnet::around(beyond.into(), prefix)?;
        if candidate.first > pool.last() {
            return None;
        }
    }
    Some(candidate)
}

#[cfg(test)]
mod tests;
