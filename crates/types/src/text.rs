//! A short text that is a constant most of the time.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

/// A status message or error. Messages that SwarmKit writes on every task are constants, so a
/// million tasks that say "started" hold no copy of the word.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Text(Cow<'static, str>);

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
    pub const EMPTY: Self = Self(Cow::Borrowed(""));

    /// From a received string: a known message becomes a constant.
    pub fn from_wire(text: String) -> Self {
        if text.is_empty() {
            return Self::EMPTY;
        }
        match KNOWN.iter().find(|known| **known == text) {
            Some(known) => Self(Cow::Borrowed(known)),
            None => Self(Cow::Owned(text)),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::from_wire(text)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
