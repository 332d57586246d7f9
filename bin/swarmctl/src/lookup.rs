//! From an argument to an object: by id, then by name, then by a beginning that only one id has.

use swarm_api::v1;
use swarm_types::TaskState;

use crate::connect::Manager;
use crate::failure::{Exit, Failure};

/// Candidates that an ambiguous argument lists.
const CANDIDATES_SHOWN_MAX: usize = 10;

/// An object that commands take as an argument.
pub(crate) trait Named: Sized {
    /// The noun.
    const NOUN: &'static str;

    fn id(&self) -> &str;
    fn name(&self) -> String;
    async fn get(manager: &Manager, id: &str) -> Result<Option<Self>, Failure>;
    async fn named(manager: &Manager, name: &str) -> Result<Vec<Self>, Failure>;
    async fn with_prefix(manager: &Manager, prefix: &str) -> Result<Vec<Self>, Failure>;
}

/// Finds the object that an argument names.
///
/// # Errors
/// Exit code 3 when there is none, or several; those are listed.
pub(crate) async fn find<T: Named>(manager: &Manager, argument: &str) -> Result<T, Failure> {
    match T::get(manager, argument).await {
        Ok(Some(object)) => return Ok(object),
        Ok(None) => {}
        Err(failure) if failure.exit() == Exit::NotFound => {}
        Err(failure) => return Err(failure),
    }
    if let Some(object) = only(argument, T::named(manager, argument).await?)? {
        return Ok(object);
    }
    match only(argument, T::with_prefix(manager, argument).await?)? {
        Some(object) => Ok(object),
        None => Err(Failure::new(
            Exit::NotFound,
            format!("{} {argument:?} not found", T::NOUN),
        )
        .hint(format!("`swarmctl {} ls` lists them", T::NOUN))),
    }
}

fn only<T: Named>(argument: &str, mut found: Vec<T>) -> Result<Option<T>, Failure> {
    if found.len() <= 1 {
        return Ok(found.pop());
    }
    found.sort_by(|a, b| a.id().cmp(b.id()));
    let mut candidates: Vec<String> = found
        .iter()
        .take(CANDIDATES_SHOWN_MAX)
        .map(|object| format!("{} ({})", object.id(), object.name()))
        .collect();
    if found.len() > CANDIDATES_SHOWN_MAX {
        candidates.push(format!("{} more", found.len() - CANDIDATES_SHOWN_MAX));
    }
    Err(Failure::new(
        Exit::NotFound,
        format!(
            "{} {argument:?} is ambiguous: it fits {}",
            T::NOUN,
            candidates.join(", ")
        ),
    )
    .hint("use the whole id"))
}

/// The methods of [`Named`] that are the same for all kinds.
macro_rules! named {
    ($get:ident($request:ident { $id:ident $(, $other:ident: $value:expr)? }),
     $list:ident($list_request:ident), $one:ident,
     $many:ident, $filters:ident) => {
        fn id(&self) -> &str {
            &self.id
        }

        async fn get(manager: &Manager, id: &str) -> Result<Option<Self>, Failure> {
            let request = v1::$request {
                $id: id.to_owned(),
                $($other: $value,)?
            };
            let answer = manager.call(manager.control().$get(request)).await?;
            Ok(answer.$one)
        }

        async fn with_prefix(manager: &Manager, prefix: &str) -> Result<Vec<Self>, Failure> {
            let request = v1::$list_request {
                filters: Some(v1::$filters::Filters {
                    id_prefixes: vec![prefix.to_owned()],
                    ..Default::default()
                }),
            };
            let answer = manager.call(manager.control().$list(request)).await?;
            Ok(answer.$many)
        }
    };
}

/// [`Named::named`] by the filter that every list has.
macro_rules! by_name {
    ($list:ident, $list_request:ident, $filters:ident, $many:ident) => {
        async fn named(manager: &Manager, name: &str) -> Result<Vec<Self>, Failure> {
            let request = v1::$list_request {
                filters: Some(v1::$filters::Filters {
                    names: vec![name.to_owned()],
                    ..Default::default()
                }),
            };
            let answer = manager.call(manager.control().$list(request)).await?;
            Ok(answer.$many)
        }
    };
}

impl Named for v1::Cluster {
    const NOUN: &'static str = "cluster";

    named!(
        get_cluster(GetClusterRequest { cluster_id }),
        list_clusters(ListClustersRequest),
        cluster,
        clusters,
        list_clusters_request
    );
    by_name!(
        list_clusters,
        ListClustersRequest,
        list_clusters_request,
        clusters
    );

    fn name(&self) -> String {
        annotated(
            self.spec
                .as_ref()
                .and_then(|spec| spec.annotations.as_ref()),
        )
    }
}

impl Named for v1::Node {
    const NOUN: &'static str = "node";

    named!(
        get_node(GetNodeRequest { node_id }),
        list_nodes(ListNodesRequest),
        node,
        nodes,
        list_nodes_request
    );
    by_name!(list_nodes, ListNodesRequest, list_nodes_request, nodes);

    fn name(&self) -> String {
        self.description
            .as_ref()
            .map_or_else(String::new, |description| description.hostname.clone())
    }
}

impl Named for v1::Service {
    const NOUN: &'static str = "service";

    named!(
        get_service(GetServiceRequest {
            service_id,
            insert_defaults: false
        }),
        list_services(ListServicesRequest),
        service,
        services,
        list_services_request
    );
    by_name!(
        list_services,
        ListServicesRequest,
        list_services_request,
        services
    );

    fn name(&self) -> String {
        annotated(
            self.spec
                .as_ref()
                .and_then(|spec| spec.annotations.as_ref()),
        )
    }
}

