//! The services that the user creates.

use swarm_api::prost_types;
use swarm_api::v1;
use swarm_types::{Service, resources};
use v1::placement_preference::Preference;
use v1::port_config::PublishMode;
use v1::restart_policy::RestartCondition;
use v1::service_spec::Mode;
use v1::task_spec::Runtime;

use crate::random::Random;
use crate::settings::Services;

/// The label of services that never come to rest.
const FRAGILE: &str = "sim.fragile";

const STOPS_SLOWLY: &[&str] = &["fake.stop=4s"];
/// Takes longer than a replacement waits at least; in the place of the one above, so that what
/// other seeds do stays the same.
const STOPS_FOR_LONG: &[&str] = &["fake.stop=80s"];

/// Scripts of tasks that need patience and then run.
const TROUBLE: &[&[&str]] = &[
    &["fake.prepare=2s", "fake.jitter=500ms"],
    STOPS_SLOWLY,
    &["fake.start=1s", "fake.stop=1s", "fake.jitter=1s"],
    &["fake.temporary=prepare:2"],
    &["fake.temporary=start:1", "fake.temporary=remove:2"],
    &["fake.temporary=shutdown:2"],
    &["fake.hang=shutdown:50"],
    &["fake.hang=shutdown"],
    &["fake.hang=remove:10"],
    &["fake.fail=start:30"],
    &["fake.fail=prepare:30"],
    &["fake.fail=shutdown:40"],
    &["fake.fail=remove:40"],
    &["fake.fail=update:20"],
];

/// Scripts of tasks that never stay.
const FRAGILE_SCRIPTS: &[&[&str]] = &[
    &["fake.run=3s", "fake.exit=1"],
    &["fake.run=2s", "fake.jitter=5s"],
    &["fake.run=1s", "fake.oom=true"],
    &["fake.reject=no such image"],
    &["fake.fail=start"],
    &["fake.hang=start:50"],
    &["fake.hang=prepare"],
    &["fake.run=10ms"],
    &["fake.nonsense=1"],
];

/// Whether the service must be removed before anyone can expect rest.
pub(crate) fn is_fragile(service: &Service) -> bool {
    service.spec.annotations().labels.contains_key(FRAGILE)
}

/// Draws a service.
pub(super) fn draw(services: &Services, number: u64, random: &mut Random) -> v1::ServiceSpec {
    let is_fragile = random.happens(services.fragile_per_mille);
    let script: &[&str] = if is_fragile {
        random.pick(FRAGILE_SCRIPTS).copied().unwrap_or_default()
    } else if random.happens(services.trouble_per_mille) {
        random.pick(TROUBLE).copied().unwrap_or_default()
    } else {
        &[]
    };
    let mut annotations = v1::Annotations {
        name: format!("{}-{number}", if is_fragile { "fragile" } else { "steady" }),
        ..Default::default()
    };
    if is_fragile {
        annotations.labels.insert(FRAGILE.to_owned(), String::new());
    }
    let mode = if random.happens(services.global_per_mille) {
        Mode::Global(v1::GlobalService {})
    } else {
        let replicas = random.between(0, services.replicas_max);
        Mode::Replicated(v1::ReplicatedService { replicas })
    };
    v1::ServiceSpec {
        annotations: Some(annotations),
        task: Some(template(services, script, is_fragile, random)),
        mode: Some(mode),
        endpoint: endpoint(services, random),
        ..Default::default()
    }
}

/// Makes a spec so large that few of its tasks fit one transaction, and few of them enough.
pub(super) fn enlarge(spec: &mut v1::ServiceSpec, random: &mut Random) {
    let bytes = random.pick(&[300_000, 400_000, 523_000]).copied();
    let filler = format!("FILLER={}", "x".repeat(bytes.unwrap_or_default()));
    let task = spec.task.get_or_insert_default();
    if let Some(Runtime::Container(container)) = &mut task.runtime {
        container.env.push(filler);
    }
    if let Some(Mode::Replicated(replicated)) = &mut spec.mode {
        replicated.replicas = replicated.replicas.min(6);
    }
}

