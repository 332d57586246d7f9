//! The settings of a run: what the command line fixes and what the seed draws.

use std::fmt;
use std::time::Duration;

use crate::random::{Purpose, Random};
use crate::time::{Clock, MS, S};

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
    /// Many nodes, whose manager restarts again and again.
    MassReconnect,
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
            Self::MassReconnect => "mass-reconnect",
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
    /// Mean time between two renewals of a node that nobody asked for; `None`: none.
    pub renewal: Option<Duration>,
    /// Chance that a signature takes a thousand times as long.
    pub sign_slow_per_mille: u32,
    /// Chance that a signature fails and has to be tried again.
    pub sign_error_per_mille: u32,
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
        let faults = draw_faults(options, random);
        let nodes = if options.scenario == Scenario::MassReconnect {
            random.between(10, 24)
        } else {
            random.between(2, 6)
        };
        let clocks = (0..=nodes).map(|_| draw_clock(&faults, random)).collect();
        let busy = if options.scenario == Scenario::Converge {
            20 * S
        } else {
            random.between(20, 90) * S
        };
        let actions = draw_actions(options.scenario, random);
        Self {
            options,
            nodes,
            // A manager without an agent never reports its certificate, so no rotation ends.
            manager_has_agent: random.happens(700)
                || options.scenario == Scenario::RootRotation
                || actions.rotate_root > 0,
            busy,
            actions,
            services: draw_services(options.scenario, random),
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

fn draw_clock(faults: &Faults, random: &mut Random) -> Clock {
    let range = |limit: u64, random: &mut Random| {
        let limit = i64::try_from(limit).unwrap_or(0);
        let drawn = i64::try_from(random.below(2 * limit.unsigned_abs() + 1)).unwrap_or(0);
        drawn - limit
    };
    let offset = u64::try_from(faults.clock_offset.as_nanos()).unwrap_or(0);
    Clock {
        offset: range(offset, random),
        drift_ppm: range(faults.clock_drift_ppm, random),
    }
}

/// A weight or chance that is 0 in half of the seeds, so that faults meet in all combinations.
fn maybe(random: &mut Random, max: u64) -> u32 {
    if random.happens(500) {
        u32::try_from(random.between(1, max)).unwrap_or(1)
    } else {
        0
    }
}

fn up_to(random: &mut Random, low: u64, high: u64) -> Duration {
    Duration::from_nanos(random.between(low, high))
}

/// A limit that is far larger in some runs.
fn rarely_slow(random: &mut Random, usual: u64, slow: u64) -> Duration {
    let high = if random.happens(150) { slow } else { usual };
    up_to(random, MS, high)
}

fn draw_faults(options: Options, random: &mut Random) -> Faults {
    if options.faults == FaultMode::None {
        return Faults {
            latency_max: Duration::from_millis(2),
            sync_max: Duration::from_millis(2),
            agent_disk_max: Duration::from_millis(2),
            turn_delay_max: Duration::from_millis(1),
            ..Faults::default()
        };
    }
    let mut faults = Faults {
        interval: Some(up_to(random, S, 20 * S)),
        agent_crash: maybe(random, 10),
        node_reboot: maybe(random, 5),
        manager_crash: maybe(random, 4),
        manager_power: maybe(random, 4),
        manager_stop: maybe(random, 2),
        torn_write: maybe(random, 3),
        disk_error: maybe(random, 2),
        disk_full: maybe(random, 3),
        partition: maybe(random, 10),
        reset: maybe(random, 10),
        kill: maybe(random, 10),
        feed_lag: maybe(random, 5),
        down_max: up_to(random, S, 40 * S),
        partition_max: up_to(random, S, 40 * S),
        loss_per_mille: maybe(random, 30),
        copy_per_mille: maybe(random, 100),
        slow_per_mille: maybe(random, 50),
        latency_max: up_to(random, MS, 60 * MS),
        sync_max: rarely_slow(random, 30 * MS, 2 * S),
        agent_disk_max: rarely_slow(random, 20 * MS, 2 * S),
        turn_delay_max: rarely_slow(random, 5 * MS, S),
        feed_delay_per_mille: maybe(random, 500),
        stale_view_per_mille: maybe(random, 500),
        refuse_per_mille: maybe(random, 100),
        describe_error_per_mille: maybe(random, 200),
        redescribe_per_mille: maybe(random, 300),
        renewal: random.happens(300).then(|| up_to(random, S, 30 * S)),
        sign_slow_per_mille: maybe(random, 200),
        sign_error_per_mille: maybe(random, 100),
        back_pressure: random.happens(500),
        clock_offset: up_to(random, 0, 30 * S),
        clock_drift_ppm: random.below(20_000),
    };
    stress(options.scenario, &mut faults);
    faults
}

/// Some scenarios need their fault whatever the seed says.
fn stress(scenario: Scenario, faults: &mut Faults) {
    match scenario {
        Scenario::NodeLoss | Scenario::Global => {
            faults.agent_crash += 5;
            faults.node_reboot += 3;
            faults.partition += 8;
        }
        Scenario::ManagerRestart => {
            faults.manager_crash += 8;
            faults.manager_power += 8;
            faults.torn_write += 5;
        }
        Scenario::Converge => faults.interval = None,
        Scenario::MassReconnect => {
            faults.manager_crash += 8;
            faults.manager_power += 4;
            faults.manager_stop += 4;
        }
        Scenario::CertRotation => {
            faults.renewal.get_or_insert(Duration::from_secs(5));
            faults.agent_crash += 3;
            faults.manager_crash += 2;
        }
        Scenario::RootRotation => {
            faults.agent_crash += 3;
            faults.manager_crash += 3;
            faults.partition += 3;
        }
        Scenario::Churn
        | Scenario::Scale
        | Scenario::Drain
        | Scenario::Ports
        | Scenario::Constraints
        | Scenario::All => {}
    }
}

fn draw_actions(scenario: Scenario, random: &mut Random) -> Actions {
    let none = Actions {
        interval: Some(up_to(random, S / 2, 8 * S)),
        ..Actions::default()
    };
    match scenario {
        Scenario::Converge => Actions::default(),
        Scenario::Churn => Actions {
            create: 5,
            remove: 4,
            scale: 2,
            remove_task: 1,
            ..none
        },
        Scenario::NodeLoss => Actions {
            scale: 2,
            remove_node: 2,
            ..none
        },
        Scenario::ManagerRestart => Actions {
            create: 2,
            remove: 1,
            scale: 2,
            ..none
        },
        Scenario::Scale => Actions {
            scale: 10,
            create: 1,
            ..none
        },
        Scenario::Ports => Actions {
            create: 4,
            remove: 3,
            scale: 2,
            ..none
        },
        Scenario::Constraints => Actions {
            label: 8,
            scale: 1,
            create: 1,
            ..none
        },
        Scenario::Global => Actions {
            create: 1,
            availability: 4,
            label: 2,
            remove_node: 2,
            ..none
        },
        Scenario::CertRotation
        | Scenario::RootRotation
        | Scenario::MassReconnect
        | Scenario::Drain => node_actions(scenario, none),
        Scenario::All => Actions {
            rotate_root: maybe(random, 3),
            rotate_token: maybe(random, 3),
            create: maybe(random, 8),
            remove: maybe(random, 6),
            scale: maybe(random, 10),
            availability: maybe(random, 8),
            label: maybe(random, 8),
            remove_node: maybe(random, 4),
            remove_task: maybe(random, 4),
            cluster: maybe(random, 2),
            ..none
        },
    }
}

/// Actions of the scenarios about nodes: their availability, certificates and connections.
fn node_actions(scenario: Scenario, none: Actions) -> Actions {
    match scenario {
        Scenario::Drain => Actions {
            availability: 8,
            scale: 1,
            ..none
        },
        Scenario::CertRotation => Actions {
            rotate_token: 1,
            remove_node: 1,
            scale: 1,
            ..none
        },
        Scenario::RootRotation => Actions {
            rotate_root: 4,
            rotate_token: 1,
            remove_node: 1,
            ..none
        },
        Scenario::MassReconnect
        | Scenario::Converge
        | Scenario::Churn
        | Scenario::NodeLoss
        | Scenario::ManagerRestart
        | Scenario::Scale
        | Scenario::Ports
        | Scenario::Constraints
        | Scenario::Global
        | Scenario::All => Actions { scale: 2, ..none },
    }
}

fn draw_services(scenario: Scenario, random: &mut Random) -> Services {
    let drawn = Services {
        initial: random.between(1, 3),
        max: random.between(3, 6),
        replicas_max: random.between(2, 12),
        global_per_mille: 150,
        ports_per_mille: maybe(random, 300),
        placement_per_mille: maybe(random, 500),
        resources_per_mille: maybe(random, 500),
        trouble_per_mille: maybe(random, 500),
        fragile_per_mille: maybe(random, 300),
    };
    match scenario {
        Scenario::Ports => Services {
            ports_per_mille: 800,
            ..drawn
        },
        Scenario::Constraints => Services {
            placement_per_mille: 900,
            ..drawn
        },
        Scenario::Global => Services {
            global_per_mille: 900,
            ..drawn
        },
        Scenario::Converge
        | Scenario::Churn
        | Scenario::NodeLoss
        | Scenario::ManagerRestart
        | Scenario::Scale
        | Scenario::Drain
        | Scenario::CertRotation
        | Scenario::RootRotation
        | Scenario::MassReconnect
        | Scenario::All => drawn,
    }
}
