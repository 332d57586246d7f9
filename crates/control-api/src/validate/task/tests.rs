use prost_types::Any;

use super::*;
use crate::refusal::Rule;
use crate::request::UNKNOWN_NUMBER;
use crate::tests::world::{nanoseconds, seconds, with_task};
use crate::validate::service_spec;

fn rule_of(change: impl FnOnce(&mut v1::TaskSpec)) -> Option<Rule> {
    let refusal = service_spec(&with_task(change)).err();
    refusal.map(|refusal| refusal.rule())
}

fn text_of(change: impl FnOnce(&mut v1::TaskSpec)) -> String {
    service_spec(&with_task(change))
        .unwrap_err()
        .message()
        .to_owned()
}

/// The verdict on resources, which must be the same for limits and reservations.
fn judged(resources: &v1::Resources) -> Option<Rule> {
    let as_limits = rule_of(|task| {
        task.resources = Some(v1::ResourceRequirements {
            limits: Some(resources.clone()),
            ..Default::default()
        });
    });
    let as_reservations = rule_of(|task| {
        task.resources = Some(v1::ResourceRequirements {
            reservations: Some(resources.clone()),
            ..Default::default()
        });
    });
    assert_eq!(as_limits, as_reservations);
    as_limits
}

#[test]
fn cpu_and_memory_are_zero_or_at_least_the_minimum() {
    let cpu = |nano_cpus| {
        judged(&v1::Resources {
            nano_cpus,
            ..Default::default()
        })
    };
    assert_eq!((cpu(0), cpu(CPU_NANOS_MIN)), (None, None));
    for refused in [1, CPU_NANOS_MIN - 1, -1, i64::MIN] {
        assert_eq!(cpu(refused), Some(CPU_TOO_LITTLE), "{refused}");
    }
    let memory = |memory_bytes| {
        judged(&v1::Resources {
            memory_bytes,
            ..Default::default()
        })
    };
    assert_eq!((memory(0), memory(MEMORY_BYTES_MIN)), (None, None));
    for refused in [1, MEMORY_BYTES_MIN - 1, -1, i64::MIN] {
        assert_eq!(memory(refused), Some(MEMORY_TOO_LITTLE), "{refused}");
    }
}

#[test]
fn cores_are_printed_as_go_prints_them() {
    for (nanos, text) in [
        (999_999, "0.000999999"),
        (100_000, "0.0001"),
        (50_000, "5e-05"),
        (1, "1e-09"),
        (-1_000_000_000, "-1"),
        (-123_456_000_000_000, "-123456"),
        (-1_000_000_000_000_000, "-1e+06"),
        (i64::MIN, "-9.223372036854776e+09"),
    ] {
        assert_eq!(cores(nanos), text);
    }
}

#[test]
fn generic_resources_are_reserved_as_amounts_with_a_kind() {
    let generic = |generic| {
        judged(&v1::Resources {
            generic: vec![generic],
            ..Default::default()
        })
    };
    assert_eq!(generic(resources::discrete("gpu", 0)), None);
    assert_eq!(generic(resources::discrete("gpu", 1)), None);
    assert_eq!(
        generic(resources::discrete("gpu", -1)),
        Some(GENERIC_RESERVATION)
    );
    assert_eq!(
        generic(resources::named("gpu", "a")),
        Some(GENERIC_RESERVATION)
    );
    assert_eq!(
        generic(resources::discrete("", 1)),
        Some(GENERIC_WITHOUT_KIND)
    );
    assert_eq!(
        generic(v1::GenericResource::default()),
        Some(GENERIC_WITHOUT_KIND)
    );
}

#[test]
fn restart_policies_have_no_negative_times_and_a_known_condition() {
    type Policy = v1::RestartPolicy;
    let judge = |policy| rule_of(|task| task.restart = Some(policy));
    let delay = |delay| {
        judge(Policy {
            delay: Some(delay),
            ..Default::default()
        })
    };
    assert_eq!(delay(seconds(0)), None);
    assert_eq!(delay(nanoseconds(-1)), Some(RESTART_DELAY_NEGATIVE));
    assert_eq!(delay(seconds(i64::MIN)), Some(duration::UNDECODABLE));
    let window = |window| {
        judge(Policy {
            window: Some(window),
            ..Default::default()
        })
    };
    assert_eq!(window(seconds(0)), None);
    assert_eq!(window(nanoseconds(-1)), Some(RESTART_WINDOW_NEGATIVE));
    assert_eq!(window(nanoseconds(i32::MIN)), Some(duration::UNDECODABLE));
    let condition = |condition| {
        judge(Policy {
            condition,
            ..Default::default()
        })
    };
    assert_eq!((condition(0), condition(2)), (None, None));
    assert_eq!(
        (condition(3), condition(-1)),
        (Some(UNKNOWN_NUMBER), Some(UNKNOWN_NUMBER))
    );
    let attempts = judge(Policy {
        max_attempts: u64::MAX,
        ..Default::default()
    });
    assert_eq!(attempts, None);
}

