//! The manager's process: starts, leads, crashes. Mirrors `swarm-manager` and `swarm-raft-io`.

mod certificates;
mod damage;
mod heartbeats;
pub(crate) mod lines;
mod process;
mod reading;
pub(crate) mod replica;
mod term;
mod threads;
mod workers;

use std::time::Duration;

use swarm_dispatcher::StreamId;
use swarm_log_broker::ListenerId;
use swarm_raft::simdisk::SimDisk;
use swarm_reconcile::Outcome;
use swarm_store::{Transaction, View};
use swarm_types::{NodeId, Timestamp};

use crate::agenda::Agenda;
use crate::event::{ConnId, Event, Life, ManagerEvent, Payload, Request};
use crate::invariants::Checked;
use crate::network::Network;
use crate::random::{Purpose, Random};
use crate::settings::Settings;
use crate::time::{Clock, Instant, S};
use crate::trace::{Trace, Weight};
pub(crate) use process::Death;
use process::Process;
use replica::{Author, Entry, LogFailed};
use term::Term;

/// How long a signature takes, and one of an authority that is far away.
const SIGNATURE: Duration = Duration::from_millis(5);
const SLOW_SIGNATURE: Duration = Duration::from_secs(5);
/// How long a secret driver takes, at most.
const DRIVER_MAX: Duration = Duration::from_secs(2);
/// Time between ticks of the log, as in `raft-io`.
const TICK: u64 = S;

/// What everything acts upon.
pub(crate) struct Io<'a> {
    pub(crate) agenda: &'a mut Agenda,
    pub(crate) network: &'a mut Network,
    pub(crate) trace: &'a mut Trace,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum StreamEvent {
    Sent(StreamId),
    LogSent(ListenerId),
    Closed(ConnId),
}

/// The manager's machine.
pub(crate) struct Manager {
    pub(crate) settings: Settings,
    pub(crate) disk: SimDisk,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) ids: Random,
    pub(crate) draws: Random,
    /// What secret drivers do, and names of log subscriptions: apart, so that runs without them
    /// stay the same.
    drivers: Random,
    log_ids: Random,
    pub(crate) node: NodeId,
    pub(crate) life: Life,
    pub(crate) process: Option<Process>,
    /// Requests for certificates so far.
    issues: u64,
    /// Transactions of which nothing was committed, since somebody looked.
    pub(crate) refusals: u64,
    /// No more delays and refusals out of ill will.
    pub(crate) is_calm: bool,
    /// A fault of the disk is planned in this life, so the log may fail.
    pub(crate) is_disk_armed: bool,
    /// What was seen in the streams of logs.
    pub(crate) lines_seen: Checked,
    /// What was seen of lost nodes.
    lost_seen: Checked,
    /// What was seen of damaged logs.
    damage_seen: Checked,
    /// The log failed, and the process has to be ended.
    pub(crate) failed: Option<LogFailed>,
}

impl Manager {
    pub(crate) fn new(settings: &Settings, node: NodeId) -> Self {
        let seed = settings.options.seed;
        Self {
            settings: settings.clone(),
            disk: SimDisk::new(seed),
            clock: settings.clocks[0],
            random: Random::new(seed, Purpose::Manager),
            ids: Random::new(seed, Purpose::Ids),
            draws: Random::new(seed, Purpose::Draws),
            drivers: Random::new(!seed, Purpose::Payloads),
            log_ids: Random::new(!seed, Purpose::Reader),
            node,
            life: Life(0),
            process: None,
            issues: 0,
            refusals: 0,
            is_calm: false,
            is_disk_armed: false,
            lines_seen: Ok(()),
            lost_seen: Ok(()),
            damage_seen: Ok(()),
            failed: None,
        }
    }

    pub(crate) fn now(&self, agenda: &Agenda) -> Timestamp {
        self.clock.read(agenda.now())
    }

    /// The life of the process, if it lives.
    pub(crate) fn alive(&self) -> Option<Life> {
        self.process.as_ref().map(|_| self.life)
    }

    /// The published store, if the manager leads.
    pub(crate) fn view(&self) -> Option<View> {
        let process = self.process.as_ref()?;
        process.term.as_ref().map(|_| process.replica.store.view())
    }

    /// A request arrived.
    pub(crate) fn receive(&mut self, io: &mut Io<'_>, conn: ConnId, request: Request, copy: bool) {
        let leads = self.process.as_ref().is_some_and(|it| it.term.is_some());
        if let Request::Heartbeat { session } = &request
            && leads
        {
            return self.beat(io, (conn, copy), session);
        }
        if let Some(process) = &mut self.process {
            process.calls.push_back((conn, request, copy));
            self.plan(io);
        }
    }

