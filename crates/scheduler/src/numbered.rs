//! Maps from the small numbers of nodes and branches, for plans: they look up each node that they
//! touch a few times, and start anew with every transaction.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map from numbers. Never iterated, as its order means nothing.
pub(crate) type Numbered<V> = HashMap<u32, V, BuildHasherDefault<Spread>>;

/// Spreads small numbers over a table. They are places in our own lists, so nobody can choose them
/// to collide.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spread(u64);

/// 2^64 divided by the golden ratio, odd: neighbours differ in the upper bits, which tables look
/// at, and never share the lower ones.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(FACTOR);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
