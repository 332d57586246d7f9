//! Everything that a leader does, as one state machine without a runtime.
//!
//! # Owns
//! Which control loops there are, in which order they get their turn, and that each has at most
//! one transaction in flight; the objects that the first leader of a cluster creates.
//!
//! # Does not own
//! The decisions (`swarm-orchestrator`, `swarm-allocator`, `swarm-scheduler`, `swarm-dispatcher`),
//! the log, the clock, and the wires: `swarm-manager` drives this machine with tokio, `swarm-sim`
//! with virtual time.
//!
//! # Invariants
//! * I-LEADER-1: every commit is shown to every loop, in order.
//! * I-LEADER-2: every proposal is answered by exactly one outcome before its loop proposes again.
//! * A leader starts from a view alone: nothing survives from an earlier term.
//!
//! # Start reading at
//! [`Leader`].
//!
//! # SwarmKit counterpart
//! `becomeLeader` and `becomeFollower` in `manager/manager.go`. Intended differences: nothing is
//! left running after leadership is lost, because the machine is a value that is dropped; one
//! failing loop cannot go missing unnoticed.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod extras;
mod loops;
mod seed;

use swarm_api::v1;
use swarm_ca::expiry::Warning;
use swarm_ca::server::{JobId, Server, SignJob, Signed};
use swarm_dispatcher::{Dispatcher, Notices};
use swarm_reconcile::{Batch, Outcome, Queue, QueueStatus, Wake};
use swarm_store::{Commit, Root, WriteSet};
use swarm_types::{IdSource, Timestamp};

use loops::Loop;
pub use seed::{FirstRoot, Seed, seed};

/// Whose transaction it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A control loop, by its place in the order of turns.
    Loop(usize),
    /// The dispatcher.
    Dispatcher,
    /// The certificate authority.
    Ca,
}

/// A transaction that somebody wants committed; each set is applied or refused by itself.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// To whom the outcome belongs.
    pub origin: Origin,
    /// What to write.
    pub sets: Vec<WriteSet>,
}

/// The leader of a term.
pub struct Leader {
    loops: Vec<Box<dyn Loop>>,
    dispatcher: Dispatcher,
    ca: Server,
    /// The managers of the group, as far as nodes can dial them.
    managers: Vec<v1::Peer>,
    /// Whose turn is next, so that a busy loop cannot starve the others.
    turn: usize,
}

impl std::fmt::Debug for Leader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leader")
            .field("loops", &self.status())
            .finish_non_exhaustive()
    }
}

impl Leader {
    /// Starts a term from a view that holds everything committed so far. The managers are those of
    /// which the dispatcher was told; their weights, the keys and the trust root are read off the
    /// view.
    pub fn new(view: &Root, mut dispatcher: Dispatcher, ca: Server) -> Self {
        use swarm_orchestrator as orchestrator;
        let own = ca.own().cloned();
        let loops: Vec<Box<dyn Loop>> = vec![
            Box::new(Queue::new(orchestrator::Init::default(), view)),
            Box::new(Queue::new(orchestrator::Replicated::default(), view)),
            Box::new(Queue::new(orchestrator::Global::default(), view)),
            Box::new(Queue::new(swarm_allocator::Allocator::default(), view)),
            Box::new(Queue::new(swarm_scheduler::Scheduler::default(), view)),
            Box::new(Queue::new(orchestrator::ConstraintEnforcer, view)),
            Box::new(Queue::new(orchestrator::Reaper::default(), view)),
            Box::new(Queue::new(orchestrator::NetworkKeys, view)),
            Box::new(Queue::new(orchestrator::Roles::new(own), view)),
        ];
        let managers = extras::peers(dispatcher.extras());
        dispatcher.handle_extras(extras::of(view, &managers));
        Self {
            loops,
            dispatcher,
            ca,
            managers,
            turn: 0,
        }
    }

    /// The group of managers changed; the list is complete.
    pub fn set_managers(&mut self, view: &Root, managers: Vec<v1::Peer>) {
        self.managers = managers;
        self.tell_extras(view);
    }

    fn tell_extras(&mut self, view: &Root) {
        self.dispatcher
            .handle_extras(extras::of(view, &self.managers));
    }

    /// Shows a commit to everyone; `view` is at or after it.
    pub fn handle_commit(&mut self, now: Timestamp, commit: &Commit, view: &Root) {
        for each in &mut self.loops {
            each.handle_commit(commit, view);
        }
        self.dispatcher.handle_commit(now, commit, view);
        self.ca.handle_commit(now, commit, view);
        if extras::concerns(commit, &self.managers) {
            self.tell_extras(view);
        }
    }

