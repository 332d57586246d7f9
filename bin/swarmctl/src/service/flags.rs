//! The flags of `service create` and `service update`, and what they do to a spec: a flag that is
//! not given changes nothing.

use std::time::Duration;

use clap::{Args, ValueEnum};
use swarm_api::v1;
use swarm_types::time::duration_to_wire;
use v1::task_spec::Runtime;

use super::parse::{self, Generic};
use crate::cli::pair;
use crate::failure::Failure;
use crate::{later, units};

/// Flags that both verbs have.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Flags {
    #[command(flatten)]
    later: Later,
    /// A label of the service, as key=value; on update all labels are replaced.
    #[arg(long, value_parser = pair)]
    label: Vec<(String, String)>,
    /// How many tasks run at a time.
    #[arg(long)]
    pub(crate) replicas: Option<u64>,
    /// How many tasks one node may have at most; 0 for no limit.
    #[arg(long)]
    replicas_max_per_node: Option<u64>,
    /// The image of the tasks; `host` is the file system of the node.
    #[arg(long)]
    image: Option<String>,
    /// The host name that tasks see.
    #[arg(long)]
    hostname: Option<String>,
    /// The program to run; once for each word.
    #[arg(long, allow_hyphen_values = true)]
    command: Vec<String>,
    /// An argument of the program; once for each word. Words after `--` are arguments too.
    #[arg(long, allow_hyphen_values = true)]
    args: Vec<String>,
    /// The program and its arguments, or the arguments after --command.
    #[arg(last = true, conflicts_with = "args")]
    words: Vec<String>,
    /// An environment variable, as NAME=value; on update all are replaced.
    #[arg(long)]
    env: Vec<String>,
    /// The working directory.
    #[arg(long)]
    dir: Option<String>,
    /// The user to run as.
    #[arg(long)]
    user: Option<String>,
    /// Give the task a terminal.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    tty: Option<bool>,
    /// Keep the standard input of the task open.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    open_stdin: Option<bool>,
    /// A port that nodes publish, as name:target[/protocol][:published[/protocol]]; on update all
    /// are replaced.
    #[arg(long, value_parser = parse::port)]
    ports: Vec<v1::PortConfig>,
    #[command(flatten)]
    resources: ResourceFlags,
    #[command(flatten)]
    restart: RestartFlags,
    #[command(flatten)]
    rollout: RolloutFlags,
    /// A placement constraint, as in node.labels.zone==a; on update all are replaced.
    #[arg(long)]
    constraint: Vec<String>,
    /// Mount a directory or file of the node, as source:target; on update it is added.
    #[arg(long, value_parser = parse::bind)]
    bind: Vec<v1::Mount>,
    /// Mount an anonymous volume at this target; on update it is added.
    #[arg(long, value_parser = parse::volume)]
    volume: Vec<v1::Mount>,
    /// Mount memory, as target[:size=64m,mode=1770,ro,noexec]; on update it is added.
    #[arg(long, value_parser = parse::tmpfs)]
    tmpfs: Vec<v1::Mount>,
    /// A network that tasks are on, by name or id; on update all are replaced. Only `host` and
    /// `bridge` so far.
    #[arg(long)]
    network: Vec<String>,
    /// Where the output of tasks goes.
    #[arg(long)]
    log_driver: Option<String>,
    /// An option of the log driver, as key=value.
    #[arg(long, value_parser = pair, requires = "log_driver")]
    log_opt: Vec<(String, String)>,
    /// Run an init process in the task.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    init: Option<bool>,
}

