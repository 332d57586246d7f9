//! The health check for which a starting task waits, and until when at most.

use std::time::Duration;

use swarm_store::Root;
use swarm_types::spec::stop_grace_period;
use swarm_types::time::duration_from_wire;
use swarm_types::{Task, TaskState};

use crate::finding::{Code, Finding};
use crate::words::{moment, node_named};

// Docker's defaults, which the native executor shares; zero in a spec means the default too.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// A task whose program runs, and which counts as running once its health check has passed.
pub(crate) fn awaited(view: &Root, task: &Task) -> Option<Finding> {
    let container = task.container()?;
    let check = container.healthcheck.as_ref()?;
    let is_off = check.test.first().is_none_or(|word| word == "NONE");
    if task.state() != TaskState::Starting || is_off {
        return None;
    }
    let or = |wire: &Option<_>, default| {
        let given = wire.as_ref().and_then(duration_from_wire);
        given.filter(|it| !it.is_zero()).unwrap_or(default)
    };
    let retries = match u32::try_from(check.retries) {
        Ok(0) | Err(_) => RETRIES,
        Ok(retries) => retries,
    };
    let interval = or(&check.interval, INTERVAL).max(or(&check.start_interval, START_INTERVAL));
    let one = interval.saturating_add(or(&check.timeout, TIMEOUT));
    let verdict_within = or(&check.start_period, Duration::ZERO)
        .saturating_add(one.saturating_mul(retries.saturating_add(1)))
        .saturating_add(stop_grace_period(container));
    let since = task.status().effective_time();
    let place = task.node_id.as_ref().map_or_else(String::new, |node| {
        format!(" on node {}", node_named(view, node))
    });
    let until = since.map_or_else(String::new, |since| {
        let until = since.saturating_add(verdict_within);
        format!(
            " since {}; if that has not happened by {}, it fails",
            moment(since),
            moment(until)
        )
    });
    let text = format!("its program runs{place} and waits for its health check to pass{until}");
    let finding = Finding::new(Code::Health, text).since(since);
    Some(match &task.node_id {
        Some(node) => finding.about(node),
        None => finding,
    })
}
