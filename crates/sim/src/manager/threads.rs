//! When the threads of the manager's process run: the log's, and the leader's task.

use std::time::Duration;

use super::replica::LogFailed;
use super::{Io, Manager, TICK};
use crate::event::{Event, ManagerEvent};
use crate::time::{MS, S};
use crate::trace::Weight;

impl Manager {
    /// The log's thread syncs and applies.
    pub(crate) fn log_pass(&mut self, io: &mut Io<'_>) {
        let refuse = if self.is_calm {
            0
        } else {
            self.settings.faults.refuse_per_mille / 4
        };
        let random = &mut self.random;
        if let Some(process) = &mut self.process {
            process.is_pass_planned = false;
            let passed = process.replica.pass(|| random.happens(refuse));
            self.after_log(io, passed);
        }
    }

    pub(crate) fn log_tick(&mut self, io: &mut Io<'_>) {
        io.agenda
            .after(TICK, Event::Manager(self.life, ManagerEvent::LogTick));
        if let Some(process) = &mut self.process {
            let ticked = process.replica.tick();
            let is_idle = process.term.is_none() && !process.is_seeding;
            self.after_log(io, ticked);
            if is_idle {
                self.begin_leading(io);
            }
        }
    }

    pub(crate) fn log_snapshot(&mut self, io: &mut Io<'_>) {
        if let Some(process) = &mut self.process {
            let written = process.replica.write_snapshot();
            self.after_log(io, written);
        }
    }

    fn after_log(&mut self, io: &mut Io<'_>, result: Result<(), LogFailed>) {
        if let Err(failed) = result {
            self.failed = Some(failed);
            return;
        }
        if let Some(process) = &mut self.process {
            for skipped in process.replica.skipped.drain(..) {
                io.trace.add(
                    io.agenda.now(),
                    Weight::Major,
                    "mgr",
                    format_args!("{skipped}"),
                );
            }
        }
        if let Some(process) = &mut self.process
            && process.replica.begin_snapshot()
        {
            let after = self
                .random
                .span(Duration::from_millis(1), Duration::from_millis(200));
            io.agenda
                .after(after, Event::Manager(self.life, ManagerEvent::LogSnapshot));
        }
        self.plan(io);
    }

    /// Plans the next turn, pass and timer, as far as there is something to do.
    pub(super) fn plan(&mut self, io: &mut Io<'_>) {
        let Some(process) = &mut self.process else {
            return;
        };
        if process.replica.has_work() && !process.is_pass_planned {
            process.is_pass_planned = true;
            let max = self.settings.faults.sync_max;
            let max = if self.is_calm {
                max.min(Duration::from_millis(5))
            } else {
                max
            };
            let after = self.random.span(Duration::from_micros(50), max);
            io.agenda
                .after(after, Event::Manager(self.life, ManagerEvent::LogPass));
        }
        let has_feed = process
            .term
            .as_ref()
            .is_some_and(|term| term.fed_version() < process.replica.store.view().version());
        let has_input = has_feed
            || !process.replica.outcomes.is_empty()
            || !process.streams.is_empty()
            || (!process.calls.is_empty() && process.term.is_some());
        let wake = process.term.as_mut().and_then(|term| {
            let leader = term.leader.poll_timeout().map(|wake| wake.at);
            leader.into_iter().chain(term.lines.poll_timeout()).min()
        });
        if let Some(wake) = wake {
            let at = self.clock.when(wake, io.agenda.now());
            if process.wake != Some(at) {
                process.wake = Some(at);
                io.agenda
                    .at(at, Event::Manager(self.life, ManagerEvent::Wake));
            }
        }
        if has_input {
            self.plan_turn(io);
        }
    }

    pub(super) fn plan_turn(&mut self, io: &mut Io<'_>) {
        if let Some(process) = &mut self.process
            && !process.is_turn_planned
        {
            process.is_turn_planned = true;
            let max = self.settings.faults.turn_delay_max;
            let max = if self.is_calm {
                max.min(Duration::from_millis(5))
            } else {
                max
            };
            let after = self.random.span(
                Duration::from_micros(10),
                max.max(Duration::from_micros(20)),
            );
            io.agenda.after(
                after.clamp(MS / 100, 10 * S),
                Event::Manager(self.life, ManagerEvent::Turn),
            );
        }
    }
}
