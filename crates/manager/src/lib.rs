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
//! leader does, but for heartbeats, which are answered where they arrive.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod figures;
mod gate;
mod guard;
mod heartbeats;
mod leading;
mod listening;
mod logs;
mod root_change;
mod secret_drivers;
mod services;
mod signing;
mod streams;
#[cfg(test)]
mod tests;
mod unlock;
mod watchman;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_ca::key::KeyPem;
use swarm_ca::tokens;
use swarm_ca::unlock::{Seal, draw};
use swarm_leader::{FirstRoot, Seed};
use swarm_raft_io::{OpenError, ReplicatedConfig, ReplicatedStore};
use swarm_rt::metrics::{Gauge, Metrics};
use swarm_rt::tasks::TaskError;
use swarm_rt::tls::Credentials;
use swarm_rt::{Clock, OnError, OsIds, Shutdown, Tasks, net};
use swarm_types::{ClusterId, NodeId};
use tokio::sync::watch;

use heartbeats::Heartbeats;
use listening::Bounds;
use services::Services;

pub use gate::READY_WAIT_MAX;
pub use secret_drivers::PLUGINS_DIR;
pub use swarm_ca::waiting::WAITING_MAX as WAITING_NODES_MAX;
pub use swarm_raft_io::ReplicatedConfig as LogConfig;
pub use swarm_raft_io::keys::KeyKeeper;

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
    /// Address that nodes are told to use; `None` means the one that is listened on, or for each
    /// node the one at which it arrived if that is all addresses of the machine.
    pub advertise_remote: Option<String>,
    /// Path of the control socket.
    pub control_socket: PathBuf,
    /// What the manager proves itself with.
    pub security: Credentials,
    /// The root of a cluster which this node starts. Later the store has it.
    pub first_root: Option<RootMaterial>,
    /// What keeps the data keys of the log.
    pub data_keys: Arc<dyn KeyKeeper>,
    /// Where the manager's figures go.
    pub metrics: Metrics,
    /// Directory with the sockets of plugins ([`PLUGINS_DIR`]).
    pub plugins: PathBuf,
    /// Nodes of one token, and of one address, that have a certificate and were never in session,
    /// at most ([`WAITING_NODES_MAX`]).
    pub waiting_nodes_max: usize,
}

/// A root certificate and who signs for it.
#[derive(Clone, Debug)]
pub struct RootMaterial {
    /// The certificate as PEM, byte for byte as nodes get it.
    pub cert_pem: String,
    /// The key as PEM; without it the external authorities sign.
    pub key_pem: Option<KeyPem>,
    /// External authorities that sign for the root.
    pub external_cas: Vec<v1::ExternalCa>,
    /// Whether managers are locked from the start.
    pub autolock: bool,
}

impl RootMaterial {
    fn first_root(&self) -> FirstRoot {
        let mut ids = OsIds::new();
        let key = self.key_pem.as_ref().map(|key| key.as_bytes().to_vec());
        FirstRoot {
            cert_pem: self.cert_pem.clone().into(),
            key_pem: key.unwrap_or_default().into(),
            token_secrets: [tokens::secret(&mut ids), tokens::secret(&mut ids)],
            unlock_key: self.autolock.then(|| draw(&mut ids)),
            external_cas: self.external_cas.clone(),
        }
    }
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
    wanted_seal: watch::Receiver<Option<Seal>>,
    unsealed: watch::Sender<Option<String>>,
    metrics: Metrics,
}

