use std::sync::Arc;

use swarm_api::{ext, v1};

use swarm_types::NodeId;

use super::world::{at, check, world};
use crate::{Subject, why};

#[test]
fn a_node_that_takes_tasks_says_what_it_has() {
    let world = "
        node n1
        service web
        task t1 web.1 running/running on=n1
        task t2 web.2 starting/running on=n1
        task t3 web.3 running/shutdown on=n1
        task t4 web.4 failed/shutdown on=n1";
    check(
        world,
        9,
        "host-n1",
        "Node host-n1 takes tasks; 1 task runs, 1 starting, 1 asked to stop on it.",
    );
}

#[test]
fn a_drained_node_says_how_to_bring_it_back() {
    check(
        "node n1 drain",
        9,
        "n1",
        "
        Node host-n1 takes no new tasks: it is drained; 0 tasks run on it.
        - node_drained: is drained
        - effect: its tasks are stopped and replaced on other nodes; it gets none until it is \
          activated
        > swarmctl node activate host-n1",
    );
}

#[test]
fn a_node_of_which_there_are_two_says_so() {
    check(
        "node n1 err=two machines use this certificate",
        9,
        "n1",
        "
        Node host-n1 takes tasks; 0 tasks run on it.
        - remark: two machines use this certificate",
    );
}

#[test]
fn a_node_that_does_not_renew_says_so_and_takes_tasks_all_the_same() {
    use swarm_ca::{csr, issue, root};
    // Certificates know no time before 1970.
    let start = 1_000_000;
    let now = at(start);
    let (cert, key) = root::new_root(now);
    let signer = issue::Signer::new(&cert, &key, "").unwrap();
    let subject = issue::Subject {
        node: "n1".parse().unwrap(),
        cluster: "c".parse().unwrap(),
        role: v1::NodeRole::Worker,
    };
    let request = csr::request(&csr::new_key()).unwrap();
    let life = std::time::Duration::from_secs(7 * 3600);
    let chain = signer.sign(request.as_bytes(), &subject, life, now, [1; 20]);
    let mut root = world("node n1");
    let mut node = (**root.node(&subject.node).unwrap()).clone();
    node.certificate = Some(Box::new(v1::Certificate {
        certificate: chain.unwrap().into(),
        ..Default::default()
    }));
    let mut transaction = root.begin(now);
    transaction.update(node).unwrap();
    root = transaction.finish().0;
    let ask = |seconds| why(&root, at(start + seconds), None, Some(Subject::Node), "n1").unwrap();
    let codes = |answer: &ext::WhyResponse| -> Vec<String> {
        answer
            .reasons
            .iter()
            .map(|reason| reason.code.clone())
            .collect()
    };
    assert!(!codes(&ask(5 * 3600)).contains(&"certificate".to_owned()));
    // Times in certificates are whole minutes.
    let answer = ask(6 * 3600 + 60);
    assert!(
        answer.headline.starts_with("Node host-n1 takes tasks"),
        "{answer:?}"
    );
    assert!(
        codes(&answer).contains(&"certificate".to_owned()),
        "{answer:?}"
    );
    let answer = ask(8 * 3600);
    assert!(
        answer
            .next_steps
            .iter()
            .any(|step| step.contains("readmit n1")),
        "{answer:?}"
    );
}

#[test]
fn a_node_tells_its_conditions_and_which_of_them_keeps_tasks_away() {
    check(
        "node n1 condition=disk",
        9,
        "n1",
        "
        Node host-n1 takes no new tasks: it says: disk: it is bad; 0 tasks run on it.
        - condition: says: disk: it is bad
        > free space on the disk of the node, or repair it",
    );
    check(
        "node n1 condition=limit-memory",
        9,
        "n1",
        "
        Node host-n1 takes tasks; 0 tasks run on it.
        - condition: says: limit-memory: it is bad",
    );
}

#[test]
fn a_node_can_be_down_and_paused() {
    let world = "
        node n1 down pause at=7 err=heartbeat failure
        service web
        task t1 web.1 running/shutdown on=n1";
    check(
        world,
        9,
        "n1",
        "
        Node host-n1 takes no new tasks: it is DOWN (heartbeat failure), and it is paused; 0 \
          tasks run, 1 asked to stop on it.
        since 7
        - node_down: is DOWN (heartbeat failure) [7]
        - node_paused: is paused
        - effect: its tasks are replaced on other nodes; when it comes back it stops those that \
          it still runs
        > start `swarmd` on host-n1 again
        > swarmctl node rm host-n1, if it never comes back
        > swarmctl node activate host-n1",
    );
}

