//! Renewal while the node runs.

use std::sync::Arc;
use std::time::Duration;

use swarm_agent_io::Told;
use swarm_api::v1;
use swarm_rt::tls::Credentials;
use swarm_rt::{Clock, OnError, Shutdown, Tasks};
use tokio::sync::watch;
use v1::NodeRole;
use v1::issuance_status::State;

use super::fake::{self, Fake, NODE, node_of};
use super::within;
use crate::certificates::{Certificates, Pair};
use crate::identity::node_tls;
use crate::known_managers::KnownManagers;
use crate::renewal::{Parts, Renewer, Way};

const DAY: Duration = Duration::from_secs(24 * 3600);

struct Renewing {
    directory: tempfile::TempDir,
    certificates: Certificates,
    credentials: Credentials,
    told: watch::Sender<Told>,
    tasks: Tasks,
}

impl Renewing {
    /// A worker whose certificate is `age` old and was made for a day.
    fn start(fake: &Fake, age: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let certificates = Certificates::open(directory.path()).unwrap();
        let clock = Clock::new();
        let at = clock.now().saturating_sub(age);
        let (root_pem, pair) = {
            let state = fake.behaviour();
            let (chain_pem, key_pem) = fake::issue(&state.signer, NODE, NodeRole::Worker, DAY, at);
            (state.root_pem.clone(), Pair { chain_pem, key_pem })
        };
        certificates.save_root(&root_pem).unwrap();
        certificates.save(&pair).unwrap();
        let credentials = Credentials::new(node_tls(&pair, &root_pem)).unwrap();
        let (told, heard) = watch::channel(Told::default());
        let renewer = Renewer::new(Parts {
            credentials: credentials.clone(),
            certificates: certificates.clone(),
            known: KnownManagers::new(directory.path()),
            way: Way::Remote,
            clock,
            told: heard,
            hurry: Arc::default(),
            managers: vec![fake.address.clone()],
        });
        let tasks = Tasks::new(Shutdown::new());
        let stop = tasks.shutdown().clone();
        tasks.spawn("renewal", OnError::Stop, async move {
            tokio::select! {
                () = renewer.run() => {}
                () = stop.begun() => {}
            }
            Ok(())
        });
        Self {
            directory,
            certificates,
            credentials,
            told,
            tasks,
        }
    }

    fn tell(&self, state: State, wanted: NodeRole) {
        let node = fake::node_object(state, wanted);
        self.told
            .send_modify(|told| told.node = Some(Arc::new(node)));
    }

    /// Waits until the credentials are no longer `before`; what is on disk is the same.
    async fn renewed(&self, before: &str) -> String {
        within(async {
            loop {
                let chain = self.credentials.chain_pem();
                if chain != before {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        let on_disk = self
            .certificates
            .load(None)
            .unwrap()
            .pair
            .unwrap()
            .chain_pem;
        assert_eq!(on_disk, self.credentials.chain_pem());
        on_disk
    }
}

#[tokio::test]
async fn a_certificate_past_four_fifths_of_its_life_is_renewed_at_once() {
    let fake = Fake::start().await;
    let renewing = Renewing::start(&fake, DAY * 4 / 5 + Duration::from_secs(3600));
    let before = renewing.credentials.chain_pem();
    let after = renewing.renewed(&before).await;
    assert_eq!(node_of(&after), NODE);
    // With its certificate and without a token.
    assert_eq!(fake.behaviour().asked, [(String::new(), Some(NODE.into()))]);
    renewing.tasks.finish(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn a_renewal_that_fails_is_tried_again() {
    let fake = Fake::start().await;
    fake.behaviour().aborted_calls = 1;
    let renewing = Renewing::start(&fake, Duration::ZERO);
    let before = renewing.credentials.chain_pem();
    renewing.tell(State::Rotate, NodeRole::Worker);
    renewing.renewed(&before).await;
    assert_eq!(fake.behaviour().asked.len(), 2);
}

#[tokio::test]
async fn the_root_changes_in_two_halves() {
    let fake = Fake::start().await;
    let renewing = Renewing::start(&fake, Duration::ZERO);
    let old_root = renewing.credentials.root_pem();
    let before = renewing.credentials.chain_pem();

    // A root that does not vouch for the certificate is not installed.
    let (stranger, _, _) = fake::authority(Clock::new().now());
    let stranger: Arc<[u8]> = Arc::from(stranger.as_bytes());
    renewing
        .told
        .send_modify(|told| told.root_ca = Some(stranger));

    let new_root = fake.begin_rotation(Clock::new().now());
    renewing.tell(State::Rotate, NodeRole::Worker);
    let after = renewing.renewed(&before).await;
    assert_eq!(after.matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(renewing.credentials.root_pem(), old_root);

    let pem: Arc<[u8]> = Arc::from(new_root.as_bytes());
    renewing.told.send_modify(|told| told.root_ca = Some(pem));
    within(async {
        while renewing.credentials.root_pem() != new_root {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let on_disk = renewing.certificates.load(None).unwrap().root_pem;
    assert_eq!(on_disk.as_deref(), Some(&*new_root));
    assert_eq!(renewing.credentials.chain_pem(), after);
}

#[tokio::test]
async fn the_managers_that_are_told_are_kept_for_the_next_start() {
    let fake = Fake::start().await;
    let renewing = Renewing::start(&fake, Duration::ZERO);
    let managers = vec![("m".to_owned(), "other:1".to_owned())];
    renewing.told.send_modify(|told| told.managers = managers);
    let file = KnownManagers::new(renewing.directory.path());
    within(async {
        while file.load().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(file.load()[0].addr, "other:1");
}
