//! Tiny worlds, one object a line, and explanations as text:
//!
//! ```text
//! ingress 10.0.0.0/24
//! node n1 down pause mem=100 zone=a overlay at=5
//! service web replicas=2 restart=none attempts=3 constraint=node.labels.zone==a mem=50 most=1
//! service web global secret=db health
//! secret db driver
//! task t1 web.1 pending/running on=n1 created=1 at=2 failures=7 err=the rest of the line
//! ```
//!
//! Times are in seconds. Host names are `host-<id>`.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use swarm_api::{ext, v1};
use swarm_store::Root;
use swarm_types::conditions;
use swarm_types::state::ALL;
use swarm_types::{
    AnyObject, Network, Node, NodeState, Secret, Service, ServiceSpec, Slot, Task, TaskState,
    TaskStatus, Timestamp, networks, time,
};

use crate::{Unanswered, why};

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(seconds * 1000)
}

/// A line: its words, and what follows `err=`.
struct Line<'a> {
    words: Vec<&'a str>,
    err: &'a str,
}

impl<'a> Line<'a> {
    fn new(text: &'a str) -> Self {
        let (text, err) = text.split_once(" err=").unwrap_or((text, ""));
        Self {
            words: text.split_whitespace().collect(),
            err,
        }
    }
    fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }
    fn value(&self, key: &str) -> Option<&'a str> {
        let pairs = self.words.iter().filter_map(|word| word.split_once('='));
        let mut found = pairs.filter(|(name, _)| *name == key);
        found.next().map(|(_, value)| value)
    }
    fn number(&self, key: &str) -> Option<i64> {
        self.value(key).map(|value| value.parse().unwrap())
    }
}

pub(super) fn world(text: &str) -> Root {
    let mut root = Root::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let line = Line::new(line);
        let created = line.number("created").or_else(|| line.number("at"));
        let mut transaction = root.begin(at(created.unwrap_or(0)));
        let object: AnyObject = match line.words[0] {
            "node" => node(&line).into(),
            "ingress" => ingress(&line).into(),
            "service" => service(&line).into(),
            "secret" => secret(&line).into(),
            "task" => task(&root, &line).into(),
            other => panic!("no such kind: {other}"),
        };
        transaction.create(object).unwrap();
        root = transaction.finish().0;
    }
    root
}

