//! Templates of tasks: container specs, secrets and configs.

use std::sync::Arc;

use swarm_api::v1;
use v1::task_spec::Runtime;

use super::super::task::*;
use super::*;
use crate::{Slot, Task};

fn annotations(name: &str) -> v1::Annotations {
    v1::Annotations {
        name: name.to_owned(),
        labels: [("tier".to_owned(), "front".to_owned())].into(),
        ..Default::default()
    }
}

fn file(name: &str) -> v1::FileTarget {
    v1::FileTarget {
        name: name.to_owned(),
        ..Default::default()
    }
}

fn task(container: v1::ContainerSpec) -> Task {
    let spec = v1::TaskSpec {
        runtime: Some(Runtime::Container(container)),
        ..Default::default()
    };
    let mut task = Task::new("task1".parse().unwrap(), Arc::new(spec));
    task.service_id = "service1".parse().ok();
    task.node_id = "node1".parse().ok();
    task.slot = Slot(2);
    task.service_annotations = Arc::new(annotations("web"));
    task
}

fn node() -> v1::NodeDescription {
    v1::NodeDescription {
        hostname: "host1".to_owned(),
        platform: Some(v1::Platform {
            architecture: "x86_64".to_owned(),
            os: "linux".to_owned(),
        }),
        ..Default::default()
    }
}

fn env(task: &Task, node: Option<&v1::NodeDescription>) -> Result<Vec<String>, String> {
    let expanded = container(task, node).map_err(|error| error.to_string())?;
    Ok(expanded.unwrap().env)
}

#[test]
fn every_fact_of_the_task_can_be_used() {
    let all = "X={{.Service.ID}} {{.Service.Name}} {{.Service.Labels.tier}} {{.Node.ID}} \
               {{.Node.Hostname}} {{.Node.Platform.Architecture}} {{.Node.Platform.OS}} \
               {{.Task.ID}} {{.Task.Name}} {{.Task.Slot}}";
    let task = task(v1::ContainerSpec {
        env: vec![
            all.to_owned(),
            "{{.Task.ID}}".to_owned(),
            "Y={{.Task.Slot}}=".to_owned(),
        ],
        ..Default::default()
    });
    assert_eq!(
        env(&task, Some(&node())).unwrap(),
        [
            "X=service1 web front node1 host1 x86_64 linux task1 web.2.task1 2",
            // There is no value in this one.
            "{{.Task.ID}}",
            "Y=2=",
        ]
    );
}

#[test]
fn a_task_without_a_slot_has_its_node_there_and_a_silent_node_is_no_error() {
    let mut task = task(v1::ContainerSpec {
        env: vec!["X={{.Task.Slot}}|{{.Node.Hostname}}{{.Node.Platform.OS}}".to_owned()],
        ..Default::default()
    });
    task.slot = Slot(0);
    assert_eq!(env(&task, None).unwrap(), ["X=node1|"]);
}

#[test]
fn mounts_and_the_host_name_are_expanded_and_nothing_else() {
    let template = || "{{.Task.Slot}}".to_owned();
    let pair = || BTreeMap::from([("k".to_owned(), template())]);
    let spec = v1::ContainerSpec {
        image: template(),
        args: vec![template()],
        labels: pair(),
        user: template(),
        hostname: template(),
        mounts: vec![v1::Mount {
            source: template(),
            target: template(),
            volume_options: Some(v1::mount::VolumeOptions {
                labels: pair(),
                driver_config: Some(v1::Driver {
                    name: template(),
                    options: pair(),
                }),
                ..Default::default()
            }),
            ..Default::default()
        }],
        ..Default::default()
    };
    let expanded = container(&task(spec.clone()), None).unwrap().unwrap();
    let mount = &expanded.mounts[0];
    let options = mount.volume_options.as_ref().unwrap();
    let driver = options.driver_config.as_ref().unwrap();
    let changed = [&expanded.hostname, &mount.source, &mount.target];
    assert!(changed.iter().all(|text| *text == "2"));
    assert_eq!(options.labels["k"], "2");
    assert_eq!(driver.options["k"], "2");
    assert_eq!(driver.name, template());
    assert_eq!((&expanded.image, &expanded.args), (&spec.image, &spec.args));
    assert_eq!(
        (&expanded.labels, &expanded.user),
        (&spec.labels, &spec.user)
    );
}

#[test]
fn an_error_names_the_field() {
    let task = task(v1::ContainerSpec {
        env: vec!["APP={{.Nope}}".to_owned()],
        ..Default::default()
    });
    assert_eq!(
        env(&task, None).unwrap_err(),
        "template env APP:1:3: there is no field Nope; there are Service, Node, Task"
    );
}

