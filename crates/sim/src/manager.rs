//! The manager's process: starts, leads, crashes. Mirrors `swarm-manager` and `swarm-raft-io`.

mod certificates;
pub(crate) mod lines;
mod reading;
pub(crate) mod replica;
mod term;
mod threads;
mod workers;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use swarm_ca::server::{JobId, SignJob};
use swarm_dispatcher::{SecretRequest, SecretRequestId, StreamId};
use swarm_leader::{FirstRoot, Seed};
use swarm_log_broker::ListenerId;
use swarm_raft::member::OpenError;
use swarm_raft::simdisk::{Loss, SimDisk};
use swarm_reconcile::Outcome;
use swarm_store::{Transaction, View};
use swarm_types::{NodeId, Timestamp, Version};

use crate::agenda::Agenda;
use crate::event::{ConnId, Event, Life, ManagerEvent, Payload, Request};
use crate::identity::{Certificate, RootIx};
use crate::invariants::Checked;
use crate::network::Network;
use crate::random::{Purpose, Random};
use crate::settings::Settings;
use crate::time::{Clock, Instant, S};
use crate::trace::{Trace, Weight};
use replica::{Author, Entry, LogFailed, Replica};
use term::Term;

/// How long a signature takes, and one of an authority that is far away.
const SIGNATURE: Duration = Duration::from_millis(5);
const SLOW_SIGNATURE: Duration = Duration::from_secs(5);
/// How long a secret driver takes, at most.
const DRIVER_MAX: Duration = Duration::from_secs(2);
/// Time between ticks of the log, as in `raft-io`.
const TICK: u64 = S;
/// How long a process takes to start again after it could not open its log.
const START_AGAIN: u64 = S;

/// In so many of a thousand starts the power goes off again, if there are torn writes at all.
const START_TORN_PER_MILLE: u32 = 250;
/// Operations of the disk within which it does.
const START_OPERATIONS: u64 = 15;

/// What everything acts upon.
pub(crate) struct Io<'a> {
    pub(crate) agenda: &'a mut Agenda,
    pub(crate) network: &'a mut Network,
    pub(crate) trace: &'a mut Trace,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    /// The process dies, the machine lives.
    Process,
    /// The machine loses power.
    Power,
    /// The process is asked to stop.
    Asked,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) enum StreamEvent {
    Sent(StreamId),
    LogSent(ListenerId),
    Closed(ConnId),
}

/// One life of the process.
pub(crate) struct Process {
    pub(crate) replica: Replica,
    pub(crate) term: Option<Term>,
    calls: VecDeque<(ConnId, Request, bool)>,
    streams: VecDeque<StreamEvent>,
    is_turn_planned: bool,
    is_pass_planned: bool,
    /// The first objects are on their way.
    is_seeding: bool,
    wake: Option<Instant>,
    /// Certificates that are being signed.
    jobs: BTreeMap<JobId, SignJob>,
    /// Questions to secret drivers.
    questions: BTreeMap<SecretRequestId, SecretRequest>,
    /// Answers that wait until the request is durable.
    issues: BTreeMap<u64, (ConnId, String)>,
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

