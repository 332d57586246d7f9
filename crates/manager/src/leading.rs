//! The leader's task: feeds the leader machine with commits, calls and time, and carries out what
//! it asks for.

mod outbox;

use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_ca::server::{JobId, Server as CaServer, Signed};
use swarm_dispatcher::{
    Config as DispatcherConfig, DispatchError, Dispatcher, SecretAnswer, SecretRequestId,
    SessionExtras, SessionOpen,
};
use swarm_leader::{Leader, Origin, Seed};
use swarm_raft_io::ReplicatedStore;
use swarm_reconcile::Outcome;
use swarm_rt::metrics::{Gauge, Metrics, Refused};
use swarm_rt::tasks::TaskError;
use swarm_rt::tls::Credentials;
use swarm_rt::{Clock, OsIds, Shutdown};
use swarm_store::{Filter, Received, Subscription, View};
use swarm_types::{NodeId, Timestamp};
use tokio::sync::mpsc;

use crate::figures::SchedulingDelay;
use crate::gate::Gate;
use crate::heartbeats::Heartbeats;
use crate::secret_drivers::{Plugins, SecretDrivers};
use crate::signing::Signing;
use crate::streams::{Call, Incoming, NodeStream, StreamEvent};
use outbox::Outbox;

/// Changes that may wait for the leader's task before it reads everything again.
const FEED_CHANGES_MAX: usize = 500_000;
/// Commits and calls taken in before the loops get a turn.
const INPUTS_PER_TURN_MAX: usize = 256;
/// Messages made before the loops and the callers get a turn: when the last of many tasks has found
/// its node, all nodes are due at once.
const MESSAGES_PER_TURN_MAX: usize = 64;
/// Between two attempts to write the first objects of a cluster.
const SEED_RETRY: Duration = Duration::from_secs(1);
/// Between two times at which something is said about what was too large, 32 lines or so at a time.
const NOTICE_PAUSE: Duration = Duration::from_secs(10);
/// The weight of every manager in the list that agents get (spec 5.4).
const MANAGER_WEIGHT: i64 = 10;

/// Who this manager is.
pub(crate) struct Me {
    pub(crate) seed: Seed,
    /// Where agents reach it; empty when it listens everywhere and nobody said where it is. Then
    /// each is told where it did reach it.
    pub(crate) address: String,
    /// Where secret drivers are.
    pub(crate) plugins: Plugins,
    /// What external certificate authorities are shown.
    pub(crate) credentials: Credentials,
    /// Shows how many nodes are in a session.
    pub(crate) sessions: Gauge,
    pub(crate) metrics: Metrics,
    pub(crate) delay: SchedulingDelay,
    /// Is told of the sessions of each term.
    pub(crate) heartbeats: Heartbeats,
}

impl Me {
    /// The managers that agents are told of.
    fn peers(&self) -> Vec<v1::WeightedPeer> {
        let peer = v1::Peer {
            node_id: self.seed.node.to_string(),
            addr: self.address.clone(),
        };
        vec![v1::WeightedPeer {
            peer: Some(peer),
            weight: MANAGER_WEIGHT,
        }]
    }
}

/// Leads whenever the group says so, until the manager stops.
pub(crate) async fn run(
    store: ReplicatedStore,
    me: Me,
    clock: Clock,
    gate: Gate,
    mut incoming: Incoming,
    stop: Shutdown,
) -> Result<(), TaskError> {
    loop {
        tokio::select! {
            biased;
            () = stop.begun() => return Ok(()),
            gained = store.leadership_gained() => gained?,
        }
        tracing::info!("this manager leads");
        let begun = tokio::select! {
            begun = Term::begin(&store, &me, &clock) => begun,
            () = stop.begun() => None,
        };
        let Some(mut term) = begun else {
            continue;
        };
        me.heartbeats
            .begin(term.leader.dispatcher().pulses().clone());
        gate.set(true);
        tokio::select! {
            () = term.lead(&mut incoming) => {}
            () = stop.begun() => {}
        }
        gate.set(false);
        term.end();
        tracing::info!("this manager no longer leads");
    }
}

