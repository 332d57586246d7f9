//! The whole cluster under virtual time: takes the next event, hands it to whom it concerns, and
//! lets the checkers look.

use std::time::Duration;

use swarm_types::{IdSource, NodeId, TaskId};

use crate::agenda::Agenda;
use crate::check::trust::Trust;
use crate::check::{Checker, ends};
use crate::event::{Event, Life, ManagerEvent, NodeEvent, NodeIx};
use crate::invariants::{
    CACHE, CONVERGES, Checked, QUIET, REOPENS, SIGNED, STUCK, Violation, ensure,
};
use crate::manager::{Death, Io, Manager};
use crate::network::Network;
use crate::node::database::Fullness;
use crate::node::{Dice, Node};
use crate::random::{Purpose, Random};
use crate::reader::Reader;
use crate::settings::Settings;
use crate::standstill::Standstills;
use crate::time::{Instant, MS, S};
use crate::trace::{Trace, Weight};
use crate::user::User;

/// Time between slow checks.
const INSPECTION: u64 = S;
/// After faults have ended the cluster must have converged within this time. The longest waits in
/// it: a process that is still down, a node in UNKNOWN (30 s), a task that does not stop (60 s), an
/// agent's pause between attempts (30 s).
const CONVERGENCE_MAX: u64 = 400 * S;
/// So long nothing may be written once the cluster has converged.
const QUIET_TIME: u64 = 20 * S;

/// A cluster and those who watch it.
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) agenda: Agenda,
    pub(crate) network: Network,
    pub(crate) trace: Trace,
    pub(crate) manager: Manager,
    pub(crate) nodes: Vec<Node>,
    pub(crate) checker: Checker,
    pub(crate) trust: Trust,
    pub(crate) user: User,
    reader: Reader,
    pub(crate) standstills: Standstills,
    pub(crate) chance: Random,
    draws: Random,
    executor: Random,
    pub(crate) is_calm: bool,
    has_begun: bool,
    is_over: bool,
    /// Commits when the cluster was last seen to change, and when that was.
    quiet: (u64, Instant),
    /// Why it has not converged.
    pub(crate) missing: String,
    pub(crate) last_authors: Vec<&'static str>,
}

