//! Requests about secrets (spec 21.8).
//!
//! Owns that no answer holds the data of a secret: see [`shown`].

use std::sync::Arc;

use prost::Message as _;
use swarm_api::v1;
use swarm_reconcile::Ctx;
use swarm_store::{By, Root, Write, WriteSet};
use swarm_types::{Kind, Secret, SecretId, convert};

use crate::payload::{self, Filter};
use crate::plan::Plan;
use crate::refusal::{OUT_OF_SEQUENCE, Refusal, rules};
use crate::request;
use crate::validate;

/// The first number of bytes that is too many for a secret: 500 KiB.
pub const SECRET_BYTES_LIMIT: usize = 500 * 1024;

rules! {
    SECRET_DRIVER_UNNAMED: InvalidArgument, "secret driver must have a name";
    SECRET_DRIVER_UNKNOWN: InvalidArgument,
        "secret driver \"{}\" has no plugin on the leading manager; start it there, or create the \
         secret with its data";
    SECRET_DRIVER_WITH_DATA: InvalidArgument,
        "secret driver \"{}\" provides the data; leave the data of the secret out";
}

const KIND: Kind = Kind::Secret;

/// Stores a new secret. `has_driver` says whether there is a driver of a name; only at creation,
/// so that a driver which is away for a while does no harm.
///
/// # Errors
/// `InvalidArgument` for a malformed spec or a driver that is not there, `AlreadyExists` when the
/// name is taken.
pub fn create_secret(
    root: &Root,
    ctx: &mut Ctx<'_>,
    has_driver: &dyn Fn(&str) -> bool,
    request: v1::CreateSecretRequest,
) -> Result<Plan<v1::CreateSecretResponse>, Refusal> {
    let spec = request
        .spec
        .ok_or_else(|| request::INVALID_ARGUMENT.plain())?;
    check_spec(&spec, has_driver)?;
    let name = validate::name(spec.annotations.as_ref());
    let holders = root.find::<Secret>(&By::Name(name.to_owned()))?;
    payload::refuse_taken_name(KIND, name, !holders.is_empty())?;
    let id = SecretId::new(ctx.ids.next_id());
    let secret = Secret::new(id.clone(), spec);
    let writes = WriteSet(vec![Write::create(secret)]);
    Ok(Plan::new(writes, id.as_id(), |after, id| {
        let secret = after.get::<Secret>(&SecretId::new(id.clone()))?;
        Some(v1::CreateSecretResponse {
            secret: Some(shown(secret)),
        })
    }))
}

/// Answers with one secret, without its data.
///
/// # Errors
/// `InvalidArgument` without an id, `NotFound`.
pub fn get_secret(
    view: &Root,
    request: v1::GetSecretRequest,
) -> Result<v1::GetSecretResponse, Refusal> {
    let id: SecretId = payload::id(KIND, &request.secret_id)?;
    let secret = found(view, &id)?;
    Ok(v1::GetSecretResponse {
        secret: Some(shown(secret)),
    })
}

/// Replaces the labels of a secret.
///
/// # Errors
/// `InvalidArgument` when anything else would change, `NotFound`, `Unknown` for a stale version.
pub fn update_secret(
    root: &Root,
    request: v1::UpdateSecretRequest,
) -> Result<Plan<v1::UpdateSecretResponse>, Refusal> {
    let id: SecretId = request::id(&request.secret_id)?;
    let version = request::version(request.secret_version.as_ref())?;
    // SwarmKit's leader dies here.
    let spec = request
        .spec
        .ok_or_else(|| request::INVALID_ARGUMENT.plain())?;
    payload::check_envelope(KIND, spec.encoded_len(), spec.data.len())?;
    let stored = found(root, &id)?;
    refuse_changes(&stored.spec, &spec)?;
    if stored.meta.version != version {
        return Err(OUT_OF_SEQUENCE.plain());
    }
    let mut secret = (**stored).clone();
    let labels = spec.annotations.unwrap_or_default().labels;
    let own = Arc::make_mut(&mut secret.spec);
    own.annotations.get_or_insert_default().labels = labels;
    let writes = WriteSet(vec![Write::update(secret)]);
    Ok(Plan::new(writes, id.as_id(), |after, id| {
        let secret = after.get::<Secret>(&SecretId::new(id.clone()))?;
        Some(v1::UpdateSecretResponse {
            secret: Some(shown(secret)),
        })
    }))
}

