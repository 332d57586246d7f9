//! Names and sentences that several explanations share.

use swarm_store::Root;
use swarm_types::{Node, NodeId, Task, naming};

/// Names in one sentence; the others are counted.
const NAMES_MAX: usize = 3;

/// The host name of a node, or its id as long as it has none.
pub(crate) fn node_name(node: &Node) -> String {
    match node.hostname() {
        "" => node.id.to_string(),
        name => name.to_owned(),
    }
}

/// The name of a node that may be gone.
pub(crate) fn node_named(view: &Root, id: &NodeId) -> String {
    view.node(id)
        .map_or_else(|| id.to_string(), |it| node_name(it))
}

/// `service.slot`; `service.host-name` for tasks without a slot.
pub(crate) fn task_name(view: &Root, task: &Task) -> String {
    match &task.node_id {
        Some(node) if task.slot.0 == 0 && task.service_id.is_some() => {
            format!(
                "{}.{}",
                task.service_annotations.name,
                node_named(view, node)
            )
        }
        Some(_) | None => naming::replica_name(task),
    }
}

/// `web.3`, or `4 tasks (web.1, web.2, web.3 and 1 more)`.
pub(crate) fn several(what: &str, names: &[String]) -> String {
    match names {
        [one] => one.clone(),
        names => {
            let shown = names.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>();
            let more = match names.len().saturating_sub(NAMES_MAX) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("{} {what}s ({}{more})", names.len(), shown.join(", "))
        }
    }
}

/// `1 task`, `2 tasks`.
pub(crate) fn count(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// `once`, `3 times`.
pub(crate) fn times(number: usize) -> String {
    match number {
        1 => "once".to_owned(),
        number => format!("{number} times"),
    }
}

/// The error of a task as part of a sentence; what it reported instead, if it has none.
pub(crate) fn error(task: &Task) -> String {
    let status = task.status();
    match (status.err.as_str(), status.message.as_str()) {
        ("", "") => "without a word".to_owned(),
        ("", message) => message.to_owned(),
        (error, _) => error.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_few_names_are_listed() {
        let names =
            |count: usize| -> Vec<String> { (1..=count).map(|n| format!("web.{n}")).collect() };
        assert_eq!(several("task", &names(1)), "web.1");
        assert_eq!(several("task", &names(3)), "3 tasks (web.1, web.2, web.3)");
        assert_eq!(
            several("task", &names(4)),
            "4 tasks (web.1, web.2, web.3 and 1 more)"
        );
        assert_eq!(
            (count(1, "task"), count(0, "task")),
            ("1 task".into(), "0 tasks".into())
        );
    }
}
