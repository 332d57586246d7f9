//! `Dispatcher`: answers heartbeats, and hands the other calls of nodes to the leader's task.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use swarm_api::v1;
use swarm_dispatcher::{Code, DispatchError};
use swarm_rt::metrics::Refused;
use swarm_rt::net::{self, Caller};
use swarm_types::{NodeId, time};
use tokio::sync::oneshot;
use tokio_stream::StreamExt as _;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::{Services, status_of};
use crate::streams::{Call, NodeStream};

pub(crate) struct Dispatcher(pub(crate) Arc<Services>);

impl Dispatcher {
    /// The stream of a node's session.
    pub(super) async fn open_session(
        &self,
        request: Request<v1::SessionRequest>,
    ) -> Result<NodeStream<v1::SessionMessage>, Status> {
        let caller = net::caller(&request);
        let node = self.node(&caller)?;
        let (reply, answer) = oneshot::channel();
        let arrived = match caller.arrived {
            Some(address) => address.to_string(),
            // The manager's own node; it has no other way than through this machine.
            None if caller.is_local() => self.0.local_address.clone(),
            None => String::new(),
        };
        let call = Call::Session {
            node,
            addr: caller.addr,
            arrived,
            request: Box::new(request.into_inner()),
            reply,
        };
        self.ask(call, answer).await
    }

    /// The stream of a node's assignments, each message encoded.
    pub(super) async fn open_assignments(
        &self,
        request: Request<v1::AssignmentsRequest>,
    ) -> Result<NodeStream<Bytes>, Status> {
        let node = self.caller(&request)?;
        let session = request.into_inner().session_id;
        self.assignments_of(node, session).await
    }

    async fn assignments_of(
        &self,
        node: NodeId,
        session: String,
    ) -> Result<NodeStream<Bytes>, Status> {
        let (reply, answer) = oneshot::channel();
        let call = Call::Assignments {
            node,
            session,
            reply,
        };
        self.ask(call, answer).await
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<NodeId, Status> {
        self.node(&net::caller(request))
    }

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
        let answer = reply.await.map_err(|_| gone())?;
        answer.map_err(|error| self.refusal(&error))
    }

    /// Answers a heartbeat, if nothing is in the way.
    pub(super) fn beat_at_once(
        &self,
        node: &NodeId,
        session: &str,
    ) -> Option<v1::HeartbeatResponse> {
        let is_open = self.0.gate.is_open();
        is_open.then(|| self.beat(node, session).ok()).flatten()
    }

    fn beat(&self, node: &NodeId, session: &str) -> Result<v1::HeartbeatResponse, DispatchError> {
        let period = self.0.heartbeats.beat(self.0.clock.now(), node, session)?;
        let period = Some(time::duration_to_wire(period));
        Ok(v1::HeartbeatResponse { period })
    }

    fn refusal(&self, error: &DispatchError) -> Status {
        if let Some(reason) = refused(error.code) {
            self.0.metrics.refused(reason);
        }
        status_of(error)
    }
}

/// The counter of what the dispatcher refuses; its codes say which rule it was.
fn refused(code: Code) -> Option<Refused> {
    match code {
        Code::InvalidArgument => Some(Refused::InvalidSession),
        Code::NotFound => Some(Refused::NotRegistered),
        Code::PermissionDenied => Some(Refused::OtherNodesTask),
        Code::Unavailable => Some(Refused::RegistrationRate),
        Code::ResourceExhausted => Some(Refused::OversizedReport),
        Code::Unknown => Some(Refused::UnknownNode),
        Code::Aborted => None,
    }
}

#[tonic::async_trait]
impl v1::dispatcher_server::Dispatcher for Dispatcher {
    async fn session(
        &self,
        request: Request<v1::SessionRequest>,
    ) -> Result<Response<BoxStream<v1::SessionMessage>>, Status> {
        let stream = self.open_session(request).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let node = self.caller(&request)?;
        self.0.gate.pass().await?;
        let answer = self.beat(&node, &request.get_ref().session_id);
        let answer = answer.map_err(|error| self.refusal(&error))?;
        Ok(Response::new(answer))
    }