/// Answers with the secrets that pass the filters, without their data. Those that the system made
/// for itself are left out.
///
/// # Errors
/// None at present.
pub fn list_secrets(
    view: &Root,
    request: v1::ListSecretsRequest,
) -> Result<v1::ListSecretsResponse, Refusal> {
    let filters = request.filters.unwrap_or_default();
    let filter = Filter::new(
        &filters.names,
        &filters.name_prefixes,
        &filters.id_prefixes,
        &filters.labels,
    );
    let secrets = view.find::<Secret>(&By::All)?;
    let admitted = secrets.iter().filter(|secret| {
        let annotations = secret.spec.annotations.as_ref();
        !secret.internal && filter.admits(&secret.id.to_string(), annotations)
    });
    Ok(v1::ListSecretsResponse {
        secrets: admitted.map(|secret| shown(secret)).collect(),
    })
}

/// Deletes a secret.
///
/// # Errors
/// `InvalidArgument` without an id or when services use the secret, `NotFound`.
pub fn remove_secret(
    root: &Root,
    request: v1::RemoveSecretRequest,
) -> Result<Plan<v1::RemoveSecretResponse>, Refusal> {
    let id: SecretId = payload::id(KIND, &request.secret_id)?;
    let secret = root.get::<Secret>(&id);
    let secret = secret.ok_or_else(|| payload::not_found(KIND, &id))?;
    let name = validate::name(secret.spec.annotations.as_ref());
    payload::refuse_in_use(root, KIND, name, &By::ReferencedSecret(id.clone()))?;
    let writes = WriteSet(vec![Write::delete(&**secret)]);
    Ok(Plan::new(writes, id.as_id(), |_, _| {
        Some(v1::RemoveSecretResponse {})
    }))
}

fn found<'a>(view: &'a Root, id: &SecretId) -> Result<&'a Arc<Secret>, Refusal> {
    view.get::<Secret>(id)
        .ok_or_else(|| request::not_found(KIND, id))
}

/// What an answer shows: everything but the data.
fn shown(secret: &Secret) -> v1::Secret {
    let mut wire = convert::secret_to_wire(secret);
    if let Some(spec) = &mut wire.spec {
        spec.data.clear();
    }
    wire
}

fn check_spec(spec: &v1::SecretSpec, has_driver: &dyn Fn(&str) -> bool) -> Result<(), Refusal> {
    payload::check_name(spec.annotations.as_ref())?;
    if let Some(driver) = &spec.driver {
        if driver.name.is_empty() {
            return Err(SECRET_DRIVER_UNNAMED.plain());
        }
        if !has_driver(&driver.name) {
            return Err(SECRET_DRIVER_UNKNOWN.refuse(&[&driver.name]));
        }
        // SwarmKit stores it and never looks at it again.
        if !spec.data.is_empty() {
            return Err(SECRET_DRIVER_WITH_DATA.refuse(&[&driver.name]));
        }
    } else {
        payload::check_size(KIND, spec.data.len(), SECRET_BYTES_LIMIT)?;
    }
    payload::check_templating(KIND, spec.templating.as_ref())?;
    payload::check_envelope(KIND, spec.encoded_len(), spec.data.len())
}

/// Data, driver and templating may be left out, as answers leave the data out.
fn refuse_changes(stored: &v1::SecretSpec, given: &v1::SecretSpec) -> Result<(), Refusal> {
    let name = |spec: &v1::SecretSpec| validate::name(spec.annotations.as_ref()).to_owned();
    if name(stored) != name(given) {
        return Err(payload::changed(KIND, "name"));
    }
    if !given.data.is_empty() && !payload::is_same_data(&stored.data, &given.data) {
        return Err(payload::changed(KIND, "data"));
    }
    if given.driver.is_some() && given.driver != stored.driver {
        return Err(payload::changed(KIND, "driver"));
    }
    if given.templating.is_some() && given.templating != stored.templating {
        return Err(payload::changed(KIND, "templating driver"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
