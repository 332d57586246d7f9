use swarm_ca::issue::Signer;

use super::*;
use crate::certificates::Pair;
use crate::tests::fake::{self, Fake};

struct Rig {
    renewer: Renewer,
    told: watch::Sender<Told>,
    _directory: tempfile::TempDir,
}

impl Rig {
    /// A node that has a fresh certificate and does not run by itself.
    fn new(role: NodeRole, way: Way) -> Self {
        let (root_pem, _, signer) = fake::authority(Clock::new().now());
        Self::of(&root_pem, &signer, role, way, Vec::new())
    }

    /// One that asks this manager.
    fn asking(fake: &Fake, role: NodeRole, way: Way) -> Self {
        let state = fake.behaviour();
        let managers = vec![fake.address.clone()];
        Self::of(&state.root_pem, &state.signer, role, way, managers)
    }

    fn of(
        root_pem: &str,
        signer: &Signer,
        role: NodeRole,
        way: Way,
        managers: Vec<String>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::new();
        let day = Duration::from_secs(24 * 3600);
        let (chain_pem, key_pem) = fake::issue(signer, fake::NODE, role, day, clock.now());
        let pair = Pair { chain_pem, key_pem };
        let certificates = Certificates::open(directory.path()).unwrap();
        certificates.save_root(root_pem).unwrap();
        let (told, heard) = watch::channel(Told::default());
        let renewer = Renewer::new(Parts {
            credentials: Credentials::new(node_tls(&pair, root_pem)).unwrap(),
            certificates,
            known: KnownManagers::new(directory.path()),
            way,
            clock,
            told: heard,
            hurry: Arc::default(),
            managers,
        });
        Self {
            renewer,
            told,
            _directory: directory,
        }
    }

    /// One attempt, which counts or does not.
    async fn attempt(&mut self) -> bool {
        self.renewer.attempt().await;
        self.renewer.failures == 0
    }

    /// The root, in memory and on disk.
    fn root(&self) -> String {
        let root_pem = self.renewer.credentials.root_pem();
        let on_disk = self.renewer.certificates.load(None).unwrap().root_pem;
        assert_eq!(on_disk.as_deref(), Some(&*root_pem));
        root_pem
    }

    async fn hear(&mut self, state: State, wanted: NodeRole) -> &Renewer {
        let node = fake::node_object(state, wanted);
        self.told
            .send_modify(|told| told.node = Some(Arc::new(node)));
        self.renewer.hear().await;
        &self.renewer
    }
}

#[tokio::test]
async fn only_a_wish_of_the_manager_moves_the_planned_time() {
    let mut rig = Rig::new(NodeRole::Worker, Way::Remote);
    let planned = rig.renewer.due;
    let now = rig.renewer.clock.now();
    assert!(planned > now.saturating_add(Duration::from_secs(10 * 3600)));
    for state in [State::Issued, State::Renew, State::Pending, State::Failed] {
        assert_eq!(rig.hear(state, NodeRole::Worker).await.due, planned);
    }
    let asked = rig.hear(State::Rotate, NodeRole::Worker).await;
    assert!(asked.is_forced);
    let wait = asked.due.saturating_since(now);
    assert!(wait >= FORCED_RENEWAL_DELAY && wait < Duration::from_secs(10));
    // Being told again does not push it away.
    let due = asked.due;
    assert_eq!(rig.hear(State::Rotate, NodeRole::Worker).await.due, due);
}

#[tokio::test]
async fn a_promoted_worker_stays_what_it_is() {
    let mut rig = Rig::new(NodeRole::Worker, Way::Remote);
    let planned = rig.renewer.due;
    let promoted = rig.hear(State::Issued, NodeRole::Manager).await;
    assert_eq!((promoted.due, promoted.expected), (planned, None));
    // When the wish is taken back, nothing is left to do but to look once.
    let demoted = rig.hear(State::Issued, NodeRole::Worker).await;
    assert_eq!(demoted.expected, Some(NodeRole::Worker));
}

#[tokio::test]
async fn another_role_is_expected_as_soon_as_it_is_wanted() {
    let socket = Way::Local("/nowhere".into());
    let mut rig = Rig::new(NodeRole::Manager, socket);
    let changed = rig.hear(State::Issued, NodeRole::Worker).await;
    assert_eq!(changed.expected, Some(NodeRole::Worker));
    assert!(changed.is_forced);
}

