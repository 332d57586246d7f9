//! The signing machine of the leader: which certificates are signed next, and what is written.
//!
//! A shell shows it every commit, takes [`SignJob`]s from it, signs wherever it likes, hands the
//! results back, and commits the transactions that the machine asks for. Signing is not done here,
//! because it takes time: a key of the cluster a tenth of a millisecond, an external authority
//! seconds.
//!
//! Owns the queue of certificates that need a signature, the bound on jobs under way, the pace of a
//! root rotation, and the warnings about certificates that were not renewed. Does not own who may
//! ask for a certificate (`requests`), or when a rotation is over (`rotation`).
//!
//! Difference from SwarmKit: a certificate is written only while the authority that signed it is
//! still the cluster's (the write requires the cluster object unchanged), so the end of a rotation
//! cannot be overtaken by a signature of the old root; a node whose signing failed goes to the end
//! of the queue, where SwarmKit shuffles.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use swarm_api::v1;
use swarm_reconcile::{Batch, OVERSIZE_KEPT_MAX, Outcome, Wake};
use swarm_store::{Action, Commit, Fit, Oversize, Room, Root, Write, WriteSet};
use swarm_types::{AnyObject, Cluster, IdSource, Node, NodeId, Timestamp, Version};
use v1::issuance_status::State;
use v1::node_spec::Membership;

use crate::expiry::{Warning, Watch};
use crate::issue::Subject;
use crate::issuer::Issuer;
use crate::refusal::shown;
use crate::{policy, requests, rotation, tokens};

/// Jobs under way at most: enough to keep an external authority busy, few enough to lose.
pub const SIGN_JOBS_MAX: usize = 16;
/// After a failure that may pass, nothing is signed for so long (spec 2.4).
pub const SIGN_RETRY_DELAY: Duration = Duration::from_secs(10);
/// After the log refused a whole transaction.
const LOG_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Names a job; never used twice by one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// A certificate to be signed.
#[derive(Clone, Debug, PartialEq)]
pub struct SignJob {
    /// The job.
    pub id: JobId,
    /// The request, as the node sent it.
    pub csr_pem: Bytes,
    /// Whom the certificate is for.
    pub subject: Subject,
    /// How long it is to live.
    pub expiry: Duration,
    /// Who signs. Jobs of one authority share it.
    pub issuer: Arc<Issuer>,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signed {
    /// With a certificate: the leaf and what belongs to it, in PEM.
    Issued(String),
    /// It may work later: the authority cannot be reached, or is not well.
    Recoverable(String),
    /// The request cannot be signed, now or later.
    Failed(String),
}

/// What the machine has to do, for status pages and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Certificates that wait for a signature.
    pub waiting: usize,
    /// Jobs under way.
    pub jobs: usize,
    /// Results that wait to be written.
    pub results: usize,
    /// Why nothing is signed at present, if so.
    pub trouble: Option<String>,
}

/// A finished job.
#[derive(Clone, Debug)]
struct Finished {
    job: SignJob,
    signed: Signed,
}

/// Whose write set it is.
#[derive(Clone, Debug)]
enum Item {
    Certificate(Finished),
    Rotation,
}

/// The machine, for one leader's term.
#[derive(Debug)]
pub struct Server {
    own: Option<NodeId>,
    /// The authority, and the version of the cluster object that named it.
    issuer: Option<Arc<Issuer>>,
    issuer_version: Option<Version>,
    waiting: VecDeque<NodeId>,
    /// The same nodes, to find out whether one is in there. At most one entry for each node.
    queued: BTreeSet<NodeId>,
    jobs: BTreeMap<JobId, SignJob>,
    job_last: u64,
    finished: VecDeque<Finished>,
    in_flight: Vec<Item>,
    /// Views below this version would show less than the machine knows.
    version_min: Version,
    /// Nothing is signed until then.
    pause_until: Option<Timestamp>,
    trouble: Option<String>,
    /// Nothing is written until then.
    log_retry_at: Option<Timestamp>,
    /// When nodes are asked to renew next; `None` without a rotation.
    tick_at: Option<Timestamp>,
    expiry: Watch,
    /// What no entry of the log can hold, until somebody asks.
    oversize: Vec<Oversize>,
}

impl Server {
    /// Starts a term. `own` is the leader's node.
    pub fn new(now: Timestamp, view: &Root, own: Option<NodeId>) -> Self {
        let mut server = Self {
            own,
            issuer: None,
            issuer_version: None,
            waiting: VecDeque::new(),
            queued: BTreeSet::new(),
            jobs: BTreeMap::new(),
            job_last: 0,
            finished: VecDeque::new(),
            in_flight: Vec::new(),
            version_min: view.version(),
            pause_until: None,
            trouble: None,
            log_retry_at: None,
            tick_at: None,
            expiry: Watch::new(now),
            oversize: Vec::new(),
        };
        server.look_at_all(now, view);
        server
    }

