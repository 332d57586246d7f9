//! What each filter rejects, and how the counts read.

use super::world::{check, check_phases};

#[test]
fn only_ready_and_active_nodes_take_tasks() {
    check(
        "node n1 down\nnode n2 unknown\nnode n3 drain\nnode n4 pause\ntask t1",
        "t1: no suitable node (4 nodes not available for new tasks)",
    );
}

#[test]
fn nodes_with_disk_trouble_take_no_tasks_until_it_is_over() {
    check_phases(&[
        (
            "node n1 condition=disk\nnode n2 condition=disk\ntask t1",
            "t1: no suitable node (disk trouble on 2 nodes)",
        ),
        (
            "node n2 well condition=clock condition=limit-memory",
            "t1 -> n2",
        ),
    ]);
}

#[test]
fn nodes_with_little_memory_come_last() {
    check(
        "node n1 condition=memory\nnode n2\nnode n3
         task r1 on=n2 running\ntask r2 on=n3 running\ntask r3 on=n3 running
         task t1..t2",
        "t1 -> n2
         t2 -> n2",
    );
    check("node n1 condition=memory\ntask t1", "t1 -> n1");
}

#[test]
fn constraints_must_all_hold() {
    check(
        "node n1 label.disk=ssd label.az=b\nnode n2 label.disk=SSD label.az=a\nnode n3
         task t1..t2 s1 v=1 where=node.labels.disk==ssd where=node.labels.az==a
         task u1 s2 v=1 where=node.labels.disk==none\nservice s2 v=1",
        "t1 -> n2
         t2 -> n2
         u1: no suitable node (scheduling constraints not satisfied on 3 nodes)",
    );
}

#[test]
fn constraints_that_do_not_parse_are_ignored() {
    check("node n1\ntask t1 where=x", "t1 -> n1");
}

#[test]
fn constraints_follow_changed_labels() {
    check_phases(&[
        (
            "node n1\nservice s1 v=1\ntask t1 s1 v=1 where=node.labels.disk==ssd",
            "t1: no suitable node (scheduling constraints not satisfied on 1 node)",
        ),
        ("node n1 label.disk=ssd", "t1 -> n1"),
        (
            "node n1 label.disk=hdd\ntask t2 s1 v=1 where=node.labels.disk==ssd",
            "t2: no suitable node (scheduling constraints not satisfied on 1 node)",
        ),
    ]);
}

#[test]
fn one_listed_platform_suffices_and_architectures_have_two_names() {
    let nodes = "node n1 os=linux arch=x86_64\nnode n2 os=windows arch=amd64\nnode n3";
    for (task, expected) in [
        ("platform=linux/amd64", "t1 -> n1"),
        ("platform=windows/x86_64", "t1 -> n2"),
        ("platform=/amd64", "t1 -> n1"),
        ("platform=windows/", "t1 -> n2"),
        ("platform=/", "t1 -> n1"),
        ("platform=linux/arm64 platform=windows/amd64", "t1 -> n2"),
        (
            "platform=Linux/amd64",
            "t1: no suitable node (unsupported platform on 3 nodes)",
        ),
        (
            "platform=linux/aarch64",
            "t1: no suitable node (unsupported platform on 3 nodes)",
        ),
    ] {
        check(&format!("{nodes}\ntask t1 {task}"), expected);
    }
    check(
        "node n1 os=linux arch=aarch64\ntask t1 platform=linux/arm64",
        "t1 -> n1",
    );
}

const NODES_WITH_PLUGINS: &str = "
    node n1 plugin=Volume:local
    node n2 plugin=Volume:local plugin=Volume:rexray:latest plugin=Network:weave plugin=Log:syslog
    node n3 plugin=Volume:flocker plugin=Log:json-file";

#[test]
fn plugins_are_wanted_by_volumes_networks_and_log_drivers() {
    for (task, expected) in [
        ("volume=local", "t1 -> n1"),
        ("volume=rexray", "t1 -> n2"),
        ("volume=rexray:latest", "t1 -> n2"),
        ("volume=flocker", "t1 -> n3"),
        (
            "volume=flock",
            "t1: no suitable node (missing plugin on 3 nodes)",
        ),
        (
            "volume=flocker volume=rexray",
            "t1: no suitable node (missing plugin on 3 nodes)",
        ),
        ("net=weave", "t1 -> n2"),
        (
            "net=rexray",
            "t1: no suitable node (missing plugin on 3 nodes)",
        ),
        ("log=syslog where=node.id!=n1", "t1 -> n2"),
        ("log=json-file where=node.id!=n1", "t1 -> n3"),
        // A node that reports no log plugins at all is an old one and is trusted.
        ("log=fluentd", "t1 -> n1"),
        ("log=none where=node.id!=n1", "t1 -> n2"),
        ("log= where=node.id!=n1", "t1 -> n2"),
    ] {
        check(&format!("{NODES_WITH_PLUGINS}\ntask t1 {task}"), expected);
    }
}

#[test]
fn a_node_that_reports_no_engine_is_trusted_with_plugins() {
    check(
        "node n1 noengine\ntask t1 net=weave volume=rexray log=x",
        "t1 -> n1",
    );
}

#[test]
fn a_task_that_mounts_a_cluster_volume_waits() {
    check(
        "node n1\nnode n2\ntask t1 cluster-volume",
        "t1: no suitable node (cannot fulfill requested CSI volume mounts on 2 nodes)",
    );
}

#[test]
fn the_first_filter_in_order_counts_and_the_busiest_is_named_first() {
    check(
        "node n1 drain cpu=0
         node n2 cpu=1 os=linux
         node n3 cpu=1
         node n4 cpu=2 os=linux
         node n5 cpu=2 label.x=y os=linux
         node n6 cpu=2 label.x=y os=linux arch=amd64
         task p1 on=n6 running port=80/tcp
         task t1 cpu=2 where=node.labels.x==y platform=/amd64 port=80/tcp",
        "t1: no suitable node (insufficient resources on 2 nodes; \
         1 node not available for new tasks; scheduling constraints not satisfied on 1 node; \
         unsupported platform on 1 node; host-mode port already in use on 1 node)",
    );
}

#[test]
fn nodes_that_filled_up_in_the_same_pass_are_counted() {
    check(
        "node n1 cpu=1\nnode n2 cpu=1\nnode n3 drain
         service s1 v=1\ntask t1..t3 s1 v=1 cpu=1",
        "t1 -> n1
         t2 -> n2
         t3: no suitable node (insufficient resources on 2 nodes; \
         1 node not available for new tasks)",
    );
}

#[test]
fn images_run_where_something_can_run_them() {
    check(
        "node e1 plugin=Volume:local\nnode n1 plugin=Executor:native
         task c1..c2 image=nginx\ntask h1..h2 image=host",
        "c1 -> e1
         c2 -> e1
         h1 -> n1
         h2 -> n1",
    );
    check(
        "node n1 plugin=Executor:native plugin=Network:host\ntask c1 image=nginx",
        "c1: no suitable node (image cannot be run on 1 node)",
    );
    // One that does not say what it has is trusted.
    check(
        "node n1\ntask c1 image=nginx\ntask h1 image=host",
        "c1 -> n1\nh1 -> n1",
    );
}
