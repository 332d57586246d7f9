//! One term of leadership: the leader machine with its feed and its streams.

use std::collections::{BTreeMap, VecDeque};

use swarm_agent::{Reply, RpcError};
use swarm_api::v1;
use swarm_ca::requests::{CertificateAnswer, certificate_status};
use swarm_dispatcher::{
    Body, Code, Config, DispatchError, Dispatcher, Message, SessionExtras, SessionOpen, StreamId,
};
use swarm_leader::{Leader, Origin};
use swarm_store::{Filter, Received, Subscription, View};
use swarm_types::{NodeId, TaskState, TaskStatus, Timestamp, Version, convert};

use super::heartbeats::Heartbeats;
use super::lines::Lines;
use super::replica::Replica;
use super::{Io, StreamEvent};
use crate::event::{ConnId, Event, Life, ManagerEvent, Payload, Request, StreamKind};
use crate::identity::{Certificate, RootIx};
use crate::random::Random;
use crate::settings::Settings;
use crate::time::MS;
use v1::update_task_status_request::TaskStatusUpdate;

/// Older views that loops may be shown.
const VIEWS_KEPT: usize = 8;

/// Everything that belongs to one term.
pub(crate) struct Term {
    pub(crate) leader: Leader,
    pub(crate) lines: Lines,
    pub(super) heartbeats: Heartbeats,
    /// Whether nodes report more than there is to say.
    pub(super) is_flooded: bool,
    feed: Subscription,
    fed: Version,
    streams: BTreeMap<StreamId, (ConnId, StreamKind, NodeId)>,
    views: VecDeque<View>,
    names: Vec<&'static str>,
}

impl Term {
    pub(super) fn begin(
        now: Timestamp,
        replica: &Replica,
        settings: &Settings,
        node: &NodeId,
        draws: &mut Random,
    ) -> Self {
        let (view, feed) = replica
            .store
            .view_and_watch_bounded(Filter::All, settings.feed_max);
        let peer = v1::Peer {
            node_id: node.to_string(),
            addr: "manager".to_owned(),
        };
        let extras = SessionExtras {
            managers: vec![v1::WeightedPeer {
                peer: Some(peer),
                weight: 10,
            }],
            ..SessionExtras::default()
        };
        let config = Config {
            leader: Some(node.clone()),
        };
        let mut dispatcher = Dispatcher::new(now, &view, config, extras);
        dispatcher.handle_serving(now, &mut || draws.next());
        let ca = swarm_ca::server::Server::new(now, &view, Some(node.clone()));
        let leader = Leader::new(&view, dispatcher, ca);
        let names = leader.status().iter().map(|status| status.name).collect();
        Self {
            leader,
            lines: Lines::default(),
            heartbeats: Heartbeats::begin(now, &view),
            is_flooded: false,
            feed,
            fed: view.version(),
            streams: BTreeMap::new(),
            views: VecDeque::new(),
            names,
        }
    }

    /// The version up to which the loops have seen every commit.
    pub(crate) fn fed_version(&self) -> Version {
        self.fed
    }

