//! Heartbeats, answered without the machinery of a gRPC server.
//!
//! Owns which of them are: those of a worker that called this manager itself and may do so, with a
//! session that is good. All others go the usual way, which has the words for what is wrong.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use prost::Message as _;
use swarm_api::authorization::{self, Method};
use swarm_api::v1;
use swarm_rt::lanes;
use swarm_rt::tls::Connection;

use super::dispatcher::Dispatcher;
use crate::guard::Guard;

const HEARTBEAT: &str = "/docker.swarmkit.v1.Dispatcher/Heartbeat";

/// What is answered on the spot.
#[derive(Clone)]
pub(crate) struct Express {
    guard: Guard,
    dispatcher: Arc<Dispatcher>,
    method: Option<&'static Method>,
}

impl Express {
    pub(crate) fn new(guard: Guard, dispatcher: Dispatcher) -> Self {
        Self {
            guard,
            dispatcher: Arc::new(dispatcher),
            method: authorization::method(HEARTBEAT),
        }
    }
}

impl lanes::Express for Express {
    fn is_meant(&self, path: &str) -> bool {
        path == HEARTBEAT
    }

    fn answer(
        &self,
        connection: &Arc<Connection>,
        headers: &HeaderMap,
        message: Bytes,
    ) -> Option<Bytes> {
        let call = self
            .guard
            .admit_at_once(self.method?, connection, headers)?;
        let request = v1::HeartbeatRequest::decode(message).ok()?;
        let node = connection.peer().node()?;
        let answer = self.dispatcher.beat_at_once(node, &request.session_id)?;
        call.answered();
        Some(Bytes::from(answer.encode_to_vec()))
    }
}