/// Writes the first objects of a cluster, if there are none yet. Nobody could use a cluster without
/// them, so this tries until it succeeds.
async fn seed(store: &ReplicatedStore, seed: &Seed, clock: &Clock, ids: &mut OsIds) {
    loop {
        let seeded = store
            .write(|transaction| {
                let set = swarm_leader::seed(transaction, seed, ids);
                transaction.apply_set(&set)
            })
            .await;
        let Err(error) = seeded else {
            return;
        };
        tracing::warn!(error = %swarm_rt::chain(&error), "first objects were not written");
        clock
            .sleep_until(Some(clock.now().saturating_add(SEED_RETRY)))
            .await;
    }
}

/// Everything that belongs to one term; dropped with it.
struct Term {
    store: ReplicatedStore,
    clock: Clock,
    ids: OsIds,
    leader: Leader,
    feed: Subscription,
    outcomes: mpsc::UnboundedReceiver<(Origin, Outcome)>,
    /// Unbounded, but each origin has one transaction in flight.
    outcome_sender: mpsc::UnboundedSender<(Origin, Outcome)>,
    /// What became of the streams of the outbox.
    events: mpsc::UnboundedReceiver<StreamEvent>,
    outbox: Outbox,
    signing: Signing,
    drivers: SecretDrivers,
    sessions_shown: Gauge,
    metrics: Metrics,
    delay: SchedulingDelay,
    /// When something was said about what was too large.
    told_at: Option<Timestamp>,
}

/// What ended a wait.
enum Input {
    Deposed,
    Feed(Received),
    Call(Box<Call>),
    Stream(StreamEvent),
    Outcome(Origin, Outcome),
    Signed(JobId, Signed),
    Secret(SecretRequestId, Result<SecretAnswer, String>),
    Time,
}

impl Term {
    /// `None` when the term was over before it began.
    async fn begin(store: &ReplicatedStore, me: &Me, clock: &Clock) -> Option<Self> {
        let mut ids = OsIds::new();
        tokio::select! {
            () = seed(store, &me.seed, clock, &mut ids) => {}
            () = store.leadership_lost() => return None,
        }
        let (view, feed) = store
            .store()
            .view_and_watch_bounded(Filter::All, FEED_CHANGES_MAX);
        let extras = SessionExtras {
            managers: me.peers(),
            ..SessionExtras::default()
        };
        let config = DispatcherConfig {
            leader: Some(me.seed.node.clone()),
        };
        let mut dispatcher = Dispatcher::new(clock.now(), &view, config, extras);
        dispatcher.handle_serving(clock.now(), &mut || ids.next_u64());
        let ca = CaServer::new(clock.now(), &view, Some(me.seed.node.clone()));
        let (outcome_sender, outcomes) = mpsc::unbounded_channel();
        let (outbox, events) = Outbox::new();
        Some(Self {
            store: store.clone(),
            clock: clock.clone(),
            leader: Leader::new(&view, dispatcher, ca),
            ids,
            feed,
            outcomes,
            outcome_sender,
            events,
            outbox,
            drivers: SecretDrivers::new(me.plugins.clone()),
            signing: Signing::new(clock.clone(), Some(me.credentials.clone())),
            sessions_shown: me.sessions.clone(),
            metrics: me.metrics.clone(),
            delay: me.delay.clone(),
            told_at: None,
        })
    }

    /// Leads until the group says otherwise.
    async fn lead(&mut self, incoming: &mut Incoming) {
        loop {
            let is_more = self.turn();
            let wake = self.leader.poll_timeout().map(|wake| wake.at);
            let input = tokio::select! {
                biased;
                () = self.store.leadership_lost() => Input::Deposed,
                Some((origin, outcome)) = self.outcomes.recv() => Input::Outcome(origin, outcome),
                received = self.feed.next() => Input::Feed(received),
                (id, signed) = self.signing.done() => Input::Signed(id, signed),
                (id, answer) = self.drivers.done() => Input::Secret(id, answer),
                Some(event) = self.events.recv() => Input::Stream(event),
                Some(call) = incoming.recv() => Input::Call(Box::new(call)),
                () = self.clock.sleep_until(wake) => Input::Time,
                () = tokio::task::yield_now(), if is_more => Input::Time,
            };
            if matches!(input, Input::Deposed) {
                return;
            }
            take_turn(
                self,
                input,
                |term| term.next_input(incoming),
                |term, input| term.take(input),
            );
        }
    }

