//! `ResourceAllocator`: attaching containers outside of services to networks of the cluster.
//!
//! Only networks of users can be attached to, and there are none yet; so both calls are refused by
//! name, and an engine tells its user why `docker run --network` does not work.

use swarm_api::v1;
use tonic::{Request, Response, Status};

pub(crate) struct ResourceAllocator;

fn refusal(method: &str) -> Status {
    Status::unimplemented(format!(
        "ResourceAllocator.{method} is not implemented yet: there are no attachable networks; run \
         the container on a network of its node"
    ))
}

#[tonic::async_trait]
impl v1::resource_allocator_server::ResourceAllocator for ResourceAllocator {
    async fn attach_network(
        &self,
        _: Request<v1::AttachNetworkRequest>,
    ) -> Result<Response<v1::AttachNetworkResponse>, Status> {
        Err(refusal("AttachNetwork"))
    }

    async fn detach_network(
        &self,
        _: Request<v1::DetachNetworkRequest>,
    ) -> Result<Response<v1::DetachNetworkResponse>, Status> {
        Err(refusal("DetachNetwork"))
    }
}