#[test]
fn a_rehearsal_knows_the_labels_of_the_service() {
    let spec = |text: &str| v1::ContainerSpec {
        hostname: text.to_owned(),
        ..Default::default()
    };
    let service = annotations("web");
    let rehearsed = rehearse(&spec("{{.Service.Labels.tier}}"), Some(&service)).unwrap();
    assert_eq!(rehearsed.hostname, "front");
    assert!(rehearse(&spec("{{.Service.Labels.none}}"), Some(&service)).is_err());
    assert!(rehearse(&spec("{{secret \"x\"}}"), Some(&service)).is_err());
}

struct World {
    task: Task,
    secrets: BTreeMap<String, Arc<v1::Secret>>,
    configs: BTreeMap<String, Arc<v1::Config>>,
}

/// A task with a secret `s` in the file `sf` and a config `c` in the file `cf`.
fn world() -> World {
    let golang = || {
        Some(v1::Driver {
            name: DRIVER.to_owned(),
            ..Default::default()
        })
    };
    let secret = v1::Secret {
        id: "s".to_owned(),
        spec: Some(v1::SecretSpec {
            annotations: Some(annotations("s")),
            data: "hush{{.Task.ID}}".into(),
            templating: golang(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let config = v1::Config {
        id: "c".to_owned(),
        spec: Some(v1::ConfigSpec {
            annotations: Some(annotations("c")),
            data: "port".into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let task = task(v1::ContainerSpec {
        env: vec!["A=1{{.Task.ID}}".to_owned()],
        secrets: vec![v1::SecretReference {
            secret_id: "s".to_owned(),
            secret_name: "s".to_owned(),
            target: Some(v1::secret_reference::Target::File(file("sf"))),
        }],
        configs: vec![v1::ConfigReference {
            config_id: "c".to_owned(),
            config_name: "c".to_owned(),
            target: Some(v1::config_reference::Target::File(file("cf"))),
        }],
        ..Default::default()
    });
    World {
        task,
        secrets: [("s".to_owned(), Arc::new(secret))].into(),
        configs: [("c".to_owned(), Arc::new(config))].into(),
    }
}

/// The data of a config with this template, and whether it is sensitive.
fn expanded(text: &str, driver: Option<&str>) -> Result<(String, bool), String> {
    let world = world();
    let payloads = Payloads {
        task: &world.task,
        node: None,
        secrets: &world.secrets,
        configs: &world.configs,
    };
    let driver = driver.map(|name| v1::Driver {
        name: name.to_owned(),
        ..Default::default()
    });
    let spec = v1::ConfigSpec {
        annotations: Some(annotations("site")),
        data: text.to_owned().into(),
        templating: driver,
    };
    let config = v1::Config {
        spec: Some(spec),
        ..Default::default()
    };
    let payload = payloads
        .config(&config)
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&payload.data).into_owned();
    Ok((text, payload.is_sensitive))
}

#[test]
fn a_payload_sees_the_environment_and_its_neighbours_unexpanded() {
    let check = |text: &str, wanted: &str, is_sensitive| {
        assert_eq!(
            expanded(text, Some(DRIVER)),
            Ok((wanted.to_owned(), is_sensitive))
        );
    };
    check("{{env \"A\"}}|{{env \"B\"}}", "1{{.Task.ID}}|", false);
    check("{{config \"cf\"}}", "port", false);
    check("{{secret \"sf\"}}", "hush{{.Task.ID}}", true);
    check("{{if false}}{{secret \"sf\"}}{{end}}", "", false);
    check("{{.Service.Name}}", "web", false);
}

#[test]
fn a_payload_without_the_driver_is_left_alone() {
    assert_eq!(expanded("{{.Nope", None), Ok(("{{.Nope".to_owned(), false)));
    let error = expanded("x", Some("jinja")).unwrap_err();
    assert!(
        error.contains("templating driver \"jinja\" is not known"),
        "{error}"
    );
}

#[test]
fn errors_name_the_payload_and_no_content() {
    let error = |text: &str| expanded(text, Some(DRIVER)).unwrap_err();
    let missing = "template config site:1:3: secret: secret target x not found";
    assert_eq!(error("{{secret \"x\"}}"), missing);
    assert!(error("{{config \"x\"}}").contains("config target x not found"));
    let compared = error("{{lt (secret \"sf\") 1}}");
    assert!(!compared.contains("hush"), "{compared}");
}

#[test]
fn a_secret_is_always_sensitive_and_expanded() {
    let world = world();
    let payloads = Payloads {
        task: &world.task,
        node: None,
        secrets: &world.secrets,
        configs: &world.configs,
    };
    let payload = payloads.secret(&world.secrets["s"]).unwrap();
    assert_eq!(&payload.data[..], b"hushtask1");
    assert!(payload.is_sensitive);
}
