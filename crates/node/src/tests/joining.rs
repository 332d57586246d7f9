//! How a node gets its identity, and what is left on disk.

use std::path::Path;
use std::time::Duration;

use swarm_agent_io::Remotes;
use swarm_api::{ext, v1};
use swarm_ca::root::RootBundle;
use swarm_ca::token::JoinToken;
use swarm_rt::Clock;
use swarm_rt::net::Address;
use swarm_rt::tls::{Security, ServerName};
use v1::NodeRole;
use v1::issuance_status::State;

use super::fake::{self, CLUSTER, Fake, NODE};
use super::within;
use crate::certificates::{Certificates, Pair};
use crate::identity::{Identity, IdentityError, Join, Part, Start};
use crate::joining_key::{self, KeyRequest};
use crate::known_managers::{KnownManagers, Peer};
use crate::obtain::{Asker, CALL_TIMEOUT, Wish};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Whether an external authority signs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum External {
    Yes,
    No,
}

struct Place {
    directory: tempfile::TempDir,
    certificates: Certificates,
    clock: Clock,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            certificates: Certificates::open(directory.path()).unwrap(),
            directory,
            clock: Clock::new(),
        }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    async fn start(&self, join: Join) -> Result<Identity, IdentityError> {
        self.start_with(join, External::No).await
    }

    async fn start_with(&self, join: Join, external: External) -> Result<Identity, IdentityError> {
        let start = Start {
            state_dir: self.path(),
            join: &join,
            availability: v1::node_spec::Availability::Active,
            has_external_ca: external == External::Yes,
            certificates: &self.certificates,
            unlock_key: None,
            clock: &self.clock,
        };
        within(start.identity()).await
    }

    async fn refused(&self, join: Join) -> String {
        let error = self.start(join).await.unwrap_err();
        swarm_rt::chain(&error).to_string()
    }

    fn is_empty(&self) -> bool {
        let entries = std::fs::read_dir(self.path().join("certificates")).unwrap();
        entries.count() == 0
    }

    /// Puts an identity of before there.
    fn prepare(&self, fake: &Fake, role: NodeRole, age: Duration) {
        let at = self.clock.now().saturating_sub(age);
        let state = fake.behaviour();
        let (chain_pem, key_pem) = fake::issue(&state.signer, NODE, role, DAY, at);
        self.certificates.save_root(&state.root_pem).unwrap();
        self.certificates
            .save(&Pair { chain_pem, key_pem })
            .unwrap();
    }
}

fn join(fake: &Fake, token: Option<String>) -> Join {
    Join {
        address: Some(fake.address.clone()),
        token,
    }
}

#[tokio::test]
async fn a_token_leads_to_a_certificate_that_the_next_start_finds() {
    let (fake, place) = (Fake::start().await, Place::new());
    fake.behaviour().pending_looks = 1;
    fake.behaviour().foreign_looks = 1;
    fake.behaviour().aborted_calls = 1;
    let identity = place.start(join(&fake, Some(fake.token()))).await.unwrap();
    assert_eq!(identity.node.to_string(), NODE);
    assert_eq!(identity.cluster.to_string(), CLUSTER);
    assert!(matches!(identity.part, Part::Worker));
    assert_eq!(identity.managers, std::slice::from_ref(&fake.address));

    let asked = fake.behaviour().asked.len();
    let again = place.start(Join::default()).await.unwrap();
    assert_eq!(again.managers, identity.managers);
    assert_eq!(again.node, identity.node);
    assert_eq!(
        again.credentials.chain_pem(),
        identity.credentials.chain_pem()
    );
    // With certificates on disk a token is not used.
    place.start(join(&fake, Some(fake.token()))).await.unwrap();
    assert_eq!(fake.behaviour().asked.len(), asked);
    assert!(!place.path().join(joining_key::FILE).exists());
}

