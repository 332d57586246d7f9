//! Names and sentences that several explanations share.

use swarm_store::Root;
use swarm_types::{Node, NodeId, Task, Timestamp, naming, spec};

use crate::resolve::{Found, resolve};

/// Names in one sentence; the others are counted.
pub(crate) const NAMES_MAX: usize = 3;

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

/// A node as a command takes it: its host name, unless that is another object's too or has to be
/// quoted; then its id, which a worker cannot choose.
pub(crate) fn node_arg(view: &Root, node: &Node) -> String {
    let name = node.hostname();
    let means_it =
        || matches!(resolve(view, None, name), Ok(Found::Node(found)) if found.id == node.id);
    if !name.is_empty() && !name.starts_with('-') && quoted(name) == name && means_it() {
        name.to_owned()
    } else {
        node.id.to_string()
    }
}

/// A word as a shell takes it.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || "_-./:=@%+,".contains(char);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A time to the second.
pub(crate) fn moment(at: Timestamp) -> String {
    let mut wire = at.to_wire();
    wire.nanos = 0;
    wire.to_string()
}

/// How a service of which tasks live gets a change that needs other tasks, as long as nothing
/// replaces tasks one after the other: by going down and up again.
pub(crate) fn with_other_tasks(view: &Root, task: &Task, flags: &str) -> String {
    let name = &task.service_annotations.name;
    let service = task.service_id.as_ref().and_then(|id| view.service(id));
    match service.and_then(|service| spec::replicas(&service.spec)) {
        Some(replicas) if replicas > 0 => format!(
            "swarmctl service update {name} --replicas 0, then swarmctl service update {name} \
             --replicas {replicas} {flags}"
        ),
        Some(_) | None => format!("remove service {name}, and create it again with {flags}"),
    }
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
    fn what_a_shell_would_read_otherwise_is_quoted() {
        for (word, shown) in [
            ("zone=a", "zone=a"),
            ("disk=big ssd", "'disk=big ssd'"),
            ("a=$(reboot)", "'a=$(reboot)'"),
            ("a=it's", r"'a=it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), shown);
        }
    }

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