/// The ingress network with a subnet.
fn ingress(line: &Line<'_>) -> Network {
    let mut spec = v1::NetworkSpec {
        ingress: true,
        ..Default::default()
    };
    spec.annotations.get_or_insert_default().name = "ingress".to_owned();
    let mut network = Network::new("ingress".parse().unwrap(), spec);
    network.ipam = Some(Arc::new(v1::IpamOptions {
        configs: vec![v1::IpamConfig {
            subnet: line.words[1].to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    }));
    network
}

/// The engine of a node that can take part in overlay networks.
fn overlay() -> v1::EngineDescription {
    v1::EngineDescription {
        plugins: vec![v1::PluginDescription {
            r#type: networks::NETWORK_PLUGIN.to_owned(),
            name: networks::OVERLAY_DRIVER.to_owned(),
        }],
        ..Default::default()
    }
}

fn node(line: &Line<'_>) -> Node {
    use v1::node_spec::Availability;
    let mut spec = v1::NodeSpec::default();
    if line.has("pause") {
        spec.availability = Availability::Pause as i32;
    } else if line.has("drain") {
        spec.availability = Availability::Drain as i32;
    }
    if let Some(zone) = line.value("zone") {
        let labels = &mut spec.annotations.get_or_insert_default().labels;
        labels.insert("zone".to_owned(), zone.to_owned());
    }
    let mut node = Node::new(line.words[1].parse().unwrap(), spec);
    node.description = Some(Arc::new(v1::NodeDescription {
        hostname: format!("host-{}", line.words[1]),
        resources: Some(v1::Resources {
            memory_bytes: line.number("mem").unwrap_or(0),
            ..Default::default()
        }),
        engine: line.has("overlay").then(overlay),
        ..Default::default()
    }));
    if let Some(name) = line.value("condition") {
        let kinds = conditions::Kind::ALL.into_iter();
        let kind = { kinds }.find(|kind| kind.name() == name).unwrap();
        let mut description = node.description.as_deref().unwrap().clone();
        conditions::add(&mut description, kind, "it is bad");
        node.description = Some(Arc::new(description));
    }
    node.status.state = if line.has("down") {
        NodeState::Down
    } else if line.has("unknown") {
        NodeState::Unknown
    } else {
        NodeState::Ready
    };
    node.status.message = line.err.to_owned().into();
    node
}

fn service(line: &Line<'_>) -> Service {
    use v1::restart_policy::RestartCondition;
    use v1::service_spec::Mode;
    let name = line.words[1];
    let constraints: Vec<String> = line
        .words
        .iter()
        .filter_map(|word| word.strip_prefix("constraint="))
        .map(str::to_owned)
        .collect();
    let most = line.number("most").unwrap_or(0).unsigned_abs();
    let template = v1::TaskSpec {
        restart: Some(v1::RestartPolicy {
            condition: match line.value("restart") {
                Some("none") => RestartCondition::None,
                Some("on-failure") => RestartCondition::OnFailure,
                Some(_) | None => RestartCondition::Any,
            } as i32,
            delay: Some(time::duration_to_wire(Duration::from_secs(5))),
            max_attempts: line.number("attempts").unwrap_or(0).unsigned_abs(),
            window: None,
        }),
        placement: (!constraints.is_empty() || most > 0).then_some(v1::Placement {
            constraints,
            max_replicas: most,
            ..Default::default()
        }),
        resources: line
            .number("mem")
            .map(|memory_bytes| v1::ResourceRequirements {
                reservations: Some(v1::Resources {
                    memory_bytes,
                    ..Default::default()
                }),
                ..Default::default()
            }),
        runtime: container(line).map(v1::task_spec::Runtime::Container),
        ..Default::default()
    };
    let wire = v1::ServiceSpec {
        annotations: Some(v1::Annotations {
            name: name.to_owned(),
            ..Default::default()
        }),
        task: Some(template),
        mode: Some(if line.has("global") {
            Mode::Global(v1::GlobalService {})
        } else {
            Mode::Replicated(v1::ReplicatedService {
                replicas: line.number("replicas").unwrap_or(1).unsigned_abs(),
            })
        }),
        ..Default::default()
    };
    Service::new(
        format!("id-{name}").parse().unwrap(),
        ServiceSpec::new(wire),
    )
}

fn container(line: &Line<'_>) -> Option<v1::ContainerSpec> {
    let secret = line.value("secret");
    let health = line.has("health").then(|| v1::HealthConfig {
        test: ["CMD", "true"].map(str::to_owned).into(),
        interval: Some(time::duration_to_wire(Duration::from_secs(10))),
        timeout: Some(time::duration_to_wire(Duration::from_secs(5))),
        retries: 2,
        ..Default::default()
    });
    (secret.is_some() || health.is_some()).then(|| v1::ContainerSpec {
        healthcheck: health,
        secrets: secret
            .map(|name| v1::SecretReference {
                secret_id: format!("id-{name}"),
                secret_name: name.to_owned(),
                target: None,
            })
            .into_iter()
            .collect(),
        ..Default::default()
    })
}

fn secret(line: &Line<'_>) -> Secret {
    let name = line.words[1];
    let spec = v1::SecretSpec {
        annotations: Some(v1::Annotations {
            name: name.to_owned(),
            ..Default::default()
        }),
        driver: line.has("driver").then(v1::Driver::default),
        ..Default::default()
    };
    Secret::new(format!("id-{name}").parse().unwrap(), spec)
}

fn task(root: &Root, line: &Line<'_>) -> Task {
    let state = |name: &str| -> TaskState {
        let found = ALL.into_iter().find(|state| state.name() == name);
        found.unwrap_or_else(|| panic!("no state {name}"))
    };
    let (service, slot) = line.words[2].split_once('.').unwrap();
    let id: swarm_types::ServiceId = format!("id-{service}").parse().unwrap();
    let (observed, desired) = line.words[3].split_once('/').unwrap();
    let seconds = line.number("at").or_else(|| line.number("created"));
    let status = TaskStatus {
        err: line.err.to_owned().into(),
        ..TaskStatus::new(state(observed), at(seconds.unwrap_or(0)), "")
    };
    let template = root
        .service(&id)
        .map(|service| Arc::clone(service.spec.task()));
    let task = Task::new(line.words[1].parse().unwrap(), template.unwrap_or_default());
    let mut task = task.with_states(status, state(desired));
    task.service_annotations = Arc::new(v1::Annotations {
        name: service.to_owned(),
        ..Default::default()
    });
    task.spec_version = root.service(&id).and_then(|service| service.spec_version);
    task.service_id = Some(id);
    task.slot = Slot(slot.parse().unwrap());
    task.failures_before = line
        .number("failures")
        .map_or(0, |failures| failures.try_into().unwrap());
    task.node_id = line.value("on").map(|node| node.parse().unwrap());
    task
}

/// The explanation as text; times in seconds.
pub(super) fn explained(text: &str, now: i64, object: &str) -> String {
    render(&why(&world(text), at(now), None, None, object).unwrap())
}

pub(super) fn refused(text: &str, object: &str) -> Unanswered {
    why(&world(text), at(0), None, None, object).unwrap_err()
}

fn render(answer: &ext::WhyResponse) -> String {
    let mut text = format!("{}\n", answer.headline);
    if let Some(since) = &answer.waiting_since {
        writeln!(text, "since {}", since.seconds).unwrap();
    }
    if let Some(retry) = &answer.next_retry {
        writeln!(text, "retry {}", retry.seconds).unwrap();
    }
    for reason in &answer.reasons {
        write!(text, "- {}: {}", reason.code, reason.text).unwrap();
        if let Some(since) = &reason.since {
            write!(text, " [{}]", since.seconds).unwrap();
        }
        text.push('\n');
        for count in &reason.filter_counts {
            writeln!(text, "  {} {}: {}", count.nodes, count.filter, count.text).unwrap();
        }
        if let Some(nearest) = &reason.nearest {
            writeln!(
                text,
                "  nearest {}: {}",
                nearest.hostname,
                nearest.missing.join("; ")
            )
            .unwrap();
        }
    }
    for step in &answer.next_steps {
        writeln!(text, "> {step}").unwrap();
    }
    text
}

/// Checks an explanation; lines may be indented by eight.
#[track_caller]
pub(super) fn check(text: &str, now: i64, object: &str, expected: &str) {
    let lines = expected.trim_start_matches('\n').lines();
    let lines: Vec<&str> = lines
        .map(|line| {
            line.strip_prefix("        ")
                .unwrap_or_else(|| line.trim_start())
        })
        .collect();
    let expected = lines.join("\n");
    assert_eq!(explained(text, now, object).trim_end(), expected.trim_end());
}
