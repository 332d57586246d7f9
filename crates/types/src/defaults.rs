//! Default values (control-plane spec 2). They are consulted when a decision is taken and shown on
//! request; they are never written into a stored spec.

use std::time::Duration;

use swarm_api::v1;

use crate::time::duration_to_wire;

/// Time between the stop signal and the kill.
pub const STOP_GRACE_PERIOD: Duration = Duration::from_secs(10);
/// Wait before a replacement starts.
pub const RESTART_DELAY: Duration = Duration::from_secs(5);
/// How long a replaced task of an update is watched for failure.
pub const UPDATE_MONITOR: Duration = Duration::from_secs(5);
/// Ended tasks kept per slot.
pub const TASK_HISTORY_RETENTION_LIMIT: i64 = 5;
/// Heartbeat period that the dispatcher dictates.
pub const HEARTBEAT_PERIOD: Duration = Duration::from_secs(5);
/// The cluster's only allowed name.
pub const CLUSTER_NAME: &str = "default";
/// Applied entries between two snapshots.
pub const SNAPSHOT_INTERVAL: u64 = 10_000;
/// Entries kept behind a snapshot for slow followers.
pub const LOG_ENTRIES_FOR_SLOW_FOLLOWERS: u64 = 500;
/// Ticks between two heartbeats of a Raft leader.
pub const HEARTBEAT_TICK: u32 = 1;
/// Ticks without a leader before an election.
pub const ELECTION_TICK: u32 = 10;
/// Life of a node certificate: 90 days.
pub const NODE_CERT_EXPIRY: Duration = Duration::from_secs(2160 * 3600);

/// The spec of a fresh cluster object.
pub fn cluster_spec() -> v1::ClusterSpec {
    v1::ClusterSpec {
        annotations: Some(v1::Annotations {
            name: CLUSTER_NAME.to_owned(),
            ..Default::default()
        }),
        orchestration: Some(v1::OrchestrationConfig {
            task_history_retention_limit: TASK_HISTORY_RETENTION_LIMIT,
        }),
        raft: Some(v1::RaftConfig {
            snapshot_interval: SNAPSHOT_INTERVAL,
            keep_old_snapshots: 0,
            log_entries_for_slow_followers: LOG_ENTRIES_FOR_SLOW_FOLLOWERS,
            heartbeat_tick: HEARTBEAT_TICK,
            election_tick: ELECTION_TICK,
        }),
        dispatcher: Some(v1::DispatcherConfig {
            heartbeat_period: Some(duration_to_wire(HEARTBEAT_PERIOD)),
        }),
        ca_config: Some(v1::CaConfig {
            node_cert_expiry: Some(duration_to_wire(NODE_CERT_EXPIRY)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Fills in what a client sees when it asks for defaults: whole missing messages, and inside a
/// present restart policy only the delay, inside a present update config only the monitor.
pub fn fill_service_spec(spec: &mut v1::ServiceSpec) {
    let task = spec.task.get_or_insert_default();
    if let Some(v1::task_spec::Runtime::Container(container)) = &mut task.runtime {
        container
            .stop_grace_period
            .get_or_insert_with(|| duration_to_wire(STOP_GRACE_PERIOD));
        container.pull_options.get_or_insert_default();
        container.dns_config.get_or_insert_default();
    }
    task.resources.get_or_insert_default();
    task.placement.get_or_insert_default();
    let restart = task.restart.get_or_insert_with(|| v1::RestartPolicy {
        condition: v1::restart_policy::RestartCondition::Any as i32,
        ..Default::default()
    });
    restart
        .delay
        .get_or_insert_with(|| duration_to_wire(RESTART_DELAY));
    for config in [&mut spec.update, &mut spec.rollback] {
        let config = config.get_or_insert_with(|| v1::UpdateConfig {
            parallelism: 1,
            ..Default::default()
        });
        config
            .monitor
            .get_or_insert_with(|| duration_to_wire(UPDATE_MONITOR));
    }
}
