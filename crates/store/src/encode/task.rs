//! Tasks as `Task` messages, without building the message: most of what is written, read and sent
//! are tasks, and a message would be a deep copy of the spec that they share.

use std::sync::Arc;

use prost::Message as _;
use swarm_api::v1;
use swarm_types::{Task, TaskStatus};

use super::sink::Sink;

/// Encodes tasks one after the other. Those of one service come together and share their spec,
/// which is half of what a task is in bytes and is encoded once for all of them.
#[derive(Debug, Default)]
pub struct TaskEncoder {
    spec: Option<Arc<v1::TaskSpec>>,
    bytes: Vec<u8>,
}

impl TaskEncoder {
    /// Appends a task as a `Task` message; the same bytes as those of its wire form.
    pub fn encode(&mut self, task: &Task, out: &mut Vec<u8>) {
        let is_same = |spec: &Arc<v1::TaskSpec>| Arc::ptr_eq(spec, &task.spec);
        if !self.spec.as_ref().is_some_and(is_same) {
            self.bytes.clear();
            self.bytes.reserve(task.spec.encoded_len());
            task.spec.encode_raw(&mut self.bytes);
            self.spec = Some(Arc::clone(&task.spec));
        }
        write_with(task, out, |out| out.bytes(3, &self.bytes));
    }
}

/// The fields of a task, for a frame around it.
pub(super) fn write(task: &Task, out: &mut impl Sink) {
    write_with(task, out, |out| out.message(3, &*task.spec));
}

fn write_with<S: Sink>(task: &Task, out: &mut S, spec: impl FnOnce(&mut S)) {
    out.id(1, Some(task.id.as_id()));
    out.framed(2, |out| {
        out.version(1, task.meta.version);
        out.time(2, task.meta.created_at);
        out.time(3, task.meta.updated_at);
    });
    spec(out);
    out.id(4, task.service_id.as_ref().map(|id| id.as_id()));
    out.number(5, task.slot.0);
    out.id(6, task.node_id.as_ref().map(|id| id.as_id()));
    match &task.annotations {
        Some(annotations) => out.message(7, &**annotations),
        None => out.framed(7, |_| ()),
    }
    out.message(8, &*task.service_annotations);
    out.framed(9, |out| write_status(task.status(), out));
    out.number(10, u64::from(task.desired_state() as u16));
    for network in task.networks.iter() {
        out.message(11, network);
    }
    if let Some(endpoint) = &task.endpoint {
        out.message(12, &**endpoint);
    }
    if let Some(driver) = &task.log_driver {
        out.message(13, &**driver);
    }
    if let Some(version) = task.spec_version {
        out.version(14, version);
    }
    for resource in &task.assigned_generic_resources {
        out.message(15, resource);
    }
    if let Some(version) = task.job_iteration {
        out.version(16, version);
    }
    for volume in &task.volumes {
        out.message(17, volume);
    }
    out.number(1001, task.failures_before.into());
}

fn write_status(status: &TaskStatus, out: &mut impl Sink) {
    if let Some(time) = status.timestamp {
        out.time(1, time);
    }
    out.number(2, u64::from(status.state as u16));
    out.text(3, &status.message);
    out.text(4, &status.err);
    if let Some(container) = &status.container {
        out.framed(5, |out| {
            out.text(1, &container.container_id);
            out.signed(2, container.pid.into());
            out.signed(3, container.exit_code.into());
        });
    }
    if let Some(ports) = &status.ports {
        out.message(6, &**ports);
    }
    out.id(7, status.applied_by.as_ref().map(|id| id.as_id()));
    if let Some(time) = status.applied_at {
        out.time(8, time);
    }
}
