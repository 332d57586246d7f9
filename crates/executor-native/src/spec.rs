//! From a task to a plan: what this executor can do, and a reason with a way out for everything
//! that it cannot.
//!
//! Owns the judgement. Refuses to own: looking up users and ports on this machine, which
//! [`Machine`] does.

mod fields;
mod health;
mod payloads;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use swarm_api::v1;
use swarm_api::v1::port_config::{Protocol, PublishMode};
use swarm_types::time::duration_from_wire;
use swarm_types::{Task, defaults, native, template};

use crate::process::{self, COOKIE};
use crate::records::{Credentials, Launch, Limits, Plan, Port, Rlimit};

/// Search path of a task on an agent that has none itself.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What only this machine knows.
pub(crate) trait Machine {
    /// The user and groups a task asks for, with the home directory of that user.
    fn credentials(&self, user: &str, groups: &[String]) -> Result<Account, String>;
    /// A port that nobody listens on.
    fn free_port(&self, protocol: Protocol) -> Result<u16, String>;
    /// The agent's own search path.
    fn path(&self) -> Option<String>;
    /// The directory for a task's secrets and configs, which is in memory.
    fn payload_dir(&self, task: &str) -> Result<PathBuf, String>;
    /// Whether a task can have a view of the file system of its own.
    fn can_mount(&self) -> bool;
    /// Whom a file that is meant for these will belong to; `None` is the task's own.
    fn file_owner(&self, uid: Option<u32>, gid: Option<u32>) -> Result<Owner, String>;
}

/// User and group of a file; `None` is the task's own.
pub(crate) type Owner = (Option<u32>, Option<u32>);

/// Who a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// `None`: the agent's own user.
    pub(crate) credentials: Option<Credentials>,
    pub(crate) home: PathBuf,
}

/// What the executor's configuration adds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// What templates say about the node.
    pub(crate) node: v1::NodeDescription,
    pub(crate) shim_args: Vec<String>,
    pub(crate) log_file_bytes_max: u64,
    pub(crate) log_files_max: u32,
}

/// Judges a task.
///
/// # Errors
/// Every reason why it cannot run here, in one text.
pub(crate) fn plan(
    task: &Task,
    settings: &Settings,
    machine: &dyn Machine,
) -> Result<Plan, String> {
    let expanded = template::task::container(task, Some(&settings.node));
    match expanded.map_err(|error| error.to_string())? {
        Some(container) => judge(task, &container, settings, machine),
        None => Err("the task has no container spec; the native executor runs nothing else".into()),
    }
}

/// Fails with all problems of a task, if it has any.
fn refuse(problems: &[String]) -> Result<(), String> {
    if problems.is_empty() {
        return Ok(());
    }
    let problems = problems.join("; ");
    Err(format!(
        "the native executor cannot run this task: {problems}"
    ))
}

/// Judges a task whose templates are expanded.
fn judge(
    task: &Task,
    container: &v1::ContainerSpec,
    settings: &Settings,
    machine: &dyn Machine,
) -> Result<Plan, String> {
    let mut problems = fields::unsupported(task, container);
    let mut keep = |problem| problems.push(problem);
    let argv = argv(container).map_err(&mut keep).unwrap_or_default();
    let dir = dir(container).map_err(&mut keep).unwrap_or_default();
    let account = machine.credentials(&container.user, &container.groups);
    let account = account.map_err(&mut keep).ok();
    let rlimits = rlimits(container).map_err(&mut keep).unwrap_or_default();
    let stop_signal = native::stop_signal(&container.stop_signal)
        .map_err(&mut keep)
        .unwrap_or_default();
    let stop_grace = stop_grace(container).map_err(&mut keep).unwrap_or_default();
    let health = health::check(container.healthcheck.as_ref()).map_err(&mut keep);
    let limits = limits(task, container)
        .map_err(&mut keep)
        .unwrap_or_default();
    let ports = ports(task, machine).map_err(&mut keep).unwrap_or_default();
    let _judged = native::check_targets(container).map_err(&mut keep);
    let oom_score_adj = oom_score_adj(container)
        .map_err(&mut keep)
        .unwrap_or_default();
    let home = account.as_ref().map(|account| account.home.clone());
    let payloads = payloads::plan(&task.id.to_string(), container, machine)
        .map_err(&mut keep)
        .unwrap_or_default();
    let facts = Facts {
        ports: &ports,
        home: home.unwrap_or_default(),
        payloads: &payloads,
    };
    let env = environment(task, container, facts, machine).map_err(&mut keep);
    refuse(&problems)?;
    let launch = Launch {
        argv,
        env: env.unwrap_or_default(),
        dir,
        credentials: account.and_then(|account| account.credentials),
        rlimits,
        mark: Some(process::mark(&task.id.to_string())),
        oom_score_adj,
        no_new_privileges: container
            .privileges
            .as_ref()
            .is_some_and(|privileges| privileges.no_new_privileges),
        binds: payloads.binds,
    };
    let mut warnings = payloads.warnings;
    warnings.extend(fields::unused(task));
    Ok(Plan {
        task_id: task.id.to_string(),
        shim_args: settings.shim_args.clone(),
        launch,
        limits,
        stop_signal,
        stop_grace,
        health: health.unwrap_or_default(),
        log_file_bytes_max: settings.log_file_bytes_max,
        log_files_max: settings.log_files_max,
        ports,
        payloads: payloads.files,
        payload_dir: payloads.directory,
        warnings,
    })
}

/// The command replaces an entry point, of which the node's own file system has none; so the
/// program is the first word of command and arguments together.
fn argv(container: &v1::ContainerSpec) -> Result<Vec<String>, String> {
    native::check_program(container)?;
    let words = container.command.iter().chain(&container.args);
    Ok(words.cloned().collect())
}

