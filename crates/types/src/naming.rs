//! Names that are derived (control-plane spec 27).

use crate::task::Task;

/// The name of a task: its own if it has one, else `<service>.<slot or node id>.<task id>`.
pub fn task_name(task: &Task) -> String {
    if let Some(annotations) = task.annotations.as_deref()
        && !annotations.name.is_empty()
    {
        return annotations.name.clone();
    }
    format!(
        "{}.{}.{}",
        task.service_annotations.name,
        slot_or_node(task),
        task.id
    )
}

/// The short name of a replica, as `task ls` shows it: `<service>.<slot or node id>`.
pub fn replica_name(task: &Task) -> String {
    format!("{}.{}", task.service_annotations.name, slot_or_node(task))
}

fn slot_or_node(task: &Task) -> String {
    match (&task.node_id, task.slot.0) {
        (Some(node), 0) => node.to_string(),
        (None, 0) => String::new(),
        (_, slot) => slot.to_string(),
    }
}

/// The runtime's name as list filters use it; `None` for a spec without a runtime.
pub fn runtime_name(spec: &swarm_api::v1::TaskSpec) -> Option<String> {
    use swarm_api::v1::task_spec::Runtime;
    Some(match spec.runtime.as_ref()? {
        Runtime::Container(_) => "container".to_owned(),
        Runtime::Attachment(_) => "attachment".to_owned(),
        Runtime::Generic(generic) => generic.kind.to_lowercase(),
    })
}
