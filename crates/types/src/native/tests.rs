use super::*;

fn container() -> v1::ContainerSpec {
    v1::ContainerSpec {
        image: IMAGE_HOST.to_owned(),
        command: vec!["sleep".to_owned()],
        ..Default::default()
    }
}

fn judged(change: impl FnOnce(&mut v1::TaskSpec, &mut v1::ContainerSpec)) -> String {
    let (mut spec, mut container) = (v1::TaskSpec::default(), container());
    change(&mut spec, &mut container);
    problems(&spec, &container).join("; ")
}

#[test]
fn signals_have_names_and_numbers() {
    for (text, number) in [
        ("", 15),
        ("SIGTERM", 15),
        ("term", 15),
        ("SigInt", 2),
        ("9", 9),
        ("64", 64),
        ("SIGRTMIN", 34),
        ("SIGRTMIN+3", 37),
        ("rtmin+30", 64),
        ("SIGRTMAX", 64),
        ("RTMAX-1", 63),
        ("SIGCLD", 17),
    ] {
        assert_eq!(stop_signal(text), Ok(number), "{text:?}");
    }
    for text in [
        "SIG",
        "SIGNOPE",
        "0",
        "65",
        "-1",
        "+9",
        "SIG9",
        "SIGRTMIN+31",
        "SIGRTMIN-1",
        "RTMAX+1",
        "RTMIN+",
        "RTMIN+-1",
        "RTMAX-31",
        "99999999999",
        "SIGSIGTERM",
    ] {
        let error = stop_signal(text).unwrap_err();
        assert!(error.contains(&format!("no signal {text:?}")), "{error}");
    }
}

#[test]
fn what_a_process_can_have_is_taken() {
    assert_eq!(judged(|_, _| {}), "");
    let judged = judged(|_, container| {
        container.dir = "/tmp".to_owned();
        container.stop_signal = "SIGRTMIN+3".to_owned();
        container.oom_score_adj = -1000;
        container.privileges = Some(v1::Privileges {
            no_new_privileges: true,
            ..Default::default()
        });
        container.ulimits = ULIMITS
            .into_iter()
            .map(|name| v1::container_spec::Ulimit {
                name: name.to_owned(),
                soft: 1,
                hard: -1,
            })
            .collect();
    });
    assert_eq!(judged, "");
}

#[test]
fn other_images_are_not_judged() {
    let judged = judged(|_, container| {
        container.image = "nginx".to_owned();
        container.command.clear();
        container.tty = true;
    });
    assert_eq!(judged, "");
}

#[test]
fn every_problem_is_named() {
    let judged = judged(|spec, container| {
        container.command.clear();
        container.tty = true;
        container.hostname = "h".to_owned();
        container.dir = "here".to_owned();
        container.stop_signal = "SIGNOPE".to_owned();
        container.oom_score_adj = 1001;
        container.ulimits = vec![v1::container_spec::Ulimit {
            name: "files".to_owned(),
            soft: 1,
            hard: 1,
        }];
        spec.log_driver = Some(v1::Driver {
            name: "syslog".to_owned(),
            ..Default::default()
        });
    });
    for part in [
        "tty: not",
        "hostname: not",
        "log_driver: not",
        "no program of its own",
        "dir: \"here\"",
        "no \"files\"",
        "no signal \"SIGNOPE\"",
        "oom_score_adj: 1001",
    ] {
        assert!(judged.contains(part), "{part}: {judged}");
    }
}

#[test]
fn targets_are_as_deep_as_they_may_be_and_no_deeper() {
    let with_depth = |directories: usize| {
        judged(|_, container| {
            let name = format!("{}file", "d/".repeat(directories));
            let file = v1::FileTarget {
                name,
                ..Default::default()
            };
            container.secrets = vec![v1::SecretReference {
                secret_name: "key".to_owned(),
                target: Some(v1::secret_reference::Target::File(file)),
                ..Default::default()
            }];
        })
    };
    assert_eq!(with_depth(TARGET_DEPTH_MAX), "");
    let error = with_depth(TARGET_DEPTH_MAX + 1);
    assert!(error.contains("secret \"key\""), "{error}");
    assert!(error.contains("17 directories, 16 are allowed"), "{error}");
}
