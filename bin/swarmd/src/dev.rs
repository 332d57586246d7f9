//! `swarmd dev`: a manager and a few workers in one process, with an example service.
//!
//! It is the real thing but for its size: real sockets, a real log, tasks as processes. Its state
//! lives in a temporary directory that goes away with it.

mod example;
mod http;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use swarm_api::v1;
use swarm_executor_native::{NativeConfig, NativeExecutor};
use swarm_manager::{LogConfig, PLUGINS_DIR, WAITING_NODES_MAX};
use swarm_node::{Config, Join, Locking, Node};
use swarm_rt::metrics::Metrics;
use swarm_rt::{Shutdown, logging, socket_path};

use crate::args::Dev;
use crate::daemon::{search_path, stop_requested};
use crate::open_files;
use example::Example;

/// A log of a cluster that lives for an afternoon; the usual 64 MiB would be mostly zeros.
const LOG_SEGMENT_BYTES: u64 = 4 << 20;
/// Between two looks at the progress.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How long taking everything down may take.
const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs the cluster until Ctrl-C, or until the example has answered if that is all that was asked.
pub(crate) async fn run(args: Dev) -> anyhow::Result<()> {
    logging::init(&args.log_level, logging::Format::Text)
        .map_err(|error| anyhow::anyhow!("--log-level {}: {error}", args.log_level))?;
    let directory = tempfile::Builder::new().prefix("swarmd-dev-").tempdir()?;
    let socket = directory.path().join("swarmd.sock");
    socket_path::check_or("the control socket below TMPDIR", &socket, || {
        "`TMPDIR=/tmp swarmd dev`".to_owned()
    })?;
    let nodes = tokio::select! {
        nodes = start_nodes(&args, directory.path(), &socket) => nodes?,
        stop = stop_requested() => return stop,
    };
    let result = use_cluster(&args, &socket).await;
    say("taking everything down ...");
    let down = take_down(&socket, nodes).await;
    result.and(down)
}

async fn start_nodes(args: &Dev, directory: &Path, socket: &Path) -> anyhow::Result<Vec<Node>> {
    say(&format!(
        "starting 1 manager and {} workers in {}",
        args.nodes,
        directory.display()
    ));
    let manager = start_node("manager", directory, socket, Join::default()).await?;
    let address = manager
        .remote_addr()
        .context("the manager has an address")?
        .to_string();
    let mut nodes = vec![manager];
    let all = async {
        nodes[0].ready().await;
        let join = Join {
            address: Some(address),
            token: Some(example::worker_token(socket).await?),
        };
        for number in 1..=args.nodes {
            let name = format!("node-{number}");
            nodes.push(start_node(&name, directory, socket, join.clone()).await?);
        }
        for node in &nodes {
            node.ready().await;
        }
        anyhow::Ok(())
    };
    let limit = Duration::from_secs(args.timeout);
    tokio::time::timeout(limit, all)
        .await
        .with_context(|| format!("not all nodes were ready after {} s", args.timeout))??;
    Ok(nodes)
}

async fn start_node(
    name: &str,
    directory: &Path,
    socket: &Path,
    join: Join,
) -> anyhow::Result<Node> {
    let state_dir = directory.join(name);
    let mut native = NativeConfig::new(state_dir.join("native"));
    native.hostname = Some(name.to_owned());
    native.path = search_path();
    open_files::raise(&mut native)?;
    let executor = NativeExecutor::new(native).map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut log = LogConfig::default();
    log.member.segment_bytes = LOG_SEGMENT_BYTES;
    // The manager only manages, so that every worker can be killed without losing the cluster.
    let availability = match join.address {
        None => v1::node_spec::Availability::Drain,
        Some(_) => v1::node_spec::Availability::Active,
    };
    let config = Config {
        state_dir,
        hostname: Some(name.to_owned()),
        join,
        listen_remote: "127.0.0.1:0".to_owned(),
        advertise_remote: None,
        control_socket: socket.to_owned(),
        availability,
        external_cas: Vec::new(),
        locking: Locking::default(),
        log,
        metrics: Metrics::new(),
        plugins_dir: PLUGINS_DIR.into(),
        waiting_nodes_max: WAITING_NODES_MAX,
    };
    Node::start(config, Arc::new(executor), Shutdown::new())
        .await
        .with_context(|| format!("start {name}"))
}

async fn use_cluster(args: &Dev, socket: &Path) -> anyhow::Result<()> {
    let mut example = Example::deploy(socket, args).await?;
    tokio::select! {
        converged = converge(&mut example, args) => converged?,
        stop = stop_requested() => return stop,
    }
    let seen = example.visit().await?;
    for line in &seen.lines {
        say(line);
    }
    say(&format!(
        "{} replicas on {} nodes answer HTTP",
        seen.lines.len(),
        seen.nodes
    ));
    if args.check {
        return Ok(());
    }
    say(&hints(socket, &example));
    stop_requested().await
}

/// Shows how far the service is until all replicas run.
async fn converge(example: &mut Example, args: &Dev) -> anyhow::Result<()> {
    let bar = ProgressBar::new(u64::from(args.replicas));
    bar.set_style(ProgressStyle::with_template(
        "{msg} [{bar:30}] {pos}/{len} running",
    )?);
    bar.set_message(format!("service {}", example.name()));
    let watch = async {
        loop {
            let running = example.running().await?;
            bar.set_position(running);
            if running >= u64::from(args.replicas) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    let watched = tokio::time::timeout(Duration::from_secs(args.timeout), watch).await;
    bar.finish();
    match watched {
        Ok(result) => result,
        Err(_) => anyhow::bail!(
            "the service did not converge within {} s: {}",
            args.timeout,
            example.trouble().await?
        ),
    }
}

fn hints(socket: &Path, example: &Example) -> String {
    let socket = socket.display();
    format!(
        "\nThe cluster runs until you press Ctrl-C. In another terminal:\n\n  \
         export SWARM_SOCKET={socket}\n  \
         swarmctl node ls\n  \
         swarmctl service ls\n  \
         swarmctl task ls\n  \
         swarmctl service update {name} --replicas 9\n  \
         swarmctl why {name}\n  \
         curl {url}\n  \
         kill -9 $(curl -s {url} | sed -n 's/^pid //p')    # and watch it heal\n",
        name = example.name(),
        url = example.url(1),
    )
}

/// Removes the example, waits until its processes are gone, and stops the nodes.
async fn take_down(socket: &Path, nodes: Vec<Node>) -> anyhow::Result<()> {
    let removed = tokio::time::timeout(TEARDOWN_TIMEOUT, example::remove_all(socket)).await;
    // The workers go first, so that none of them looks for a manager that is gone.
    for node in nodes.into_iter().rev() {
        if let Err(error) = node.stop().await {
            tracing::warn!(error = %swarm_rt::chain(&*error), "a node did not stop cleanly");
        }
    }
    match removed {
        Ok(removed) => removed,
        Err(_) => anyhow::bail!(
            "tasks were still running {} s after their service was removed; look for processes \
             of `swarmd hello-web`",
            TEARDOWN_TIMEOUT.as_secs()
        ),
    }
}

fn say(text: &str) {
    logging::say(text);
}

/// The program itself: the example is inside it.
fn own_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("find out the path of this program")
}
