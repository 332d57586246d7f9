//! What the templates of a task see, and which parts of its spec are templates (control-plane
//! spec 27): values of the environment, sources and targets of mounts, values of volume labels and
//! of volume driver options, and the host name; and the data of secrets and configs that ask for
//! it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use swarm_api::v1;

use super::{Budget, Functions, Lookup, Scope, Template, TemplateError, Value, is_template};
use crate::id::{Id, TaskId};
use crate::objects::Slot;
use crate::task::Task;
use crate::{naming, spec};

/// Bytes of one expanded field of a spec at most: 64 KiB. The kernel takes 128 KiB in one variable
/// of the environment, and a path has 4 KiB.
pub const FIELD_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one expanded secret or config at most: as many as a config may have, 1000 KiB.
pub const PAYLOAD_BYTES_MAX: usize = 1000 * 1024;
/// The one template language, by the name of its driver.
pub const DRIVER: &str = "golang";

/// The dot of a task's templates. A node that did not describe itself has empty values.
pub fn data(task: &Task, node: Option<&v1::NodeDescription>) -> Value {
    let text = |text: &str| Value::from(text);
    let id = |id: Option<String>| Value::from(id.unwrap_or_default());
    let node_id = || id(task.node_id.as_ref().map(ToString::to_string));
    let platform = node.and_then(|node| node.platform.as_ref());
    let platform = Value::Struct(Arc::new([
        (
            "Architecture",
            text(platform.map_or("", |own| &own.architecture)),
        ),
        ("OS", text(platform.map_or("", |own| &own.os))),
    ]));
    let slot = match task.slot {
        Slot(0) => node_id(),
        Slot(number) => number.to_string().into(),
    };
    Value::Struct(Arc::new([
        (
            "Service",
            Value::Struct(Arc::new([
                ("ID", id(task.service_id.as_ref().map(ToString::to_string))),
                ("Name", text(&task.service_annotations.name)),
                ("Labels", Value::from(&task.service_annotations.labels)),
            ])),
        ),
        (
            "Node",
            Value::Struct(Arc::new([
                ("ID", node_id()),
                ("Hostname", text(node.map_or("", |node| &node.hostname))),
                ("Platform", platform),
            ])),
        ),
        (
            "Task",
            Value::Struct(Arc::new([
                ("ID", task.id.to_string().into()),
                ("Name", naming::task_name(task).into()),
                ("Slot", slot),
            ])),
        ),
    ]))
}

/// The container spec of a task with its templates expanded; `None` if it has no container.
///
/// # Errors
/// [`TemplateError`], named after the field.
pub fn container(
    task: &Task,
    node: Option<&v1::NodeDescription>,
) -> Result<Option<v1::ContainerSpec>, TemplateError> {
    let Some(container) = spec::container(&task.spec) else {
        return Ok(None);
    };
    let mut container = container.clone();
    expand_fields(&mut container, &data(task, node))?;
    Ok(Some(container))
}

/// The container spec of a template for tasks, expanded as for a task that does not exist, to judge
/// it before it is accepted. Labels are those of the service.
///
/// # Errors
/// [`TemplateError`], named after the field.
pub fn rehearse(
    container: &v1::ContainerSpec,
    service: Option<&v1::Annotations>,
) -> Result<v1::ContainerSpec, TemplateError> {
    let mut task = Task::new(TaskId::new(Id::from_random([1; 17])), Arc::default());
    task.service_id = "serviceid".parse().ok();
    task.node_id = "nodeid".parse().ok();
    task.slot = Slot(1);
    task.service_annotations = Arc::new(service.cloned().unwrap_or_default());
    let node = v1::NodeDescription {
        hostname: "hostname".to_owned(),
        platform: Some(v1::Platform {
            architecture: "architecture".to_owned(),
            os: "os".to_owned(),
        }),
        ..Default::default()
    };
    let mut container = container.clone();
    expand_fields(&mut container, &data(&task, Some(&node)))?;
    Ok(container)
}

/// What the fields of one spec see, and what is left for them.
struct Paid<'a> {
    data: &'a Value,
    budget: Budget,
}

fn expand_fields(container: &mut v1::ContainerSpec, data: &Value) -> Result<(), TemplateError> {
    let paid = &mut Paid {
        data,
        budget: Budget::default(),
    };
    for variable in &mut container.env {
        if let Some((name, value)) = variable.split_once('=') {
            let value = expanded(|| format!("env {name}"), value, paid)?;
            if let Some(value) = value {
                *variable = format!("{name}={value}");
            }
        }
    }
    for (index, mount) in container.mounts.iter_mut().enumerate() {
        let number = index + 1;
        expand(|| format!("mount {number} source"), &mut mount.source, paid)?;
        expand(|| format!("mount {number} target"), &mut mount.target, paid)?;
        let Some(options) = &mut mount.volume_options else {
            continue;
        };
        for (key, value) in &mut options.labels {
            expand(|| format!("mount {number} label {key}"), value, paid)?;
        }
        let driver = options.driver_config.as_mut();
        for (key, value) in driver.into_iter().flat_map(|driver| &mut driver.options) {
            expand(|| format!("mount {number} option {key}"), value, paid)?;
        }
    }
    expand(|| "hostname".to_owned(), &mut container.hostname, paid)
}

fn expand(
    name: impl FnOnce() -> String,
    place: &mut String,
    paid: &mut Paid<'_>,
) -> Result<(), TemplateError> {
    if let Some(text) = expanded(name, place, paid)? {
        *place = text;
    }
    Ok(())
}

