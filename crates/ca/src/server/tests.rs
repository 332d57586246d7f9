use super::*;
use crate::rotation::{NODES_PER_TICK_MAX, TICK};
use crate::world::{World, at, node_id, root_ca};

/// The machine with its shell: signs at once, commits at once.
struct Rig {
    world: World,
    server: Server,
}

impl Rig {
    fn new(world: World) -> Self {
        let server = Server::new(world.now, &world.root, None);
        Self { world, server }
    }

    fn show(&mut self, commit: &Commit) {
        let now = self.world.now;
        self.server.handle_commit(now, commit, &self.world.root);
    }

    fn node(&mut self, name: &str, change: impl FnOnce(&mut Node)) {
        let commit = self.world.node(name, change);
        self.show(&commit);
    }

    fn cluster(&mut self, change: impl FnOnce(&mut Cluster)) {
        let commit = self.world.cluster(change);
        self.show(&commit);
    }

    /// A node asks for a certificate.
    fn ask(&mut self, name: &str, csr: &'static str, state: State) {
        self.node(name, |node| {
            node.certificate = Some(Box::new(v1::Certificate {
                csr: Bytes::from_static(csr.as_bytes()),
                status: Some(v1::IssuanceStatus {
                    state: state as i32,
                    err: String::new(),
                }),
                ..Default::default()
            }));
        });
    }

    fn jobs(&mut self) -> Vec<SignJob> {
        std::iter::from_fn(|| self.server.poll_sign_job(&self.world.root)).collect()
    }

    fn job(&mut self) -> SignJob {
        let mut jobs = self.jobs();
        assert_eq!(jobs.len(), 1, "{jobs:?}");
        jobs.remove(0)
    }

    fn sign(&mut self, job: &SignJob, signed: Signed) {
        self.server.handle_signed(self.world.now, job.id, signed);
    }

    /// Commits what the machine wants; the number of write sets that were refused.
    fn commit(&mut self) -> Option<usize> {
        let world = &mut self.world;
        self.server.handle_timeout(world.now);
        let batch = self
            .server
            .poll_transaction(&world.root, world.now, &mut world.ids)?;
        let mut transaction = world.root.begin(world.now);
        let mut refused = Vec::new();
        for (position, set) in batch.sets.iter().enumerate() {
            if transaction.apply_set(set).is_err() {
                refused.push(position);
            }
        }
        let (root, commit) = transaction.finish();
        world.root = root;
        let count = refused.len();
        let version = commit.version;
        self.show(&commit);
        let outcome = Outcome::Committed { version, refused };
        self.server.handle_outcome(self.world.now, &outcome);
        Some(count)
    }

    fn state(&self, name: &str) -> (State, String) {
        let node = self.world.root.node(&node_id(name)).unwrap();
        let status = node.certificate.clone().unwrap_or_default().status;
        (requests::state(node), status.unwrap_or_default().err)
    }

    fn count(&self, state: State) -> usize {
        let nodes = self.world.root.all::<Node>();
        nodes.filter(|node| requests::state(node) == state).count()
    }

    fn rotate(&mut self) {
        let next = root_ca(at(0));
        self.cluster(|cluster| {
            cluster.root_ca.get_or_insert_default().root_rotation = Some(v1::RootRotation {
                ca_cert: next.ca_cert,
                ca_key: next.ca_key,
                cross_signed_ca_cert: Bytes::from_static(b"CROSS"),
            });
        });
    }

    /// A node reports that it uses a certificate of the root that signs at present.
    fn report(&mut self, name: &str) {
        let root_ca = self.world.root.cluster().unwrap().root_ca.clone().unwrap();
        let target = root_ca
            .root_rotation
            .map_or(root_ca.ca_cert, |it| it.ca_cert);
        let issuer = rotation::issuer_of(&target).unwrap();
        self.node(name, |node| {
            let tls_info = v1::NodeTlsInfo {
                cert_issuer_subject: issuer.subject.into(),
                cert_issuer_public_key: issuer.public_key.into(),
                ..Default::default()
            };
            let description = v1::NodeDescription {
                tls_info: Some(tls_info),
                ..Default::default()
            };
            node.description = Some(Arc::new(description));
        });
    }
}

fn issued() -> Signed {
    Signed::Issued("chain".to_owned())
}

