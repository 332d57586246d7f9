//! Requests about services (spec 21.6).

use std::sync::Arc;

use swarm_api::v1;
use swarm_reconcile::Ctx;
use swarm_store::{By, Root, Write, WriteSet};
use swarm_types::{
    Kind, Service, ServiceId, ServiceSpec, Version, convert, defaults, naming, spec,
};
use v1::update_service_request::Rollback;

use crate::filter::{Common, texts};
use crate::plan::Plan;
use crate::refusal::{OUT_OF_SEQUENCE, Refusal, SERVICE_NAME_CONFLICT, rules};
use crate::request;
use crate::validate;

mod ports;
mod rollout;
mod status;

pub use status::list_service_statuses;

rules! {
    MODE_CHANGED: Unimplemented, "service mode change is not allowed";
    RENAMED: Unimplemented, "renaming services is not supported";
    ROLLBACK_UNIMPLEMENTED: Unimplemented,
        "UpdateService: rollback to the previous spec is not implemented yet; update service {} to \
         the wanted spec instead";
}

/// A request whose spec was found right as far as it can be told without the cluster. That takes
/// long for some specs (templates are expanded), so it is done before a write is begun.
#[derive(Clone, Debug)]
pub struct Checked<R>(R);

/// Checks what can be checked without the cluster.
///
/// # Errors
/// `InvalidArgument` for a malformed spec.
pub fn check_new_service(
    request: v1::CreateServiceRequest,
) -> Result<Checked<v1::CreateServiceRequest>, Refusal> {
    check_spec(request.spec.as_ref())?;
    Ok(Checked(request))
}

/// Checks what can be checked without the cluster.
///
/// # Errors
/// `InvalidArgument` for a malformed id or spec.
pub fn check_changed_service(
    request: v1::UpdateServiceRequest,
) -> Result<Checked<v1::UpdateServiceRequest>, Refusal> {
    request::id::<ServiceId>(&request.service_id)?;
    request::version(request.service_version.as_ref())?;
    check_spec(request.spec.as_ref())?;
    Ok(Checked(request))
}

fn check_spec(spec: Option<&v1::ServiceSpec>) -> Result<(), Refusal> {
    validate::service_spec(request::spec_ref(Kind::Service, spec)?)
}

/// Stores a new service.
///
/// # Errors
/// `InvalidArgument` for a malformed spec or a port in use, `Unimplemented` for what a later
/// version will do, `FailedPrecondition` without an ingress network that it needs,
/// `AlreadyExists` when the name is taken.
pub fn create_service(
    root: &Root,
    ctx: &mut Ctx<'_>,
    request: Checked<v1::CreateServiceRequest>,
) -> Result<Plan<v1::CreateServiceResponse>, Refusal> {
    let spec = request::spec(Kind::Service, request.0.spec)?;
    validate::networks(root, &spec)?;
    validate::not_implemented_yet(&spec)?;
    ports::refuse_conflicts(root, &spec, None)?;
    ports::require_ingress_network(root, &spec)?;
    validate::references_exist(root, &spec)?;
    refuse_taken_name(root, &spec)?;
    validate::native(root, &spec)?;
    let id = ServiceId::new(ctx.ids.next_id());
    let service = Service::new(id.clone(), ServiceSpec::new(spec));
    let writes = WriteSet(vec![Write::Create(service.into())]);
    Ok(Plan::new(writes, id.as_id(), |after, id| {
        let service = after.service(&ServiceId::new(id.clone()))?;
        Some(v1::CreateServiceResponse {
            service: Some(convert::service_to_wire(service)),
        })
    }))
}

/// Answers with one service; on request with defaults where its spec leaves gaps.
///
/// # Errors
/// `InvalidArgument` without an id, `NotFound`.
pub fn get_service(
    view: &Root,
    request: v1::GetServiceRequest,
) -> Result<v1::GetServiceResponse, Refusal> {
    let id: ServiceId = request::id(&request.service_id)?;
    let mut service = convert::service_to_wire(found(view, &id)?);
    if request.insert_defaults {
        defaults::fill_service_spec(service.spec.get_or_insert_default());
    }
    Ok(v1::GetServiceResponse {
        service: Some(service),
    })
}