#[test]
fn a_node_without_an_address_on_ingress_says_which_are_taken() {
    check(
        "ingress 10.0.0.0/29
        node n1 overlay
        node n2",
        9,
        "n1",
        "
        Node host-n1 takes tasks; 0 tasks run on it.
        - allocation: has no address on network \"ingress\", tasks with ingress ports fail on it: \
          all of 10.0.0.0/29 are taken
        > remove tasks, services or nodes, or start a cluster with a larger subnet size",
    );
    check(
        "ingress 10.0.0.0/29
        node n2",
        9,
        "n2",
        "Node host-n2 takes tasks; 0 tasks run on it.",
    );
}

/// The reasons and next steps about a node with such a certificate and such a wanted role.
fn about(certificate: v1::Certificate, wanted: v1::NodeRole, own: Option<&NodeId>) -> String {
    let mut root = world("node n1");
    let id = "n1".parse().unwrap();
    let mut node = (**root.node(&id).unwrap()).clone();
    node.certificate = Some(Box::new(certificate));
    Arc::make_mut(&mut node.spec).desired_role = wanted as i32;
    let mut transaction = root.begin(at(1));
    transaction.update(node).unwrap();
    root = transaction.finish().0;
    let answer = why(&root, at(9), own, Some(Subject::Node), "n1").unwrap();
    let reasons = answer.reasons.iter().map(|reason| reason.text.clone());
    reasons
        .chain(answer.next_steps.clone())
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_certificate_that_nobody_signs_says_why_and_only_while_it_waits() {
    use v1::issuance_status::State;
    let certificate = |state: State, err: &str| v1::Certificate {
        status: Some(v1::IssuanceStatus {
            state: state as i32,
            err: err.to_owned(),
        }),
        ..Default::default()
    };
    let waits = about(
        certificate(State::Pending, "no answer"),
        v1::NodeRole::Worker,
        None,
    );
    assert!(
        waits.contains("waits for its certificate to be signed: no answer")
            && waits.contains("swarmctl cluster ca status"),
        "{waits}"
    );
    for other in [
        certificate(State::Pending, ""),
        certificate(State::Issued, "old"),
    ] {
        let silent = about(other, v1::NodeRole::Worker, None);
        assert!(!silent.contains("signed"), "{silent}");
    }
}

#[test]
fn a_node_that_is_promoted_in_vain_says_so() {
    use v1::NodeRole::{Manager, Worker};
    let of_role = |role: v1::NodeRole| v1::Certificate {
        role: role as i32,
        ..Default::default()
    };
    let way_out = "swarmctl node demote host-n1";
    for (role, text) in [
        (
            Worker,
            "is promoted, and works on as a worker: a second manager cannot run",
        ),
        (
            Manager,
            "waits in vain to be a manager: a second manager cannot run",
        ),
    ] {
        let promoted = about(of_role(role), Manager, None);
        assert!(
            promoted.contains(text) && promoted.contains(way_out),
            "{promoted}"
        );
    }
    let own = "n1".parse().unwrap();
    for fits in [
        about(of_role(Worker), Worker, None),
        about(of_role(Manager), Manager, Some(&own)),
    ] {
        assert!(!fits.contains("promoted"), "{fits}");
    }
}

#[test]
fn a_key_file_that_is_not_sealed_as_wanted_is_a_reason_with_a_step() {
    let mut answer = why(&world("node n1"), at(0), None, Some(Subject::Node), "n1").unwrap();
    crate::add_unsealed(&mut answer, "certificate file /x: no space left");
    let reason = answer.reasons.last().unwrap();
    assert_eq!(reason.code, "unsealed");
    assert!(reason.text.contains("/x: no space left"), "{reason:?}");
    assert!(
        answer
            .next_steps
            .iter()
            .any(|step| step.contains("tries again"))
    );
    assert!(answer.headline.contains("takes tasks"), "{answer:?}");
}

#[test]
fn labels_that_no_constraint_can_ask_for_are_named() {
    let root = world("node n1 zone=a");
    let mut node = (**root.node(&"n1".parse().unwrap()).unwrap()).clone();
    let annotations = Arc::make_mut(&mut node.spec)
        .annotations
        .get_or_insert_default();
    annotations
        .labels
        .insert("my rack".to_owned(), "r1".to_owned());
    annotations.labels.insert("disk".to_owned(), String::new());
    let mut tx = root.begin(at(1));
    tx.update(node).unwrap();
    let (root, _) = tx.finish();
    let answer = why(&root, at(9), None, Some(Subject::Node), "n1").unwrap();
    let remark = answer
        .reasons
        .iter()
        .find(|reason| reason.code == "remark")
        .unwrap();
    assert!(
        remark
            .text
            .starts_with("has 2 labels (disk=\"\", my rack=\"r1\") that no constraint can ask for"),
        "{}",
        remark.text
    );
}
