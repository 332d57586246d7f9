//! Exit codes of the nouns beside services: certificates, tokens, unlock keys, secrets, configs.

use swarm_api::v1;
use tonic::Status;

use crate::fake::{Fake, Running};
use crate::{parts, swarmctl, test};

async fn with_cluster() -> Running {
    let running = Fake::start(vec![]).await;
    running.fake.with(|state| {
        let spec = v1::ClusterSpec {
            annotations: Some(v1::Annotations {
                name: "default".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        state.clusters = vec![v1::Cluster {
            id: "c1".to_owned(),
            spec: Some(spec),
            ..Default::default()
        }];
        state.tokens = vec!["t1".to_owned()];
    });
    running
}

/// Runs a line: its exit code, standard output and standard error.
async fn run(running: &Running, line: &str) -> (i32, String, String) {
    let words: Vec<&str> = line.split(' ').collect();
    let output = swarmctl(running, &words).await;
    let (code, stdout, stderr) = parts(&output);
    assert!(!stderr.contains("panicked"), "{line}: {stderr}");
    (code, stdout.to_owned(), stderr.to_owned())
}

fn changes(running: &Running) -> Vec<&'static str> {
    running
        .fake
        .with(|state| std::mem::take(&mut state.changes))
}

fn refuse(running: &Running, status: Status) {
    running.fake.with(|state| state.refusal = Some(status));
}

#[test]
fn wrong_lines_are_2_and_change_nothing() {
    test(async {
        let running = with_cluster().await;
        for line in [
            "cluster join-token",
            "cluster join-token neither",
            "cluster join-token worker --rotate --uses 1",
            "cluster join-token worker --uses 0",
            "cluster join-token worker --ttl soon",
            "cluster tokens rm",
            "cluster ca rotate --key k",
            "cluster ca rotate --cert /nowhere/cert.pem",
            "cluster update default --autolock=perhaps",
            "cluster unlock-key -q --format json",
            "secret create",
            "secret create db -f /nowhere/file",
            "config create site -f /nowhere/file",
            "node readmit",
        ] {
            let (code, stdout, stderr) = run(&running, line).await;
            assert_eq!((code, stdout.as_str()), (2, ""), "{line}: {stderr}");
            assert_eq!(changes(&running), Vec::<&str>::new(), "{line}");
        }
    });
}

#[test]
fn what_is_missing_is_3() {
    test(async {
        let running = with_cluster().await;
        for line in [
            "cluster tokens rm t2",
            "cluster unlock-key other",
            "secret inspect db",
            "secret rm db",
            "secret update db --label a=b",
            "config inspect site",
            "config rm site",
            "service logs nothing",
        ] {
            let (code, stdout, stderr) = run(&running, line).await;
            assert_eq!((code, stdout.as_str()), (3, ""), "{line}: {stderr}");
            assert!(stderr.contains("not found"), "{line}: {stderr}");
            assert_eq!(changes(&running), Vec::<&str>::new(), "{line}");
        }
        let (_, _, stderr) = run(&running, "cluster tokens rm t2").await;
        assert!(
            stderr.contains("hint: `swarmctl cluster tokens ls`"),
            "{stderr}"
        );
    });
}

#[test]
fn what_the_manager_refuses_is_1_in_its_words() {
    test(async {
        let running = with_cluster().await;
        let file = running.socket().with_file_name("data");
        std::fs::write(&file, "x").unwrap();
        let file = file.display();
        for line in [
            "cluster join-token worker --uses 1".to_owned(),
            "cluster join-token manager --rotate".to_owned(),
            "cluster ca rotate".to_owned(),
            "cluster update default --autolock=true".to_owned(),
            "cluster unlock-key --rotate".to_owned(),
            format!("secret create db -f {file}"),
            format!("config create site -f {file}"),
        ] {
            refuse(&running, Status::failed_precondition("because"));
            let (code, stdout, stderr) = run(&running, &line).await;
            assert_eq!((code, stdout.as_str()), (1, ""), "{line}: {stderr}");
            assert_eq!(stderr, "swarmctl: because\n", "{line}");
            assert_eq!(changes(&running).len(), 1, "{line}");
        }
    });
}

#[test]
fn an_unlock_key_is_printed_and_1_says_that_there_is_none() {
    test(async {
        let running = with_cluster().await;
        let (code, stdout, stderr) = run(&running, "cluster unlock-key").await;
        assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains("hint: `swarmctl cluster update default --autolock=true`"));
        running.fake.with(|state| state.unlock_key = vec![0; 32]);
        let key = format!("SWMKEY-1-{}", "A".repeat(43));
        let quiet = run(&running, "cluster unlock-key default -q").await;
        assert_eq!(quiet, (0, format!("{key}\n"), String::new()));
        let json = run(&running, "cluster unlock-key --format json").await.1;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["unlock_key"], key);
        assert_eq!(changes(&running), Vec::<&str>::new());
        for line in [
            "cluster unlock-key --rotate",
            "cluster update default --rotate-unlock-key",
            "cluster update default --autolock=true",
        ] {
            let (code, stdout, stderr) = run(&running, line).await;
            assert_eq!((code, stderr.as_str()), (0, ""), "{line}");
            assert!(stdout.contains(&key), "{line}: {stdout}");
            assert_eq!(changes(&running), ["update_cluster"], "{line}");
        }
        // Switching it off prints no key.
        let locked = |state: &mut crate::fake::State| {
            let spec = state.clusters[0].spec.get_or_insert_default();
            let config = spec.encryption_config.get_or_insert_default();
            config.auto_lock_managers = true;
        };
        running.fake.with(locked);
        let off = run(&running, "cluster update default --autolock=false").await;
        assert_eq!(off, (0, "c1\n".to_owned(), String::new()));
    });
}

