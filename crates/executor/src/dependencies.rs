//! What a task may see besides its spec: the secrets and configs that it refers to.
//!
//! They are in memory only. An executor that makes files of them keeps those off every disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_api::v1;
use swarm_types::template::TemplateError;
use swarm_types::template::task::{Payload, Payloads};
use swarm_types::{Task, spec};

use crate::error::ExecError;

/// What one task may see: exactly what its spec refers to, as far as it has arrived.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dependencies {
    /// By the id in the task's spec; `None` while the object has not arrived.
    secrets: BTreeMap<String, Option<Arc<v1::Secret>>>,
    /// By the id in the task's spec; `None` while the object has not arrived.
    configs: BTreeMap<String, Option<Arc<v1::Config>>>,
}

impl Dependencies {
    /// Collects what a task refers to.
    pub fn of(
        task: &Task,
        secret: impl Fn(&str) -> Option<Arc<v1::Secret>>,
        config: impl Fn(&str) -> Option<Arc<v1::Config>>,
    ) -> Self {
        let secrets = spec::secret_ids(&task.spec).map(|id| (id.to_owned(), secret(id)));
        let configs = spec::config_ids(&task.spec).map(|id| (id.to_owned(), config(id)));
        Self {
            secrets: secrets.collect(),
            configs: configs.collect(),
        }
    }

    /// A secret, as it was sent.
    ///
    /// # Errors
    /// [`ExecError::Fatal`] for one that the task does not refer to,
    /// [`ExecError::DependencyNotReady`] for one that has not arrived.
    pub fn secret(&self, id: &str) -> Result<&Arc<v1::Secret>, ExecError> {
        entry(&self.secrets, "secret", id)
    }

    /// A config, as it was sent.
    ///
    /// # Errors
    /// See [`Dependencies::secret`].
    pub fn config(&self, id: &str) -> Result<&Arc<v1::Config>, ExecError> {
        entry(&self.configs, "config", id)
    }

    /// The content of a secret for this task, with its templates expanded.
    ///
    /// # Errors
    /// See [`Dependencies::secret`]; [`ExecError::Fatal`] for a template that cannot be expanded.
    pub fn secret_payload(
        &self,
        id: &str,
        task: &Task,
        node: Option<&v1::NodeDescription>,
    ) -> Result<Payload, ExecError> {
        let secret = self.secret(id)?;
        self.expanded(task, node, |payloads| payloads.secret(secret))
    }

    /// The content of a config for this task, with its templates expanded.
    ///
    /// # Errors
    /// See [`Dependencies::secret_payload`].
    pub fn config_payload(
        &self,
        id: &str,
        task: &Task,
        node: Option<&v1::NodeDescription>,
    ) -> Result<Payload, ExecError> {
        let config = self.config(id)?;
        self.expanded(task, node, |payloads| payloads.config(config))
    }

    fn expanded(
        &self,
        task: &Task,
        node: Option<&v1::NodeDescription>,
        expand: impl FnOnce(Payloads<'_>) -> Result<Payload, TemplateError>,
    ) -> Result<Payload, ExecError> {
        let payloads = Payloads {
            task,
            node,
            secrets: &arrived(&self.secrets),
            configs: &arrived(&self.configs),
        };
        expand(payloads).map_err(|error| ExecError::fatal(error.to_string()))
    }
}

fn entry<'a, T>(
    all: &'a BTreeMap<String, Option<Arc<T>>>,
    noun: &str,
    id: &str,
) -> Result<&'a Arc<T>, ExecError> {
    match all.get(id) {
        Some(Some(found)) => Ok(found),
        Some(None) => Err(ExecError::DependencyNotReady {
            what: format!("{noun} {id} has not come from the manager, or does not exist"),
        }),
        None => Err(ExecError::fatal(format!(
            "task not authorized to access {noun} {id}"
        ))),
    }
}

fn arrived<T>(all: &BTreeMap<String, Option<Arc<T>>>) -> BTreeMap<String, Arc<T>> {
    all.iter()
        .filter_map(|(id, found)| Some((id.clone(), Arc::clone(found.as_ref()?))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorClass;
    use v1::task_spec::Runtime;

    fn task() -> Task {
        let reference = |id: &str| v1::SecretReference {
            secret_id: id.to_owned(),
            secret_name: id.to_owned(),
            target: None,
        };
        let container = v1::ContainerSpec {
            secrets: vec![reference("here"), reference("late")],
            ..Default::default()
        };
        let spec = v1::TaskSpec {
            runtime: Some(Runtime::Container(container)),
            ..Default::default()
        };
        Task::new("t".parse().unwrap(), Arc::new(spec))
    }

    fn secret(data: &str) -> Arc<v1::Secret> {
        let templating = Some(v1::Driver {
            name: "golang".to_owned(),
            ..Default::default()
        });
        let spec = Some(v1::SecretSpec {
            data: data.to_owned().into(),
            templating,
            ..Default::default()
        });
        Arc::new(v1::Secret {
            spec,
            ..Default::default()
        })
    }

    fn dependencies(data: &str) -> Dependencies {
        let here = |id: &str| (id == "here").then(|| secret(data));
        Dependencies::of(&task(), here, |_| None)
    }

    #[test]
    fn a_task_gets_what_it_refers_to_waits_for_what_is_late_and_never_gets_more() {
        let dependencies = dependencies("x");
        assert!(dependencies.secret("here").is_ok());
        let late = dependencies.secret("late").unwrap_err();
        assert_eq!(late.class(), ErrorClass::Retry);
        assert!(
            late.to_string().contains("secret late has not come"),
            "{late}"
        );
        let other = dependencies.secret("other").unwrap_err();
        assert_eq!(
            other.to_string(),
            "task not authorized to access secret other"
        );
        assert_eq!(other.class(), ErrorClass::Fatal);
        assert!(dependencies.config("here").is_err());
    }

    #[test]
    fn templates_are_expanded_and_their_errors_end_the_task() {
        let task = task();
        let payload = dependencies("{{.Task.ID}}").secret_payload("here", &task, None);
        assert!(payload.is_ok_and(|payload| &payload.data[..] == b"t"));
        let broken = dependencies("{{.Nope}}").secret_payload("here", &task, None);
        let error = broken.err().unwrap();
        assert_eq!(error.class(), ErrorClass::Fatal);
        assert!(
            error.to_string().contains("1:3: there is no field Nope"),
            "{error}"
        );
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let text = format!("{:?}", dependencies("hush"));
        assert!(!text.contains("hush"), "{text}");
    }
}
