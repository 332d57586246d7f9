//! How a node publishes the output of its tasks. Mirrors `swarm-agent-io`; a line says nothing but
//! that it is one.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_agent::{Agent, Epoch, LogAction, RpcError};
use swarm_api::v1;
use swarm_types::{TaskId, Timestamp};

use super::{Dice, Node};
use crate::event::{ConnId, Event, NodeEvent, Request};
use crate::manager::Io;

/// Lines of a task that is not followed, at most.
const LINES_MAX: u64 = 3;

/// One subscription under way.
#[derive(Debug)]
pub(crate) struct Publication {
    epoch: Epoch,
    /// The stream on which it is published; `None` while it is broken.
    stream: Option<(ConnId, u64)>,
    /// The tasks that are read, and how many lines are left of those that are not followed.
    reading: BTreeMap<TaskId, Option<u64>>,
    is_complete: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Publications {
    active: BTreeMap<String, Publication>,
    last: u64,
}

impl Publications {
    pub(crate) fn len(&self) -> usize {
        self.active.len()
    }
}

impl Node {
    /// Does what the agent asks for about log subscriptions.
    pub(super) fn publish(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>, agent: &mut Agent) {
        let now = self.clock.read(io.agenda.now());
        while let Some(action) = agent.poll_log_action() {
            match action {
                // The managers give it up and say so.
                LogAction::Begin { .. } if dice.happens(dice.faults.mute_per_mille) => {}
                LogAction::Begin { id, epoch } => {
                    let publication = Publication {
                        epoch,
                        stream: None,
                        reading: BTreeMap::new(),
                        is_complete: false,
                    };
                    self.publications.active.insert(id.clone(), publication);
                    self.connect(io, now, agent, (&id, epoch));
                }
                LogAction::Resume { id, epoch } => {
                    self.connect(io, now, agent, (&id, epoch));
                    self.finish(io, now, agent, &id);
                }
                LogAction::Read { id, task, options } => {
                    let Some(own) = self.publications.active.get_mut(&id) else {
                        continue;
                    };
                    let left = dice.draws.between(0, LINES_MAX);
                    let left = (!options.follow).then_some(left);
                    own.reading.insert(task.id.clone(), left);
                    self.plan_line(io, dice, id, task.id.clone());
                }
                LogAction::Complete { id } => {
                    if let Some(own) = self.publications.active.get_mut(&id) {
                        own.is_complete = true;
                    }
                    self.finish(io, now, agent, &id);
                }
                LogAction::Cancel { id } => {
                    if let Some(own) = self.publications.active.remove(&id) {
                        send(io, &own, &id, Vec::new(), true);
                    }
                }
            }
        }
    }

    /// Opens the stream of a publication, if its connection is the one that there is.
    fn connect(
        &mut self,
        io: &mut Io<'_>,
        now: Timestamp,
        agent: &mut Agent,
        (id, epoch): (&str, Epoch),
    ) {
        let Some(own) = self.publications.active.get_mut(id) else {
            return;
        };
        own.epoch = epoch;
        match self.conn.filter(|_| self.epoch == epoch) {
            Some(conn) => {
                self.publications.last += 1;
                own.stream = Some((conn, self.publications.last));
                send(io, own, id, Vec::new(), false);
            }
            None => {
                own.stream = None;
                agent.handle_published(now, id, epoch, Err(gone()));
            }
        }
    }

    /// The connection is closed: every stream on it breaks.
    pub(super) fn break_streams(&mut self, now: Timestamp, agent: &mut Agent, closed: ConnId) {
        for (id, own) in &mut self.publications.active {
            if own.stream.take_if(|(conn, _)| *conn == closed).is_some() {
                agent.handle_published(now, id, own.epoch, Err(gone()));
            }
        }
    }

    /// The manager answered a stream.
    pub(super) fn published(
        &mut self,
        now: Timestamp,
        agent: &mut Agent,
        (id, stream): (&str, u64),
        result: Result<(), RpcError>,
    ) {
        let Some(own) = self.publications.active.get_mut(id) else {
            return;
        };
        if own.stream.take_if(|(_, own)| *own == stream).is_some() {
            agent.handle_published(now, id, own.epoch, result);
        }
    }

    /// A task writes a line.
    pub(super) fn line(
        &mut self,
        io: &mut Io<'_>,
        dice: &mut Dice<'_>,
        agent: &mut Agent,
        (id, task): (String, TaskId),
    ) {
        let now = self.clock.read(io.agenda.now());
        let is_here = agent.task(&task).is_some();
        let Some(own) = self.publications.active.get_mut(&id) else {
            return;
        };
        let is_over = match own.reading.get_mut(&task) {
            None => return,
            Some(Some(0)) => true,
            Some(None) => !is_here,
            Some(Some(left)) => {
                *left -= 1;
                false
            }
        };
        if is_over {
            own.reading.remove(&task);
            return self.finish(io, now, agent, &id);
        }
        let context = v1::LogContext {
            node_id: self.id.to_string(),
            task_id: task.to_string(),
            ..Default::default()
        };
        let line = v1::LogMessage {
            context: Some(context),
            ..Default::default()
        };
        send(io, own, &id, vec![line], false);
        self.plan_line(io, dice, id, task);
    }

    fn plan_line(&self, io: &mut Io<'_>, dice: &mut Dice<'_>, id: String, task: TaskId) {
        let after = dice
            .draws
            .span(Duration::from_millis(1), Duration::from_secs(2));
        let line = Event::Node(self.ix, self.life, NodeEvent::Line { id, task });
        io.agenda.after(after, line);
    }

    /// Closes a publication that has said everything.
    fn finish(&mut self, io: &mut Io<'_>, now: Timestamp, agent: &mut Agent, id: &str) {
        let own = self.publications.active.get(id);
        let is_done =
            |own: &&Publication| own.is_complete && own.reading.is_empty() && own.stream.is_some();
        let Some(own) = own.filter(is_done) else {
            return;
        };
        send(io, own, id, Vec::new(), true);
        let epoch = own.epoch;
        self.publications.active.remove(id);
        agent.handle_published(now, id, epoch, Ok(()));
    }
}

fn send(io: &mut Io<'_>, own: &Publication, id: &str, messages: Vec<v1::LogMessage>, close: bool) {
    let Some((conn, stream)) = own.stream else {
        return;
    };
    let message = v1::PublishLogsMessage {
        subscription_id: id.to_owned(),
        messages,
        close,
    };
    let request = Request::Publish {
        stream,
        message: Box::new(message),
    };
    io.network.send_request(io.agenda, conn, request);
}

fn gone() -> RpcError {
    RpcError::new(14, "the connection is gone")
}
