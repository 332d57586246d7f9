//! A seeded mixing function for the two places that need spread without a random source:
//! election timeouts and the faults of the simulated disk. Not for anything secret.

/// SplitMix64: one multiplication-based step, period 2^64, every seed is good.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    state: u64,
}

impl Mix {
    pub(crate) fn new(seed: u64) -> Self {
        Mix { state: seed }
    }

    /// The next value; all 64 bits are usable.
    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A value in `0..bound`; 0 when the bound is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // The bias of the remainder is below 2^-40 for every bound in use here.
        if bound == 0 { 0 } else { self.next() % bound }
    }
}
