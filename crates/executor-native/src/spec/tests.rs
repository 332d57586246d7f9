//! Judging specs, without a machine.

use std::path::Path;
use std::sync::Arc;

use nix::sys::signal::Signal;
use swarm_api::prost_types;
use swarm_api::v1::task_spec::Runtime;

use super::*;

#[derive(Default)]
struct FakeMachine {
    is_root: bool,
}

impl Machine for FakeMachine {
    fn credentials(&self, user: &str, _groups: &[String]) -> Result<Account, String> {
        match user {
            "" => Ok(Account {
                credentials: None,
                home: "/home/me".into(),
            }),
            _ => Err("user: not us".into()),
        }
    }
    fn free_port(&self, _protocol: Protocol) -> Result<u16, String> {
        Ok(40_000)
    }
    fn path(&self) -> Option<String> {
        None
    }
    fn payload_dir(&self, task: &str) -> Result<PathBuf, String> {
        Ok(Path::new("/memory").join(task))
    }
    fn can_mount(&self) -> bool {
        self.is_root
    }
    fn file_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<Owner, String> {
        match uid {
            Some(1) => Err("it is not us".into()),
            Some(_) | None => Ok((uid, gid)),
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(ToOwned::to_owned).collect()
}

fn container() -> v1::ContainerSpec {
    v1::ContainerSpec {
        image: "host".into(),
        command: words("sleep 1"),
        ..Default::default()
    }
}

fn task(container: v1::ContainerSpec) -> Task {
    let runtime = Some(Runtime::Container(container));
    let spec = v1::TaskSpec {
        runtime,
        ..Default::default()
    };
    Task::new("t1".parse().unwrap(), Arc::new(spec))
}

fn judge(task: &Task) -> Result<Plan, String> {
    judge_on(task, &FakeMachine::default())
}

fn judge_on(task: &Task, machine: &FakeMachine) -> Result<Plan, String> {
    let shim_args = words("shim");
    let settings = Settings {
        node: v1::NodeDescription {
            hostname: "host1".into(),
            ..Default::default()
        },
        shim_args,
        log_file_bytes_max: 1,
        log_files_max: 2,
    };
    plan(task, &settings, machine)
}

/// The plan for a host command that `change` was applied to.
fn judge_with(change: impl FnOnce(&mut v1::ContainerSpec)) -> Result<Plan, String> {
    let mut container = container();
    change(&mut container);
    judge(&task(container))
}

#[test]
fn a_plain_command_gets_the_defaults() {
    let plan = judge(&task(container())).unwrap();
    assert_eq!(plan.launch.argv, ["sleep", "1"]);
    assert_eq!(plan.launch.dir, PathBuf::from("/"));
    assert_eq!(plan.stop_signal, Signal::SIGTERM as i32);
    assert_eq!(plan.stop_grace, Duration::from_secs(10));
    assert_eq!(plan.limits, Limits::default());
    assert_eq!(plan.health, None);
}

#[test]
fn command_and_arguments_are_one_line_and_must_name_a_program() {
    let plan = judge_with(|c| c.args = words("2 3")).unwrap();
    assert_eq!(plan.launch.argv, ["sleep", "1", "2", "3"]);
    let only_args = judge_with(|c| {
        c.command.clear();
        c.args = words("true");
    });
    assert_eq!(only_args.unwrap().launch.argv, ["true"]);
    let nothing = judge_with(|c| c.command.clear()).unwrap_err();
    assert!(nothing.contains("command: "), "{nothing}");
    assert!(judge_with(|c| c.command = vec![String::new()]).is_err());
}

#[test]
fn images_other_than_host_are_refused_with_the_way_out() {
    for image in ["nginx", "host:latest", "", "HOST"] {
        let error = judge_with(|c| c.image = image.into()).unwrap_err();
        assert!(
            error.contains(&format!("image: {image:?} is not \"host\"")),
            "{error}"
        );
        assert!(error.contains("set the image to \"host\""), "{error}");
    }
}

type Change = fn(&mut v1::ContainerSpec);

#[test]
fn every_container_field_that_cannot_be_honoured_is_refused_by_name() {
    let changes: [(&str, Change); 20] = [
        ("mounts", |c| c.mounts.push(v1::Mount::default())),
        ("pull_options", |c| {
            let registry_auth = "secret".to_owned();
            c.pull_options = Some(v1::container_spec::PullOptions { registry_auth });
        }),
        ("tty", |c| c.tty = true),
        ("open_stdin", |c| c.open_stdin = true),
        ("hostname", |c| c.hostname = "h".into()),
        ("dns_config", |c| {
            let dns = v1::container_spec::DnsConfig {
                search: words("x"),
                ..Default::default()
            };
            c.dns_config = Some(dns);
        }),
        ("hosts", |c| c.hosts = words("1.2.3.4")),
        ("read_only", |c| c.read_only = true),
        ("init", |c| c.init = Some(true)),
        ("isolation", |c| c.isolation = 1),
        ("isolation", |c| c.isolation = 77),
        ("sysctls", |c| {
            drop(c.sysctls.insert("a".into(), "b".into()))
        }),
        ("capability_add", |c| c.capability_add = words("CAP_X")),
        ("capability_drop", |c| c.capability_drop = words("CAP_X")),
        ("privileges", |c| {
            let seccomp = Some(v1::privileges::SeccompOpts::default());
            c.privileges = Some(v1::Privileges {
                seccomp,
                ..Default::default()
            });
        }),
        ("user", |c| c.user = "root".into()),
        ("dir", |c| c.dir = "relative".into()),
        ("stop_signal", |c| c.stop_signal = "SIGNOPE".into()),
        ("oom_score_adj", |c| c.oom_score_adj = 1001),
        ("env", |c| c.env = words("=value")),
    ];
    for (name, change) in changes {
        let error = judge_with(change).unwrap_err();
        assert!(error.contains(&format!(": {name}: ")), "{name}: {error}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let error = judge_with(|c| {
        c.tty = true;
        c.read_only = true;
        c.dir = "x".into();
    });
    let error = error.unwrap_err();
    for name in ["tty", "read_only", "dir"] {
        assert!(error.contains(&format!("{name}: ")), "{error}");
    }
}

#[test]
fn task_level_fields_that_cannot_be_honoured_are_refused_by_name() {
    type TaskChange = fn(&mut v1::TaskSpec);
    let changes: [(&str, TaskChange); 5] = [
        ("networks", |s| {
            s.networks.push(v1::NetworkAttachmentConfig::default())
        }),
        ("log_driver", |s| {
            s.log_driver = Some(v1::Driver {
                name: "syslog".into(),
                ..Default::default()
            });
        }),
        ("resource_references", |s| {
            s.resource_references.push(v1::ResourceReference::default())
        }),
        ("swap_bytes", |s| {
            let swap_bytes = Some(1);
            s.resources = Some(v1::ResourceRequirements {
                swap_bytes,
                ..Default::default()
            });
        }),
        ("memory_swappiness", |s| {
            let memory_swappiness = Some(1);
            s.resources = Some(v1::ResourceRequirements {
                memory_swappiness,
                ..Default::default()
            });
        }),
    ];
    for (name, change) in changes {
        let mut task = task(container());
        change(Arc::make_mut(&mut task.spec));
        let error = judge(&task).unwrap_err();
        assert!(error.contains(&format!(": {name}: ")), "{name}: {error}");
    }
    let mut other = task(container());
    Arc::make_mut(&mut other.spec).runtime = None;
    assert!(judge(&other).is_err());
}

#[test]
fn the_network_of_the_node_is_what_tasks_have() {
    let attached = |driver: &str| v1::NetworkAttachment {
        network: Some(v1::Network {
            driver_state: Some(v1::Driver {
                name: driver.into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let judge = |drivers: &[&str]| {
        let mut task = task(container());
        let spec = Arc::make_mut(&mut task.spec);
        spec.networks = vec![v1::NetworkAttachmentConfig::default(); drivers.len()];
        task.networks = drivers.iter().map(|driver| attached(driver)).collect();
        judge(&task)
    };
    assert!(judge(&["host"]).is_ok());
    for drivers in [&["bridge"][..], &["host", "bridge"]] {
        let error = judge(drivers).unwrap_err();
        assert!(error.contains(": networks: "), "{error}");
    }
}

#[test]
fn a_log_driver_of_the_cluster_is_warned_of_and_refuses_nothing() {
    let mut task = task(container());
    task.log_driver = Some(Arc::new(v1::Driver {
        name: "syslog".into(),
        ..Default::default()
    }));
    let warnings = judge(&task).unwrap().warnings;
    assert!(
        warnings[0].contains("\"syslog\" of the cluster"),
        "{warnings:?}"
    );
}

#[test]
fn real_time_signals_and_numbers_stop_tasks() {
    for (text, number) in [("SIGRTMIN+3", 37), ("37", 37), ("15", 15)] {
        let plan = judge_with(|c| c.stop_signal = text.into()).unwrap();
        assert_eq!(plan.stop_signal, number);
    }
}

#[test]
fn every_ulimit_of_a_spec_is_one_of_the_system() {
    for name in native::ULIMITS {
        assert!(crate::shim::resource(name).is_some(), "{name}");
    }
}

#[test]
fn what_a_plain_process_can_have_is_honoured() {
    let plan = judge_with(|c| {
        c.dir = "/tmp".into();
        c.stop_signal = "quit".into();
        c.stop_grace_period = Some(prost_types::Duration {
            seconds: 3,
            nanos: 0,
        });
        c.init = Some(false);
        c.pids_limit = 5;
        c.oom_score_adj = -1000;
        c.privileges = Some(v1::Privileges {
            no_new_privileges: true,
            ..Default::default()
        });
        c.ulimits = vec![v1::container_spec::Ulimit {
            name: "nofile".into(),
            soft: 1,
            hard: -1,
        }];
    });
    let plan = plan.unwrap();
    assert_eq!(plan.launch.dir, PathBuf::from("/tmp"));
    assert_eq!(plan.stop_signal, Signal::SIGQUIT as i32);
    assert_eq!(plan.stop_grace, Duration::from_secs(3));
    assert_eq!(plan.limits.pids, Some(5));
    assert_eq!(plan.launch.oom_score_adj, Some(-1000));
    assert!(plan.launch.no_new_privileges);
    let rlimit = Rlimit {
        name: "nofile".into(),
        soft: Some(1),
        hard: None,
    };
    assert_eq!(plan.launch.rlimits, [rlimit]);
}

#[test]
fn ulimits_are_checked_on_both_sides() {
    let judge = |name: &str, soft, hard| {
        let ulimit = v1::container_spec::Ulimit {
            name: name.into(),
            soft,
            hard,
        };
        judge_with(|c| c.ulimits = vec![ulimit])
    };
    assert!(judge("nofile", 5, 5).is_ok());
    assert!(judge("nofile", 6, 5).unwrap_err().contains("nofile"));
    assert!(judge("nofile", -1, 5).unwrap_err().contains("nofile"));
    assert!(judge("nofile", -2, 5).unwrap_err().contains("-2"));
    assert!(judge("files", 1, 1).unwrap_err().contains("\"files\""));
}

#[test]
fn signals_have_names_with_or_without_prefix_and_numbers() {
    for text in ["SIGUSR1", "USR1", "sigusr1", "10"] {
        assert_eq!(native::stop_signal(text), Ok(10), "{text}");
    }
    for text in ["0", "-1", "99", "SIG", "SIGNONE"] {
        assert!(native::stop_signal(text).is_err(), "{text}");
    }
}

#[test]
fn the_environment_tells_the_task_who_it_is() {
    let mut task = task(v1::ContainerSpec {
        env: words("A=1 B=x=y HOME SWARM_TASK_SLOT=77 SWARM_TASK_ID=forged"),
        ..container()
    });
    let resource = |resource| v1::GenericResource {
        resource: Some(resource),
    };
    let gpu = |value: &str| v1::NamedGenericResource {
        kind: "gpu".into(),
        value: value.into(),
    };
    task.assigned_generic_resources = vec![
        resource(v1::generic_resource::Resource::NamedResourceSpec(gpu("u1"))),
        resource(v1::generic_resource::Resource::NamedResourceSpec(gpu("u2"))),
        resource(v1::generic_resource::Resource::DiscreteResourceSpec(
            v1::DiscreteGenericResource {
                kind: "ssd".into(),
                value: 3,
            },
        )),
    ];
    task.node_id = Some("n1".parse().unwrap());
    task.service_annotations = Arc::new(v1::Annotations {
        name: "web".into(),
        ..Default::default()
    });
    let env = judge(&task).unwrap().launch.env;
    let expected = [
        ("A", "1"),
        ("B", "x=y"),
        ("DOCKER_RESOURCE_GPU", "u1,u2"),
        ("DOCKER_RESOURCE_SSD", "3"),
        ("PATH", PATH_DEFAULT),
        ("SWARM_NODE_ID", "n1"),
        ("SWARM_SERVICE_NAME", "web"),
        ("SWARM_TASK_ID", "t1"),
        ("SWARM_TASK_SLOT", "77"),
    ];
    let found: Vec<(&str, &str)> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(found, expected);
}

#[test]
fn host_ports_are_passed_on_and_others_refused() {
    let with_port = |mode, protocol, published_port| {
        let port = v1::PortConfig {
            target_port: 80,
            published_port,
            protocol,
            publish_mode: mode,
            ..Default::default()
        };
        let mut task = task(container());
        task.endpoint = Some(Arc::new(v1::Endpoint {
            ports: vec![port],
            ..Default::default()
        }));
        judge(&task)
    };
    let given = with_port(1, 0, 8080).unwrap();
    assert_eq!(given.launch.env["SWARM_PORT_80"], "8080");
    assert_eq!(given.ports[0].published, 8080);
    assert_eq!(with_port(1, 1, 0).unwrap().ports[0].published, 40_000);
    assert!(
        with_port(0, 0, 8080)
            .unwrap_err()
            .contains("publish it with mode host")
    );
    assert!(with_port(9, 0, 8080).is_err());
    assert!(with_port(1, 2, 8080).unwrap_err().contains("tcp and udp"));
}

#[test]
fn negative_limits_are_refused_and_zero_means_none() {
    let with_limits = |nano_cpus, memory_bytes| {
        let mut task = task(container());
        let limits = Some(v1::Resources {
            nano_cpus,
            memory_bytes,
            generic: vec![],
        });
        Arc::make_mut(&mut task.spec).resources = Some(v1::ResourceRequirements {
            limits,
            ..Default::default()
        });
        judge(&task)
    };
    assert_eq!(with_limits(0, 0).unwrap().limits, Limits::default());
    assert_eq!(with_limits(1, 2).unwrap().limits.memory_bytes, Some(2));
    assert!(with_limits(-1, 0).unwrap_err().contains("nano_cpus is -1"));
    assert!(
        with_limits(0, -1)
            .unwrap_err()
            .contains("memory_bytes is -1")
    );
    let unlimited = judge_with(|c| c.pids_limit = -1).unwrap();
    assert_eq!(unlimited.limits.pids, None);
}

mod payloads;
