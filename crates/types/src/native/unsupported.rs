//! Fields of a spec that ask for what a plain process on the node cannot have.

use swarm_api::v1;
use swarm_api::v1::container_spec::Isolation;

use super::IMAGE_HOST;

const CONTAINER: &str = "use an image that a container engine runs";
/// The network that a process of a node is on.
const NETWORK_HOST: &str = "host";

/// One text for every field that is set and cannot be honoured, in the order of the spec.
pub fn unsupported(spec: &v1::TaskSpec, container: &v1::ContainerSpec) -> Vec<String> {
    let mut problems: Vec<String> = image(container).into_iter().collect();
    for (name, is_set, way_out) in of_container(container).into_iter().chain(of_task(spec)) {
        if is_set {
            problems.push(refusal(name, way_out));
        }
    }
    problems.extend(privileges(container));
    problems
}

/// Whether an attachment is to the network of the node, which a process of the node is on.
pub fn is_host_network(attachment: &v1::NetworkAttachment) -> bool {
    let network = attachment.network.as_ref();
    let driver = network.and_then(|network| network.driver_state.as_ref());
    driver.is_some_and(|driver| driver.name == NETWORK_HOST)
}

type Field = (&'static str, bool, &'static str);

fn of_container(container: &v1::ContainerSpec) -> [Field; 13] {
    let isolation = Isolation::try_from(container.isolation);
    [
        (
            "mounts",
            !container.mounts.is_empty(),
            "use paths of the node itself",
        ),
        ("pull_options", has_pull_options(container), CONTAINER),
        ("tty", container.tty, CONTAINER),
        ("open_stdin", container.open_stdin, CONTAINER),
        ("hostname", !container.hostname.is_empty(), CONTAINER),
        ("dns_config", has_dns(container), CONTAINER),
        (
            "hosts",
            !container.hosts.is_empty(),
            "edit the hosts file of the node",
        ),
        ("read_only", container.read_only, CONTAINER),
        (
            "init",
            container.init == Some(true),
            "leave it: orphans are reaped here anyway",
        ),
        ("isolation", isolation != Ok(Isolation::Default), CONTAINER),
        (
            "sysctls",
            !container.sysctls.is_empty(),
            "set them on the node",
        ),
        (
            "capability_add",
            !container.capability_add.is_empty(),
            CONTAINER,
        ),
        (
            "capability_drop",
            !container.capability_drop.is_empty(),
            CONTAINER,
        ),
    ]
}

fn of_task(spec: &v1::TaskSpec) -> [Field; 4] {
    let resources = spec.resources.as_ref();
    let driver = spec.log_driver.as_ref();
    [
        (
            "swap_bytes",
            resources.is_some_and(|all| all.swap_bytes.is_some()),
            CONTAINER,
        ),
        (
            "memory_swappiness",
            resources.is_some_and(|all| all.memory_swappiness.is_some()),
            CONTAINER,
        ),
        (
            "log_driver",
            driver.is_some_and(|driver| !driver.name.is_empty()),
            "read the captured output",
        ),
        (
            "resource_references",
            !spec.resource_references.is_empty(),
            CONTAINER,
        ),
    ]
}

fn refusal(name: &str, way_out: &str) -> String {
    format!("{name}: not supported here; remove it or {way_out}")
}

fn image(container: &v1::ContainerSpec) -> Option<String> {
    (container.image != IMAGE_HOST).then(|| {
        format!(
            "image: {:?} is not \"{IMAGE_HOST}\", and container images cannot be run yet; set the \
             image to \"{IMAGE_HOST}\" and give a program of the node as command, or run it on a \
             node whose executor runs containers",
            container.image
        )
    })
}

fn privileges(container: &v1::ContainerSpec) -> Option<String> {
    let privileges = container.privileges.as_ref()?;
    let known = v1::Privileges {
        no_new_privileges: privileges.no_new_privileges,
        ..v1::Privileges::default()
    };
    (*privileges != known).then(|| {
        format!(
            "privileges: only no_new_privileges is supported here; remove credential_spec, \
             selinux_context, seccomp and apparmor, or {CONTAINER}"
        )
    })
}

fn has_pull_options(container: &v1::ContainerSpec) -> bool {
    let options = container.pull_options.as_ref();
    options.is_some_and(|options| !options.registry_auth.is_empty())
}

fn has_dns(container: &v1::ContainerSpec) -> bool {
    let dns = container.dns_config.as_ref();
    dns.is_some_and(|dns| *dns != v1::container_spec::DnsConfig::default())
}
