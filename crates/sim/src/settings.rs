//! The settings of a run: what the command line fixes and what the seed draws.

mod draw;

use std::fmt;
use std::time::Duration;

use crate::random::{Purpose, Random};
use crate::time::{Clock, S};

/// What the user does, and which faults are likely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Scenario {
    /// Services are created at the beginning and left alone.
    Converge,
    /// Services come and go.
    Churn,
    /// Nodes crash and are cut off.
    NodeLoss,
    /// The manager crashes again and again.
    ManagerRestart,
    /// Services are scaled up and down.
    Scale,
    /// Nodes are drained, paused and activated.
    Drain,
    /// Services publish ports that collide.
    Ports,
    /// Labels of nodes change under services with constraints.
    Constraints,
    /// Global services while nodes come and go.
    Global,
    /// Nodes renew their certificates all the time.
    CertRotation,
    /// The root certificate changes, again and again.
    RootRotation,
    /// The root certificate changes under so many nodes that not all may renew at once.
    FleetRotation,
    /// Many nodes, whose manager restarts again and again.
    MassReconnect,
    /// Services use secrets and configs, while nodes come and go.
    Secrets,
    /// Many read logs, while nodes come and go.
    Logs,
    /// The manager's process stands still again and again.
    Standstill,
    /// Every seed draws its own mix of everything.
    All,
}

impl Scenario {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Converge => "converge",
            Self::Churn => "churn",
            Self::NodeLoss => "node-loss",
            Self::ManagerRestart => "manager-restart",
            Self::Scale => "scale",
            Self::Drain => "drain",
            Self::Ports => "ports",
            Self::Constraints => "constraints",
            Self::Global => "global",
            Self::CertRotation => "cert-rotation",
            Self::RootRotation => "root-rotation",
            Self::FleetRotation => "fleet-rotation",
            Self::MassReconnect => "mass-reconnect",
            Self::Secrets => "secrets",
            Self::Logs => "logs",
            Self::Standstill => "standstill",
            Self::All => "all",
        }
    }
}

/// Which faults there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FaultMode {
    /// None: a network and disks that always work, clocks that are right.
    None,
    /// Every seed draws which faults there are and how often they strike.
    Swarm,
}

/// What a run is told; everything else is drawn from the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// The scenario.
    pub scenario: Scenario,
    /// Whether there are faults.
    pub faults: FaultMode,
    /// How much of the trace is kept for printing.
    pub trace: crate::Detail,
}

impl Options {
    /// The command that repeats this run.
    pub fn command(&self) -> String {
        let faults = match self.faults {
            FaultMode::None => " --faults none",
            FaultMode::Swarm => "",
        };
        format!(
            "cargo xtask sim --seed {} --scenario {}{faults} --trace short",
            self.seed,
            self.scenario.name()
        )
    }
}

/// How often each thing goes wrong. Weights are relative to each other, `per_mille` are chances of
/// a single event in thousandths, durations are drawn up to the limit that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Mean time between two faults of the kinds that have a weight; `None`: they never strike.
    pub interval: Option<Duration>,
    /// Weight: an agent's process dies and starts again; its tasks run on.
    pub agent_crash: u32,
    /// Weight: a node's machine dies with all its tasks, and starts again.
    pub node_reboot: u32,
    /// Weight: the manager's process dies and starts again.
    pub manager_crash: u32,
    /// Weight: the manager's machine loses power: what was not synced may be lost or torn.
    pub manager_power: u32,
    /// Weight: the manager is stopped in good order and starts again.
    pub manager_stop: u32,
    /// Weight: the power goes off in the middle of one of the next operations of the disk.
    pub torn_write: u32,
    /// Weight: one of the next operations of the manager's disk fails.
    pub disk_error: u32,
    /// Weight: the manager's disk is full for a while.
    pub disk_full: u32,
    /// Weight: nothing passes between a node and the manager, in one direction or both.
    pub partition: u32,
    /// Weight: the connection of a node breaks.
    pub reset: u32,
    /// Weight: a task's process is killed.
    pub kill: u32,
    /// Weight: the leader is told that it missed commits.
    pub feed_lag: u32,
    /// Longest time that a process stays away after a crash.
    pub down_max: Duration,
    /// Longest partition.
    pub partition_max: Duration,
    /// Chance that a request or message is lost.
    pub loss_per_mille: u32,
    /// Chance that a request which may be repeated arrives twice.
    pub copy_per_mille: u32,
    /// Chance that a message takes up to a hundred times as long.
    pub slow_per_mille: u32,
    /// Usual latency in one direction, at most.
    pub latency_max: Duration,
    /// Time that a sync of the manager's log takes, at most.
    pub sync_max: Duration,
    /// Time that a write of an agent's database takes, at most.
    pub agent_disk_max: Duration,
    /// Time until the leader's task takes notice of an input, at most.
    pub turn_delay_max: Duration,
    /// Chance that the leader does not read its feed in a turn.
    pub feed_delay_per_mille: u32,
    /// Chance that loops are shown an older view.
    pub stale_view_per_mille: u32,
    /// Chance that the log refuses a proposal.
    pub refuse_per_mille: u32,
    /// Chance that a node cannot describe itself.
    pub describe_error_per_mille: u32,
    /// Chance that a node describes itself differently after a restart.
    pub redescribe_per_mille: u32,
    /// Chance of a description that is larger than a manager takes.
    pub oversize_per_mille: u32,
    /// Whether nodes report of tasks whose state is what it was, over and over.
    pub floods: bool,
    /// Mean time between two renewals of a node that nobody asked for; `None`: none.
    pub renewal: Option<Duration>,
    /// Chance that a signature takes a thousand times as long.
    pub sign_slow_per_mille: u32,
    /// Chance that a signature fails and has to be tried again.
    pub sign_error_per_mille: u32,
    /// Chance that a secret driver does not answer.
    pub driver_error_per_mille: u32,
    /// Chance that a node does not begin to publish what it was asked for.
    pub mute_per_mille: u32,
    /// Mean time between two times in which the manager's process stands still, and the longest
    /// such time; `None`: it never does.
    pub standstill: Option<(Duration, Duration)>,
    /// Mean time between two times in which the disk of a worker is full, and the longest such
    /// time; `None`: it never is.
    pub worker_disk: Option<(Duration, Duration)>,
    /// Whether a stream takes its next message only when the last one has arrived.
    pub back_pressure: bool,
    /// Largest offset of a clock, in either direction; a manager's may jump as far at a restart.
    pub clock_offset: Duration,
    /// Largest drift of a clock, in parts per million.
    pub clock_drift_ppm: u64,
}