#[test]
fn renewals_are_signed_always_and_new_nodes_once_they_are_accepted() {
    let mut rig = Rig::new(World::new());
    for (name, state) in [
        ("unknown", State::Unknown),
        ("issued", State::Issued),
        ("failed", State::Failed),
        ("rotate", State::Rotate),
        ("pending", State::Pending),
    ] {
        rig.ask(name, "csr", state);
        rig.node(name, |node| {
            Arc::make_mut(&mut node.spec).membership = Membership::Pending as i32;
        });
    }
    // The first write shows it accepted, so the machine looks; what counts is the newest view.
    assert_eq!(rig.jobs(), []);
    rig.ask("renew", "csr", State::Renew);
    rig.node("pending", |node| {
        Arc::make_mut(&mut node.spec).membership = Membership::Accepted as i32;
    });
    let names: Vec<String> = rig
        .jobs()
        .iter()
        .map(|job| job.subject.node.to_string())
        .collect();
    assert_eq!(names, ["renew", "pending"]);
    rig.server.check(&rig.world.root).unwrap();
}

#[test]
fn a_signed_certificate_is_written_and_names_its_subject() {
    let mut rig = Rig::new(World::new());
    rig.cluster(|cluster| {
        let config = Arc::make_mut(&mut cluster.spec)
            .ca_config
            .get_or_insert_default();
        let seconds = 7200;
        config.node_cert_expiry = Some(swarm_api::prost_types::Duration { seconds, nanos: 0 });
    });
    rig.ask("w", "csr", State::Renew);
    rig.node("w", |node| {
        node.certificate.get_or_insert_default().role = v1::NodeRole::Manager as i32;
    });
    let job = rig.job();
    assert_eq!(job.csr_pem, "csr");
    assert_eq!(job.subject.node, node_id("w"));
    assert_eq!(job.subject.cluster, "c".parse().unwrap());
    assert_eq!(job.subject.role, v1::NodeRole::Manager);
    assert_eq!(job.expiry, Duration::from_secs(7200));
    assert!(matches!(*job.issuer, Issuer::Local(_)));
    rig.sign(&job, issued());
    assert_eq!(rig.commit(), Some(0));
    assert_eq!(rig.state("w"), (State::Issued, String::new()));
    let node = rig.world.root.node(&node_id("w")).unwrap();
    let certificate = node.certificate.as_ref().unwrap();
    assert_eq!(
        (&certificate.certificate[..], &certificate.csr[..]),
        (&b"chain"[..], &b"csr"[..])
    );
    assert_eq!((rig.commit(), rig.jobs()), (None, vec![]));
}

#[test]
fn a_request_that_cannot_be_signed_fails_with_the_reason() {
    let mut rig = Rig::new(World::new());
    rig.ask("w", "garbage", State::Pending);
    let job = rig.job();
    rig.sign(&job, Signed::Failed("the request is not PEM".to_owned()));
    rig.commit();
    assert_eq!(
        rig.state("w"),
        (State::Failed, "the request is not PEM".to_owned())
    );
    assert_eq!(rig.jobs(), []);
}

#[test]
fn a_failure_that_may_pass_is_tried_again_after_ten_seconds_behind_the_others() {
    let mut rig = Rig::new(World::new());
    rig.ask("a", "csr", State::Pending);
    let job = rig.job();
    rig.sign(&job, Signed::Recoverable("no answer".to_owned()));
    rig.ask("b", "csr", State::Pending);
    assert_eq!(rig.jobs(), []);
    rig.commit();
    assert_eq!(rig.server.status().trouble.as_deref(), Some("no answer"));
    // It waits on, and says for what.
    assert_eq!(rig.state("a"), (State::Pending, "no answer".to_owned()));
    let wake = rig.server.poll_timeout().unwrap();
    assert_eq!(wake.at, at(SIGN_RETRY_DELAY.as_secs()));
    rig.world.now = wake.at.saturating_sub(Duration::from_nanos(1));
    rig.server.handle_timeout(rig.world.now);
    assert_eq!(rig.jobs(), []);
    rig.world.now = wake.at;
    rig.server.handle_timeout(rig.world.now);
    let jobs = rig.jobs();
    let names: Vec<String> = jobs
        .iter()
        .map(|job| job.subject.node.to_string())
        .collect();
    assert_eq!(names, ["a", "b"]);
    // The same reason is not written with each attempt.
    rig.sign(&jobs[0], Signed::Recoverable("no answer".to_owned()));
    assert_eq!(rig.commit(), None);
    rig.sign(&jobs[1], issued());
    assert_eq!(rig.server.status().trouble, None);
    rig.commit();
    assert_eq!(rig.state("b"), (State::Issued, String::new()));
    rig.world.now = at(100);
    rig.server.handle_timeout(rig.world.now);
    let job = rig.job();
    rig.sign(&job, issued());
    rig.commit();
    assert_eq!(rig.state("a"), (State::Issued, String::new()));
}

