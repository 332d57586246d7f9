//! Refusals: a code and a text, made from a rule that is declared beside the check that uses it.

use std::fmt;

use swarm_store::{Conflict, FindError, StoreError};
use swarm_types::Kind;

/// Characters of one value that a refusal repeats at most. A bound on hostile input: a spec may
/// hold a name of megabytes, and the text goes into logs and terminals.
const SHOWN_CHARS_MAX: usize = 256;

/// A gRPC status code; the ones that the Control service answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// What SwarmKit answers for an error that nobody gave a code. Kept where clients match it.
    Unknown,
    /// The request itself is wrong, whatever the state of the cluster.
    InvalidArgument,
    /// There is no such object.
    NotFound,
    /// There is such an object already.
    AlreadyExists,
    /// The state of the cluster forbids it for now.
    FailedPrecondition,
    /// This program cannot do it.
    Unimplemented,
    /// An invariant does not hold.
    Internal,
}

impl Code {
    /// The number on the wire.
    pub fn number(self) -> i32 {
        match self {
            Self::Unknown => 2,
            Self::InvalidArgument => 3,
            Self::NotFound => 5,
            Self::AlreadyExists => 6,
            Self::FailedPrecondition => 9,
            Self::Unimplemented => 12,
            Self::Internal => 13,
        }
    }

    /// The name as Go prints it, which the Docker API repeats to its users.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "Unknown",
            Self::InvalidArgument => "InvalidArgument",
            Self::NotFound => "NotFound",
            Self::AlreadyExists => "AlreadyExists",
            Self::FailedPrecondition => "FailedPrecondition",
            Self::Unimplemented => "Unimplemented",
            Self::Internal => "Internal",
        }
    }
}

/// What a program should do about a refusal, without reading its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Ask for something else.
    Invalid,
    /// The object is gone or never was.
    NotFound,
    /// Read again, decide again.
    Conflict,
    /// Report it: this program has a defect.
    Fatal,
}

/// Why a request was not done. Nothing of it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    rule: Rule,
    message: String,
}

impl Refusal {
    /// The code on the wire.
    pub fn code(&self) -> Code {
        self.rule.code
    }

    /// What to do about it.
    pub fn class(&self) -> Class {
        self.rule.class
    }

    /// The text for people. Texts that clients match are those of SwarmKit.
    pub fn message(&self) -> &str {
        &self.message
    }

    #[cfg(test)]
    pub(crate) fn rule(&self) -> Rule {
        self.rule
    }
}

/// A reason for refusals: where every `{}` of the text is replaced by a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    name: &'static str,
    code: Code,
    class: Class,
    text: &'static str,
}

impl Rule {
    pub(crate) const fn new(name: &'static str, code: Code, text: &'static str) -> Self {
        let class = match code {
            Code::Unknown | Code::InvalidArgument | Code::Unimplemented => Class::Invalid,
            Code::NotFound => Class::NotFound,
            Code::AlreadyExists | Code::FailedPrecondition => Class::Conflict,
            Code::Internal => Class::Fatal,
        };
        Self {
            name,
            code,
            class,
            text,
        }
    }

    const fn conflicting(mut self) -> Self {
        self.class = Class::Conflict;
        self
    }

    /// A refusal whose text has no gaps.
    pub(crate) fn plain(self) -> Refusal {
        self.refuse(&[])
    }

    /// A refusal with the gaps of the text filled in order; long values are cut.
    pub(crate) fn refuse(self, values: &[&dyn fmt::Display]) -> Refusal {
        let mut message = String::new();
        let mut values = values.iter();
        for (index, part) in self.text.split("{}").enumerate() {
            if index > 0
                && let Some(value) = values.next()
            {
                push_cut(&mut message, &value.to_string());
            }
            message.push_str(part);
        }
        Refusal {
            rule: self,
            message,
        }
    }

    #[cfg(test)]
    pub(crate) fn name(self) -> &'static str {
        self.name
    }
}

fn push_cut(message: &mut String, value: &str) {
    match value.char_indices().nth(SHOWN_CHARS_MAX) {
        None => message.push_str(value),
        Some((end, _)) => {
            message.push_str(&value[..end]);
            message.push('…');
        }
    }
}

/// Declares rules as constants, and lists them for the golden test.
macro_rules! rules {
    ($($(#[$meta:meta])* $name:ident: $code:ident, $text:literal;)*) => {
        $(
            $(#[$meta])*
            pub(crate) const $name: $crate::refusal::Rule = $crate::refusal::Rule::new(
                stringify!($name),
                $crate::refusal::Code::$code,
                $text,
            );
        )*
        #[cfg(test)]
        pub(crate) const RULES: &[$crate::refusal::Rule] = &[$($name),*];
    };
}
pub(crate) use rules;

rules! {
    OBJECT_EXISTS: Unknown, "object already exists";
    OBJECT_NOT_EXISTS: Unknown, "object does not exist";
    NAME_CONFLICT: Unknown, "name conflicts with an existing object";
    SERVICE_NAME_CONFLICT: AlreadyExists,
        "name conflicts with an existing object: service {} already exists";
    STATE_REGRESSION: Internal, "{}";
    FIND_ARGUMENT: InvalidArgument, "invalid find argument type";
    GONE_AFTER_WRITE: Internal, "object {} is missing right after it was written";
}

/// dockerd matches this text, and that the code is Unknown.
pub(crate) const OUT_OF_SEQUENCE: Rule =
    Rule::new("OUT_OF_SEQUENCE", Code::Unknown, "update out of sequence").conflicting();

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Exists { .. } => OBJECT_EXISTS.plain(),
            StoreError::NotExists { .. } => OBJECT_NOT_EXISTS.plain(),
            StoreError::NameConflict {
                kind: Kind::Service,
                name,
            } => SERVICE_NAME_CONFLICT.refuse(&[&name]),
            StoreError::NameConflict { .. } => NAME_CONFLICT.plain(),
            StoreError::OutOfSequence { .. } => OUT_OF_SEQUENCE.plain(),
            StoreError::Regression(error) => STATE_REGRESSION.refuse(&[&error]),
        }
    }
}

impl From<Conflict> for Refusal {
    fn from(conflict: Conflict) -> Self {
        conflict.error.into()
    }
}

impl From<FindError> for Refusal {
    fn from(_: FindError) -> Self {
        FIND_ARGUMENT.plain()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_cut_at_a_character() {
        let rule = Rule::new("X", Code::Internal, "<{}>");
        let fits = "ä".repeat(SHOWN_CHARS_MAX);
        assert_eq!(rule.refuse(&[&fits]).message(), format!("<{fits}>"));
        let long = "ä".repeat(SHOWN_CHARS_MAX + 1);
        assert_eq!(rule.refuse(&[&long]).message(), format!("<{fits}…>"));
    }

    #[test]
    fn a_value_that_looks_like_a_gap_is_not_filled() {
        let rule = Rule::new("X", Code::Internal, "{} and {}");
        assert_eq!(rule.refuse(&[&"{}", &1]).message(), "{} and 1");
    }

    #[test]
    fn a_stale_version_is_a_conflict_although_its_code_is_unknown() {
        let refusal = OUT_OF_SEQUENCE.plain();
        assert_eq!(refusal.code().number(), 2);
        assert_eq!(refusal.class(), Class::Conflict);
        assert_eq!(NAME_CONFLICT.plain().class(), Class::Invalid);
    }
}
