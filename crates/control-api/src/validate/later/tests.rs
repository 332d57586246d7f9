use v1::service_spec::Mode;

use super::*;
use crate::Code;
use crate::tests::world::{web, with, with_container, with_task};

/// Each refused spec with what its text must name.
fn refused() -> Vec<(&'static str, v1::ServiceSpec)> {
    let mounted = |mount: v1::Mount| with_container(|container| container.mounts = vec![mount]);
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
        container.env = vec!["A={{.Task.ID}}".to_owned()];
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
