//! The two listeners of a manager: the control socket, and the one for nodes.
//!
//! Owns the bounds of the listener for nodes and what stands around its services: TLS, the guard
//! and the watchman. Does not own which services there are.

use std::sync::Arc;
use std::time::Duration;

use swarm_rt::tasks::TaskError;
use swarm_rt::{OnError, Tasks, net, tls};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};

use crate::Config;
use crate::guard::{self, Guard};
use crate::services::{self, Services};
use crate::watchman;

/// What the listener for nodes puts up with.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) limits: tls::Limits,
    /// For a call that is no stream.
    pub(crate) call_timeout: Duration,
    /// Between two pings of a connection on which nothing happens.
    pub(crate) keepalive_interval: Duration,
    /// For the answer to a ping.
    pub(crate) keepalive_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            limits: tls::Limits::default(),
            call_timeout: guard::CALL_TIMEOUT,
            keepalive_interval: net::KEEPALIVE_INTERVAL,
            keepalive_timeout: net::KEEPALIVE_TIMEOUT,
        }
    }
}

/// Serves clients on the control socket.
pub(crate) fn serve_control(tasks: &Tasks, services: &Arc<Services>, socket: UnixListenerStream) {
    let stop = tasks.shutdown().clone();
    let router = services::control(services);
    tasks.spawn("control socket", OnError::Stop, async move {
        let served = router.serve_with_incoming_shutdown(socket, async move {
            stop.begun().await;
        });
        served.await.map_err(TaskError::from)
    });
}

/// What serves nodes.
pub(crate) struct Remote<'a> {
    pub(crate) tasks: &'a Tasks,
    pub(crate) services: &'a Arc<Services>,
    pub(crate) config: &'a Config,
    pub(crate) bounds: Bounds,
}

impl Remote<'_> {
    pub(crate) fn serve(self, socket: TcpListenerStream) {
        let Services { store, gate, .. } = &**self.services;
        let (cluster, metrics) = (self.config.cluster.clone(), self.config.metrics.clone());
        let (incoming, connections) = tls::listen(
            self.tasks,
            socket.into_inner(),
            &self.config.security,
            self.bounds.limits.clone(),
            metrics.clone(),
        );
        let timeout = self.bounds.call_timeout;
        let guard = Guard::new(store.clone(), gate.clone(), cluster, metrics, timeout);
        let stop = self.tasks.shutdown().clone();
        let watching = watchman::run(store.clone(), connections, guard.clone(), stop.clone());
        self.tasks.spawn("watchman", OnError::Stop, watching);
        let server = net::server()
            .http2_keepalive_interval(Some(self.bounds.keepalive_interval))
            .http2_keepalive_timeout(Some(self.bounds.keepalive_timeout));
        let router = services::remote(self.services, server, guard);
        self.tasks
            .spawn("remote listener", OnError::Stop, async move {
                let served = router.serve_with_incoming_shutdown(incoming, async move {
                    stop.begun().await;
                });
                served.await.map_err(TaskError::from)
            });
    }
}
