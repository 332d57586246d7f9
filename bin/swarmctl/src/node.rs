//! `swarmctl node`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use swarm_api::{ext, v1};
use swarm_types::constraint::can_name_label;
use swarm_types::{conditions, resources, weights};
use v1::node_spec::{Availability, Membership};
use v1::raft_member_status::Reachability;

use crate::cli::{Format, InspectFlags, ListFlags, ObjectArg, ObjectArgs, pair};
use crate::failure::Failure;
use crate::lookup::{Named as _, find};
use crate::output::{Context, emit, emit_json, emit_line, note, remove_each};
use crate::view::{NodeView, enum_name};
use crate::{ca, table, task, tokens, units};

/// The verbs of a node.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the nodes.
    #[command(visible_alias = "list")]
    Ls(ListFlags),
    /// Show a node and its tasks.
    Inspect {
        #[command(flatten)]
        flags: InspectFlags,
        /// Show ended tasks too.
        #[arg(short, long)]
        all: bool,
    },
    /// Let a node take tasks.
    Activate(ObjectArg),
    /// Let a node keep its tasks but take no more.
    Pause(ObjectArg),
    /// Move all tasks away from a node.
    Drain(ObjectArg),
    /// Make a node a manager.
    Promote(ObjectArg),
    /// Make a manager a worker.
    Demote(ObjectArg),
    /// Accept a node whose membership is pending.
    Accept(ObjectArg),
    /// Make a token with which a node that cannot renew its certificate comes back as itself.
    Readmit(tokens::Readmit),
    /// Replace the labels of a node.
    Update(Update),
    /// Remove a node from the cluster.
    #[command(visible_alias = "remove")]
    Rm {
        #[command(flatten)]
        nodes: ObjectArgs,
        /// Also when it is not down; its tasks are given up.
        #[arg(short, long)]
        force: bool,
    },
}

/// Flags of `node update`.
#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    object: ObjectArg,
    /// A label, as key=value; all labels of the node are replaced by those given, but for the
    /// weight of a manager.
    #[arg(long, value_parser = pair)]
    label: Vec<(String, String)>,
    /// How much nodes prefer this manager: 10 unless set, 256 at most, 0 only when no other
    /// manager answers. Kept in a label of the node.
    #[arg(long, value_parser = clap::value_parser!(u16).range(0..=256))]
    manager_weight: Option<u16>,
}

impl Update {
    /// The labels that a node with these labels should have.
    fn labels(&self, stored: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut labels: BTreeMap<_, _> = if self.label.is_empty() {
            stored.clone()
        } else {
            self.label.iter().cloned().collect()
        };
        let key = weights::MANAGER_WEIGHT_LABEL;
        let kept = stored.get(key).cloned();
        let weight = self.manager_weight.map(|weight| weight.to_string());
        if let Some(weight) = weight.or_else(|| labels.get(key).cloned()).or(kept) {
            labels.insert(key.to_owned(), weight);
        }
        labels
    }
}

/// Runs a verb.
///
/// # Errors
/// What the manager refused.
pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Ls(flags) => ls(context, flags).await,
        Verb::Inspect { flags, all } => inspect(context, &flags, all).await,
        Verb::Activate(object) => availability(context, &object, Availability::Active).await,
        Verb::Pause(object) => availability(context, &object, Availability::Pause).await,
        Verb::Drain(object) => availability(context, &object, Availability::Drain).await,
        Verb::Promote(object) => role(context, &object, v1::NodeRole::Manager).await,
        Verb::Demote(object) => role(context, &object, v1::NodeRole::Worker).await,
        Verb::Accept(object) => accept(context, &object).await,
        Verb::Readmit(flags) => tokens::readmit(context, flags).await,
        Verb::Update(flags) => update(context, flags).await,
        Verb::Rm { nodes, force } => remove(context, &nodes, force).await,
    }
}

/// All nodes, in the order of their names.
///
/// # Errors
/// Those of the call.
pub(crate) async fn all(context: &Context) -> Result<Vec<v1::Node>, Failure> {
    let manager = &context.manager;
    let request = v1::ListNodesRequest::default();
    let mut nodes = manager
        .call(manager.control().list_nodes(request))
        .await?
        .nodes;
    nodes.sort_by_key(|node| (node.name(), node.id.clone()));
    Ok(nodes)
}

