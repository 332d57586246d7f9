//! How much memory a change keeps, for whoever keeps changes.
//!
//! Bounds on kept changes are numbers of changes, which is what people can think of; a change that
//! keeps much counts as several, so that the same bounds hold for bytes.

use std::sync::Arc;

use prost::Message;
use swarm_types::{AnyObject, Node, Service, Task, TaskStatus};

use crate::encode::encoded_len;
use crate::transaction::{Change, Commit};

/// Bytes that a change may keep and still count as one: 1 KiB. A version of a task, which shares
/// its spec with others, keeps less.
pub const CHANGE_BYTES: usize = 1024;

impl Change {
    /// As how many changes this counts.
    pub fn weight(&self) -> usize {
        bytes(&self.object, self.old.as_ref())
            .div_ceil(CHANGE_BYTES)
            .max(1)
    }
}

impl Commit {
    /// As how many changes its changes count. One without any counts as one: nothing else would
    /// bound how many there are.
    pub fn weight(&self) -> usize {
        let weights = self.changes.iter().map(Change::weight);
        weights.sum::<usize>().max(1)
    }
}

/// Bytes that an object holds and the one before it does not, about. Numbers and ids are left out.
fn bytes(object: &AnyObject, old: Option<&AnyObject>) -> usize {
    match (object, old) {
        (AnyObject::Task(task), _) => task_bytes(task),
        (AnyObject::Node(node), Some(AnyObject::Node(old))) => node_bytes(node, Some(old)),
        (AnyObject::Node(node), _) => node_bytes(node, None),
        (AnyObject::Service(service), Some(AnyObject::Service(old))) => {
            service_bytes(service, Some(old))
        }
        (AnyObject::Service(service), _) => service_bytes(service, None),
        (
            AnyObject::Network(_)
            | AnyObject::Cluster(_)
            | AnyObject::Secret(_)
            | AnyObject::Resource(_)
            | AnyObject::Extension(_)
            | AnyObject::Config(_)
            | AnyObject::Volume(_),
            _,
        ) => encoded_len(object),
    }
}

/// The spec belongs to the service, and the endpoint as well.
fn task_bytes(task: &Task) -> usize {
    fn len<M: Message>(part: Option<&M>) -> usize {
        part.map_or(0, Message::encoded_len)
    }
    let status: &TaskStatus = task.status();
    status.message.len()
        + status.err.len()
        + len(status.ports.as_deref())
        + len(status.container.as_deref())
        + len(task.annotations.as_deref())
}

fn node_bytes(node: &Node, old: Option<&Node>) -> usize {
    let shares =
        |own: &Arc<_>, other: Option<&Arc<_>>| other.is_some_and(|other| Arc::ptr_eq(own, other));
    let spec = match shares(&node.spec, old.map(|old| &old.spec)) {
        true => 0,
        false => node.spec.encoded_len(),
    };
    let certificate = node.certificate.as_ref().map_or(0, |own| own.encoded_len());
    spec + certificate + description_bytes(node, old)
}

fn description_bytes(node: &Node, old: Option<&Node>) -> usize {
    let Some(description) = &node.description else {
        return 0;
    };
    match old.and_then(|old| old.description.as_ref()) {
        Some(old) if Arc::ptr_eq(old, description) => 0,
        Some(_) | None => description.encoded_len(),
    }
}

/// A spec is held as it was sent, and its parts once more for the tasks.
fn service_bytes(service: &Service, old: Option<&Service>) -> usize {
    let is_same = old.is_some_and(|old| Arc::ptr_eq(old.spec.task(), service.spec.task()));
    let spec = if is_same {
        0
    } else {
        2 * service.spec.wire().encoded_len()
    };
    let endpoint = service.endpoint.as_ref().map_or(0, |own| own.encoded_len());
    spec + endpoint
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::root::Root;
    use swarm_api::v1;
    use swarm_types::{ServiceId, ServiceSpec, TaskState, Timestamp};

    fn service(bytes: usize) -> Service {
        let spec = v1::ServiceSpec {
            annotations: Some(v1::Annotations {
                name: "x".repeat(bytes),
                ..Default::default()
            }),
            ..Default::default()
        };
        Service::new("s".parse::<ServiceId>().unwrap(), ServiceSpec::new(spec))
    }

    fn update(root: &Root, object: impl Into<AnyObject>) -> (Root, Commit) {
        let mut transaction = root.begin(Timestamp::EPOCH);
        transaction.update(object).unwrap();
        transaction.finish()
    }

    #[test]
    fn a_large_spec_counts_as_many_changes_and_what_is_shared_as_one() {
        let mut transaction = Root::default().begin(Timestamp::EPOCH);
        transaction.create(service(400_000)).unwrap();
        let (root, commit) = transaction.finish();
        assert!((700..900).contains(&commit.weight()), "{}", commit.weight());
        let mut next = (**root.service(&"s".parse().unwrap()).unwrap()).clone();
        next.pending_delete = true;
        let (_, commit) = update(&root, next);
        assert_eq!(commit.weight(), 1, "the spec is the same");
    }

    #[test]
    fn a_status_counts_by_what_it_says() {
        let mut task = Task::new("t".parse().unwrap(), Arc::default());
        let mut transaction = Root::default().begin(Timestamp::EPOCH);
        transaction.create(task.clone()).unwrap();
        let (root, commit) = transaction.finish();
        assert_eq!(commit.weight(), 1);
        task.meta = root.task(&task.id).unwrap().meta;
        let long = "x".repeat(10 * CHANGE_BYTES);
        task.advance(TaskStatus::new(TaskState::Running, Timestamp::EPOCH, long))
            .unwrap();
        assert_eq!(update(&root, task).1.weight(), 10);
    }
}
