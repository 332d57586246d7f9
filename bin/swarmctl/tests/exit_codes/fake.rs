//! A manager by script: it serves one list of tasks after the other, one for each time that it is
//! asked, and remembers what it was told. Time does not matter to it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use swarm_api::ext::explain_server::{Explain, ExplainServer};
use swarm_api::ext::identity_server::{Identity, IdentityServer};
use swarm_api::v1::ca_server::{Ca, CaServer};
use swarm_api::v1::control_server::{Control, ControlServer};
use swarm_api::v1::logs_server::{Logs, LogsServer};
use swarm_api::{ext, v1};
use swarm_rt::{OnError, Shutdown, Tasks, net};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

/// What the manager says about the tasks of the service, one list after the other; the last one is
/// repeated. `Err` is the answer itself.
pub(crate) type Script = Vec<Result<Vec<v1::Task>, Status>>;

#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
    /// How often tasks were listed.
    polls: watch::Sender<usize>,
    /// Log streams that stay open.
    open: Arc<Mutex<Vec<LineSender>>>,
}

type LineSender = tokio::sync::mpsc::Sender<Result<v1::SubscribeLogsMessage, Status>>;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) services: Vec<v1::Service>,
    pub(crate) nodes: Vec<v1::Node>,
    pub(crate) clusters: Vec<v1::Cluster>,
    pub(crate) secrets: Vec<v1::Secret>,
    pub(crate) configs: Vec<v1::Config>,
    /// Empty when managers are not locked.
    pub(crate) unlock_key: Vec<u8>,
    /// Ids of join tokens with limits.
    pub(crate) tokens: Vec<String>,
    script: Script,
    /// The answer to the next request that creates something.
    pub(crate) refusal: Option<Status>,
    /// The service disappears after so many polls.
    pub(crate) vanishes_after: Option<usize>,
    /// What a subscriber of logs gets, and then the end.
    pub(crate) lines: Vec<v1::LogMessage>,
    /// How log streams end; `None` when they stay open.
    pub(crate) end: Option<Result<(), Status>>,
    /// What subscribers of logs asked for.
    pub(crate) subscriptions: Vec<v1::SubscribeLogsRequest>,
    /// The names of the requests that change something.
    pub(crate) changes: Vec<&'static str>,
}

/// A running fake; it stops when dropped.
pub(crate) struct Running {
    pub(crate) fake: Fake,
    pub(crate) socket: PathBuf,
    _tasks: Tasks,
    _directory: tempfile::TempDir,
}

impl Fake {
    /// Starts a manager with a script.
    pub(crate) async fn start(script: Script) -> Running {
        let fake = Self {
            state: Arc::new(Mutex::new(State {
                script,
                ..State::default()
            })),
            polls: watch::Sender::new(0),
            open: Arc::default(),
        };
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        let tasks = Tasks::new(Shutdown::new());
        let incoming = net::bind_unix(&socket).await.unwrap();
        let router = net::server()
            .add_service(ControlServer::new(fake.clone()))
            .add_service(LogsServer::new(fake.clone()))
            .add_service(CaServer::new(fake.clone()))
            .add_service(IdentityServer::new(fake.clone()))
            .add_service(ExplainServer::new(fake.clone()));
        tasks.spawn("fake", OnError::Log, async move {
            router
                .serve_with_incoming(incoming)
                .await
                .map_err(Into::into)
        });
        Running {
            fake,
            socket,
            _tasks: tasks,
            _directory: directory,
        }
    }

    pub(crate) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap())
    }

    /// Waits until tasks were listed so many times.
    pub(crate) async fn polled(&self, times: usize) {
        let mut polls = self.polls.subscribe();
        polls.wait_for(|polls| *polls >= times).await.unwrap();
    }

    fn create<T>(&self, name: &'static str, answer: T) -> Answer<T> {
        self.with(|state| {
            state.changes.push(name);
            match state.refusal.take() {
                Some(refusal) => Err(refusal),
                None => Ok(Response::new(answer)),
            }
        })
    }

    fn polls(&self) -> usize {
        *self.polls.borrow()
    }
}