/// The expanded text; `None` if there is nothing to expand.
fn expanded(
    name: impl FnOnce() -> String,
    text: &str,
    paid: &mut Paid<'_>,
) -> Result<Option<String>, TemplateError> {
    if !is_template(text.as_bytes()) {
        return Ok(None);
    }
    let name = name();
    let template = Template::parse(&name, text.as_bytes().to_vec(), Functions::Basic)?;
    let scope = Scope {
        data: paid.data,
        lookup: None,
    };
    let expansion = template.expand_within(scope, FIELD_BYTES_MAX, &mut paid.budget)?;
    match std::str::from_utf8(&expansion.text) {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err(whole(&name, "the result is not text in UTF-8")),
    }
}

fn whole(name: &str, message: &str) -> TemplateError {
    TemplateError {
        name: name.to_owned(),
        line: 1,
        column: 1,
        message: message.to_owned(),
    }
}

/// The data of a secret or config as a task gets it.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    /// The bytes.
    pub data: Bytes,
    /// Whether they hold a secret, and must not be written to a disk.
    pub is_sensitive: bool,
}

/// The secrets and configs that one task may see, for the expansion of their templates.
#[derive(Clone, Copy)]
pub struct Payloads<'a> {
    /// The task.
    pub task: &'a Task,
    /// What its node says of itself.
    pub node: Option<&'a v1::NodeDescription>,
    /// By the id in the task's spec.
    pub secrets: &'a BTreeMap<String, Arc<v1::Secret>>,
    /// By the id in the task's spec.
    pub configs: &'a BTreeMap<String, Arc<v1::Config>>,
}

impl Payloads<'_> {
    /// The data of one secret.
    ///
    /// # Errors
    /// [`TemplateError`], named after the secret.
    pub fn secret(&self, secret: &v1::Secret) -> Result<Payload, TemplateError> {
        let spec = secret.spec.clone().unwrap_or_default();
        let name = spec.annotations.map_or_else(String::new, |own| own.name);
        let name = format!("secret {name}");
        let mut payload = self.expand(&name, spec.data, spec.templating.as_ref())?;
        payload.is_sensitive = true;
        Ok(payload)
    }

    /// The data of one config; sensitive if its template used a secret.
    ///
    /// # Errors
    /// [`TemplateError`], named after the config.
    pub fn config(&self, config: &v1::Config) -> Result<Payload, TemplateError> {
        let spec = config.spec.clone().unwrap_or_default();
        let name = spec.annotations.map_or_else(String::new, |own| own.name);
        let name = format!("config {name}");
        self.expand(&name, spec.data, spec.templating.as_ref())
    }

    fn expand(
        &self,
        name: &str,
        data: Bytes,
        driver: Option<&v1::Driver>,
    ) -> Result<Payload, TemplateError> {
        let Some(driver) = driver else {
            return Ok(Payload {
                data,
                is_sensitive: false,
            });
        };
        if driver.name != DRIVER {
            let text = format!(
                "templating driver {:?} is not known; use {DRIVER:?}",
                driver.name
            );
            return Err(whole(name, &text));
        }
        let template = Template::parse(name, data, Functions::Payload)?;
        let scope = Scope {
            data: &self::data(self.task, self.node),
            lookup: Some(self),
        };
        let expansion = template.expand(scope, PAYLOAD_BYTES_MAX)?;
        Ok(Payload {
            data: expansion.text,
            is_sensitive: expansion.used_secret,
        })
    }

    fn container(&self) -> Option<&v1::ContainerSpec> {
        spec::container(&self.task.spec)
    }
}

impl Lookup for Payloads<'_> {
    fn env(&self, name: &str) -> Bytes {
        let env = self.container().map_or(&[][..], |container| &container.env);
        let mut pairs = env.iter().filter_map(|variable| variable.split_once('='));
        let found = pairs.find(|(known, _)| *known == name);
        found.map_or_else(Bytes::new, |(_, value)| value.to_owned().into())
    }

    /// The data as it is stored: a template in it is not expanded again.
    fn secret(&self, target: &str) -> Result<Bytes, String> {
        let secrets = self.container().map_or(&[][..], |own| &own.secrets);
        let mut targets = secrets.iter().filter(|reference| match &reference.target {
            Some(v1::secret_reference::Target::File(file)) => file.name == target,
            None => false,
        });
        let reference = targets
            .next()
            .ok_or_else(|| format!("secret target {target} not found"))?;
        let secret = self.secrets.get(&reference.secret_id);
        let secret =
            secret.ok_or_else(|| format!("secret {} is missing", reference.secret_name))?;
        let spec = secret.spec.as_ref();
        Ok(spec.map_or_else(Bytes::new, |spec| spec.data.clone()))
    }

    /// The data as it is stored: a template in it is not expanded again.
    fn config(&self, target: &str) -> Result<Bytes, String> {
        use v1::config_reference::Target;
        let configs = self.container().map_or(&[][..], |own| &own.configs);
        let mut targets = configs.iter().filter(|reference| match &reference.target {
            Some(Target::File(file)) => file.name == target,
            Some(Target::Runtime(_)) | None => false,
        });
        let reference = targets
            .next()
            .ok_or_else(|| format!("config target {target} not found"))?;
        let config = self.configs.get(&reference.config_id);
        let config =
            config.ok_or_else(|| format!("config {} is missing", reference.config_name))?;
        let spec = config.spec.as_ref();
        Ok(spec.map_or_else(Bytes::new, |spec| spec.data.clone()))
    }
}