fn constrained(expression: &str) -> impl FnOnce(&mut v1::TaskSpec) {
    let constraints = vec!["node.role == worker".to_owned(), expression.to_owned()];
    |task| {
        task.placement = Some(v1::Placement {
            constraints,
            ..Default::default()
        });
    }
}

#[test]
fn constraints_must_parse_and_their_error_has_the_code_unknown() {
    assert_eq!(rule_of(constrained("node.labels.disk==ssd")), None);
    assert_eq!(rule_of(constrained("node.hostname")), Some(CONSTRAINT));
    assert_eq!(
        text_of(constrained("node.hostname")),
        "constraint expected one operator from ==, !="
    );
    assert_eq!(text_of(constrained("n ode == a")), "key 'n ode' is invalid");
    assert_eq!(text_of(constrained("node.id == ä")), "value 'ä' is invalid");
}

#[test]
fn a_preference_of_an_unknown_kind_is_refused() {
    let preferring = |preference| {
        rule_of(|task| {
            task.placement = Some(v1::Placement {
                preferences: vec![v1::PlacementPreference { preference }],
                ..Default::default()
            });
        })
    };
    let spread = v1::placement_preference::Preference::Spread(v1::SpreadOver {
        spread_descriptor: "node.labels.rack".to_owned(),
    });
    assert_eq!(preferring(Some(spread)), None);
    assert_eq!(preferring(None), Some(PREFERENCE_EMPTY));
}

#[test]
fn a_runtime_is_needed_and_attachments_are_not_for_services() {
    assert_eq!(rule_of(|task| task.runtime = None), Some(RUNTIME_MISSING));
    let attachment = Runtime::Attachment(v1::NetworkAttachmentSpec::default());
    let refused = rule_of(|task| task.runtime = Some(attachment));
    assert_eq!(refused, Some(RUNTIME_UNIMPLEMENTED));
}

fn generic(kind: &str, payload: Option<Any>) -> Option<Rule> {
    rule_of(|task| {
        task.runtime = Some(Runtime::Generic(v1::GenericRuntimeSpec {
            kind: kind.to_owned(),
            payload,
        }));
    })
}

fn payload(type_url: &str, value: &[u8]) -> Option<Any> {
    Some(Any {
        type_url: type_url.to_owned(),
        value: value.to_vec(),
    })
}

#[test]
fn a_generic_runtime_has_a_name_of_its_own_and_a_payload() {
    assert_eq!(generic("abc", payload("t", b"v")), None);
    assert_eq!(generic("ab", payload("t", b"v")), Some(RUNTIME_KIND));
    assert_eq!(
        generic("Container", payload("t", b"v")),
        Some(RUNTIME_RESERVED)
    );
    assert_eq!(
        generic("ATTACHMENT", payload("t", b"v")),
        Some(RUNTIME_RESERVED)
    );
    assert_eq!(generic("containers", payload("t", b"v")), None);
    assert_eq!(generic("abc", None), Some(PAYLOAD_MISSING));
    assert_eq!(
        generic("abc", payload("", b"v")),
        Some(PAYLOAD_TYPE_MISSING)
    );
    assert_eq!(generic("abc", payload("t", b"")), Some(PAYLOAD_EMPTY));
}

#[test]
fn templates_are_tried_before_a_spec_is_accepted() {
    use crate::Code;
    use crate::tests::world::{verdict, web, with_container};
    let with_env = |env: &str| {
        let mut spec = with_container(|container| container.env = vec![env.to_owned()]);
        let labels = [("tier".to_owned(), "front".to_owned())].into();
        spec.annotations.as_mut().unwrap().labels = labels;
        verdict(&spec).map_err(|(code, text)| {
            assert_eq!(code, Code::InvalidArgument);
            text
        })
    };
    assert_eq!(
        with_env("A={{.Task.Slot}}-{{.Service.Labels.tier}}"),
        Ok(())
    );
    // Only the value is a template.
    assert_eq!(with_env("{{.Nope}}=1"), Ok(()));
    let missing = "template env A:1:3: map has no entry for key \"none\"";
    assert_eq!(with_env("A={{.Service.Labels.none}}").unwrap_err(), missing);
    assert!(with_env("A={{").unwrap_err().contains("unclosed action"));
    assert!(
        with_env("A={{secret \"x\"}}")
            .unwrap_err()
            .contains("not defined")
    );
    assert_eq!(verdict(&web("web")), Ok(()));
}

#[test]
fn mount_targets_are_compared_as_a_task_would_have_them() {
    use crate::tests::world::{verdict, with_container};
    let mount = |target: &str| v1::Mount {
        target: target.to_owned(),
        ..Default::default()
    };
    let pair = |one: &str, two: &str| {
        let mounts = vec![mount(one), mount(two)];
        verdict(&with_container(|container| container.mounts = mounts))
    };
    assert!(pair("/{{.Task.Slot}}", "/1").is_err());
    assert!(pair("/{{.Task.Slot}}", "/2").is_ok());
}