fn template(
    services: &Services,
    script: &[&str],
    is_fragile: bool,
    random: &mut Random,
) -> v1::TaskSpec {
    let mut script = script;
    let mut grace = random.happens(300).then(|| random.between(0, 5_000));
    if script == STOPS_SLOWLY && grace.is_some_and(|millis| millis > 4_000) {
        (script, grace) = (STOPS_FOR_LONG, Some(90_000));
    }
    let container = v1::ContainerSpec {
        image: "host".to_owned(),
        command: vec!["fake".to_owned()],
        args: script.iter().map(|word| (*word).to_owned()).collect(),
        stop_grace_period: grace.map(wire),
        ..Default::default()
    };
    v1::TaskSpec {
        runtime: Some(Runtime::Container(container)),
        restart: restart(is_fragile, random),
        placement: random
            .happens(services.placement_per_mille)
            .then(|| placement(random)),
        resources: random
            .happens(services.resources_per_mille)
            .then(|| reservations(random)),
        ..Default::default()
    }
}

/// Services that must run in the end are restarted always; fragile ones try every policy.
fn restart(is_fragile: bool, random: &mut Random) -> Option<v1::RestartPolicy> {
    if random.happens(300) {
        return None;
    }
    let delays = [0, 100, 1_000, 3_000, 5_000];
    let delay = random.pick(&delays).copied().unwrap_or(0);
    let mut policy = v1::RestartPolicy {
        condition: RestartCondition::Any as i32,
        delay: Some(wire(delay)),
        ..Default::default()
    };
    if is_fragile {
        let conditions = [
            RestartCondition::None,
            RestartCondition::OnFailure,
            RestartCondition::Any,
        ];
        policy.condition = random
            .pick(&conditions)
            .map_or(0, |condition| *condition as i32);
        policy.max_attempts = random.below(4);
        policy.window = random.happens(500).then(|| wire(random.between(1, 30_000)));
    }
    Some(policy)
}

fn placement(random: &mut Random) -> v1::Placement {
    let constraints: &[&[&str]] = &[
        &[],
        &["node.labels.zone == a"],
        &["node.labels.zone != a"],
        &["node.role == worker"],
        &["node.hostname != n1"],
        &["node.labels.zone == b", "node.role == worker"],
        &["node.hostname == nowhere"],
    ];
    let chosen = random.pick(constraints).copied().unwrap_or_default();
    let spread = v1::SpreadOver {
        spread_descriptor: "node.labels.zone".to_owned(),
    };
    let preference = v1::PlacementPreference {
        preference: Some(Preference::Spread(spread)),
    };
    v1::Placement {
        constraints: chosen.iter().map(|text| (*text).to_owned()).collect(),
        preferences: if random.happens(400) {
            vec![preference]
        } else {
            Vec::new()
        },
        max_replicas: if random.happens(400) {
            random.between(1, 3)
        } else {
            0
        },
        platforms: if random.happens(100) {
            vec![v1::Platform {
                architecture: "aarch64".to_owned(),
                os: "linux".to_owned(),
            }]
        } else {
            Vec::new()
        },
    }
}

fn reservations(random: &mut Random) -> v1::ResourceRequirements {
    let mut generic = Vec::new();
    if random.happens(300) {
        generic.push(resources::discrete("disk", 1));
    }
    if random.happens(300) {
        generic.push(resources::discrete("gpu", 1));
    }
    let millis = [0, 250, 500, 1_000, 3_000];
    let cpus = random.pick(&millis).copied().unwrap_or(0);
    let memory = random.below(4);
    v1::ResourceRequirements {
        reservations: Some(v1::Resources {
            nano_cpus: cpus * 1_000_000,
            memory_bytes: i64::try_from(memory << 29).unwrap_or(0),
            generic,
        }),
        ..Default::default()
    }
}

/// Few numbers, so that services collide.
fn endpoint(services: &Services, random: &mut Random) -> Option<v1::EndpointSpec> {
    let mut ports = Vec::new();
    if random.happens(services.ports_per_mille) {
        ports.push(v1::PortConfig {
            target_port: 80,
            published_port: 8_000 + u32::try_from(random.below(3)).unwrap_or(0),
            publish_mode: PublishMode::Host as i32,
            ..Default::default()
        });
    }
    if random.happens(services.ports_per_mille) {
        let published = [0, 30_000, 30_001, 9_000];
        ports.push(v1::PortConfig {
            target_port: 81,
            published_port: random.pick(&published).copied().unwrap_or(0),
            publish_mode: PublishMode::Ingress as i32,
            ..Default::default()
        });
    }
    (!ports.is_empty()).then(|| v1::EndpointSpec {
        ports,
        ..Default::default()
    })
}

fn wire(millis: u64) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(millis / 1000).unwrap_or(0),
        nanos: i32::try_from(millis % 1000).unwrap_or(0) * 1_000_000,
    }
}
