//! How a command ends when it does not succeed: the exit code, the sentence and the way out.

use std::error::Error as _;

use swarm_types::printable;
use tonic::{Code, Status};

/// What Go's servers say of a service that they do not offer, before its name.
const UNKNOWN_SERVICE: &str = "unknown service ";

/// The services that Go's managers do not have.
const OWN_PACKAGE: &str = "swarmkit_rs.";

/// Exit codes, as `docs/exit-codes.md` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The manager refused, or could not be reached.
    Refused = 1,
    /// The command line is wrong; nothing was sent.
    Usage = 2,
    /// The object does not exist, or its name fits several.
    NotFound = 3,
    /// The wait reached its limit.
    TimedOut = 4,
    /// The service will not converge by itself.
    NotConverged = 5,
    /// Lines are missing from a log stream that was printed.
    Incomplete = 6,
    /// It is done, but what it says could not be written.
    Unwritten = 7,
    /// Ctrl-C.
    Interrupted = 130,
}

/// The end of a command that did not succeed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    hints: Vec<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hints: Vec::new(),
        }
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Output that cannot be written: a full disk, say. What was asked for is done all the same.
    pub(crate) fn unwritten(error: &std::io::Error) -> Self {
        Self::new(
            Exit::Unwritten,
            format!("done, but the output cannot be written: {error}"),
        )
        .hint("nothing has to be done again, but a list or document that was asked for is cut")
    }

    /// Adds a way out.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// What a call came back with. A transport error has a cause behind it, an answer of the
    /// manager has none.
    pub(crate) fn of_call(status: &Status, socket: &str) -> Self {
        if let Some(cause) = status.source() {
            return Self::refused(format!(
                "cannot reach a manager at {socket}: {}",
                innermost(cause)
            ))
            .hint("start one with `swarmd`, or name its control socket with --socket");
        }
        if status.code() == Code::Unimplemented && status.message().starts_with(UNKNOWN_SERVICE) {
            let service = &status.message()[UNKNOWN_SERVICE.len()..];
            if !service.starts_with(OWN_PACKAGE) {
                let text = format!("no manager listens at {socket}: there is no {service}");
                return Self::refused(text).hint("the control socket is named with --socket");
            }
            return Self::refused(format!(
                "the manager at {socket} is not of `swarmd` and does not know {service}"
            ))
            .hint("commands about services, tasks, nodes and secrets work with Go managers too");
        }
        let exit = match status.code() {
            Code::NotFound => Exit::NotFound,
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::InvalidArgument
            | Code::DeadlineExceeded
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
            | Code::Unauthenticated => Exit::Refused,
        };
        let message = match status.message() {
            "" => format!("the manager answered {:?}", status.code()),
            message => message.to_owned(),
        };
        Self::new(exit, message)
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What goes to stderr.
    pub(crate) fn text(&self) -> String {
        let mut text = match self.message.as_str() {
            // The exit code says it all.
            "" => String::new(),
            message => format!("swarmctl: {}\n", printable::line(message)),
        };
        for hint in &self.hints {
            text.push_str(&format!("hint: {}\n", printable::line(hint)));
        }
        text
    }
}

/// The cause at the end of the chain; those before it only say "transport error".
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_manager_keeps_its_words() {
        let failure = Failure::of_call(&Status::already_exists("name conflicts"), "/s");
        assert_eq!(failure.exit(), Exit::Refused);
        assert_eq!(failure.text(), "swarmctl: name conflicts\n");
        let failure = Failure::of_call(&Status::not_found("service x not found"), "/s");
        assert_eq!(failure.exit(), Exit::NotFound);
        let unknown = Status::unimplemented("unknown service swarmkit_rs.v1.Explain");
        let failure = Failure::of_call(&unknown, "/s");
        let text = "the manager at /s is not of `swarmd` and does not know swarmkit_rs.v1.Explain";
        assert_eq!(failure.message(), text);
        let other = Status::unimplemented("unknown service docker.swarmkit.v1.Control");
        let failure = Failure::of_call(&other, "/s");
        let text = "no manager listens at /s: there is no docker.swarmkit.v1.Control";
        assert_eq!(failure.message(), text);
        let failure = Failure::of_call(&Status::internal(""), "/s");
        assert_eq!(failure.message(), "the manager answered Internal");
    }

    #[test]
    fn a_broken_connection_names_the_socket_and_the_cause() {
        let cause = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
        let failure = Failure::of_call(&Status::from_error(Box::new(cause)), "/s");
        assert_eq!(
            failure.text(),
            "swarmctl: cannot reach a manager at /s: no such file\n\
             hint: start one with `swarmd`, or name its control socket with --socket\n"
        );
    }
}
