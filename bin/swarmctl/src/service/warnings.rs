//! What a spec asks for and some nodes cannot give, as these nodes say. Pure: reads the spec and
//! the list of nodes.

use swarm_api::v1;
use swarm_types::conditions::{self, Kind};
use swarm_types::constraint::{Constraint, matches_all};
use swarm_types::native::IMAGE_HOST;
use swarm_types::{NodeState, convert, spec};

use crate::lookup::Named as _;

/// Nodes that a warning names.
const NODES_NAMED_MAX: usize = 3;

/// One text for each thing that not all nodes give on which the tasks could run.
pub(crate) fn warnings(service: &v1::ServiceSpec, nodes: &[v1::Node]) -> Vec<String> {
    let task = service.task.clone().unwrap_or_default();
    let constraints = Constraint::parse_all(spec::constraints(&task)).unwrap_or_default();
    let candidates: Vec<&v1::Node> = nodes
        .iter()
        .filter(|node| is_candidate(node, &constraints))
        .collect();
    wanted(&task)
        .into_iter()
        .filter_map(|(kind, what)| warning(kind, &what, &candidates))
        .collect()
}

fn is_candidate(node: &v1::Node, constraints: &[Constraint]) -> bool {
    convert::node_from_wire(node.clone())
        .is_ok_and(|node| node.status.state != NodeState::Down && matches_all(constraints, &node))
}

/// What the spec asks for that a node may not have, by the condition that says so.
fn wanted(task: &v1::TaskSpec) -> Vec<(Kind, String)> {
    let limits = task.resources.as_ref().and_then(|all| all.limits.as_ref());
    let Some(container) = spec::container(task) else {
        return Vec::new();
    };
    let mut wanted = Vec::new();
    let mut add = |kind, is_set: bool, what: &str| {
        if is_set {
            wanted.push((kind, what.to_owned()));
        }
    };
    let has = |read: fn(&v1::Resources) -> i64| limits.is_some_and(|limits| read(limits) > 0);
    add(
        Kind::LimitCpu,
        has(|limits| limits.nano_cpus),
        "the CPU limit does not apply",
    );
    add(
        Kind::LimitMemory,
        has(|limits| limits.memory_bytes),
        "the memory limit does not apply",
    );
    add(
        Kind::LimitPids,
        container.pids_limit > 0,
        "the limit of processes does not apply",
    );
    let is_native = container.image == IMAGE_HOST;
    let has_account = !container.user.is_empty() || !container.groups.is_empty();
    add(
        Kind::Rootless,
        is_native && has_account,
        "tasks with another user or group are rejected",
    );
    add(
        Kind::Rootless,
        is_native && container.oom_score_adj < 0,
        "tasks with a negative out-of-memory score fail",
    );
    add(
        Kind::Rootless,
        is_native && has_absolute_target(container),
        "tasks with absolute targets of secrets or configs are rejected",
    );
    wanted
}

fn has_absolute_target(container: &v1::ContainerSpec) -> bool {
    use v1::{config_reference, secret_reference};
    let secrets = container.secrets.iter().map(|own| match &own.target {
        Some(secret_reference::Target::File(file)) => file.name.as_str(),
        None => "",
    });
    let configs = container.configs.iter().map(|own| match &own.target {
        Some(config_reference::Target::File(file)) => file.name.as_str(),
        Some(config_reference::Target::Runtime(_)) | None => "",
    });
    secrets.chain(configs).any(|name| name.starts_with('/'))
}

fn warning(kind: Kind, what: &str, candidates: &[&v1::Node]) -> Option<String> {
    let condition = |node: &v1::Node| {
        let description = node.description.as_ref()?;
        let mut found = conditions::of(description);
        let own = found.find(|own| own.kind == Some(kind))?;
        Some(own.text.to_owned())
    };
    let said: Vec<(String, String)> = candidates
        .iter()
        .filter_map(|node| Some((node.name(), condition(node)?)))
        .collect();
    let (_, reason) = said.first()?;
    let names = said.iter().take(NODES_NAMED_MAX);
    let mut names: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
    if said.len() > NODES_NAMED_MAX {
        names.push("others");
    }
    Some(format!(
        "{what} on {} of {} nodes ({}): {reason}",
        said.len(),
        candidates.len(),
        names.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, kinds: &[Kind]) -> v1::Node {
        let mut description = v1::NodeDescription {
            hostname: name.to_owned(),
            ..Default::default()
        };
        for kind in kinds {
            conditions::add(&mut description, *kind, "no cgroup");
        }
        v1::Node {
            id: format!("id{name}"),
            spec: Some(v1::NodeSpec::default()),
            description: Some(description),
            status: Some(v1::NodeStatus {
                state: v1::node_status::State::Ready as i32,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn service(change: impl FnOnce(&mut v1::TaskSpec, &mut v1::ContainerSpec)) -> v1::ServiceSpec {
        let mut task = v1::TaskSpec::default();
        let mut container = v1::ContainerSpec {
            image: IMAGE_HOST.to_owned(),
            ..Default::default()
        };
        change(&mut task, &mut container);
        task.runtime = Some(v1::task_spec::Runtime::Container(container));
        v1::ServiceSpec {
            task: Some(task),
            ..Default::default()
        }
    }

    fn limited(constraint: Option<&str>) -> v1::ServiceSpec {
        service(|task, _| {
            task.resources = Some(v1::ResourceRequirements {
                limits: Some(v1::Resources {
                    memory_bytes: 1 << 30,
                    ..Default::default()
                }),
                ..Default::default()
            });
            task.placement = Some(v1::Placement {
                constraints: constraint.map(str::to_owned).into_iter().collect(),
                ..Default::default()
            });
        })
    }

    #[test]
    fn a_limit_that_some_nodes_do_not_apply_is_warned_of_with_their_reason() {
        let nodes = [
            node("a", &[Kind::LimitMemory]),
            node("b", &[Kind::LimitCpu]),
        ];
        assert_eq!(
            warnings(&limited(None), &nodes),
            ["the memory limit does not apply on 1 of 2 nodes (a): no cgroup"]
        );
        let elsewhere = limited(Some("node.hostname==b"));
        assert_eq!(warnings(&elsewhere, &nodes), [""; 0]);
        assert_eq!(warnings(&service(|_, _| {}), &nodes), [""; 0]);
    }

    #[test]
    fn what_needs_root_is_warned_of_where_there_is_none() {
        let nodes: Vec<_> = ["a", "b", "c", "d"]
            .iter()
            .map(|name| node(name, &[Kind::Rootless]))
            .collect();
        let other = service(|_, container| container.user = "web".to_owned());
        assert_eq!(
            warnings(&other, &nodes),
            [
                "tasks with another user or group are rejected on 4 of 4 nodes (a, b, c, \
                 others): no cgroup"
            ]
        );
    }
}
