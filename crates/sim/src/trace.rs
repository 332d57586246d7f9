//! What happened: one line for each event, hashed, and the last ones kept for a failure.
//!
//! Columns: true time in seconds, the node or `mgr` or `user` or `fault`, what happened, details.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};

use crate::time::Instant;

/// Lines kept for the report of a failure.
const LINES_KEPT: usize = 60;
/// FNV-1a, 64 bits: stable across processes and compilers.
const HASH_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const HASH_PRIME: u64 = 0x0100_0000_01b3;

/// How much is printed while a seed runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Detail {
    /// Nothing.
    #[default]
    None,
    /// Faults, actions of the user, and changes of tasks and nodes.
    Short,
    /// Every event.
    Full,
}

/// Whether a line is worth a place in the short trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Messages, timers, syncs.
    Minor,
    /// Everything that a person would tell.
    Major,
}

/// The trace of one run.
#[derive(Debug)]
pub(crate) struct Trace {
    detail: Detail,
    hash: u64,
    events: u64,
    line: String,
    recent: VecDeque<String>,
    /// Printed lines, if any are wanted.
    pub(crate) printed: Vec<String>,
}

impl Trace {
    pub(crate) fn new(detail: Detail) -> Self {
        Self {
            detail,
            hash: HASH_BASIS,
            events: 0,
            line: String::new(),
            recent: VecDeque::new(),
            printed: Vec::new(),
        }
    }

    /// Adds a line.
    pub(crate) fn add(
        &mut self,
        at: Instant,
        weight: Weight,
        who: impl fmt::Display,
        what: fmt::Arguments<'_>,
    ) {
        self.events += 1;
        self.line.clear();
        // Writing into a string cannot fail.
        let _ = write!(self.line, "{at} {who:<6} {what}");
        for byte in self.line.bytes().chain([b'\n']) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(HASH_PRIME);
        }
        match self.detail {
            Detail::Full => self.printed.push(self.line.clone()),
            Detail::Short if weight == Weight::Major => self.printed.push(self.line.clone()),
            Detail::Short | Detail::None => {}
        }
        if weight == Weight::Major || self.detail == Detail::Full {
            if self.recent.len() == LINES_KEPT {
                self.recent.pop_front();
            }
            self.recent.push_back(self.line.clone());
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn recent(&self) -> Vec<String> {
        self.recent.iter().cloned().collect()
    }
}