/// What a task needs and may use.
#[derive(Clone, Debug, Default, Args)]
struct ResourceFlags {
    /// Memory that is set aside for a task, as in 512m.
    #[arg(long, value_parser = units::bytes)]
    memory_reservation: Option<i64>,
    /// Memory that a task may use, as in 512m.
    #[arg(long, value_parser = units::bytes)]
    memory_limit: Option<i64>,
    /// CPUs that are set aside for a task, as in 0.5.
    #[arg(long, value_parser = units::nano_cpus)]
    cpu_reservation: Option<i64>,
    /// CPUs that a task may use, as in 0.5.
    #[arg(long, value_parser = units::nano_cpus)]
    cpu_limit: Option<i64>,
    /// Generic resources that are set aside for a task, as kind=amount,kind=amount.
    #[arg(long, value_parser = parse::generic)]
    generic_resources: Option<Generic>,
    /// A limit of the kernel, as `name=soft[:hard]`; on update all are replaced.
    #[arg(long, value_parser = parse::ulimit)]
    ulimit: Vec<v1::container_spec::Ulimit>,
    /// How readily the kernel kills the task when memory is short.
    #[arg(long, allow_negative_numbers = true)]
    oom_score_adj: Option<i64>,
}

/// When a task that ended is replaced.
#[derive(Clone, Debug, Default, Args)]
struct RestartFlags {
    /// After which ends a task is replaced.
    #[arg(long, value_enum)]
    restart_condition: Option<Condition>,
    /// How long to wait before a task is replaced; 5s unless given.
    #[arg(long, value_parser = units::duration)]
    restart_delay: Option<Duration>,
    /// How often a task is replaced at most; 0 for no limit.
    #[arg(long)]
    restart_max_attempts: Option<u64>,
    /// The time in which attempts count; 0 for all time.
    #[arg(long, value_parser = units::duration)]
    restart_window: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Condition {
    Any,
    Failure,
    None,
}

/// How an update or rollback goes; stored, and used when rolling updates are implemented.
#[derive(Clone, Debug, Default, Args)]
struct RolloutFlags {
    /// Tasks that an update replaces at a time; 0 for all.
    #[arg(long)]
    update_parallelism: Option<u64>,
    /// The pause after each of them.
    #[arg(long, value_parser = units::duration)]
    update_delay: Option<Duration>,
    /// What a failing update leads to.
    #[arg(long, value_enum)]
    update_on_failure: Option<OnUpdateFailure>,
    /// Whether the old task stops before the new one starts.
    #[arg(long, value_enum)]
    update_order: Option<Order>,
    /// Tasks that a rollback replaces at a time; 0 for all.
    #[arg(long)]
    rollback_parallelism: Option<u64>,
    /// The pause after each of them.
    #[arg(long, value_parser = units::duration)]
    rollback_delay: Option<Duration>,
    /// What a failing rollback leads to.
    #[arg(long, value_enum)]
    rollback_on_failure: Option<OnRollbackFailure>,
    /// Whether the new task stops before the old one starts.
    #[arg(long, value_enum)]
    rollback_order: Option<Order>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnUpdateFailure {
    Pause,
    Continue,
    Rollback,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnRollbackFailure {
    Pause,
    Continue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Order {
    StopFirst,
    StartFirst,
}

/// Flags of SwarmKit's command that are refused for now, each by name.
#[derive(Clone, Debug, Default, Args)]
struct Later {
    #[arg(long, hide = true)]
    add_capability: Vec<String>,
    #[arg(long, hide = true)]
    rm_capability: Vec<String>,
    #[arg(long, hide = true)]
    npipe: Vec<String>,
}

impl Later {
    fn check(&self) -> Result<(), Failure> {
        const NO_CAPABILITIES: &str = "tasks have the capabilities of the user they run as";
        let refused = [
            ("--add-capability", &self.add_capability, NO_CAPABILITIES),
            ("--rm-capability", &self.rm_capability, NO_CAPABILITIES),
            (
                "--npipe",
                &self.npipe,
                "named pipes are of Windows; use --bind source:target",
            ),
        ];
        match refused.iter().find(|(_, values, _)| !values.is_empty()) {
            Some((name, _, way_out)) => Err(later::flag(name, way_out)),
            None => Ok(()),
        }
    }
}

impl Flags {
    /// Applies what was given.
    ///
    /// # Errors
    /// A flag that is not implemented yet, or does not fit the service.
    pub(crate) fn apply(&self, spec: &mut v1::ServiceSpec) -> Result<(), Failure> {
        self.later.check()?;
        self.apply_to_service(spec)?;
        self.rollout.apply(spec);
        let task = spec.task.get_or_insert_default();
        self.apply_to_task(task);
        self.restart.apply(task);
        self.resources.apply(task);
        let container = match &mut task.runtime {
            Some(Runtime::Container(container)) => container,
            Some(Runtime::Attachment(_) | Runtime::Generic(_)) => {
                return Err(Failure::refused(
                    "this service runs no containers; it cannot be changed here",
                ));
            }
            none @ None => match none.insert(Runtime::Container(v1::ContainerSpec::default())) {
                Runtime::Container(container) => container,
                Runtime::Attachment(_) | Runtime::Generic(_) => unreachable!("just inserted"),
            },
        };
        self.apply_to_container(container);
        Ok(())
    }

    fn apply_to_service(&self, spec: &mut v1::ServiceSpec) -> Result<(), Failure> {
        use v1::service_spec::Mode;
        if !self.label.is_empty() {
            let annotations = spec.annotations.get_or_insert_default();
            annotations.labels = self.label.iter().cloned().collect();
        }
        if !self.ports.is_empty() {
            let endpoint = spec.endpoint.get_or_insert_default();
            endpoint.ports = self.ports.clone();
        }
        let Some(replicas) = self.replicas else {
            return Ok(());
        };
        match &mut spec.mode {
            Some(Mode::Replicated(mode)) => {
                mode.replicas = replicas;
                Ok(())
            }
            None => {
                spec.mode = Some(Mode::Replicated(v1::ReplicatedService { replicas }));
                Ok(())
            }
            Some(Mode::Global(_) | Mode::ReplicatedJob(_) | Mode::GlobalJob(_)) => Err(
                Failure::usage("--replicas is for services of mode replicated").hint(
                    "a global service has one task on each node; choose them with --constraint",
                ),
            ),
        }
    }

    fn apply_to_task(&self, task: &mut v1::TaskSpec) {
        if let Some(most) = self.replicas_max_per_node {
            task.placement.get_or_insert_default().max_replicas = most;
        }
        if !self.constraint.is_empty() {
            let placement = task.placement.get_or_insert_default();
            placement.constraints = self.constraint.clone();
        }
        if !self.network.is_empty() {
            let attach = |target: &String| v1::NetworkAttachmentConfig {
                target: target.clone(),
                ..Default::default()
            };
            task.networks = self.network.iter().map(attach).collect();
        }
        if let Some(name) = &self.log_driver {
            task.log_driver = Some(v1::Driver {
                name: name.clone(),
                options: self.log_opt.iter().cloned().collect(),
            });
        }
    }

    fn apply_to_container(&self, container: &mut v1::ContainerSpec) {
        let set = |place: &mut String, value: &Option<String>| {
            if let Some(value) = value {
                place.clone_from(value);
            }
        };
        set(&mut container.image, &self.image);
        set(&mut container.hostname, &self.hostname);
        set(&mut container.dir, &self.dir);
        set(&mut container.user, &self.user);
        let replace = |place: &mut Vec<String>, values: &Vec<String>| {
            if !values.is_empty() {
                place.clone_from(values);
            }
        };
        replace(&mut container.command, &self.command);
        replace(&mut container.args, &self.args);
        replace(&mut container.args, &self.words);
        replace(&mut container.env, &self.env);
        container.tty = self.tty.unwrap_or(container.tty);
        container.open_stdin = self.open_stdin.unwrap_or(container.open_stdin);
        container.init = self.init.or(container.init);
        for mounts in [&self.bind, &self.volume, &self.tmpfs] {
            container.mounts.extend(mounts.iter().cloned());
        }
        if !self.resources.ulimit.is_empty() {
            container.ulimits = self.resources.ulimit.clone();
        }
        if let Some(score) = self.resources.oom_score_adj {
            container.oom_score_adj = score;
        }
    }
}

impl ResourceFlags {
    fn apply(&self, task: &mut v1::TaskSpec) {
        let amounts = [
            (
                self.memory_reservation,
                self.cpu_reservation,
                &self.generic_resources,
                true,
            ),
            (self.memory_limit, self.cpu_limit, &None, false),
        ];
        for (memory, cpus, generic, is_reservation) in amounts {
            if memory.is_none() && cpus.is_none() && generic.is_none() {
                continue;
            }
            let resources = task.resources.get_or_insert_default();
            let place = if is_reservation {
                resources.reservations.get_or_insert_default()
            } else {
                resources.limits.get_or_insert_default()
            };
            place.memory_bytes = memory.unwrap_or(place.memory_bytes);
            place.nano_cpus = cpus.unwrap_or(place.nano_cpus);
            if let Some(Generic(generic)) = generic {
                place.generic.clone_from(generic);
            }
        }
    }
}

impl RestartFlags {
    /// A policy that was missing begins as {ANY}.
    fn apply(&self, task: &mut v1::TaskSpec) {
        use v1::restart_policy::RestartCondition;
        let is_given = self.restart_condition.is_some()
            || self.restart_delay.is_some()
            || self.restart_max_attempts.is_some()
            || self.restart_window.is_some();
        if !is_given {
            return;
        }
        let policy = task.restart.get_or_insert_with(|| v1::RestartPolicy {
            condition: RestartCondition::Any as i32,
            ..Default::default()
        });
        if let Some(condition) = self.restart_condition {
            policy.condition = match condition {
                Condition::Any => RestartCondition::Any,
                Condition::Failure => RestartCondition::OnFailure,
                Condition::None => RestartCondition::None,
            } as i32;
        }
        policy.delay = self.restart_delay.map(duration_to_wire).or(policy.delay);
        policy.max_attempts = self.restart_max_attempts.unwrap_or(policy.max_attempts);
        policy.window = self.restart_window.map(duration_to_wire).or(policy.window);
    }
}

impl RolloutFlags {
    /// A config that was missing begins with parallelism 0, which is no limit.
    fn apply(&self, spec: &mut v1::ServiceSpec) {
        use v1::update_config::FailureAction;
        let on_update = self.update_on_failure.map(|action| match action {
            OnUpdateFailure::Pause => FailureAction::Pause,
            OnUpdateFailure::Continue => FailureAction::Continue,
            OnUpdateFailure::Rollback => FailureAction::Rollback,
        });
        let on_rollback = self.rollback_on_failure.map(|action| match action {
            OnRollbackFailure::Pause => FailureAction::Pause,
            OnRollbackFailure::Continue => FailureAction::Continue,
        });
        let update = (
            self.update_parallelism,
            self.update_delay,
            on_update,
            self.update_order,
        );
        let rollback = (
            self.rollback_parallelism,
            self.rollback_delay,
            on_rollback,
            self.rollback_order,
        );
        for (config, flags) in [(&mut spec.update, update), (&mut spec.rollback, rollback)] {
            let (parallelism, delay, action, order) = flags;
            if parallelism.is_none() && delay.is_none() && action.is_none() && order.is_none() {
                continue;
            }
            let config = config.get_or_insert_default();
            config.parallelism = parallelism.unwrap_or(config.parallelism);
            config.delay = delay.map(duration_to_wire).or(config.delay);
            config.failure_action = action.map_or(config.failure_action, |action| action as i32);
            config.order = order.map_or(config.order, Order::to_wire);
        }
    }
}

impl Order {
    fn to_wire(self) -> i32 {
        use v1::update_config::UpdateOrder;
        match self {
            Self::StopFirst => UpdateOrder::StopFirst as i32,
            Self::StartFirst => UpdateOrder::StartFirst as i32,
        }
    }
}

#[cfg(test)]
mod tests;