    pub(crate) fn sent(&mut self, io: &mut Io<'_>, stream: StreamId) {
        if let Some(process) = &mut self.process {
            process.streams.push_back(StreamEvent::Sent(stream));
            self.plan(io);
        }
    }

    pub(crate) fn closed(&mut self, io: &mut Io<'_>, conn: ConnId) {
        if let Some(process) = &mut self.process {
            process.calls.retain(|(own, _, _)| *own != conn);
            process.streams.push_back(StreamEvent::Closed(conn));
            self.plan(io);
        }
    }

    /// A user's write. `Err`: the user was refused; `None`: nobody leads.
    pub(crate) fn write<E>(
        &mut self,
        io: &mut Io<'_>,
        author: Author,
        write: impl FnOnce(&mut Transaction, Timestamp, &mut Random) -> Result<(), E>,
    ) -> Option<Result<(), E>> {
        let now = self.now(io.agenda);
        let ids = &mut self.ids;
        let process = self.process.as_mut()?;
        process.term.as_ref()?;
        let written = process
            .replica
            .write(now, author, |transaction| write(transaction, now, ids));
        self.plan(io);
        Some(written)
    }

    /// The leader's task takes what came in and lets everyone work.
    pub(crate) fn turn(&mut self, io: &mut Io<'_>) {
        let now = self.now(io.agenda);
        if let Some(process) = &mut self.process {
            process.is_turn_planned = false;
        }
        self.take_outcomes(io, now);
        let Some(process) = &mut self.process else {
            return;
        };
        let Some(term) = &mut process.term else {
            return self.plan(io);
        };
        let faults = &self.settings.faults;
        let random = &mut self.random;
        let mut chance = |per_mille| !self.is_calm && random.happens(per_mille);
        if chance(faults.feed_delay_per_mille) {
            self.plan_turn(io);
        } else {
            term.read_feed(now, &process.replica, &self.settings);
        }
        let Some(Process {
            term: Some(term),
            replica,
            streams,
            calls,
            ..
        }) = &mut self.process
        else {
            return;
        };
        for event in streams.drain(..) {
            term.take_stream_event(event);
        }
        let (mut requests, mut beats) = (Vec::new(), Vec::new());
        for (conn, request, is_copy) in calls.drain(..) {
            if matches!(request, Request::Issue { .. }) {
                requests.push((conn, request));
                continue;
            }
            // One that came before the term.
            if let Request::Heartbeat { session } = request {
                beats.push(((conn, is_copy), session));
                continue;
            }
            let view = replica.store.view();
            term.is_flooded = self.settings.faults.floods && !self.is_calm;
            term.call(
                io,
                (conn, is_copy),
                request,
                now,
                &view,
                (&mut self.ids, &mut self.draws),
            );
        }
        for (call, session) in beats {
            self.beat(io, call, &session);
        }
        self.drive_lines(io, now);
        for (conn, request) in requests {
            self.issue(io, now, conn, request);
        }
        self.work(io, now);
        self.plan(io);
    }

    fn take_outcomes(&mut self, io: &mut Io<'_>, now: Timestamp) {
        let Some(process) = &mut self.process else {
            return;
        };
        while let Some((author, outcome)) = process.replica.outcomes.pop_front() {
            self.refusals += u64::from(outcome == Outcome::Failed);
            if let Outcome::Committed { refused, .. } | Outcome::Parted { refused, .. } = &outcome
                && !refused.is_empty()
            {
                self.refusals += 1;
                io.trace.add(
                    io.agenda.now(),
                    Weight::Minor,
                    "mgr",
                    format_args!("{} lost {} sets", author.name(), refused.len()),
                );
            }
            match author {
                Author::Leader(origin, _) => {
                    if let Some(term) = &mut process.term {
                        term.leader.handle_outcome(now, origin, &outcome);
                    }
                }
                // The next tick tries again: nothing works without the first objects.
                Author::Seed if outcome == Outcome::Failed => process.is_seeding = false,
                Author::Seed if process.term.is_none() => {
                    let term = Term::begin(
                        now,
                        &process.replica,
                        &self.settings,
                        &self.node,
                        &mut self.draws,
                    );
                    process.term = Some(term);
                    io.trace.add(
                        io.agenda.now(),
                        Weight::Major,
                        "mgr",
                        format_args!("leads ({outcome:?})"),
                    );
                }
                Author::Issue(number) => {
                    let answer = process.issues.remove(&number);
                    let is_durable = outcome != Outcome::Failed;
                    if let Some((conn, node)) = answer.filter(|_| is_durable) {
                        let taken = Payload::Taken(Ok(node));
                        io.network.send_message(io.agenda, conn, None, taken);
                    }
                }
                Author::Seed | Author::User(_) | Author::Log => {}
            }
        }
    }

