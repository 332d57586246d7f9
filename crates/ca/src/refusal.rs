//! Refusals of the certificate authority. Codes and texts are SwarmKit's where it has them.

use std::fmt;

/// Characters of a foreign value that a refusal repeats at most; the text goes into logs.
const SHOWN_CHARS_MAX: usize = 128;

/// The part of the gRPC codes that the certificate authority uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The request itself is wrong.
    InvalidArgument,
    /// There is no such node or token.
    NotFound,
    /// Not this caller's business.
    PermissionDenied,
    /// The state of the cluster forbids it for now.
    FailedPrecondition,
    /// A bound is reached.
    ResourceExhausted,
    /// Nobody can sign at present; try again.
    Aborted,
    /// What the cluster stores cannot be used.
    Internal,
}

impl Code {
    /// The number on the wire.
    pub fn number(self) -> i32 {
        match self {
            Self::InvalidArgument => 3,
            Self::NotFound => 5,
            Self::PermissionDenied => 7,
            Self::ResourceExhausted => 8,
            Self::FailedPrecondition => 9,
            Self::Aborted => 10,
            Self::Internal => 13,
        }
    }
}

/// Why a request was not done. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The gRPC code.
    pub code: Code,
    /// The text for the caller.
    pub message: String,
}

impl Refusal {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Code::NotFound, message)
    }

    pub(crate) fn still_starting() -> Self {
        Self::new(Code::Aborted, "CA signer is still starting")
    }
}

/// A value from outside, cut to a length that a log line bears.
pub(crate) fn shown(value: impl fmt::Display) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_from_outside_are_cut() {
        assert_eq!(shown("short"), "short");
        let long = shown("ü".repeat(SHOWN_CHARS_MAX + 1));
        assert_eq!(long.chars().count(), SHOWN_CHARS_MAX + 1);
        assert!(long.ends_with('…'));
    }
}