async fn ls(context: &Context, flags: ListFlags) -> Result<(), Failure> {
    let nodes = all(context).await?;
    if flags.quiet {
        return emit(
            &nodes
                .iter()
                .map(|node| format!("{}\n", node.id))
                .collect::<String>(),
        );
    }
    match flags.format {
        Format::Json => emit_json(&nodes.iter().map(NodeView::from).collect::<Vec<_>>()),
        Format::Table => {
            emit(&list(&nodes))?;
            warn(context).await;
            Ok(())
        }
    }
}

/// Tells on stderr which certificates need attention. The list is complete without it, so a manager
/// that cannot say is no failure.
async fn warn(context: &Context) {
    let Ok(status) = ca::status(context).await else {
        return;
    };
    for node in status.nodes.iter().filter(|node| !node.warning.is_empty()) {
        let (id, name) = (&node.node_id, &node.hostname);
        note(&format!(
            "warning: node {id} ({name}): {}; {}",
            node.warning, node.next_step
        ));
    }
}

fn list(nodes: &[v1::Node]) -> String {
    let mut header = vec![
        "ID",
        "Name",
        "Membership",
        "Status",
        "Availability",
        "Manager Status",
    ];
    // A column that is nearly always empty is left out.
    let has_conditions = nodes.iter().any(|node| !conditions_of(node).is_empty());
    if has_conditions {
        header.push("Conditions");
    }
    let row = |node: &v1::Node| {
        let spec = node.spec.clone().unwrap_or_default();
        let mut row = vec![
            node.id.clone(),
            node.name(),
            enum_name(spec.membership, |it: Membership| it.as_str_name()),
            state(node),
            enum_name(spec.availability, |it: Availability| it.as_str_name()),
            manager_status(node),
        ];
        if has_conditions {
            row.push(conditions_of(node));
        }
        row
    };
    table::render(&header, nodes.iter().map(row).collect())
}

/// The kinds of the conditions that a node tells, separated by commas.
fn conditions_of(node: &v1::Node) -> String {
    let description = node.description.iter();
    let names = description.flat_map(conditions::of).map(|own| own.name);
    names.collect::<Vec<_>>().join(",")
}

fn state(node: &v1::Node) -> String {
    let state = node.status.as_ref().map_or(0, |status| status.state);
    enum_name(state, |it: v1::node_status::State| it.as_str_name())
}

/// Reachability, with a star for the leader; `UNKNOWN` for a manager that the group does not know.
fn manager_status(node: &v1::Node) -> String {
    match &node.manager_status {
        Some(manager) => {
            let reachability = enum_name(manager.reachability, |it: Reachability| it.as_str_name());
            let star = if manager.leader { " *" } else { "" };
            format!("{reachability}{star}")
        }
        None if node.role == v1::NodeRole::Manager as i32 => "UNKNOWN".to_owned(),
        None => String::new(),
    }
}

async fn inspect(context: &Context, flags: &InspectFlags, with_ended: bool) -> Result<(), Failure> {
    let node: v1::Node = find(&context.manager, &flags.object).await?;
    if flags.format == Format::Json {
        return emit_json(&NodeView::from(&node));
    }
    let request = v1::ListTasksRequest {
        filters: Some(v1::list_tasks_request::Filters {
            node_ids: vec![node.id.clone()],
            ..Default::default()
        }),
    };
    let manager = &context.manager;
    let tasks = manager
        .call(manager.control().list_tasks(request))
        .await?
        .tasks;
    let tasks = task::shown(tasks, with_ended);
    let table = task::table(context, &tasks).await?;
    let mut fields = summary(&node);
    // What a manager without certificates cannot say is left out.
    let status = ca::status(context).await.unwrap_or_default();
    let own = status.nodes.iter().find(|it| it.node_id == node.id);
    fields.extend(own.into_iter().flat_map(certificate));
    emit(&format!("{}\n{table}", table::fields(&fields)))
}

fn certificate(node: &ext::NodeCertificate) -> Vec<(String, String)> {
    let until = units::time(node.not_after.as_ref()).map(units::show_time);
    let state = match until {
        Some(until) => format!("{}, valid until {until}", node.state),
        None => node.state.clone(),
    };
    let mut fields = vec![
        ("Certificate".to_owned(), state),
        ("Certificate issuer".to_owned(), node.issuer.clone()),
    ];
    for (name, value) in [
        ("Certificate error", &node.error),
        ("Certificate warning", &node.warning),
        ("Next step", &node.next_step),
    ] {
        if !value.is_empty() {
            fields.push((name.to_owned(), value.clone()));
        }
    }
    fields
}

