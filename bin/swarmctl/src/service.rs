//! `swarmctl service`: list, inspect, remove. Creating, updating and waiting are in modules below.

mod create;
mod doubts;
mod flags;
mod parse;
mod progress;
mod references;
mod wait;
mod warnings;

use std::collections::{BTreeMap, BTreeSet};

use clap::Subcommand;
use swarm_api::v1;
use swarm_types::Timestamp;
use v1::service_spec::Mode;

use crate::cli::{Format, InspectFlags, ListFlags, ObjectArgs};
use crate::failure::Failure;
use crate::logs::LogFlags;
use crate::lookup::{Named as _, find, is_live, of_service};
use crate::output::{Context, emit, emit_json, remove_each};
use crate::view::{LogDriverView, PortView, ServiceView, enum_name};
use crate::{logs, node, table, task, units};

/// The verbs of a service.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Create a service, and wait until it runs.
    Create(Box<create::Create>),
    /// Change a service, and wait until it runs as changed.
    Update(Box<create::Update>),
    /// List the services.
    #[command(visible_alias = "list")]
    Ls(ListFlags),
    /// Show a service and its tasks.
    Inspect {
        #[command(flatten)]
        flags: InspectFlags,
        /// Show ended tasks too.
        #[arg(short, long)]
        all: bool,
    },
    /// Remove a service and its tasks.
    #[command(visible_alias = "remove")]
    Rm(ObjectArgs),
    /// Print what the tasks of services wrote.
    #[command(visible_alias = "log")]
    Logs(LogFlags),
}

/// Runs a verb.
///
/// # Errors
/// What the manager refused, and for the waiting verbs that the service does not converge.
pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Create(flags) => create::create(context, *flags).await,
        Verb::Update(flags) => create::update(context, *flags).await,
        Verb::Ls(flags) => ls(context, flags).await,
        Verb::Inspect { flags, all } => inspect(context, &flags, all).await,
        Verb::Rm(objects) => remove(context, &objects).await,
        Verb::Logs(flags) => logs::of_services(context, flags).await,
    }
}

async fn remove(context: &Context, args: &ObjectArgs) -> Result<(), Failure> {
    let manager = &context.manager;
    remove_each(&args.objects, async |object| {
        let service: v1::Service = find(manager, object).await?;
        let request = v1::RemoveServiceRequest {
            service_id: service.id.clone(),
        };
        manager
            .call(manager.control().remove_service(request))
            .await?;
        Ok(service.name())
    })
    .await
}

async fn ls(context: &Context, flags: ListFlags) -> Result<(), Failure> {
    let manager = &context.manager;
    let request = v1::ListServicesRequest::default();
    let mut services = manager
        .call(manager.control().list_services(request))
        .await?
        .services;
    services.sort_by_key(|service| (service.name(), service.id.clone()));
    if flags.quiet {
        let ids = services.iter().map(|service| format!("{}\n", service.id));
        return emit(&ids.collect::<String>());
    }
    let request = v1::ListTasksRequest {
        filters: Some(v1::list_tasks_request::Filters {
            desired_states: vec![v1::TaskState::Running as i32],
            ..Default::default()
        }),
    };
    let tasks = manager
        .call(manager.control().list_tasks(request))
        .await?
        .tasks;
    let counts = Counts::new(&tasks, &node::all(context).await?);
    if flags.format == Format::Json {
        let view =
            |service| ServiceView::new(service, counts.running(service), counts.desired(service));
        return emit_json(&services.iter().map(view).collect::<Vec<_>>());
    }
    emit(&list(&services, &counts))
}

fn list(services: &[v1::Service], counts: &Counts) -> String {
    let row = |service: &v1::Service| {
        vec![
            service.id.clone(),
            service.name(),
            image(service),
            counts.text(service),
        ]
    };
    let header = ["ID", "Name", "Image", "Replicas"];
    table::render(&header, services.iter().map(row).collect())
}

/// How many tasks of each service run on nodes that are not down, and how many are wanted.
struct Counts {
    running: BTreeMap<String, u64>,
    wanted: BTreeMap<String, u64>,
}