    /// What has arrived in the meantime, so that one turn of the loops serves many inputs.
    fn next_input(&mut self, incoming: &mut Incoming) -> Option<Input> {
        if let Ok((origin, outcome)) = self.outcomes.try_recv() {
            return Some(Input::Outcome(origin, outcome));
        }
        if let Some(received) = self.feed.try_next() {
            return Some(Input::Feed(received));
        }
        if let Some((id, signed)) = self.signing.try_done() {
            return Some(Input::Signed(id, signed));
        }
        if let Some((id, answer)) = self.drivers.try_done() {
            return Some(Input::Secret(id, answer));
        }
        if let Ok(event) = self.events.try_recv() {
            return Some(Input::Stream(event));
        }
        incoming
            .try_recv()
            .ok()
            .map(|call| Input::Call(Box::new(call)))
    }

    /// Lets everyone work who has something to do. Returns whether there are more messages.
    fn turn(&mut self) -> bool {
        let now = self.clock.now();
        let view = self.store.view();
        let sessions = i64::try_from(self.outbox.sessions()).unwrap_or(i64::MAX);
        self.sessions_shown.set(sessions);
        self.leader.handle_timeout(now);
        if let Some(late) = self.leader.dispatcher().poll_standstill() {
            let seconds = late.as_secs_f32();
            tracing::warn!(
                seconds,
                "this manager stood still, or its clock jumped; nodes get time to be heard again"
            );
        }
        while let Some(proposal) = self.leader.poll_proposal(&view, now, &mut self.ids) {
            let (sender, origin) = (self.outcome_sender.clone(), proposal.origin);
            self.store.submit(proposal.sets, move |outcome| {
                // Fails only when the term is over and nobody asks.
                let _ = sender.send((origin, outcome));
            });
        }
        while let Some(job) = self.leader.poll_sign_job(&view) {
            self.signing.begin(job);
        }
        for warning in self.leader.poll_warnings(&view, now) {
            let (node, text) = (&warning.node, &warning.text);
            tracing::warn!(%node, next_step = warning.next_step, "a node: {text}");
        }
        self.tell_notices(now);
        let is_more = self.deliver_some(&view);
        // Questions come up while messages are made.
        while let Some(request) = self.leader.dispatcher().poll_secret_request(&view) {
            self.drivers.begin(request);
        }
        is_more
    }

    /// Says what was too large. Counted each time, and written at most once in a while: whoever
    /// sends such things may send many.
    fn tell_notices(&mut self, now: Timestamp) {
        let notices = self.leader.take_notices();
        for _ in &notices.oversize {
            self.metrics.refused(Refused::OversizedWrite);
        }
        for _ in 0..notices.cuts_count {
            self.metrics.refused(Refused::OversizedReport);
        }
        if notices.oversize.is_empty() && notices.cuts.is_empty() {
            return;
        }
        if self
            .told_at
            .is_some_and(|at| now < at.saturating_add(NOTICE_PAUSE))
        {
            return;
        }
        self.told_at = Some(now);
        for oversize in &notices.oversize {
            tracing::error!("{oversize}");
        }
        for cut in &notices.cuts {
            tracing::warn!("{cut}");
        }
    }

    fn deliver_some(&mut self, view: &View) -> bool {
        for _ in 0..MESSAGES_PER_TURN_MAX {
            let Some(message) = self.leader.dispatcher().poll_message(view) else {
                return false;
            };
            self.outbox.deliver(message.stream, message.body);
        }
        true
    }

