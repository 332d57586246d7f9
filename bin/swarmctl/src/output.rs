//! Where output goes, and what every command needs.

use std::io::Write as _;

use serde::Serialize;
use swarm_rt::Clock;
use swarm_types::Timestamp;

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

/// Writes what was asked for to stdout. A reader that went away is no error.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn emit(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::refused(format!("cannot write to stdout: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Writes one line to stdout.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn emit_line(line: &str) -> Result<(), Failure> {
    emit(&format!("{line}\n"))
}

/// Writes a JSON document to stdout.
///
/// # Errors
/// When stdout cannot be written.
pub(crate) fn emit_json(document: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document)
        .map_err(|error| Failure::refused(format!("the answer is not JSON: {error}")))?;
    emit_line(&text)
}
