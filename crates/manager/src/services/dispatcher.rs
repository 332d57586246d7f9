//! `Dispatcher`: hands the calls of nodes to the leader's task.

use std::sync::Arc;

use swarm_api::v1;
use swarm_dispatcher::DispatchError;
use swarm_rt::net::{self, Caller};
use swarm_types::{NodeId, time};
use tokio::sync::oneshot;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::{Services, status_of};
use crate::streams::Call;

pub(crate) struct Dispatcher(pub(crate) Arc<Services>);

impl Dispatcher {
    /// Who calls. A node that does not name itself on the control socket is the manager's own.
    fn node(&self, caller: &Caller) -> Result<NodeId, Status> {
        match caller.node() {
            Some(node) => Ok(node.clone()),
            None if caller.is_local() => Ok(self.0.own_node.clone()),
            None => Err(Status::permission_denied(
                "Permission denied: the call does not say which node makes it",
            )),
        }
    }

    async fn ask<T>(
        &self,
        call: Call,
        reply: oneshot::Receiver<Result<T, DispatchError>>,
    ) -> Result<T, Status> {
        let gone = || Status::aborted("dispatcher is stopped");
        self.0.gate.pass().await?;
        self.0.calls.send(call).await.map_err(|_| gone())?;
        reply
            .await
            .map_err(|_| gone())?
            .map_err(|error| status_of(&error))
    }
}

#[tonic::async_trait]
impl v1::dispatcher_server::Dispatcher for Dispatcher {
    async fn session(
        &self,
        request: Request<v1::SessionRequest>,
    ) -> Result<Response<BoxStream<v1::SessionMessage>>, Status> {
        let caller = net::caller(&request);
        let node = self.node(&caller)?;
        let (reply, answer) = oneshot::channel();
        let request = Box::new(request.into_inner());
        let call = Call::Session {
            node,
            addr: caller.addr,
            request,
            reply,
        };
        Ok(Response::new(Box::pin(self.ask(call, answer).await?)))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let node = self.node(&net::caller(&request))?;
        let (reply, answer) = oneshot::channel();
        let session = request.into_inner().session_id;
        let period = self
            .ask(
                Call::Heartbeat {
                    node,
                    session,
                    reply,
                },
                answer,
            )
            .await?;
        let period = Some(time::duration_to_wire(period));
        Ok(Response::new(v1::HeartbeatResponse { period }))
    }

    async fn update_task_status(
        &self,
        request: Request<v1::UpdateTaskStatusRequest>,
    ) -> Result<Response<v1::UpdateTaskStatusResponse>, Status> {
        let node = self.node(&net::caller(&request))?;
        let (reply, answer) = oneshot::channel();
        let v1::UpdateTaskStatusRequest {
            session_id: session,
            updates,
        } = request.into_inner();
        self.ask(
            Call::Statuses {
                node,
                session,
                updates,
                reply,
            },
            answer,
        )
        .await?;
        Ok(Response::new(v1::UpdateTaskStatusResponse {}))
    }

    async fn assignments(
        &self,
        request: Request<v1::AssignmentsRequest>,
    ) -> Result<Response<BoxStream<v1::AssignmentsMessage>>, Status> {
        let node = self.node(&net::caller(&request))?;
        let (reply, answer) = oneshot::channel();
        let session = request.into_inner().session_id;
        let stream = self
            .ask(
                Call::Assignments {
                    node,
                    session,
                    reply,
                },
                answer,
            )
            .await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn update_volume_status(
        &self,
        _: Request<v1::UpdateVolumeStatusRequest>,
    ) -> Result<Response<v1::UpdateVolumeStatusResponse>, Status> {
        Err(Status::unimplemented(
            "Dispatcher.UpdateVolumeStatus is not implemented yet",
        ))
    }

    async fn tasks(
        &self,
        _: Request<v1::TasksRequest>,
    ) -> Result<Response<BoxStream<v1::TasksMessage>>, Status> {
        Err(Status::unimplemented(
            "Dispatcher.Tasks is not implemented; use Dispatcher.Assignments",
        ))
    }
}
