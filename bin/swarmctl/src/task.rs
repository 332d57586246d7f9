//! `swarmctl task`, and the table of tasks that other nouns show.

use std::collections::BTreeMap;

use clap::Subcommand;
use swarm_api::v1;
use swarm_types::Timestamp;

use crate::cli::{Format, InspectFlags, ListFlags, ObjectArgs};
use crate::failure::Failure;
use crate::logs::LogFlags;
use crate::lookup::{Named as _, find, is_live, of_service, place_of, replica_name};
use crate::output::{Context, emit, emit_json, remove_each};
use crate::view::{PortView, TaskView, task_state};
use crate::{logs, node, table, units};

/// The verbs of a task.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the tasks that are wanted.
    #[command(visible_alias = "list")]
    Ls {
        #[command(flatten)]
        flags: ListFlags,
        /// Show tasks that ended or are asked to end, too.
        #[arg(short, long)]
        all: bool,
    },
    /// Show a task, and the other tasks of its slot.
    Inspect(InspectFlags),
    /// Remove a task.
    #[command(visible_alias = "remove")]
    Rm(ObjectArgs),
    /// Print what tasks wrote.
    #[command(visible_alias = "log")]
    Logs(LogFlags),
}

/// Runs a verb.
///
/// # Errors
/// What the manager refused.
pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Ls { flags, all } => ls(context, flags, all).await,
        Verb::Inspect(flags) => inspect(context, &flags).await,
        Verb::Logs(flags) => logs::of_tasks(context, flags).await,
        Verb::Rm(args) => {
            let manager = &context.manager;
            remove_each(&args.objects, async |object| {
                let task: v1::Task = find(manager, object).await?;
                let request = v1::RemoveTaskRequest {
                    task_id: task.id.clone(),
                };
                manager.call(manager.control().remove_task(request)).await?;
                Ok(task.id)
            })
            .await
        }
    }
}

/// Tasks in the order of tables: by service, slot, then the newest first; only those that are
/// wanted, unless all are asked for.
pub(crate) fn shown(mut tasks: Vec<v1::Task>, with_ended: bool) -> Vec<v1::Task> {
    tasks.retain(|task| with_ended || is_live(task));
    tasks.sort_by_cached_key(|task| {
        let created = task.meta.as_ref().and_then(|meta| meta.created_at);
        let created = created.map(|at| (at.seconds, at.nanos));
        let service = task.service_annotations.clone().unwrap_or_default().name;
        let place = (service, task.slot, place_of(task));
        (place, std::cmp::Reverse(created), task.id.clone())
    });
    tasks
}

/// The task table of `inspect` commands.
///
/// # Errors
/// Those of the call for the names of nodes.
pub(crate) async fn table(context: &Context, tasks: &[v1::Task]) -> Result<String, Failure> {
    let nodes = node_names(context).await?;
    Ok(inspect_table(tasks, &nodes, context.resolve, context.now()))
}

/// Names of nodes by id; empty when names are not wanted.
async fn node_names(context: &Context) -> Result<BTreeMap<String, String>, Failure> {
    if !context.resolve {
        return Ok(BTreeMap::new());
    }
    let nodes = node::all(context).await?;
    let named = nodes.into_iter().filter(|node| !node.name().is_empty());
    Ok(named.map(|node| (node.id.clone(), node.name())).collect())
}

fn inspect_table(
    tasks: &[v1::Task],
    nodes: &BTreeMap<String, String>,
    resolve: bool,
    now: Timestamp,
) -> String {
    let header = [
        "Task ID",
        "Service",
        "Slot",
        "Image",
        "Desired State",
        "Last State",
        "Node",
    ];
    let row = |task: &v1::Task| {
        let service = task.service_annotations.clone().unwrap_or_default().name;
        vec![
            task.id.clone(),
            if resolve {
                service
            } else {
                task.service_id.clone()
            },
            match task.slot {
                0 => String::new(),
                slot => slot.to_string(),
            },
            image(task),
            task_state(task.desired_state),
            last_state(task, now),
            name_of(&task.node_id, nodes),
        ]
    };
    table::render(&header, tasks.iter().map(row).collect())
}

fn image(task: &v1::Task) -> String {
    let container = task.spec.as_ref().and_then(swarm_types::spec::container);
    container.map_or_else(String::new, |container| container.image.clone())
}

fn last_state(task: &v1::Task, now: Timestamp) -> String {
    let status = task.status.clone().unwrap_or_default();
    let at = units::time(status.timestamp.as_ref());
    let age = at.map_or_else(String::new, |at| format!(" {}", units::ago(at, now)));
    format!("{}{age}", task_state(status.state))
}

fn name_of(node: &str, nodes: &BTreeMap<String, String>) -> String {
    nodes.get(node).map_or(node, String::as_str).to_owned()
}

async fn ls(context: &Context, flags: ListFlags, all: bool) -> Result<(), Failure> {
    let manager = &context.manager;
    let request = v1::ListTasksRequest::default();
    let tasks = manager
        .call(manager.control().list_tasks(request))
        .await?
        .tasks;
    let tasks = shown(tasks, all);
    if flags.quiet {
        return emit(
            &tasks
                .iter()
                .map(|task| format!("{}\n", task.id))
                .collect::<String>(),
        );
    }
    if flags.format == Format::Json {
        return emit_json(&tasks.iter().map(TaskView::from).collect::<Vec<_>>());
    }
    let nodes = node_names(context).await?;
    emit(&list(&tasks, &nodes, context.resolve, context.now()))
}