#[tokio::test]
async fn a_new_token_with_an_old_directory_is_refused_with_the_ways_out() {
    let (fake, place) = (Fake::start().await, Place::new());
    place.start(join(&fake, Some(fake.token()))).await.unwrap();
    let root = fake.behaviour().root_pem.clone();
    let new = JoinToken::generate(root.as_bytes(), [7; 16]).to_string();
    let other_cluster = JoinToken::generate(b"other", [1; 16]).to_string();
    for token in [&new, &other_cluster] {
        let refusal = place.refused(join(&fake, Some(token.clone()))).await;
        assert!(refusal.contains(NODE), "{refusal}");
        assert!(refusal.contains("swarmd leave --state-dir"), "{refusal}");
        assert!(refusal.contains("without --join-token"), "{refusal}");
    }
    // A token that would readmit this very node is meant for it, needed or not.
    fake.behaviour().about_token = Some(ext::CheckJoinTokenResponse {
        valid: true,
        role: "worker".to_owned(),
        node_id: NODE.to_owned(),
        ..Default::default()
    });
    place.start(join(&fake, Some(new))).await.unwrap();

    // A directory of which nobody wrote down how it came takes the first token for that.
    fake.behaviour().about_token = None;
    let old = Place::new();
    old.prepare(&fake, NodeRole::Worker, Duration::ZERO);
    old.start(join(&fake, Some(fake.token()))).await.unwrap();
    let refusal = old.refused(join(&fake, Some(other_cluster))).await;
    assert!(refusal.contains("swarmd leave"), "{refusal}");

    let manager = Place::new();
    manager.prepare(&fake, NodeRole::Manager, Duration::ZERO);
    let token = Join {
        address: None,
        token: Some(fake.token()),
    };
    let refusal = manager.refused(token).await;
    assert!(refusal.contains("without --join-token"), "{refusal}");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_request() {
    let (fake, place) = (Fake::start().await, Place::new());
    fake.behaviour().aborted_calls = 1;
    let cut_short = joining_key::JoiningKey::new(place.path()).take().unwrap();
    place.start(join(&fake, Some(fake.token()))).await.unwrap();
    let requests = fake.behaviour().requests_taken.clone();
    assert_eq!(requests, vec![cut_short.request.into_bytes(); 2]);
}

#[tokio::test]
async fn a_manager_that_writes_slowly_is_asked_for_one_certificate() {
    let (fake, place) = (Fake::start().await, Place::new());
    fake.behaviour().takes = CALL_TIMEOUT + Duration::from_secs(1);
    let identity = place.start(join(&fake, Some(fake.token()))).await.unwrap();
    assert_eq!(identity.node.to_string(), NODE);
    assert_eq!(fake.behaviour().asked.len(), 1);
}

#[tokio::test]
async fn a_worker_starts_again_with_the_managers_that_it_knows() {
    let (fake, place) = (Fake::start().await, Place::new());
    place.prepare(&fake, NodeRole::Worker, Duration::ZERO);
    let nobody = Join::default();
    let refusal = place.refused(nobody.clone()).await;
    assert!(refusal.contains("belongs to a worker"), "{refusal}");
    assert!(refusal.contains("--join-addr"), "{refusal}");
    let peer = Peer {
        node_id: "m".to_owned(),
        addr: "m:1".to_owned(),
    };
    KnownManagers::new(place.path()).save(&[peer]).unwrap();
    let identity = place.start(nobody).await.unwrap();
    assert_eq!(identity.managers, ["m:1"]);
}

#[tokio::test]
async fn tokens_that_do_not_fit_leave_nothing_behind() {
    let (fake, place) = (Fake::start().await, Place::new());
    let root = fake.behaviour().root_pem.clone();
    let wrong_secret = JoinToken::generate(root.as_bytes(), [2; 16]).to_string();
    let other_cluster = JoinToken::generate(b"other", [1; 16]).to_string();
    let fips = JoinToken::generate_fips(root.as_bytes(), [1; 16]).to_string();
    for (token, words) in [
        (wrong_secret, "A valid join token is necessary"),
        (other_cluster, "remote CA does not match fingerprint"),
        (fake.token()[..80].to_owned(), "invalid join token"),
        (fips, "not FIPS-enabled"),
    ] {
        let refusal = place.refused(join(&fake, Some(token.clone()))).await;
        assert!(refusal.contains(words), "{refusal}");
        assert!(!refusal.contains(&token[60..]), "a secret is in {refusal}");
        assert!(place.is_empty());
    }
    let refusal = place.refused(join(&fake, None)).await;
    assert!(refusal.contains("A valid join token"), "{refusal}");
    assert!(place.is_empty());
}

#[tokio::test]
async fn a_token_is_asked_about_before_it_is_used() {
    let (fake, place) = (Fake::start().await, Place::new());
    let about = |valid, role: &str, node_id: &str| ext::CheckJoinTokenResponse {
        valid,
        reason: "it expired yesterday".to_owned(),
        role: role.to_owned(),
        node_id: node_id.to_owned(),
        ..Default::default()
    };
    for (answer, words) in [
        (about(false, "", ""), "it expired yesterday"),
        (about(true, "manager", ""), "a second manager cannot run"),
        (about(true, "worker", NODE), "not in this directory"),
    ] {
        fake.behaviour().about_token = Some(answer);
        let refusal = place.refused(join(&fake, Some(fake.token()))).await;
        assert!(refusal.contains(words), "{refusal}");
    }
    assert!(fake.behaviour().asked.is_empty() && place.is_empty());
    fake.behaviour().about_token = Some(about(true, "worker", ""));
    place.start(join(&fake, Some(fake.token()))).await.unwrap();
}

#[tokio::test]
async fn a_certificate_of_a_manager_is_not_half_used() {
    let (fake, place) = (Fake::start().await, Place::new());
    fake.behaviour().role = NodeRole::Manager;
    let refusal = place.refused(join(&fake, Some(fake.token()))).await;
    assert!(refusal.contains("a second manager cannot run"), "{refusal}");
    assert!(refusal.contains(&format!("node rm {NODE}")), "{refusal}");
    assert!(place.is_empty());
}

#[tokio::test]
async fn an_expired_node_says_what_to_do_and_comes_back_under_its_id() {
    let (fake, place) = (Fake::start().await, Place::new());
    place.prepare(&fake, NodeRole::Worker, 2 * DAY);
    let refusal = place.refused(join(&fake, None)).await;
    let command = format!("swarmctl node readmit {NODE}");
    assert!(refusal.contains(&command), "{refusal}");
    assert!(refusal.contains("--join-token"), "{refusal}");

    // A token for new nodes is found out, by the question or by what comes of it.
    fake.behaviour().about_token = Some(ext::CheckJoinTokenResponse {
        valid: true,
        role: "worker".to_owned(),
        ..Default::default()
    });
    let refusal = place.refused(join(&fake, Some(fake.token()))).await;
    assert!(refusal.contains(&command), "{refusal}");
    fake.behaviour().about_token = None;
    fake.behaviour().node = "another".to_owned();
    let refusal = place.refused(join(&fake, Some(fake.token()))).await;
    assert!(refusal.contains("node rm another"), "{refusal}");

    fake.behaviour().node = NODE.to_owned();
    let identity = place.start(join(&fake, Some(fake.token()))).await.unwrap();
    assert_eq!(identity.node.to_string(), NODE);
    assert!(identity.credentials.identity().not_after > place.clock.now());
    place.start(join(&fake, None)).await.unwrap();
}

#[tokio::test]
async fn a_node_that_a_rotation_left_behind_comes_back_with_a_token_for_it() {
    let (fake, place) = (Fake::start().await, Place::new());
    let first = place.start(join(&fake, Some(fake.token()))).await.unwrap();
    let old_root = first.credentials.root_pem();
    fake.change_root();
    // The token of long ago does nothing to a node that has a certificate, and one for new nodes
    // is refused.
    let about = |node_id: &str| ext::CheckJoinTokenResponse {
        valid: true,
        role: "worker".to_owned(),
        node_id: node_id.to_owned(),
        ..Default::default()
    };
    fake.behaviour().about_token = Some(about(""));
    let old_token = JoinToken::generate(old_root.as_bytes(), [1; 16]).to_string();
    let same = place.start(join(&fake, Some(old_token))).await.unwrap();
    assert_eq!(same.credentials.root_pem(), old_root);
    let refusal = place.refused(join(&fake, Some(fake.token()))).await;
    assert!(refusal.contains("swarmd leave"), "{refusal}");
    fake.behaviour().about_token = Some(about(NODE));
    let back = place.start(join(&fake, Some(fake.token()))).await.unwrap();
    assert_eq!(back.node.to_string(), NODE);
    assert_eq!(back.credentials.root_pem(), fake.behaviour().root_pem);
    place.start(Join::default()).await.unwrap();
}

#[tokio::test]
async fn a_certificate_from_the_future_is_a_question_of_the_clock() {
    let (fake, place) = (Fake::start().await, Place::new());
    let later = place.clock.now().saturating_add(10 * DAY);
    let (chain_pem, key_pem) = {
        let state = fake.behaviour();
        fake::issue(&state.signer, NODE, NodeRole::Worker, DAY, later)
    };
    let root = fake.behaviour().root_pem.clone();
    place.certificates.save_root(&root).unwrap();
    place
        .certificates
        .save(&Pair { chain_pem, key_pem })
        .unwrap();
    let refusal = place.refused(join(&fake, None)).await;
    assert!(refusal.contains("set the clock"), "{refusal}");
}

#[tokio::test]
async fn a_certificate_of_another_root_is_refused() {
    let (fake, other, place) = (Fake::start().await, Fake::start().await, Place::new());
    place.prepare(&fake, NodeRole::Worker, Duration::ZERO);
    let root = other.behaviour().root_pem.clone();
    place.certificates.save_root(&root).unwrap();
    let refusal = place.refused(join(&fake, None)).await;
    assert!(refusal.contains("swarm-node.crt"), "{refusal}");
    assert!(refusal.contains("unknown authority"), "{refusal}");
}

#[tokio::test]
async fn a_directory_of_a_manager_does_not_join() {
    let (fake, place) = (Fake::start().await, Place::new());
    place.prepare(&fake, NodeRole::Manager, Duration::ZERO);
    let refusal = place.refused(join(&fake, Some(fake.token()))).await;
    assert!(refusal.contains("belongs to a manager"), "{refusal}");
    // Without an address it goes on, even long after its certificate expired.
    std::fs::create_dir(place.path().join("manager")).unwrap();
    assert!(matches!(
        place.start(Join::default()).await.unwrap().part,
        Part::Manager(None)
    ));
    place.prepare(&fake, NodeRole::Manager, 5 * DAY);
    place.start(Join::default()).await.unwrap();
}

#[tokio::test]
async fn a_new_cluster_keeps_its_root_key_out_of_the_directory() {
    let place = Place::new();
    let identity = place.start(Join::default()).await.unwrap();
    let Part::Manager(Some(first)) = &identity.part else {
        panic!("{identity:?}");
    };
    let secret = first.key_pem.as_ref().unwrap().as_str();
    let secret = secret.lines().nth(1).unwrap();
    for entry in std::fs::read_dir(place.path().join("certificates")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains(secret));
    }
    assert!(identity.credentials.identity().is_manager());

    // The key is lost with the process until the store has it: the cluster begins once more.
    let again = place.start(Join::default()).await.unwrap();
    assert_eq!(
        (&again.node, &again.cluster),
        (&identity.node, &identity.cluster)
    );
    assert!(matches!(again.part, Part::Manager(Some(_))));
    place.certificates.end_first_start().unwrap();
    std::fs::create_dir(place.path().join("manager")).unwrap();
    let later = place.start(Join::default()).await.unwrap();
    assert!(matches!(later.part, Part::Manager(None)));
}

