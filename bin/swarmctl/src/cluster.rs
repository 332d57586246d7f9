//! `swarmctl cluster`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use swarm_api::v1;
use swarm_types::time::{duration_from_wire, duration_to_wire};

use crate::cli::{Format, InspectFlags, ListFlags, ObjectArg, pair};
use crate::failure::Failure;
use crate::lookup::{Named as _, find};
use crate::output::{Context, both, emit, emit_json, emit_line};
use crate::view::{ClusterView, LogDriverView};
use crate::{ca, table, tokens, units, unlock};

/// The verbs of a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the clusters.
    #[command(visible_alias = "list")]
    Ls(ListFlags),
    /// Show the settings of a cluster.
    Inspect(InspectFlags),
    /// Change the settings of a cluster.
    Update(Box<Update>),
    /// Show the join token of a role, replace it, or make one with limits.
    JoinToken(tokens::JoinToken),
    /// Join tokens with limits.
    #[command(subcommand)]
    Tokens(tokens::Verb),
    /// The root certificate, and the certificates of nodes.
    #[command(subcommand)]
    Ca(ca::Verb),
    /// Show the key that unlocks managers, or replace it.
    UnlockKey(unlock::UnlockKey),
}

/// Flags of `cluster update`.
#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    object: ObjectArg,
    /// How long certificates of nodes are valid.
    #[arg(long, alias = "cert-expiry", value_parser = units::duration)]
    certexpiry: Option<Duration>,
    /// An external CA of the current root, as protocol=cfssl,url=https://...; all that are listed
    /// are replaced by those given.
    #[arg(long, value_parser = external_ca)]
    external_ca: Vec<v1::ExternalCa>,
    /// How many ended tasks of a slot are kept.
    #[arg(long, allow_negative_numbers = true)]
    taskhistory: Option<i64>,
    /// How often agents report that they are alive.
    #[arg(long, alias = "heartbeat-period", value_parser = units::duration)]
    heartbeatperiod: Option<Duration>,
    /// Log driver of tasks that name none.
    #[arg(long)]
    log_driver: Option<String>,
    /// Option of the log driver, as key=value; all options are replaced by those given.
    #[arg(long, value_parser = pair, requires = "log_driver")]
    log_opt: Vec<(String, String)>,
    /// Replace a join token.
    #[arg(long, value_enum)]
    rotate_join_token: Option<Role>,
    /// Replace the key that unlocks managers, and print the new one.
    #[arg(long)]
    rotate_unlock_key: bool,
    /// Whether managers are locked when they start again; the key is printed when that begins.
    #[arg(long, value_name = "true|false")]
    autolock: Option<bool>,
}

/// Whose join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Of workers.
    Worker,
    /// Of managers.
    Manager,
}

impl Role {
    /// As the manager calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }
}

/// Reads `protocol=cfssl,url=URL[,key=value]`.
///
/// # Errors
/// What is missing or malformed, in words.
fn external_ca(text: &str) -> Result<v1::ExternalCa, String> {
    let mut external = v1::ExternalCa::default();
    let mut protocol = None;
    for word in text.split(',') {
        let (key, value) = pair(word)?;
        match key.as_str() {
            "protocol" => protocol = Some(value),
            "url" => external.url = value,
            _ => {
                external.options.insert(key, value);
            }
        }
    }
    match protocol.as_deref() {
        Some(name) if name.eq_ignore_ascii_case("cfssl") => {}
        Some(other) => return Err(format!("protocol {other:?} is not known; it must be cfssl")),
        None => return Err("the protocol is missing; write protocol=cfssl,url=...".to_owned()),
    }
    if external.url.is_empty() {
        return Err("the url is missing; write protocol=cfssl,url=...".to_owned());
    }
    Ok(external)
}

/// Runs a verb.
///
/// # Errors
/// What the manager refused.
pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Ls(flags) => ls(context, flags).await,
        Verb::Inspect(flags) => inspect(context, &flags).await,
        Verb::Update(flags) => update(context, *flags).await,
        Verb::JoinToken(flags) => tokens::join_token(context, flags).await,
        Verb::Tokens(verb) => tokens::run(context, verb).await,
        Verb::Ca(verb) => ca::run(context, verb).await,
        Verb::UnlockKey(flags) => unlock::run(context, &flags).await,
    }
}

