//! Secrets and configs, from the request to the file that a process reads.

use std::path::{Path, PathBuf};

use swarm_api::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use crate::cluster::{Cluster, until};
use crate::specs;

/// Must not be found in any file. Scripts print it with each letter replaced by the next one.
const HUSH: &str = "hushhushsecret";
const HUSH_SHIFTED: &str = "ivtiivtitfdsfu";

fn file(name: &str) -> v1::FileTarget {
    v1::FileTarget {
        name: name.to_owned(),
        mode: 0o400,
        ..Default::default()
    }
}

fn golang() -> Option<v1::Driver> {
    driver("golang")
}

fn driver(name: &str) -> Option<v1::Driver> {
    Some(v1::Driver {
        name: name.to_owned(),
        ..Default::default()
    })
}

async fn create_secret(cluster: &Cluster, spec: v1::SecretSpec) -> v1::SecretReference {
    let name = spec.annotations.clone().unwrap().name;
    let request = v1::CreateSecretRequest { spec: Some(spec) };
    let answer = cluster.client().create_secret(request).await.unwrap();
    let secret = answer.into_inner().secret.unwrap();
    assert!(secret.spec.unwrap().data.is_empty(), "no answer holds it");
    v1::SecretReference {
        secret_id: secret.id,
        target: Some(v1::secret_reference::Target::File(file(&name))),
        secret_name: name,
    }
}

async fn create_config(cluster: &Cluster, name: &str, data: &str) -> v1::ConfigReference {
    let spec = v1::ConfigSpec {
        annotations: Some(specs::annotations(name)),
        data: data.to_owned().into(),
        templating: golang(),
    };
    let request = v1::CreateConfigRequest { spec: Some(spec) };
    let answer = cluster.client().create_config(request).await.unwrap();
    v1::ConfigReference {
        config_id: answer.into_inner().config.unwrap().id,
        config_name: name.to_owned(),
        target: Some(v1::config_reference::Target::File(file(name))),
    }
}

/// A service whose tasks write what they find to a file, and stay.
fn reader(cluster: &Cluster, out: &Path, secret: v1::SecretReference) -> v1::ServiceSpec {
    let script = format!(
        "(tr a-z b-za < $SWARM_SECRETS_DIR/db; echo; echo $SWARM_SECRETS_DIR; echo $GREETING
          if test -n \"$SWARM_CONFIGS_DIR\"; then cat $SWARM_CONFIGS_DIR/site; fi) > {out}.part
         mv {out}.part {out}; exec sleep 1000",
        out = out.display()
    );
    let container = v1::ContainerSpec {
        image: "host".to_owned(),
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), script],
        env: vec![
            format!("SWARMD_TEST={}", cluster.path().display()),
            "GREETING={{.Service.Name}}.{{.Task.Slot}}".to_owned(),
        ],
        secrets: vec![secret],
        ..Default::default()
    };
    specs::service("reader", 1, container)
}

async fn lines(out: &Path) -> Vec<String> {
    until("the task has written what it found", async || {
        let text = std::fs::read_to_string(out).map_err(|error| error.to_string())?;
        Ok(text.lines().map(ToOwned::to_owned).collect())
    })
    .await
}

/// A file below the directory that holds the secret.
fn leak(directory: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.filter_map(Result::ok).find_map(|entry| {
        let kind = entry.file_type().unwrap();
        let path = entry.path();
        if kind.is_dir() {
            return leak(&path);
        }
        // Sockets cannot be read.
        let bytes = std::fs::read(&path).unwrap_or_default();
        let has_it = bytes
            .windows(HUSH.len())
            .any(|part| part == HUSH.as_bytes());
        has_it.then_some(path)
    })
}

#[tokio::test]
async fn a_process_reads_its_secret_and_config_and_they_reach_no_disk() {
    let cluster = Cluster::start(1).await;
    let secret = v1::SecretSpec {
        annotations: Some(specs::annotations("db")),
        data: HUSH.into(),
        ..Default::default()
    };
    let secret = create_secret(&cluster, secret).await;
    let secret_id = secret.secret_id.clone();
    let config = create_config(&cluster, "site", "node {{.Node.Hostname}}").await;
    let out = cluster.path().join("out");
    let mut spec = reader(&cluster, &out, secret);
    specs::container(&mut spec).configs.push(config);
    let id = cluster.create(spec).await;
    cluster.converged("reader", 1).await;
    let lines = lines(&out).await;
    let directory = PathBuf::from(&lines[1]);
    assert_eq!(lines[0], HUSH_SHIFTED);
    assert_eq!(lines[2], "reader.1");
    assert!(lines[3].starts_with("node "), "{lines:?}");
    assert!(directory.exists());
    assert_eq!(leak(cluster.path()), None);

    let remove = v1::RemoveSecretRequest { secret_id };
    let refused = cluster.client().remove_secret(remove.clone()).await;
    let text = refused.unwrap_err().message().to_owned();
    let wanted = "secret 'db' is in use by the following service: reader";
    assert_eq!(text, wanted);
    cluster.remove(&id).await;
    cluster.client().remove_secret(remove).await.unwrap();
    until("the files are gone", async || {
        let is_there = directory.exists();
        (!is_there)
            .then_some(())
            .ok_or_else(|| "still there".to_owned())
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn a_secret_driver_is_asked_until_it_answers_and_the_task_says_what_it_waits_for() {
    let cluster = Cluster::start(1).await;
    let plugins = cluster.path().join("plugins");
    std::fs::create_dir_all(&plugins).unwrap();
    let socket = plugins.join("vault.sock");
    // There is a plugin, but it is not ready.
    let listener = UnixListener::bind(&socket).unwrap();
    let secret = v1::SecretSpec {
        annotations: Some(specs::annotations("db")),
        driver: driver("vault"),
        ..Default::default()
    };
    let secret = create_secret(&cluster, secret).await;
    drop(listener);
    let out = cluster.path().join("out");
    cluster.create(reader(&cluster, &out, secret)).await;
    until("the task tells what it waits for", async || {
        let tasks = cluster.tasks().await.map_err(|error| error.to_string())?;
        let status = tasks.first().and_then(|task| task.status.clone());
        let status = status.unwrap_or_default();
        let is_told = status
            .err
            .contains("secret db: driver vault: no plugin listens");
        is_told.then_some(()).ok_or_else(|| format!("{status:?}"))
    })
    .await;
    std::fs::remove_file(&socket).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::select! {
        () = serve(listener) => unreachable!("it serves for ever"),
        lines = lines(&out) => assert_eq!(lines[0], HUSH_SHIFTED),
    }
    assert_eq!(leak(cluster.path()), None);
    cluster.finish().await;
}

/// A plugin that has the secret.
async fn serve(listener: UnixListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 8192];
        let count = stream.read(&mut request).await.unwrap();
        let request = String::from_utf8_lossy(&request[..count]).into_owned();
        let body = if request.starts_with("POST /Plugin.Activate ") {
            r#"{"Implements": ["secretprovider"]}"#
        } else {
            // The secret in base64.
            r#"{"Value": "aHVzaGh1c2hzZWNyZXQ=", "DoNotReuse": true}"#
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + body).as_bytes()).await.unwrap();
    }
}
