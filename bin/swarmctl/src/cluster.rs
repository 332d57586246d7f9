//! `swarmctl cluster`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use swarm_api::v1;
use swarm_types::time::{duration_from_wire, duration_to_wire};

use crate::cli::{Format, InspectFlags, ListFlags, ObjectArg, pair};
use crate::failure::Failure;
use crate::lookup::{Named as _, find};
use crate::output::{Context, emit, emit_json, emit_line};
use crate::view::{ClusterView, LogDriverView};
use crate::{later, table, units};

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
    /// Not implemented yet.
    #[command(hide = true)]
    UnlockKey(crate::cli::Anything),
}

/// Flags of `cluster update`.
#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    object: ObjectArg,
    /// How long certificates of nodes are valid.
    #[arg(long, value_parser = units::duration)]
    certexpiry: Option<Duration>,
    /// An external CA; refused for now.
    #[arg(long, hide = true)]
    external_ca: Vec<String>,
    /// How many ended tasks of a slot are kept.
    #[arg(long, allow_negative_numbers = true)]
    taskhistory: Option<i64>,
    /// How often agents report that they are alive.
    #[arg(long, value_parser = units::duration)]
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
    /// Replace the key that unlocks managers.
    #[arg(long)]
    rotate_unlock_key: bool,
    /// Whether managers are locked when they restart.
    #[arg(long)]
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

/// Runs a verb.
///
/// # Errors
/// What the manager refused.
pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Ls(flags) => ls(context, flags).await,
        Verb::Inspect(flags) => inspect(context, &flags).await,
        Verb::Update(flags) => update(context, *flags).await,
        Verb::UnlockKey(_) => Err(later::noun(
            "cluster unlock-key",
            "managers are not locked in this version, so there is no key",
        )),
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
    if !flags.external_ca.is_empty() {
        let way_out = "nodes have no certificates in this version; leave it out";
        return Err(later::flag("--external-ca", way_out));
    }
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
    let request = v1::UpdateClusterRequest {
        cluster_id: cluster.id.clone(),
        cluster_version: cluster.meta.as_ref().and_then(|meta| meta.version),
        spec: Some(spec),
        rotation: Some(rotation),
    };
    manager
        .call(manager.control().update_cluster(request))
        .await?;
    emit_line(&cluster.id)
}

/// Changes what was given, and only that: SwarmKit's command clears the log driver whenever it is
/// not given.
fn apply(flags: &Update, spec: &mut v1::ClusterSpec) {
    if let Some(expiry) = flags.certexpiry {
        let ca = spec.ca_config.get_or_insert_default();
        ca.node_cert_expiry = Some(duration_to_wire(expiry));
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
             Certificate validity  90 d\n"
        );
    }
}
