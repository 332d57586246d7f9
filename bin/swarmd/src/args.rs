//! Flags, as SwarmKit's `swarmd` has them, and what is refused for now.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use swarm_api::v1;
use swarm_manager::{PLUGINS_DIR, WAITING_NODES_MAX};

/// The node daemon of a cluster: starts a cluster, or joins one as a worker.
#[derive(Debug, Parser)]
#[command(name = "swarmd", version, args_conflicts_with_subcommands = true)]
#[command(disable_version_flag = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) daemon: Daemon,
    /// Print the version.
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: (),
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole little cluster in this process, with an example service, until Ctrl-C.
    Dev(Dev),
    /// Find out whether this machine could join a cluster, without joining it.
    Join(JoinCheck),
    /// End what this machine has of a cluster: its tasks and its state. The daemon must be stopped.
    Leave(Leave),
    /// What holds one task; started by the daemon itself.
    #[command(hide = true)]
    Shim {
        /// How many files the task may have open, unless its spec says so.
        #[arg(long)]
        files: Option<u64>,
        /// The directory of the task.
        directory: PathBuf,
    },
    /// The example service.
    #[command(hide = true)]
    HelloWeb {
        /// Its own arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// How tasks are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Executor {
    /// As processes of this machine, without containers.
    Native,
}

/// Whether this node takes tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Availability {
    /// It takes tasks.
    Active,
    /// It keeps what it has and takes no more.
    Pause,
    /// It takes none.
    Drain,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Daemon {
    /// How much to log: error, warn, info, debug, trace, or a filter by module such as
    /// info,swarm_agent=debug.
    #[arg(short = 'l', long, default_value = "info")]
    pub(crate) log_level: String,
    /// How log lines look.
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Where the node keeps its state.
    #[arg(short = 'd', long, default_value = "/var/lib/swarmd")]
    pub(crate) state_dir: PathBuf,
    /// Host name to report instead of the machine's.
    #[arg(long, value_parser = hostname)]
    pub(crate) hostname: Option<String>,
    /// Address on which a manager listens for agents.
    #[arg(long, default_value = "0.0.0.0:4242")]
    pub(crate) listen_remote_api: String,
    /// Address that agents are told to dial instead. Without it, and where the manager listens on
    /// all addresses, each is told the one that it dialled.
    #[arg(long)]
    pub(crate) advertise_remote_api: Option<String>,
    /// Path of the control socket.
    #[arg(long, default_value = "/var/run/swarmd.sock")]
    pub(crate) listen_control_api: PathBuf,
    /// Join the cluster of the manager at this address as a worker.
    #[arg(long)]
    pub(crate) join_addr: Option<String>,
    /// The token that admits this node to the cluster, from `swarmctl cluster join-token worker`;
    /// or one of `swarmctl node readmit` for a node whose certificate expired. Needed once.
    #[arg(long, hide_env_values = true, env = "SWARM_JOIN_TOKEN")]
    pub(crate) join_token: Option<String>,
    /// Show figures to Prometheus at `http://ADDR/metrics`, without encryption and to anyone who
    /// asks: an address of this machine alone, like 127.0.0.1:9323, is best.
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen_metrics: Option<String>,
    /// Where plugins have their sockets, `NAME.sock`; a leading manager asks secret drivers there.
    #[arg(long, value_name = "DIR", default_value = PLUGINS_DIR)]
    pub(crate) plugins_dir: PathBuf,
    /// Nodes that have a certificate and were never in session, at most, for each join token and
    /// each address; beyond it the oldest go after ten minutes, and others are refused.
    #[arg(long, value_name = "N", default_value_t = WAITING_NODES_MAX)]
    #[arg(value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub(crate) waiting_nodes_max: usize,
    /// How tasks are run.
    #[arg(long, value_enum, default_value = "native")]
    pub(crate) executor: Executor,
    /// Whether this node takes tasks, when it starts a new cluster.
    #[arg(long, value_enum, default_value = "active")]
    pub(crate) availability: Availability,
    /// What the node has to offer besides CPU and memory, as `kind=value,kind=value`.
    #[arg(long)]
    pub(crate) generic_node_resources: Option<String>,
    /// Ticks of one second between the heartbeats of a Raft leader.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(crate) heartbeat_tick: u32,
    /// Ticks of one second without a leader before an election.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=600))]
    pub(crate) election_tick: u32,
    /// An external CA that signs for the root of a new cluster, as protocol=cfssl,url=https://...
    #[arg(long, value_parser = external_ca)]
    pub(crate) external_ca: Vec<v1::ExternalCa>,
    #[command(flatten)]
    pub(crate) locking: Locking,
    #[command(flatten)]
    pub(crate) later: Later,
}

