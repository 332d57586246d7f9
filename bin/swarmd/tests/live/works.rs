//! A stock engine joins our manager and works.

use std::time::Duration;

use swarm_api::v1;
use v1::mount::Type;
use v1::node_spec::Availability;
use v1::node_status::State;
use v1::port_config::PublishMode;

use crate::engine::Engine;
use crate::lab::{Lab, address};
use crate::machine::Machine;
use crate::manager::Manager;
use crate::specs::{
    annotations, container, file, global, idle, limited, mount, on_network, published, replicas,
    script, seconds,
};
use crate::wait::{stays, until, until_in};

const MANAGER: u8 = 1;
const ENGINE: u8 = 2;
/// Longest time that an engine waits for the attachments of a task before it gives up.
const ATTACHMENT_MAX: Duration = Duration::from_secs(30);
/// What a removed node gets to try to come back.
const COMEBACK: Duration = Duration::from_secs(12);

/// A manager and an engine that has joined it.
struct World {
    manager: Manager,
    engine: Engine,
    manager_machine: Machine,
    engine_machine: Machine,
    lab: Lab,
}

impl World {
    async fn start() -> Option<Self> {
        let lab = Lab::start().await?;
        let manager_machine = lab.machine("m", MANAGER).await;
        let engine_machine = lab.machine("e", ENGINE).await;
        let manager = Manager::start(&lab, &manager_machine, MANAGER).await;
        manager.beat_every(1).await;
        let engine = Engine::start(&lab, &engine_machine).await;
        Some(Self {
            manager,
            engine,
            manager_machine,
            engine_machine,
            lab,
        })
    }

    async fn join(&self) -> v1::Node {
        let token = self.manager.worker_token().await;
        let words = ["swarm", "join", "--token", &token, self.manager.remote()];
        let answer = self.engine.docker(&words).await.unwrap();
        assert!(answer.contains("joined a swarm as a worker"), "{answer}");
        let id = self
            .engine
            .ask(&["info", "--format", "{{.Swarm.NodeID}}"])
            .await;
        until("the engine is READY", async || {
            let nodes = self.manager.nodes().await.map_err(|it| it.to_string())?;
            let node = nodes.into_iter().find(|node| node.id == id);
            let node = node.ok_or_else(|| "it is unknown".to_owned())?;
            let state = node.status.as_ref().map(|status| status.state);
            let is_ready = state == Some(State::Ready as i32);
            if is_ready && !node.attachments.is_empty() {
                Ok(node)
            } else {
                Err(format!("{:?} {:?}", node.status, node.attachments))
            }
        })
        .await
    }

    /// What a client on the manager's machine gets from a port of the engine's machine.
    async fn get(&self, port: u32) -> Result<String, String> {
        let request = format!(
            "exec 3<>/dev/tcp/{}/{port}; printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3",
            address(ENGINE)
        );
        self.manager_machine.run(&["bash", "-c", &request]).await
    }

    async fn in_container(&self, task: &v1::Task, words: &[&str]) -> String {
        let id = container_of(task);
        let mut all = vec!["exec", &id];
        all.extend_from_slice(words);
        self.engine.docker(&all).await.unwrap()
    }
}

/// The id of a task's container, as its status says.
pub(crate) fn container_of(task: &v1::Task) -> String {
    use v1::task_status::RuntimeStatus::Container;
    let status = task.status.clone().unwrap_or_default();
    match status.runtime_status {
        Some(Container(container)) => container.container_id,
        None => panic!("no container: {task:?}"),
    }
}

#[tokio::test]
async fn a_stock_engine_joins_works_and_leaves() {
    let Some(mut world) = World::start().await else {
        return;
    };
    let node = world.join().await;
    check_description(&node);
    check_attachment(&world, &node).await;
    Box::pin(everything_of_a_container(&world)).await;
    crate::created::check(&world.manager, &world.engine).await;
    networks_and_ports(&world).await;
    health_checks(&world).await;
    restart_of_the_manager(&mut world).await;
    restart_of_the_engine(&mut world).await;
    drain(&world).await;
    leave(&world, &node).await;
    removed(&mut world).await;
    drop(world.lab);
}

