//! Assignments messages as bytes.
//!
//! A message may hold hundreds of tasks, and in the moment when the last of many tasks has found
//! its node, there is one for each node. As values they would be a deep copy of a spec for each
//! task, made by one thread and dropped by another; as bytes they are one buffer each.

use std::fmt;

use bytes::Bytes;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use swarm_api::v1;
use swarm_store::TaskEncoder;
use swarm_types::Task;
use v1::assignment::Item;
use v1::assignment_change::AssignmentAction;
use v1::assignments_message::Type;

// Numbers of fields (spec 5.7).
const MESSAGE_CHANGES: u32 = 4;
const CHANGE_ASSIGNMENT: u32 = 1;
const ASSIGNMENT_TASK: u32 = 1;

/// An `AssignmentsMessage`, encoded. Shows none of it, as there may be secrets in it.
#[derive(Clone, PartialEq, Eq)]
pub struct AssignmentsBytes(Bytes);

impl AssignmentsBytes {
    /// The bytes.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The message as a value.
    pub fn message(&self) -> v1::AssignmentsMessage {
        let message = v1::AssignmentsMessage::decode(&self.0[..]);
        message.expect("only this module makes such bytes, and it makes them of messages")
    }
}

impl fmt::Debug for AssignmentsBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AssignmentsBytes({} bytes)", self.0.len())
    }
}

/// A message in the making: what tasks depend on goes before the tasks.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    dependencies: Vec<u8>,
    tasks: Vec<u8>,
    encoder: TaskEncoder,
    /// One task, whose length goes before it.
    task: Vec<u8>,
}

impl Draft {
    /// A task that the node is to have, or has in another version.
    pub(crate) fn put_task(&mut self, task: &Task) {
        self.task.clear();
        self.encoder.encode(task, &mut self.task);
        let assignment = framed_len(ASSIGNMENT_TASK, self.task.len());
        // The action of an update is the default, which is not written.
        begin(
            MESSAGE_CHANGES,
            framed_len(CHANGE_ASSIGNMENT, assignment),
            &mut self.tasks,
        );
        begin(CHANGE_ASSIGNMENT, assignment, &mut self.tasks);
        begin(ASSIGNMENT_TASK, self.task.len(), &mut self.tasks);
        self.tasks.extend_from_slice(&self.task);
    }

    /// A task that the node is to drop.
    pub(crate) fn drop_task(&mut self, only_id: v1::Task) {
        let item = Item::Task(only_id);
        push(AssignmentAction::Remove, item, &mut self.tasks);
    }

    /// Anything but a task.
    pub(crate) fn dependency(&mut self, action: AssignmentAction, item: Item) {
        push(action, item, &mut self.dependencies);
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.dependencies.is_empty() && self.tasks.is_empty()
    }

    /// The whole message.
    pub(crate) fn finish(
        self,
        kind: Type,
        applies_to: String,
        results_in: String,
    ) -> AssignmentsBytes {
        let head = v1::AssignmentsMessage {
            r#type: kind as i32,
            applies_to,
            results_in,
            changes: Vec::new(),
        };
        let Self {
            dependencies,
            tasks,
            ..
        } = self;
        let len = head.encoded_len() + dependencies.len() + tasks.len();
        let mut bytes = Vec::with_capacity(len);
        head.encode_raw(&mut bytes);
        bytes.extend_from_slice(&dependencies);
        bytes.extend_from_slice(&tasks);
        AssignmentsBytes(bytes.into())
    }
}

fn push(action: AssignmentAction, item: Item, out: &mut Vec<u8>) {
    let change = v1::AssignmentChange {
        assignment: Some(v1::Assignment { item: Some(item) }),
        action: action as i32,
    };
    prost::encoding::message::encode(MESSAGE_CHANGES, &change, out);
}

/// The key and the length of a field of so many bytes.
fn begin(tag: u32, len: usize, out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

fn framed_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use swarm_types::{Slot, convert};

    fn change(action: AssignmentAction, item: Item) -> v1::AssignmentChange {
        v1::AssignmentChange {
            assignment: Some(v1::Assignment { item: Some(item) }),
            action: action as i32,
        }
    }

    fn task(id: &str, words: usize) -> Task {
        let spec = v1::TaskSpec {
            runtime: Some(v1::task_spec::Runtime::Container(v1::ContainerSpec {
                args: vec!["word".to_owned(); words],
                ..Default::default()
            })),
            ..Default::default()
        };
        let mut task = Task::new(id.parse().unwrap(), Arc::new(spec));
        task.slot = Slot(7);
        task
    }

    #[test]
    fn the_bytes_are_those_of_the_message_with_dependencies_first() {
        // Lengths of one, two and three bytes.
        let tasks = [task("a", 0), task("b", 30), task("c", 5_000)];
        let gone = v1::Task {
            id: "d".to_owned(),
            ..Default::default()
        };
        let secret = Item::Secret(v1::Secret {
            id: "s".to_owned(),
            ..Default::default()
        });
        let mut draft = Draft::default();
        assert!(draft.is_empty());
        for task in &tasks {
            draft.put_task(task);
        }
        draft.drop_task(gone.clone());
        draft.dependency(AssignmentAction::Update, secret.clone());
        assert!(!draft.is_empty());
        let bytes = draft.finish(Type::Incremental, "1".to_owned(), "2".to_owned());

        let mut changes = vec![change(AssignmentAction::Update, secret)];
        let put = |task| {
            let wire = convert::task_to_wire(task);
            change(AssignmentAction::Update, Item::Task(wire))
        };
        changes.extend(tasks.iter().map(put));
        changes.push(change(AssignmentAction::Remove, Item::Task(gone)));
        let message = v1::AssignmentsMessage {
            r#type: Type::Incremental as i32,
            applies_to: "1".to_owned(),
            results_in: "2".to_owned(),
            changes,
        };
        assert_eq!(bytes.message(), message);
        assert_eq!(bytes.into_bytes(), message.encode_to_vec());
    }

    #[test]
    fn a_message_shows_nothing_of_its_content() {
        let mut draft = Draft::default();
        draft.put_task(&task("a", 1));
        let bytes = draft.finish(Type::Complete, String::new(), "1".to_owned());
        let len = bytes.clone().into_bytes().len();
        assert_eq!(
            format!("{bytes:?}"),
            format!("AssignmentsBytes({len} bytes)")
        );
    }
}
