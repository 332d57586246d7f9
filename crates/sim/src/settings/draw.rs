//! What the seed draws, by scenario.

use std::time::Duration;

use super::{Actions, FaultMode, Faults, Options, Scenario, Services};
use crate::random::{Purpose, Random};
use crate::time::{Clock, MS, S};

/// How many nodes there are, the manager's own included.
pub(super) fn nodes(scenario: Scenario, random: &mut Random) -> u64 {
    if scenario == Scenario::MassReconnect {
        random.between(10, 24)
    } else if scenario == Scenario::FleetRotation {
        random.between(36, 70)
    } else {
        random.between(2, 6)
    }
}

pub(super) fn clock(faults: &Faults, random: &mut Random) -> Clock {
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
pub(super) fn maybe(random: &mut Random, max: u64) -> u32 {
    if random.happens(500) {
        u32::try_from(random.between(1, max)).unwrap_or(1)
    } else {
        0
    }
}

pub(super) fn up_to(random: &mut Random, low: u64, high: u64) -> Duration {
    Duration::from_nanos(random.between(low, high))
}

/// A limit that is far larger in some runs.
fn rarely_slow(random: &mut Random, usual: u64, slow: u64) -> Duration {
    let high = if random.happens(150) { slow } else { usual };
    up_to(random, MS, high)
}

pub(super) fn faults(options: Options, random: &mut Random, payloads: &mut Random) -> Faults {
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
        oversize_per_mille: 0,
        floods: false,
        renewal: random.happens(300).then(|| up_to(random, S, 30 * S)),
        sign_slow_per_mille: maybe(random, 200),
        sign_error_per_mille: maybe(random, 100),
        driver_error_per_mille: maybe(payloads, 300),
        mute_per_mille: 0,
        standstill: None,
        worker_disk: None,
        back_pressure: random.happens(500),
        clock_offset: up_to(random, 0, 30 * S),
        clock_drift_ppm: random.below(20_000),
    };
    stress(options.scenario, &mut faults);
    faults
}

/// Whether the manager stands still, and how often and how long.
pub(super) fn standstill(options: Options) -> Option<(Duration, Duration)> {
    let mut random = Random::new(!options.seed, Purpose::Standstills);
    let is_drawn = options.scenario == Scenario::All && random.happens(300);
    let may = options.scenario == Scenario::Standstill || is_drawn;
    let random = &mut random;
    may.then(|| (up_to(random, 2 * S, 30 * S), up_to(random, S / 2, 40 * S)))
}

/// Whether there are things that are too large. They cost much to simulate, so they are rare.
pub(super) fn oversize(options: Options, faults: &mut Faults, services: &mut Services) {
    let mut random = Random::new(options.seed, Purpose::Oversize);
    if options.scenario != Scenario::All {
        return;
    }
    faults.oversize_per_mille = if random.happens(200) { 200 } else { 0 };
    services.large_per_mille = if random.happens(50) { 300 } else { 0 };
    faults.floods = random.happens(100);
}

/// Whether the disks of workers are full now and then, and how often and how long.
pub(super) fn worker_disk(options: Options) -> Option<(Duration, Duration)> {
    let mut random = Random::new(!options.seed, Purpose::WorkerDisks);
    let may = match options.scenario {
        Scenario::All => random.happens(300),
        Scenario::NodeLoss | Scenario::Scale => random.happens(500),
        Scenario::Converge
        | Scenario::Churn
        | Scenario::ManagerRestart
        | Scenario::Drain
        | Scenario::Ports
        | Scenario::Constraints
        | Scenario::Global
        | Scenario::CertRotation
        | Scenario::RootRotation
        | Scenario::FleetRotation
        | Scenario::MassReconnect
        | Scenario::Secrets
        | Scenario::Logs
        | Scenario::Standstill => false,
    };
    let random = &mut random;
    may.then(|| (up_to(random, 5 * S, 60 * S), up_to(random, S, 40 * S)))
}

/// Some scenarios need their fault whatever the seed says.
fn stress(scenario: Scenario, faults: &mut Faults) {
    match scenario {
        Scenario::NodeLoss | Scenario::Global | Scenario::Secrets | Scenario::Logs => {
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
        // Faults that strike one node at a time leave enough of them ready to reach the limit.
        Scenario::FleetRotation => faults.renewal = None,
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
        | Scenario::Standstill
        | Scenario::All => {}
    }
}

pub(super) fn actions(scenario: Scenario, random: &mut Random) -> Actions {
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
        Scenario::Secrets | Scenario::Logs => Actions {
            create: 3,
            remove: 2,
            scale: 3,
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
        | Scenario::FleetRotation
        | Scenario::MassReconnect
        | Scenario::Standstill
        | Scenario::Drain => node_actions(scenario, none),
        Scenario::All => any_actions(random, none),
    }
}

/// Some of all actions.
fn any_actions(random: &mut Random, none: Actions) -> Actions {
    Actions {
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
        Scenario::FleetRotation => Actions {
            rotate_root: 2,
            scale: 1,
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
        | Scenario::Secrets
        | Scenario::Logs
        | Scenario::Standstill
        | Scenario::All => Actions { scale: 2, ..none },
    }
}

pub(super) fn services(scenario: Scenario, random: &mut Random) -> Services {
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
        payloads_per_mille: 0,
        large_per_mille: 0,
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
        | Scenario::FleetRotation
        | Scenario::MassReconnect
        | Scenario::Secrets
        | Scenario::Logs
        | Scenario::Standstill
        | Scenario::All => drawn,
    }
}