/// Borrows what acts, apart from who acts.
macro_rules! io {
    ($world:ident) => {
        &mut Io {
            agenda: &mut $world.agenda,
            network: &mut $world.network,
            trace: &mut $world.trace,
        }
    };
}
macro_rules! dice {
    ($world:ident) => {
        &mut Dice {
            faults: &$world.settings.faults,
            draws: &mut $world.draws,
            executor: &mut $world.executor,
            is_calm: $world.is_calm,
        }
    };
}

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        let seed = settings.options.seed;
        let mut ids = Random::new(!seed, Purpose::Ids);
        let nodes: Vec<Node> = settings
            .clocks
            .iter()
            .take(usize::try_from(settings.nodes).unwrap_or(0))
            .enumerate()
            .map(|(place, clock)| {
                let id = NodeId::new(ids.next_id());
                let size = ids.below(4);
                let mut node = Node::new(NodeIx(place), id, *clock, size);
                node.fullness = settings.faults.worker_disk.map(|times| {
                    let seed = seed.wrapping_add(u64::try_from(place).unwrap_or(0) << 32);
                    Fullness::new(Random::new(seed, Purpose::WorkerDisks), times)
                });
                node
            })
            .collect();
        let manager = Manager::new(&settings, nodes[0].id.clone());
        let mut nodes = nodes;
        nodes[0].identity.certificate = Some(manager.first_certificate());
        Self {
            agenda: Agenda::default(),
            network: Network::new(&settings),
            trace: Trace::new(settings.options.trace),
            manager,
            nodes,
            checker: Checker::new(),
            trust: Trust::default(),
            user: User::new(&settings),
            reader: Reader::new(&settings),
            standstills: Standstills::new(&settings),
            chance: Random::new(seed, Purpose::Faults),
            draws: Random::new(!seed, Purpose::Draws),
            executor: Random::new(seed, Purpose::Executor),
            is_calm: false,
            has_begun: false,
            is_over: false,
            quiet: (0, Instant::default()),
            missing: String::new(),
            last_authors: Vec::new(),
            settings,
        }
    }

    /// Runs to the end, or to the first violation.
    pub(crate) fn run(&mut self) -> Checked {
        self.agenda.after(0, Event::ManagerStart(Life(0)));
        for node in &self.nodes {
            if node.ix != NodeIx(0) || self.settings.manager_has_agent {
                let after = self.chance.below(S);
                self.agenda
                    .after(after, Event::Node(node.ix, Life(0), NodeEvent::Start));
            }
        }
        self.agenda.after(INSPECTION, Event::Inspect);
        self.agenda.after(self.settings.busy, Event::CalmDown);
        self.plan_fault();
        self.plan_standstill();
        self.plan_action();
        self.plan_reading();
        while !self.is_over {
            let Some(event) = self.agenda.pop() else {
                return Err(Violation::new(STUCK, "nothing is left to happen"));
            };
            self.step(event)?;
            ensure(!self.agenda.is_stuck(), STUCK, || {
                format!(
                    "at {}: {}",
                    self.agenda.now(),
                    self.manager.what_waits(self.agenda.now())
                )
            })?;
        }
        Ok(())
    }

    fn step(&mut self, event: Event) -> Checked {
        let Some(event) = self.unless_it_waits(event) else {
            return Ok(());
        };
        match event {
            Event::ManagerStart(life) => return self.start_manager(life),
            Event::Manager(life, event) => {
                if self.manager.alive() != Some(life) {
                    return Ok(());
                }
                self.step_manager(event);
            }
            Event::Node(ix, life, event) => {
                if self.nodes[ix.0].life != life {
                    return Ok(());
                }
                return self.step_node(ix, event);
            }
            Event::ToAgent { conn, payload } => {
                let Some(caller) = self.network.caller(conn) else {
                    return Ok(());
                };
                let node = &mut self.nodes[caller.node.0];
                node.hears(io!(self), dice!(self), caller, payload)?;
                return node.check_told(&self.checker.acked);
            }
            Event::ToManager {
                conn,
                request,
                is_copy,
            } => {
                let alive = self.manager.alive();
                if self.network.is_accepted(&mut self.agenda, conn, alive) {
                    self.manager.receive(io!(self), conn, request, is_copy);
                }
            }
            Event::ClosedAtManager(conn) => {
                self.manager.closed(io!(self), conn);
                self.network.forget(conn);
            }
            Event::Fault => self.strike(),
            Event::StandStill => self.stand_still(),
            Event::GoesOn => self.go_on(),
            Event::Healed(node) => self.note("fault", format_args!("{node} is reachable again")),
            Event::DiskFreed => {
                self.note("fault", format_args!("the disk has space again"));
                self.manager.disk.set_capacity(None);
            }
            Event::UserActs => {
                self.user.act(io!(self), &mut self.manager);
                self.plan_action();
            }
            Event::ReaderActs => {
                self.reader.act(io!(self), &mut self.manager);
                self.plan_reading();
            }
            Event::CalmDown => self.calm_down(),
            Event::Inspect => {
                self.agenda.after(INSPECTION, Event::Inspect);
                self.inspect()?;
            }
        }
        self.after_manager()
    }

    fn step_manager(&mut self, event: ManagerEvent) {
        let now = self.agenda.now();
        match event {
            ManagerEvent::Turn => self.manager.turn(io!(self)),
            ManagerEvent::Wake => {
                if self.manager.takes_wake(now) {
                    self.manager.turn(io!(self));
                }
            }
            ManagerEvent::LogPass => self.manager.log_pass(io!(self)),
            ManagerEvent::LogTick => self.manager.log_tick(io!(self)),
            ManagerEvent::LogSnapshot => self.manager.log_snapshot(io!(self)),
            ManagerEvent::Sent(stream) => self.manager.sent(io!(self), stream),
            ManagerEvent::LogSent(listener) => self.manager.log_sent(io!(self), listener),
            ManagerEvent::Secret(question) => self.manager.answered(io!(self), question),
            ManagerEvent::Signed(job) => self.manager.signed(io!(self), job),
        }
    }

    fn step_node(&mut self, ix: NodeIx, event: NodeEvent) -> Checked {
        let node = &mut self.nodes[ix.0];
        match event {
            NodeEvent::Start => node.start(io!(self), dice!(self)),
            NodeEvent::Wake => node.wakes(io!(self), dice!(self)),
            NodeEvent::Ask => {
                node.asks_again(io!(self), dice!(self));
                Ok(())
            }
            NodeEvent::Wiped => {
                node.wiped(io!(self), dice!(self));
                Ok(())
            }
            NodeEvent::Renew => {
                node.renew(io!(self), dice!(self));
                Ok(())
            }
            NodeEvent::Line { id, task } => node.writes(io!(self), dice!(self), (id, task)),
            NodeEvent::Described => node.described(io!(self), dice!(self)),
            NodeEvent::Persisted(sequence) => node.persisted(io!(self), dice!(self), sequence),
            NodeEvent::OperationDone { task, op, report } => {
                if node.operation_done(io!(self), dice!(self), (&task, op), &report)? {
                    self.check_process(ix, &task)?;
                }
                Ok(())
            }
        }
    }

    fn check_process(&mut self, node: NodeIx, task: &TaskId) -> Checked {
        let now = self.agenda.now();
        self.checker.handle_process(&self.nodes, now, (node, task))
    }

    pub(crate) fn note(&mut self, who: &str, what: std::fmt::Arguments<'_>) {
        self.trace.add(self.agenda.now(), Weight::Major, who, what);
    }

    fn start_manager(&mut self, life: Life) -> Checked {
        if self.manager.process.is_some() || self.manager.life != life {
            return Ok(());
        }
        let started = self.manager.start(io!(self));
        match started {
            Ok(None) => Ok(()),
            Ok(Some(from)) => {
                let entries = self.manager.take_applied();
                let Some(process) = &self.manager.process else {
                    return Ok(());
                };
                self.checker
                    .handle_start(&process.replica.store, from, entries)
            }
            Err(error) => Err(Violation::new(REOPENS, format!("{error:?}"))),
        }
    }

    /// What the manager did is checked, and its process ends if its log has failed.
    fn after_manager(&mut self) -> Checked {
        let entries = self.manager.take_applied();
        for entry in entries {
            self.tell_commit(&entry);
            self.trust.handle_entry(&entry, &self.nodes)?;
            self.checker.handle_entry(entry)?;
        }
        if let Some(failed) = self.manager.failed.take() {
            ensure(self.manager.is_disk_armed, REOPENS, || {
                format!("the log failed: {}", failed.0)
            })?;
            self.note("mgr", format_args!("its log failed: {}", failed.0));
            let is_power = self.chance.happens(700);
            self.kill_manager(if is_power {
                Death::Power
            } else {
                Death::Process
            });
        }
        Ok(())
    }

    pub(crate) fn kill_manager(&mut self, death: Death) {
        self.note("fault", format_args!("the manager dies: {death:?}"));
        self.manager.die(io!(self), death);
        self.standstills.end();
        self.checker.handle_death();
        self.trust.handle_death();
        let longest = self.settings.faults.down_max / 2;
        let after = self.chance.span(
            Duration::from_millis(200),
            longest.max(Duration::from_millis(300)),
        );
        self.agenda
            .after(after, Event::ManagerStart(self.manager.life));
        // The agent of the manager's node is part of the same process.
        if self.settings.manager_has_agent {
            self.kill_node(NodeIx(0), death == Death::Power);
        }
    }

    pub(crate) fn kill_node(&mut self, ix: NodeIx, with_machine: bool) {
        if self.nodes[ix.0].agent.is_none() {
            return;
        }
        let what = if with_machine {
            "reboots"
        } else {
            "loses its agent"
        };
        self.note("fault", format_args!("{ix} {what}"));
        self.nodes[ix.0].die(io!(self), dice!(self), with_machine);
        let longest = self
            .settings
            .faults
            .down_max
            .max(Duration::from_millis(200));
        let after = self.chance.span(Duration::from_millis(100), longest);
        let start = Event::Node(ix, self.nodes[ix.0].life, NodeEvent::Start);
        self.agenda.after(after, start);
    }

    pub(crate) fn kill_process(&mut self, ix: NodeIx, task: &TaskId) {
        self.note(
            "fault",
            format_args!("{ix}: the process of {task} is killed"),
        );
        self.nodes[ix.0].kill(io!(self), dice!(self), task);
    }

    pub(crate) fn cut_off(&mut self, ix: NodeIx, nanos: u64, directions: (bool, bool)) {
        let until = self.agenda.now().plus(nanos);
        self.note(
            "fault",
            format_args!("{ix} is cut off until {until} {directions:?}"),
        );
        self.network.cut(&mut self.agenda, ix, until, directions);
        self.agenda.at(until, Event::Healed(ix));
    }

    pub(crate) fn reset(&mut self, ix: NodeIx) {
        self.note("fault", format_args!("the connections of {ix} break"));
        self.network.reset_node(&mut self.agenda, ix);
    }

    pub(crate) fn lag(&mut self) {
        self.note("fault", format_args!("the leader missed commits"));
        self.manager.lag(io!(self));
    }

    fn plan_action(&mut self) {
        if let Some(interval) = self.settings.actions.interval.filter(|_| !self.is_calm) {
            let after = self
                .user
                .random
                .span(Duration::from_millis(1), interval * 2);
            self.agenda.after(after, Event::UserActs);
        }
    }

    fn plan_reading(&mut self) {
        if let Some(interval) = self.settings.reading.filter(|_| !self.is_calm) {
            let shortest = Duration::from_millis(1);
            let after = self.reader.random.span(shortest, interval * 2);
            self.agenda.after(after, Event::ReaderActs);
        }
    }

    fn calm_down(&mut self) {
        self.note("fault", format_args!("faults end"));
        self.is_calm = true;
        self.manager.is_calm = true;
        self.settings.actions.interval = None;
        self.network.calm_down();
        self.manager.disk.set_capacity(None);
    }

    fn inspect(&mut self) -> Checked {
        if !self.has_begun {
            self.has_begun = self.user.begin(io!(self), &mut self.manager);
        }
        let refusals = std::mem::take(&mut self.manager.refusals);
        ensure(refusals <= REFUSALS_MAX, STUCK, || {
            format!("{refusals} transactions met a refusal within a second")
        })?;
        self.check_caches()?;
        self.manager.check_damage()?;
        self.check_lines()?;
        self.manager.check_sessions(self.agenda.now())?;
        if let Some(process) = &self.manager.process {
            self.checker.read_feed(&process.replica.store)?;
        }
        if self.is_calm {
            return self.inspect_end();
        }
        Ok(())
    }

    fn check_lines(&mut self) -> Checked {
        std::mem::replace(&mut self.manager.lines_seen, Ok(()))?;
        let (at, view) = (self.agenda.now(), self.manager.view());
        match (self.manager.lines(), view) {
            (Some(lines), Some(view)) => lines.check(at, &view),
            (None, _) | (_, None) => Ok(()),
        }
    }

    /// I-LOOP-4, whenever the loops have seen every commit.
    fn check_caches(&mut self) -> Checked {
        let Some(process) = &self.manager.process else {
            return Ok(());
        };
        let Some(term) = &process.term else {
            return Ok(());
        };
        let view = process.replica.store.view();
        if term.fed_version() != view.version() {
            return Ok(());
        }
        let signed = term.leader.ca().check(&view);
        signed.map_err(|text| Violation::new(SIGNED, text))?;
        let checked = term.leader.check_caches(&view);
        checked.map_err(|drift| Violation::new(CACHE, drift))
    }

    fn inspect_end(&mut self) -> Checked {
        let now = self.agenda.now();
        let is_read = self.reader.close_book(io!(self), &mut self.manager);
        let is_tidy = self.user.tidy_up(io!(self), &mut self.manager)
            && self
                .user
                .remove_ghosts(io!(self), &mut self.manager, &self.nodes);
        let state = match self.manager.view() {
            None => Err("nobody leads".to_owned()),
            Some(_) if !self.has_begun => Err("no service was created".to_owned()),
            Some(_) if !is_tidy => Err("services are being removed".to_owned()),
            Some(_) if !is_read => Err("somebody still reads logs".to_owned()),
            Some(view) => ends::converged(&view, &self.nodes, now),
        };
        let is_converged = state.is_ok();
        self.missing = state.err().unwrap_or_default();
        if !is_converged || self.checker.commits != self.quiet.0 {
            self.quiet = (self.checker.commits, now);
        }
        if now.0 >= self.quiet.1.0 + QUIET_TIME {
            self.note("sim", format_args!("converged and quiet"));
            self.is_over = true;
            return self.check_replay();
        }
        if now.0 < self.settings.busy + CONVERGENCE_MAX {
            return Ok(());
        }
        let moving: Vec<_> = self.last_authors.iter().rev().take(10).collect();
        ensure(is_converged, CONVERGES, || {
            let waits = self.manager.what_waits(self.agenda.now());
            format!(
                "{}; the last writers were {moving:?}; {waits}",
                self.missing
            )
        })?;
        Err(Violation::new(
            QUIET,
            format!("the last writers were {moving:?}"),
        ))
    }

    /// A copy of the disk leads another member to the same store.
    fn check_replay(&mut self) -> Checked {
        use crate::manager::replica::Replica;
        let disk = self.manager.disk.fork(self.settings.options.seed);
        let salts = Random::new(!self.settings.options.seed, Purpose::Salts);
        let opened = Replica::open(&disk, &self.settings, salts, 1);
        let (replica, _) = opened.map_err(|error| Violation::new(REOPENS, format!("{error:?}")))?;
        let view = replica.store.view();
        crate::check::compare(&view, &self.checker.acked, crate::invariants::REPLICA)
    }
}

/// Transactions that may meet a refusal between two inspections: some for each loop. More come only
/// from somebody who asks again without waiting for anything.
const REFUSALS_MAX: u64 = 100;

/// A pause that keeps faults from striking at the same instant.
pub(crate) const FAULT_PAUSE: u64 = 10 * MS;
