//! What people are to know about reports and writes that were too large.

use swarm_store::Oversize;

use crate::bounds::CutStatus;

/// Reports that are told one by one, at most; of the others only the number is.
pub const NOTICES_MAX: usize = 16;

/// What was given up or cut in some time.
#[derive(Debug, Default)]
pub struct Notices {
    /// Writes that no entry of the log can hold.
    pub oversize: Vec<Oversize>,
    /// Parts of statuses that were cut; the first ones.
    pub cuts: Vec<CutStatus>,
    /// How many parts were cut.
    pub cuts_count: u64,
}

impl Notices {
    pub(crate) fn cut(&mut self, cuts: Vec<CutStatus>) {
        self.cuts_count += cuts.len() as u64;
        let room = NOTICES_MAX.saturating_sub(self.cuts.len());
        self.cuts.extend(cuts.into_iter().take(room));
    }
}
