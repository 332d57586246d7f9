//! Secrets and configs for which a task waits.

use swarm_store::Root;
use swarm_types::{Config, ConfigId, Secret, SecretId, Task, TaskState, spec};

use crate::finding::{Code, Finding};
use crate::words::with_other_tasks;

/// A task on a node that cannot begin without an object; `None` for one that has what it needs, as
/// far as the manager knows.
pub(crate) fn missing(view: &Root, task: &Task) -> Option<Finding> {
    if !(TaskState::Assigned..TaskState::Ready).contains(&task.state()) {
        return None;
    }
    absent(view, task).or_else(|| undelivered(view, task))
}

/// The first reference to an object that does not exist.
fn absent(view: &Root, task: &Task) -> Option<Finding> {
    let has_secret = |id: &str| {
        id.parse::<SecretId>()
            .is_ok_and(|id| view.get::<Secret>(&id).is_some())
    };
    let has_config = |id: &str| {
        id.parse::<ConfigId>()
            .is_ok_and(|id| view.get::<Config>(&id).is_some())
    };
    let secret = spec::secret_ids(&task.spec).find(|id| !has_secret(id));
    let config = spec::config_ids(&task.spec).find(|id| !has_config(id));
    let (noun, name) = match (secret, config) {
        (Some(id), _) => ("secret", secret_name(task, id)),
        (None, Some(id)) => ("config", config_name(task, id)),
        (None, None) => return None,
    };
    let text = format!("waiting for {noun} {name}, which does not exist");
    let flags = format!("--rm-{noun} {name} --add-{noun} OTHER:{name}");
    let update = format!(
        "use one that exists: {}",
        with_other_tasks(view, task, &flags)
    );
    let finding = Finding::new(Code::Dependency, text);
    Some(finding.step(format!("swarmctl {noun} ls")).step(update))
}

/// A secret whose driver failed; the dispatcher writes the reason into the status.
fn undelivered(view: &Root, task: &Task) -> Option<Finding> {
    let complaint = task.status().err.as_str();
    if task.state() != TaskState::Assigned || complaint.is_empty() {
        return None;
    }
    let has_driver = |id: &str| {
        let secret = id
            .parse::<SecretId>()
            .ok()
            .and_then(|id| view.get::<Secret>(&id));
        secret.is_some_and(|secret| secret.spec.driver.is_some())
    };
    let mut secrets = spec::secret_ids(&task.spec);
    secrets
        .any(has_driver)
        .then(|| Finding::new(Code::Dependency, format!("waiting for {complaint}")))
}

fn secret_name(task: &Task, id: &str) -> String {
    let secrets = spec::container(&task.spec).map_or(&[][..], |own| &own.secrets);
    let found = secrets.iter().find(|own| own.secret_id == id);
    found.map_or_else(|| id.to_owned(), |own| own.secret_name.clone())
}

fn config_name(task: &Task, id: &str) -> String {
    let configs = spec::container(&task.spec).map_or(&[][..], |own| &own.configs);
    let found = configs.iter().find(|own| own.config_id == id);
    found.map_or_else(|| id.to_owned(), |own| own.config_name.clone())
}
