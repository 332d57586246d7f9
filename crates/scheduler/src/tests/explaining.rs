//! The report for `why`.

use super::world::World;
use crate::explain;

#[track_caller]
fn check(lines: &str, task: &str, expected: &str) {
    let mut world = World::new();
    world.apply(lines);
    let report = explain(&world.root, world.task(task), world.now);
    let mut text = format!("{} of {} nodes fit\n", report.fitting, report.nodes);
    for rejection in &report.rejected {
        text += &format!("- {}\n", rejection.text);
    }
    if let Some(nearest) = &report.nearest {
        text += &format!("nearest {} ({})\n", nearest.node, nearest.hostname);
        for missing in &nearest.missing {
            text += &format!("  {missing}\n");
        }
    }
    for (node, failures) in &report.avoided {
        text += &format!("avoids {node}: {failures} failures\n");
    }
    let lines = |text: &str| -> Vec<String> {
        text.trim()
            .lines()
            .map(|line| line.trim().to_owned())
            .collect()
    };
    assert_eq!(lines(&text), lines(expected));
}

#[test]
fn the_nearest_node_and_what_it_lacks_are_named() {
    check(
        "node n1 cpu=1 mem=1073741824 label.disk=hdd host=web-1
         node n2 drain cpu=1 label.disk=hdd
         task r1 on=n1 running mem=536870912
         task t1 cpu=2 mem=1073741824 where=node.labels.disk==ssd",
        "t1",
        "0 of 2 nodes fit
         - 1 node not available for new tasks
         - insufficient resources on 1 node
         nearest n1 (web-1)
           needs 2 CPUs, 1 available
           needs 1 GiB of memory, 512 MiB available
           constraint node.labels.disk == ssd: label disk is \"hdd\"",
    );
}

#[test]
fn trouble_with_a_disk_is_told_in_the_words_of_the_node() {
    check(
        "node n1 condition=disk condition=memory\ntask t1",
        "t1",
        "0 of 1 nodes fit
         - disk trouble on 1 node
         nearest n1 ()
           the disk is bad",
    );
}

#[test]
fn everything_that_can_be_missing_has_words() {
    check(
        "node n1 down pause os=linux arch=arm64 generic=gpu=a plugin=Log:json-file
         task r1 s1 v=1 on=n1 running port=80/udp
         task t1 s1 v=1 generic=gpu=2 net=weave log=syslog where=node.labels.a==b \
                 where=node.id==n2 where=engine.labels.c!=d where=node.color==e \
                 where=node.role==manager platform=windows/amd64 platform=linux/ platform=/x \
                 port=80/udp max=1 cluster-volume",
        "t1",
        "0 of 1 nodes fit
         - 1 node not available for new tasks
         nearest n1 ()
           node is DOWN and paused
           needs 2 of generic resource gpu, 1 available
           lacks the Network plugin \"weave\"
           lacks the Log plugin \"syslog\"
           constraint node.labels.a == b: label a is not set
           constraint node.id == n2: id is \"n1\"
           constraint node.color == e: there is no key node.color
           constraint node.role == manager: role is \"worker\"
           host port 80/udp is in use
           has 1 task of the service, at most 1 per node are allowed
           no cluster volume is available to mount",
    );
    check(
        "node n1 os=linux arch=arm64 mem=1000
         task t1 platform=windows/amd64 platform=linux/x mem=1001",
        "t1",
        "0 of 1 nodes fit
         - insufficient resources on 1 node
         nearest n1 ()
           needs 1001 bytes of memory, 1000 bytes available
           needs platform windows/amd64 or linux/x, node is linux/arm64",
    );
}

#[test]
fn a_fitting_node_lacks_nothing_and_the_preferred_one_is_named() {
    check(
        "node n1\nnode n2\ntask r1 s1 v=1 on=n1 running\ntask t1 s1 v=1",
        "t1",
        "2 of 2 nodes fit
         nearest n2 ()",
    );
}

#[test]
fn a_task_is_not_in_its_own_way() {
    check(
        "node n1 cpu=1\ntask t1 cpu=1 on=n1 running",
        "t1",
        "1 of 1 nodes fit\nnearest n1 ()",
    );
}

#[test]
fn a_preassigned_task_asks_its_node_alone() {
    let nodes = "node n1\nnode n2 pause\ntask t1 on=n2\ntask t2 on=n3";
    check(
        nodes,
        "t1",
        "0 of 1 nodes fit
         - 1 node not available for new tasks
         nearest n2 ()
           node is paused",
    );
    check(nodes, "t2", "0 of 0 nodes fit");
}

#[test]
fn recent_failures_in_the_store_are_reported() {
    check(
        "service s1 v=1\nnode n1\nnode n2
         task f1..f5 s1 v=1 on=n1 failed
         task t1 s1 v=1",
        "t1",
        "2 of 2 nodes fit
         nearest n2 ()
         avoids n1: 5 failures",
    );
    let mut world = World::new();
    world.apply("node n1\nnode n2\ntask f1..f5 s1 v=1 on=n1 failed\ntask t1 s1 v=1");
    world.now = swarm_types::Timestamp::from_millis(299_999);
    let report = explain(&world.root, world.task("t1"), world.now);
    assert_eq!(report.avoided, [("n1".parse().unwrap(), 5)]);
    world.now = swarm_types::Timestamp::from_millis(300_000);
    let report = explain(&world.root, world.task("t1"), world.now);
    assert_eq!(report.avoided, []);
}

#[test]
fn an_image_needs_what_can_run_it() {
    let nodes = "node e1 plugin=Volume:local plugin=Network:overlay host=engine
                 node n1 plugin=Network:host plugin=Executor:native host=own\n";
    check(
        &format!("{nodes}node n1 pause\ntask t1 image=nginx where=node.id==n1"),
        "t1",
        "0 of 2 nodes fit
         - 1 node not available for new tasks
         - scheduling constraints not satisfied on 1 node
         nearest e1 (engine)
           constraint node.id == n1: id is \"e1\"",
    );
    check(
        &format!("{nodes}node e1 drain\ntask t1 image=nginx"),
        "t1",
        "0 of 2 nodes fit
         - 1 node not available for new tasks
         - image cannot be run on 1 node
         nearest e1 (engine)
           node is drained",
    );
    check(
        &format!("{nodes}remove node e1\ntask t1 image=nginx"),
        "t1",
        "0 of 1 nodes fit
         - image cannot be run on 1 node
         nearest n1 (own)
           node runs image \"host\" only; a container needs a Docker Engine",
    );
    check(
        &format!("{nodes}remove node n1\ntask t1 image=host"),
        "t1",
        "0 of 1 nodes fit
         - image cannot be run on 1 node
         nearest e1 (engine)
           node is a Docker Engine, and image \"host\" runs on `swarmd` only",
    );
}