async fn ls(context: &Context, flags: ListFlags) -> Result<(), Failure> {
    let manager = &context.manager;
    let request = v1::ListClustersRequest::default();
    let clusters = manager
        .call(manager.control().list_clusters(request))
        .await?
        .clusters;
    if flags.quiet {
        let ids = clusters.iter().map(|cluster| format!("{}\n", cluster.id));
        return emit(&ids.collect::<String>());
    }
    if flags.format == Format::Json {
        let views = clusters
            .iter()
            .map(|cluster| ClusterView::new(cluster, false));
        return emit_json(&views.collect::<Vec<_>>());
    }
    let rows = clusters.iter().map(|it| vec![it.id.clone(), it.name()]);
    emit(&table::render(&["ID", "Name"], rows.collect()))
}

async fn inspect(context: &Context, flags: &InspectFlags) -> Result<(), Failure> {
    let cluster: v1::Cluster = find(&context.manager, &flags.object).await?;
    match flags.format {
        Format::Json => emit_json(&ClusterView::new(&cluster, true)),
        Format::Table => emit(&table::fields(&summary(&cluster))),
    }
}

fn summary(cluster: &v1::Cluster) -> Vec<(String, String)> {
    let spec = cluster.spec.clone().unwrap_or_default();
    let mut fields = Vec::new();
    let mut push = |name: &str, value: String| fields.push((name.to_owned(), value));
    push("ID", cluster.id.clone());
    push("Name", cluster.name());
    if let Some(orchestration) = spec.orchestration {
        let kept = orchestration.task_history_retention_limit;
        push("Task history entries", kept.to_string());
    }
    let period = spec
        .dispatcher
        .and_then(|dispatcher| dispatcher.heartbeat_period);
    if let Some(period) = period.as_ref().and_then(duration_from_wire) {
        push("Heartbeat period", units::show_duration(period));
    }
    let locked = if is_locked(cluster.spec.as_ref()) {
        "yes"
    } else {
        "no"
    };
    push("Managers are locked", locked.to_owned());
    let ca = spec.ca_config.unwrap_or_default();
    if let Some(expiry) = ca.node_cert_expiry.as_ref().and_then(duration_from_wire) {
        push("Certificate validity", units::show_duration(expiry));
    }
    for external in &ca.external_cas {
        let protocol =
            crate::view::enum_name(external.protocol, |it: v1::external_ca::CaProtocol| {
                it.as_str_name()
            });
        push(
            "External CA",
            format!("{}: {}", protocol.to_lowercase(), external.url),
        );
    }
    let tokens = cluster
        .root_ca
        .as_ref()
        .and_then(|root| root.join_tokens.as_ref());
    if let Some(tokens) = tokens {
        push("Worker join token", tokens.worker.clone());
        push("Manager join token", tokens.manager.clone());
    }
    if let Some(driver) = spec.task_defaults.and_then(|defaults| defaults.log_driver) {
        push("Default log driver", LogDriverView::of(&driver).text());
    }
    fields
}

async fn update(context: &Context, flags: Update) -> Result<(), Failure> {
    let manager = &context.manager;
    let cluster: v1::Cluster = find(manager, &flags.object.object).await?;
    let mut spec = cluster.spec.clone().unwrap_or_default();
    apply(&flags, &mut spec);
    let rotation = v1::KeyRotation {
        worker_join_token: flags.rotate_join_token == Some(Role::Worker),
        manager_join_token: flags.rotate_join_token == Some(Role::Manager),
        manager_unlock_key: flags.rotate_unlock_key,
    };
    if cluster.spec.as_ref() == Some(&spec) && rotation == v1::KeyRotation::default() {
        return Err(
            Failure::refused(format!("nothing to change on cluster {:?}", cluster.name()))
                .hint("`swarmctl cluster update --help` lists what can be changed"),
        );
    }
    let was_locked = is_locked(cluster.spec.as_ref());
    let has_new_key = rotation.manager_unlock_key || (is_locked(Some(&spec)) && !was_locked);
    send(context, &cluster, Some(spec), rotation).await?;
    let printed = emit_line(&cluster.id);
    if !has_new_key {
        return printed;
    }
    // Somebody else may have switched auto-lock off again.
    let key = unlock::get(context).await?.ok_or_else(|| {
        Failure::refused("the cluster was updated, but its managers are not locked any more")
    })?;
    both(printed, unlock::show(&key, rotation.manager_unlock_key))
}

fn is_locked(spec: Option<&v1::ClusterSpec>) -> bool {
    let config = spec.and_then(|spec| spec.encryption_config.as_ref());
    config.is_some_and(|config| config.auto_lock_managers)
}