    /// Opens the log. Returns the version of the snapshot from which it was replayed; `None` when
    /// the disk did not let it start, and it will try again.
    pub(crate) fn start(&mut self, io: &mut Io<'_>) -> Result<Option<Version>, OpenError> {
        self.life.0 += 1;
        let salts = Random::new(
            self.settings.options.seed ^ (self.life.0 << 32),
            Purpose::Salts,
        );
        self.arm_start();
        let opened = Replica::open(&self.disk, &self.settings, salts, self.ids.next());
        let (replica, from) = match opened {
            Ok(opened) => opened,
            Err(error) if self.may_fail(&error) => {
                io.trace.add(
                    io.agenda.now(),
                    Weight::Major,
                    "mgr",
                    format_args!("cannot start: {error:?}"),
                );
                self.disk.crash(Loss::Power);
                self.is_disk_armed = false;
                io.agenda.after(START_AGAIN, Event::ManagerStart(self.life));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        io.trace.add(
            io.agenda.now(),
            Weight::Major,
            "mgr",
            format_args!("starts at {}", replica.store.view().version()),
        );
        self.process = Some(Process {
            replica,
            term: None,
            calls: VecDeque::new(),
            streams: VecDeque::new(),
            is_turn_planned: false,
            is_pass_planned: false,
            is_seeding: false,
            wake: None,
            jobs: BTreeMap::new(),
            questions: BTreeMap::new(),
            issues: BTreeMap::new(),
        });
        io.agenda
            .after(TICK, Event::Manager(self.life, ManagerEvent::LogTick));
        self.begin_leading(io);
        Ok(Some(from))
    }

    /// In some starts the power goes off while the log is opened, or soon after.
    fn arm_start(&mut self) {
        let may = self.settings.faults.torn_write > 0 && !self.is_calm;
        if may && self.random.happens(START_TORN_PER_MILLE) {
            let at = self.disk.operations() + self.random.between(1, START_OPERATIONS);
            self.disk.cut_power_at(at);
            self.is_disk_armed = true;
        }
    }

    /// Whether the disk is to blame for a start that failed: it is full, or was told to fail.
    fn may_fail(&self, error: &OpenError) -> bool {
        use swarm_raft::LogError;
        match error {
            OpenError::Log(LogError::Disk(cause) | LogError::Poisoned(cause)) => {
                self.is_disk_armed || cause.is_full()
            }
            OpenError::Log(_) | OpenError::State(_) => false,
        }
    }

    /// Writes the first objects, then leads.
    fn begin_leading(&mut self, io: &mut Io<'_>) {
        let (now, seed) = (self.now(io.agenda), self.seed());
        let ids = &mut self.ids;
        let Some(process) = self.process.as_mut().filter(|own| own.replica.leads()) else {
            return;
        };
        process.is_seeding = true;
        let refused = process.replica.write(now, Author::Seed, |transaction| {
            let set = swarm_leader::seed(transaction, &seed, ids);
            transaction.apply_set(&set)
        });
        if let Err(conflict) = refused {
            // The next tick tries again.
            process.is_seeding = false;
            io.trace.add(
                io.agenda.now(),
                Weight::Major,
                "mgr",
                format_args!("first objects refused: {conflict}"),
            );
        }
        self.plan(io);
    }

    /// The certificate that the manager made for itself when it started the cluster.
    pub(crate) fn first_certificate(&self) -> Certificate {
        Certificate {
            node: self.node.clone(),
            root: RootIx(0),
            by: None,
        }
    }

    fn seed(&self) -> Seed {
        use swarm_api::v1::node_spec::Availability;
        Seed {
            cluster: "simulated".parse().expect("the id is well formed"),
            node: self.node.clone(),
            availability: Availability::Active,
            root: Some(FirstRoot {
                cert_pem: RootIx(0).pem(),
                key_pem: RootIx(0).key(),
                token_secrets: [[1; 16], [2; 16]],
                unlock_key: None,
                external_cas: Vec::new(),
            }),
            own_certificate: bytes::Bytes::new(),
        }
    }

    /// Ends the process.
    pub(crate) fn die(&mut self, io: &mut Io<'_>, death: Death) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        self.life.0 += 1;
        self.is_disk_armed = false;
        match death {
            Death::Process => self.disk.crash(Loss::Process),
            Death::Power => self.disk.crash(Loss::Power),
            Death::Asked => {
                if let Some(mut term) = process.term.take() {
                    let view = process.replica.store.view();
                    term.end(io, &view);
                }
                process.replica.close();
                self.disk.crash(Loss::Process);
            }
        }
        io.network.reset_manager(io.agenda, death == Death::Power);
        // Another machine's time server, or the same one after a repair.
        if self.random.happens(300) {
            let offset = i64::try_from(self.settings.faults.clock_offset.as_nanos()).unwrap_or(0);
            let jump = self.random.below(2 * offset.unsigned_abs() + 1);
            self.clock.offset = i64::try_from(jump).unwrap_or(0) - offset;
        }
    }

    /// A request arrived.
    pub(crate) fn receive(&mut self, io: &mut Io<'_>, conn: ConnId, request: Request, copy: bool) {
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
        let (requests, calls): (Vec<_>, Vec<_>) = calls
            .drain(..)
            .partition(|(_, request, _)| matches!(request, Request::Issue { .. }));
        for (conn, request, is_copy) in calls {
            let view = replica.store.view();
            term.call(
                io,
                (conn, is_copy),
                request,
                now,
                &view,
                (&mut self.ids, &mut self.draws),
            );
        }
        self.drive_lines(io, now);
        for (conn, request, _) in requests {
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
            if let Outcome::Committed { refused, .. } = &outcome
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
        term.leader.handle_timeout(now);
        while let Some(proposal) = term.leader.poll_proposal(&view, now, &mut self.ids) {
            let author = Author::Leader(proposal.origin, term.name_of(proposal.origin));
            io.trace.add(
                io.agenda.now(),
                Weight::Minor,
                "mgr",
                format_args!("{} proposes {} sets", author.name(), proposal.sets.len()),
            );
            let is_refused = chance(faults.refuse_per_mille / 2);
            replica.submit(now, &proposal.sets, author, is_refused);
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