/// Replaces the spec of a service, and keeps the one before.
///
/// The spec's version is the version that the request saw, so it does not equal the version of the
/// service after the write (spec 21.6).
///
/// # Errors
/// `InvalidArgument` for a malformed spec or a port in use, `NotFound`, `Unimplemented` for a
/// change of mode or name and for what a later version will do (rolling updates among it),
/// `FailedPrecondition` without an ingress network that it needs, `Unknown` for a stale version.
pub fn update_service(
    root: &Root,
    request: Checked<v1::UpdateServiceRequest>,
) -> Result<Plan<v1::UpdateServiceResponse>, Refusal> {
    let request = request.0;
    let id: ServiceId = request::id(&request.service_id)?;
    let version = request::version(request.service_version.as_ref())?;
    let spec = request::spec(Kind::Service, request.spec)?;
    let rollback = request::known::<Rollback>("rollback", request.rollback)?;
    validate::networks(root, &spec)?;
    let stored = found(root, &id)?;
    validate::not_implemented_yet(&spec)?;
    if spec.endpoint.is_some() && spec.endpoint != stored.spec.endpoint {
        ports::refuse_conflicts(root, &spec, Some(&id))?;
    }
    validate::references_exist(root, &spec)?;
    refuse_other_service(&stored.spec, &spec)?;
    // What is stored can be scaled and repaired, whatever it is.
    if spec.task.as_ref() != Some(stored.spec.task()) || spec.networks != stored.spec.networks {
        validate::native(root, &spec)?;
    }
    if rollback == Rollback::Previous {
        return Err(ROLLBACK_UNIMPLEMENTED.refuse(&[&id]));
    }
    if stored.meta.version != version {
        return Err(OUT_OF_SEQUENCE.plain());
    }
    let service = with_spec(stored, version, spec);
    rollout::refuse_replacements(root, stored, &service)?;
    ports::require_ingress_network(root, &service.spec)?;
    let writes = WriteSet(vec![Write::update(service)]);
    Ok(Plan::new(writes, id.as_id(), |after, id| {
        let service = after.service(&ServiceId::new(id.clone()))?;
        Some(v1::UpdateServiceResponse {
            service: Some(convert::service_to_wire(service)),
        })
    }))
}

/// Deletes a service at once; its tasks follow when the orchestrator sees it.
///
/// # Errors
/// `InvalidArgument` without an id, `NotFound`.
pub fn remove_service(
    root: &Root,
    request: v1::RemoveServiceRequest,
) -> Result<Plan<v1::RemoveServiceResponse>, Refusal> {
    let id: ServiceId = request::id(&request.service_id)?;
    let service = found(root, &id)?;
    let writes = WriteSet(vec![Write::delete(&**service)]);
    Ok(Plan::new(writes, id.as_id(), |_, _| {
        Some(v1::RemoveServiceResponse {})
    }))
}

/// Answers with the services that pass the filters.
///
/// # Errors
/// None at present.
pub fn list_services(
    view: &Root,
    request: v1::ListServicesRequest,
) -> Result<v1::ListServicesResponse, Refusal> {
    let filters = request.filters.unwrap_or_default();
    let common = Common::new(
        &filters.names,
        &filters.name_prefixes,
        &filters.id_prefixes,
        &filters.labels,
    );
    let runtimes = texts(&filters.runtimes);
    // A runtime has no index: such a filter reads all services.
    let services = view.find::<Service>(&common.lookup().unwrap_or(By::All))?;
    let admitted = services.iter().filter(|service| {
        let labels = &service.spec.annotations().labels;
        let runtime_passes = !runtimes.is_set()
            || naming::runtime_name(service.spec.task())
                .is_some_and(|runtime| runtimes.admits(&runtime.as_str()));
        runtime_passes
            && common.admits(
                Some(service.spec.name()),
                &service.id.to_string(),
                Some(labels),
            )
    });
    Ok(v1::ListServicesResponse {
        services: admitted
            .map(|service| convert::service_to_wire(service))
            .collect(),
    })
}

fn found<'a>(view: &'a Root, id: &ServiceId) -> Result<&'a Arc<Service>, Refusal> {
    view.service(id)
        .ok_or_else(|| request::not_found(Kind::Service, id))
}

/// The store would refuse it as well, with the same text: names are compared without case.
fn refuse_taken_name(root: &Root, spec: &v1::ServiceSpec) -> Result<(), Refusal> {
    let name = validate::name(spec.annotations.as_ref());
    if root.find::<Service>(&By::Name(name.to_owned()))?.is_empty() {
        Ok(())
    } else {
        Err(SERVICE_NAME_CONFLICT.refuse(&[&name]))
    }
}

/// Loops do not compare a service with what it was, so what it is cannot change.
fn refuse_other_service(stored: &ServiceSpec, wanted: &v1::ServiceSpec) -> Result<(), Refusal> {
    let kind = |wire: &v1::ServiceSpec| spec::mode(wire).map(|mode| std::mem::discriminant(&mode));
    if kind(stored) != kind(wanted) {
        return Err(MODE_CHANGED.plain());
    }
    if stored.name() != validate::name(wanted.annotations.as_ref()) {
        return Err(RENAMED.plain());
    }
    Ok(())
}

/// The service as the update leaves it: an update that was under way is forgotten.
fn with_spec(stored: &Service, seen: Version, wanted: v1::ServiceSpec) -> Service {
    let mut service = stored.clone();
    service.meta.version = seen;
    service.previous_spec = Some(stored.spec.clone());
    service.previous_spec_version = stored.spec_version;
    service.spec = ServiceSpec::new(wanted);
    service.spec_version = Some(seen);
    service.update_status = None;
    service
}

#[cfg(test)]
pub(crate) fn all_rules() -> Vec<crate::refusal::Rule> {
    [RULES, ports::RULES, rollout::RULES].concat()
}

#[cfg(test)]
mod tests;
