//! Requests about tasks (spec 21.4). There is none that creates or changes one: tasks follow from
//! services.

use std::sync::Arc;

use swarm_api::v1;
use swarm_store::{By, Root, Write, WriteSet};
use swarm_types::{Kind, NodeId, ServiceId, Task, TaskId, TaskState, convert, naming};

use crate::filter::{Common, OneOf, texts};
use crate::plan::Plan;
use crate::refusal::Refusal;
use crate::request::{self, UNKNOWN_NUMBER};
use crate::up_to_date::is_task_up_to_date;

/// Answers with one task.
///
/// # Errors
/// `InvalidArgument` without an id, `NotFound`.
pub fn get_task(view: &Root, request: v1::GetTaskRequest) -> Result<v1::GetTaskResponse, Refusal> {
    let id: TaskId = request::id(&request.task_id)?;
    let task = found(view, &id)?;
    Ok(v1::GetTaskResponse {
        task: Some(convert::task_to_wire(task)),
    })
}

/// Deletes a task at once, whatever its state; its node then stops it.
///
/// # Errors
/// `InvalidArgument` without an id, `NotFound`.
pub fn remove_task(
    root: &Root,
    request: v1::RemoveTaskRequest,
) -> Result<Plan<v1::RemoveTaskResponse>, Refusal> {
    let id: TaskId = request::id(&request.task_id)?;
    let task = found(root, &id)?;
    let writes = WriteSet(vec![Write::delete(&**task)]);
    Ok(Plan::new(writes, id.as_id(), |_, _| {
        Some(v1::RemoveTaskResponse {})
    }))
}

/// Answers with the tasks that pass the filters. `labels` are those of the service; a task is up to
/// date if its service would make it the same way now.
///
/// # Errors
/// `InvalidArgument` for an unknown desired state.
pub fn list_tasks(
    view: &Root,
    request: v1::ListTasksRequest,
) -> Result<v1::ListTasksResponse, Refusal> {
    let filters = request.filters.unwrap_or_default();
    let filter = TaskFilter::new(&filters)?;
    let tasks = view.find::<Task>(&filter.lookup())?;
    let admitted = tasks.iter().filter(|task| filter.admits(view, task));
    Ok(v1::ListTasksResponse {
        tasks: admitted.map(|task| convert::task_to_wire(task)).collect(),
    })
}

struct TaskFilter<'a> {
    common: Common<'a>,
    needs_name: bool,
    services: OneOf<&'a str>,
    nodes: OneOf<&'a str>,
    runtimes: OneOf<&'a str>,
    desired: OneOf<TaskState>,
    up_to_date: bool,
}

impl<'a> TaskFilter<'a> {
    fn new(filters: &'a v1::list_tasks_request::Filters) -> Result<Self, Refusal> {
        let mut desired = Vec::new();
        for number in &filters.desired_states {
            let state = TaskState::from_wire(*number)
                .ok_or_else(|| UNKNOWN_NUMBER.refuse(&[&"filters.desired_states", number]))?;
            desired.push(state);
        }
        Ok(Self {
            common: Common::new(
                &filters.names,
                &filters.name_prefixes,
                &filters.id_prefixes,
                &filters.labels,
            ),
            needs_name: !filters.names.is_empty() || !filters.name_prefixes.is_empty(),
            services: texts(&filters.service_ids),
            nodes: texts(&filters.node_ids),
            runtimes: texts(&filters.runtimes),
            desired: OneOf::new(desired),
            up_to_date: filters.up_to_date,
        })
    }

    fn lookup(&self) -> By {
        // A text that is no id is the id of no object, and is left out. A runtime has no index, so
        // a filter that begins with one reads all tasks.
        let of_service = |id: &&str| id.parse::<ServiceId>().ok().map(By::Service);
        let on_node = |id: &&str| id.parse::<NodeId>().ok().map(By::Node);
        let by_runtime = || self.runtimes.is_set().then_some(By::All);
        self.common
            .lookup()
            .or_else(|| self.services.lookup(of_service))
            .or_else(by_runtime)
            .or_else(|| self.nodes.lookup(on_node))
            .or_else(|| self.desired.lookup(|state| Some(By::DesiredState(*state))))
            .unwrap_or(By::All)
    }

    fn admits(&self, view: &Root, task: &Task) -> bool {
        // Cheap questions first; a list may look at a million tasks.
        self.desired.admits(&task.desired_state())
            && self.admits_owner(task)
            && self.admits_common(task)
            && (!self.up_to_date || is_up_to_date(view, task))
    }

    fn admits_owner(&self, task: &Task) -> bool {
        let admits = |field: &OneOf<&str>, id: Option<&swarm_types::Id>| {
            !field.is_set()
                || match id {
                    Some(id) => id.with_str(|text| field.admits(&text)),
                    None => field.admits(&""),
                }
        };
        admits(
            &self.services,
            task.service_id.as_ref().map(ServiceId::as_id),
        ) && admits(&self.nodes, task.node_id.as_ref().map(NodeId::as_id))
            && (!self.runtimes.is_set()
                || naming::runtime_name(&task.spec)
                    .is_some_and(|runtime| self.runtimes.admits(&runtime.as_str())))
    }

    fn admits_common(&self, task: &Task) -> bool {
        let name = self.needs_name.then(|| naming::task_name(task));
        let labels = &task.service_annotations.labels;
        task.id
            .as_id()
            .with_str(|id| self.common.admits(name.as_deref(), id, Some(labels)))
    }
}

/// Tasks without a service have nothing to be up to date with.
fn is_up_to_date(view: &Root, task: &Task) -> bool {
    let service = task.service_id.as_ref().and_then(|id| view.service(id));
    let node = task.node_id.as_ref().and_then(|id| view.node(id));
    service.is_some_and(|service| is_task_up_to_date(service, task, node.map(|node| &**node)))
}

fn found<'a>(view: &'a Root, id: &TaskId) -> Result<&'a Arc<Task>, Refusal> {
    view.task(id)
        .ok_or_else(|| request::not_found(Kind::Task, id))
}

#[cfg(test)]
mod tests;
