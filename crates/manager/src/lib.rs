//! A manager: the gRPC services, and the task that drives the leader machine.
//!
//! # Owns
//! Starting and stopping the replicated store, the leader's task while this manager leads, the
//! services on the remote listener and on the control socket, and the translation between calls
//! and the pure crates.
//!
//! # Does not own
//! Any decision about services, tasks or nodes (the pure crates), files of the log
//! (`swarm-raft-io`), identity (`swarm-node`).
//!
//! # Invariants
//! * No call is answered from a store that is not fully replayed.
//! * A stream to a node has at most one message under way, so a slow node costs no memory.
//! * What a leader does ends with its term: its task owns everything.
//!
//! # Start reading at
//! [`Manager::start`], then `leading`.
//!
//! # SwarmKit counterpart
//! `manager/manager.go` and the gRPC halves of `manager/controlapi` and `manager/dispatcher`.
//! Intended differences: reads wait for the whole log to be replayed; one task owns all that a
//! leader does.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod gate;
mod leading;
mod services;
mod streams;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_leader::Seed;
use swarm_raft_io::{OpenError, ReplicatedConfig, ReplicatedStore};
use swarm_rt::tasks::TaskError;
use swarm_rt::{Clock, OnError, OsIds, Shutdown, Tasks, net};
use swarm_types::{ClusterId, NodeId};

pub use gate::READY_WAIT_MAX;
pub use swarm_raft_io::ReplicatedConfig as LogConfig;

/// How long services and the log may take to stop.
const STOP_GRACE: Duration = Duration::from_secs(8);

/// What a manager needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The manager's own node.
    pub node: NodeId,
    /// The cluster.
    pub cluster: ClusterId,
    /// Whether the manager's node runs tasks; counts on a fresh cluster only.
    pub availability: v1::node_spec::Availability,
    /// Directory of the log.
    pub directory: PathBuf,
    /// Settings of log and consensus.
    pub log: ReplicatedConfig,
    /// Address for agents, `host:port`; port 0 lets the system choose.
    pub listen_remote: String,
    /// Address that nodes are told to use; `None` means the one that is listened on, or whatever
    /// they dialled if that is all addresses of the machine.
    pub advertise_remote: Option<String>,
    /// Path of the control socket.
    pub control_socket: PathBuf,
}

/// Why a manager did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log cannot be used.
    #[error("the manager's log cannot be used")]
    Log(#[from] OpenError),
    /// A socket cannot be opened.
    #[error("a listener cannot be opened")]
    Listen(#[source] std::io::Error),
}

/// A running manager.
#[derive(Debug)]
pub struct Manager {
    tasks: Tasks,
    store: ReplicatedStore,
    remote: SocketAddr,
    gate: gate::Gate,
}

impl Manager {
    /// Opens the log, replays it, and serves. Returns as soon as the sockets are open; calls wait
    /// until the manager leads.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config, shutdown: Shutdown) -> Result<Self, StartError> {
        let tasks = Tasks::new(shutdown);
        let clock = Clock::new();
        let (remote_stream, remote) = net::bind_tcp(&config.listen_remote)
            .await
            .map_err(StartError::Listen)?;
        let control_stream = net::bind_unix(&config.control_socket)
            .await
            .map_err(StartError::Listen)?;
        let store = ReplicatedStore::open(
            &config.directory,
            config.log.clone(),
            &config.cluster,
            clock.clone(),
            OsIds::new().next_u64(),
        )
        .await?;
        let gate = gate::Gate::new();
        let (calls, incoming) = streams::channel();
        let known = told_address(config.advertise_remote.as_deref(), remote);
        let address = known.clone().unwrap_or_else(|| remote.to_string());
        let me = leading::Me {
            seed: Seed {
                cluster: config.cluster.clone(),
                node: config.node.clone(),
                availability: config.availability,
            },
            address: known,
        };
        let leading = leading::run(
            store.clone(),
            me,
            clock.clone(),
            gate.clone(),
            incoming,
            tasks.shutdown().clone(),
        );
        tasks.spawn("leader", OnError::Stop, leading);
        let services = services::Services {
            store: store.clone(),
            gate: gate.clone(),
            calls,
            clock,
            own_node: config.node,
            address,
        };
        Self::serve(&tasks, Arc::new(services), remote_stream, control_stream);
        Ok(Self {
            tasks,
            store,
            remote,
            gate,
        })
    }

    fn serve(
        tasks: &Tasks,
        services: Arc<services::Services>,
        remote: tokio_stream::wrappers::TcpListenerStream,
        control: tokio_stream::wrappers::UnixListenerStream,
    ) {
        let stop = tasks.shutdown().clone();
        let router = services::remote(&services);
        tasks.spawn("remote listener", OnError::Stop, async move {
            let served = router.serve_with_incoming_shutdown(remote, async move {
                stop.begun().await;
            });
            served.await.map_err(TaskError::from)
        });
        let stop = tasks.shutdown().clone();
        let router = services::control(&services);
        tasks.spawn("control socket", OnError::Stop, async move {
            let served = router.serve_with_incoming_shutdown(control, async move {
                stop.begun().await;
            });
            served.await.map_err(TaskError::from)
        });
    }

    /// The address that agents dial.
    pub fn remote_addr(&self) -> SocketAddr {
        self.remote
    }

    /// The store, to look at.
    pub fn store(&self) -> &ReplicatedStore {
        &self.store
    }

    /// Waits until calls are answered, or the manager fails. Cancel safe.
    pub async fn ready(&self) {
        tokio::select! {
            () = self.gate.opened() => {}
            () = self.tasks.shutdown().begun() => {}
        }
    }

    /// The signal that is given when the manager stops by itself.
    pub fn shutdown(&self) -> &Shutdown {
        self.tasks.shutdown()
    }

    /// Stops serving, then closes the log.
    ///
    /// # Errors
    /// The error of the part that failed first, if the manager stopped because of one.
    pub async fn stop(self) -> Result<(), TaskError> {
        let result = self.tasks.finish(STOP_GRACE).await;
        self.store.close().await.map_err(TaskError::from)?;
        result
    }
}

/// The address that nodes are told: "every address of this machine" leads nowhere from another one.
fn told_address(advertised: Option<&str>, listened: SocketAddr) -> Option<String> {
    match advertised {
        Some(address) => Some(address.to_owned()),
        None if listened.ip().is_unspecified() => None,
        None => Some(listened.to_string()),
    }
}
