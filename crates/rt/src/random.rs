//! Randomness from the operating system.

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use swarm_types::{Id, IdSource};

/// A generator seeded from the operating system.
pub fn os_rng() -> ChaCha12Rng {
    let mut seed = [0u8; 32];
    getrandom::fill(&mut seed).expect("the kernel's random source works on every supported system");
    ChaCha12Rng::from_seed(seed)
}

/// Fresh ids.
#[derive(Debug)]
pub struct OsIds {
    rng: ChaCha12Rng,
}

impl OsIds {
    /// A source seeded from the operating system.
    pub fn new() -> Self {
        Self { rng: os_rng() }
    }

    /// A random number.
    pub fn next_u64(&mut self) -> u64 {
        self.rng.next_u64()
    }
}

impl Default for OsIds {
    fn default() -> Self {
        Self::new()
    }
}

impl IdSource for OsIds {
    fn next_id(&mut self) -> Id {
        let mut bytes = [0u8; 17];
        self.rng.fill_bytes(&mut bytes);
        Id::from_random(bytes)
    }

    fn next_key(&mut self) -> [u8; 16] {
        let mut key = [0u8; 16];
        self.rng.fill_bytes(&mut key);
        key
    }
}
