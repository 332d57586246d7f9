//! The connection to a manager: its clients, and the deadline of every call.

use std::error::Error as _;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use swarm_api::ext::explain_client::ExplainClient;
use swarm_api::ext::identity_client::IdentityClient;
use swarm_api::v1::ca_client::CaClient;
use swarm_api::v1::control_client::ControlClient;
use swarm_api::v1::logs_client::LogsClient;
use swarm_rt::net::{self, Address};
use swarm_rt::socket_path;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::failure::Failure;
use crate::probe;

/// How long one call may take. A manager holds a call for 30 s at most until it leads.
const CALL_TIMEOUT: Duration = Duration::from_secs(40);

/// A manager. It is dialled with the first call.
#[derive(Clone, Debug)]
pub(crate) struct Manager {
    channel: Channel,
    socket: String,
}

impl Manager {
    /// Prepares the connection; must be called inside a runtime.
    ///
    /// # Errors
    /// When the address is malformed.
    pub(crate) fn new(socket: &str) -> Result<Self, Failure> {
        let path = socket.strip_prefix("unix://").unwrap_or(socket);
        socket_path::check("--socket", Path::new(path))
            .map_err(|error| Failure::usage(error.to_string()))?;
        let address = Address::Unix(path.into());
        let channel = net::dial(&address).map_err(|error| {
            Failure::usage(format!("--socket {socket:?} is not an address: {error}"))
        })?;
        Ok(Self {
            channel,
            socket: path.to_owned(),
        })
    }

    pub(crate) fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone())
            .max_decoding_message_size(net::CLIENT_RECEIVE_BYTES_MAX)
    }

    pub(crate) fn explain(&self) -> ExplainClient<Channel> {
        ExplainClient::new(self.channel.clone())
            .max_decoding_message_size(net::CLIENT_RECEIVE_BYTES_MAX)
    }

    pub(crate) fn ca(&self) -> CaClient<Channel> {
        CaClient::new(self.channel.clone())
    }

    pub(crate) fn identity(&self) -> IdentityClient<Channel> {
        IdentityClient::new(self.channel.clone())
            .max_decoding_message_size(net::CLIENT_RECEIVE_BYTES_MAX)
    }

    pub(crate) fn logs(&self) -> LogsClient<Channel> {
        LogsClient::new(self.channel.clone())
            .max_decoding_message_size(net::CLIENT_RECEIVE_BYTES_MAX)
    }

    /// The end of a stream of this manager.
    pub(crate) fn failure(&self, status: &Status) -> Failure {
        Failure::of_call(status, &self.socket)
    }

    /// A call that failed; if nobody answered it, with what listens there instead of a manager.
    async fn explained(&self, status: &Status) -> Failure {
        let failure = Failure::of_call(status, &self.socket);
        if status.source().is_none() {
            return failure;
        }
        match probe::look(Path::new(&self.socket)).await {
            Some(found) => {
                let (socket, text) = (&self.socket, found.text());
                Failure::refused(format!("no manager of ours listens at {socket}: {text}"))
                    .hint(found.hint())
            }
            None => failure,
        }
    }

    /// Makes a call, but does not wait for ever. Boxed, because the future of a call is large.
    ///
    /// # Errors
    /// What the manager said, or that it cannot be reached, or did not answer in time.
    pub(crate) fn call<'a, T: 'a>(
        &'a self,
        call: impl Future<Output = Result<Response<T>, Status>> + 'a,
    ) -> Pin<Box<dyn Future<Output = Result<T, Failure>> + 'a>> {
        Box::pin(async move {
            match tokio::time::timeout(CALL_TIMEOUT, call).await {
                Ok(Ok(response)) => Ok(response.into_inner()),
                Ok(Err(status)) => Err(self.explained(&status).await),
                Err(_) => Err(Failure::refused(format!(
                    "the manager at {} did not answer within {} s",
                    self.socket,
                    CALL_TIMEOUT.as_secs()
                ))
                .hint("try again; what was asked for may still happen")),
            }
        })
    }
}