fn check_description(node: &v1::Node) {
    let description = node.description.clone().unwrap();
    let platform = description.platform.unwrap();
    assert_eq!(platform.os, "linux");
    assert!(description.resources.unwrap().memory_bytes > 0);
    let engine = description.engine.unwrap();
    assert!(!engine.engine_version.is_empty());
    let has = |kind: &str, name: &str| {
        let mut plugins = engine.plugins.iter();
        plugins.any(|plugin| plugin.r#type == kind && plugin.name == name)
    };
    assert!(has("Network", "overlay") && has("Volume", "local") && has("Log", "json-file"));
    assert!(!description.tls_info.unwrap().trust_root.is_empty());
    assert_eq!(node.status.clone().unwrap().addr, address(ENGINE));
    assert_eq!(node.role, v1::NodeRole::Worker as i32);
}

/// The engine sets its ingress network up with the address that the node object carries.
async fn check_attachment(world: &World, node: &v1::Node) {
    let [attachment] = &node.attachments[..] else {
        panic!("{:?}", node.attachments)
    };
    assert_eq!(attachment.addresses, ["10.0.0.2/24"]);
    let id = attachment.network.clone().unwrap().id;
    let format = "{{(index .Containers \"ingress-sbox\").IPv4Address}} \
                  {{(index .IPAM.Config 0).Subnet}} {{.Ingress}}";
    let words = ["network", "inspect", &id, "--format", format];
    until("the ingress network is made", async || {
        let made = world.engine.docker(&words).await?;
        match made.trim() {
            "10.0.0.2/24 10.0.0.0/24 true" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
}

async fn everything_of_a_container(world: &World) {
    let manager = &world.manager;
    let secret = v1::SecretSpec {
        annotations: Some(annotations("password")),
        data: "hush".into(),
        ..Default::default()
    };
    let request = v1::CreateSecretRequest { spec: Some(secret) };
    let secret = manager.control().create_secret(request).await.unwrap();
    let secret = secret.into_inner().secret.unwrap();
    let config = v1::ConfigSpec {
        annotations: Some(annotations("page")),
        data: "hello from a config".into(),
        ..Default::default()
    };
    let request = v1::CreateConfigRequest { spec: Some(config) };
    let config = manager.control().create_config(request).await.unwrap();
    let config = config.into_inner().config.unwrap();

    let mut spec = script("web", "echo begun as $NAME; exec httpd -f -p 80 -h /www");
    spec = limited(spec, 64 << 20);
    spec = published(spec, 8080, 80, PublishMode::Host);
    let own = container(&mut spec);
    own.env = vec!["NAME={{.Service.Name}}.{{.Task.Slot}}".to_owned()];
    own.mounts = vec![
        mount(Type::Volume, "data", "/data"),
        mount(Type::Bind, "/etc/hostname", "/host-name"),
        mount(Type::Tmpfs, "", "/scratch"),
    ];
    own.secrets = vec![v1::SecretReference {
        secret_id: secret.id,
        secret_name: "password".to_owned(),
        target: Some(v1::secret_reference::Target::File(file("password"))),
    }];
    own.configs = vec![v1::ConfigReference {
        config_id: config.id,
        config_name: "page".to_owned(),
        target: Some(v1::config_reference::Target::File(file("/www/index.html"))),
    }];
    let service = manager.create(spec).await;
    let task = manager.running(&service, 1).await.remove(0);

    let answer = until("the host port answers", async || world.get(8080).await).await;
    assert!(answer.ends_with("hello from a config"), "{answer}");
    let see = async |words: &[&str]| world.in_container(&task, words).await;
    assert_eq!(see(&["cat", "/run/secrets/password"]).await, "hush");
    assert_eq!(see(&["sh", "-c", "echo $NAME"]).await, "web.1\n");
    let mounts = see(&["mount"]).await;
    for target in ["/data", "/host-name", "/scratch"] {
        assert!(mounts.contains(&format!(" on {target} ")), "{mounts}");
    }
    let format = "{{.HostConfig.Memory}} {{.Name}}";
    let shown = world
        .engine
        .ask(&["inspect", "-f", format, &container_of(&task)])
        .await;
    assert_eq!(shown, format!("{} /web.1.{}", 64 << 20, task.id));
    let ports = task.status.clone().unwrap().port_status.unwrap().ports;
    assert!(ports.iter().all(|port| port.published_port == 8080) && !ports.is_empty());

    let lines = logs(manager, &service).await;
    assert_eq!(lines, ["begun as web.1"]);
    manager.remove(&service).await;
    until("the container is gone", async || {
        let left = world.engine.containers().await;
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
}

/// The lines of a service so far.
async fn logs(manager: &Manager, service: &str) -> Vec<String> {
    use v1::logs_client::LogsClient;
    let request = v1::SubscribeLogsRequest {
        selector: Some(v1::LogSelector {
            service_ids: vec![service.to_owned()],
            ..Default::default()
        }),
        options: Some(v1::LogSubscriptionOptions::default()),
    };
    let mut client = LogsClient::new(manager.channel());
    let mut stream = client.subscribe_logs(request).await.unwrap().into_inner();
    let mut lines = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        let texts = message.messages.iter();
        lines.extend(texts.map(|line| String::from_utf8_lossy(&line.data).trim_end().to_owned()));
    }
    lines
}

/// A global service, ingress ports and the predefined networks, next to each other.
async fn networks_and_ports(world: &World) {
    let manager = &world.manager;
    let everywhere = manager.create(global(idle("everywhere"))).await;
    let many = published(replicas(idle("many"), 2), 8085, 80, PublishMode::Ingress);
    let many = manager.create(many).await;
    let host = script("on-host", "ip address; exec sleep 1000");
    let host = manager.create(on_network(host, "host")).await;
    manager.running(&everywhere, 1).await;

    let tasks = {
        // Without the attachment of its node each of them would fail after this time.
        let what = "tasks with ingress ports run";
        until_in(ATTACHMENT_MAX, what, async || {
            let tasks = manager.tasks(&many).await?;
            let mut states = tasks.iter().map(crate::manager::state);
            if states.all(|state| state == v1::TaskState::Running) && tasks.len() == 2 {
                Ok(tasks)
            } else {
                Err(format!(
                    "{:?}",
                    tasks.iter().map(|it| &it.status).collect::<Vec<_>>()
                ))
            }
        })
        .await
    };
    let endpoint = manager.service(&many).await.endpoint.unwrap();
    let [vip] = &endpoint.virtual_ips[..] else {
        panic!("{endpoint:?}")
    };
    let mut addresses = vec![vip.addr.clone()];
    for task in &tasks {
        let [ingress] = &task.networks[..] else {
            panic!("{:?}", task.networks)
        };
        let shown = world.in_container(task, &["ip", "address"]).await;
        let own = ingress.addresses[0].clone();
        assert!(shown.contains(&own), "{own} is not in {shown}");
        addresses.push(own);
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 3, "{addresses:?}");

    let task = manager.running(&host, 1).await.remove(0);
    let shown = world.in_container(&task, &["ip", "address"]).await;
    assert!(shown.contains(&address(ENGINE)), "{shown}");
    for service in [everywhere, many, host] {
        manager.remove(&service).await;
    }
}

/// A container runs when it is healthy, and is replaced when it is not any more.
async fn health_checks(world: &World) {
    let manager = &world.manager;
    let mut spec = script("sick", "touch /well; exec sleep 1000");
    container(&mut spec).healthcheck = Some(v1::HealthConfig {
        test: vec!["CMD-SHELL".to_owned(), "test -e /well".to_owned()],
        interval: Some(seconds(1)),
        timeout: Some(seconds(5)),
        retries: 1,
        ..Default::default()
    });
    let service = manager.create(spec).await;
    let first = manager.running(&service, 1).await.remove(0);
    world.in_container(&first, &["rm", "/well"]).await;
    until("the unhealthy task is replaced", async || {
        let second = manager.running(&service, 1).await.remove(0);
        if second.id == first.id {
            Err("it still runs".to_owned())
        } else {
            Ok(())
        }
    })
    .await;
    let tasks = manager.tasks(&service).await.unwrap();
    let ended = tasks.iter().find(|task| task.id == first.id).unwrap();
    let err = ended.status.clone().unwrap().err;
    assert!(err.contains("unhealthy"), "{err}");
    manager.remove(&service).await;
}

/// Containers do not notice that their manager died and came back.
async fn restart_of_the_manager(world: &mut World) {
    let service = world.manager.create(replicas(idle("lasting"), 2)).await;
    world.manager.running(&service, 2).await;
    let before = world.engine.containers().await;
    world.manager.kill().await;
    world.manager.start_again(&world.manager_machine).await;
    world.manager.running(&service, 2).await;
    world.manager.scale(&service, 3).await;
    world.manager.running(&service, 3).await;
    let after = world.engine.containers().await;
    // The container of the service before may still be stopping.
    let ours = before.iter().filter(|name| name.starts_with("lasting."));
    let kept = ours.filter(|name| after.contains(name));
    assert_eq!(kept.count(), 2, "{before:?} {after:?}");
    world.manager.remove(&service).await;
}

/// An engine knows the managers that it was told of last, and no others.
async fn known_managers(world: &World) {
    let words = ["info", "--format", "{{json .Swarm.RemoteManagers}}"];
    let told = format!("\"Addr\":\"{}\"", world.manager.remote());
    until("the engine knows the manager", async || {
        let known = world.engine.docker(&words).await?;
        if known.contains(&told) {
            Ok(())
        } else {
            Err(known)
        }
    })
    .await;
}

/// It finds the manager again, which nobody named but itself when it joined.
async fn restart_of_the_engine(world: &mut World) {
    known_managers(world).await;
    let service = world.manager.create(idle("again")).await;
    world.manager.running(&service, 1).await;
    world.engine.restart(&world.engine_machine).await;
    known_managers(world).await;
    // Its containers ended with it, and what runs was started since.
    world.manager.running(&service, 1).await;
    world.manager.scale(&service, 2).await;
    world.manager.running(&service, 2).await;
    world.manager.remove(&service).await;
}

async fn drain(world: &World) {
    let manager = &world.manager;
    let service = manager.create(replicas(idle("moved"), 2)).await;
    manager.running(&service, 2).await;
    let name = world.engine.ask(&["info", "--format", "{{.Name}}"]).await;
    manager.set_availability(&name, Availability::Drain).await;
    until("a drained node has no containers", async || {
        let left = world.engine.containers().await;
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    manager.set_availability(&name, Availability::Active).await;
    manager.running(&service, 2).await;
    manager.remove(&service).await;
}

async fn leave(world: &World, node: &v1::Node) {
    world.engine.docker(&["swarm", "leave"]).await.unwrap();
    let manager = &world.manager;
    until("a node that left is DOWN", async || {
        let nodes = manager.nodes().await.map_err(|it| it.to_string())?;
        let left = nodes.iter().find(|it| it.id == node.id);
        let state = left
            .and_then(|it| it.status.clone())
            .unwrap_or_default()
            .state;
        if state == State::Down as i32 {
            Ok(())
        } else {
            Err(format!("state {state}"))
        }
    })
    .await;
    manager.remove_node(&node.id, false).await;
    let nodes = manager.nodes().await.unwrap();
    assert!(nodes.iter().all(|it| it.id != node.id));
}

/// An engine that asks to be a manager is told why not, and is a node of nothing.
async fn second_manager(world: &World) {
    let root = world.manager.cluster().await.unwrap().root_ca.unwrap();
    let token = root.join_tokens.unwrap().manager;
    let before = world.manager.nodes().await.unwrap().len();
    let words = ["swarm", "join", "--token", &token, world.manager.remote()];
    let refused = world.engine.docker(&words).await.unwrap_err();
    assert!(
        refused.contains("a second manager cannot run yet"),
        "{refused}"
    );
    assert_eq!(world.manager.nodes().await.unwrap().len(), before);
    let state = ["info", "--format", "{{.Swarm.LocalNodeState}}"];
    assert_eq!(world.engine.ask(&state).await, "inactive");
}

/// A node that is removed while it works ends its containers, is refused from then on, and joins
/// anew as another.
async fn removed(world: &mut World) {
    let node = world.join().await;
    // The address of the node that left was given back, and others come first.
    assert_ne!(node.attachments[0].addresses, ["10.0.0.2/24"]);
    let service = world.manager.create(idle("orphan")).await;
    world.manager.running(&service, 1).await;
    world.manager.remove_node(&node.id, true).await;
    until("the containers of a removed node end", async || {
        let left = world.engine.containers().await;
        left.is_empty()
            .then_some(())
            .ok_or_else(|| format!("{left:?}"))
    })
    .await;
    let (manager, id) = (&world.manager, node.id.clone());
    stays(COMEBACK, "a removed node stays away", async || {
        let nodes = manager.nodes().await.map_err(|it| it.to_string())?;
        match nodes.iter().find(|node| node.id == id) {
            Some(node) => Err(format!("it came back: {node:?}")),
            None => Ok(()),
        }
    })
    .await;
    let log = world.engine.log();
    assert!(log.contains("removed from swarm"), "{log}");
    world.engine.docker(&["swarm", "leave"]).await.unwrap();
    second_manager(world).await;
    let anew = world.join().await;
    assert_ne!(anew.id, node.id);
    world.manager.running(&service, 1).await;
    world.engine.check().unwrap();
    world.engine_machine.power_off();
    let (manager, id) = (&world.manager, anew.id.clone());
    until("a machine without power is DOWN", async || {
        let nodes = manager.nodes().await.map_err(|it| it.to_string())?;
        let lost = nodes.iter().find(|node| node.id == id);
        let state = lost
            .and_then(|it| it.status.clone())
            .unwrap_or_default()
            .state;
        if state == State::Down as i32 {
            Ok(())
        } else {
            Err(format!("state {state}"))
        }
    })
    .await;
    assert!(!manager.log().contains("panicked"));
}
