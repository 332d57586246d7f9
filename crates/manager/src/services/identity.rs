//! `Identity`: tokens with limits, and how the certificates of the cluster stand. The decisions and
//! the words are `swarm-ca`'s.

use std::sync::Arc;
use std::time::Duration;

use swarm_api::ext;
use swarm_ca::{status, tokens};
use swarm_raft_io::WriteError;
use swarm_reconcile::Ctx;
use swarm_rt::OsIds;
use swarm_store::{Root, WriteSet};
use tonic::{Request, Response, Status};

use super::Services;

/// How long a write may take to become durable before the client is told that its outcome is open.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(30);

pub(crate) struct Identity(pub(crate) Arc<Services>);

type Answer<T> = Result<Response<T>, Status>;

impl Identity {
    async fn write<A>(
        &self,
        decide: impl Fn(&Root, &mut Ctx<'_>) -> Result<(WriteSet, A), swarm_ca::Refusal>,
    ) -> Answer<A> {
        self.0.gate.pass().await?;
        let written = self.0.store.write(|transaction| {
            let mut ids = OsIds::new();
            let mut ctx = Ctx {
                now: self.0.clock.now(),
                ids: &mut ids,
            };
            let (writes, answer) = decide(transaction, &mut ctx)?;
            transaction.apply_owned(writes).map_err(|_| changed())?;
            Ok(answer)
        });
        match tokio::time::timeout(WRITE_WAIT_MAX, written).await {
            Ok(Ok(answer)) => Ok(Response::new(answer)),
            Ok(Err(WriteError::Refused(error))) => Err(refusal(&error)),
            Ok(Err(error)) => Err(Status::unavailable(swarm_rt::chain(&error).to_string())),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "the write was not durable after {} s and may still become so; look before you \
                 try again",
                WRITE_WAIT_MAX.as_secs()
            ))),
        }
    }
}

/// The decision was taken on the transaction's own root, so this does not happen.
fn changed() -> swarm_ca::Refusal {
    swarm_ca::Refusal {
        code: swarm_ca::Code::Aborted,
        message: "the token changed meanwhile; try again".to_owned(),
    }
}

fn refusal(error: &swarm_ca::Refusal) -> Status {
    Status::new(
        tonic::Code::from_i32(error.code.number()),
        error.message.clone(),
    )
}

#[tonic::async_trait]
impl ext::identity_server::Identity for Identity {
    async fn create_join_token(
        &self,
        request: Request<ext::CreateJoinTokenRequest>,
    ) -> Answer<ext::CreateJoinTokenResponse> {
        let request = request.into_inner();
        self.write(|root, ctx| tokens::create(root, request.clone(), ctx))
            .await
    }

    async fn list_join_tokens(
        &self,
        _: Request<ext::ListJoinTokensRequest>,
    ) -> Answer<ext::ListJoinTokensResponse> {
        self.0.gate.pass().await?;
        let now = self.0.clock.now();
        Ok(Response::new(tokens::list(&self.0.store.view(), now)))
    }

    async fn remove_join_token(
        &self,
        request: Request<ext::RemoveJoinTokenRequest>,
    ) -> Answer<ext::RemoveJoinTokenResponse> {
        let request = request.into_inner();
        self.write(|root, _| tokens::remove(root, &request)).await
    }

    async fn check_join_token(
        &self,
        request: Request<ext::CheckJoinTokenRequest>,
    ) -> Answer<ext::CheckJoinTokenResponse> {
        self.0.gate.pass().await?;
        let now = self.0.clock.now();
        let view = self.0.store.view();
        Ok(Response::new(tokens::check(&view, request.get_ref(), now)))
    }

    async fn ca_status(&self, _: Request<ext::CaStatusRequest>) -> Answer<ext::CaStatusResponse> {
        self.0.gate.pass().await?;
        let view = self.0.store.view();
        let (now, own) = (self.0.clock.now(), self.0.own_node.clone());
        // Reads the certificate of every node, which takes a while in a large cluster.
        let told = tokio::task::spawn_blocking(move || status::of(&view, now, Some(&own))).await;
        told.map_err(|error| Status::internal(error.to_string()))?
            .map(Response::new)
            .map_err(|error| refusal(&error))
    }
}
