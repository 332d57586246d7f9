//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Opens thousands of simulated agents against a manager and measures the manager.
///
/// Without --attach it starts a manager of its own on a fresh state directory. It prints one table
/// and ends with an error if a bar is missed.
#[derive(Debug, Parser)]
#[command(name = "swarm-load", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: Run,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Holds some of the agents; started by the program itself.
    #[command(hide = true)]
    Fleet(Fleet),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    /// Agents.
    #[arg(short = 'n', long, default_value_t = 1_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) agents: u32,
    /// Processes that hold them.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) processes: u16,
    /// Agents that join at the same time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) joining: u16,
    /// How agents report their tasks.
    #[arg(long, value_enum, default_value = "batch")]
    pub(crate) variant: Variant,
    /// What the agents' connections are like. Older figures were measured with `plain`.
    #[arg(long, value_enum, default_value = "grpc-go")]
    pub(crate) client: Client,
    /// How the result looks.
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
    /// The program of the manager; the `swarmd` beside this program by default.
    #[arg(long)]
    pub(crate) swarmd: Option<PathBuf>,
    /// Directory on a real disk below which the manager's state is made, and removed at the end.
    #[arg(long, default_value = "target/load")]
    pub(crate) state_dir: PathBuf,
    /// Keep the manager's state and log.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Use the manager whose control socket this is instead of starting one.
    #[arg(long, requires_all = ["addr", "pid"])]
    pub(crate) attach: Option<PathBuf>,
    /// Where agents reach the manager of --attach.
    #[arg(long)]
    pub(crate) addr: Option<SocketAddr>,
    /// The process of the manager of --attach, whose books are read.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Ratios between runs of several sizes, each with a manager of its own, instead of one run.
    /// `--gates=AGENTS` leaves out the runs with more agents.
    #[arg(long, value_name = "AGENTS", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "10000", conflicts_with_all = ["attach", "steps"])]
    #[arg(value_parser = clap::value_parser!(u32).range(1_000..=10_000))]
    pub(crate) gates: Option<u32>,
    /// What to do, in this order: join, `idle[:SECONDS]`, launch:TASKS, rm, fail, `drain[:NODES]`,
    /// reconnect, renew, period:SECONDS.
    #[arg(default_values = ["join", "idle", "launch:10000", "idle", "rm"])]
    pub(crate) steps: Vec<Step>,
}

/// Settings of one of the processes that hold agents.
#[derive(Clone, Debug, Args)]
pub(crate) struct Fleet {
    /// Number of its first agent.
    #[arg(long)]
    pub(crate) first: u32,
    /// How many agents it holds.
    #[arg(long)]
    pub(crate) agents: u32,
    /// The manager.
    #[arg(long)]
    pub(crate) addr: SocketAddr,
    /// How agents report their tasks.
    #[arg(long, value_enum)]
    pub(crate) variant: Variant,
    /// What their connections are like.
    #[arg(long, value_enum)]
    pub(crate) client: Client,
}

/// What the connections of agents are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Client {
    /// As those of Go's agents: windows of 64 KiB, a window update and a PING after each answer,
    /// deadlines in headers, and no ALPN once the certificate was renewed.
    GrpcGo,
    /// Nothing but calls, with large windows.
    Plain,
}

impl Client {
    /// As the command line says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GrpcGo => "grpc-go",
            Self::Plain => "plain",
        }
    }
}

/// How agents report their tasks (`performance.md` 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Variant {
    /// For each assignments message one report with all its tasks in the state asked for.
    Batch,
    /// One report for each task and state: ACCEPTED, PREPARING, READY, STARTING, RUNNING.
    Steps,
}

impl Variant {
    /// As the command line says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Steps => "steps",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table for people.
    Text,
    /// One JSON object.
    Json,
}

/// One step of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// All agents join.
    Join,
    /// Nothing but heartbeats.
    Idle(Duration),
    /// A service with so many replicas.
    Launch(u64),
    /// The service of the last launch goes.
    Remove,
    /// A tenth of the agents vanish without a word.
    Fail,
    /// So many nodes are drained.
    Drain(usize),
    /// All agents lose their connections at once and come back.
    Reconnect,
    /// All agents renew their certificates.
    Renew,
    /// The heartbeat period of the cluster changes.
    Period(Duration),
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        let seconds = |value: &str| {
            let seconds = value
                .parse::<f64>()
                .ok()
                .filter(|s| (0.1..=86_400.0).contains(s));
            seconds
                .map(Duration::from_secs_f64)
                .ok_or_else(|| format!("`{text}`: seconds are between 0.1 and 86400"))
        };
        let count = |value: &str| {
            let count = value
                .parse::<u64>()
                .ok()
                .filter(|n| (1..=10_000_000).contains(n));
            count.ok_or_else(|| format!("`{text}`: the number is between 1 and 10000000"))
        };
        match (name, value) {
            ("join", None) => Ok(Self::Join),
            ("idle", value) => seconds(value.unwrap_or("20")).map(Self::Idle),
            ("launch", Some(value)) => count(value).map(Self::Launch),
            ("rm", None) => Ok(Self::Remove),
            ("fail", None) => Ok(Self::Fail),
            ("drain", value) => {
                let nodes = count(value.unwrap_or("5"))?;
                Ok(Self::Drain(usize::try_from(nodes).unwrap_or(usize::MAX)))
            }
            ("reconnect", None) => Ok(Self::Reconnect),
            ("renew", None) => Ok(Self::Renew),
            ("period", Some(value)) => seconds(value).map(Self::Period),
            _ => Err(format!(
                "`{text}` is no step; steps are join, idle[:SECONDS], launch:TASKS, rm, fail, \
                 drain[:NODES], reconnect, renew, period:SECONDS"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory as _;
        Options::command().debug_assert();
    }

    #[test]
    fn steps_are_read_or_refused_by_name() {
        assert_eq!("join".parse(), Ok(Step::Join));
        assert_eq!("idle".parse(), Ok(Step::Idle(Duration::from_secs(20))));
        assert_eq!(
            "idle:0.5".parse(),
            Ok(Step::Idle(Duration::from_millis(500)))
        );
        assert_eq!("renew".parse(), Ok(Step::Renew));
        assert_eq!("launch:7".parse(), Ok(Step::Launch(7)));
        assert_eq!("drain".parse(), Ok(Step::Drain(5)));
        assert_eq!("period:2".parse(), Ok(Step::Period(Duration::from_secs(2))));
        for bad in ["launch", "launch:0", "idle:0", "period", "rm:1", "jump", ""] {
            assert!(bad.parse::<Step>().unwrap_err().contains(bad), "{bad}");
        }
    }
}