    /// Commits were lost on the way: everyone looks at everything again.
    pub fn handle_lag(&mut self, now: Timestamp, view: &Root) {
        for each in &mut self.loops {
            each.handle_lag(view);
        }
        self.dispatcher.handle_lag(now, view);
        self.ca.handle_lag(now, view);
        self.tell_extras(view);
    }

    /// Lets everything happen whose time has come.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        for each in &mut self.loops {
            each.handle_timeout(now);
        }
        self.dispatcher.handle_timeout(now);
        self.ca.handle_timeout(now);
    }

    /// The next transaction that someone wants; call until it yields nothing.
    pub fn poll_proposal(
        &mut self,
        view: &Root,
        now: Timestamp,
        ids: &mut dyn IdSource,
    ) -> Option<Proposal> {
        let turns = self.loops.len() + 2;
        for _ in 0..turns {
            let turn = self.turn;
            self.turn = (self.turn + 1) % turns;
            let (origin, batch) = self.poll_turn(turn, view, now, ids);
            if let Some(batch) = batch {
                let sets = batch.sets;
                return Some(Proposal { origin, sets });
            }
        }
        None
    }

    /// The loops come first, then the dispatcher, then the certificate authority.
    fn poll_turn(
        &mut self,
        turn: usize,
        view: &Root,
        now: Timestamp,
        ids: &mut dyn IdSource,
    ) -> (Origin, Option<Batch>) {
        match turn.checked_sub(self.loops.len()) {
            None => {
                let batch = self.loops[turn].poll_transaction(view, now, ids);
                (Origin::Loop(turn), batch)
            }
            Some(0) => {
                let batch = self.dispatcher.poll_transaction(view, now);
                (Origin::Dispatcher, batch)
            }
            Some(_) => (Origin::Ca, self.ca.poll_transaction(view, now, ids)),
        }
    }

    /// Answers a proposal.
    pub fn handle_outcome(&mut self, now: Timestamp, origin: Origin, outcome: &Outcome) {
        match origin {
            Origin::Loop(turn) => self.loops[turn].handle_outcome(outcome),
            Origin::Dispatcher => self.dispatcher.handle_outcome(now, outcome),
            Origin::Ca => self.ca.handle_outcome(now, outcome),
        }
    }

    /// The earliest time at which something is to do, and why.
    pub fn poll_timeout(&self) -> Option<Wake> {
        self.loops
            .iter()
            .filter_map(|each| each.poll_timeout())
            .chain(self.dispatcher.poll_timeout())
            .chain(self.ca.poll_timeout())
            .min_by_key(|wake| wake.at)
    }

    /// The sessions of the nodes.
    pub fn dispatcher(&mut self) -> &mut Dispatcher {
        &mut self.dispatcher
    }

    /// The next certificate to be signed; call until it yields nothing. The result belongs to
    /// [`Leader::handle_signed`].
    pub fn poll_sign_job(&mut self, view: &Root) -> Option<SignJob> {
        self.ca.poll_sign_job(view)
    }

    /// Takes the result of a job.
    pub fn handle_signed(&mut self, now: Timestamp, id: JobId, signed: Signed) {
        self.ca.handle_signed(now, id, signed);
    }

    /// Certificates about which people are to be warned and were not yet.
    pub fn poll_warnings(&mut self, view: &Root, now: Timestamp) -> Vec<Warning> {
        self.ca.poll_warnings(view, now)
    }

    /// What was too large since somebody asked last: writes that were given up, and reports of
    /// nodes that were cut.
    pub fn take_notices(&mut self) -> Notices {
        let mut notices = self.dispatcher.take_notices();
        for each in &mut self.loops {
            notices.oversize.extend(each.take_oversize());
        }
        notices.oversize.extend(self.ca.take_oversize());
        notices
    }

    /// The certificate authority, to look at.
    pub fn ca(&self) -> &Server {
        &self.ca
    }

    /// Compares the caches of the loops with what they would build from the view (I-LOOP-4). To be
    /// asked only when every commit up to the view was shown. For the simulator.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn check_caches(&self, view: &Root) -> Result<(), String> {
        let drift = self.loops.iter().find_map(|each| each.cache_drift(view));
        drift.map_or(Ok(()), Err)
    }

    /// What each loop has to do.
    pub fn status(&self) -> Vec<QueueStatus> {
        self.loops.iter().map(|each| each.status()).collect()
    }
}
