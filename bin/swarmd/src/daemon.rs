//! The daemon proper: one node until it is told to stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use swarm_api::v1;
use swarm_executor_native::{NativeConfig, NativeExecutor};
use swarm_manager::LogConfig;
use swarm_node::leave;
use swarm_node::{Config, Join, Locking, Node, RemovedNode};
use swarm_rt::metrics::{self, Metrics};
use swarm_rt::net::{self, Address};
use swarm_rt::{Shutdown, Tasks, logging, private, socket_path};
use swarm_types::resources;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Availability, Daemon, Executor, LogFormat};
use crate::locking;
use crate::open_files;

/// Runs a node until SIGINT or SIGTERM, or until it fails.
pub(crate) async fn run(args: Daemon) -> anyhow::Result<()> {
    args.later.check()?;
    check(&args)?;
    let locking = locking::read(&args.locking)?;
    let format = match args.log_format {
        LogFormat::Text => logging::Format::Text,
        LogFormat::Json => logging::Format::Json,
    };
    logging::init(&args.log_level, format)
        .map_err(|error| anyhow::anyhow!("--log-level {}: {error}", args.log_level))?;
    let Executor::Native = args.executor;
    let mut native = NativeConfig::new(native_directory(&args.state_dir)?);
    native.path = search_path();
    native.hostname.clone_from(&args.hostname);
    open_files::raise(&mut native)?;
    if let Some(text) = &args.generic_node_resources {
        native.generic_resources = resources::parse(text)
            .map_err(|error| anyhow::anyhow!("--generic-node-resources {text}: {error}"))?;
    }
    let executor = NativeExecutor::new(native).map_err(|error| anyhow::anyhow!("{error}"))?;
    let metrics = Metrics::new();
    logging::show(&metrics);
    let listeners = Tasks::new(Shutdown::new());
    if let Some(address) = &args.listen_metrics {
        show_metrics(address, &listeners, metrics.clone()).await?;
    }
    // A worker may wait long for its manager.
    let config = config(&args, metrics, locking);
    let node = tokio::select! {
        node = Node::start(config, Arc::new(executor), Shutdown::new()) => node?,
        result = stop_requested() => return result,
    };
    tokio::select! {
        () = node.ready() => {}
        result = stop_requested() => {
            result?;
            return stop(node).await;
        }
    }
    // It may have stopped by itself instead.
    if !node.shutdown().has_begun() {
        let remote = node.remote_addr().map(tracing::field::display);
        tracing::info!(id = %node.id(), remote, "node is ready");
        if node.remote_addr().is_some() {
            tell_addresses(&args);
        }
    }
    tokio::select! {
        result = stop_requested() => {
            result?;
            tracing::info!("stopping; tasks run on");
        }
        () = node.shutdown().begun() => {}
    }
    stop(node).await
}

/// Makes the state directory and that of native tasks private before anything is put into them.
fn native_directory(state_dir: &Path) -> anyhow::Result<PathBuf> {
    let native = state_dir.join(leave::NATIVE_DIRECTORY);
    private::directory(state_dir)
        .with_context(|| format!("use state directory {}", state_dir.display()))?;
    private::subdirectory(&native)
        .with_context(|| format!("use state directory {}", native.display()))?;
    Ok(native)
}

async fn stop(node: Node) -> anyhow::Result<()> {
    let stopped = node.stop().await;
    stopped.map_err(|error| match error.downcast::<RemovedNode>() {
        Ok(removed) => anyhow::Error::new(*removed),
        Err(error) => anyhow::anyhow!("{}", swarm_rt::chain(&*error)),
    })
}

fn check(args: &Daemon) -> anyhow::Result<()> {
    if let Some(address) = &args.join_addr {
        let parsed = Address::parse(address).map_err(|error| anyhow::anyhow!(error))?;
        anyhow::ensure!(
            matches!(parsed, Address::Tcp(_)),
            "--join-addr {address} must be host:port"
        );
    }
    socket_path::check("--listen-control-api", &args.listen_control_api)?;
    socket_path::check_directory("--plugins-dir", &args.plugins_dir)?;
    Ok(())
}

/// Says what the choice of addresses means for a manager.
fn tell_addresses(args: &Daemon) {
    if args.advertise_remote_api.is_none() && net::is_loopback(&args.listen_remote_api) {
        tracing::warn!(
            listen = args.listen_remote_api,
            "only this machine reaches the manager; choose --listen-remote-api for others to join"
        );
    }
}

/// Shows figures to whoever asks, as long as the daemon runs.
async fn show_metrics(address: &str, tasks: &Tasks, metrics: Metrics) -> anyhow::Result<()> {
    let (listener, local) = net::bind_tcp(address)
        .await
        .with_context(|| format!("--listen-metrics {address}"))?;
    if !net::is_loopback(address) {
        tracing::warn!(
            %local,
            "everybody who reaches the address of --listen-metrics can read the figures"
        );
    }
    tracing::info!("figures are at http://{local}/metrics");
    metrics::serve(tasks, listener.into_inner(), metrics);
    Ok(())
}

fn config(args: &Daemon, metrics: Metrics, locking: Locking) -> Config {
    let mut log = LogConfig::default();
    log.member.heartbeat_ticks = args.heartbeat_tick as usize;
    log.member.election_ticks = args.election_tick as usize;
    Config {
        state_dir: args.state_dir.clone(),
        hostname: args.hostname.clone(),
        join: Join {
            address: args.join_addr.clone(),
            token: args.join_token.clone(),
        },
        listen_remote: args.listen_remote_api.clone(),
        advertise_remote: args.advertise_remote_api.clone(),
        control_socket: args.listen_control_api.clone(),
        availability: match args.availability {
            Availability::Active => v1::node_spec::Availability::Active,
            Availability::Pause => v1::node_spec::Availability::Pause,
            Availability::Drain => v1::node_spec::Availability::Drain,
        },
        external_cas: args.external_ca.clone(),
        locking,
        log,
        plugins_dir: args.plugins_dir.clone(),
        waiting_nodes_max: args.waiting_nodes_max,
        metrics,
    }
}

/// Tasks find programs where the daemon finds them.
pub(crate) fn search_path() -> Option<String> {
    #[allow(
        clippy::disallowed_methods,
        reason = "the daemon's own search path has no flag"
    )]
    std::env::var("PATH").ok()
}

/// Waits for SIGINT or SIGTERM.
pub(crate) async fn stop_requested() -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
