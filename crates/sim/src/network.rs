//! What lies between agents and the manager: connections with the semantics of gRPC.
//!
//! Requests of one connection may overtake each other; messages of one stream keep their order. A
//! lost message of a stream takes its connection along, because a transport repeats or breaks. A
//! connection that broke in silence is noticed by keep-alive only.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_agent::{Reply, RpcError};

use crate::agenda::Agenda;
use crate::event::{Caller, ConnId, Event, KEEP_ALIVE, Life, NodeIx, Payload, Request, StreamKind};
use crate::identity::Certificate;
use crate::random::{Purpose, Random};
use crate::settings::{Faults, Settings};
use crate::time::{Instant, MS};

/// gRPC's code for "cannot be reached".
const UNAVAILABLE: i32 = 14;
/// How much longer a slow message takes.
const SLOW_FACTOR: u64 = 100;

#[derive(Debug)]
struct Conn {
    caller: Caller,
    /// What the agent showed when it opened the connection.
    certificate: Option<Certificate>,
    /// The manager's process that answered first.
    manager: Option<Life>,
    /// Nothing passes any more.
    is_dead: bool,
    /// When the last message of each stream arrives.
    last: BTreeMap<StreamKind, Instant>,
    /// When the last published line arrives.
    last_line: Instant,
}

/// Until when nothing passes between a node and the manager.
#[derive(Clone, Copy, Debug, Default)]
struct Cut {
    to_manager: Instant,
    to_agent: Instant,
}

/// The network.
#[derive(Debug)]
pub(crate) struct Network {
    random: Random,
    faults: Faults,
    is_calm: bool,
    conns: BTreeMap<ConnId, Conn>,
    last_conn: u64,
    cuts: Vec<Cut>,
}

impl Network {
    pub(crate) fn new(settings: &Settings) -> Self {
        let nodes = usize::try_from(settings.nodes).unwrap_or(0);
        Self {
            random: Random::new(settings.options.seed, Purpose::Network),
            faults: settings.faults.clone(),
            is_calm: false,
            conns: BTreeMap::new(),
            last_conn: 0,
            cuts: vec![Cut::default(); nodes],
        }
    }

    /// Nothing is lost, copied or slow from now on.
    pub(crate) fn calm_down(&mut self) {
        self.is_calm = true;
        self.cuts.fill(Cut::default());
    }

    pub(crate) fn open(&mut self, caller: Caller, certificate: Option<Certificate>) -> ConnId {
        self.last_conn += 1;
        let id = ConnId(self.last_conn);
        let conn = Conn {
            caller,
            certificate,
            manager: None,
            is_dead: false,
            last: BTreeMap::new(),
            last_line: Instant::default(),
        };
        self.conns.insert(id, conn);
        id
    }

    /// The certificate that was shown on a connection.
    pub(crate) fn certificate(&self, id: ConnId) -> Option<Certificate> {
        self.conns.get(&id)?.certificate.clone()
    }

    pub(crate) fn caller(&self, id: ConnId) -> Option<Caller> {
        self.conns.get(&id).map(|conn| conn.caller)
    }

    /// An agent sends a request.
    pub(crate) fn send_request(&mut self, agenda: &mut Agenda, id: ConnId, request: Request) {
        let Some(conn) = self.conns.get(&id).filter(|conn| !conn.is_dead) else {
            return;
        };
        let cut = self.cuts[conn.caller.node.0].to_manager;
        let is_line = matches!(request, Request::Publish { .. });
        if self.chance(self.faults.loss_per_mille) {
            if is_line {
                self.break_silently(agenda, id);
            }
            return;
        }
        let may_repeat = match request {
            Request::Heartbeat { .. }
            | Request::Statuses { .. }
            | Request::CertificateStatus { .. } => true,
            Request::Session { .. }
            | Request::Assignments { .. }
            | Request::Listen
            | Request::Publish { .. }
            | Request::Issue { .. } => false,
        };
        if may_repeat && self.chance(self.faults.copy_per_mille) {
            let at = agenda.now().max(cut).plus(self.latency());
            let request = request.clone();
            agenda.at(
                at,
                Event::ToManager {
                    conn: id,
                    request,
                    is_copy: true,
                },
            );
        }
        let mut at = agenda.now().max(cut).plus(self.latency());
        if let Some(conn) = self.conns.get_mut(&id).filter(|_| is_line) {
            at = at.max(conn.last_line.plus(1));
            conn.last_line = at;
        }
        agenda.at(
            at,
            Event::ToManager {
                conn: id,
                request,
                is_copy: false,
            },
        );
    }