#[tokio::test]
async fn a_prepared_manager_needs_somebody_who_signs() {
    let (fake, place) = (Fake::start().await, Place::new());
    place.prepare(&fake, NodeRole::Manager, Duration::ZERO);
    let refusal = place.refused(Join::default()).await;
    assert!(refusal.contains("--external-ca"), "{refusal}");
    let prepared = place.start_with(Join::default(), External::Yes).await;
    let Part::Manager(Some(first)) = prepared.unwrap().part else {
        panic!("it founds the cluster of its root");
    };
    assert_eq!(first.cert_pem, fake.behaviour().root_pem);
    assert!(first.key_pem.is_none());

    let path = place.path().join("certificates/swarm-root-ca.key");
    let (_, other_key, _) = fake::authority(place.clock.now());
    std::fs::write(&path, other_key.as_bytes()).unwrap();
    let refusal = place.refused(Join::default()).await;
    assert!(refusal.contains("key mismatch"), "{refusal}");

    // Later, the cluster has the setting.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(place.path().join("manager")).unwrap();
    let late = place.start_with(Join::default(), External::Yes).await;
    let late = late.unwrap_err().to_string();
    assert!(late.contains("swarmctl cluster update"), "{late}");
}

#[tokio::test]
async fn a_log_without_its_certificate_is_left_alone() {
    let (fake, place) = (Fake::start().await, Place::new());
    std::fs::create_dir(place.path().join("manager")).unwrap();
    for join in [Join::default(), join(&fake, Some(fake.token()))] {
        let refusal = place.refused(join).await;
        assert!(refusal.contains("restore"), "{refusal}");
    }
    assert!(place.is_empty());
}

