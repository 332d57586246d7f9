//! The program around the library: `init` makes a root, `serve` signs.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use signing_server::{Authority, ClientRule, Options, Server};

/// An example of an external certificate authority for a cluster.
#[derive(Debug, Parser)]
#[command(name = "signing-server", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a root certificate with its key, and what the first manager of a new cluster starts
    /// with.
    Init {
        /// A new directory.
        directory: PathBuf,
        /// Only the root, for a cluster that is to be rotated to it.
        #[arg(long)]
        root_only: bool,
    },
    /// Sign for the managers of one cluster until the process is ended.
    Serve(Serve),
}

#[derive(Debug, Args)]
struct Serve {
    /// The directory of `init`.
    directory: PathBuf,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8443")]
    listen: String,
    /// A name or address by which managers know this server; give it for each one.
    #[arg(long, default_value = "localhost")]
    name: Vec<String>,
    /// The cluster whose managers are served, from `swarmctl cluster ls`.
    #[arg(long)]
    cluster: String,
    /// A file with another root (PEM) by which managers are known: the one that the cluster has
    /// until it is rotated.
    #[arg(long, value_name = "FILE")]
    trust: Vec<PathBuf>,
    /// Sign another root as well, when the cluster is to be rotated away from this authority.
    #[arg(long)]
    cross_sign: bool,
    /// How many hours the certificates of nodes are valid.
    #[arg(long, default_value_t = 2160, value_parser = clap::value_parser!(u64).range(1..=87_600))]
    hours: u64,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Init {
            directory,
            root_only,
        } => init(&directory, root_only),
        Command::Serve(flags) => serve(flags),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("signing-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn init(directory: &std::path::Path, root_only: bool) -> anyhow::Result<()> {
    Authority::create(directory)?;
    let shown = directory.display();
    if root_only {
        anstream::println!("The root is {shown}/root.crt, its key beside it.");
        return Ok(());
    }
    let authority = Authority::load(directory, Duration::from_secs(2160 * 3600))?;
    let first = authority.first_manager(directory)?;
    anstream::println!(
        "The root is {shown}/root.crt, its key beside it. Serve the new cluster with\n\n    \
         signing-server serve {shown} --cluster {cluster}\n\nand start its first manager, {node}, \
         with the certificate that was made for it:\n\n    \
         mkdir -m 700 STATE && cp -r {shown}/certificates STATE\n    \
         swarmd -d STATE --external-ca protocol=cfssl,url=https://localhost:8443/sign",
        cluster = first.cluster,
        node = first.node,
    );
    Ok(())
}

fn serve(flags: Serve) -> anyhow::Result<()> {
    let authority = Authority::load(&flags.directory, Duration::from_secs(flags.hours * 3600))?;
    let trusted = flags
        .trust
        .iter()
        .map(|path| std::fs::read_to_string(path).with_context(|| path.display().to_string()));
    let options = Options {
        listen: flags.listen,
        names: flags.name,
        rule: ClientRule {
            cluster: flags.cluster,
            cross_sign: flags.cross_sign,
        },
        trusted_pem: trusted.collect::<anyhow::Result<_>>()?,
    };
    let name = options.names.first().cloned().unwrap_or_default();
    let server = Server::start(authority, options)?;
    let port = server.address().port();
    anstream::println!("signing at https://{name}:{port}/sign");
    server.join();
    Ok(())
}