#[test]
fn without_a_signer_everything_waits_until_there_is_one() {
    let mut rig = Rig::new(World::new());
    let key = rig
        .world
        .root
        .cluster()
        .unwrap()
        .root_ca
        .clone()
        .unwrap()
        .ca_key;
    rig.cluster(|cluster| cluster.root_ca.get_or_insert_default().ca_key.clear());
    rig.ask("w", "csr", State::Pending);
    assert_eq!(rig.jobs(), []);
    assert!(
        rig.server
            .status()
            .trouble
            .unwrap()
            .contains("no valid signer")
    );
    rig.server.check(&rig.world.root).unwrap();
    rig.cluster(|cluster| cluster.root_ca.get_or_insert_default().ca_key = key);
    assert_eq!((rig.jobs().len(), rig.server.status().trouble), (1, None));
}

#[test]
fn jobs_under_way_are_bounded() {
    let mut rig = Rig::new(World::new());
    for number in 0..=SIGN_JOBS_MAX {
        rig.ask(&format!("{number:02}"), "csr", State::Pending);
    }
    let jobs = rig.jobs();
    assert_eq!(jobs.len(), SIGN_JOBS_MAX);
    rig.sign(&jobs[0], issued());
    assert_eq!(rig.jobs().len(), 1);
}

#[test]
fn an_answer_to_an_older_request_is_not_written() {
    let mut rig = Rig::new(World::new());
    rig.ask("w", "first", State::Renew);
    let job = rig.job();
    rig.ask("w", "second", State::Renew);
    assert_eq!(rig.jobs(), [], "one job for each node");
    rig.sign(&job, issued());
    assert_eq!(rig.commit(), None);
    assert_eq!(rig.state("w").0, State::Renew);
    let job = rig.job();
    assert_eq!(job.csr_pem, "second");
    rig.sign(&job, issued());
    rig.commit();
    assert_eq!(rig.state("w").0, State::Issued);
}

#[test]
fn an_answer_for_another_role_is_not_written() {
    let mut rig = Rig::new(World::new());
    rig.ask("w", "csr", State::Renew);
    let job = rig.job();
    assert_eq!(job.subject.role, v1::NodeRole::Worker);
    rig.node("w", |node| {
        node.certificate.get_or_insert_default().role = v1::NodeRole::Manager as i32;
    });
    assert_eq!(rig.jobs(), [], "one job for each node");
    rig.sign(&job, issued());
    assert_eq!(rig.commit(), None);
    let job = rig.job();
    assert_eq!(job.subject.role, v1::NodeRole::Manager);
    rig.sign(&job, issued());
    rig.commit();
    assert_eq!(rig.state("w").0, State::Issued);
}

#[test]
fn a_refused_write_is_repeated_and_a_removed_node_forgotten() {
    let mut rig = Rig::new(World::new());
    rig.ask("w", "csr", State::Renew);
    let job = rig.job();
    rig.sign(&job, issued());
    let world = &mut rig.world;
    let batch = rig
        .server
        .poll_transaction(&world.root, world.now, &mut world.ids)
        .unwrap();
    assert_eq!(batch.sets.len(), 1);
    rig.server.handle_outcome(rig.world.now, &Outcome::Failed);
    assert_eq!(rig.commit(), None, "the log gets a pause");
    rig.world.now = at(1);
    assert_eq!(rig.commit(), Some(0));
    rig.ask("gone", "csr", State::Renew);
    let job = rig.job();
    let node = (**rig.world.root.node(&node_id("gone")).unwrap()).clone();
    let commit = rig.world.commit(&WriteSet(vec![Write::delete(&node)]));
    rig.show(&commit);
    rig.sign(&job, issued());
    assert_eq!((rig.commit(), rig.jobs()), (None, vec![]));
}

