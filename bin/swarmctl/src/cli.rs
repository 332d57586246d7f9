//! The command line: global flags and nouns. The verbs of a noun are in its module.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Manage a cluster through the control socket of one of its managers.
///
/// Exit codes: 0 done, 1 refused, 2 wrong usage, 3 not found, 4 timed out, 5 a service did not
/// converge, 6 lines are missing from a log stream, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "swarmctl", version, propagate_version = false)]
pub(crate) struct Cli {
    /// The manager's control socket, a path or unix:///path.
    #[arg(
        short,
        long,
        global = true,
        env = "SWARM_SOCKET",
        default_value = "/var/run/swarmd.sock"
    )]
    pub(crate) socket: PathBuf,
    /// Print ids instead of names.
    #[arg(short, long, global = true)]
    pub(crate) no_resolve: bool,
    /// No moving progress, whatever the value (<https://no-color.org>).
    #[arg(long, global = true, env = "NO_COLOR", hide = true, num_args = 0..=1)]
    pub(crate) no_color: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The cluster and its settings.
    #[command(subcommand)]
    Cluster(crate::cluster::Verb),
    /// Machines that run tasks.
    #[command(subcommand)]
    Node(crate::node::Verb),
    /// Services: what should run, and how often.
    #[command(subcommand)]
    Service(crate::service::Verb),
    /// Tasks: single runs of a service.
    #[command(subcommand)]
    Task(crate::task::Verb),
    /// Say in words why a service, task or node is in the state it is in.
    Why(crate::why::Why),
    /// Print the version.
    Version,
    /// Secrets: data for tasks that no answer shows again.
    #[command(subcommand)]
    Secret(crate::payload::SecretVerb),
    /// Configs: data for tasks.
    #[command(subcommand)]
    Config(crate::payload::ConfigVerb),
    /// Not implemented yet.
    #[command(hide = true)]
    Network(Anything),
}

/// Arguments of a command that is refused anyway.
#[derive(Debug, Args)]
pub(crate) struct Anything {
    /// Whatever.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<String>,
}

/// How a list or an object is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document; the names of its fields are stable.
    Json,
}

/// Flags of every list.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct ListFlags {
    /// Print ids only.
    #[arg(short, long, conflicts_with = "format")]
    pub(crate) quiet: bool,
    /// How to print.
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// One object, and how to print it.
#[derive(Clone, Debug, Args)]
pub(crate) struct InspectFlags {
    /// Id, name, or the beginning of an id that no other has.
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) object: String,
    /// How to print.
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// One object.
#[derive(Clone, Debug, Args)]
pub(crate) struct ObjectArg {
    /// Id, name, or the beginning of an id that no other has.
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) object: String,
}

/// One object or more.
#[derive(Clone, Debug, Args)]
pub(crate) struct ObjectArgs {
    /// Ids, names, or beginnings of ids that no other has.
    #[arg(
        value_name = "OBJECT",
        required = true,
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub(crate) objects: Vec<String>,
}

/// Reads `key=value`.
///
/// # Errors
/// Without `=` or with an empty key, in words.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("write it as key=value".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once(&"swarmctl").chain(words))
    }

    #[test]
    fn the_definition_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_of_the_manual_parses() {
        for line in [
            "cluster ls -q",
            "cluster inspect default --format json",
            "cluster update default --taskhistory 3 --heartbeatperiod 2s",
            "node ls",
            "node inspect n -a",
            "node activate n",
            "node pause n",
            "node drain n",
            "node promote n",
            "node demote n",
            "node accept n",
            "node readmit n --ttl 2h -q",
            "cluster join-token worker",
            "cluster join-token manager --rotate -q",
            "cluster join-token worker --ttl 1h --uses 1 --format json",
            "cluster unlock-key",
            "cluster unlock-key default -q",
            "cluster unlock-key --rotate --format json",
            "cluster update default --autolock=true",
            "cluster update default --autolock false --rotate-unlock-key",
            "cluster tokens ls",
            "cluster tokens rm a b",
            "cluster ca rotate",
            "cluster ca rotate --cert a.pem --key a.key",
            "cluster ca rotate --cert a.pem --external https://ca/sign",
            "cluster ca status -a --format json",
            "cluster update default --cert-expiry 2h --heartbeat-period 2s",
            "cluster update default --external-ca protocol=cfssl,url=https://ca/sign",
            "node update n --label a=b --label c=",
            "node rm -f n",
            "node remove n m",
            "service create --name web -- sleep 1",
            "service update web --replicas 3 --detach",
            "service ls --format json",
            "service inspect -a web",
            "service rm web db",
            "service logs web db --follow --tail 10 --since 10m -t --raw",
            "service logs web --stream stderr --details --format json",
            "task logs web.1 --tail all",
            "task ls -a",
            "task inspect web.1",
            "task rm web.1 web.2",
            "why web --kind service",
            "version",
            "network create --name x",
            "secret create db -f x --label a=b",
            "secret create db --driver vault",
            "secret ls -q",
            "secret inspect db --format json",
            "secret update db --label a=b",
            "secret rm db ca",
            "config create c --file x --template-driver golang",
            "config ls",
            "config inspect c",
            "config remove c d",
            "service create --name web --secret db --config c:/etc/c -- x",
            "service update web --add-secret db,mode=0400 --rm-config c",
            "-s /run/x.sock -n service ls",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            assert!(parse(&words).is_ok(), "{line}: {:?}", parse(&words).err());
        }
    }

    #[test]
    fn wrong_lines_are_refused() {
        for line in [
            "",
            "service",
            "service create",
            "service ls -q --format json",
            "service ls --format yaml",
            "node update n --label =x",
            "task inspect",
            "why",
            "why x --kind cluster",
            "secret create db hush",
            "secret create db --driver vault --file x",
            "secret update db",
            "config create c --driver vault",
            "service create --name web --secret db,x=y -- x",
        ] {
            let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
            assert_eq!(parse(&words).unwrap_err().exit_code(), 2, "{line}");
        }
        assert!(parse(&["service", "inspect", ""]).is_err());
    }

    #[test]
    fn pairs_need_a_key_and_may_have_an_empty_value() {
        assert_eq!(pair("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(pair("a="), Ok(("a".to_owned(), String::new())));
        assert!(pair("a").is_err());
        assert!(pair("=a").is_err());
    }
}
