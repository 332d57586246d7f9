//! How many tasks of a service there should be, and how many there are.

use std::collections::BTreeMap;

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::spec::{self, ServiceMode};
use swarm_types::{Service, ServiceId, Task, TaskState, Version};
use v1::list_service_statuses_response::ServiceStatus;

use crate::refusal::Refusal;

/// Answers with one entry for each requested id, in the order of the request. An unknown service
/// wants nothing, but tasks that survived it are counted.
///
/// # Errors
/// None at present.
pub fn list_service_statuses(
    view: &Root,
    request: v1::ListServiceStatusesRequest,
) -> Result<v1::ListServiceStatusesResponse, Refusal> {
    // One count for each service, however often a hostile request repeats its id.
    let mut counted: BTreeMap<String, ServiceStatus> = BTreeMap::new();
    let statuses = request.services.into_iter().map(|id| {
        let status = counted
            .entry(id)
            .or_insert_with_key(|id| status_of(view, id));
        status.clone()
    });
    Ok(v1::ListServiceStatusesResponse {
        statuses: statuses.collect(),
    })
}

fn status_of(view: &Root, text: &str) -> ServiceStatus {
    let mut status = ServiceStatus {
        service_id: text.to_owned(),
        ..ServiceStatus::default()
    };
    // A text that is no id is the id of no service and of no task.
    let Ok(id) = text.parse::<ServiceId>() else {
        return status;
    };
    let service = view.service(&id).map(|service| &**service);
    let fixed = service.and_then(fixed_number);
    let is_global = service.is_some() && fixed.is_none();
    let iteration = service.and_then(iteration);
    status.desired_tasks = fixed.unwrap_or(0);
    for task in view.tasks_of_service(&id) {
        // Executions of a job before the current one do not count.
        if iteration.is_some() && task.job_iteration != iteration {
            continue;
        }
        let state = task.state();
        status.completed_tasks += u64::from(iteration.is_some() && state == TaskState::Complete);
        status.running_tasks += u64::from(state == TaskState::Running);
        status.desired_tasks += u64::from(is_global && is_wanted(task));
    }
    status
}

/// How many tasks run at a time; `None` for the global modes, where nodes decide.
fn fixed_number(service: &Service) -> Option<u64> {
    match spec::mode(&service.spec)? {
        ServiceMode::Replicated { replicas } => Some(replicas),
        ServiceMode::ReplicatedJob { max_concurrent, .. } => Some(max_concurrent),
        ServiceMode::Global | ServiceMode::GlobalJob => None,
    }
}

fn iteration(service: &Service) -> Option<Version> {
    let status = service.job_status.as_deref()?;
    let iteration = status.job_iteration.as_ref();
    Some(Version(iteration.map_or(0, |version| version.index)))
}

fn is_wanted(task: &Task) -> bool {
    match task.desired_state() {
        TaskState::Running => true,
        TaskState::Complete => task.state() != TaskState::Complete,
        TaskState::New
        | TaskState::Pending
        | TaskState::Assigned
        | TaskState::Accepted
        | TaskState::Preparing
        | TaskState::Ready
        | TaskState::Starting
        | TaskState::Shutdown
        | TaskState::Failed
        | TaskState::Rejected
        | TaskState::Remove
        | TaskState::Orphaned => false,
    }
}

#[cfg(test)]
mod tests;