fn summary(node: &v1::Node) -> Vec<(String, String)> {
    let spec = node.spec.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    let labels = spec.annotations.map(|annotations| annotations.labels);
    let mut fields = vec![
        ("ID".to_owned(), node.id.clone()),
        ("Hostname".to_owned(), node.name()),
    ];
    let mut push = |name: &str, value: String| fields.push((name.to_owned(), value));
    for (key, value) in labels.unwrap_or_default() {
        push("Label", format!("{key}={value}"));
    }
    push("State", state(node));
    if !status.message.is_empty() {
        push("Message", status.message);
    }
    push(
        "Availability",
        enum_name(spec.availability, |it: Availability| it.as_str_name()),
    );
    push("Address", status.addr);
    if let Some(manager) = &node.manager_status {
        push("Raft id", format!("{:x}", manager.raft_id));
        push("Manager address", manager.addr.clone());
        push("Manager status", manager_status(node));
    }
    if let Some(description) = &node.description {
        describe(description, &mut push);
    }
    fields
}

fn describe(description: &v1::NodeDescription, push: &mut impl FnMut(&str, String)) {
    if let Some(platform) = &description.platform {
        push(
            "Platform",
            format!("{}/{}", platform.os, platform.architecture),
        );
    }
    if let Some(amounts) = &description.resources {
        push("CPUs", units::show_cpus(amounts.nano_cpus));
        push("Memory", units::show_bytes(amounts.memory_bytes));
        if !amounts.generic.is_empty() {
            push("Generic resources", resources::to_text(&amounts.generic));
        }
    }
    let engine = description.engine.clone().unwrap_or_default();
    let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let plugins = engine.plugins.iter();
    for plugin in plugins.filter(|plugin| !conditions::is_condition(plugin)) {
        kinds.entry(&plugin.r#type).or_default().push(&plugin.name);
    }
    for (kind, names) in kinds {
        push(&format!("{kind} plugins"), names.join(", "));
    }
    if !engine.engine_version.is_empty() {
        push("Engine version", engine.engine_version.clone());
    }
    for (key, value) in &engine.labels {
        push("Engine label", format!("{key}={value}"));
    }
    for condition in conditions::of(description) {
        push(
            "Condition",
            format!("{}: {}", condition.name, condition.text),
        );
    }
}

/// Sends a node's spec back with a change.
async fn change(
    context: &Context,
    object: &ObjectArg,
    change: impl FnOnce(&v1::Node, &mut v1::NodeSpec) -> Result<(), Failure>,
) -> Result<v1::Node, Failure> {
    let manager = &context.manager;
    let node: v1::Node = find(manager, &object.object).await?;
    let mut spec = node.spec.clone().unwrap_or_default();
    change(&node, &mut spec)?;
    let request = v1::UpdateNodeRequest {
        node_id: node.id.clone(),
        node_version: node.meta.as_ref().and_then(|meta| meta.version),
        spec: Some(spec),
    };
    manager.call(manager.control().update_node(request)).await?;
    Ok(node)
}

async fn availability(
    context: &Context,
    object: &ObjectArg,
    wanted: Availability,
) -> Result<(), Failure> {
    let node = change(context, object, |node, spec| {
        if spec.availability == wanted as i32 {
            return Err(Failure::refused(format!(
                "node {:?} has availability {} already",
                node.name(),
                wanted.as_str_name()
            )));
        }
        spec.availability = wanted as i32;
        Ok(())
    });
    emit_line(&node.await?.id)
}

async fn accept(context: &Context, object: &ObjectArg) -> Result<(), Failure> {
    let node = change(context, object, |node, spec| {
        if spec.membership == Membership::Accepted as i32 {
            return Err(Failure::refused(format!(
                "node {:?} is accepted already",
                node.name()
            )));
        }
        spec.membership = Membership::Accepted as i32;
        Ok(())
    });
    emit_line(&node.await?.id)
}

async fn role(context: &Context, object: &ObjectArg, wanted: v1::NodeRole) -> Result<(), Failure> {
    let node = change(context, object, |node, spec| {
        if spec.desired_role == wanted as i32 {
            return Err(Failure::refused(format!(
                "node {:?} is a {} already",
                node.name(),
                wanted.as_str_name().to_lowercase()
            )));
        }
        spec.desired_role = wanted as i32;
        Ok(())
    });
    emit_line(&node.await?.id)
}

async fn update(context: &Context, flags: Update) -> Result<(), Failure> {
    for (name, value) in &flags.label {
        if !can_name_label(name, value) {
            note(&format!(
                "warning: no constraint can ask for label {name}={value:?}: a name needs letters, \
                 digits and \"-_.\", a value must not be empty nor have other signs than \
                 :-_.*()?+[]\\^$|/ and spaces inside"
            ));
        }
    }
    let node = change(context, &flags.object, |node, spec| {
        let annotations = spec.annotations.get_or_insert_default();
        let labels = flags.labels(&annotations.labels);
        if annotations.labels == labels {
            return Err(
                Failure::refused(format!("nothing to change on node {:?}", node.name())).hint(
                    "give its new labels with --label key=value, or --manager-weight of a manager",
                ),
            );
        }
        annotations.labels = labels;
        Ok(())
    });
    emit_line(&node.await?.id)
}

async fn remove(context: &Context, args: &ObjectArgs, force: bool) -> Result<(), Failure> {
    let manager = &context.manager;
    remove_each(&args.objects, async |object| {
        let node: v1::Node = find(manager, object).await?;
        let request = v1::RemoveNodeRequest {
            node_id: node.id.clone(),
            force,
        };
        manager.call(manager.control().remove_node(request)).await?;
        Ok(node.id)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, state: v1::node_status::State) -> v1::Node {
        v1::Node {
            id: id.to_owned(),
            spec: Some(v1::NodeSpec {
                membership: Membership::Accepted as i32,
                ..Default::default()
            }),
            description: Some(v1::NodeDescription {
                hostname: format!("host-{id}"),
                ..Default::default()
            }),
            status: Some(v1::NodeStatus {
                state: state as i32,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn the_list_has_the_columns_of_the_manual() {
        let mut leader = node("a", v1::node_status::State::Ready);
        leader.manager_status = Some(v1::ManagerStatus {
            leader: true,
            reachability: Reachability::Reachable as i32,
            ..Default::default()
        });
        let mut lost = node("b", v1::node_status::State::Down);
        lost.role = v1::NodeRole::Manager as i32;
        let worker = node("c", v1::node_status::State::Ready);
        assert_eq!(
            list(&[leader, lost, worker]),
            "ID  Name    Membership  Status  Availability  Manager Status\n\
             --  ----    ----------  ------  ------------  --------------\n\
             a   host-a  ACCEPTED    READY   ACTIVE        REACHABLE *\n\
             b   host-b  ACCEPTED    DOWN    ACTIVE        UNKNOWN\n\
             c   host-c  ACCEPTED    READY   ACTIVE\n"
        );
    }

    #[test]
    fn conditions_have_a_column_when_there_are_any_and_are_no_plugins() {
        let mut full = node("a", v1::node_status::State::Ready);
        let description = full.description.as_mut().unwrap();
        conditions::add(description, conditions::Kind::Disk, "it is full");
        conditions::add(description, conditions::Kind::LimitCpu, "no cgroup");
        let fields = summary(&full);
        let well = node("b", v1::node_status::State::Ready);
        assert_eq!(
            list(&[full, well]),
            "ID  Name    Membership  Status  Availability  Manager Status  Conditions\n\
             --  ----    ----------  ------  ------------  --------------  ----------\n\
             a   host-a  ACCEPTED    READY   ACTIVE                        disk,limit-cpu\n\
             b   host-b  ACCEPTED    READY   ACTIVE\n"
        );
        let told = ("Condition".to_owned(), "disk: it is full".to_owned());
        assert!(fields.contains(&told), "{fields:?}");
        assert!(!fields.iter().any(|(name, _)| name.contains("plugins")));
    }

    #[test]
    fn new_labels_leave_the_weight_of_a_manager_alone() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let pairs = pairs.iter();
            pairs
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect()
        };
        let check = |label: &[(&str, &str)], manager_weight, expected: &[(&str, &str)]| {
            let update = Update {
                object: ObjectArg {
                    object: "n".to_owned(),
                },
                label: map(label).into_iter().collect(),
                manager_weight,
            };
            let stored = map(&[("disk", "ssd"), (weights::MANAGER_WEIGHT_LABEL, "7")]);
            assert_eq!(update.labels(&stored), map(expected));
        };
        let key = weights::MANAGER_WEIGHT_LABEL;
        check(&[], None, &[("disk", "ssd"), (key, "7")]);
        check(&[], Some(0), &[("disk", "ssd"), (key, "0")]);
        check(&[("a", "b")], None, &[("a", "b"), (key, "7")]);
        check(&[("a", "b"), (key, "9")], None, &[("a", "b"), (key, "9")]);
        check(
            &[("a", "b"), (key, "9")],
            Some(3),
            &[("a", "b"), (key, "3")],
        );
    }
}
