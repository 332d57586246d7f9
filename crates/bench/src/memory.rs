//! A large store: a million realistic tasks of 10,000 services on 1,000 nodes, written in
//! transactions of 200, with all indices (`consensus-and-store.md` 3.2).

use std::sync::Arc;
use std::time::Instant;

use swarm_store::{Store, StoreError, TRANSACTION_CHANGES_MAX, Transaction};
use swarm_types::{IdSource, NodeId, ServiceId, Slot, Task, TaskId, TaskState, TaskStatus};

use crate::resident;
use crate::world::{Ids, NOW, Template};

/// Services among which the tasks are spread.
pub const SERVICES: usize = 10_000;
/// Nodes on which they run.
pub const NODES: usize = 1_000;

/// A filled store and what it cost.
#[derive(Debug)]
pub struct Filled {
    /// The store.
    pub store: Arc<Store>,
    /// Ids of its tasks, in the order of creation.
    pub tasks: Vec<TaskId>,
    /// Growth of resident memory, in bytes.
    pub resident: u64,
    /// Time per task, in nanoseconds.
    pub nanos: f64,
}

/// Fills a store with running tasks.
pub fn fill(tasks: usize) -> Filled {
    let mut ids = Ids::new(3);
    let nodes: Vec<NodeId> = (0..NODES).map(|_| NodeId::new(ids.next_id())).collect();
    let mut task_ids = Vec::with_capacity(tasks);
    let before = resident::bytes();
    let start = Instant::now();
    let templates: Vec<Template> = (0..SERVICES)
        .map(|index| Template::new(ServiceId::new(ids.next_id()), format!("service{index}")))
        .collect();
    let store = Arc::new(Store::default());
    for first in (0..tasks).step_by(TRANSACTION_CHANGES_MAX) {
        store
            .update::<_, StoreError>(NOW, |tx| {
                for index in first..tasks.min(first + TRANSACTION_CHANGES_MAX) {
                    let id = ids.next_id();
                    task_ids.push(TaskId::new(id.clone()));
                    let slot = Slot((index / SERVICES) as u64 + 1);
                    let node = nodes[index % NODES].clone();
                    tx.create(templates[index % SERVICES].running_task(id, slot, node))?;
                }
                Ok(())
            })
            .expect("fresh ids do not collide");
    }
    Filled {
        store,
        tasks: task_ids,
        nanos: start.elapsed().as_secs_f64() * 1e9 / tasks as f64,
        resident: resident::bytes().saturating_sub(before),
    }
}

/// The step that a status report takes: read, change the status, write.
///
/// # Errors
/// What the store says.
pub fn touch(tx: &mut Transaction, id: &TaskId) -> Result<(), StoreError> {
    let mut task = Task::clone(tx.task(id).expect("was created"));
    let mut status = task.status().clone();
    status.applied_at = Some(NOW);
    task.advance(status)?;
    tx.update(task)
}

/// The store's part of scheduling `tasks` tasks of one service onto `nodes` nodes: one update each,
/// in the order of ids, in transactions of 200. Returns nanoseconds per task.
pub fn assign(tasks: usize, nodes: usize) -> f64 {
    let mut ids = Ids::new(4);
    let nodes: Vec<NodeId> = (0..nodes).map(|_| NodeId::new(ids.next_id())).collect();
    let template = Template::new(ServiceId::new(ids.next_id()), "service".to_owned());
    let store = Store::default();
    for first in (0..tasks).step_by(TRANSACTION_CHANGES_MAX) {
        store
            .update::<_, StoreError>(NOW, |tx| {
                for index in first..tasks.min(first + TRANSACTION_CHANGES_MAX) {
                    tx.create(template.pending_task(ids.next_id(), Slot(index as u64 + 1)))?;
                }
                Ok(())
            })
            .expect("fresh ids do not collide");
    }
    let pending: Vec<TaskId> = store
        .view()
        .all::<Task>()
        .map(|task| task.id.clone())
        .collect();
    let start = Instant::now();
    for (first, batch) in pending.chunks(TRANSACTION_CHANGES_MAX).enumerate() {
        store
            .update::<_, StoreError>(NOW, |tx| {
                for (index, id) in batch.iter().enumerate() {
                    let mut task = Task::clone(tx.task(id).expect("was created"));
                    let turn = first * TRANSACTION_CHANGES_MAX + index;
                    task.node_id = Some(nodes[turn % nodes.len()].clone());
                    task.advance(TaskStatus::new(
                        TaskState::Assigned,
                        NOW,
                        "scheduler assigned task to node",
                    ))?;
                    tx.update(task)?;
                }
                Ok(())
            })
            .expect("every task is there");
    }
    start.elapsed().as_secs_f64() * 1e9 / tasks as f64
}
