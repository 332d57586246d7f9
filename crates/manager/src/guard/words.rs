//! Codes and words of ours for what the transport answers by itself.

use http::Response;
use swarm_api::authorization::Method;
use swarm_rt::metrics::{Metrics, Refused};
use tonic::body::Body;
use tonic::{Code, Status};

use super::join;

/// Characters of a path that an answer repeats.
const PATH_CHARS_MAX: usize = 128;

/// The answer to a call of something that is not in the interface.
pub(super) fn no_method(path: &str) -> Status {
    let shown: String = path.chars().take(PATH_CHARS_MAX).collect();
    Status::unimplemented(format!("there is no method {shown}"))
}

/// Gives answers of the transport the codes and words of ours.
pub(super) fn reword(
    metrics: &Metrics,
    method: &Method,
    response: Response<Body>,
) -> Response<Body> {
    let Some(status) = response.extensions().get::<Status>() else {
        return response;
    };
    let (service, name) = method.names();
    let is = |code| status.code() == code;
    if is(Code::OutOfRange) && status.message().contains("length too large") {
        metrics.refused(Refused::OversizedMessage);
        // The transport's text has both sizes; other implementations use this code for them.
        return Status::resource_exhausted(status.message()).into_http();
    }
    if is(Code::Unimplemented) && join::is_meant(method.path) {
        return join::refusal().into_http();
    }
    if is(Code::Unimplemented) && !status.message().contains(name) {
        let text = format!("{service}.{name} is not implemented on this listener");
        return Status::unimplemented(text).into_http();
    }
    response
}
