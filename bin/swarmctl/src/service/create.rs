//! `service create` and `service update`: from flags to a spec to the wait.

use std::time::Duration;

use clap::{Args, ValueEnum};
use swarm_api::v1;
use v1::service_spec::Mode;

use super::doubts;
use super::flags::Flags;
use super::references::{ChangedReferences, NewReferences};
use super::wait;
use super::warnings::warnings;
use crate::cli::ObjectArg;
use crate::failure::Failure;
use crate::lookup::{Named as _, find};
use crate::output::{Context, both, emit_line, note};
use crate::{node, units};

/// The image of a service that names none: the file system of the node, since the native executor
/// runs nothing else so far.
const IMAGE_DEFAULT: &str = "host";

/// Flags of `service create`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The name of the service.
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    name: String,
    /// Whether there is a number of tasks, or one task on each node.
    #[arg(long, value_enum, default_value = "replicated")]
    mode: ModeFlag,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    references: NewReferences,
    #[command(flatten)]
    wait: WaitFlags,
}

/// Flags of `service update`.
#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    object: ObjectArg,
    /// The name of a service cannot be changed.
    #[arg(long, hide = true)]
    name: Option<String>,
    /// Replace the tasks although nothing changes.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    references: ChangedReferences,
    #[command(flatten)]
    wait: WaitFlags,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeFlag {
    Replicated,
    Global,
}

/// How to wait.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct WaitFlags {
    /// Return at once instead of waiting until the service runs.
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// How long the service may take to converge.
    #[arg(long, value_parser = units::duration, default_value = "5m")]
    pub(crate) timeout: Duration,
    /// How long all tasks have to keep running before the service counts as converged.
    #[arg(long, value_parser = units::duration, default_value = "5s")]
    pub(crate) monitor: Duration,
}

/// Creates a service.
///
/// # Errors
/// What is refused; that it does not converge.
pub(crate) async fn create(context: &Context, flags: Create) -> Result<(), Failure> {
    let mut spec = new_spec(&flags)?;
    let manager = &context.manager;
    flags.references.apply(manager, &mut spec).await?;
    doubts::tell(&spec);
    let request = v1::CreateServiceRequest {
        spec: Some(spec.clone()),
    };
    let answer = manager
        .call(manager.control().create_service(request))
        .await?;
    let id = answer.service.map(|service| service.id).unwrap_or_default();
    let printed = emit_line(&id);
    warn(context, &spec).await;
    both(
        printed,
        wait_for(context, &id, &flags.name, flags.wait).await,
    )
}

fn new_spec(flags: &Create) -> Result<v1::ServiceSpec, Failure> {
    let mut spec = v1::ServiceSpec {
        annotations: Some(v1::Annotations {
            name: flags.name.clone(),
            ..Default::default()
        }),
        mode: Some(match flags.mode {
            ModeFlag::Replicated => Mode::Replicated(v1::ReplicatedService { replicas: 1 }),
            ModeFlag::Global => Mode::Global(v1::GlobalService {}),
        }),
        ..Default::default()
    };
    flags.flags.apply(&mut spec)?;
    let task = spec.task.get_or_insert_default();
    if let Some(v1::task_spec::Runtime::Container(container)) = &mut task.runtime {
        if container.image.is_empty() {
            IMAGE_DEFAULT.clone_into(&mut container.image);
        }
        let has_program = !container.command.is_empty() || !container.args.is_empty();
        if container.image == IMAGE_DEFAULT && !has_program {
            return Err(Failure::usage("there is nothing to run").hint(
                "give a program after two dashes: swarmctl service create --name web -- PROGRAM",
            ));
        }
    }
    Ok(spec)
}

/// Updates a service.
///
/// # Errors
/// What is refused, also when nothing changes; that it does not converge.
pub(crate) async fn update(context: &Context, flags: Update) -> Result<(), Failure> {
    if flags.name.is_some() {
        return Err(Failure::usage("--name cannot be changed")
            .hint("remove the service, and create it with its new name"));
    }
    let manager = &context.manager;
    let service: v1::Service = find(manager, &flags.object.object).await?;
    let name = service.name();
    let mut spec = service.spec.clone().unwrap_or_default();
    flags.flags.apply(&mut spec)?;
    flags.references.apply(manager, &mut spec).await?;
    if flags.force {
        let task = spec.task.get_or_insert_default();
        task.force_update = task.force_update.wrapping_add(1);
    }
    if service.spec.as_ref() == Some(&spec) {
        return Err(Failure::refused("no changes detected")
            .hint("`swarmctl service update --help` lists what can be changed"));
    }
    doubts::tell(&spec);
    let request = v1::UpdateServiceRequest {
        service_id: service.id.clone(),
        service_version: service.meta.as_ref().and_then(|meta| meta.version),
        spec: Some(spec.clone()),
        ..Default::default()
    };
    manager
        .call(manager.control().update_service(request))
        .await?;
    let printed = emit_line(&service.id);
    warn(context, &spec).await;
    both(
        printed,
        wait_for(context, &service.id, &name, flags.wait).await,
    )
}

/// Tells on stderr what the spec asks for and some nodes cannot give. The change is made, so a
/// manager that cannot list its nodes is no failure.
async fn warn(context: &Context, spec: &v1::ServiceSpec) {
    for warning in warnings(spec, &node::all(context).await.unwrap_or_default()) {
        note(&format!("warning: {warning}"));
    }
}

async fn wait_for(
    context: &Context,
    id: &str,
    name: &str,
    flags: WaitFlags,
) -> Result<(), Failure> {
    if flags.detach {
        return Ok(());
    }
    wait::until_converged(context, id, name, flags).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn create(words: &[&str]) -> Create {
        let line = ["swarmctl", "service", "create", "--name", "web"];
        let command = Cli::parse_from(line.iter().chain(words)).command;
        let Command::Service(super::super::Verb::Create(flags)) = command else {
            panic!("{command:?}");
        };
        *flags
    }

    #[test]
    fn a_new_service_runs_once_on_the_node_itself() {
        let spec = new_spec(&create(&["--", "sleep", "1"])).unwrap();
        let container = swarm_types::spec::container(spec.task.as_ref().unwrap()).unwrap();
        assert_eq!(container.image, "host");
        assert_eq!(swarm_types::spec::replicas(&spec), Some(1));
        let global = new_spec(&create(&["--mode", "global", "--", "x"])).unwrap();
        assert!(swarm_types::spec::is_global(&global));
    }

    #[test]
    fn a_host_image_needs_a_program_and_others_do_not() {
        assert!(new_spec(&create(&[])).is_err());
        assert!(new_spec(&create(&["--command", "x"])).is_ok());
        assert!(new_spec(&create(&["--image", "nginx"])).is_ok());
    }

    #[test]
    fn waiting_is_the_default() {
        let wait = create(&["--", "x"]).wait;
        assert!(!wait.detach);
        assert_eq!(wait.timeout, Duration::from_secs(300));
        assert_eq!(wait.monitor, Duration::from_secs(5));
        assert!(create(&["-d", "--", "x"]).wait.detach);
    }
}