#[tokio::test]
async fn a_root_that_was_put_there_is_the_only_one_believed() {
    let (fake, other, place) = (Fake::start().await, Fake::start().await, Place::new());
    let root = other.behaviour().root_pem.clone();
    place.certificates.save_root(&root).unwrap();
    let refusal = place.refused(join(&fake, Some(fake.token()))).await;
    assert!(refusal.contains("remove the file"), "{refusal}");
    place
        .start(join(&other, Some(other.token())))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_request_that_failed_is_made_again() {
    let (fake, place) = (Fake::start().await, Place::new());
    fake.behaviour().failing_requests = 1;
    place.start(join(&fake, Some(fake.token()))).await.unwrap();
    assert_eq!(fake.behaviour().asked.len(), 2);
}

/// Takes the fifteen seconds of the waits in between.
#[tokio::test]
async fn five_requests_that_failed_are_the_end_of_it() {
    let (fake, place) = (Fake::start().await, Place::new());
    fake.behaviour().failing_requests = u32::MAX;
    let refusal = place.refused(join(&fake, Some(fake.token()))).await;
    assert!(
        refusal.contains("could not issue a certificate"),
        "{refusal}"
    );
    assert_eq!(fake.behaviour().asked.len(), 5);
    assert!(place.is_empty());
}

#[tokio::test]
async fn a_request_is_looked_at_elsewhere_when_the_manager_that_took_it_goes_away() {
    let first = Fake::start().await;
    let second = first.second().await;
    first.behaviour().goes_after_issuing = true;
    let root_pem = first.behaviour().root_pem.clone();
    let clock = Clock::new();
    let root = RootBundle::parse(root_pem.as_bytes(), clock.now()).unwrap();
    let mut remotes = Remotes::new([first.address.clone(), second.address.clone()]);
    for manager in [&first, &second] {
        // Both worked so far, so one failure makes the other one the better choice.
        remotes.observe(&Address::Tcp(manager.address.clone()), true);
    }
    let mut asker = Asker::new(remotes, clock);
    let wish = Wish {
        token: first.token(),
        availability: v1::node_spec::Availability::Active,
    };
    let security = Security::Verified(root_pem, ServerName::Ca);
    let key = KeyRequest::draw().unwrap();
    let obtained = within(asker.certificate(&root, &security, &wish, &key)).await;
    assert_eq!(obtained.unwrap().identity.node.to_string(), NODE);
    // The same request was finished: no second node was made for it.
    assert_eq!(first.behaviour().asked.len(), 1);
}

/// The cluster may want the next certificate before this one was fetched.
#[tokio::test]
async fn a_certificate_that_is_to_be_rotated_already_is_taken() {
    let (fake, place) = (Fake::start().await, Place::new());
    fake.behaviour().signed_state = State::Rotate;
    place.start(join(&fake, Some(fake.token()))).await.unwrap();
    assert_eq!(fake.behaviour().asked.len(), 1);
}

#[tokio::test]
async fn a_node_that_is_removed_before_it_has_its_certificate_does_not_wait_for_it() {
    let (fake, place) = (Fake::start().await, Place::new());
    fake.behaviour().forgets = true;
    let refusal = place.refused(join(&fake, Some(fake.token()))).await;
    assert!(refusal.contains("node not found"), "{refusal}");
    assert!(place.is_empty());
}

#[tokio::test]
async fn a_bundle_of_roots_is_believed_as_a_whole_or_not_at_all() {
    let (fake, place) = (Fake::start().await, Place::new());
    let (other, _, _) = fake::authority(place.clock.now());
    let one = fake.behaviour().root_pem.clone();
    let bundle = format!("{one}{other}");
    fake.behaviour().root_pem.clone_from(&bundle);
    // The token of one of the two roots is not for the bundle.
    let refusal = place.refused(join(&fake, Some(fake.token()))).await;
    assert!(refusal.contains("does not match fingerprint"), "{refusal}");
    assert!(place.is_empty());
    let token = JoinToken::generate(bundle.as_bytes(), [1; 16]).to_string();
    fake.behaviour().tokens = vec![token.clone()];
    let identity = place.start(join(&fake, Some(token))).await.unwrap();
    assert_eq!(identity.credentials.root_pem(), bundle);
    assert_eq!(
        place.certificates.load(None).unwrap().root_pem,
        Some(bundle)
    );
}

/// Without a token there is nothing to compare the root with, so it is taken on trust.
#[tokio::test]
async fn without_a_token_any_root_is_taken_and_the_certificate_must_lead_to_it() {
    let (fake, place) = (Fake::start().await, Place::new());
    fake.behaviour().tokens.push(String::new());
    let (_, _, stranger) = fake::authority(place.clock.now());
    let own = std::mem::replace(&mut fake.behaviour().signer, stranger);
    let refusal = place.refused(join(&fake, None)).await;
    assert!(refusal.contains("unknown authority"), "{refusal}");
    assert!(place.is_empty());
    fake.behaviour().signer = own;
    let identity = place.start(join(&fake, None)).await.unwrap();
    assert_eq!(identity.credentials.root_pem(), fake.behaviour().root_pem);
}

#[tokio::test]
async fn a_cluster_in_fips_mode_is_refused_by_its_name_as_well() {
    const FIPS: &str = "FIPS.c1ust3r5e7kdfcv1ayb8ifqu9";
    let (fake, place) = (Fake::start().await, Place::new());
    fake.behaviour().cluster = FIPS;
    let refusal = place.refused(join(&fake, Some(fake.token()))).await;
    assert!(refusal.contains("not FIPS-enabled"), "{refusal}");
    assert!(place.is_empty());
    let now = place.clock.now();
    let (root_pem, pair) = {
        let state = fake.behaviour();
        let worker = NodeRole::Worker;
        let (chain_pem, key_pem) = fake::issue_in(FIPS, &state.signer, NODE, worker, DAY, now);
        (state.root_pem.clone(), Pair { chain_pem, key_pem })
    };
    place.certificates.save_root(&root_pem).unwrap();
    place.certificates.save(&pair).unwrap();
    let refusal = place.refused(join(&fake, None)).await;
    assert!(refusal.contains("not FIPS-enabled"), "{refusal}");
}

#[tokio::test]
async fn a_directory_that_lacks_a_part_is_refused_and_gets_no_other() {
    let fake = Fake::start().await;
    for name in ["swarm-root-ca.crt", "swarm-node.crt", "swarm-node.key"] {
        let place = Place::new();
        place.prepare(&fake, NodeRole::Worker, Duration::ZERO);
        let path = place.path().join("certificates").join(name);
        std::fs::remove_file(&path).unwrap();
        let refusal = place.refused(join(&fake, Some(fake.token()))).await;
        assert!(refusal.contains("is damaged"), "{name}: {refusal}");
        assert!(refusal.contains("restore it"), "{name}: {refusal}");
        assert!(!path.exists(), "{name}");
    }
    assert!(fake.behaviour().asked.is_empty());
}
