//! The lives of the manager's process: how one starts on what the disk has, and how it ends.

use std::collections::{BTreeMap, VecDeque};

use swarm_ca::server::{JobId, SignJob};
use swarm_dispatcher::{SecretRequest, SecretRequestId};
use swarm_leader::{FirstRoot, Seed};
use swarm_raft::member::OpenError;
use swarm_raft::simdisk::Loss;
use swarm_types::Version;

use super::replica::{Author, Replica};
use super::term::Term;
use super::{Io, Manager, StreamEvent, TICK};
use crate::event::{ConnId, Event, ManagerEvent, Request};
use crate::identity::{Certificate, RootIx};
use crate::random::{Purpose, Random};
use crate::time::{Instant, S};
use crate::trace::Weight;

/// How long a process takes to start again after it could not open its log.
const START_AGAIN: u64 = S;

/// In so many of a thousand starts the power goes off again, if there are torn writes at all.
const START_TORN_PER_MILLE: u32 = 250;
/// Operations of the disk within which it does.
const START_OPERATIONS: u64 = 15;

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

/// One life of the process.
pub(crate) struct Process {
    pub(crate) replica: Replica,
    pub(crate) term: Option<Term>,
    pub(super) calls: VecDeque<(ConnId, Request, bool)>,
    pub(super) streams: VecDeque<StreamEvent>,
    pub(super) is_turn_planned: bool,
    pub(super) is_pass_planned: bool,
    /// The first objects are on their way.
    pub(super) is_seeding: bool,
    pub(super) wake: Option<Instant>,
    /// Certificates that are being signed.
    pub(super) jobs: BTreeMap<JobId, SignJob>,
    /// Questions to secret drivers.
    pub(super) questions: BTreeMap<SecretRequestId, SecretRequest>,
    /// Answers that wait until the request is durable.
    pub(super) issues: BTreeMap<u64, (ConnId, String)>,
}

impl Manager {
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
    pub(super) fn begin_leading(&mut self, io: &mut Io<'_>) {
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
        let is_exact = death != Death::Power && !self.is_disk_armed;
        let acked = is_exact.then(|| process.replica.store.view().version());
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
        self.try_damage(acked);
        io.network.reset_manager(io.agenda, death == Death::Power);
        // Another machine's time server, or the same one after a repair.
        if self.random.happens(300) {
            let offset = i64::try_from(self.settings.faults.clock_offset.as_nanos()).unwrap_or(0);
            let jump = self.random.below(2 * offset.unsigned_abs() + 1);
            self.clock.offset = i64::try_from(jump).unwrap_or(0) - offset;
        }
    }
}
