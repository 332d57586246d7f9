//! A manager's process that stands still for a while: stopped, or on a machine that has no time for
//! it. Whatever comes for it waits, and it goes on where it was.

use std::time::Duration;

use crate::event::Event;
use crate::manager::Io;
use crate::random::{Purpose, Random};
use crate::settings::Settings;
use crate::time::{Instant, S};
use crate::world::World;

/// Shortest time for which it stands still.
const SHORTEST: Duration = Duration::from_millis(100);

/// How often those who wait for the process look whether it stands still.
const LOOK_INTERVAL: u64 = S;

/// When the manager's process stands still.
pub(crate) struct Standstills {
    /// Apart, so that runs without them stay the same.
    random: Random,
    /// Since when, and until when.
    now: Option<(Instant, Instant)>,
}

impl Standstills {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            random: Random::new(settings.options.seed, Purpose::Standstills),
            now: None,
        }
    }

    /// The process died.
    pub(crate) fn end(&mut self) {
        self.now = None;
    }
}

impl World {
    pub(crate) fn plan_standstill(&mut self) {
        let Some((interval, _)) = self.settings.faults.standstill.filter(|_| !self.is_calm) else {
            return;
        };
        let after = self.standstills.random.span(SHORTEST, interval * 2);
        self.agenda.after(after, Event::StandStill);
    }

    /// The manager's process stands still from now on.
    pub(crate) fn stand_still(&mut self) {
        let Some((_, longest)) = self.settings.faults.standstill.filter(|_| !self.is_calm) else {
            return;
        };
        if self.manager.process.is_none() {
            return self.plan_standstill();
        }
        let now = self.agenda.now();
        let until = now.plus(self.standstills.random.span(SHORTEST, longest));
        self.note(
            "fault",
            format_args!("the manager stands still until {until}"),
        );
        self.standstills.now = Some((now, until));
        self.agenda.at(until, Event::GoesOn);
    }

    /// Has what is for the manager wait while it stands still.
    pub(crate) fn unless_it_waits(&mut self, event: Event) -> Option<Event> {
        let Some((_, until)) = self.standstills.now else {
            return Some(event);
        };
        match event {
            Event::Manager(..) | Event::ToManager { .. } | Event::ClosedAtManager(_) => {
                self.agenda.at(until, event);
                None
            }
            // What is not the process's own looks again: it may have died meanwhile, and then
            // nothing stands still any more.
            Event::UserActs | Event::ReaderActs | Event::Inspect => {
                let again = self.agenda.now().plus(LOOK_INTERVAL);
                self.agenda.at(again.min(until), event);
                None
            }
            Event::ManagerStart(_)
            | Event::Node(..)
            | Event::ToAgent { .. }
            | Event::Fault
            | Event::StandStill
            | Event::GoesOn
            | Event::Healed(_)
            | Event::DiskFreed
            | Event::CalmDown => Some(event),
        }
    }

    /// The manager's process goes on. Which of its threads is first is open.
    pub(crate) fn go_on(&mut self) {
        self.plan_standstill();
        let now = self.agenda.now();
        let Some((since, _)) = self.standstills.now.take_if(|(_, until)| *until == now) else {
            return;
        };
        let leads_first = self.standstills.random.happens(500);
        let io = &mut Io {
            agenda: &mut self.agenda,
            network: &mut self.network,
            trace: &mut self.trace,
        };
        self.manager.goes_on(io, since, leads_first);
    }
}
