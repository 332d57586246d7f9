//! Logs to standard error.
//!
//! A line never blocks and never fails: it goes into a bounded queue that one thread writes, and
//! what cannot be written is counted and dropped. A daemon whose log is on a full disk or behind a
//! closed pipe works on.

mod level;
mod queue;
mod safe;

use std::cell::Cell;
use std::error::Error;
use std::fmt::{self, Write as _};
use std::io::{self, IsTerminal as _, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::metrics::{Gauge, Metrics};
use queue::Queue;

pub use level::LevelError;
pub use queue::QUEUE_BYTES_MAX;

/// How long the end of the process waits for lines that are not yet written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The queue of this process, once logging was started.
static QUEUE: OnceLock<&'static Queue> = OnceLock::new();

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
/// When a level is not known, the filter does not parse, or logging was started before.
pub fn init(filter: &str, format: Format) -> Result<(), Box<dyn Error + Send + Sync>> {
    let filter = EnvFilter::try_new(level::directives(filter)?)?;
    let queue: &'static Queue = Box::leak(Box::default());
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(|| queue.run(&mut queue::Stderr::default()))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Lines(queue))
        // They would go to standard error by a macro that panics where that is closed.
        .log_internal_errors(false)
        // Files and pipes get plain text.
        .with_ansi(io::stderr().is_terminal());
    match format {
        Format::Text => builder.fmt_fields(safe::Fields).try_init()?,
        Format::Json => builder.json().map_writer(safe::Json).try_init()?,
    }
    // Nobody else sets it: a second start has failed by now.
    let _: &&Queue = QUEUE.get_or_init(|| queue);
    Ok(())
}

/// Waits until what was logged is written, at most for a second.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_TIMEOUT);
    }
}

/// Writes one line for a person to standard error, behind what was logged. If that cannot be
/// written there is nobody to tell.
pub fn say(text: &str) {
    if let Some(queue) = QUEUE.get() {
        // The queue keeps order, and does not block where nobody reads.
        queue.push(format!("{text}\n").as_bytes());
        queue.flush(FLUSH_TIMEOUT);
    } else {
        let _nowhere_else_to_say_it = writeln!(io::stderr(), "{text}");
    }
}

thread_local! {
    /// Whether a panic of this thread is caught by [`contain`].
    static IS_CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs what may panic on damaged input, as some libraries do; `None` when it did. What it worked
/// on must not be used again. The process goes on.
pub fn contain<T>(act: impl FnOnce() -> T) -> Option<T> {
    let before = IS_CONTAINED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(act));
    IS_CONTAINED.set(before);
    result.ok()
}

/// Makes any panic, in whatever thread or task, the end of the process: what is left of a daemon
/// after one cannot be trusted, and whoever watches it starts it again. But for [`contain`].
pub fn end_process_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        if IS_CONTAINED.get() {
            return;
        }
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        let trace = std::backtrace::Backtrace::capture();
        say(&format!(
            "swarmd: thread {name} {info}\n{trace}\nswarmd: ends, for its state cannot be trusted \
             after a panic"
        ));
        std::process::abort();
    }));
}

/// Returns how many lines of the log could not be written since the start of the process.
pub fn lines_dropped() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.dropped())
}

/// Shows how many lines were dropped.
pub fn show(metrics: &Metrics) {
    let dropped = Gauge::<i64>::default();
    let shown = dropped.clone();
    metrics.show(
        "log",
        |registry| {
            registry.register(
                "swarm_log_lines_dropped",
                "Lines of the log that could not be written since the start",
                dropped,
            );
        },
        move || {
            shown.set(i64::try_from(lines_dropped()).unwrap_or(i64::MAX));
        },
    );
}

/// Hands each line to the queue.
struct Lines(&'static Queue);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(self.0)
    }
}

struct Line(&'static Queue);

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An error with its sources, for one log line: errors themselves say one level only.
pub fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl fmt::Display + 'a {
    Chain(error)
}

/// The words of a library without the link to its manual, which nobody who reads a log can use.
pub(crate) fn without_link(text: &str) -> &str {
    match text.find("https://docs.rs/") {
        Some(link) => text[..link].trim_end_matches([' ', ':', '(']),
        None => text,
    }
}

struct Chain<'a>(&'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(without_link(&self.0.to_string()))?;
        let mut last = self.0.to_string();
        let mut source = self.0.source();
        while let Some(error) = source {
            let mut text = String::new();
            write!(text, "{error}")?;
            // Transparent wrappers repeat their source.
            if text != last {
                write!(f, ": {}", without_link(&text))?;
            }
            last = text;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::{OnError, Shutdown, Tasks};

    /// Tells the test below that it is the process which panics.
    const CHILD: &str = "SWARM_TEST_PANIC_CHILD";
    const SIGABRT: i32 = 6;

    #[tokio::test]
    #[allow(
        clippy::disallowed_methods,
        reason = "a panic that ends the process needs a process of its own"
    )]
    async fn a_panic_in_a_supervised_task_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            end_process_on_panic();
            init("info", Format::Text).unwrap();
            assert!(contain(|| -> u8 { panic!("contained") }).is_none());
            let tasks = Tasks::new(Shutdown::new());
            tasks.spawn("panics", OnError::Log, async { panic!("on purpose") });
            return std::future::pending().await;
        }
        let name = "logging::tests::a_panic_in_a_supervised_task_ends_the_process";
        // Also where the last words cannot be written.
        let full = std::fs::File::options().write(true).open("/dev/full");
        for (stderr, is_read) in [
            (Stdio::piped(), true),
            (full.map_or_else(|_| Stdio::null(), Stdio::from), false),
        ] {
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name, "--nocapture"])
                .env(CHILD, "1")
                .stderr(stderr)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.signal(), Some(SIGABRT), "{text}");
            assert!(!is_read || text.contains("on purpose"), "{text}");
            assert!(!text.contains("contained"), "{text}");
        }
    }

    #[test]
    fn the_links_of_libraries_are_left_out() {
        let text = "peer closed connection without sending TLS close_notify: \
                    https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof";
        let error = io::Error::new(io::ErrorKind::UnexpectedEof, text);
        let shown = chain(&error).to_string();
        assert_eq!(
            shown,
            "peer closed connection without sending TLS close_notify"
        );
        let plain = io::Error::other("a: b");
        assert_eq!(chain(&plain).to_string(), "a: b");
    }
}
