//! How a node gets a session: the checks, the write that makes it READY, and the time in which that
//! must happen.

use std::sync::Arc;

use swarm_store::Root;
use swarm_types::{IdSource, NodeId, SessionId, Timestamp};

use super::{Dispatcher, SessionOpen, SessionStart, Timer};
use crate::bounds;
use crate::clones::{Place, Places};
use crate::config::draw_period;
use crate::error::DispatchError;
use crate::hostname;
use crate::nodes::NodeIntent;
use crate::pulse::deadline;
use crate::sessions::{Control, REGISTRATION_TIMEOUT, REGISTRATIONS_WAITING_MAX, Session};

impl Dispatcher {
    /// A node asks for a session.
    ///
    /// # Errors
    /// The node is unknown, or registers too often, or too many register at once, or the dispatcher
    /// is stopped.
    pub fn handle_session(
        &mut self,
        now: Timestamp,
        open: SessionOpen<'_>,
        view: &Root,
        ids: &mut dyn IdSource,
        draw: &mut dyn FnMut() -> u64,
    ) -> Result<SessionStart, DispatchError> {
        self.check_running()?;
        let node = open.node;
        if view.node(node).is_none() {
            return Err(DispatchError::node_not_found());
        }
        if let Some(description) = &open.description {
            bounds::check_description(node, description)?;
            hostname::check(node, description)?;
        }
        self.check_room(node)?;
        self.end_farewell(node);
        let places = self.places(&open);
        let wanted = NodeIntent::Ready {
            description: open.description.map(|it| Arc::new(self.lean.keep(it))),
            addr: open.addr.to_owned(),
            warning: places.warning().map(str::to_owned),
        };
        let until = deadline(now, draw_period(self.pulses.period(), draw));
        match self.sessions.get_mut(node) {
            Some(session) if session.is_named(open.previous_session) => {
                session.count_refresh(now, node, &wanted)?;
                session.refresh(wanted.clone());
                session.pulse.renew(until);
            }
            before => {
                let attempts = match before {
                    Some(before) => before.count_attempt(now, node)?,
                    None => 0,
                };
                let id = SessionId::new(ids.next_id());
                let slot = self.wheel.watch(node, until, self.deadline_min(now));
                let pulse = (self.pulses.begin(node, id, until), slot);
                let mut session = Session::register(now, pulse, attempts, places, wanted.clone());
                self.end_streams(node, &DispatchError::session_invalid());
                if let Some(before) = self.sessions.remove(node) {
                    session.succeed(before);
                }
                self.sessions.insert(node.clone(), session);
            }
        }
        self.intake.put_node(now, node.clone(), wanted);
        self.intake.orphans.forget(node);
        self.awaited.remove(node);
        self.timers.clear(&Timer::Grace(node.clone()));
        self.timers.clear(&Timer::Orphan(node.clone()));
        let deadline = now.saturating_add(REGISTRATION_TIMEOUT);
        self.registrations.set(node.clone(), deadline);
        self.open_control(node, open.arrived, view)
    }

    /// A node that is refused here comes back after its own pause, which is a random one.
    fn check_room(&self, node: &NodeId) -> Result<(), DispatchError> {
        let waiting = self.registrations.len();
        if waiting >= REGISTRATIONS_WAITING_MAX && self.registrations.get(node).is_none() {
            return Err(DispatchError::registrations_full(node, waiting));
        }
        Ok(())
    }

    fn open_control(
        &mut self,
        node: &NodeId,
        arrived: &str,
        view: &Root,
    ) -> Result<SessionStart, DispatchError> {
        let stream = self.new_stream(node);
        let session = self.sessions.get_mut(node);
        let session = session.ok_or_else(DispatchError::node_not_registered)?;
        session.confirm(view.node(node));
        let before = session.control.replace(Control::new(stream, arrived));
        let warning = session.places.warning().map(str::to_owned);
        let session = session.pulse.session().clone();
        if let Some(before) = before {
            self.end_stream(node, before.stream, DispatchError::session_invalid());
        }
        self.ready.insert(node.clone());
        Ok(SessionStart {
            session,
            stream,
            warning,
        })
    }

    /// Where a node registers from, beside where its session is.
    fn places(&self, open: &SessionOpen<'_>) -> Places {
        let description = open.description.as_ref();
        let hostname = description.map_or("", |description| &*description.hostname);
        let here = Place::new(hostname, open.addr);
        match self.sessions.get(open.node) {
            Some(session) if session.is_named(open.previous_session) => session.places.clone(),
            Some(session) => session.places.next(here, session.control.is_some()),
            None => Places::first(here),
        }
    }

    /// The registration itself stays, and with it the heartbeat timer: the node object may become
    /// READY later, and somebody has to notice that the node is gone by then.
    pub(super) fn refuse_registration(&mut self, node: &NodeId) {
        if !self.is_waiting(node) {
            return;
        }
        let seconds = REGISTRATION_TIMEOUT.as_secs();
        let error = DispatchError::registration_timeout(node, seconds);
        self.end_streams(node, &error);
    }
}