/// What locks a manager, and opens one that is locked.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct Locking {
    /// Lock the managers of a new cluster: one that starts again needs the unlock key, which is
    /// printed once.
    #[arg(long)]
    pub(crate) autolock: bool,
    /// The key that opens a locked manager, from `swarmctl cluster unlock-key`. Other users of the
    /// machine see it; better is --unlock-key-file, or this variable of the environment.
    #[arg(
        long,
        value_name = "KEY",
        hide_env_values = true,
        env = "SWARM_UNLOCK_KEY"
    )]
    pub(crate) unlock_key: Option<Hidden>,
    /// A file with the unlock key, `-` for the standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "unlock_key")]
    pub(crate) unlock_key_file: Option<PathBuf>,
}

/// A text that is not shown.
#[derive(Clone)]
pub(crate) struct Hidden(pub(crate) String);

impl From<&str> for Hidden {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hidden")
    }
}

/// Reads `protocol=cfssl,url=URL[,key=value]`.
///
/// # Errors
/// What is missing or malformed, in words.
/// Reads a host name: what people tell nodes apart by has to be seen.
fn hostname(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("a node needs a name".to_owned());
    }
    if text.chars().all(swarm_types::printable::is_printable) {
        Ok(text.to_owned())
    } else {
        Err("a host name has no control characters".to_owned())
    }
}

fn external_ca(text: &str) -> Result<v1::ExternalCa, String> {
    let mut external = v1::ExternalCa::default();
    let mut protocol = None;
    for word in text.split(',') {
        let pair = word.split_once('=');
        let (key, value) = pair.ok_or_else(|| format!("{word:?} is not key=value"))?;
        match key {
            "protocol" => protocol = Some(value),
            "url" => value.clone_into(&mut external.url),
            _ => {
                external.options.insert(key.to_owned(), value.to_owned());
            }
        }
    }
    match protocol {
        Some(name) if name.eq_ignore_ascii_case("cfssl") => {}
        Some(other) => return Err(format!("protocol {other:?} is not known; it must be cfssl")),
        None => return Err("the protocol is missing; write protocol=cfssl,url=...".to_owned()),
    }
    if !external.url.starts_with("https://") {
        return Err("the url must begin with https://; write protocol=cfssl,url=...".to_owned());
    }
    Ok(external)
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Flags of SwarmKit's daemon that this one refuses for now, each by name.
#[derive(Clone, Debug, Default, ClapArgs)]
pub(crate) struct Later {
    #[arg(long, hide = true)]
    engine_addr: Option<String>,
    #[arg(long, hide = true)]
    listen_debug: Option<String>,
    #[arg(long, hide = true)]
    force_new_cluster: bool,
}

impl Later {
    /// Refuses the flags that do nothing yet, so that nobody relies on them.
    ///
    /// # Errors
    /// All of them that were given, with what to do.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let given = [
            ("--engine-addr", self.engine_addr.is_some()),
            ("--listen-debug", self.listen_debug.is_some()),
            ("--force-new-cluster", self.force_new_cluster),
        ];
        let names: Vec<&str> = given
            .iter()
            .filter(|(_, given)| *given)
            .map(|(name, _)| *name)
            .collect();
        anyhow::ensure!(
            names.is_empty(),
            "{} not implemented yet; start without {}",
            if let [one] = names[..] {
                format!("{one} is")
            } else {
                format!("{} are", names.join(", "))
            },
            if names.len() == 1 { "it" } else { "them" },
        );
        Ok(())
    }
}

/// How the result of a check is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckFormat {
    /// For people: a line for each step.
    Text,
    /// One JSON object.
    Json,
}

#[derive(Clone, ClapArgs)]
pub(crate) struct JoinCheck {
    /// Only check; the daemon itself joins, with the same two flags.
    #[arg(long)]
    pub(crate) check: bool,
    /// The manager, `host:port`.
    #[arg(long)]
    pub(crate) join_addr: String,
    /// The token.
    #[arg(long, hide_env_values = true, env = "SWARM_JOIN_TOKEN")]
    pub(crate) join_token: String,
    /// How the result is printed.
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: CheckFormat,
}

