//! Logs to standard error.

mod safe;

use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging at a level such as `info`, or with a filter such as `info,swarm_agent=debug`.
///
/// # Errors
/// When the filter does not parse, or logging was started before.
pub fn init(filter: &str, format: Format) -> Result<(), Box<dyn Error + Send + Sync>> {
    let filter = EnvFilter::try_new(filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        // Files and pipes get plain text.
        .with_ansi(io::stderr().is_terminal());
    match format {
        Format::Text => builder.fmt_fields(safe::Fields).try_init(),
        Format::Json => builder.json().map_writer(safe::Json).try_init(),
    }
}

/// An error with its sources, for one log line: errors themselves say one level only.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl fmt::Display + 'a {
    Chain(error)
}

struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut last = self.0.to_string();
        let mut source = self.0.source();
        while let Some(error) = source {
            let mut text = String::new();
            write!(text, "{error}")?;
            // Transparent wrappers repeat their source.
            if text != last {
                write!(f, ": {text}")?;
            }
            last = text;
            source = error.source();
        }
        Ok(())
    }
}