/// Relative frequency of the user's actions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actions {
    /// Mean time between two actions; `None`: the user does nothing after the beginning.
    pub interval: Option<Duration>,
    /// Weight: creates a service.
    pub create: u32,
    /// Weight: removes a service.
    pub remove: u32,
    /// Weight: changes the number of replicas.
    pub scale: u32,
    /// Weight: changes the availability of a node.
    pub availability: u32,
    /// Weight: changes a label of a node.
    pub label: u32,
    /// Weight: removes a node.
    pub remove_node: u32,
    /// Weight: removes a task.
    pub remove_task: u32,
    /// Weight: changes settings of the cluster.
    pub cluster: u32,
    /// Weight: begins to rotate the root, also while it rotates.
    pub rotate_root: u32,
    /// Weight: replaces the join token of workers.
    pub rotate_token: u32,
    /// Weight: creates and removes secrets and configs.
    pub payloads: u32,
}

/// What services look like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Services at the beginning.
    pub initial: u64,
    /// Services at any time, at most.
    pub max: u64,
    /// Replicas of one service, at most.
    pub replicas_max: u64,
    /// Chance of a global service.
    pub global_per_mille: u32,
    /// Chance of each kind of port.
    pub ports_per_mille: u32,
    /// Chance of constraints, preferences and a limit of replicas per node.
    pub placement_per_mille: u32,
    /// Chance of reserved resources.
    pub resources_per_mille: u32,
    /// Chance of tasks that are slow, fail now and then, or hang, and still converge.
    pub trouble_per_mille: u32,
    /// Chance of references to secrets and configs; there are none if it is 0.
    pub payloads_per_mille: u32,
    /// Chance of specs of which hardly two tasks fit one transaction.
    pub large_per_mille: u32,
    /// Chance of tasks that never stay: the user removes them before the end.
    pub fragile_per_mille: u32,
}

/// Everything about a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What was asked for.
    pub options: Options,
    /// Nodes, the manager's own included.
    pub nodes: u64,
    /// Whether the manager's node has an agent.
    pub manager_has_agent: bool,
    /// How long faults strike and the user acts, in nanoseconds of true time.
    pub busy: u64,
    /// Faults.
    pub faults: Faults,
    /// What the user does.
    pub actions: Actions,
    /// What services look like.
    pub services: Services,
    /// Mean time between two things that readers of logs do; `None`: there are none.
    pub reading: Option<Duration>,
    /// Entries between snapshots of the log.
    pub snapshot_interval: u64,
    /// Bytes of a log segment.
    pub segment_bytes: u64,
    /// Changes that may wait in the leader's feed.
    pub feed_max: usize,
    /// Clocks, the manager's first.
    pub(crate) clocks: Vec<Clock>,
}

impl Settings {
    /// Draws the settings of a run.
    pub fn draw(options: Options) -> Self {
        let mut random = Random::new(options.seed, Purpose::Settings);
        let random = &mut random;
        // Apart, so that what came later leaves the other settings of a seed as they were.
        let mut later = Random::new(options.seed, Purpose::Payloads);
        let later = &mut later;
        let mut faults = draw::faults(options, random, later);
        let nodes = draw::nodes(options.scenario, random);
        let clocks = (0..=nodes).map(|_| draw::clock(&faults, random)).collect();
        let busy = if options.scenario == Scenario::Converge {
            20 * S
        } else {
            random.between(20, 90) * S
        };
        let mut actions = draw::actions(options.scenario, random);
        let mut services = draw::services(options.scenario, random);
        if options.scenario == Scenario::Secrets || later.happens(300) {
            services.payloads_per_mille = u32::try_from(later.between(200, 900)).unwrap_or(500);
            actions.payloads = draw::maybe(later, 4);
        }
        let is_read = options.scenario == Scenario::Logs || later.happens(300);
        let reading = is_read.then(|| draw::up_to(later, S / 2, 5 * S));
        if options.faults == FaultMode::Swarm {
            faults.mute_per_mille = draw::maybe(later, 100);
            faults.standstill = draw::standstill(options);
            draw::oversize(options, &mut faults, &mut services);
            faults.worker_disk = draw::worker_disk(options);
        }
        Self {
            options,
            nodes,
            // A manager without an agent never reports its certificate, so no rotation ends.
            manager_has_agent: random.happens(700) || actions.rotate_root > 0,
            busy,
            actions,
            services,
            reading,
            snapshot_interval: random.between(20, 400),
            segment_bytes: (16 * 1024) << random.below(3),
            feed_max: if random.happens(300) { 40 } else { 500_000 },
            faults,
            clocks,
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#?}")
    }
}