    pub(crate) fn name_of(&self, origin: Origin) -> &'static str {
        match origin {
            Origin::Loop(place) => self.names.get(place).copied().unwrap_or("loop"),
            Origin::Dispatcher => "dispatcher",
            Origin::Ca => "ca",
        }
    }

    /// Hands all waiting commits to the loops.
    pub(super) fn read_feed(&mut self, now: Timestamp, replica: &Replica, settings: &Settings) {
        while let Some(received) = self.feed.try_next() {
            match received {
                Received::Event(event) => {
                    let view = replica.store.view();
                    self.fed = event.version();
                    self.heartbeats.note_period(&view);
                    self.leader.handle_commit(now, event.commit(), &view);
                }
                Received::Lagged { .. } | Received::Closed => {
                    self.resubscribe(now, replica, settings);
                }
            }
        }
    }

    pub(super) fn resubscribe(&mut self, now: Timestamp, replica: &Replica, settings: &Settings) {
        let (view, feed) = replica
            .store
            .view_and_watch_bounded(Filter::All, settings.feed_max);
        self.feed = feed;
        self.fed = view.version();
        self.heartbeats.note_period(&view);
        self.leader.handle_lag(now, &view);
    }

    /// Lets everything happen whose time has come.
    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        self.leader.handle_timeout(now);
        if self.leader.dispatcher().poll_standstill().is_some() {
            self.heartbeats.note_standstill(now);
        }
        // What people would be told.
        drop(self.leader.take_notices());
    }

    /// A view of before, if one is kept.
    pub(super) fn older_view(&self, newest: &View) -> View {
        self.views.front().unwrap_or(newest).clone()
    }

    pub(super) fn keep_view(&mut self, newest: &View) {
        if self
            .views
            .back()
            .is_none_or(|last| last.version() < newest.version())
        {
            self.views.push_back(newest.clone());
            if self.views.len() > VIEWS_KEPT {
                self.views.pop_front();
            }
        }
    }

    pub(super) fn take_stream_event(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::LogSent(listener) => self.lines.sent(listener),
            StreamEvent::Sent(stream) => self.leader.dispatcher().handle_sent(stream),
            StreamEvent::Closed(conn) => {
                self.lines.closed(conn);
                let of_conn = self.streams.iter().filter(|(_, (own, _, _))| *own == conn);
                let closed: Vec<_> = of_conn.map(|(stream, _)| *stream).collect();
                for stream in closed {
                    self.streams.remove(&stream);
                    self.leader.dispatcher().handle_disconnect(stream);
                }
            }
        }
    }

    /// Answers a request of a node.
    pub(super) fn call(
        &mut self,
        io: &mut Io<'_>,
        (conn, is_copy): (ConnId, bool),
        request: Request,
        now: Timestamp,
        view: &View,
        (ids, draws): (&mut Random, &mut Random),
    ) {
        if let Request::CertificateStatus { node } = request {
            return answer_status(io, conn, node, view);
        }
        let node = match admitted(io.network.certificate(conn), view) {
            Ok(node) => node,
            Err(error) => return refuse(io, conn, error),
        };
        let draw = &mut || draws.next();
        let dispatcher = self.leader.dispatcher();
        let reply = match request {
            Request::Session {
                description,
                previous,
            } => {
                let open = session_open(&node, *description, &previous);
                match dispatcher.handle_session(now, open, view, ids, draw) {
                    Ok(start) => {
                        self.heartbeats.registered(now, &node);
                        let stream = (conn, StreamKind::Session, node);
                        self.streams.insert(start.stream, stream);
                        return;
                    }
                    Err(error) => Reply::SessionEnded(rpc_error(&error)),
                }
            }
            Request::Assignments { session } => {
                match dispatcher.handle_assignments_open(&node, &session) {
                    Ok(stream) => {
                        let entry = (conn, StreamKind::Assignments, node);
                        self.streams.insert(stream, entry);
                        return;
                    }
                    Err(error) => Reply::AssignmentsEnded(rpc_error(&error)),
                }
            }
            Request::Statuses {
                session,
                report,
                updates,
            } => {
                let taken = dispatcher.handle_task_statuses(now, &node, &session, updates, view);
                if self.is_flooded {
                    let noise = noise(now, &node, view);
                    // Refused with the session if at all, as the report itself.
                    drop(dispatcher.handle_task_statuses(now, &node, &session, noise, view));
                }
                Reply::StatusesTaken(report, taken.map_err(|error| rpc_error(&error)))
            }
            Request::Listen => return self.lines.listen(now, conn, node),
            Request::Publish { stream, message } => {
                return self.lines.publish(io, now, (conn, stream), node, &message);
            }
            Request::Issue { .. }
            | Request::CertificateStatus { .. }
            | Request::Heartbeat { .. } => return,
        };
        if !is_copy {
            io.network
                .send_message(io.agenda, conn, None, Payload::Reply(reply));
        }
    }

    /// Puts a message on its stream.
    pub(super) fn deliver(
        &mut self,
        io: &mut Io<'_>,
        life: Life,
        message: Message,
        back_pressure: bool,
        draws: &mut Random,
    ) {
        let Some((conn, kind, _)) = self.streams.get(&message.stream) else {
            return;
        };
        let (conn, kind) = (*conn, *kind);
        let payload = match message.body {
            Body::Session(message) => Payload::Session(message),
            Body::Assignments(bytes) => Payload::Assignments(bytes.message()),
            Body::End(error) => {
                self.streams.remove(&message.stream);
                let error = rpc_error(&error);
                let reply = match kind {
                    StreamKind::Session => Reply::SessionEnded(error),
                    StreamKind::Assignments => Reply::AssignmentsEnded(error),
                    StreamKind::Subscriptions => Reply::SubscriptionsEnded(error),
                };
                let payload = Payload::Reply(reply);
                io.network
                    .send_message(io.agenda, conn, Some(kind), payload);
                return;
            }
        };
        let arrives = io
            .network
            .send_message(io.agenda, conn, Some(kind), payload);
        // A broken connection takes nothing; the dispatcher hears that it is closed.
        if let Some(at) = arrives {
            let sent = Event::Manager(life, ManagerEvent::Sent(message.stream));
            if back_pressure {
                io.agenda.at(at, sent);
            } else {
                io.agenda.after(draws.below(2 * MS), sent);
            }
        }
    }

    /// Tells every node to look for the next leader.
    pub(super) fn end(&mut self, io: &mut Io<'_>, view: &View) {
        self.lines.end(io);
        self.leader.dispatcher().handle_stop(view);
        while let Some(message) = self.leader.dispatcher().poll_message(view) {
            let mut none = Random::new(0, crate::random::Purpose::Draws);
            self.deliver(io, Life::default(), message, false, &mut none);
        }
    }
}

