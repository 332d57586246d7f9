//! Which fault strikes when.

use std::time::Duration;

use swarm_raft::disk::DiskErrorKind;

use crate::event::{Event, NodeIx};
use crate::manager::Death;
use crate::time::S;
use crate::world::{FAULT_PAUSE, World};

/// Operations of the disk within which a planned failure comes.
const DISK_OPERATIONS_AHEAD: u64 = 30;
/// Longest time without space on the manager's disk.
const DISK_FULL_MAX: u64 = 10 * S;
/// Bytes that are left on a full disk, at most.
const DISK_LEFT_MAX: u64 = 8 * 1024;

impl World {
    /// Plans the next fault.
    pub(crate) fn plan_fault(&mut self) {
        if let Some(interval) = self.settings.faults.interval.filter(|_| !self.is_calm) {
            let after = self.chance.span(Duration::from_millis(10), interval * 2);
            self.agenda.after(after + FAULT_PAUSE, Event::Fault);
        }
    }

    /// Draws a fault and lets it happen.
    pub(crate) fn strike(&mut self) {
        if self.is_calm {
            return;
        }
        self.plan_fault();
        let faults = &self.settings.faults;
        let weights = [
            faults.agent_crash,
            faults.node_reboot,
            faults.manager_crash,
            faults.manager_power,
            faults.manager_stop,
            faults.torn_write,
            faults.disk_error,
            faults.disk_full,
            faults.partition,
            faults.reset,
            faults.kill,
            faults.feed_lag,
        ];
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        if total == 0 {
            return;
        }
        let mut drawn = self.chance.below(total);
        let place = weights.iter().position(|weight| {
            let weight = u64::from(*weight);
            let is_it = drawn < weight;
            drawn = drawn.saturating_sub(weight);
            is_it
        });
        match place.unwrap_or(usize::MAX) {
            0 => self.strike_node(false),
            1 => self.strike_node(true),
            2 => self.strike_manager(Death::Process),
            3 => self.strike_manager(Death::Power),
            4 => self.strike_manager(Death::Asked),
            5..=7 => self.strike_disk(place.unwrap_or(5)),
            8 => self.strike_network(),
            9 => {
                let ix = self.any_node();
                self.reset(ix);
            }
            10 => self.strike_process(),
            _ => self.lag(),
        }
    }

    fn any_node(&mut self) -> NodeIx {
        let place = self.chance.below(self.nodes.len() as u64);
        NodeIx(usize::try_from(place).unwrap_or(0))
    }

    fn strike_node(&mut self, with_machine: bool) {
        let ix = self.any_node();
        // The manager's node dies with the manager.
        if ix != NodeIx(0) {
            self.kill_node(ix, with_machine);
        }
    }

    fn strike_manager(&mut self, death: Death) {
        if self.manager.process.is_some() {
            self.kill_manager(death);
        }
    }

    fn strike_disk(&mut self, place: usize) {
        if self.manager.process.is_none() {
            return;
        }
        let disk = self.manager.disk.clone();
        let at = disk.operations() + self.chance.between(1, DISK_OPERATIONS_AHEAD);
        match place {
            5 => {
                self.note(
                    "fault",
                    format_args!("power will go off at disk operation {at}"),
                );
                self.manager.is_disk_armed = true;
                disk.cut_power_at(at);
            }
            6 => {
                self.note("fault", format_args!("disk operation {at} will fail"));
                self.manager.is_disk_armed = true;
                disk.fail_at(at, DiskErrorKind::Other);
            }
            _ => {
                let left = self.chance.below(DISK_LEFT_MAX);
                let after = self.chance.between(S / 10, DISK_FULL_MAX);
                self.note("fault", format_args!("the disk has only {left} bytes left"));
                disk.set_capacity(Some(disk.used() + left));
                self.agenda.after(after, Event::DiskFreed);
            }
        }
    }

    fn strike_network(&mut self) {
        let ix = self.any_node();
        let max = self.settings.faults.partition_max;
        let nanos = self.chance.span(Duration::from_millis(100), max);
        let directions = match self.chance.below(4) {
            0 => (true, false),
            1 => (false, true),
            _ => (true, true),
        };
        self.cut_off(ix, nanos, directions);
    }

    fn strike_process(&mut self) {
        let ix = self.any_node();
        let running = self.nodes[ix.0].processes(self.agenda.now());
        if let Some((task, _)) = self.chance.pick(&running).cloned() {
            self.kill_process(ix, &task);
        }
    }
}
