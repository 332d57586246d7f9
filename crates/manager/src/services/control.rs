//! `Control`: each request goes to its function in `swarm-control-api`, reads on a view, writes in
//! a transaction.

use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_control_api as api;
use swarm_control_api::{Plan, Refusal};
use swarm_reconcile::Ctx;
use swarm_rt::OsIds;
use swarm_store::Root;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::{Services, refusal, write_error};
use crate::root_change;

/// How long a write may take to become durable before the client is told that its outcome is open.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(30);

/// Specs that are checked at the same time at most: a check keeps a processor busy.
const CHECKS_MAX: usize = 2;

static CHECKS: Semaphore = Semaphore::const_new(CHECKS_MAX);

pub(crate) struct Control(pub(crate) Arc<Services>);

type Answer<T> = Result<Response<T>, Status>;

impl Control {
    async fn read<Q, A>(
        &self,
        request: Request<Q>,
        read: impl FnOnce(&Root, Q) -> Result<A, Refusal>,
    ) -> Answer<A> {
        self.0.gate.pass().await?;
        let view = self.0.store.view();
        read(&view, request.into_inner())
            .map(Response::new)
            .map_err(|error| refusal(&error))
    }

    /// Checks what may take long and needs no cluster, where neither readers nor the writer wait
    /// for it.
    async fn checked<Q: Send + 'static, C: Send + 'static>(
        &self,
        request: Request<Q>,
        check: fn(Q) -> Result<C, Refusal>,
    ) -> Result<Request<C>, Status> {
        self.0.gate.pass().await?;
        let gone = || Status::aborted("the manager is stopping");
        let place = CHECKS.acquire().await.map_err(|_| gone())?;
        let request = request.into_inner();
        let checked = tokio::task::spawn_blocking(move || {
            // Held until the check is over, also when nobody waits for it any more.
            let _place = place;
            check(request)
        });
        let checked = checked.await.map_err(|_| gone())?;
        checked.map(Request::new).map_err(|error| refusal(&error))
    }

    async fn write<Q: Clone, A>(
        &self,
        request: Request<Q>,
        plan: impl Fn(&Root, Q, &mut Ctx<'_>) -> Result<Plan<A>, Refusal>,
    ) -> Answer<A> {
        self.0.gate.pass().await?;
        let request = request.into_inner();
        let written = self.0.store.write(|transaction| {
            let mut ids = OsIds::new();
            let mut ctx = Ctx {
                now: self.0.clock.now(),
                ids: &mut ids,
            };
            plan(transaction, request.clone(), &mut ctx)?.apply(transaction)
        });
        match tokio::time::timeout(WRITE_WAIT_MAX, written).await {
            Ok(written) => written.map(Response::new).map_err(write_error),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "the write was not durable after {} s and may still become so; look before you \
                 try again",
                WRITE_WAIT_MAX.as_secs()
            ))),
        }
    }
}

/// Answers a request that has no function yet, by its name.
fn not_yet<A>(rpc: &str) -> Answer<A> {
    Err(refusal(&api::unimplemented(rpc)))
}

#[tonic::async_trait]
impl v1::control_server::Control for Control {
    async fn get_node(&self, request: Request<v1::GetNodeRequest>) -> Answer<v1::GetNodeResponse> {
        let members = self.0.members();
        self.read(request, |view, request| {
            api::get_node(view, &members, request)
        })
        .await
    }

    async fn list_nodes(
        &self,
        request: Request<v1::ListNodesRequest>,
    ) -> Answer<v1::ListNodesResponse> {
        let members = self.0.members();
        self.read(request, |view, request| {
            api::list_nodes(view, &members, request)
        })
        .await
    }

