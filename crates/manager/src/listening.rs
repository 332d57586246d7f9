//! The two listeners of a manager: the control socket, and the one for nodes.
//!
//! Owns the bounds of the listener for nodes and what stands around its services: TLS, the guard,
//! the watchman, and the lanes on which workers are served. Does not own which services there are.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use swarm_rt::lanes::{self, Keepalive, Lane};
use swarm_rt::net::LocalListener;
use swarm_rt::tasks::TaskError;
use swarm_rt::{OnError, Tasks, files, net, tls};
use tokio_stream::wrappers::TcpListenerStream;
use tower::Layer as _;

use crate::Config;
use crate::guard::{self, Guard, Local};
use crate::services::{self, Services};
use crate::watchman;

/// Between two looks of HTTP/2 at a worker's connection. A worker beats much more often, and that
/// of a dead machine is found by the kernel after [`net::KEEPALIVE_INTERVAL`]; what is left is a
/// process that stands still for good, whose session is over by then.
const WORKER_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(120);

/// Fewer connections than this are worth a warning at the start.
const CONNECTIONS_FEW: usize = 4_096;

/// What the listener for nodes puts up with.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    pub(crate) limits: tls::Limits,
    /// For a call that is no stream.
    pub(crate) call_timeout: Duration,
    /// Between two pings of a connection on which nothing happens.
    pub(crate) keepalive_interval: Duration,
    /// The same for workers, which the kernel watches as well.
    pub(crate) worker_keepalive_interval: Duration,
    /// For the answer to a ping.
    pub(crate) keepalive_timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            limits: tls::Limits::default().within(files::limit()),
            call_timeout: guard::CALL_TIMEOUT,
            keepalive_interval: net::KEEPALIVE_INTERVAL,
            worker_keepalive_interval: WORKER_KEEPALIVE_INTERVAL,
            keepalive_timeout: net::KEEPALIVE_TIMEOUT,
        }
    }
}

/// Serves clients on the control socket.
pub(crate) fn serve_control(tasks: &Tasks, services: &Arc<Services>, socket: LocalListener) {
    let stop = tasks.shutdown().clone();
    let router = net::server()
        .layer(Local::new(services.metrics.clone()))
        .add_routes(services::control(services));
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
    /// Starts serving.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(crate) fn serve(self, socket: TcpListenerStream) -> io::Result<()> {
        let Services { store, gate, .. } = &**self.services;
        let (cluster, metrics) = (self.config.cluster.clone(), self.config.metrics.clone());
        let lanes = (0..lanes::count()).map(|_| Lane::new());
        tell_limits(&self.bounds.limits);
        let listening = tls::listen(
            self.tasks,
            socket.into_inner(),
            &self.config.security,
            self.bounds.limits.clone(),
            metrics.clone(),
            lanes.collect::<io::Result<_>>()?,
        );
        let timeout = self.bounds.call_timeout;
        let guard = Guard::new(store.clone(), gate.clone(), cluster, metrics, timeout);
        let stop = self.tasks.shutdown().clone();
        let watching = watchman::run(store.clone(), listening.connections, guard.clone(), stop);
        self.tasks.spawn("watchman", OnError::Stop, watching);
        for (lane, workers) in listening.workers {
            let express = services::express(self.services, guard.clone());
            let service = guard.layer(services::remote(self.services));
            let keepalive = Keepalive {
                interval: self.bounds.worker_keepalive_interval,
                timeout: self.bounds.keepalive_timeout,
            };
            let stop = self.tasks.shutdown().clone();
            let own = lane.clone();
            lane.spawn(self.tasks, "lane", move || async move {
                lanes::serve(&own, workers, express, service, keepalive, stop).await;
                Ok(())
            });
        }
        let router = net::server()
            .http2_keepalive_interval(Some(self.bounds.keepalive_interval))
            .http2_keepalive_timeout(Some(self.bounds.keepalive_timeout))
            .layer(guard)
            .add_routes(services::remote(self.services));
        let stop = self.tasks.shutdown().clone();
        self.tasks
            .spawn("remote listener", OnError::Stop, async move {
                let served = router.serve_with_incoming_shutdown(listening.others, async move {
                    stop.begun().await;
                });
                served.await.map_err(TaskError::from)
            });
        Ok(())
    }
}

/// Says how many connections the files of this process allow, if a cluster may need more.
fn tell_limits(limits: &tls::Limits) {
    if limits.connections_max < CONNECTIONS_FEW {
        tracing::warn!(
            files = files::limit(),
            connections = limits.connections_max,
            without_certificate = limits.anonymous_max,
            "few files may be open at once, so fewer connections than usual are taken; raise the \
             limit of the process (ulimit -n, LimitNOFILE=)"
        );
    }
}
