//! References to secrets and configs: that each is complete, and that no two files collide.
//!
//! Whether the objects exist is asked when the references are implemented.

use std::collections::BTreeMap;

use swarm_api::v1;
use v1::privileges::credential_spec::Source;

use crate::refusal::{Refusal, rules};

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
