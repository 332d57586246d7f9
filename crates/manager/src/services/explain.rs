//! `Explain`: answers from the view of this manager; the words are `swarm-explain`'s.

use std::sync::Arc;

use swarm_api::ext;
use swarm_explain::{Subject, Unanswered};
use tonic::{Request, Response, Status};

use super::Services;

pub(crate) struct Explain(pub(crate) Arc<Services>);

#[tonic::async_trait]
impl ext::explain_server::Explain for Explain {
    async fn why(
        &self,
        request: Request<ext::WhyRequest>,
    ) -> Result<Response<ext::WhyResponse>, Status> {
        self.0.gate.pass().await?;
        let request = request.into_inner();
        let subject = Subject::parse(&request.kind).map_err(|error| refusal(&error))?;
        let view = self.0.store.view();
        let (now, own) = (self.0.clock.now(), Some(&self.0.own_node));
        let answer = swarm_explain::why(&view, now, own, subject, &request.object);
        let mut answer = answer.map_err(|error| refusal(&error))?;
        if answer.object_id == self.0.own_node.to_string()
            && let Some(error) = &*self.0.unsealed.borrow()
        {
            swarm_explain::add_unsealed(&mut answer, error);
        }
        Ok(Response::new(answer))
    }
}

fn refusal(error: &Unanswered) -> Status {
    let text = error.to_string();
    match error {
        Unanswered::NoObject | Unanswered::UnknownKind(_) => Status::invalid_argument(text),
        // No single object has an ambiguous name; clients treat both alike.
        Unanswered::NotFound { .. } | Unanswered::Ambiguous { .. } => Status::not_found(text),
    }
}
