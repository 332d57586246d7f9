//! How a node gets and renews its certificate.
//!
//! It asks, then asks what became of it until there is an answer, each time on a fresh connection,
//! and keeps only a certificate for the request that it sent last. A node that was removed from the
//! cluster joins again as a new one: somebody brings it a token.

use std::time::Duration;

use swarm_agent::{Epoch, Reply};
use swarm_api::v1;
use v1::issuance_status::State;

use super::{Dice, Node};
use crate::event::{Caller, Event, NodeEvent, Payload, Request};
use crate::identity::{Ask, Certificate};
use crate::invariants::Violation;
use crate::manager::Io;
use crate::trace::Weight;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// A request that has no answer after so many attempts is given up for another: a call that was
/// late may have put an older one in its place.
const ATTEMPTS_MAX: u64 = 5;
/// gRPC's codes for "not found", "permission denied", and for a handshake that fails because the
/// root changed after the node was removed.
const GONE: [i32; 3] = [5, 7, 16];

impl Node {
    /// Asks for a certificate, or goes on with the request that is under way.
    pub(crate) fn ask(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>) {
        let caller = Caller {
            node: self.ix,
            life: self.life,
            epoch: Epoch::default(),
        };
        let conn = io.network.open(caller, self.identity.certificate.clone());
        let ask = match self.identity.ask.take() {
            Some(ask) if ask.attempts < ATTEMPTS_MAX => Ask {
                conn,
                attempts: ask.attempts + 1,
                ..ask
            },
            Some(_) | None => {
                self.identity.requests += 1;
                let csr = format!("SIM CSR {} {}", self.ix, self.identity.requests);
                let csr = csr.into();
                Ask {
                    csr,
                    attempts: 0,
                    conn,
                    node: None,
                }
            }
        };
        let request = match &ask.node {
            Some(node) => Request::CertificateStatus { node: node.clone() },
            None => Request::Issue {
                csr: ask.csr.clone(),
            },
        };
        self.identity.ask = Some(ask);
        io.network.send_request(io.agenda, conn, request);
        let after = dice.draws.span(PATIENCE / 2, PATIENCE);
        let again = Event::Node(self.ix, self.life, NodeEvent::Ask);
        io.agenda.after(after, again);
    }

    /// Nothing came back in time.
    pub(crate) fn asks_again(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>) {
        if let Some(ask) = &self.identity.ask {
            io.network.close(io.agenda, ask.conn);
            self.ask(io, dice);
        }
    }

    /// The node renews, or remembers to when it does so already.
    pub(crate) fn renew(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>) {
        if self.identity.ask.is_some() {
            self.identity.is_wanted = true;
        } else if self.identity.certificate.is_some() {
            self.ask(io, dice);
        }
    }

    pub(crate) fn plan_renewal(&self, io: &mut Io<'_>, dice: &mut Dice<'_>) {
        if let Some(mean) = dice.faults.renewal.filter(|_| !dice.is_calm) {
            let after = dice.draws.span(Duration::from_millis(500), mean * 2);
            let renew = Event::Node(self.ix, self.life, NodeEvent::Renew);
            io.agenda.after(after, renew);
        }
    }

    /// Takes what is about the certificate; hands back what is for the agent as well.
    pub(super) fn hears_of_itself(
        &mut self,
        io: &mut Io<'_>,
        dice: &mut Dice<'_>,
        payload: Payload,
    ) -> Result<Option<Payload>, Violation> {
        match payload {
            Payload::Taken(taken) => {
                match taken {
                    Ok(node) => self.taken(io, node),
                    Err((code, text)) => self.refused(io, dice, code, &text),
                }
                Ok(None)
            }
            Payload::Certificate(answer) => {
                match answer {
                    Ok(answer) => self.answered(io, dice, *answer)?,
                    Err((code, text)) => self.refused(io, dice, code, &text),
                }
                Ok(None)
            }
            Payload::Session(message) => {
                let node = message.node.as_ref();
                let certificate = node.and_then(|node| node.certificate.as_ref());
                let state = certificate
                    .and_then(|it| it.status.as_ref())
                    .map(|it| it.state);
                if state == Some(State::Rotate as i32) {
                    self.renew(io, dice);
                }
                Ok(Some(Payload::Session(message)))
            }
            Payload::Reply(reply) if reply.says_removed(&self.id) => {
                self.leaves(io, dice, reply_name(&reply));
                Ok(Some(Payload::Reply(reply)))
            }
            Payload::Reply(Reply::SessionEnded(error)) if GONE[1..].contains(&error.code) => {
                self.refused(io, dice, error.code, &error.message);
                Ok(None)
            }
            payload @ (Payload::Reply(_)
            | Payload::Assignments(_)
            | Payload::Subscription(_)
            | Payload::Published { .. }) => Ok(Some(payload)),
        }
    }

    fn taken(&mut self, io: &mut Io<'_>, node: String) {
        if let Some(ask) = &mut self.identity.ask {
            ask.node = Some(node.clone());
            let request = Request::CertificateStatus { node };
            io.network.send_request(io.agenda, ask.conn, request);
        }
    }

    fn answered(
        &mut self,
        io: &mut Io<'_>,
        dice: &mut Dice<'_>,
        answer: v1::NodeCertificateStatusResponse,
    ) -> Result<(), Violation> {
        let Some(ask) = &self.identity.ask else {
            return Ok(());
        };
        let stored = answer.certificate.unwrap_or_default();
        let state = answer.status.unwrap_or_default().state;
        let is_issued = state == State::Issued as i32 || state == State::Rotate as i32;
        let certificate = Certificate::read(&stored.certificate).filter(|_| is_issued);
        let Some(certificate) = certificate.filter(|_| stored.csr == ask.csr) else {
            return Ok(());
        };
        io.network.close(io.agenda, ask.conn);
        self.identity.ask = None;
        self.identity.issued += 1;
        self.id = certificate.node.clone();
        io.trace.add(
            io.agenda.now(),
            Weight::Major,
            self.ix,
            format_args!("is {} by root {}", self.id, certificate.root.0),
        );
        self.identity.certificate = Some(certificate);
        self.plan_renewal(io, dice);
        if std::mem::take(&mut self.identity.is_wanted) {
            self.renew(io, dice);
        }
        if self.agent.is_none() {
            return self.start_agent(io, dice);
        }
        Ok(())
    }

    /// A node that does not exist any more begins anew; any other trouble passes.
    fn refused(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>, code: i32, text: &str) {
        if !GONE.contains(&code) {
            return;
        }
        if self.identity.certificate.is_none() {
            // The next attempt is a new request.
            if let Some(ask) = &mut self.identity.ask {
                ask.node = None;
            }
            return;
        }
        io.trace.add(
            io.agenda.now(),
            Weight::Major,
            self.ix,
            format_args!("was removed ({text}) and joins again"),
        );
        self.identity.certificate = None;
        self.identity.ask = None;
        self.die(io, dice, false);
        let after = dice.draws.span(Duration::from_millis(100), PATIENCE);
        let start = Event::Node(self.ix, self.life, NodeEvent::Start);
        io.agenda.after(after, start);
    }
}

/// What a call was, for the trace.
fn reply_name(reply: &Reply) -> &'static str {
    match reply {
        Reply::Heartbeat(_) => "heartbeat",
        Reply::StatusesTaken(..) => "report",
        Reply::SessionEnded(_) => "session",
        Reply::AssignmentsEnded(_) => "assignments",
        Reply::SubscriptionsEnded(_) => "subscriptions",
    }
}