impl Manager {
    /// Opens the log, replays it, and serves. Returns as soon as the sockets are open; calls wait
    /// until the manager leads.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config, shutdown: Shutdown) -> Result<Self, StartError> {
        Self::start_within(config, Bounds::default(), shutdown).await
    }

    /// The same with bounds of its own for the remote listener.
    pub(crate) async fn start_within(
        config: Config,
        bounds: Bounds,
        shutdown: Shutdown,
    ) -> Result<Self, StartError> {
        let (tasks, clock) = (Tasks::new(shutdown), Clock::new());
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
            Arc::clone(&config.data_keys),
        )
        .await?;
        let gate = gate::Gate::new();
        let known = told_address(config.advertise_remote.as_deref(), remote);
        let plugins = secret_drivers::Plugins::new(config.plugins.clone());
        let me = config.me(known.clone().unwrap_or_default(), plugins.clone());
        figures::show(
            &config.metrics,
            store.clone(),
            gate.clone(),
            (&config.cluster, &config.node),
            me.sessions.clone(),
        );
        let wanted_seal = watch_seal(&tasks, &store);
        let (unsealed, why_unsealed) = watch::channel(None);
        let heartbeats = me.heartbeats.clone();
        let (calls, logs) = spawn_loops(&tasks, &store, &clock, &gate, me);
        let services = Arc::new(Services {
            store: store.clone(),
            gate: gate.clone(),
            calls,
            heartbeats,
            logs,
            clock,
            metrics: config.metrics.clone(),
            own_node: config.node.clone(),
            waiting_nodes_max: config.waiting_nodes_max,
            address: known.unwrap_or_else(|| remote.to_string()),
            local_address: local_address(remote),
            plugins,
            credentials: config.security.clone(),
            unsealed: why_unsealed,
        });
        listening::serve_control(&tasks, &services, control_stream);
        let listening = listening::Remote {
            tasks: &tasks,
            services: &services,
            config: &config,
            bounds,
        };
        listening.serve(remote_stream).map_err(StartError::Listen)?;
        Ok(Self {
            tasks,
            store,
            remote,
            gate,
            wanted_seal,
            unsealed,
            metrics: config.metrics,
        })
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

    /// The same for a task of its own.
    pub fn when_ready(&self) -> impl Future<Output = ()> + Send + use<> {
        let (gate, stop) = (self.gate.clone(), self.tasks.shutdown().clone());
        async move {
            tokio::select! {
                () = gate.opened() => {}
                () = stop.begun() => {}
            }
        }
    }

    /// How the cluster wants the key files of its managers to be sealed; `None` until there is a
    /// cluster. Changes when the key does.
    pub fn wanted_seal(&self) -> watch::Receiver<Option<Seal>> {
        self.wanted_seal.clone()
    }

    /// Is to be told why the key file is not sealed as wanted, as long as it is not: people who ask
    /// about this node are shown that.
    pub fn unsealed(&self) -> watch::Sender<Option<String>> {
        self.unsealed.clone()
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
        figures::forget(&self.metrics);
        self.store.close().await.map_err(TaskError::from)?;
        result
    }
}

impl Config {
    /// Who the manager is, for the time in which it leads.
    fn me(&self, address: String, plugins: secret_drivers::Plugins) -> leading::Me {
        leading::Me {
            seed: Seed {
                cluster: self.cluster.clone(),
                node: self.node.clone(),
                availability: self.availability,
                root: self.first_root.as_ref().map(RootMaterial::first_root),
                own_certificate: self.security.chain_pem().into(),
            },
            address,
            plugins,
            credentials: self.security.clone(),
            sessions: Gauge::default(),
            metrics: self.metrics.clone(),
            delay: figures::SchedulingDelay::show(&self.metrics),
            heartbeats: Heartbeats::default(),
        }
    }
}

/// Starts what works behind the services.
fn spawn_loops(
    tasks: &Tasks,
    store: &ReplicatedStore,
    clock: &Clock,
    gate: &gate::Gate,
    me: leading::Me,
) -> (streams::Calls, logs::LogCalls) {
    let (calls, incoming) = streams::channel();
    let stop = tasks.shutdown().clone();
    let (store, clock) = (store.clone(), clock.clone());
    let leading = leading::run(
        store.clone(),
        me,
        clock.clone(),
        gate.clone(),
        incoming,
        stop.clone(),
    );
    tasks.spawn("leader", OnError::Stop, leading);
    let (log_calls, incoming) = logs::channel();
    let broker = logs::run(store, clock, incoming, stop);
    tasks.spawn("log broker", OnError::Stop, broker);
    (calls, log_calls)
}

fn watch_seal(tasks: &Tasks, store: &ReplicatedStore) -> watch::Receiver<Option<Seal>> {
    let (sender, wanted) = watch::channel(None);
    let stop = tasks.shutdown().clone();
    let watching = unlock::run(store.clone(), sender, stop);
    tasks.spawn("unlock key", OnError::Stop, watching);
    wanted
}

/// The address that nodes are told: "every address of this machine" leads nowhere from another one.
fn told_address(advertised: Option<&str>, listened: SocketAddr) -> Option<String> {
    match advertised {
        Some(address) => Some(address.to_owned()),
        None if listened.ip().is_unspecified() => None,
        None => Some(listened.to_string()),
    }
}

/// The same for this machine itself.
fn local_address(listened: SocketAddr) -> String {
    let loopback: IpAddr = match listened.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(loopback, listened.port()).to_string()
}
