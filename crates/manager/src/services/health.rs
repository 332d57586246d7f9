//! `Health`: whether a part of the manager serves.

use std::sync::Arc;

use swarm_api::v1;
use tonic::{Request, Response, Status};
use v1::health_check_response::ServingStatus;

use super::Services;

pub(crate) struct Health(pub(crate) Arc<Services>);

#[tonic::async_trait]
impl v1::health_server::Health for Health {
    async fn check(
        &self,
        request: Request<v1::HealthCheckRequest>,
    ) -> Result<Response<v1::HealthCheckResponse>, Status> {
        let status = match request.get_ref().service.as_str() {
            "" => ServingStatus::Serving,
            "Raft" | "ControlAPI" if self.0.gate.is_open() => ServingStatus::Serving,
            "Raft" | "ControlAPI" => ServingStatus::NotServing,
            other => return Err(Status::not_found(format!("unknown service `{other}`"))),
        };
        Ok(Response::new(v1::HealthCheckResponse {
            status: status as i32,
        }))
    }
}
