use super::*;
use crate::refusal::Rule;
use crate::request::UNKNOWN_NUMBER;
use crate::tests::world::{nanoseconds, seconds, with_container};
use crate::validate::service_spec;

fn rule_of(change: impl FnOnce(&mut v1::ContainerSpec)) -> Option<Rule> {
    let refusal = service_spec(&with_container(change)).err();
    refusal.map(|refusal| refusal.rule())
}

#[test]
fn an_image_reference_is_needed_and_must_be_one() {
    let image = |image: &str| rule_of(|container| container.image = image.to_owned());
    assert_eq!(image("host"), None);
    assert_eq!(image("nginx:1.25"), None);
    assert_eq!(image(""), Some(IMAGE_MISSING));
    assert_eq!(image("Not A Reference"), Some(IMAGE_INVALID));
}

#[test]
fn two_mounts_cannot_have_one_target() {
    let mounts = |targets: &[&str]| {
        let mounts = targets.iter().map(|target| v1::Mount {
            target: (*target).to_owned(),
            ..Default::default()
        });
        rule_of(|container| container.mounts = mounts.collect())
    };
    assert_eq!(mounts(&["/a", "/b"]), None);
    assert_eq!(mounts(&["/a", "/b", "/a"]), Some(MOUNT_TWICE));
}

#[test]
fn numbers_in_mounts_are_known_ones() {
    let mount = |mount| rule_of(|container| container.mounts = vec![mount]);
    let typed = |r#type| {
        mount(v1::Mount {
            r#type,
            ..Default::default()
        })
    };
    // CLUSTER, number 4, is valid; that it is not implemented is another matter.
    assert_eq!(
        (typed(4), typed(5), typed(-1)),
        (None, Some(UNKNOWN_NUMBER), Some(UNKNOWN_NUMBER))
    );
    let consistent = |consistency| {
        mount(v1::Mount {
            consistency,
            ..Default::default()
        })
    };
    assert_eq!((consistent(3), consistent(4)), (None, Some(UNKNOWN_NUMBER)));
    let propagated = |propagation| {
        let options = v1::mount::BindOptions {
            propagation,
            ..Default::default()
        };
        mount(v1::Mount {
            bind_options: Some(options),
            ..Default::default()
        })
    };
    assert_eq!((propagated(5), propagated(6)), (None, Some(UNKNOWN_NUMBER)));
}

#[test]
fn health_check_times_are_zero_or_at_least_a_millisecond() {
    type Health = v1::HealthConfig;
    let fields: [fn(&mut Health) -> &mut Option<prost_types::Duration>; 4] = [
        |health| &mut health.interval,
        |health| &mut health.timeout,
        |health| &mut health.start_period,
        |health| &mut health.start_interval,
    ];
    for field in fields {
        let judge = |duration| {
            let mut health = Health::default();
            *field(&mut health) = Some(duration);
            rule_of(|container| container.healthcheck = Some(health))
        };
        assert_eq!(judge(nanoseconds(0)), None);
        assert_eq!(judge(nanoseconds(1_000_000)), None);
        assert_eq!(judge(nanoseconds(999_999)), Some(HEALTH_TOO_SHORT));
        assert_eq!(judge(seconds(-1)), Some(HEALTH_TOO_SHORT));
        assert_eq!(judge(seconds(i64::MAX)), Some(duration::UNDECODABLE));
    }
}

#[test]
fn health_check_retries_are_not_negative() {
    let retries = |retries| {
        rule_of(|container| {
            container.healthcheck = Some(v1::HealthConfig {
                retries,
                ..Default::default()
            });
        })
    };
    assert_eq!((retries(0), retries(-1)), (None, Some(RETRIES_NEGATIVE)));
}

#[test]
fn the_stop_grace_period_is_not_negative() {
    let grace = |grace| rule_of(|container| container.stop_grace_period = Some(grace));
    assert_eq!(grace(seconds(0)), None);
    assert_eq!(grace(nanoseconds(-1)), Some(GRACE_NEGATIVE));
    assert_eq!(grace(nanoseconds(i32::MAX)), Some(duration::UNDECODABLE));
}

#[test]
fn numbers_of_isolation_and_privileges_are_known_ones() {
    let isolated = |isolation| rule_of(|container| container.isolation = isolation);
    assert_eq!((isolated(2), isolated(3)), (None, Some(UNKNOWN_NUMBER)));
    let privileged = |privileges| rule_of(|container| container.privileges = Some(privileges));
    let seccomp = |mode| {
        privileged(v1::Privileges {
            seccomp: Some(v1::privileges::SeccompOpts {
                mode,
                ..Default::default()
            }),
            ..Default::default()
        })
    };
    assert_eq!((seccomp(2), seccomp(3)), (None, Some(UNKNOWN_NUMBER)));
    let apparmor = |mode| {
        privileged(v1::Privileges {
            apparmor: Some(v1::privileges::AppArmorOpts { mode }),
            ..Default::default()
        })
    };
    assert_eq!((apparmor(1), apparmor(2)), (None, Some(UNKNOWN_NUMBER)));
}