    fn take(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::Deposed | Input::Time => {}
            Input::Outcome(origin, outcome) => self.leader.handle_outcome(now, origin, &outcome),
            Input::Signed(id, signed) => {
                if let Signed::Recoverable(reason) = &signed {
                    tracing::warn!(reason, "a certificate was not signed; trying again");
                }
                self.leader.handle_signed(now, id, signed);
            }
            Input::Secret(id, answer) => {
                if let Err(reason) = &answer {
                    tracing::warn!(reason, "a secret driver failed; asking again");
                }
                let view = self.store.view();
                let dispatcher = self.leader.dispatcher();
                dispatcher.handle_secret(now, id, answer, &view);
            }
            Input::Feed(Received::Event(event)) => {
                let view = self.store.view();
                self.delay.observe(event.commit());
                self.leader.handle_commit(now, event.commit(), &view);
            }
            Input::Feed(Received::Lagged { last }) => {
                tracing::warn!(
                    version = last.0,
                    "the leader's feed lagged; reading all again"
                );
                self.resubscribe();
            }
            Input::Feed(Received::Closed) => self.resubscribe(),
            Input::Stream(StreamEvent::Sent(stream)) => {
                self.leader.dispatcher().handle_sent(stream);
            }
            Input::Stream(StreamEvent::Closed(stream)) => {
                self.outbox.close(stream);
                self.leader.dispatcher().handle_disconnect(stream);
            }
            Input::Call(call) if call.is_given_up() => {}
            Input::Call(call) => self.call(*call),
        }
    }

    fn resubscribe(&mut self) {
        let (view, feed) = self
            .store
            .store()
            .view_and_watch_bounded(Filter::All, FEED_CHANGES_MAX);
        self.feed = feed;
        self.leader.handle_lag(self.clock.now(), &view);
    }

    fn call(&mut self, call: Call) {
        let now = self.clock.now();
        let view = self.store.view();
        match call {
            Call::Session {
                node,
                addr,
                arrived,
                request,
                reply,
            } => {
                let opened = self.register(&node, (&addr, &arrived), *request);
                // A caller that went away dropped its stream, which reports itself closed.
                drop(reply.send(opened));
            }
            Call::Statuses {
                node,
                session,
                updates,
                reply,
            } => {
                let dispatcher = self.leader.dispatcher();
                let taken = dispatcher.handle_task_statuses(now, &node, &session, updates, &view);
                drop(reply.send(taken));
            }
            Call::Volumes {
                node,
                session,
                updates,
                reply,
            } => {
                let dispatcher = self.leader.dispatcher();
                let taken =
                    dispatcher.handle_volume_statuses(now, &node, &session, &updates, &view);
                drop(reply.send(taken));
            }
            Call::Assignments {
                node,
                session,
                reply,
            } => {
                let opened = self
                    .leader
                    .dispatcher()
                    .handle_assignments_open(&node, &session);
                let opened = opened.map(|stream| self.outbox.open_assignments(stream));
                drop(reply.send(opened));
            }
        }
    }

    fn register(
        &mut self,
        node: &NodeId,
        (addr, arrived): (&str, &str),
        request: v1::SessionRequest,
    ) -> Result<NodeStream<v1::SessionMessage>, DispatchError> {
        let (now, view) = (self.clock.now(), self.store.view());
        let open = SessionOpen {
            node,
            description: request.description,
            addr,
            arrived,
            previous_session: &request.session_id,
        };
        let mut draws = OsIds::new();
        let mut draw = || draws.next_u64();
        let dispatcher = self.leader.dispatcher();
        let start = dispatcher.handle_session(now, open, &view, &mut self.ids, &mut draw)?;
        if let Some(warning) = &start.warning {
            self.metrics.refused(Refused::ClonedMachine);
            tracing::warn!(%node, addr, "{warning}");
        }
        Ok(self.outbox.open_session(start.stream))
    }

    /// Tells every node to look for the next leader.
    fn end(&mut self) {
        let view: View = Arc::clone(&self.store.view());
        self.leader.dispatcher().handle_stop(&view);
        while let Some(message) = self.leader.dispatcher().poll_message(&view) {
            self.outbox.deliver(message.stream, message.body);
        }
        self.outbox.end();
        self.sessions_shown.set(0);
    }
}

/// Takes the first input and what is there besides, [`INPUTS_PER_TURN_MAX`] in all. Nothing more
/// is received than is taken: a lost outcome, commit or message would stop its loop or stream for
/// good.
fn take_turn<S, I>(
    state: &mut S,
    first: I,
    mut next: impl FnMut(&mut S) -> Option<I>,
    mut take: impl FnMut(&mut S, I),
) {
    take(state, first);
    for _ in 1..INPUTS_PER_TURN_MAX {
        let Some(input) = next(state) else {
            return;
        };
        take(state, input);
    }
}

#[cfg(test)]
mod tests;
