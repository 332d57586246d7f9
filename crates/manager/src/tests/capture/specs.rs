//! What the user of the capture made.

use v1::port_config::PublishMode;

use super::*;

/// The service of the capture.
pub(super) fn service(node: &str, secret: &v1::Secret, config: &v1::Config) -> v1::ServiceSpec {
    let port = |published_port, mode: PublishMode| v1::PortConfig {
        target_port: 80,
        published_port,
        publish_mode: mode as i32,
        ..Default::default()
    };
    let file = |name: &str| v1::FileTarget {
        name: name.to_owned(),
        uid: "0".to_owned(),
        gid: "0".to_owned(),
        mode: 0o444,
    };
    let container = v1::ContainerSpec {
        image: "bb:1".to_owned(),
        args: ["sh", "-c", "httpd -f"].map(str::to_owned).to_vec(),
        env: vec!["X=y".to_owned()],
        mounts: vec![v1::Mount {
            r#type: v1::mount::Type::Volume as i32,
            source: "vv".to_owned(),
            target: "/vv".to_owned(),
            ..Default::default()
        }],
        secrets: vec![v1::SecretReference {
            secret_id: secret.id.clone(),
            secret_name: "sx".to_owned(),
            target: Some(v1::secret_reference::Target::File(file("sx"))),
        }],
        configs: vec![v1::ConfigReference {
            config_id: config.id.clone(),
            config_name: "cx".to_owned(),
            target: Some(v1::config_reference::Target::File(file("cx"))),
        }],
        ..Default::default()
    };
    let limits = v1::Resources {
        memory_bytes: 67_108_864,
        ..Default::default()
    };
    v1::ServiceSpec {
        annotations: Some(named("s1")),
        task: Some(v1::TaskSpec {
            runtime: Some(v1::task_spec::Runtime::Container(container)),
            resources: Some(v1::ResourceRequirements {
                limits: Some(limits),
                reservations: Some(v1::Resources::default()),
                ..Default::default()
            }),
            placement: Some(v1::Placement {
                constraints: vec![format!("node.id=={node}")],
                ..Default::default()
            }),
            ..Default::default()
        }),
        mode: Some(replicas(1)),
        endpoint: Some(v1::EndpointSpec {
            ports: vec![
                port(8085, PublishMode::Ingress),
                port(8086, PublishMode::Host),
            ],
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(super) fn named(name: &str) -> v1::Annotations {
    v1::Annotations {
        name: name.to_owned(),
        ..Default::default()
    }
}

pub(super) fn replicas(replicas: u64) -> v1::service_spec::Mode {
    v1::service_spec::Mode::Replicated(v1::ReplicatedService { replicas })
}

/// What the user of the capture made first.
pub(super) async fn payloads(world: &World) -> (v1::Secret, v1::Config) {
    let secret = v1::SecretSpec {
        annotations: Some(named("sx")),
        data: "topsecret".into(),
        ..Default::default()
    };
    let config = v1::ConfigSpec {
        annotations: Some(named("cx")),
        data: "conff".into(),
        ..Default::default()
    };
    let mut control = world.control();
    let secret = v1::CreateSecretRequest { spec: Some(secret) };
    let secret = within(control.create_secret(secret)).await.unwrap();
    let config = v1::CreateConfigRequest { spec: Some(config) };
    let config = within(control.create_config(config)).await.unwrap();
    (
        secret.into_inner().secret.unwrap(),
        config.into_inner().config.unwrap(),
    )
}
