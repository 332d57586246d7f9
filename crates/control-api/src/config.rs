//! Requests about configs (spec 21.9): like secrets, but answers hold the data, and there are no
//! drivers.

use std::sync::Arc;

use prost::Message as _;
use swarm_api::v1;
use swarm_reconcile::Ctx;
use swarm_store::{By, Root, Write, WriteSet};
use swarm_types::{Config, ConfigId, Kind, convert};

use crate::payload::{self, Filter};
use crate::plan::Plan;
use crate::refusal::{OUT_OF_SEQUENCE, Refusal};
use crate::request;
use crate::validate;

/// The first number of bytes that is too many for a config: 1000 KiB.
pub const CONFIG_BYTES_LIMIT: usize = 1000 * 1024;

const KIND: Kind = Kind::Config;

/// Stores a new config.
///
/// # Errors
/// `InvalidArgument` for a malformed spec, `AlreadyExists` when the name is taken.
pub fn create_config(
    root: &Root,
    ctx: &mut Ctx<'_>,
    request: v1::CreateConfigRequest,
) -> Result<Plan<v1::CreateConfigResponse>, Refusal> {
    let spec = request
        .spec
        .ok_or_else(|| request::INVALID_ARGUMENT.plain())?;
    check_spec(&spec)?;
    let name = validate::name(spec.annotations.as_ref());
    let holders = root.find::<Config>(&By::Name(name.to_owned()))?;
    payload::refuse_taken_name(KIND, name, !holders.is_empty())?;
    let id = ConfigId::new(ctx.ids.next_id());
    let config = Config::new(id.clone(), spec);
    let writes = WriteSet(vec![Write::create(config)]);
    Ok(Plan::new(writes, id.as_id(), |after, id| {
        let config = after.get::<Config>(&ConfigId::new(id.clone()))?;
        Some(v1::CreateConfigResponse {
            config: Some(convert::config_to_wire(config)),
        })
    }))
}

/// Answers with one config.
///
/// # Errors
/// `InvalidArgument` without an id, `NotFound`.
pub fn get_config(
    view: &Root,
    request: v1::GetConfigRequest,
) -> Result<v1::GetConfigResponse, Refusal> {
    let id: ConfigId = payload::id(KIND, &request.config_id)?;
    let config = found(view, &id)?;
    Ok(v1::GetConfigResponse {
        config: Some(convert::config_to_wire(config)),
    })
}

/// Replaces the labels of a config.
///
/// # Errors
/// `InvalidArgument` when anything else would change, `NotFound`, `Unknown` for a stale version.
pub fn update_config(
    root: &Root,
    request: v1::UpdateConfigRequest,
) -> Result<Plan<v1::UpdateConfigResponse>, Refusal> {
    let id: ConfigId = request::id(&request.config_id)?;
    let version = request::version(request.config_version.as_ref())?;
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
    let mut config = (**stored).clone();
    let labels = spec.annotations.unwrap_or_default().labels;
    let own = Arc::make_mut(&mut config.spec);
    own.annotations.get_or_insert_default().labels = labels;
    let writes = WriteSet(vec![Write::update(config)]);
    Ok(Plan::new(writes, id.as_id(), |after, id| {
        let config = after.get::<Config>(&ConfigId::new(id.clone()))?;
        Some(v1::UpdateConfigResponse {
            config: Some(convert::config_to_wire(config)),
        })
    }))
}

/// Answers with the configs that pass the filters.
///
/// # Errors
/// None at present.
pub fn list_configs(
    view: &Root,
    request: v1::ListConfigsRequest,
) -> Result<v1::ListConfigsResponse, Refusal> {
    let filters = request.filters.unwrap_or_default();
    let filter = Filter::new(
        &filters.names,
        &filters.name_prefixes,
        &filters.id_prefixes,
        &filters.labels,
    );
    let configs = view.find::<Config>(&By::All)?;
    let admitted = configs.iter().filter(|config| {
        let annotations = config.spec.annotations.as_ref();
        filter.admits(&config.id.to_string(), annotations)
    });
    Ok(v1::ListConfigsResponse {
        configs: admitted
            .map(|config| convert::config_to_wire(config))
            .collect(),
    })
}

/// Deletes a config.
///
/// # Errors
/// `InvalidArgument` without an id or when services use the config, `NotFound`.
pub fn remove_config(
    root: &Root,
    request: v1::RemoveConfigRequest,
) -> Result<Plan<v1::RemoveConfigResponse>, Refusal> {
    let id: ConfigId = payload::id(KIND, &request.config_id)?;
    let config = root.get::<Config>(&id);
    let config = config.ok_or_else(|| payload::not_found(KIND, &id))?;
    let name = validate::name(config.spec.annotations.as_ref());
    payload::refuse_in_use(root, KIND, name, &By::ReferencedConfig(id.clone()))?;
    let writes = WriteSet(vec![Write::delete(&**config)]);
    Ok(Plan::new(writes, id.as_id(), |_, _| {
        Some(v1::RemoveConfigResponse {})
    }))
}

fn found<'a>(view: &'a Root, id: &ConfigId) -> Result<&'a Arc<Config>, Refusal> {
    view.get::<Config>(id)
        .ok_or_else(|| request::not_found(KIND, id))
}

fn check_spec(spec: &v1::ConfigSpec) -> Result<(), Refusal> {
    payload::check_name(spec.annotations.as_ref())?;
    payload::check_size(KIND, spec.data.len(), CONFIG_BYTES_LIMIT)?;
    payload::check_templating(KIND, spec.templating.as_ref())?;
    payload::check_envelope(KIND, spec.encoded_len(), spec.data.len())
}

/// Data and templating may be left out.
fn refuse_changes(stored: &v1::ConfigSpec, given: &v1::ConfigSpec) -> Result<(), Refusal> {
    let name = |spec: &v1::ConfigSpec| validate::name(spec.annotations.as_ref()).to_owned();
    if name(stored) != name(given) {
        return Err(payload::changed(KIND, "name"));
    }
    if !given.data.is_empty() && !payload::is_same_data(&stored.data, &given.data) {
        return Err(payload::changed(KIND, "data"));
    }
    if given.templating.is_some() && given.templating != stored.templating {
        return Err(payload::changed(KIND, "templating driver"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