    async fn update_node(
        &self,
        request: Request<v1::UpdateNodeRequest>,
    ) -> Answer<v1::UpdateNodeResponse> {
        let members = self.0.members();
        self.write(request, |root, request, _| {
            api::update_node(root, &members, request)
        })
        .await
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Answer<v1::RemoveNodeResponse> {
        let members = self.0.members();
        self.write(request, |root, request, ctx| {
            api::remove_node(root, Some(&members), ctx, request)
        })
        .await
    }

    async fn get_task(&self, request: Request<v1::GetTaskRequest>) -> Answer<v1::GetTaskResponse> {
        self.read(request, api::get_task).await
    }

    async fn list_tasks(
        &self,
        request: Request<v1::ListTasksRequest>,
    ) -> Answer<v1::ListTasksResponse> {
        self.read(request, api::list_tasks).await
    }

    async fn remove_task(
        &self,
        request: Request<v1::RemoveTaskRequest>,
    ) -> Answer<v1::RemoveTaskResponse> {
        self.write(request, |root, request, _| api::remove_task(root, request))
            .await
    }

    async fn get_service(
        &self,
        request: Request<v1::GetServiceRequest>,
    ) -> Answer<v1::GetServiceResponse> {
        self.read(request, api::get_service).await
    }

    async fn list_services(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Answer<v1::ListServicesResponse> {
        self.read(request, api::list_services).await
    }

    async fn create_service(
        &self,
        request: Request<v1::CreateServiceRequest>,
    ) -> Answer<v1::CreateServiceResponse> {
        let request = self.checked(request, api::check_new_service).await?;
        self.write(request, |root, request, ctx| {
            api::create_service(root, ctx, request)
        })
        .await
    }

    async fn update_service(
        &self,
        request: Request<v1::UpdateServiceRequest>,
    ) -> Answer<v1::UpdateServiceResponse> {
        let request = self.checked(request, api::check_changed_service).await?;
        self.write(request, |root, request, _| {
            api::update_service(root, request)
        })
        .await
    }

    async fn remove_service(
        &self,
        request: Request<v1::RemoveServiceRequest>,
    ) -> Answer<v1::RemoveServiceResponse> {
        self.write(request, |root, request, _| {
            api::remove_service(root, request)
        })
        .await
    }

    async fn list_service_statuses(
        &self,
        request: Request<v1::ListServiceStatusesRequest>,
    ) -> Answer<v1::ListServiceStatusesResponse> {
        self.read(request, api::list_service_statuses).await
    }

    async fn get_cluster(
        &self,
        request: Request<v1::GetClusterRequest>,
    ) -> Answer<v1::GetClusterResponse> {
        self.read(request, api::get_cluster).await
    }

    async fn list_clusters(
        &self,
        request: Request<v1::ListClustersRequest>,
    ) -> Answer<v1::ListClustersResponse> {
        self.read(request, api::list_clusters).await
    }

    async fn update_cluster(
        &self,
        request: Request<v1::UpdateClusterRequest>,
    ) -> Answer<v1::UpdateClusterResponse> {
        self.0.gate.pass().await?;
        let material = root_change::prepare(&self.0, request.get_ref()).await?;
        self.write(request, |root, request, ctx| {
            api::update_cluster(root, ctx, request, &material)
        })
        .await
    }

    async fn get_network(
        &self,
        _: Request<v1::GetNetworkRequest>,
    ) -> Answer<v1::GetNetworkResponse> {
        not_yet("GetNetwork")
    }

    async fn list_networks(
        &self,
        _: Request<v1::ListNetworksRequest>,
    ) -> Answer<v1::ListNetworksResponse> {
        not_yet("ListNetworks")
    }

    async fn create_network(
        &self,
        _: Request<v1::CreateNetworkRequest>,
    ) -> Answer<v1::CreateNetworkResponse> {
        not_yet("CreateNetwork")
    }

    async fn remove_network(
        &self,
        _: Request<v1::RemoveNetworkRequest>,
    ) -> Answer<v1::RemoveNetworkResponse> {
        not_yet("RemoveNetwork")
    }

    async fn get_secret(
        &self,
        request: Request<v1::GetSecretRequest>,
    ) -> Answer<v1::GetSecretResponse> {
        self.read(request, api::get_secret).await
    }

    async fn update_secret(
        &self,
        request: Request<v1::UpdateSecretRequest>,
    ) -> Answer<v1::UpdateSecretResponse> {
        self.write(request, |root, request, _| {
            api::update_secret(root, request)
        })
        .await
    }

    async fn list_secrets(
        &self,
        request: Request<v1::ListSecretsRequest>,
    ) -> Answer<v1::ListSecretsResponse> {
        self.read(request, api::list_secrets).await
    }

    async fn create_secret(
        &self,
        request: Request<v1::CreateSecretRequest>,
    ) -> Answer<v1::CreateSecretResponse> {
        self.write(request, |root, request, ctx| {
            let has_driver = |name: &str| self.0.plugins.has(name);
            api::create_secret(root, ctx, &has_driver, request)
        })
        .await
    }

    async fn remove_secret(
        &self,
        request: Request<v1::RemoveSecretRequest>,
    ) -> Answer<v1::RemoveSecretResponse> {
        self.write(request, |root, request, _| {
            api::remove_secret(root, request)
        })
        .await
    }

    async fn get_config(
        &self,
        request: Request<v1::GetConfigRequest>,
    ) -> Answer<v1::GetConfigResponse> {
        self.read(request, api::get_config).await
    }

    async fn update_config(
        &self,
        request: Request<v1::UpdateConfigRequest>,
    ) -> Answer<v1::UpdateConfigResponse> {
        self.write(request, |root, request, _| {
            api::update_config(root, request)
        })
        .await
    }

    async fn list_configs(
        &self,
        request: Request<v1::ListConfigsRequest>,
    ) -> Answer<v1::ListConfigsResponse> {
        self.read(request, api::list_configs).await
    }

    async fn create_config(
        &self,
        request: Request<v1::CreateConfigRequest>,
    ) -> Answer<v1::CreateConfigResponse> {
        self.write(request, |root, request, ctx| {
            api::create_config(root, ctx, request)
        })
        .await
    }

    async fn remove_config(
        &self,
        request: Request<v1::RemoveConfigRequest>,
    ) -> Answer<v1::RemoveConfigResponse> {
        self.write(request, |root, request, _| {
            api::remove_config(root, request)
        })
        .await
    }

    async fn get_extension(
        &self,
        _: Request<v1::GetExtensionRequest>,
    ) -> Answer<v1::GetExtensionResponse> {
        not_yet("GetExtension")
    }

    async fn create_extension(
        &self,
        _: Request<v1::CreateExtensionRequest>,
    ) -> Answer<v1::CreateExtensionResponse> {
        not_yet("CreateExtension")
    }

    async fn remove_extension(
        &self,
        _: Request<v1::RemoveExtensionRequest>,
    ) -> Answer<v1::RemoveExtensionResponse> {
        not_yet("RemoveExtension")
    }

    async fn get_resource(
        &self,
        _: Request<v1::GetResourceRequest>,
    ) -> Answer<v1::GetResourceResponse> {
        not_yet("GetResource")
    }

    async fn update_resource(
        &self,
        _: Request<v1::UpdateResourceRequest>,
    ) -> Answer<v1::UpdateResourceResponse> {
        not_yet("UpdateResource")
    }

    async fn list_resources(
        &self,
        _: Request<v1::ListResourcesRequest>,
    ) -> Answer<v1::ListResourcesResponse> {
        not_yet("ListResources")
    }

    async fn create_resource(
        &self,
        _: Request<v1::CreateResourceRequest>,
    ) -> Answer<v1::CreateResourceResponse> {
        not_yet("CreateResource")
    }

    async fn remove_resource(
        &self,
        _: Request<v1::RemoveResourceRequest>,
    ) -> Answer<v1::RemoveResourceResponse> {
        not_yet("RemoveResource")
    }

    async fn create_volume(
        &self,
        _: Request<v1::CreateVolumeRequest>,
    ) -> Answer<v1::CreateVolumeResponse> {
        not_yet("CreateVolume")
    }

    async fn get_volume(&self, _: Request<v1::GetVolumeRequest>) -> Answer<v1::GetVolumeResponse> {
        not_yet("GetVolume")
    }

    async fn update_volume(
        &self,
        _: Request<v1::UpdateVolumeRequest>,
    ) -> Answer<v1::UpdateVolumeResponse> {
        not_yet("UpdateVolume")
    }

    async fn list_volumes(
        &self,
        _: Request<v1::ListVolumesRequest>,
    ) -> Answer<v1::ListVolumesResponse> {
        not_yet("ListVolumes")
    }

    async fn remove_volume(
        &self,
        _: Request<v1::RemoveVolumeRequest>,
    ) -> Answer<v1::RemoveVolumeResponse> {
        not_yet("RemoveVolume")
    }
}
