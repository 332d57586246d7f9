use super::*;
use crate::failure::Exit;
use clap::Parser as _;

fn flags(words: &[&str]) -> Flags {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }
    Line::parse_from(std::iter::once(&"x").chain(words)).flags
}

fn applied(words: &[&str]) -> v1::ServiceSpec {
    let mut spec = v1::ServiceSpec::default();
    flags(words).apply(&mut spec).unwrap();
    spec
}

fn container(spec: &v1::ServiceSpec) -> &v1::ContainerSpec {
    swarm_types::spec::container(spec.task.as_ref().unwrap()).unwrap()
}

#[test]
fn a_flag_that_is_not_given_changes_nothing() {
    let mut spec = applied(&[
        "--replicas=3",
        "--image=host",
        "--env=A=1",
        "--label=a=b",
        "--memory-limit=64m",
        "--generic-resources=gpu=1",
        "--restart-delay=1s",
        "--update-parallelism=2",
        "--log-driver=json",
        "--ports=web:80:8080",
        "--tty",
        "--init=false",
        "--",
        "sleep",
        "1",
    ]);
    let before = spec.clone();
    flags(&[]).apply(&mut spec).unwrap();
    assert_eq!(spec, before);
}

#[test]
fn the_program_is_given_by_flags_or_after_two_dashes() {
    let spec = applied(&["--", "sh", "-c", "exit 1"]);
    assert_eq!(container(&spec).args, ["sh", "-c", "exit 1"]);
    let spec = applied(&["--command", "sh", "--args", "-c", "--args", "exit 1"]);
    assert_eq!(container(&spec).command, ["sh"]);
    assert_eq!(container(&spec).args, ["-c", "exit 1"]);
}

#[test]
fn a_restart_policy_that_was_missing_begins_as_any() {
    use v1::restart_policy::RestartCondition;
    let policy = |words: &[&str]| applied(words).task.unwrap().restart;
    assert_eq!(policy(&[]), None);
    let only_delay = policy(&["--restart-delay", "1s"]).unwrap();
    assert_eq!(only_delay.condition, RestartCondition::Any as i32);
    let failure = policy(&["--restart-condition=failure", "--restart-max-attempts=2"]).unwrap();
    assert_eq!(failure.condition, RestartCondition::OnFailure as i32);
    assert_eq!((failure.max_attempts, failure.delay), (2, None));
}

#[test]
fn reservations_and_limits_do_not_mix() {
    let spec = applied(&["--memory-limit=64m", "--cpu-reservation=0.5"]);
    let resources = spec.task.unwrap().resources.unwrap();
    let limits = resources.limits.unwrap();
    assert_eq!((limits.memory_bytes, limits.nano_cpus), (64 << 20, 0));
    let reservations = resources.reservations.unwrap();
    assert_eq!(
        (reservations.memory_bytes, reservations.nano_cpus),
        (0, 500_000_000)
    );
}

#[test]
fn mounts_are_added_and_lists_are_replaced() {
    let mut spec = applied(&[
        "--bind=/a:/b",
        "--env=A=1",
        "--constraint=node.role==worker",
    ]);
    let again = flags(&["--tmpfs=/t", "--env=B=2"]);
    again.apply(&mut spec).unwrap();
    let targets: Vec<&str> = container(&spec)
        .mounts
        .iter()
        .map(|mount| mount.target.as_str())
        .collect();
    assert_eq!(targets, ["/b", "/t"]);
    assert_eq!(container(&spec).env, ["B=2"]);
    assert_eq!(spec.task.unwrap().placement.unwrap().constraints.len(), 1);
}

#[test]
fn an_update_config_begins_without_a_limit() {
    let spec = applied(&[
        "--update-order=start-first",
        "--rollback-on-failure=continue",
    ]);
    let update = spec.update.unwrap();
    assert_eq!(update.parallelism, 0);
    assert_eq!(
        update.order,
        v1::update_config::UpdateOrder::StartFirst as i32
    );
    let rollback = spec.rollback.unwrap();
    let action = v1::update_config::FailureAction::Continue as i32;
    assert_eq!(rollback.failure_action, action);
}

#[test]
fn networks_replace_those_of_the_template() {
    let spec = applied(&["--network=host", "--network=bridge"]);
    let networks = spec.task.unwrap().networks;
    let targets: Vec<_> = networks.iter().map(|it| it.target.as_str()).collect();
    assert_eq!(targets, ["host", "bridge"]);
}

#[test]
fn flags_of_later_features_are_refused_by_name() {
    for flag in ["--add-capability", "--rm-capability", "--npipe"] {
        let refusal = flags(&[flag, "x"]).apply(&mut v1::ServiceSpec::default());
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.exit(), Exit::Usage);
        let beginning = format!("swarmctl: {flag} is not implemented yet\nhint: ");
        assert!(refusal.text().starts_with(&beginning), "{}", refusal.text());
    }
}

#[test]
fn replicas_of_a_global_service_are_refused() {
    let mut spec = v1::ServiceSpec {
        mode: Some(v1::service_spec::Mode::Global(v1::GlobalService {})),
        ..Default::default()
    };
    let refusal = flags(&["--replicas=2"]).apply(&mut spec).unwrap_err();
    assert_eq!(refusal.exit(), Exit::Usage);
    assert!(flags(&[]).apply(&mut spec).is_ok());
}