#[test]
fn what_works_is_0_and_prints_what_was_asked_for() {
    test(async {
        let running = with_cluster().await;
        let file = running.socket().with_file_name("data");
        std::fs::write(&file, "x").unwrap();
        let file = file.display();
        for (line, expected) in [
            ("cluster tokens ls -q".to_owned(), "t1\n"),
            ("cluster tokens rm t1".to_owned(), "t1\n"),
            (
                "cluster join-token worker --uses 1 -q".to_owned(),
                "SWMTKN-1-made\n",
            ),
            (format!("secret create db -f {file}"), "s1\n"),
            (format!("config create site -f {file}"), "c1\n"),
            ("secret ls -q".to_owned(), ""),
            ("config ls --format json".to_owned(), "[]\n"),
        ] {
            let output = run(&running, &line).await;
            assert_eq!(output, (0, expected.to_owned(), String::new()), "{line}");
        }
        let (code, stdout, stderr) = run(&running, "cluster ca status").await;
        assert_eq!((code, stderr.as_str()), (0, ""));
        assert!(stdout.starts_with("Root "), "{stdout}");
    });
}

/// The address is that of the leader, unless it leads nowhere from another machine.
#[test]
fn the_line_for_a_new_node_has_the_address_of_the_manager() {
    test(async {
        let running = with_cluster().await;
        for (known, shown) in [
            ("10.0.0.7:4242", "--join-addr 10.0.0.7:4242 "),
            ("0.0.0.0:4242", "--join-addr MANAGER:4242 "),
            ("[::]:4242", "--join-addr MANAGER:4242 "),
            ("", "--join-addr MANAGER:PORT "),
        ] {
            running.fake.with(|state| {
                let manager_status = Some(v1::ManagerStatus {
                    addr: known.to_owned(),
                    leader: true,
                    ..Default::default()
                });
                state.nodes = vec![v1::Node {
                    manager_status,
                    ..Default::default()
                }];
            });
            let (code, stdout, _) = run(&running, "cluster join-token worker --uses 1").await;
            assert_eq!(code, 0);
            assert!(
                stdout.contains(shown) && stdout.contains(", once;"),
                "{stdout}"
            );
        }
    });
}