    /// The leader's node.
    pub fn own(&self) -> Option<&NodeId> {
        self.own.as_ref()
    }

    /// Takes notice of a commit; `view` is at or after it.
    pub fn handle_commit(&mut self, now: Timestamp, commit: &Commit, view: &Root) {
        self.version_min = self.version_min.max(commit.version);
        for change in &commit.changes {
            match &change.object {
                AnyObject::Node(node) => match change.action {
                    Action::Create | Action::Update => self.look_at(node),
                    Action::Remove => self.expiry.forget(&node.id),
                },
                AnyObject::Cluster(_) => self.look_at_cluster(now, view),
                AnyObject::Service(_)
                | AnyObject::Task(_)
                | AnyObject::Network(_)
                | AnyObject::Secret(_)
                | AnyObject::Config(_)
                | AnyObject::Resource(_)
                | AnyObject::Extension(_)
                | AnyObject::Volume(_) => {}
            }
        }
    }

    /// Commits were missed: looks at everything.
    pub fn handle_lag(&mut self, now: Timestamp, view: &Root) {
        self.version_min = self.version_min.max(view.version());
        self.look_at_all(now, view);
    }

    /// Lets pauses end whose time has come.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.pause_until = self.pause_until.filter(|at| now < *at);
        self.log_retry_at = self.log_retry_at.filter(|at| now < *at);
    }

    /// The next certificate to be signed. Call until it yields nothing.
    pub fn poll_sign_job(&mut self, view: &Root) -> Option<SignJob> {
        let is_paused = self.pause_until.is_some() || self.jobs.len() >= SIGN_JOBS_MAX;
        if is_paused || self.waiting.is_empty() || view.version() < self.version_min {
            return None;
        }
        let cluster = view.cluster()?;
        self.refresh_issuer(cluster);
        let Some(issuer) = self.issuer.clone() else {
            self.trouble = Some("no valid signer for the certificates of nodes found".to_owned());
            return None;
        };
        while let Some(id) = self.waiting.pop_front() {
            self.queued.remove(&id);
            let Some(certificate) = view.node(&id).and_then(|node| to_sign(node)) else {
                continue;
            };
            if self.is_under_way(&id) {
                // Its end looks at the node again.
                continue;
            }
            self.job_last += 1;
            let job = SignJob {
                id: JobId(self.job_last),
                csr_pem: certificate.csr.clone(),
                subject: Subject {
                    node: id,
                    cluster: cluster.id.clone(),
                    role: role_of(certificate),
                },
                expiry: policy::node_cert_expiry(cluster),
                issuer,
            };
            self.jobs.insert(job.id, job.clone());
            return Some(job);
        }
        None
    }

    /// Takes the result of a job. One that the machine does not know is not looked at.
    pub fn handle_signed(&mut self, now: Timestamp, id: JobId, signed: Signed) {
        let Some(job) = self.jobs.remove(&id) else {
            return;
        };
        self.trouble = None;
        if let Signed::Recoverable(reason) = &signed {
            self.enqueue(&job.subject.node);
            self.pause_until = Some(now.saturating_add(SIGN_RETRY_DELAY));
            self.trouble = Some(reason.clone());
        }
        self.finished.push_back(Finished { job, signed });
    }

    /// The next transaction, if there is something to write and the one before is through.
    pub fn poll_transaction(
        &mut self,
        view: &Root,
        now: Timestamp,
        ids: &mut dyn IdSource,
    ) -> Option<Batch> {
        let is_paused = self.log_retry_at.is_some() || !self.in_flight.is_empty();
        if is_paused || view.version() < self.version_min {
            return None;
        }
        let mut batch = Batch::default();
        let mut room = Room::default();
        self.pack_certificates(view, &mut room, &mut batch);
        if self.tick_at.is_some_and(|at| at <= now) {
            self.pack_rotation(view, now, ids, (&mut room, &mut batch));
        }
        (!batch.sets.is_empty()).then_some(batch)
    }

    /// Takes the result of the transaction in flight.
    pub fn handle_outcome(&mut self, now: Timestamp, outcome: &Outcome) {
        let items = std::mem::take(&mut self.in_flight);
        let mut given_up: &[usize] = &[];
        let refused = match outcome {
            Outcome::Committed { version, refused } => {
                self.version_min = self.version_min.max(*version);
                Some(refused)
            }
            Outcome::Parted {
                version,
                refused,
                oversize,
            } => {
                self.version_min = self.version_min.max(*version);
                given_up = oversize;
                Some(refused)
            }
            Outcome::Failed => {
                self.log_retry_at = Some(now.saturating_add(LOG_RETRY_DELAY));
                None
            }
        };
        for (position, item) in items.into_iter().enumerate() {
            if given_up.contains(&position) {
                continue;
            }
            let is_lost = refused.is_none_or(|refused| refused.contains(&position));
            // Nodes that were not asked are asked in a later tick.
            if let Item::Certificate(finished) = item {
                if is_lost {
                    self.finished.push_front(finished);
                } else {
                    // It may have asked again while it was written.
                    self.enqueue(&finished.job.subject.node);
                }
            }
        }
    }

    /// The certificates about which people are to be warned and were not yet.
    pub fn poll_warnings(&mut self, view: &Root, now: Timestamp) -> Vec<Warning> {
        self.expiry.poll(view, now)
    }

    /// The earliest time at which something is to do, and why.
    pub fn poll_timeout(&self) -> Option<Wake> {
        let mut wakes = vec![Wake {
            at: self.expiry.timeout(),
            why: "certificates are looked at for their end",
        }];
        let mut wake = |at: Option<Timestamp>, why| wakes.extend(at.map(|at| Wake { at, why }));
        wake(
            self.pause_until.filter(|_| !self.waiting.is_empty()),
            "signing failed and is tried again",
        );
        wake(
            self.log_retry_at.filter(|_| !self.finished.is_empty()),
            "the log refused certificates",
        );
        wake(
            self.tick_at
                .filter(|_| self.in_flight.is_empty())
                .map(|at| self.log_retry_at.map_or(at, |retry_at| retry_at.max(at))),
            "the root rotates",
        );
        wakes.into_iter().min_by_key(|wake| wake.at)
    }

    /// How much there is to do.
    pub fn status(&self) -> Status {
        Status {
            waiting: self.waiting.len(),
            jobs: self.jobs.len(),
            results: self.finished.len() + self.in_flight.len(),
            trouble: self.trouble.clone(),
        }
    }

    /// Checks that no certificate is forgotten (I-CA-1): every one in the view that needs a
    /// signature is in the machine. To be asked only when every commit up to the view was shown.
    ///
    /// # Errors
    /// The first one that is not, in words.
    pub fn check(&self, view: &Root) -> Result<(), String> {
        let mut nodes = view.all::<Node>().filter(|node| to_sign(node).is_some());
        let forgotten = nodes.find(|node| !self.queued.contains(&node.id) && !self.has(&node.id));
        forgotten.map_or(Ok(()), |node| {
            Err(format!("nobody signs the certificate of node {}", node.id))
        })
    }

    fn look_at_all(&mut self, now: Timestamp, view: &Root) {
        for node in view.all::<Node>() {
            self.look_at(node);
        }
        self.look_at_cluster(now, view);
    }

    fn look_at(&mut self, node: &Node) {
        if to_sign(node).is_some() {
            self.enqueue(&node.id);
        }
    }

    /// Another authority may be able to sign what the one before could not.
    fn look_at_cluster(&mut self, now: Timestamp, view: &Root) {
        let Some(cluster) = view.cluster() else {
            return;
        };
        if self.issuer_version != Some(cluster.meta.version) {
            self.refresh_issuer(cluster);
            self.pause_until = None;
            self.trouble = None;
        }
        let root_ca = cluster.root_ca.as_ref();
        if root_ca.is_some_and(|root_ca| root_ca.root_rotation.is_some()) {
            self.tick_at
                .get_or_insert_with(|| now.saturating_add(rotation::TICK));
        } else {
            self.tick_at = None;
        }
    }

    fn enqueue(&mut self, node: &NodeId) {
        if self.queued.insert(node.clone()) {
            self.waiting.push_back(node.clone());
        }
    }

    /// Keeps the shared value as long as the authority stays the same.
    fn refresh_issuer(&mut self, cluster: &Cluster) {
        if self.issuer_version == Some(cluster.meta.version) {
            return;
        }
        self.issuer_version = Some(cluster.meta.version);
        let issuer = Issuer::of(cluster);
        if self.issuer.as_deref() != issuer.as_ref() {
            self.issuer = issuer.map(Arc::new);
        }
    }

    fn is_under_way(&self, node: &NodeId) -> bool {
        self.jobs.values().any(|job| job.subject.node == *node)
    }

    fn has(&self, node: &NodeId) -> bool {
        let in_flight = self.in_flight.iter().filter_map(|item| match item {
            Item::Certificate(finished) => Some(finished),
            Item::Rotation => None,
        });
        let mut results = self.finished.iter().chain(in_flight);
        self.is_under_way(node) || results.any(|finished| finished.job.subject.node == *node)
    }

    fn pack_certificates(&mut self, view: &Root, room: &mut Room, batch: &mut Batch) {
        let Some(cluster) = view.cluster() else {
            return;
        };
        if self.finished.is_empty() {
            return;
        }
        self.refresh_issuer(cluster);
        while let Some(finished) = self.finished.pop_front() {
            let node = &finished.job.subject.node;
            let is_current = self.issuer.as_deref() == Some(&*finished.job.issuer);
            let written = view.node(node).filter(|_| is_current);
            let Some(node) = written.and_then(|stored| with_result(stored, &finished)) else {
                let node = node.clone();
                self.enqueue(&node);
                continue;
            };
            let set = vec![Write::require(&**cluster), Write::update(node)];
            match room.take(&set) {
                Fit::Yes => {
                    batch.sets.push(WriteSet(set));
                    self.in_flight.push(Item::Certificate(finished));
                }
                Fit::Full => {
                    self.finished.push_front(finished);
                    return;
                }
                Fit::Never(oversize) => self.give_up(oversize),
            }
        }
    }

    /// A node whose object has no room for a certificate asks in vain, until it asks again.
    fn give_up(&mut self, oversize: Oversize) {
        if self.oversize.len() < OVERSIZE_KEPT_MAX {
            self.oversize.push(oversize);
        }
    }

    /// What no entry of the log can hold and was given up since somebody asked last.
    pub fn take_oversize(&mut self) -> Vec<Oversize> {
        std::mem::take(&mut self.oversize)
    }

    /// What does not fit is asked in a later tick.
    fn pack_rotation(
        &mut self,
        view: &Root,
        now: Timestamp,
        ids: &mut dyn IdSource,
        (room, batch): (&mut Room, &mut Batch),
    ) {
        self.tick_at = None;
        let Some(cluster) = view.cluster() else {
            return;
        };
        let Some(survey) = rotation::survey(view, now, self.own.as_ref()) else {
            return;
        };
        self.tick_at = Some(now.saturating_add(rotation::TICK));
        let writes: Vec<Write> = if survey.is_complete() {
            let secrets = [tokens::secret(ids), tokens::secret(ids)];
            let done = rotation::completed(cluster, secrets);
            done.map(Write::update).into_iter().collect()
        } else {
            let asked = survey.next(now).into_iter();
            asked
                .map(|node| Write::update(rotation::asked(node)))
                .collect()
        };
        for write in writes {
            let set = vec![write];
            match room.take(&set) {
                Fit::Yes => batch.sets.push(WriteSet(set)),
                Fit::Full => break,
                Fit::Never(oversize) => self.give_up(oversize),
            }
        }
        self.in_flight.resize(batch.sets.len(), Item::Rotation);
    }
}