fn list(
    tasks: &[v1::Task],
    nodes: &BTreeMap<String, String>,
    resolve: bool,
    now: Timestamp,
) -> String {
    let row = |task: &v1::Task| {
        let place = match task.slot {
            0 => name_of(&task.node_id, nodes),
            slot => slot.to_string(),
        };
        let service = if resolve {
            task.service_annotations.clone().unwrap_or_default().name
        } else {
            task.service_id.clone()
        };
        vec![
            task.id.clone(),
            format!("{service}.{place}"),
            task_state(task.desired_state),
            last_state(task, now),
            name_of(&task.node_id, nodes),
        ]
    };
    let header = ["ID", "Service", "Desired State", "Last State", "Node"];
    table::render(&header, tasks.iter().map(row).collect())
}

async fn inspect(context: &Context, flags: &InspectFlags) -> Result<(), Failure> {
    let task: v1::Task = find(&context.manager, &flags.object).await?;
    if flags.format == Format::Json {
        return emit_json(&TaskView::from(&task));
    }
    let nodes = node_names(context).await?;
    let mut text = table::fields(&summary(&task, &nodes, context.now()));
    if !task.service_id.is_empty() {
        let mut tasks = of_service(&context.manager, &task.service_id).await?;
        tasks.retain(|other| place_of(other) == place_of(&task));
        let tasks = shown(tasks, true);
        let now = context.now();
        text.push('\n');
        text.push_str(&inspect_table(&tasks, &nodes, context.resolve, now));
    }
    emit(&text)
}

fn summary(
    task: &v1::Task,
    nodes: &BTreeMap<String, String>,
    now: Timestamp,
) -> Vec<(String, String)> {
    let status = task.status.clone().unwrap_or_default();
    let mut fields = Vec::new();
    let mut push = |name: &str, value: String| fields.push((name.to_owned(), value));
    push("ID", task.id.clone());
    push("Slot", task.slot.to_string());
    push("Service", replica_name(task));
    push("Desired state", task_state(task.desired_state));
    push("Last state", task_state(status.state));
    push(
        "Timestamp",
        units::time_and_age(status.timestamp.as_ref(), now),
    );
    push("Message", status.message);
    if !status.err.is_empty() {
        push("Error", status.err);
    }
    if let Some(v1::task_status::RuntimeStatus::Container(container)) = status.runtime_status {
        push("Container id", container.container_id);
        if container.pid != 0 {
            push("Pid", container.pid.to_string());
        }
        push("Exit code", container.exit_code.to_string());
    }
    for port in PortView::all(&status.port_status.unwrap_or_default().ports) {
        push("Port", port.text());
    }
    push("Node", name_of(&task.node_id, nodes));
    if let Some(container) = task.spec.as_ref().and_then(swarm_types::spec::container) {
        push("Image", container.image.clone());
        for (name, words) in [("Command", &container.command), ("Args", &container.args)] {
            if !words.is_empty() {
                push(name, format!("{words:?}"));
            }
        }
        for variable in &container.env {
            push("Env", variable.clone());
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_api::prost_types;

    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    fn task(id: &str, slot: u64, desired: v1::TaskState, created: i64) -> v1::Task {
        v1::Task {
            id: id.to_owned(),
            slot,
            node_id: "n1".to_owned(),
            service_id: "s1".to_owned(),
            service_annotations: Some(v1::Annotations {
                name: "web".to_owned(),
                ..Default::default()
            }),
            desired_state: desired as i32,
            meta: Some(v1::Meta {
                created_at: at(created),
                ..Default::default()
            }),
            status: Some(v1::TaskStatus {
                state: v1::TaskState::Running as i32,
                timestamp: at(created),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn tasks_are_sorted_by_slot_and_the_newest_first() {
        use v1::TaskState::{Running, Shutdown};
        let tasks = || {
            vec![
                task("b", 2, Running, 1),
                task("old", 1, Shutdown, 1),
                task("new", 1, Running, 2),
            ]
        };
        let ids = |tasks: Vec<v1::Task>| -> Vec<String> {
            tasks.into_iter().map(|task| task.id).collect()
        };
        assert_eq!(ids(shown(tasks(), true)), ["new", "old", "b"]);
        assert_eq!(ids(shown(tasks(), false)), ["new", "b"]);
    }

    #[test]
    fn the_list_shows_names_unless_asked_not_to() {
        let tasks = [
            task("t1", 1, v1::TaskState::Running, 5),
            task("t2", 0, v1::TaskState::Running, 8),
        ];
        let nodes = BTreeMap::from([("n1".to_owned(), "node-1".to_owned())]);
        let now = Timestamp::from_millis(10_000);
        assert_eq!(
            list(&tasks, &nodes, true, now),
            "ID  Service     Desired State  Last State             Node\n\
             --  -------     -------------  ----------             ----\n\
             t1  web.1       RUNNING        RUNNING 5 seconds ago  node-1\n\
             t2  web.node-1  RUNNING        RUNNING 2 seconds ago  node-1\n"
        );
        let ids = list(&tasks[..1], &BTreeMap::new(), false, now);
        assert!(ids.contains("t1  s1.1 "), "{ids}");
        assert!(ids.contains(" n1\n"), "{ids}");
    }

    #[test]
    fn the_task_table_has_the_columns_of_the_manual() {
        let tasks = [task("t1", 1, v1::TaskState::Shutdown, 5)];
        let now = Timestamp::from_millis(65_000);
        assert_eq!(
            inspect_table(&tasks, &BTreeMap::new(), true, now),
            "Task ID  Service  Slot  Image  Desired State  Last State            Node\n\
             -------  -------  ----  -----  -------------  ----------            ----\n\
             t1       web      1            SHUTDOWN       RUNNING 1 minute ago  n1\n"
        );
    }
}
