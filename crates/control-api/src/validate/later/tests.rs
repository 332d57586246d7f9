use v1::service_spec::Mode;

use super::*;
use crate::Code;
use crate::tests::world::{web, with, with_container, with_task};

/// Each refused spec with what its text must name.
fn refused() -> Vec<(&'static str, v1::ServiceSpec)> {
    let network = || v1::NetworkAttachmentConfig {
        target: "n".to_owned(),
        ..Default::default()
    };
    let mounted = |mount: v1::Mount| with_container(|container| container.mounts = vec![mount]);
    let template = || "x{{.Task.ID}}".to_owned();
    let in_volume = |volume_options| {
        mounted(v1::Mount {
            volume_options: Some(volume_options),
            ..Default::default()
        })
    };
    let text_map = || [("k".to_owned(), template())].into();
    vec![
        (
            "mode replicated_job",
            with(web("web"), |spec| {
                spec.mode = Some(Mode::ReplicatedJob(v1::ReplicatedJob::default()));
            }),
        ),
        (
            "mode global_job",
            with(web("web"), |spec| {
                spec.mode = Some(Mode::GlobalJob(v1::GlobalJob {}))
            }),
        ),
        (
            "ServiceSpec: networks",
            with(web("web"), |spec| spec.networks = vec![network()]),
        ),
        (
            "task.networks",
            with_task(|task| task.networks = vec![network()]),
        ),
        (
            "a resource reference to a task or volume",
            with_task(|task| task.resource_references = vec![v1::ResourceReference::default()]),
        ),
        (
            "a mount of type CLUSTER",
            mounted(v1::Mount {
                r#type: Type::Cluster as i32,
                ..Default::default()
            }),
        ),
        (
            "a template in task.container.env",
            with_container(|container| container.env = vec![format!("A={}", template())]),
        ),
        (
            "a template in task.container.hostname",
            with_container(|container| container.hostname = template()),
        ),
        (
            "a template in task.container.mounts",
            mounted(v1::Mount {
                source: template(),
                ..Default::default()
            }),
        ),
        (
            "a template in task.container.mounts",
            mounted(v1::Mount {
                target: template(),
                ..Default::default()
            }),
        ),
        (
            "a template in task.container.mounts",
            in_volume(v1::mount::VolumeOptions {
                labels: text_map(),
                ..Default::default()
            }),
        ),
        (
            "a template in task.container.mounts",
            in_volume(v1::mount::VolumeOptions {
                driver_config: Some(v1::Driver {
                    options: text_map(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
        ),
    ]
}

#[test]
fn what_is_not_implemented_is_refused_by_name_with_a_way_out() {
    for (name, spec) in refused() {
        let refusal = not_implemented_yet(&spec).unwrap_err();
        assert_eq!(refusal.code(), Code::Unimplemented);
        assert!(refusal.message().contains(name), "{refusal}");
        assert!(refusal.message().contains("; "), "{refusal} has a way out");
    }
}

#[test]
fn what_is_implemented_passes() {
    let spec = with_container(|container| {
        container.env = vec!["A={1}".to_owned(), "B={ {".to_owned()];
        // SwarmKit expands no template here.
        container.args = vec!["{{.Task.ID}}".to_owned()];
        container.mounts = vec![v1::Mount {
            r#type: Type::Bind as i32,
            source: "/a".to_owned(),
            target: "/b".to_owned(),
            ..Default::default()
        }];
    });
    assert!(not_implemented_yet(&spec).is_ok());
    assert!(not_implemented_yet(&web("web")).is_ok());
    let references = with_task(|task| {
        use v1::ResourceType::{Config, Secret};
        let reference = |kind: v1::ResourceType| v1::ResourceReference {
            resource_type: kind as i32,
            ..Default::default()
        };
        task.resource_references = vec![reference(Secret), reference(Config)];
    });
    assert!(not_implemented_yet(&references).is_ok());
}