/// The certificate of a node, if it needs a signature (spec 2.4).
fn to_sign(node: &Node) -> Option<&v1::Certificate> {
    let needs = match requests::state(node) {
        State::Renew => true,
        State::Pending => node.spec.membership == Membership::Accepted as i32,
        State::Unknown | State::Issued | State::Failed | State::Rotate => false,
    };
    node.certificate.as_deref().filter(|_| needs)
}

/// A role that this version does not know is the weaker one.
fn role_of(certificate: &v1::Certificate) -> v1::NodeRole {
    v1::NodeRole::try_from(certificate.role).unwrap_or(v1::NodeRole::Worker)
}

/// The node with a result; `None` when it does not ask for this any more.
fn with_result(stored: &Node, finished: &Finished) -> Option<Node> {
    let wanted = to_sign(stored)?;
    let job = &finished.job;
    if wanted.csr != job.csr_pem || role_of(wanted) != job.subject.role {
        return None;
    }
    let mut certificate = wanted.clone();
    let (state, err) = match &finished.signed {
        Signed::Issued(chain_pem) => {
            certificate.certificate = Bytes::copy_from_slice(chain_pem.as_bytes());
            (State::Issued, String::new())
        }
        Signed::Failed(reason) => (State::Failed, shown(reason)),
        // It goes on waiting, and whoever looks at the node sees for what. Said once, not with each
        // attempt.
        Signed::Recoverable(reason) => {
            let err = shown(reason);
            let known = wanted.status.as_ref().is_some_and(|it| it.err == err);
            if known {
                return None;
            }
            (requests::state(stored), err)
        }
    };
    certificate.status = Some(v1::IssuanceStatus {
        state: state as i32,
        err,
    });
    let mut node = stored.clone();
    node.certificate = Some(Box::new(certificate));
    Some(node)
}

#[cfg(test)]
mod tests;