#[test]
fn a_signature_of_an_authority_that_changed_is_not_written() {
    let mut rig = Rig::new(World::new());
    rig.ask("w", "csr", State::Renew);
    let job = rig.job();
    rig.sign(&job, issued());
    rig.rotate();
    assert_eq!(rig.commit(), None);
    let job = rig.job();
    let Issuer::Local(local) = &*job.issuer else {
        panic!("{job:?}");
    };
    assert_eq!(local.intermediates_pem, "CROSS");
    // A change between the decision and the commit is found by the store.
    rig.sign(&job, issued());
    let world = &mut rig.world;
    let batch = rig
        .server
        .poll_transaction(&world.root, world.now, &mut world.ids)
        .unwrap();
    let commit = world.cluster(|cluster| cluster.vxlan_udp_port = 1);
    let mut transaction = rig.world.root.begin(rig.world.now);
    transaction.apply_set(&batch.sets[0]).unwrap_err();
    let version = rig.world.root.version();
    rig.show(&commit);
    let refused = vec![0];
    rig.server
        .handle_outcome(rig.world.now, &Outcome::Committed { version, refused });
    assert_eq!(rig.commit(), Some(0));
    assert_eq!(rig.state("w").0, State::Issued);
}

#[test]
fn a_new_leader_takes_up_what_was_not_signed() {
    let mut rig = Rig::new(World::new());
    rig.ask("w", "csr", State::Pending);
    rig.job();
    let mut rig = Rig::new(rig.world);
    rig.job();
    let mut rig = Rig::new(rig.world);
    rig.server.handle_lag(rig.world.now, &rig.world.root);
    assert_eq!(rig.jobs().len(), 1);
}

#[test]
fn a_rotation_asks_thirty_nodes_every_three_seconds_and_then_ends() {
    let mut rig = Rig::new(World::new());
    let names: Vec<String> = (0..NODES_PER_TICK_MAX + 5)
        .map(|n| format!("{n:03}"))
        .collect();
    for name in &names {
        rig.node(name, |_| {});
    }
    rig.rotate();
    assert_eq!(rig.commit(), None);
    for (tick, asked) in [(1, NODES_PER_TICK_MAX), (2, names.len()), (3, names.len())] {
        let time = at(0).saturating_add(TICK * tick);
        rig.world.now = time.saturating_sub(Duration::from_nanos(1));
        assert_eq!(rig.commit(), None);
        assert_eq!(rig.server.poll_timeout().unwrap().at, time);
        rig.world.now = time;
        rig.commit();
        assert_eq!(rig.count(State::Rotate), asked, "tick {tick}");
    }
    let before = rig.world.tokens();
    for name in &names {
        rig.report(name);
    }
    rig.world.now = at(12);
    assert_eq!(rig.commit(), Some(0));
    let root_ca = rig.world.root.cluster().unwrap().root_ca.clone().unwrap();
    assert_eq!(root_ca.root_rotation, None);
    assert_ne!(rig.world.tokens(), before);
    rig.world.now = at(15);
    assert_eq!(rig.commit(), None);
}

#[test]
fn a_new_leader_does_not_ask_sooner_than_the_old_one_would_have() {
    let mut rig = Rig::new(World::new());
    rig.node("w", |_| {});
    rig.rotate();
    rig.world.now = at(2);
    let mut rig = Rig::new(rig.world);
    rig.world.now = at(4);
    assert_eq!(rig.commit(), None);
    rig.world.now = at(5);
    assert_eq!(rig.commit(), Some(0));
    assert_eq!(rig.state("w").0, State::Rotate);
}

#[test]
fn a_rotation_that_is_called_off_asks_nobody() {
    let mut rig = Rig::new(World::new());
    rig.node("w", |_| {});
    rig.rotate();
    rig.cluster(|cluster| cluster.root_ca.get_or_insert_default().root_rotation = None);
    rig.world.now = at(3);
    assert_eq!(rig.commit(), None);
    assert_eq!(rig.count(State::Rotate), 0);
}
