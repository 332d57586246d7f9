use super::*;
use crate::Code;
use crate::refusal::Rule;
use crate::tests::world::{annotations, nanoseconds, replicated, seconds, verdict, web, with};

fn rule_of(spec: &v1::ServiceSpec) -> Option<Rule> {
    service_spec(spec).err().map(|refusal| refusal.rule())
}

fn named(name: &str) -> Option<Rule> {
    rule_of(&with(web("web"), |spec| {
        spec.annotations = Some(annotations(name))
    }))
}

#[test]
fn names_are_dns_labels_of_at_most_63_characters() {
    for name in ["a", "A1", "a-b", "a_b", "a--__b", "0", &"a".repeat(63)] {
        assert_eq!(named(name), None, "{name}");
    }
    for name in [
        "-a", "a-", "_a", "a_", "a.b", "a b", "ä", "a\n", "-", "a\0b",
    ] {
        assert_eq!(named(name), Some(NAME_INVALID), "{name:?}");
    }
    assert_eq!(named(""), Some(NAME_MISSING));
    assert_eq!(named(&"a".repeat(64)), Some(NAME_TOO_LONG));
    let without = with(web("web"), |spec| spec.annotations = None);
    assert_eq!(rule_of(&without), Some(NAME_MISSING));
}

#[test]
fn the_characters_of_a_name_are_judged_before_its_length() {
    assert_eq!(named(&"-".repeat(64)), Some(NAME_INVALID));
}

#[test]
fn replicas_have_both_bounds() {
    let with_replicas = |replicas| {
        rule_of(&with(web("web"), |spec| {
            spec.mode = Some(replicated(replicas))
        }))
    };
    assert_eq!(with_replicas(0), None);
    assert_eq!(with_replicas(REPLICAS_MAX), None);
    assert_eq!(with_replicas(REPLICAS_MAX + 1), Some(REPLICAS_TOO_MANY));
    assert_eq!(with_replicas(i64::MAX as u64), Some(REPLICAS_TOO_MANY));
    assert_eq!(with_replicas(i64::MAX as u64 + 1), Some(REPLICAS_NEGATIVE));
    assert_eq!(with_replicas(u64::MAX), Some(REPLICAS_NEGATIVE));
}

fn job(max_concurrent: u64, total_completions: u64) -> v1::ServiceSpec {
    with(web("web"), |spec| {
        spec.mode = Some(v1::service_spec::Mode::ReplicatedJob(v1::ReplicatedJob {
            max_concurrent,
            total_completions,
        }));
    })
}

#[test]
fn job_numbers_are_not_negative_and_jobs_have_no_update_config() {
    assert_eq!(rule_of(&job(1, 1)), None);
    assert_eq!(rule_of(&job(u64::MAX, 1)), Some(CONCURRENT_NEGATIVE));
    assert_eq!(rule_of(&job(1, u64::MAX)), Some(COMPLETIONS_NEGATIVE));
    let updated = with(job(1, 1), |spec| {
        spec.update = Some(v1::UpdateConfig::default())
    });
    assert_eq!(rule_of(&updated), Some(JOB_WITH_UPDATE));
    let global = with(updated, |spec| {
        spec.mode = Some(v1::service_spec::Mode::GlobalJob(v1::GlobalJob {}));
    });
    assert_eq!(rule_of(&global), Some(JOB_WITH_UPDATE));
}

#[test]
fn a_mode_is_needed() {
    let without = with(web("web"), |spec| spec.mode = None);
    assert_eq!(rule_of(&without), Some(MODE_MISSING));
    let global = with(web("web"), |spec| {
        spec.mode = Some(v1::service_spec::Mode::Global(v1::GlobalService {}));
    });
    assert_eq!(rule_of(&global), None);
}

#[test]
fn update_and_rollback_configs_have_the_same_rules() {
    type Config = v1::UpdateConfig;
    let judge = |config: &Config| {
        let update = rule_of(&with(web("web"), |spec| spec.update = Some(*config)));
        let rollback = rule_of(&with(web("web"), |spec| spec.rollback = Some(*config)));
        assert_eq!(update, rollback);
        update
    };
    let delay = |delay| {
        judge(&Config {
            delay: Some(delay),
            ..Default::default()
        })
    };
    assert_eq!(delay(seconds(0)), None);
    assert_eq!(delay(nanoseconds(-1)), Some(DELAY_NEGATIVE));
    assert_eq!(delay(seconds(i64::MAX)), Some(duration::UNDECODABLE));
    let monitor = |monitor| {
        judge(&Config {
            monitor: Some(monitor),
            ..Default::default()
        })
    };
    assert_eq!(monitor(seconds(0)), None);
    assert_eq!(monitor(nanoseconds(-1)), Some(MONITOR_NEGATIVE));
    let ratio = |max_failure_ratio| {
        judge(&Config {
            max_failure_ratio,
            ..Default::default()
        })
    };
    for accepted in [0.0, -0.0, 0.5, 1.0] {
        assert_eq!(ratio(accepted), None, "{accepted}");
    }
    for refused in [-0.001, 1.001, f32::NAN, f32::INFINITY] {
        assert_eq!(ratio(refused), Some(FAILURE_RATIO), "{refused}");
    }
    let unknown = Some(crate::request::UNKNOWN_NUMBER);
    let action = |failure_action| {
        judge(&Config {
            failure_action,
            ..Default::default()
        })
    };
    assert_eq!((action(2), action(3), action(-1)), (None, unknown, unknown));
    let order = |order| {
        judge(&Config {
            order,
            ..Default::default()
        })
    };
    assert_eq!((order(1), order(2)), (None, unknown));
}

#[test]
fn the_text_says_which_of_the_two_configs_is_wrong() {
    let config = v1::UpdateConfig {
        delay: Some(seconds(-1)),
        ..Default::default()
    };
    let update = with(web("web"), |spec| spec.update = Some(config));
    let text = "TaskSpec: update-delay cannot be negative".to_owned();
    assert_eq!(verdict(&update), Err((Code::InvalidArgument, text)));
    let rollback = with(web("web"), |spec| spec.rollback = Some(config));
    let text = "TaskSpec: rollback-delay cannot be negative".to_owned();
    assert_eq!(verdict(&rollback), Err((Code::InvalidArgument, text)));
}

#[test]
fn the_first_failure_in_the_order_of_the_rules_is_the_answer() {
    // Everything is wrong here; each repair shows the next rule.
    let mut spec = v1::ServiceSpec {
        endpoint: Some(v1::EndpointSpec {
            mode: 9,
            ports: Vec::new(),
        }),
        update: Some(v1::UpdateConfig {
            max_failure_ratio: 2.0,
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(rule_of(&spec), Some(NAME_MISSING));
    spec.annotations = Some(annotations("web"));
    assert_eq!(rule_of(&spec), Some(task::RUNTIME_MISSING));
    spec.task = web("web").task;
    assert_eq!(rule_of(&spec), Some(MODE_MISSING));
    spec.mode = Some(replicated(1));
    assert_eq!(rule_of(&spec), Some(FAILURE_RATIO));
    spec.update = None;
    assert_eq!(rule_of(&spec), Some(crate::request::UNKNOWN_NUMBER));
    spec.endpoint = None;
    assert_eq!(rule_of(&spec), None);
}
