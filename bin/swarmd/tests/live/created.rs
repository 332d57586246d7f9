//! What `swarmctl` creates runs on an engine: every flag of `service create` once.
//!
//! Left out are `--generic-resources`, of which a stock engine has none, and the flags that decide
//! how the command itself waits.

use std::collections::BTreeSet;

use swarm_api::v1;
use v1::node_spec::Availability;

use crate::engine::{Engine, IMAGE};
use crate::manager::Manager;
use crate::works::container_of;

/// The service `all-flags`: as many flags as fit together.
const FLAGS: [&str; 16] = [
    "--label=a=b",
    "--replicas=1",
    "--replicas-max-per-node=3",
    "--env=A=B",
    "--dir=/tmp",
    "--user=0",
    "--hostname=named",
    "--ports=web:80:8081/tcp",
    "--memory-reservation=16m",
    "--memory-limit=64m",
    "--cpu-reservation=0.1",
    "--cpu-limit=0.5",
    "--ulimit=nofile=100:200",
    "--oom-score-adj=100",
    "--secret=pw",
    "--config=site:/site",
];
/// The service `machine`: what concerns the machine.
const MACHINE: [&str; 10] = [
    "--mode=replicated",
    "--bind=/etc/hostname:/host-name",
    "--volume=/volume",
    "--tmpfs=/memory:size=1m",
    "--network=host",
    "--log-driver=json-file",
    "--log-opt=max-size=1m",
    "--init",
    "--tty",
    "--open-stdin",
];
/// The service `policies`: what managers do.
const POLICIES: [&str; 13] = [
    "--restart-condition=any",
    "--restart-delay=1s",
    "--restart-max-attempts=3",
    "--restart-window=5s",
    "--update-parallelism=1",
    "--update-delay=1s",
    "--update-on-failure=pause",
    "--update-order=start-first",
    "--rollback-parallelism=1",
    "--rollback-delay=1s",
    "--rollback-on-failure=pause",
    "--rollback-order=stop-first",
    "--constraint=node.role==worker",
];

pub(crate) async fn check(manager: &Manager, engine: &Engine) {
    let ctl = async |words: &[&str]| manager.ctl(words).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("data");
    std::fs::write(&file, "hush").unwrap();
    let file = file.to_str().unwrap();
    ctl(&["secret", "create", "pw", "--file", file]).await;
    ctl(&["config", "create", "site", "--file", file]).await;
    let image = format!("--image={IMAGE}");
    let named = [
        ("all-flags", &FLAGS[..]),
        ("machine", &MACHINE),
        ("policies", &POLICIES),
    ];
    for (name, flags) in named {
        // The command waits until the service has converged.
        let mut words = vec!["service", "create", "--name", name, &image];
        words.extend_from_slice(flags);
        words.extend_from_slice(&["--timeout=30s", "--monitor=1s", "--", "sleep", "1000"]);
        ctl(&words).await;
    }
    let tasks = manager.running(&manager.id_of("all-flags").await, 1).await;
    let id = container_of(&tasks[0]);
    let shown = "cat /run/secrets/pw /site; id -u; hostname; pwd; echo $A; ls -ln /site";
    let shown = engine.ask(&["exec", &id, "sh", "-c", shown]).await;
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[..4], ["hushhush0", "named", "/tmp", "B"], "{shown}");
    assert!(
        lines[4].contains(" 0        0 "),
        "it belongs to root: {shown}"
    );
    for (name, _) in named {
        ctl(&["service", "rm", name]).await;
    }
    ctl(&["secret", "rm", "pw"]).await;
    ctl(&["config", "rm", "site"]).await;
    placement(manager, &image).await;
}

/// Containers go to the engine and programs of a node to a node, also while the manager's own node
/// takes tasks.
async fn placement(manager: &Manager, image: &str) {
    let own = manager.node("m", v1::node_status::State::Ready).await.id;
    manager.set_availability("m", Availability::Active).await;
    let cases = [
        ("boxed", image, "--replicas=3", false),
        ("boxes", image, "--mode=global", false),
        ("plain", "--image=host", "--replicas=3", true),
    ];
    for (name, image, count, on_own) in cases {
        let words = [
            "service",
            "create",
            "--name",
            name,
            image,
            count,
            "--timeout=30s",
            "--monitor=1s",
            "--",
            "sleep",
            "1000",
        ];
        manager.ctl(&words).await.unwrap();
        let service = manager.id_of(name).await;
        let tasks = manager.tasks(&service).await.unwrap();
        let nodes: BTreeSet<bool> = tasks.iter().map(|task| task.node_id == own).collect();
        assert_eq!(nodes, [on_own].into(), "{name}");
    }
    manager.set_availability("m", Availability::Drain).await;
    let words = ["why", "plain"];
    crate::wait::until("why says what the image needs", async || {
        let why = manager.ctl(&words).await?;
        if why.contains("image cannot be run on 1 node") {
            Ok(())
        } else {
            Err(why)
        }
    })
    .await;
    for (name, ..) in cases {
        manager.ctl(&["service", "rm", name]).await.unwrap();
    }
}
