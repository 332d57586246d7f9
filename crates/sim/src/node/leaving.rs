//! A node that was removed and is told so: it ends its tasks, and joins again as another one.
//!
//! Whoever cares for the machine waits until the node has left, or loses patience and wipes the
//! directory while tasks still run; then the next agent finds them.

use std::time::Duration;

use swarm_agent::{Epoch, Reply};

use super::{Dice, Node};
use crate::event::{Event, NodeEvent, Payload};
use crate::invariants::{Checked, LEAVES_NOTHING, TAKEN_BACK, ensure};
use crate::manager::Io;
use crate::trace::Weight;

/// The longest patience with a node that leaves: longer than most grace periods.
const PATIENCE: Duration = Duration::from_secs(60);

impl Node {
    /// A manager says that the node was removed.
    pub(super) fn leaves(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>, text: &str) {
        let Some(agent) = &mut self.agent else {
            return;
        };
        if std::mem::replace(&mut self.is_leaving, true) {
            return;
        }
        io.trace.add(
            io.agenda.now(),
            Weight::Major,
            self.ix,
            format_args!("is told that it was removed ({text}) and leaves"),
        );
        agent.handle_leave(self.clock.read(io.agenda.now()));
        let after = dice.draws.span(Duration::from_millis(100), PATIENCE);
        let wiped = Event::Node(self.ix, self.life, NodeEvent::Wiped);
        io.agenda.after(after, wiped);
    }

    /// The dispatcher ends a stream of assignments because the node was removed: by then the agent
    /// has heard that it has no task.
    pub(super) fn check_farewell(&self, epoch: Epoch, payload: &Payload) -> Checked {
        let Payload::Reply(reply @ Reply::AssignmentsEnded(_)) = payload else {
            return Ok(());
        };
        let Some(agent) = self.agent.as_ref().filter(|agent| agent.is_connected()) else {
            return Ok(());
        };
        if epoch != self.epoch || !reply.says_removed(&self.id) {
            return Ok(());
        }
        let left = agent.assigned_tasks().next();
        ensure(left.is_none(), TAKEN_BACK, || {
            let task = left.map(|task| &task.id);
            format!("{} was removed and still has {task:?}", self.ix)
        })
    }

    /// Whether the agent has ended everything, and its process ends.
    pub(super) fn try_leave(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>) -> Checked {
        let is_done = self.writing.is_none() && self.running.is_empty();
        let is_empty = self
            .agent
            .as_ref()
            .is_some_and(swarm_agent::Agent::is_empty);
        if !self.is_leaving || !is_done || !is_empty {
            return Ok(());
        }
        let left = self.machine.running(io.agenda.now().as_timestamp());
        ensure(left.is_empty(), LEAVES_NOTHING, || {
            format!("{} has left, and {left:?} still run there", self.ix)
        })?;
        self.wiped(io, dice);
        Ok(())
    }

    /// The state directory is wiped, and the daemon started anew with a token.
    pub(crate) fn wiped(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>) {
        io.trace.add(
            io.agenda.now(),
            Weight::Major,
            self.ix,
            format_args!("is wiped and joins again"),
        );
        self.identity.certificate = None;
        self.identity.ask = None;
        self.die(io, dice, false);
        self.disk.clear();
        let after = dice
            .draws
            .span(Duration::from_millis(100), Duration::from_secs(5));
        let start = Event::Node(self.ix, self.life, NodeEvent::Start);
        io.agenda.after(after, start);
    }
}