#[tokio::test]
async fn a_renewal_counts_once_the_certificate_has_the_expected_role() {
    let fake = Fake::start().await;
    fake.behaviour().role = NodeRole::Manager;
    let mut rig = Rig::asking(&fake, NodeRole::Manager, Way::Remote);
    rig.hear(State::Issued, NodeRole::Worker).await;
    for failures in 1..=2 {
        assert!(!rig.attempt().await);
        let renewer = &rig.renewer;
        assert_eq!(renewer.failures, failures);
        assert_eq!(renewer.expected, Some(NodeRole::Worker));
        assert!(renewer.is_forced);
        let pause = renewer.due.saturating_since(renewer.clock.now());
        assert!(pause < Duration::from_secs(3600), "{pause:?}");
    }
    fake.behaviour().role = NodeRole::Worker;
    assert!(rig.attempt().await);
    assert_eq!((rig.renewer.expected, rig.renewer.is_forced), (None, false));
    let role = role_of(&rig.renewer.credentials.identity());
    assert_eq!(role, NodeRole::Worker);
    assert_eq!(fake.behaviour().asked.len(), 3);
}

/// A rotation ended while the node did not listen.
#[tokio::test]
async fn a_worker_whose_root_is_unknown_to_its_next_certificate_gets_the_new_root() {
    let fake = Fake::start().await;
    let mut rig = Rig::asking(&fake, NodeRole::Worker, Way::Remote);
    let old = rig.root();
    let now = rig.renewer.clock.now();
    let new = fake.begin_rotation(now);
    assert!(rig.attempt().await);
    assert_eq!(rig.root(), old);
    fake.end_rotation(now);
    let before = fake.behaviour().asked.len();
    assert!(rig.attempt().await);
    assert_eq!(rig.root(), new);
    // What was issued before the root was there is not used.
    assert_eq!(fake.behaviour().asked.len(), before + 2);
    assert!(rig.attempt().await);
    assert_eq!(fake.behaviour().asked.len(), before + 3);
}

#[tokio::test]
async fn a_root_that_does_not_vouch_for_the_old_certificate_is_not_believed() {
    let fake = Fake::start().await;
    let mut rig = Rig::asking(&fake, NodeRole::Worker, Way::Remote);
    let old = rig.root();
    let chain = rig.renewer.credentials.chain_pem();
    let (root_pem, _, signer) = fake::authority(rig.renewer.clock.now());
    {
        let mut state = fake.behaviour();
        (state.root_pem, state.signer) = (root_pem, signer);
    }
    assert!(!rig.attempt().await);
    assert_eq!(rig.root(), old);
    assert_eq!(rig.renewer.credentials.chain_pem(), chain);
}

#[tokio::test]
async fn neither_another_failure_nor_the_node_of_a_manager_asks_for_a_root() {
    let fake = Fake::start().await;
    let mut worker = Rig::asking(&fake, NodeRole::Worker, Way::Remote);
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    fake.serve_local(&socket).await;
    let mut manager = Rig::asking(&fake, NodeRole::Manager, Way::Local(socket));
    let old = worker.root();
    let (next, _, signer) = fake::authority(worker.renewer.clock.now());
    {
        // It vouches for every certificate, so nothing else keeps it out.
        let mut state = fake.behaviour();
        state.root_pem = format!("{old}{next}");
        state.signer = signer;
        state.tokens.push(String::new());
        state.role = NodeRole::Manager;
        state.aborted_calls = 1;
    }
    assert!(!worker.attempt().await);
    assert_eq!(worker.root(), old);
    // The store of its own manager has the root, and tells it in the session.
    assert!(!manager.attempt().await);
    assert_eq!(manager.root(), old);
    assert_eq!(fake.behaviour().asked.len(), 2);
}

#[tokio::test]
async fn a_certificate_of_another_node_or_cluster_is_not_taken() {
    let fake = Fake::start().await;
    let mut rig = Rig::asking(&fake, NodeRole::Worker, Way::Remote);
    let chain = rig.renewer.credentials.chain_pem();
    fake.behaviour().impostor = Some("another");
    assert!(!rig.attempt().await);
    fake.behaviour().impostor = None;
    fake.behaviour().cluster = "another";
    assert!(!rig.attempt().await);
    assert_eq!(rig.renewer.credentials.chain_pem(), chain);
    // Nothing was written either.
    assert!(rig.renewer.certificates.load(None).unwrap().pair.is_none());
    fake.behaviour().cluster = fake::CLUSTER;
    assert!(rig.attempt().await);
    assert_ne!(rig.renewer.credentials.chain_pem(), chain);
}
