//! Why an operation of a controller did not succeed, and what the agent must do about it.

use thiserror::Error;

/// The error of every operation. The texts of the first seven are SwarmKit's.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ExecError {
    /// Prepare was done before. Success.
    #[error("task already prepared")]
    AlreadyPrepared,
    /// Start was done before. Success.
    #[error("task already started")]
    AlreadyStarted,
    /// The change cannot be applied to a task under way.
    #[error("task update rejected: {reason}")]
    UpdateRejected {
        /// What was changed, and what to do instead.
        reason: String,
    },
    /// The controller was closed; an error of the caller.
    #[error("controller closed")]
    ControllerClosed,
    /// The operation was stopped from outside or ran out of time; the status stays as it is.
    #[error("{operation} was cancelled: {reason}")]
    Cancelled {
        /// The operation's name.
        operation: &'static str,
        /// Why.
        reason: String,
    },
    /// The trouble may pass by itself.
    #[error("{reason}")]
    Temporary {
        /// Object, value seen, way out.
        reason: String,
    },
    /// The executor never runs tasks of this kind.
    #[error("unsupported runtime: {reason}")]
    RuntimeUnsupported {
        /// The kind, and what to use instead.
        reason: String,
    },
    /// A secret, config or volume is not there yet.
    #[error("dependency not ready: {what}")]
    DependencyNotReady {
        /// Kind and name of what is missing.
        what: String,
    },
    /// The task ran and ended other than by success.
    #[error("{}", exit_text(*code, *oom, message))]
    Exited {
        /// The exit code; 128 plus the signal's number when a signal ended it.
        code: i32,
        /// Whether the kernel ended it for using more memory than its limit.
        oom: bool,
        /// What else is known; may be empty.
        message: String,
    },
    /// Trying again would not help.
    #[error("{reason}")]
    Fatal {
        /// Object, limit, value seen, way out.
        reason: String,
    },
}

/// What the agent does about an error (spec 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ErrorClass {
    /// Not an error: the operation was done before.
    Done,
    /// The operation starts again later; the status stays as it is.
    Cancelled,
    /// The operation starts again later; the status shows the error's text.
    Retry,
    /// The task ends: REJECTED before STARTING, FAILED from there on.
    Fatal,
}

impl ExecError {
    /// Shorthand for [`ExecError::Fatal`].
    pub fn fatal(reason: impl Into<String>) -> Self {
        Self::Fatal {
            reason: reason.into(),
        }
    }

    /// Shorthand for [`ExecError::Temporary`].
    pub fn temporary(reason: impl Into<String>) -> Self {
        Self::Temporary {
            reason: reason.into(),
        }
    }

    /// What the agent does about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::AlreadyPrepared | Self::AlreadyStarted => ErrorClass::Done,
            Self::Cancelled { .. } => ErrorClass::Cancelled,
            Self::Temporary { .. } | Self::DependencyNotReady { .. } => ErrorClass::Retry,
            Self::UpdateRejected { .. }
            | Self::ControllerClosed
            | Self::RuntimeUnsupported { .. }
            | Self::Exited { .. }
            | Self::Fatal { .. } => ErrorClass::Fatal,
        }
    }

    /// The exit code for the status, if the task ran at all.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Exited { code, .. } => Some(*code),
            Self::AlreadyPrepared
            | Self::AlreadyStarted
            | Self::UpdateRejected { .. }
            | Self::ControllerClosed
            | Self::Cancelled { .. }
            | Self::Temporary { .. }
            | Self::RuntimeUnsupported { .. }
            | Self::DependencyNotReady { .. }
            | Self::Fatal { .. } => None,
        }
    }
}

/// The text users know from SwarmKit, with the cause behind it.
fn exit_text(code: i32, oom: bool, message: &str) -> String {
    let mut text = format!("task: non-zero exit ({code})");
    if oom {
        text.push_str(": out of memory: the kernel ended it at its memory limit");
    }
    if !message.is_empty() {
        text.push_str(": ");
        text.push_str(message);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_repeated_work_is_success_and_only_passing_trouble_is_retried() {
        let exited = ExecError::Exited {
            code: 1,
            oom: false,
            message: String::new(),
        };
        let missing = ExecError::DependencyNotReady {
            what: "secret s".into(),
        };
        let cancelled = ExecError::Cancelled {
            operation: "start",
            reason: "deadline".into(),
        };
        assert_eq!(ExecError::AlreadyPrepared.class(), ErrorClass::Done);
        assert_eq!(ExecError::AlreadyStarted.class(), ErrorClass::Done);
        assert_eq!(ExecError::temporary("disk full").class(), ErrorClass::Retry);
        assert_eq!(missing.class(), ErrorClass::Retry);
        assert_eq!(cancelled.class(), ErrorClass::Cancelled);
        assert_eq!(exited.class(), ErrorClass::Fatal);
        assert_eq!(ExecError::fatal("no").class(), ErrorClass::Fatal);
        assert_eq!(ExecError::ControllerClosed.class(), ErrorClass::Fatal);
    }

    #[test]
    fn only_an_exit_carries_a_code_and_its_text_tells_the_cause() {
        let exit = |code, oom, message: &str| ExecError::Exited {
            code,
            oom,
            message: message.into(),
        };
        assert_eq!(exit(3, false, "").exit_code(), Some(3));
        assert_eq!(ExecError::fatal("x").exit_code(), None);
        assert_eq!(exit(3, false, "").to_string(), "task: non-zero exit (3)");
        assert_eq!(
            exit(137, true, "").to_string(),
            "task: non-zero exit (137): out of memory: the kernel ended it at its memory limit"
        );
        assert_eq!(
            exit(0, false, "unhealthy container").to_string(),
            "task: non-zero exit (0): unhealthy container"
        );
    }
}
