//! References to secrets and configs: that each is complete, that no two files collide, and that
//! the objects exist.

use std::collections::BTreeMap;

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::{Config, ConfigId, Kind, Secret, SecretId, spec};
use v1::privileges::credential_spec::Source;

use crate::payload::refuse_missing;
use crate::refusal::{Refusal, rules};
use crate::request::known;

rules! {
    SECRET_MALFORMED: InvalidArgument, "malformed secret reference";
    SECRET_NO_TARGET: InvalidArgument, "malformed secret reference, no target provided";
    SECRET_NO_FILE: InvalidArgument,
        "malformed file secret reference, invalid target file name provided";
    SECRET_COLLISION: InvalidArgument,
        "secret references '{}' and '{}' have a conflicting target: '{}'";
    CONFIG_MALFORMED: InvalidArgument, "malformed config reference";
    CONFIG_NO_TARGET: InvalidArgument, "malformed config reference, no target provided";
    CONFIG_NO_FILE: InvalidArgument,
        "malformed file config reference, invalid target file name provided";
    CONFIG_COLLISION: InvalidArgument,
        "config references '{}' and '{}' have a conflicting target: '{}'";
    /// SwarmKit lets the two meet on the worker.
    PAYLOAD_COLLISION: InvalidArgument,
        "secret reference '{}' and config reference '{}' have a conflicting target: '{}'";
    CREDENTIAL_CONFIG: InvalidArgument,
        "CredentialSpec references config '{}', but that config isn't in config references with \
         RuntimeTarget";
}

/// Checks secrets: all need an id, a name and a file of their own.
pub(super) fn check_secrets(container: &v1::ContainerSpec) -> Result<(), Refusal> {
    let mut holders = BTreeMap::new();
    for reference in &container.secrets {
        if reference.secret_id.is_empty() || reference.secret_name.is_empty() {
            return Err(SECRET_MALFORMED.plain());
        }
        let Some(v1::secret_reference::Target::File(file)) = &reference.target else {
            return Err(SECRET_NO_TARGET.plain());
        };
        if file.name.is_empty() {
            return Err(SECRET_NO_FILE.plain());
        }
        let name = &reference.secret_name;
        if let Some(holder) = holders.insert(&file.name, name) {
            return Err(SECRET_COLLISION.refuse(&[holder, name, &file.name]));
        }
    }
    Ok(())
}

/// Checks that no config has the file of a secret: a relative target of a secret is in
/// `/run/secrets`, one of a config in `/`.
pub(super) fn check_collisions(container: &v1::ContainerSpec) -> Result<(), Refusal> {
    let mut holders = BTreeMap::new();
    for reference in &container.secrets {
        if let Some(v1::secret_reference::Target::File(file)) = &reference.target {
            holders.insert(place("/run/secrets/", &file.name), &reference.secret_name);
        }
    }
    for reference in &container.configs {
        if let Some(v1::config_reference::Target::File(file)) = &reference.target
            && let Some(secret) = holders.get(&place("/", &file.name))
        {
            return Err(PAYLOAD_COLLISION.refuse(&[secret, &reference.config_name, &file.name]));
        }
    }
    Ok(())
}

fn place(directory: &str, name: &str) -> String {
    if name.starts_with('/') {
        return name.to_owned();
    }
    format!("{directory}{name}")
}

/// Checks the numbers in plain references.
pub(super) fn check_resources(task: &v1::TaskSpec) -> Result<(), Refusal> {
    for reference in &task.resource_references {
        let field = "TaskSpec.resource_references.resource_type";
        known::<v1::ResourceType>(field, reference.resource_type)?;
    }
    Ok(())
}

/// Refuses references to secrets and configs that do not exist, or have another name than the
/// reference says.
pub(crate) fn exist(root: &Root, spec: &v1::ServiceSpec) -> Result<(), Refusal> {
    let Some(task) = &spec.task else {
        return Ok(());
    };
    let secret_name = |id: &str| {
        let secret = root.get::<Secret>(&id.parse::<SecretId>().ok()?)?;
        Some(super::name(secret.spec.annotations.as_ref()).to_owned())
    };
    let config_name = |id: &str| {
        let config = root.get::<Config>(&id.parse::<ConfigId>().ok()?)?;
        Some(super::name(config.spec.annotations.as_ref()).to_owned())
    };
    let container = spec::container(task);
    let secrets = container.map_or(&[][..], |container| &container.secrets);
    let configs = container.map_or(&[][..], |container| &container.configs);
    let secrets = secrets
        .iter()
        .map(|own| (own.secret_id.as_str(), Some(own.secret_name.as_str())));
    let configs = configs
        .iter()
        .map(|own| (own.config_id.as_str(), Some(own.config_name.as_str())));
    let plain = |kind| spec::resource_ids(task, kind).map(|id| (id, None));
    let secrets = secrets.chain(plain(v1::ResourceType::Secret));
    refuse_missing(Kind::Secret, &missing(secrets, secret_name))?;
    let configs = configs.chain(plain(v1::ResourceType::Config));
    refuse_missing(Kind::Config, &missing(configs, config_name))
}

/// The references, by name if they have one, for which there is no object of that name.
fn missing<'a>(
    references: impl Iterator<Item = (&'a str, Option<&'a str>)>,
    name_of: impl Fn(&str) -> Option<String>,
) -> Vec<&'a str> {
    references
        .filter(|(id, wanted)| match name_of(id) {
            Some(name) => wanted.is_some_and(|wanted| wanted != name),
            None => true,
        })
        .map(|(id, wanted)| wanted.unwrap_or(id))
        .collect()
}

/// Checks configs: like secrets, but a config may be for the runtime instead, and the one that the
/// credential spec names must be.
pub(super) fn check_configs(container: &v1::ContainerSpec) -> Result<(), Refusal> {
    let credentials = credential_config(container);
    let mut has_credentials = false;
    let mut holders = BTreeMap::new();
    for reference in &container.configs {
        let (id, name) = (&reference.config_id, &reference.config_name);
        if id.is_empty() || name.is_empty() {
            return Err(CONFIG_MALFORMED.plain());
        }
        match &reference.target {
            None => return Err(CONFIG_NO_TARGET.plain()),
            Some(v1::config_reference::Target::Runtime(_)) => {
                has_credentials |= credentials == Some(id);
            }
            Some(v1::config_reference::Target::File(file)) => {
                if file.name.is_empty() {
                    return Err(CONFIG_NO_FILE.plain());
                }
                if let Some(holder) = holders.insert(&file.name, name) {
                    return Err(CONFIG_COLLISION.refuse(&[holder, name, &file.name]));
                }
            }
        }
    }
    match credentials {
        Some(id) if !has_credentials => Err(CREDENTIAL_CONFIG.refuse(&[id])),
        Some(_) | None => Ok(()),
    }
}

fn credential_config(container: &v1::ContainerSpec) -> Option<&String> {
    let credentials = container.privileges.as_ref()?.credential_spec.as_ref()?;
    match credentials.source.as_ref()? {
        Source::Config(id) => Some(id).filter(|id| !id.is_empty()),
        Source::File(_) | Source::Registry(_) => None,
    }
}

#[cfg(test)]
mod tests;
