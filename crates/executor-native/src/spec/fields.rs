//! Fields of a spec that ask for what a plain process on the node cannot have.

use swarm_api::v1;
use swarm_api::v1::container_spec::Isolation;
use swarm_types::Task;

use super::IMAGE_HOST;

const CONTAINER: &str = "use a node whose executor runs containers";

/// One text for every field that is set and cannot be honoured, in the order of the spec.
pub(super) fn unsupported(task: &Task, container: &v1::ContainerSpec) -> Vec<String> {
    let mut problems = image(container);
    let mut refuse = |name: &str, is_set: bool, way_out: &str| {
        if is_set {
            problems.push(refusal(name, way_out));
        }
    };
    let isolation = Isolation::try_from(container.isolation);
    refuse(
        "mounts",
        !container.mounts.is_empty(),
        "use paths of the node itself",
    );
    refuse("pull_options", has_pull_options(container), CONTAINER);
    refuse("tty", container.tty, CONTAINER);
    refuse("open_stdin", container.open_stdin, CONTAINER);
    refuse("hostname", !container.hostname.is_empty(), CONTAINER);
    refuse("dns_config", has_dns(container), CONTAINER);
    refuse(
        "hosts",
        !container.hosts.is_empty(),
        "edit the hosts file of the node",
    );
    refuse("read_only", container.read_only, CONTAINER);
    refuse(
        "init",
        container.init == Some(true),
        "leave it: orphans are reaped here anyway",
    );
    refuse("isolation", isolation != Ok(Isolation::Default), CONTAINER);
    refuse(
        "sysctls",
        !container.sysctls.is_empty(),
        "set them on the node",
    );
    refuse(
        "capability_add",
        !container.capability_add.is_empty(),
        CONTAINER,
    );
    refuse(
        "capability_drop",
        !container.capability_drop.is_empty(),
        CONTAINER,
    );
    problems.extend(unsupported_in_task(task));
    problems
}

fn unsupported_in_task(task: &Task) -> Vec<String> {
    let mut problems = Vec::new();
    let mut refuse = |name: &str, is_set: bool, way_out: &str| {
        if is_set {
            problems.push(refusal(name, way_out));
        }
    };
    let spec = &task.spec;
    let resources = spec.resources.as_ref();
    refuse(
        "swap_bytes",
        resources.is_some_and(|all| all.swap_bytes.is_some()),
        CONTAINER,
    );
    let swappiness = resources.is_some_and(|all| all.memory_swappiness.is_some());
    refuse("memory_swappiness", swappiness, CONTAINER);
    let is_networked = !spec.networks.is_empty() || !task.networks.is_empty();
    refuse("networks", is_networked, "use the network of the node");
    let driver = task.log_driver.as_deref().or(spec.log_driver.as_ref());
    let has_driver = driver.is_some_and(|driver| !driver.name.is_empty());
    refuse("log_driver", has_driver, "read the captured output");
    refuse(
        "resource_references",
        !spec.resource_references.is_empty(),
        CONTAINER,
    );
    refuse("volumes", !task.volumes.is_empty(), CONTAINER);
    problems
}

fn refusal(name: &str, way_out: &str) -> String {
    format!("{name}: not supported here; remove it or {way_out}")
}

fn image(container: &v1::ContainerSpec) -> Vec<String> {
    if container.image == IMAGE_HOST {
        return Vec::new();
    }
    vec![format!(
        "image: {:?} is not \"{IMAGE_HOST}\", and container images cannot be run yet; set the \
         image to \"{IMAGE_HOST}\" and give a program of the node as command, or {CONTAINER}",
        container.image
    )]
}

fn has_pull_options(container: &v1::ContainerSpec) -> bool {
    container
        .pull_options
        .as_ref()
        .is_some_and(|options| !options.registry_auth.is_empty())
}

fn has_dns(container: &v1::ContainerSpec) -> bool {
    container
        .dns_config
        .as_ref()
        .is_some_and(|dns| *dns != v1::container_spec::DnsConfig::default())
}