    /// A request reached the manager's machine; `false` when the connection does not exist there.
    pub(crate) fn is_accepted(
        &mut self,
        agenda: &mut Agenda,
        id: ConnId,
        manager: Option<Life>,
    ) -> bool {
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| !conn.is_dead) else {
            return false;
        };
        let is_known = manager.is_some() && conn.manager.is_none_or(|own| Some(own) == manager);
        if is_known {
            conn.manager = manager;
        } else {
            self.break_off(agenda, id);
        }
        is_known
    }

    /// The manager sends a message of a stream or the answer to a request. Returns when it arrives
    /// if it does.
    pub(crate) fn send_message(
        &mut self,
        agenda: &mut Agenda,
        id: ConnId,
        stream: Option<StreamKind>,
        payload: Payload,
    ) -> Option<Instant> {
        let conn = self.conns.get(&id).filter(|conn| !conn.is_dead)?;
        let cut = self.cuts[conn.caller.node.0].to_agent;
        if self.chance(self.faults.loss_per_mille) {
            if stream.is_some() {
                self.break_silently(agenda, id);
            }
            return None;
        }
        let mut at = agenda.now().max(cut).plus(self.latency());
        if let (Some(kind), Some(conn)) = (stream, self.conns.get_mut(&id)) {
            let last = conn.last.entry(kind).or_default();
            at = at.max(last.plus(1));
            *last = at;
        }
        agenda.at(at, Event::ToAgent { conn: id, payload });
        Some(at)
    }

    /// The agent closes a connection.
    pub(crate) fn close(&mut self, agenda: &mut Agenda, id: ConnId) {
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        if !std::mem::replace(&mut conn.is_dead, true) {
            let cut = self.cuts[conn.caller.node.0].to_manager;
            let at = agenda.now().max(cut).plus(self.latency());
            agenda.at(at, Event::ClosedAtManager(id));
        }
    }

    /// The connections of a node break; both sides hear of it soon.
    pub(crate) fn reset_node(&mut self, agenda: &mut Agenda, node: NodeIx) {
        for id in self.open_conns(|conn| conn.caller.node == node) {
            self.break_off(agenda, id);
        }
    }

    /// The manager's process is gone: every connection to it breaks, or falls silent when the
    /// machine is gone as well.
    pub(crate) fn reset_manager(&mut self, agenda: &mut Agenda, is_silent: bool) {
        for id in self.open_conns(|conn| conn.manager.is_some()) {
            if is_silent {
                self.break_silently(agenda, id);
            } else {
                self.break_off(agenda, id);
            }
        }
    }

    /// The process of a node is gone.
    pub(crate) fn node_died(&mut self, agenda: &mut Agenda, node: NodeIx, is_silent: bool) {
        for id in self.open_conns(|conn| conn.caller.node == node) {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.is_dead = true;
            }
            let after = if is_silent {
                keep_alive()
            } else {
                self.latency()
            };
            agenda.after(after, Event::ClosedAtManager(id));
        }
    }

    /// Nothing passes until then. Connections that were open may survive, as TCP's do.
    pub(crate) fn cut(
        &mut self,
        agenda: &mut Agenda,
        node: NodeIx,
        until: Instant,
        (to_manager, to_agent): (bool, bool),
    ) {
        let cut = &mut self.cuts[node.0];
        if to_manager {
            cut.to_manager = cut.to_manager.max(until);
        }
        if to_agent {
            cut.to_agent = cut.to_agent.max(until);
        }
        if self.random.happens(500) {
            for id in self.open_conns(|conn| conn.caller.node == node) {
                self.break_silently(agenda, id);
            }
        }
    }

    /// The manager's side let go of a connection.
    pub(crate) fn forget(&mut self, id: ConnId) {
        self.conns.remove(&id);
    }

    fn open_conns(&self, of: impl Fn(&Conn) -> bool) -> Vec<ConnId> {
        let open = self
            .conns
            .iter()
            .filter(|(_, conn)| !conn.is_dead && of(conn));
        open.map(|(id, _)| *id).collect()
    }

    fn break_off(&mut self, agenda: &mut Agenda, id: ConnId) {
        let (to_agent, to_manager) = (self.latency(), self.latency());
        self.end(agenda, id, to_agent, to_manager);
    }

    fn break_silently(&mut self, agenda: &mut Agenda, id: ConnId) {
        let (to_agent, to_manager) = (keep_alive(), keep_alive() + self.latency());
        self.end(agenda, id, to_agent, to_manager);
    }

    fn end(&mut self, agenda: &mut Agenda, id: ConnId, to_agent: u64, to_manager: u64) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.is_dead = true;
        }
        let error = RpcError::new(UNAVAILABLE, "the connection broke");
        let payload = Payload::Reply(Reply::SessionEnded(error));
        agenda.after(to_agent, Event::ToAgent { conn: id, payload });
        agenda.after(to_manager.max(to_agent + 1), Event::ClosedAtManager(id));
    }

    fn chance(&mut self, per_mille: u32) -> bool {
        !self.is_calm && self.random.happens(per_mille)
    }

    fn latency(&mut self) -> u64 {
        let max = self.faults.latency_max.max(Duration::from_micros(200));
        let latency = self.random.span(Duration::from_micros(100), max);
        if self.chance(self.faults.slow_per_mille) {
            return latency.saturating_mul(self.random.between(2, SLOW_FACTOR));
        }
        latency.min(if self.is_calm { 50 * MS } else { u64::MAX })
    }
}

fn keep_alive() -> u64 {
    u64::try_from(KEEP_ALIVE.as_nanos()).unwrap_or(u64::MAX)
}
