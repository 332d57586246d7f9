//! Which replicas go when a service is scaled down (spec 6.5).

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_types::{NodeId, Service, Slot, Task, TaskState};

use crate::slot::{newest, standing};

/// The slots that have to go so that `want` remain, the least wanted first.
///
/// Nodes with most copies lose first; on a node, replicas that do not run go before those that do
/// and high numbers before low ones; replicas without a node, or with several live tasks, go before
/// all others. Both sorts are stable, so equal worlds lose equal slots.
pub(super) fn choose(
    service: &Service,
    slots: &BTreeMap<Slot, Vec<&Arc<Task>>>,
    want: u64,
) -> Vec<Slot> {
    let mut replicas: Vec<(Slot, Vec<&Arc<Task>>)> = slots
        .iter()
        .filter(|(_, tasks)| standing(service, tasks).is_replica())
        .map(|(slot, tasks)| (*slot, current(tasks)))
        .collect();
    let runs = |tasks: &[&Arc<Task>]| tasks.iter().any(|task| task.state() == TaskState::Running);
    replicas.sort_by_key(|(_, tasks)| !runs(tasks));
    let mut copies: BTreeMap<&NodeId, u64> = BTreeMap::new();
    let mut ranked: Vec<(u64, Slot)> = replicas
        .iter()
        .map(|(slot, tasks)| (rank(tasks, &mut copies), *slot))
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let keep = usize::try_from(want)
        .unwrap_or(usize::MAX)
        .min(ranked.len());
    let surplus = ranked.split_off(keep);
    surplus.into_iter().rev().map(|(_, slot)| slot).collect()
}

/// The how-manieth replica on its node it is; the last rank if it is on no single node.
fn rank<'a>(tasks: &[&'a Arc<Task>], copies: &mut BTreeMap<&'a NodeId, u64>) -> u64 {
    match tasks {
        [task] => match &task.node_id {
            Some(node) => {
                let count = copies.entry(node).or_default();
                *count += 1;
                *count
            }
            None => u64::MAX,
        },
        _ => u64::MAX,
    }
}

/// The tasks by which a replica counts: the live ones, or else the last one.
fn current<'a>(tasks: &[&'a Arc<Task>]) -> Vec<&'a Arc<Task>> {
    let live: Vec<_> = tasks
        .iter()
        .filter(|task| task.is_live())
        .copied()
        .collect();
    if live.is_empty() {
        newest(tasks).into_iter().collect()
    } else {
        live
    }
}
