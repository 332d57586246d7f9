//! The task database of a node, and when its disk is full.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_agent::{PersistOp, PersistedTask};
use swarm_types::{Task, TaskId};

use crate::random::Random;
use crate::time::{Instant, MS};

/// When the disk of a node is full: from `begins` until `ends`, again and again.
#[derive(Debug)]
pub(crate) struct Fullness {
    random: Random,
    interval: Duration,
    lasts_max: Duration,
    begins: Instant,
    ends: Instant,
}

impl Fullness {
    /// `interval` is the mean time between two such times.
    pub(crate) fn new(random: Random, (interval, lasts_max): (Duration, Duration)) -> Self {
        let zero = Instant::default();
        Self {
            random,
            interval,
            lasts_max,
            begins: zero,
            ends: zero,
        }
    }

    /// Whether it is full now; time does not go back between two questions.
    pub(super) fn is_now(&mut self, now: Instant) -> bool {
        while self.ends <= now {
            let least = Duration::from_nanos(MS);
            let pause = self.random.span(least, self.interval * 2);
            let lasts = self.random.span(least, self.lasts_max.max(least * 2));
            self.begins = self.ends.plus(pause);
            self.ends = self.begins.plus(lasts);
        }
        self.begins <= now
    }
}

/// One transaction of the task database.
pub(super) fn write(disk: &mut BTreeMap<TaskId, PersistedTask>, ops: Vec<PersistOp>) {
    for op in ops {
        match op {
            PersistOp::PutTask(task) => {
                let status = task.status().clone();
                let entry = disk
                    .entry(task.id.clone())
                    .or_insert_with(|| PersistedTask {
                        task: Task::clone(&task),
                        status,
                        is_assigned: true,
                    });
                entry.task = Task::clone(&task);
                entry.is_assigned = true;
            }
            PersistOp::PutStatus(id, status) => {
                if let Some(entry) = disk.get_mut(&id) {
                    entry.status = status;
                }
            }
            PersistOp::Unassign(id) => {
                if let Some(entry) = disk.get_mut(&id) {
                    entry.is_assigned = false;
                }
            }
            PersistOp::Delete(id) => drop(disk.remove(&id)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;
    use crate::time::S;

    #[test]
    fn a_disk_is_full_now_and_then_and_never_for_longer_than_it_may() {
        let times = (Duration::from_secs(10), Duration::from_secs(5));
        let mut fullness = Fullness::new(Random::new(7, Purpose::WorkerDisks), times);
        let (mut full, mut run, mut longest) = (0, 0, 0);
        for second in 0..1_000 {
            let is_full = fullness.is_now(Instant(second * S));
            run = if is_full { run + 1 } else { 0 };
            full += u32::from(is_full);
            longest = longest.max(run);
        }
        assert!((50..600).contains(&full), "{full} of 1000 s");
        assert!(longest <= 6, "{longest} s");
    }
}