impl Named for v1::Secret {
    const NOUN: &'static str = "secret";

    named!(
        get_secret(GetSecretRequest { secret_id }),
        list_secrets(ListSecretsRequest),
        secret,
        secrets,
        list_secrets_request
    );
    by_name!(
        list_secrets,
        ListSecretsRequest,
        list_secrets_request,
        secrets
    );

    fn name(&self) -> String {
        annotated(
            self.spec
                .as_ref()
                .and_then(|spec| spec.annotations.as_ref()),
        )
    }
}

impl Named for v1::Config {
    const NOUN: &'static str = "config";

    named!(
        get_config(GetConfigRequest { config_id }),
        list_configs(ListConfigsRequest),
        config,
        configs,
        list_configs_request
    );
    by_name!(
        list_configs,
        ListConfigsRequest,
        list_configs_request,
        configs
    );

    fn name(&self) -> String {
        annotated(
            self.spec
                .as_ref()
                .and_then(|spec| spec.annotations.as_ref()),
        )
    }
}

impl Named for v1::Task {
    const NOUN: &'static str = "task";

    named!(
        get_task(GetTaskRequest { task_id }),
        list_tasks(ListTasksRequest),
        task,
        tasks,
        list_tasks_request
    );

    fn name(&self) -> String {
        replica_name(self)
    }

    /// The whole name of a task, or `service.slot` for the task that the slot has now.
    async fn named(manager: &Manager, name: &str) -> Result<Vec<Self>, Failure> {
        let request = v1::ListTasksRequest {
            filters: Some(v1::list_tasks_request::Filters {
                names: vec![name.to_owned()],
                ..Default::default()
            }),
        };
        let answer = manager.call(manager.control().list_tasks(request)).await?;
        if !answer.tasks.is_empty() {
            return Ok(answer.tasks);
        }
        let Some((service, place)) = name.rsplit_once('.') else {
            return Ok(Vec::new());
        };
        let Some(service) = v1::Service::named(manager, service).await?.pop() else {
            return Ok(Vec::new());
        };
        let tasks = of_service(manager, &service.id).await?;
        let in_place = tasks.into_iter().filter(|task| place_of(task) == place);
        Ok(current(in_place).into_iter().collect())
    }
}

/// All tasks of a service.
///
/// # Errors
/// Those of the call.
pub(crate) async fn of_service(manager: &Manager, id: &str) -> Result<Vec<v1::Task>, Failure> {
    let request = v1::ListTasksRequest {
        filters: Some(v1::list_tasks_request::Filters {
            service_ids: vec![id.to_owned()],
            ..Default::default()
        }),
    };
    let answer = manager.call(manager.control().list_tasks(request)).await?;
    Ok(answer.tasks)
}

/// The task that stands for a replica: the one that is wanted, else the newest.
fn current(tasks: impl Iterator<Item = v1::Task>) -> Option<v1::Task> {
    tasks.max_by_key(|task| {
        let created = task.meta.as_ref().and_then(|meta| meta.created_at);
        let created = created.map(|at| (at.seconds, at.nanos));
        (is_live(task), created, task.id.clone())
    })
}

/// Whether the task is wanted: its desired state is not past RUNNING.
pub(crate) fn is_live(task: &v1::Task) -> bool {
    task.desired_state <= i32::from(TaskState::Running as u16)
}

/// `service.slot`, or `service.node` for global services.
pub(crate) fn replica_name(task: &v1::Task) -> String {
    let service = annotated(task.service_annotations.as_ref());
    format!("{service}.{}", place_of(task))
}

/// The slot number, or the node of a task without one.
pub(crate) fn place_of(task: &v1::Task) -> String {
    match task.slot {
        0 => task.node_id.clone(),
        slot => slot.to_string(),
    }
}

fn annotated(annotations: Option<&v1::Annotations>) -> String {
    annotations.map_or_else(String::new, |annotations| annotations.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_api::prost_types;

    fn task(id: &str, slot: u64, desired: TaskState, created: i64) -> v1::Task {
        v1::Task {
            id: id.to_owned(),
            slot,
            node_id: "n1".to_owned(),
            desired_state: i32::from(desired as u16),
            meta: Some(v1::Meta {
                created_at: Some(prost_types::Timestamp {
                    seconds: created,
                    nanos: 0,
                }),
                ..Default::default()
            }),
            service_annotations: Some(v1::Annotations {
                name: "web".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn several_candidates_are_listed_by_id() {
        let tasks = vec![
            task("b", 1, TaskState::Running, 0),
            task("a", 0, TaskState::Running, 0),
        ];
        let failure = only("web", tasks).unwrap_err();
        assert_eq!(failure.exit(), Exit::NotFound);
        assert_eq!(
            failure.message(),
            "task \"web\" is ambiguous: it fits a (web.n1), b (web.1)"
        );
        let many = (10..21).map(|n| task(&n.to_string(), 1, TaskState::Running, 0));
        let failure = only("1", many.collect()).unwrap_err();
        assert!(failure.message().ends_with("19 (web.1), 1 more"));
    }

    #[test]
    fn a_replica_is_its_live_task_or_else_the_newest() {
        let old = || task("old", 1, TaskState::Shutdown, 1);
        let newer = || task("newer", 1, TaskState::Shutdown, 2);
        let live = || task("live", 1, TaskState::Running, 0);
        let id = |tasks: Vec<v1::Task>| current(tasks.into_iter()).unwrap().id;
        assert_eq!(id(vec![old(), newer()]), "newer");
        assert_eq!(id(vec![live(), old(), newer()]), "live");
    }
}