impl std::fmt::Debug for JoinCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinCheck")
            .field("join_addr", &self.join_addr)
            .finish_non_exhaustive()
    }
}

/// What becomes of the tasks of a node that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LeaveTasks {
    /// They are stopped, each within its grace period.
    End,
    /// They run on, and nobody cares for them.
    Keep,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Leave {
    /// Where the node keeps its state.
    #[arg(short = 'd', long, default_value = "/var/lib/swarmd")]
    pub(crate) state_dir: PathBuf,
    /// What becomes of the tasks.
    #[arg(long, value_enum, default_value = "end")]
    pub(crate) tasks: LeaveTasks,
    /// Also remove the state of a manager, and the cluster with it.
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Dev {
    /// Worker nodes besides the manager.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    pub(crate) nodes: u16,
    /// Replicas of the example service.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub(crate) replicas: u16,
    /// Replica n of the example service listens on this port plus n; others are tried if they are
    /// taken.
    #[arg(long, default_value_t = 8080)]
    #[arg(value_parser = clap::value_parser!(u16).range(1024..=60000))]
    pub(crate) port_base: u16,
    /// Stop as soon as every replica has answered HTTP.
    #[arg(long)]
    pub(crate) check: bool,
    /// How long the cluster may take to converge, in seconds.
    #[arg(long, default_value_t = 60)]
    pub(crate) timeout: u64,
    /// How much to log.
    #[arg(short = 'l', long, default_value = "warn")]
    pub(crate) log_level: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once(&"swarmd").chain(words))
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }

    #[test]
    fn defaults_are_those_of_the_manual() {
        let daemon = parse(&[]).unwrap().daemon;
        assert_eq!(daemon.state_dir, PathBuf::from("/var/lib/swarmd"));
        assert_eq!((daemon.heartbeat_tick, daemon.election_tick), (1, 10));
        assert_eq!(daemon.executor, Executor::Native);
    }

    #[test]
    fn flags_that_do_nothing_yet_are_refused_by_name() {
        let later = parse(&["--listen-debug", "x"]).unwrap().daemon.later;
        let refusal = later.check().unwrap_err().to_string();
        assert_eq!(
            refusal,
            "--listen-debug is not implemented yet; start without it"
        );
        let both = parse(&["--listen-debug", "x", "--force-new-cluster"])
            .unwrap()
            .daemon;
        let refusal = both.later.check().unwrap_err().to_string();
        assert!(
            refusal.starts_with("--listen-debug, --force-new-cluster are"),
            "{refusal}"
        );
        assert!(Later::default().check().is_ok());
    }

    #[test]
    fn external_authorities_need_protocol_and_url() {
        let read = external_ca("protocol=cfssl,url=https://ca:1/sign,label=x").unwrap();
        assert_eq!(read.url, "https://ca:1/sign");
        assert_eq!(read.options["label"], "x");
        for text in [
            "",
            "url=https://x",
            "protocol=cfssl",
            "protocol=x,url=https://x",
            "x",
        ] {
            assert!(external_ca(text).is_err(), "{text}");
        }
        assert!(external_ca("protocol=cfssl,url=http://x").is_err());
    }

    #[test]
    fn an_unlock_key_comes_from_one_place_and_is_not_shown() {
        let both = parse(&["--unlock-key", "SWMKEY-1-x", "--unlock-key-file", "f"]);
        assert_eq!(both.unwrap_err().exit_code(), 2);
        let daemon = parse(&["--autolock", "--unlock-key", "SWMKEY-1-x"])
            .unwrap()
            .daemon;
        assert!(daemon.locking.autolock);
        assert!(!format!("{daemon:?}").contains("SWMKEY"));
    }

    #[test]
    fn ticks_and_node_counts_out_of_range_are_refused() {
        assert!(parse(&["--heartbeat-tick", "0"]).is_err());
        assert!(parse(&["dev", "--nodes", "0"]).is_err());
        assert!(parse(&["dev", "--nodes", "50"]).is_ok());
        assert!(parse(&["dev", "--nodes", "51"]).is_err());
    }
}
