//! Where output goes, and what every command needs.

use std::io::Write as _;

use serde::Serialize;
use swarm_rt::Clock;
use swarm_types::{Timestamp, printable};

use crate::cli::Cli;
use crate::connect::Manager;
use crate::failure::Failure;

/// What every command needs.
pub(crate) struct Context {
    pub(crate) manager: Manager,
    /// Whether tables show names.
    pub(crate) resolve: bool,
    /// Whether a display may move.
    pub(crate) may_move: bool,
    pub(crate) clock: Clock,
}

impl Context {
    /// # Errors
    /// When the socket is not an address.
    pub(crate) fn new(cli: &Cli) -> Result<Self, Failure> {
        use std::io::IsTerminal as _;
        let has_no_color = cli
            .no_color
            .as_deref()
            .is_some_and(|value| !value.is_empty());
        Ok(Self {
            manager: Manager::new(&cli.socket.to_string_lossy())?,
            resolve: !cli.no_resolve,
            may_move: !has_no_color && std::io::stderr().is_terminal(),
            clock: Clock::new(),
        })
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Writes what was asked for to stdout. A reader that went away is no error. What others chose is
/// escaped where it is put into lines (`table`, `why`); what is missed there, here.
///
/// # Errors
/// [`Exit::Unwritten`](crate::failure::Exit::Unwritten).
pub(crate) fn emit(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(printable::text(text).as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::unwritten(&error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes one line to stdout.
///
/// # Errors
/// [`Exit::Unwritten`](crate::failure::Exit::Unwritten).
pub(crate) fn emit_line(line: &str) -> Result<(), Failure> {
    emit(&format!("{}\n", printable::line(line)))
}

/// Writes a JSON document to stdout.
///
/// # Errors
/// [`Exit::Unwritten`](crate::failure::Exit::Unwritten).
pub(crate) fn emit_json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::refused(format!("the answer is not JSON: {error}")))?;
    // Its characters are printable from here on, so nothing of it is escaped twice.
    emit(&format!("{}\n", printable::json(&text)))
}

/// Writes a line of progress, or a warning, to stderr. Where that cannot be written the exit code
/// still tells how it went.
pub(crate) fn note(line: &str) {
    let _nobody_to_tell = writeln!(std::io::stderr(), "{}", printable::line(line));
}

/// Ends with what a command waited for; that something could not be printed before counts only if
/// the rest went well.
///
/// # Errors
/// The failure that says more.
pub(crate) fn both(
    printed: Result<(), Failure>,
    ended: Result<(), Failure>,
) -> Result<(), Failure> {
    ended.and(printed)
}

/// Removes each of several objects, whatever becomes of the others, and prints what `remove` says
/// of those that are gone.
///
/// # Errors
/// The first failure; those of other objects were told before.
pub(crate) async fn remove_each(
    objects: &[String],
    mut remove: impl AsyncFnMut(&str) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let mut printed = Ok(());
    let mut failures: Vec<Failure> = Vec::new();
    for object in objects {
        match remove(object).await {
            Ok(gone) => printed = both(printed, emit_line(&gone)),
            Err(failure) => failures.push(failure),
        }
    }
    let mut failures = failures.into_iter();
    let first = failures.next();
    for failure in failures {
        let _nobody_to_tell = std::io::stderr().write_all(failure.text().as_bytes());
    }
    both(printed, first.map_or(Ok(()), Err))
}