impl Running {
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

/// The service that every test has.
pub(crate) fn service(spec: v1::ServiceSpec) -> v1::Service {
    v1::Service {
        id: "service-1".to_owned(),
        meta: Some(v1::Meta {
            version: Some(v1::Version { index: 7 }),
            ..Default::default()
        }),
        spec: Some(spec),
        ..Default::default()
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn matches(id: &str, name: &str, ids: &[String], names: &[String]) -> bool {
    (ids.is_empty() || ids.iter().any(|prefix| id.starts_with(prefix.as_str())))
        && (names.is_empty() || names.iter().any(|wanted| wanted == name))
}

fn name_of(service: &v1::Service) -> String {
    let spec = service.spec.clone().unwrap_or_default();
    spec.annotations.unwrap_or_default().name
}

/// The whole trait: some methods of our own, the others refuse.
macro_rules! control {
    ({ $($own:tt)* } $($name:ident($request:ident) -> $answer:ident;)*) => {
        #[tonic::async_trait]
        impl Control for Fake {
            $($own)*
            $(async fn $name(&self, _: Request<v1::$request>) -> Answer<v1::$answer> {
                Err(Status::unimplemented(concat!(stringify!($name), " is not played")))
            })*
        }
    };
}

control! {
    {
        async fn create_service(
            &self,
            request: Request<v1::CreateServiceRequest>,
        ) -> Answer<v1::CreateServiceResponse> {
            self.with(|state| {
                state.changes.push("create_service");
                if let Some(refusal) = state.refusal.take() {
                    return Err(refusal);
                }
                let service = service(request.into_inner().spec.unwrap_or_default());
                state.services.push(service.clone());
                Ok(Response::new(v1::CreateServiceResponse {
                    service: Some(service),
                }))
            })
        }

        async fn update_service(
            &self,
            request: Request<v1::UpdateServiceRequest>,
        ) -> Answer<v1::UpdateServiceResponse> {
            let request = request.into_inner();
            self.with(|state| {
                state.changes.push("update_service");
                let stored = state.services.iter_mut().find(|it| it.id == request.service_id);
                let Some(stored) = stored else {
                    return Err(Status::not_found("no such service"));
                };
                let seen = stored.meta.as_ref().and_then(|meta| meta.version);
                if seen != request.service_version {
                    return Err(Status::unknown("update out of sequence"));
                }
                stored.spec = request.spec;
                Ok(Response::new(v1::UpdateServiceResponse {
                    service: Some(stored.clone()),
                }))
            })
        }

        async fn remove_service(
            &self,
            request: Request<v1::RemoveServiceRequest>,
        ) -> Answer<v1::RemoveServiceResponse> {
            let request = request.into_inner();
            self.with(|state| {
                state.changes.push("remove_service");
                state.services.retain(|service| service.id != request.service_id);
                Ok(Response::new(v1::RemoveServiceResponse {}))
            })
        }

        async fn get_service(
            &self,
            request: Request<v1::GetServiceRequest>,
        ) -> Answer<v1::GetServiceResponse> {
            let id = request.into_inner().service_id;
            let polls = self.polls();
            self.with(|state| {
                if state.vanishes_after.is_some_and(|after| polls >= after) {
                    state.services.clear();
                }
                let service = state.services.iter().find(|service| service.id == id);
                match service {
                    Some(service) => Ok(Response::new(v1::GetServiceResponse {
                        service: Some(service.clone()),
                    })),
                    None => Err(Status::not_found(format!("service {id} not found"))),
                }
            })
        }

        async fn list_services(
            &self,
            request: Request<v1::ListServicesRequest>,
        ) -> Answer<v1::ListServicesResponse> {
            let filters = request.into_inner().filters.unwrap_or_default();
            let services = self.with(|state| {
                let services = state.services.iter().filter(|service| {
                    matches(&service.id, &name_of(service), &filters.id_prefixes, &filters.names)
                });
                services.cloned().collect()
            });
            Ok(Response::new(v1::ListServicesResponse { services }))
        }

        async fn list_tasks(
            &self,
            _: Request<v1::ListTasksRequest>,
        ) -> Answer<v1::ListTasksResponse> {
            let polls = self.polls();
            self.polls.send_replace(polls + 1);
            self.with(|state| {
                let last = state.script.len().saturating_sub(1);
                let tasks = state.script.get(polls.min(last)).cloned();
                tasks.unwrap_or(Ok(Vec::new()))
            })
            .map(|tasks| Response::new(v1::ListTasksResponse { tasks }))
        }

        async fn get_task(
            &self,
            request: Request<v1::GetTaskRequest>,
        ) -> Answer<v1::GetTaskResponse> {
            let id = request.into_inner().task_id;
            let tasks = self.with(|state| state.script.first().cloned());
            let task = tasks.unwrap_or(Ok(Vec::new()))?;
            match task.into_iter().find(|task| task.id == id) {
                Some(task) => Ok(Response::new(v1::GetTaskResponse { task: Some(task) })),
                None => Err(Status::not_found(format!("task {id} not found"))),
            }
        }

        async fn list_nodes(
            &self,
            _: Request<v1::ListNodesRequest>,
        ) -> Answer<v1::ListNodesResponse> {
            let nodes = self.with(|state| state.nodes.clone());
            Ok(Response::new(v1::ListNodesResponse { nodes }))
        }

        async fn get_cluster(
            &self,
            request: Request<v1::GetClusterRequest>,
        ) -> Answer<v1::GetClusterResponse> {
            let id = request.into_inner().cluster_id;
            let found = self.with(|state| state.clusters.iter().find(|it| it.id == id).cloned());
            let cluster = found.ok_or_else(|| Status::not_found("cluster not found"))?;
            Ok(Response::new(v1::GetClusterResponse {
                cluster: Some(cluster),
            }))
        }

        async fn list_clusters(
            &self,
            request: Request<v1::ListClustersRequest>,
        ) -> Answer<v1::ListClustersResponse> {
            let filters = request.into_inner().filters.unwrap_or_default();
            let clusters = self.with(|state| state.clusters.clone());
            if clusters.is_empty() {
                return Err(Status::unimplemented("list_clusters is not played"));
            }
            let fits = |cluster: &v1::Cluster| {
                let spec = cluster.spec.clone().unwrap_or_default();
                let name = spec.annotations.unwrap_or_default().name;
                matches(&cluster.id, &name, &filters.id_prefixes, &filters.names)
            };
            let clusters = clusters.into_iter().filter(fits).collect();
            Ok(Response::new(v1::ListClustersResponse { clusters }))
        }

        async fn update_cluster(
            &self,
            _: Request<v1::UpdateClusterRequest>,
        ) -> Answer<v1::UpdateClusterResponse> {
            self.with(|state| {
                state.changes.push("update_cluster");
                match state.refusal.take() {
                    Some(refusal) => Err(refusal),
                    None => Ok(Response::new(v1::UpdateClusterResponse::default())),
                }
            })
        }

        async fn create_secret(
            &self,
            _: Request<v1::CreateSecretRequest>,
        ) -> Answer<v1::CreateSecretResponse> {
            self.create("create_secret", v1::CreateSecretResponse {
                secret: Some(v1::Secret { id: "s1".to_owned(), ..Default::default() }),
            })
        }

        async fn list_secrets(
            &self,
            _: Request<v1::ListSecretsRequest>,
        ) -> Answer<v1::ListSecretsResponse> {
            let secrets = self.with(|state| state.secrets.clone());
            Ok(Response::new(v1::ListSecretsResponse { secrets }))
        }

        async fn get_secret(
            &self,
            request: Request<v1::GetSecretRequest>,
        ) -> Answer<v1::GetSecretResponse> {
            Err(Status::not_found(format!("secret {} not found", request.into_inner().secret_id)))
        }

        async fn create_config(
            &self,
            _: Request<v1::CreateConfigRequest>,
        ) -> Answer<v1::CreateConfigResponse> {
            self.create("create_config", v1::CreateConfigResponse {
                config: Some(v1::Config { id: "c1".to_owned(), ..Default::default() }),
            })
        }

        async fn list_configs(
            &self,
            _: Request<v1::ListConfigsRequest>,
        ) -> Answer<v1::ListConfigsResponse> {
            let configs = self.with(|state| state.configs.clone());
            Ok(Response::new(v1::ListConfigsResponse { configs }))
        }

        async fn get_config(
            &self,
            request: Request<v1::GetConfigRequest>,
        ) -> Answer<v1::GetConfigResponse> {
            Err(Status::not_found(format!("config {} not found", request.into_inner().config_id)))
        }
    }
    get_node(GetNodeRequest) -> GetNodeResponse;
    update_node(UpdateNodeRequest) -> UpdateNodeResponse;
    remove_node(RemoveNodeRequest) -> RemoveNodeResponse;
    remove_task(RemoveTaskRequest) -> RemoveTaskResponse;
    list_service_statuses(ListServiceStatusesRequest) -> ListServiceStatusesResponse;
    get_network(GetNetworkRequest) -> GetNetworkResponse;
    list_networks(ListNetworksRequest) -> ListNetworksResponse;
    create_network(CreateNetworkRequest) -> CreateNetworkResponse;
    remove_network(RemoveNetworkRequest) -> RemoveNetworkResponse;
    update_secret(UpdateSecretRequest) -> UpdateSecretResponse;
    remove_secret(RemoveSecretRequest) -> RemoveSecretResponse;
    update_config(UpdateConfigRequest) -> UpdateConfigResponse;
    remove_config(RemoveConfigRequest) -> RemoveConfigResponse;
    get_extension(GetExtensionRequest) -> GetExtensionResponse;
    create_extension(CreateExtensionRequest) -> CreateExtensionResponse;
    remove_extension(RemoveExtensionRequest) -> RemoveExtensionResponse;
    get_resource(GetResourceRequest) -> GetResourceResponse;
    update_resource(UpdateResourceRequest) -> UpdateResourceResponse;
    list_resources(ListResourcesRequest) -> ListResourcesResponse;
    create_resource(CreateResourceRequest) -> CreateResourceResponse;
    remove_resource(RemoveResourceRequest) -> RemoveResourceResponse;
    create_volume(CreateVolumeRequest) -> CreateVolumeResponse;
    get_volume(GetVolumeRequest) -> GetVolumeResponse;
    update_volume(UpdateVolumeRequest) -> UpdateVolumeResponse;
    list_volumes(ListVolumesRequest) -> ListVolumesResponse;
    remove_volume(RemoveVolumeRequest) -> RemoveVolumeResponse;
}

#[tonic::async_trait]
impl Logs for Fake {
    async fn subscribe_logs(
        &self,
        request: Request<v1::SubscribeLogsRequest>,
    ) -> Answer<tonic::codegen::BoxStream<v1::SubscribeLogsMessage>> {
        let (sender, items) = tokio::sync::mpsc::channel(4);
        self.with(|state| {
            state.subscriptions.push(request.into_inner());
            let messages = state.lines.clone();
            let lines = v1::SubscribeLogsMessage { messages };
            sender.try_send(Ok(lines)).unwrap();
            match state.end.clone() {
                Some(Ok(())) => {}
                Some(Err(status)) => sender.try_send(Err(status)).unwrap(),
                None => self.open.lock().unwrap().push(sender),
            }
        });
        let stream = tokio_stream::wrappers::ReceiverStream::new(items);
        Ok(Response::new(Box::pin(stream)))
    }
}

#[tonic::async_trait]
impl Ca for Fake {
    async fn get_root_ca_certificate(
        &self,
        _: Request<v1::GetRootCaCertificateRequest>,
    ) -> Answer<v1::GetRootCaCertificateResponse> {
        Err(Status::unimplemented(
            "get_root_ca_certificate is not played",
        ))
    }

    async fn get_unlock_key(
        &self,
        _: Request<v1::GetUnlockKeyRequest>,
    ) -> Answer<v1::GetUnlockKeyResponse> {
        let unlock_key = self.with(|state| state.unlock_key.clone()).into();
        Ok(Response::new(v1::GetUnlockKeyResponse {
            unlock_key,
            version: None,
        }))
    }
}

#[tonic::async_trait]
impl Identity for Fake {
    async fn create_join_token(
        &self,
        request: Request<ext::CreateJoinTokenRequest>,
    ) -> Answer<ext::CreateJoinTokenResponse> {
        let request = request.into_inner();
        self.create(
            "create_join_token",
            ext::CreateJoinTokenResponse {
                token: "SWMTKN-1-made".to_owned(),
                info: Some(ext::JoinToken {
                    id: "t1".to_owned(),
                    role: request.role,
                    uses_allowed: request.uses,
                    ..Default::default()
                }),
            },
        )
    }

    async fn list_join_tokens(
        &self,
        _: Request<ext::ListJoinTokensRequest>,
    ) -> Answer<ext::ListJoinTokensResponse> {
        let ids = self.with(|state| state.tokens.clone());
        let token = |id| ext::JoinToken {
            id,
            ..Default::default()
        };
        let tokens = ids.into_iter().map(token).collect();
        Ok(Response::new(ext::ListJoinTokensResponse { tokens }))
    }

    async fn remove_join_token(
        &self,
        request: Request<ext::RemoveJoinTokenRequest>,
    ) -> Answer<ext::RemoveJoinTokenResponse> {
        let id = request.into_inner().id;
        self.with(|state| {
            if !state.tokens.contains(&id) {
                return Err(Status::not_found(format!("join token {id} not found")));
            }
            state.changes.push("remove_join_token");
            Ok(Response::new(ext::RemoveJoinTokenResponse { id }))
        })
    }

    async fn check_join_token(
        &self,
        _: Request<ext::CheckJoinTokenRequest>,
    ) -> Answer<ext::CheckJoinTokenResponse> {
        Err(Status::unimplemented("check_join_token is not played"))
    }

    async fn ca_status(&self, _: Request<ext::CaStatusRequest>) -> Answer<ext::CaStatusResponse> {
        Ok(Response::new(ext::CaStatusResponse::default()))
    }
}

#[tonic::async_trait]
impl Explain for Fake {
    async fn why(&self, request: Request<ext::WhyRequest>) -> Answer<ext::WhyResponse> {
        let request = request.into_inner();
        if request.object != "service-1" {
            return Err(Status::not_found(format!(
                "nothing is called {:?}",
                request.object
            )));
        }
        Ok(Response::new(ext::WhyResponse {
            object_kind: "service".to_owned(),
            object_id: request.object,
            headline: "Service web waits.".to_owned(),
            reasons: vec![ext::Reason {
                code: "no_suitable_node".to_owned(),
                text: "the explanation of the manager".to_owned(),
                ..Default::default()
            }],
            ..Default::default()
        }))
    }
}