fn dir(container: &v1::ContainerSpec) -> Result<PathBuf, String> {
    native::check_dir(&container.dir)?;
    Ok(match container.dir.as_str() {
        "" => PathBuf::from("/"),
        dir => PathBuf::from(dir),
    })
}

fn rlimits(container: &v1::ContainerSpec) -> Result<Vec<Rlimit>, String> {
    let ulimits = native::ulimits(container)?.into_iter();
    let rlimit = |native::Ulimit { name, soft, hard }| Rlimit {
        name: name.to_owned(),
        soft,
        hard,
    };
    Ok(ulimits.map(rlimit).collect())
}

fn stop_grace(container: &v1::ContainerSpec) -> Result<Duration, String> {
    match &container.stop_grace_period {
        None => Ok(defaults::STOP_GRACE_PERIOD),
        Some(wire) => duration_from_wire(wire)
            .ok_or_else(|| "stop_grace_period: negative; use 0 s or more".to_owned()),
    }
}

fn limits(task: &Task, container: &v1::ContainerSpec) -> Result<Limits, String> {
    let limits = task
        .spec
        .resources
        .as_ref()
        .and_then(|resources| resources.limits.as_ref());
    let positive = |name: &str, number: i64| match number {
        0 => Ok(None),
        number => u64::try_from(number)
            .map(Some)
            .map_err(|_| format!("limit of {name} is {number}; use 0 for none or more")),
    };
    Ok(Limits {
        nano_cpus: positive("nano_cpus", limits.map_or(0, |limits| limits.nano_cpus))?,
        memory_bytes: positive(
            "memory_bytes",
            limits.map_or(0, |limits| limits.memory_bytes),
        )?,
        // Docker takes any negative number as unlimited.
        pids: positive("pids", container.pids_limit.max(0))?,
    })
}

fn oom_score_adj(container: &v1::ContainerSpec) -> Result<Option<i64>, String> {
    native::check_oom_score_adj(container.oom_score_adj)?;
    Ok(Some(container.oom_score_adj).filter(|score| *score != 0))
}

fn ports(task: &Task, machine: &dyn Machine) -> Result<Vec<Port>, String> {
    let Some(endpoint) = &task.endpoint else {
        return Ok(Vec::new());
    };
    let mut ports = Vec::new();
    for port in &endpoint.ports {
        let target = port.target_port;
        if PublishMode::try_from(port.publish_mode) != Ok(PublishMode::Host) {
            return Err(format!(
                "port {target}: a program on the node itself has no ingress network; publish it \
                 with mode host"
            ));
        }
        let protocol = match Protocol::try_from(port.protocol) {
            Ok(protocol @ (Protocol::Tcp | Protocol::Udp)) => protocol,
            Ok(Protocol::Sctp) | Err(_) => {
                return Err(format!(
                    "port {target}: only tcp and udp can be published here"
                ));
            }
        };
        let published = match port.published_port {
            0 => u32::from(machine.free_port(protocol)?),
            published => published,
        };
        ports.push(Port {
            name: port.name.clone(),
            protocol: port.protocol,
            target,
            published,
        });
    }
    Ok(ports)
}

/// What the environment tells besides the spec.
struct Facts<'a> {
    ports: &'a [Port],
    home: PathBuf,
    payloads: &'a payloads::Payloads,
}

/// See the crate's documentation for what a task finds in its environment.
fn environment(
    task: &Task,
    container: &v1::ContainerSpec,
    facts: Facts<'_>,
    machine: &dyn Machine,
) -> Result<BTreeMap<String, String>, String> {
    let mut env = BTreeMap::new();
    let mut set = |name: &str, value: String| {
        if !value.is_empty() {
            env.insert(name.to_owned(), value);
        }
    };
    set(
        "PATH",
        machine.path().unwrap_or_else(|| PATH_DEFAULT.to_owned()),
    );
    set("HOME", facts.home.display().to_string());
    set("SWARM_TASK_SLOT", task.slot.0.to_string());
    set("SWARM_SERVICE_NAME", task.service_annotations.name.clone());
    set(
        "SWARM_NODE_ID",
        task.node_id
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    );
    for (name, value) in facts.payloads.env() {
        set(name, value);
    }
    for port in facts.ports {
        set(
            &format!("SWARM_PORT_{}", port.target),
            port.published.to_string(),
        );
    }
    for (kind, values) in generic_resources(&task.assigned_generic_resources) {
        set(
            &format!("DOCKER_RESOURCE_{}", kind.to_uppercase()),
            values.join(","),
        );
    }
    for entry in &container.env {
        match entry.split_once('=') {
            _ if entry.contains('\0') => return Err("env: an entry holds a zero byte".into()),
            Some(("", _)) => return Err(format!("env: entry {entry:?} has no name; give it one")),
            Some((name, value)) => {
                env.insert(name.to_owned(), value.to_owned());
            }
            // As in Docker, a name alone takes the variable away.
            None => {
                env.remove(entry);
            }
        }
    }
    // Last: cleaning up relies on it.
    env.insert(COOKIE.to_owned(), task.id.to_string());
    Ok(env)
}

fn generic_resources(resources: &[v1::GenericResource]) -> BTreeMap<String, Vec<String>> {
    use v1::generic_resource::Resource;
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in resources {
        let (kind, value) = match &resource.resource {
            Some(Resource::NamedResourceSpec(named)) => (&named.kind, named.value.clone()),
            Some(Resource::DiscreteResourceSpec(some)) => (&some.kind, some.value.to_string()),
            None => continue,
        };
        kinds.entry(kind.clone()).or_default().push(value);
    }
    kinds
}

#[cfg(test)]
mod tests;