    /// The loops, then the messages.
    fn work(&mut self, io: &mut Io<'_>, now: Timestamp) {
        let Some(Process {
            term: Some(term),
            replica,
            jobs,
            questions,
            ..
        }) = &mut self.process
        else {
            return;
        };
        let faults = &self.settings.faults;
        let newest = replica.store.view();
        let random = &mut self.random;
        let mut chance = |per_mille| !self.is_calm && random.happens(per_mille);
        let stale = chance(faults.stale_view_per_mille);
        let view = if stale {
            term.older_view(&newest)
        } else {
            newest.clone()
        };
        term.handle_timeout(now);
        while let Some(proposal) = term.leader.poll_proposal(&view, now, &mut self.ids) {
            let author = Author::Leader(proposal.origin, term.name_of(proposal.origin));
            io.trace.add(
                io.agenda.now(),
                Weight::Minor,
                "mgr",
                format_args!("{} proposes {} sets", author.name(), proposal.sets.len()),
            );
            let lost = term.heartbeats.check_lost(now, &view, &proposal.sets);
            self.lost_seen = std::mem::replace(&mut self.lost_seen, Ok(())).and(lost);
            let is_refused = chance(faults.refuse_per_mille / 2);
            replica.submit(now, proposal.sets, author, is_refused);
        }
        while let Some(job) = term.leader.poll_sign_job(&view) {
            let longest = if chance(faults.sign_slow_per_mille) {
                SLOW_SIGNATURE
            } else {
                SIGNATURE
            };
            let after = self.draws.span(Duration::from_micros(100), longest);
            let signed = Event::Manager(self.life, ManagerEvent::Signed(job.id));
            io.agenda.after(after, signed);
            jobs.insert(job.id, job);
        }
        while let Some(question) = term.leader.dispatcher().poll_secret_request(&view) {
            let after = self.drivers.span(Duration::from_millis(1), DRIVER_MAX);
            let answered = Event::Manager(self.life, ManagerEvent::Secret(question.id));
            io.agenda.after(after, answered);
            let (secret, task) = (&question.secret.id, &question.task.id);
            let what = format_args!("asks a driver for {secret} of task {task}");
            io.trace.add(io.agenda.now(), Weight::Minor, "mgr", what);
            questions.insert(question.id, question);
        }
        drop(term.leader.poll_warnings(&view, now));
        while let Some(message) = term.leader.dispatcher().poll_message(&view) {
            term.deliver(
                io,
                self.life,
                message,
                faults.back_pressure,
                &mut self.draws,
            );
        }
        term.keep_view(&newest);
        if stale {
            self.plan_turn(io);
        }
    }

    /// What was applied since the last time, for the checkers.
    pub(crate) fn take_applied(&mut self) -> Vec<Entry> {
        self.process.as_mut().map_or_else(Vec::new, |process| {
            std::mem::take(&mut process.replica.applied)
        })
    }

    /// Whether a timer event is the one that counts.
    pub(crate) fn takes_wake(&mut self, at: Instant) -> bool {
        let Some(process) = self.process.as_mut().filter(|own| own.wake == Some(at)) else {
            return false;
        };
        process.wake = None;
        true
    }

    /// What the leader has to do, for the report of a failure.
    pub(crate) fn what_waits(&mut self, at: Instant) -> String {
        let now = self.clock.read(at);
        match self
            .process
            .as_mut()
            .and_then(|process| process.term.as_mut())
        {
            None => "nobody leads".to_owned(),
            Some(term) => format!(
                "now {now}, wake {:?}, dispatcher {:?}, loops {:?}",
                term.leader.poll_timeout(),
                term.leader.dispatcher().status(),
                term.leader.status(),
            ),
        }
    }

    /// The leader is told that it missed commits.
    pub(crate) fn lag(&mut self, io: &mut Io<'_>) {
        let now = self.now(io.agenda);
        if let Some(Process {
            term: Some(term),
            replica,
            ..
        }) = &mut self.process
        {
            term.resubscribe(now, replica, &self.settings);
            self.plan_turn(io);
        }
    }
}