/// The cluster that there is.
///
/// # Errors
/// Those of the call, or that it has not begun.
pub(crate) async fn only(context: &Context) -> Result<v1::Cluster, Failure> {
    let manager = &context.manager;
    let request = v1::ListClustersRequest::default();
    let mut control = manager.control();
    let listed = manager.call(control.list_clusters(request)).await?;
    let mut clusters = listed.clusters;
    clusters.pop().ok_or_else(|| {
        Failure::refused("there is no cluster yet").hint("wait until its first manager leads")
    })
}

/// Sends an update of a cluster that was read.
///
/// # Errors
/// What the manager refused.
pub(crate) async fn send(
    context: &Context,
    cluster: &v1::Cluster,
    spec: Option<v1::ClusterSpec>,
    rotation: v1::KeyRotation,
) -> Result<(), Failure> {
    let manager = &context.manager;
    let request = v1::UpdateClusterRequest {
        cluster_id: cluster.id.clone(),
        cluster_version: cluster.meta.as_ref().and_then(|meta| meta.version),
        spec,
        rotation: Some(rotation),
    };
    let mut control = manager.control();
    manager
        .call(control.update_cluster(request))
        .await
        .map(drop)
}

/// Changes what was given, and only that: SwarmKit's command clears the log driver whenever it is
/// not given.
fn apply(flags: &Update, spec: &mut v1::ClusterSpec) {
    if let Some(expiry) = flags.certexpiry {
        let ca = spec.ca_config.get_or_insert_default();
        ca.node_cert_expiry = Some(duration_to_wire(expiry));
    }
    if !flags.external_ca.is_empty() {
        let ca = spec.ca_config.get_or_insert_default();
        ca.external_cas.clone_from(&flags.external_ca);
    }
    if let Some(kept) = flags.taskhistory {
        let orchestration = spec.orchestration.get_or_insert_default();
        orchestration.task_history_retention_limit = kept;
    }
    if let Some(period) = flags.heartbeatperiod {
        let dispatcher = spec.dispatcher.get_or_insert_default();
        dispatcher.heartbeat_period = Some(duration_to_wire(period));
    }
    if let Some(name) = &flags.log_driver {
        spec.task_defaults.get_or_insert_default().log_driver = Some(v1::Driver {
            name: name.clone(),
            options: flags.log_opt.iter().cloned().collect(),
        });
    }
    if let Some(autolock) = flags.autolock {
        spec.encryption_config
            .get_or_insert_default()
            .auto_lock_managers = autolock;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn flags(words: &[&str]) -> Update {
        let line = ["swarmctl", "cluster", "update", "default"];
        let cli = crate::cli::Cli::parse_from(line.iter().chain(words));
        let crate::cli::Command::Cluster(Verb::Update(flags)) = cli.command else {
            panic!("{:?}", cli.command);
        };
        *flags
    }

    #[test]
    fn only_what_is_given_is_changed() {
        let mut spec = v1::ClusterSpec::default();
        apply(
            &flags(&["--log-driver", "json", "--log-opt", "a=b"]),
            &mut spec,
        );
        apply(
            &flags(&["--taskhistory", "3", "--heartbeatperiod", "2s"]),
            &mut spec,
        );
        let driver = spec.task_defaults.clone().unwrap().log_driver.unwrap();
        assert_eq!(LogDriverView::of(&driver).text(), "json a=b");
        assert_eq!(spec.orchestration.unwrap().task_history_retention_limit, 3);
        let before = spec.clone();
        apply(&flags(&[]), &mut spec);
        assert_eq!(spec, before);
    }

    #[test]
    fn external_authorities_need_protocol_and_url() {
        let read = external_ca("protocol=cfssl,url=https://ca:1/sign,label=x").unwrap();
        assert_eq!(
            (read.url.as_str(), read.options["label"].as_str()),
            ("https://ca:1/sign", "x")
        );
        for text in [
            "url=https://ca",
            "protocol=cfssl",
            "protocol=acme,url=https://ca",
            "cfssl",
        ] {
            assert!(external_ca(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_summary_names_every_setting() {
        let cluster = v1::Cluster {
            id: "c1".to_owned(),
            spec: Some(swarm_types::defaults::cluster_spec()),
            ..Default::default()
        };
        assert_eq!(
            table::fields(&summary(&cluster)),
            "ID                    c1\n\
             Name                  default\n\
             Task history entries  5\n\
             Heartbeat period      5 s\n\
             Managers are locked   no\n\
             Certificate validity  90 d\n"
        );
    }
}