impl Counts {
    fn new(tasks: &[v1::Task], nodes: &[v1::Node]) -> Self {
        let down = down_nodes(nodes);
        let (mut running, mut wanted) = (BTreeMap::new(), BTreeMap::new());
        for task in tasks.iter().filter(|task| is_live(task)) {
            *wanted.entry(task.service_id.clone()).or_default() += 1;
            if is_running(task) && !down.contains(task.node_id.as_str()) {
                *running.entry(task.service_id.clone()).or_default() += 1;
            }
        }
        Self { running, wanted }
    }

    fn running(&self, service: &v1::Service) -> u64 {
        self.running.get(&service.id).copied().unwrap_or(0)
    }

    /// The replicas of the spec; for a global service the tasks that nodes should have now.
    fn desired(&self, service: &v1::Service) -> u64 {
        match mode(service) {
            Some(Mode::Replicated(mode)) => mode.replicas,
            Some(Mode::Global(_) | Mode::ReplicatedJob(_) | Mode::GlobalJob(_)) | None => {
                self.wanted.get(&service.id).copied().unwrap_or(0)
            }
        }
    }

    fn text(&self, service: &v1::Service) -> String {
        match mode(service) {
            Some(Mode::Replicated(mode)) => format!("{}/{}", self.running(service), mode.replicas),
            Some(Mode::Global(_)) => "global".to_owned(),
            Some(Mode::ReplicatedJob(_) | Mode::GlobalJob(_)) | None => String::new(),
        }
    }
}

fn mode(service: &v1::Service) -> Option<&Mode> {
    service.spec.as_ref()?.mode.as_ref()
}

fn image(service: &v1::Service) -> String {
    let task = service.spec.as_ref().and_then(|spec| spec.task.as_ref());
    let container = task.and_then(swarm_types::spec::container);
    container.map_or_else(String::new, |container| container.image.clone())
}

/// Whether the task was last seen running.
fn is_running(task: &v1::Task) -> bool {
    let state = task.status.as_ref().map_or(0, |status| status.state);
    state == v1::TaskState::Running as i32
}

fn down_nodes(nodes: &[v1::Node]) -> BTreeSet<&str> {
    let is_down = |node: &&v1::Node| {
        let state = node.status.as_ref().map_or(0, |status| status.state);
        state == v1::node_status::State::Down as i32
    };
    nodes
        .iter()
        .filter(is_down)
        .map(|node| node.id.as_str())
        .collect()
}

async fn inspect(context: &Context, flags: &InspectFlags, all: bool) -> Result<(), Failure> {
    let service: v1::Service = find(&context.manager, &flags.object).await?;
    let tasks = of_service(&context.manager, &service.id).await?;
    let counts = Counts::new(&tasks, &node::all(context).await?);
    if flags.format == Format::Json {
        let (running, desired) = (counts.running(&service), counts.desired(&service));
        return emit_json(&ServiceView::new(&service, running, desired));
    }
    let fields = table::fields(&summary(&service, &counts, context.now()));
    let tasks = task::shown(tasks, all);
    emit(&format!(
        "{fields}\n{}",
        task::table(context, &tasks).await?
    ))
}

fn summary(service: &v1::Service, counts: &Counts, now: Timestamp) -> Vec<(String, String)> {
    let spec = service.spec.clone().unwrap_or_default();
    let mut fields = Vec::new();
    let mut push = |name: &str, value: String| fields.push((name.to_owned(), value));
    push("ID", service.id.clone());
    push("Name", service.name());
    for (key, value) in spec.annotations.unwrap_or_default().labels {
        push("Label", format!("{key}={value}"));
    }
    push("Replicas", counts.text(service));
    if let Some(status) = &service.update_status {
        use v1::update_status::UpdateState;
        let state = enum_name(status.state, |state: UpdateState| state.as_str_name());
        push("Update state", state);
        for (name, at) in [
            ("Started", &status.started_at),
            ("Completed", &status.completed_at),
        ] {
            if at.is_some() {
                push(name, units::time_and_age(at.as_ref(), now));
            }
        }
        push("Update message", status.message.clone());
    }
    template(&spec.task.unwrap_or_default(), &mut push);
    let allocated = service.endpoint.as_ref().map(|endpoint| &endpoint.ports);
    let wished = spec.endpoint.as_ref().map(|endpoint| &endpoint.ports);
    for port in PortView::all(allocated.or(wished).map_or(&[], Vec::as_slice)) {
        push("Port", port.text());
    }
    fields
}

