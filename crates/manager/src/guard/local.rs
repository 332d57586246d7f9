//! The words of the control socket: the same as those of the remote listener.
//!
//! Whoever opens the socket may call everything, so nothing is checked here.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use swarm_api::authorization as table;
use swarm_rt::metrics::{Metrics, Refused};
use tonic::body::Body;
use tower::Service;

use super::words;

/// Puts them around the services.
#[derive(Clone)]
pub(crate) struct Local {
    metrics: Metrics,
}

impl Local {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }
}

impl<S> tower::Layer<S> for Local {
    type Service = Worded<S>;

    fn layer(&self, inner: S) -> Worded<S> {
        Worded {
            metrics: self.metrics.clone(),
            inner,
        }
    }
}

/// The services with their words.
#[derive(Clone)]
pub(crate) struct Worded<S> {
    metrics: Metrics,
    inner: S,
}

impl<S> Service<Request<Body>> for Worded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let Some(method) = table::method(path) else {
            self.metrics.refused(Refused::UnknownMethod);
            let status = words::no_method(path);
            return Box::pin(std::future::ready(Ok(status.into_http())));
        };
        let metrics = self.metrics.clone();
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(words::reword(&metrics, method, answer.await?)) })
    }
}
