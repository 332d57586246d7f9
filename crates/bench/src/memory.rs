//! A large store: a million realistic tasks of 10,000 services on 1,000 nodes, written in
//! transactions of 200, with all indices (`consensus-and-store.md` 3.2).

use std::sync::Arc;

use swarm_store::{Store, StoreError, TRANSACTION_CHANGES_MAX, Transaction};
use swarm_types::{IdSource, NodeId, ServiceId, Slot, Task, TaskId, TaskState, TaskStatus};

use crate::resident;
use crate::runner::{Clock, Took};
use crate::world::{Ids, NOW, Template};

/// How much goes into a store.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Tasks.
    pub tasks: usize,
    /// Services among which the tasks are spread.
    pub services: usize,
    /// Nodes on which they run.
    pub nodes: usize,
    /// Tasks in one transaction.
    pub batch: usize,
}

impl Size {
    /// The store of the bar.
    pub const MILLION: Self = Self {
        tasks: 1_000_000,
        services: 10_000,
        nodes: 1_000,
        batch: TRANSACTION_CHANGES_MAX,
    };

    /// So many tasks, a hundred of each service, a thousand on each node.
    pub fn of(tasks: usize, batch: usize) -> Self {
        Self {
            tasks,
            services: (tasks / 100).max(1),
            nodes: (tasks / 1_000).max(1),
            batch,
        }
    }
}

/// A filled store and what it cost.
#[derive(Debug)]
pub struct Filled {
    /// The store.
    pub store: Arc<Store>,
    /// Ids of its tasks, in the order of creation.
    pub tasks: Vec<TaskId>,
    /// Growth of resident memory, in bytes.
    pub resident: u64,
    /// What one task took.
    pub took: Took,
}

/// Fills a store with running tasks.
pub fn fill(size: Size) -> Filled {
    let mut ids = Ids::new(3);
    let nodes: Vec<NodeId> = (0..size.nodes)
        .map(|_| NodeId::new(ids.next_id()))
        .collect();
    let mut task_ids = Vec::with_capacity(size.tasks);
    let before = resident::bytes();
    let clock = Clock::start();
    let templates: Vec<Template> = (0..size.services)
        .map(|index| Template::new(ServiceId::new(ids.next_id()), format!("service{index}")))
        .collect();
    let store = Arc::new(Store::default());
    for first in (0..size.tasks).step_by(size.batch) {
        store
            .update::<_, StoreError>(NOW, |tx| {
                for index in first..size.tasks.min(first + size.batch) {
                    let id = ids.next_id();
                    task_ids.push(TaskId::new(id.clone()));
                    let slot = Slot((index / size.services) as u64 + 1);
                    let node = nodes[index % size.nodes].clone();
                    tx.create(templates[index % size.services].running_task(id, slot, node))?;
                }
                Ok(())
            })
            .expect("fresh ids do not collide");
    }
    Filled {
        store,
        tasks: task_ids,
        took: clock.stop(size.tasks),
        resident: resident::bytes().saturating_sub(before),
    }
}

impl Filled {
    /// Status reports of tasks here and there, each in a transaction of its own.
    pub fn report(&self, reports: usize) -> Took {
        let clock = Clock::start();
        self.timed_report(reports);
        clock.stop(reports)
    }

    /// What the clock covers. Its name tells callgrind what to count (`instructions::TIMED`).
    #[inline(never)]
    fn timed_report(&self, reports: usize) {
        // A step that shares no factor with the number of tasks visits them in no order.
        const STEP: usize = 7_919;
        for index in 0..reports {
            let id = &self.tasks[index * STEP % self.tasks.len()];
            self.store
                .update(NOW, |tx| touch(tx, id))
                .expect("every task is there");
        }
    }
}

/// The step that a status report takes: read, change the status, write.
fn touch(tx: &mut Transaction, id: &TaskId) -> Result<(), StoreError> {
    let mut task = Task::clone(tx.task(id).expect("was created"));
    let mut status = task.status().clone();
    status.applied_at = Some(NOW);
    task.advance(status)?;
    tx.update(task)
}

/// The store's part of scheduling `tasks` tasks of one service onto `nodes` nodes: one update each,
/// in the order of ids, in transactions of 200. Returns what one task took.
pub fn assign(tasks: usize, nodes: usize) -> Took {
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
    let clock = Clock::start();
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
    clock.stop(tasks)
}