    async fn update_task_status(
        &self,
        request: Request<v1::UpdateTaskStatusRequest>,
    ) -> Result<Response<v1::UpdateTaskStatusResponse>, Status> {
        let node = self.caller(&request)?;
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
        let stream = self.open_assignments(request).await?;
        Ok(Response::new(Box::pin(stream.map(decoded))))
    }

    async fn update_volume_status(
        &self,
        request: Request<v1::UpdateVolumeStatusRequest>,
    ) -> Result<Response<v1::UpdateVolumeStatusResponse>, Status> {
        let node = self.caller(&request)?;
        let (reply, answer) = oneshot::channel();
        let v1::UpdateVolumeStatusRequest {
            session_id: session,
            updates,
        } = request.into_inner();
        let call = Call::Volumes {
            node,
            session,
            updates,
            reply,
        };
        self.ask(call, answer).await?;
        Ok(Response::new(v1::UpdateVolumeStatusResponse {}))
    }

    /// For agents older than `Assignments`: the same stream, told as all tasks each time.
    async fn tasks(
        &self,
        request: Request<v1::TasksRequest>,
    ) -> Result<Response<BoxStream<v1::TasksMessage>>, Status> {
        let node = self.caller(&request)?;
        let session = request.into_inner().session_id;
        let changes = self.assignments_of(node, session).await?.map(decoded);
        let mut known = AllTasks::default();
        let messages = changes.map(move |change| change.map(|message| known.after(message)));
        Ok(Response::new(Box::pin(messages)))
    }
}

/// For those who need a value.
fn decoded(message: Result<Bytes, Status>) -> Result<v1::AssignmentsMessage, Status> {
    let decoded = v1::AssignmentsMessage::decode(message?);
    decoded.map_err(|error| Status::internal(error.to_string()))
}

/// The tasks of a node, kept from incremental messages. Secrets, configs and volumes have no place
/// in the old message.
#[derive(Default)]
struct AllTasks(BTreeMap<String, v1::Task>);

impl AllTasks {
    fn after(&mut self, message: v1::AssignmentsMessage) -> v1::TasksMessage {
        use v1::assignment::Item;
        use v1::assignment_change::AssignmentAction;
        use v1::assignments_message::Type;
        if message.r#type == Type::Complete as i32 {
            self.0.clear();
        }
        for change in message.changes {
            let Some(Item::Task(task)) = change.assignment.and_then(|it| it.item) else {
                continue;
            };
            if change.action == AssignmentAction::Remove as i32 {
                self.0.remove(&task.id);
            } else {
                self.0.insert(task.id.clone(), task);
            }
        }
        v1::TasksMessage {
            tasks: self.0.values().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::assignment::Item;
    use v1::assignment_change::AssignmentAction;
    use v1::assignments_message::Type;

    fn message(kind: Type, changes: &[(&str, AssignmentAction)]) -> v1::AssignmentsMessage {
        let change = |(id, action): &(&str, AssignmentAction)| v1::AssignmentChange {
            assignment: Some(v1::Assignment {
                item: Some(Item::Task(v1::Task {
                    id: (*id).to_owned(),
                    ..Default::default()
                })),
            }),
            action: *action as i32,
        };
        v1::AssignmentsMessage {
            r#type: kind as i32,
            changes: changes.iter().map(change).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn an_old_agent_gets_all_tasks_with_each_change() {
        use AssignmentAction::{Remove, Update};
        let mut known = AllTasks::default();
        let mut after = |message| -> Vec<String> {
            let tasks = known.after(message).tasks.into_iter();
            tasks.map(|task| task.id).collect()
        };
        let first = message(Type::Complete, &[("a", Update), ("b", Update)]);
        assert_eq!(after(first), ["a", "b"]);
        let next = message(Type::Incremental, &[("a", Remove), ("c", Update)]);
        assert_eq!(after(next), ["b", "c"]);
        assert_eq!(after(message(Type::Complete, &[("d", Update)])), ["d"]);
    }
}
