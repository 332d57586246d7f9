//! A short text that is a constant most of the time.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// A status message or error. Messages that SwarmKit writes on every task are constants, so a
/// million tasks that say "started" hold no copy of the word. Any other text is shared by its
/// clones, as a reason why a thousand tasks wait is by all of them.
#[derive(Clone)]
pub struct Text(Repr);

// Shared through a pointer of one word, so that the whole takes two.
#[derive(Clone)]
enum Repr {
    Constant(&'static str),
    Shared(Arc<Box<str>>),
}

/// The messages that loops and agents write over and over.
const KNOWN: &[&str] = &[
    "created",
    "pending task scheduling",
    "scheduler assigned task to node",
    "scheduler confirmed task can run on preassigned node",
    "accepted",
    "preparing",
    "prepared",
    "starting",
    "started",
    "finished",
    "shutdown",
];

impl Text {
    /// The empty text.
    pub const EMPTY: Self = Self(Repr::Constant(""));

    /// From a received string: a known message becomes a constant.
    pub fn from_wire(text: String) -> Self {
        if text.is_empty() {
            return Self::EMPTY;
        }
        match KNOWN.iter().find(|known| **known == text) {
            Some(known) => Self(Repr::Constant(known)),
            None => Self(Repr::Shared(Arc::new(text.into()))),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Repr::Constant(text) => text,
            Repr::Shared(text) => text,
        }
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, two) = (self.as_str(), other.as_str());
        // Most are empty, and to compare nothing with nothing takes longer than to compare words.
        if one.is_empty() || two.is_empty() {
            return one.len().cmp(&two.len());
        }
        one.cmp(two)
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self(Repr::Constant(text))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::from_wire(text)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
