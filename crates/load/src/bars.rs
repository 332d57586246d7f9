//! The recorded Go figures (`performance.md` 3, medians on a quiet machine where there are any),
//! and the bars of the issue.

use crate::options::{Client, Variant};
use crate::report::{Bar, Better};

/// Bars on rates hold from this many agents on, as the issue states them.
const RATE_BARS_FROM: u64 = 1_000;

/// A figure of Go and a bar.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Known {
    pub(crate) go: Option<f64>,
    pub(crate) bar: Option<Bar>,
}

/// What is known of a figure of a step with `agents` agents and `tasks` tasks. The bars are about
/// agents that report in batches; those that report each state make five calls for a task.
pub(crate) fn known(
    step: &str,
    name: &str,
    (agents, tasks): (u64, u64),
    (variant, client): (Variant, Client),
) -> Known {
    let known = match (step, name) {
        ("idle", "manager CPU per 1,000 agents") => idle(client),
        _ => in_batches(step, name, agents, tasks),
    };
    match variant {
        Variant::Batch => known,
        Variant::Steps if step.starts_with("launch") => {
            let go = go_launch_in_steps(agents, tasks);
            let go = go.and_then(|(rate, cpu)| match name {
                "rate" => Some(rate),
                "manager CPU per task" => Some(cpu),
                _ => None,
            });
            Known { go, bar: None }
        }
        Variant::Steps => known,
    }
}

/// What an idle manager costs depends on what its agents do beside heartbeats. Go's figures are of
/// an earlier driver that does nothing else, and of one on grpc-go.
fn idle(client: Client) -> Known {
    let (go, bar) = match client {
        Client::GrpcGo => (9.15, 1.5),
        Client::Plain => (10.1, 1.0),
    };
    let (go, bar) = (Some(go), Some(Bar::AtMost(bar)));
    Known { go, bar }
}

fn in_batches(step: &str, name: &str, agents: u64, tasks: u64) -> Known {
    let kind = step.split(':').next().unwrap_or(step);
    let large = agents >= RATE_BARS_FROM;
    let at_least = |value| large.then_some(Bar::AtLeast(value));
    let at_most = |value| Some(Bar::AtMost(value));
    let (go, bar) = match (kind, name) {
        ("start", "resident") => (Some(36.0), None),
        ("join", "rate") => (Some(if large { 190.0 } else { 140.0 }), at_least(350.0)),
        ("join", "manager CPU per join") => (Some(if large { 4.8 } else { 4.9 }), None),
        ("join", "p50") => (Some(if large { 200.0 } else { 100.0 }), None),
        ("join", "p99") => (Some(if large { 310.0 } else { 110.0 }), None),
        ("join", "resident per agent") => (Some(271.0), at_most(60.0)),
        ("idle", "sessions lost") => (None, at_most(0.0)),
        ("idle", "nodes not READY") => (None, at_most(0.0)),
        ("launch", "rate") => (
            go_launch(agents, tasks).map(|go| go.0),
            at_least(launch_bar(tasks)),
        ),
        ("launch", "manager CPU per task") => {
            (go_launch(agents, tasks).map(|go| go.1), at_most(0.1))
        }
        ("launch", "resident per task") => (go_launch(agents, tasks).map(|_| 40.0), None),
        ("drain", "all RUNNING again") => (Some(0.33), None),
        ("fail", "first RUNNING again") => (Some(9.5), None),
        ("fail", "all RUNNING again") => (Some(16.4), None),
        ("rm", "gone") => ((tasks == 1_000 && large).then_some(1.33), None),
        _ => (None, None),
    };
    Known { go, bar }
}

/// Tasks per second that a launch must reach. A small one is over before the batches of 100 ms,
/// which every task passes twice, are amortised.
fn launch_bar(tasks: u64) -> f64 {
    if tasks >= 10_000 { 10_000.0 } else { 0.0 }
}

/// Tasks per second, and milliseconds of the manager's processor time per task (3.2).
fn go_launch(agents: u64, tasks: u64) -> Option<(f64, f64)> {
    match (agents, tasks) {
        (100, 1_000) => Some((1_384.0, 0.47)),
        (100, 10_000) => Some((2_248.0, 0.86)),
        (1_000, 1_000) => Some((1_036.0, 1.12)),
        (1_000, 10_000) => Some((1_171.0, 1.22)),
        (1_000, 100_000) => Some((839.0, 1.85)),
        (3_000, 10_000) => Some((394.0, 2.5)),
        _ => None,
    }
}

/// The same of agents that report each state; measured once, on a busy machine.
fn go_launch_in_steps(agents: u64, tasks: u64) -> Option<(f64, f64)> {
    match (agents, tasks) {
        (1_000, 1_000) => Some((513.0, 1.51)),
        (1_000, 10_000) => Some((526.0, 1.68)),
        _ => None,
    }
}

/// Which way is better.
pub(crate) fn better(name: &str) -> Better {
    if name.starts_with("rate") {
        Better::More
    } else {
        Better::Less
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_of_rates_begin_with_a_thousand_agents_and_ten_thousand_tasks() {
        let how = (Variant::Batch, Client::GrpcGo);
        let known = |step, name, agents, tasks| known(step, name, (agents, tasks), how);
        let bar = |agents, tasks| known("launch:1", "rate", agents, tasks).bar;
        assert_eq!(bar(999, 10_000), None);
        assert_eq!(bar(1_000, 10_000), Some(Bar::AtLeast(10_000.0)));
        assert_eq!(bar(1_000, 9_999), Some(Bar::AtLeast(0.0)));
        let go = known("launch:10000", "manager CPU per task", 1_000, 10_000).go;
        assert_eq!(go, Some(1.22));
        assert_eq!(
            known("join", "rate", 1_000, 0).bar,
            Some(Bar::AtLeast(350.0))
        );
    }

    #[test]
    fn an_idle_manager_is_judged_by_what_its_agents_do() {
        let bar = |client| {
            let name = "manager CPU per 1,000 agents";
            known("idle", name, (1_000, 0), (Variant::Batch, client)).bar
        };
        assert_eq!(bar(Client::GrpcGo), Some(Bar::AtMost(1.5)));
        assert_eq!(bar(Client::Plain), Some(Bar::AtMost(1.0)));
    }

    #[test]
    fn launches_in_steps_are_compared_with_such_launches_and_have_no_bar() {
        let how = (Variant::Steps, Client::GrpcGo);
        let known = |name| known("launch:10000", name, (1_000, 10_000), how);
        assert_eq!(known("manager CPU per task").go, Some(1.68));
        assert_eq!(known("rate").bar, None);
        assert_eq!(known("resident per task"), Known::default());
    }
}