fn template(task: &v1::TaskSpec, push: &mut impl FnMut(&str, String)) {
    if let Some(container) = swarm_types::spec::container(task) {
        push("Image", container.image.clone());
        for (name, words) in [("Command", &container.command), ("Args", &container.args)] {
            if !words.is_empty() {
                push(name, format!("{words:?}"));
            }
        }
        for variable in &container.env {
            push("Env", variable.clone());
        }
        for secret in &container.secrets {
            push("Secret", secret.secret_name.clone());
        }
        for config in &container.configs {
            push("Config", config.config_name.clone());
        }
        for mount in &container.mounts {
            let kind = enum_name(mount.r#type, |kind: v1::mount::Type| kind.as_str_name());
            let mode = if mount.readonly { "ro" } else { "rw" };
            let text = format!(
                "{} {}:{} {mode}",
                kind.to_lowercase(),
                mount.source,
                mount.target
            );
            push("Mount", text);
        }
    }
    for constraint in swarm_types::spec::constraints(task) {
        push("Constraint", constraint.clone());
    }
    let resources = task.resources.clone().unwrap_or_default();
    let amounts = [
        ("Reserved", resources.reservations),
        ("Limited", resources.limits),
    ];
    for (name, amounts) in amounts {
        let text = amounts.as_ref().map_or_else(String::new, amounts_text);
        if !text.is_empty() {
            push(name, text);
        }
    }
    if let Some(driver) = &task.log_driver {
        push("Log driver", LogDriverView::of(driver).text());
    }
}

fn amounts_text(amounts: &v1::Resources) -> String {
    let mut parts = Vec::new();
    if amounts.nano_cpus != 0 {
        parts.push(format!("{} CPUs", units::show_cpus(amounts.nano_cpus)));
    }
    if amounts.memory_bytes != 0 {
        parts.push(format!(
            "{} memory",
            units::show_bytes(amounts.memory_bytes)
        ));
    }
    if !amounts.generic.is_empty() {
        parts.push(swarm_types::resources::to_text(&amounts.generic));
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(id: &str, mode: Option<Mode>) -> v1::Service {
        let mut spec = v1::ServiceSpec {
            mode,
            ..Default::default()
        };
        spec.annotations.get_or_insert_default().name = format!("name-{id}");
        spec.task.get_or_insert_default().runtime =
            Some(v1::task_spec::Runtime::Container(v1::ContainerSpec {
                image: "host".to_owned(),
                ..Default::default()
            }));
        v1::Service {
            id: id.to_owned(),
            spec: Some(spec),
            ..Default::default()
        }
    }

    fn task(service: &str, node: &str, state: v1::TaskState) -> v1::Task {
        v1::Task {
            service_id: service.to_owned(),
            node_id: node.to_owned(),
            desired_state: v1::TaskState::Running as i32,
            status: Some(v1::TaskStatus {
                state: state as i32,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn only_running_tasks_on_nodes_that_are_up_count() {
        let mut down = v1::Node {
            id: "lost".to_owned(),
            ..Default::default()
        };
        down.status.get_or_insert_default().state = v1::node_status::State::Down as i32;
        let tasks = [
            task("a", "n", v1::TaskState::Running),
            task("a", "lost", v1::TaskState::Running),
            task("a", "n", v1::TaskState::Starting),
            task("b", "n", v1::TaskState::Running),
        ];
        let counts = Counts::new(&tasks, &[down]);
        let replicated = Mode::Replicated(v1::ReplicatedService { replicas: 3 });
        let services = [
            service("a", Some(replicated)),
            service("b", Some(Mode::Global(v1::GlobalService {}))),
            service("c", Some(Mode::GlobalJob(v1::GlobalJob {}))),
        ];
        assert_eq!(
            list(&services, &counts),
            "ID  Name    Image  Replicas\n\
             --  ----    -----  --------\n\
             a   name-a  host   1/3\n\
             b   name-b  host   global\n\
             c   name-c  host\n"
        );
        assert_eq!(
            (counts.running(&services[1]), counts.desired(&services[1])),
            (1, 1)
        );
    }
}