pub(super) fn refuse(io: &mut Io<'_>, conn: ConnId, error: RpcError) {
    let payload = Payload::Reply(Reply::SessionEnded(error));
    io.network.send_message(io.agenda, conn, None, payload);
}

/// What the handshake and the guard in front of the dispatcher say to a caller.
pub(super) fn admitted(certificate: Option<Certificate>, view: &View) -> Result<NodeId, RpcError> {
    let cluster = view
        .cluster()
        .ok_or_else(|| RpcError::new(14, "starting"))?;
    let root_ca = cluster.root_ca.clone().unwrap_or_default();
    let root = RootIx::of(&root_ca.ca_cert);
    let certificate = certificate.filter(|own| root.is_some_and(|root| own.is_covered_by(root)));
    let Some(certificate) = certificate else {
        let text = "certificate signed by unknown authority";
        return Err(RpcError::new(16, text));
    };
    if swarm_ca::requests::is_removed(cluster, &certificate.node) {
        let text = format!("node {} was removed from swarm", certificate.node);
        return Err(RpcError::new(7, text));
    }
    Ok(certificate.node)
}

fn answer_status(io: &mut Io<'_>, conn: ConnId, node_id: String, view: &View) {
    let request = v1::NodeCertificateStatusRequest { node_id };
    let answer = match certificate_status(view, &request) {
        Ok(CertificateAnswer::Final(answer) | CertificateAnswer::Pending(answer)) => {
            Ok(Box::new(answer))
        }
        Err(refusal) => Err((refusal.code.number(), refusal.message)),
    };
    let answer = Payload::Certificate(answer);
    io.network.send_message(io.agenda, conn, None, answer);
}

pub(super) fn rpc_error(error: &DispatchError) -> RpcError {
    let code = match error.code {
        Code::NotFound => RpcError::NOT_FOUND,
        Code::InvalidArgument => 3,
        Code::Unavailable => 14,
        Code::PermissionDenied => 7,
        Code::Aborted => 10,
        Code::ResourceExhausted => 8,
        Code::Unknown => 2,
    };
    RpcError::new(code, error.message.clone())
}

/// Reports that say of running tasks what is known, in other words.
fn noise(now: Timestamp, node: &NodeId, view: &View) -> Vec<TaskStatusUpdate> {
    let running = view
        .tasks_on_node(node)
        .filter(|task| task.state() == TaskState::Running);
    let other_words = running.map(|task| {
        let status = TaskStatus {
            message: format!("noise at {} {}", now.as_nanos(), "x".repeat(10_000)).into(),
            ..task.status().clone()
        };
        TaskStatusUpdate {
            task_id: task.id.to_string(),
            status: Some(convert::task_status_to_wire(&status)),
        }
    });
    other_words.collect()
}

fn session_open<'a>(
    node: &'a NodeId,
    description: v1::NodeDescription,
    previous_session: &'a str,
) -> SessionOpen<'a> {
    SessionOpen {
        node,
        description: Some(description),
        addr: "10.0.0.1",
        arrived: "",
        previous_session,
    }
}
