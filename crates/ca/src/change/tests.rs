use super::*;
use crate::root::new_root;
use crate::world::{World, at};

const EXTERNAL: &str = "https://ca.example/sign";

/// A root and its key.
#[derive(Clone)]
struct Pair {
    cert: Bytes,
    key: Bytes,
}

fn pair() -> Pair {
    let (cert, key) = new_root(at(0));
    Pair {
        cert: cert.into(),
        key: key.as_bytes().to_vec().into(),
    }
}

/// What the cluster has and what is asked of it.
struct Case {
    cluster: Cluster,
    wanted: v1::CaConfig,
}

impl Case {
    fn new() -> Self {
        let cluster = (**World::new().root.cluster().unwrap()).clone();
        let wanted = v1::CaConfig::default();
        Self { cluster, wanted }
    }

    fn current(&self) -> Pair {
        let root_ca = self.cluster.root_ca.clone().unwrap();
        Pair {
            cert: root_ca.ca_cert,
            key: root_ca.ca_key,
        }
    }

    fn without_key(mut self) -> Self {
        self.cluster.root_ca.as_mut().unwrap().ca_key.clear();
        self
    }

    fn rotating(mut self, to: &Pair) -> Self {
        let root_ca = self.cluster.root_ca.as_mut().unwrap();
        root_ca.root_rotation = Some(v1::RootRotation {
            ca_cert: to.cert.clone(),
            ca_key: to.key.clone(),
            cross_signed_ca_cert: Bytes::from_static(b"cross"),
        });
        self
    }

    fn wants(mut self, cert: &Bytes, key: &Bytes) -> Self {
        self.wanted.signing_ca_cert = cert.clone();
        self.wanted.signing_ca_key = key.clone();
        self
    }

    fn forced(mut self) -> Self {
        self.wanted.force_rotate = 1;
        self
    }

    fn external(mut self, cert: &Bytes) -> Self {
        self.wanted.external_cas.push(v1::ExternalCa {
            url: EXTERNAL.to_owned(),
            ca_cert: cert.clone(),
            ..Default::default()
        });
        self
    }

    fn text(&self) -> String {
        let decision = match decide(&self.cluster, &self.wanted, at(0)) {
            Err(refusal) => return format!("{:?}: {refusal}", refusal.code),
            Ok(decision) => decision,
        };
        let plan = match &decision.plan {
            Plan::Keep => "keep".to_owned(),
            Plan::Adopt { key_pem } if key_pem.is_empty() => "adopt no key".to_owned(),
            Plan::Adopt { .. } => "adopt key".to_owned(),
            Plan::ReplaceKey { .. } => "replace key".to_owned(),
            Plan::Rotate { target, by } => {
                let target = match target {
                    Target::Generate => "new",
                    Target::Given { .. } => "given",
                };
                let by = match by {
                    CrossSigner::Local => "local",
                    CrossSigner::External(_) => "external",
                };
                format!("rotate to {target} by {by}")
            }
        };
        decision.checks.iter().fold(plan, |plan, check| {
            assert_eq!(check.urls, [EXTERNAL]);
            format!("{plan}, {} must answer", check.label)
        })
    }
}

#[track_caller]
fn check(case: &Case, expected: &str) {
    let text = case.text();
    assert!(text.starts_with(expected), "{text}\nshould be\n{expected}");
}

const NONE: Bytes = Bytes::new();

#[test]
fn nothing_wanted_changes_nothing() {
    check(&Case::new(), "keep");
    check(&Case::new().rotating(&pair()), "keep");
    let mut handled = Case::new().forced();
    handled
        .cluster
        .root_ca
        .as_mut()
        .unwrap()
        .last_forced_rotation = 1;
    check(&handled, "keep");
}

#[test]
fn a_forced_rotation_makes_a_new_root() {
    check(&Case::new().forced(), "rotate to new by local");
    check(
        &Case::new().rotating(&pair()).forced(),
        "rotate to new by local",
    );
}

#[test]
fn a_key_needs_its_certificate() {
    let key = pair().key;
    check(
        &Case::new().wants(&NONE, &key),
        "InvalidArgument: if a signing CA key is provided, the signing CA cert must also",
    );
}

#[test]
fn a_root_with_a_key_is_rotated_to() {
    let next = pair();
    check(
        &Case::new().wants(&next.cert, &next.key),
        "rotate to given by local",
    );
    let other = Case::new().rotating(&pair());
    check(
        &other.wants(&next.cert, &next.key),
        "rotate to given by local",
    );
}

#[test]
fn a_root_without_a_key_needs_an_external_authority() {
    let next = pair();
    check(
        &Case::new().wants(&next.cert, &NONE),
        "InvalidArgument: there must be at least one valid, reachable external CA corresponding \
         to the desired CA certificate",
    );
    // An authority without a certificate belongs to the current root.
    check(
        &Case::new().wants(&next.cert, &NONE).external(&NONE),
        "InvalidArgument: there must be",
    );
    check(
        &Case::new().wants(&next.cert, &NONE).external(&next.cert),
        "rotate to given by local, desired must answer",
    );
}

#[test]
fn the_current_root_calls_a_rotation_off() {
    let case = Case::new().rotating(&pair());
    let current = case.current();
    check(&case.wants(&current.cert, &current.key), "adopt key");
    let case = Case::new().rotating(&pair());
    let current = case.current();
    let spaced = Bytes::from([b"\n\n", &current.cert[..], b"\n"].concat());
    check(
        &case.wants(&spaced, &NONE).external(&NONE),
        "adopt no key, desired must answer",
    );
}

/// As tools print it, and as other systems end lines.
fn dressed(cert: &Bytes) -> Bytes {
    let text = String::from_utf8(cert.to_vec()).unwrap();
    let text = text.replace('\n', "\r\n");
    format!("Certificate:\r\n    Version: 3\r\n{text}\r\n").into()
}

#[test]
fn a_root_is_known_however_it_is_written_and_stored_in_one_form() {
    let case = Case::new().rotating(&pair());
    let current = case.current();
    check(
        &case.wants(&dressed(&current.cert), &current.key),
        "adopt key",
    );
    let next = pair();
    let case = Case::new().rotating(&next);
    check(&case.wants(&dressed(&next.cert), &next.key), "replace key");
    let case = Case::new().wants(&dressed(&next.cert), &NONE);
    check(
        &case.external(&dressed(&next.cert)),
        "rotate to given by local, desired must answer",
    );
    let case = Case::new().wants(&dressed(&next.cert), &next.key);
    let decision = decide(&case.cluster, &case.wanted, at(0)).unwrap();
    let Plan::Rotate {
        target: Target::Given { cert_pem, .. },
        ..
    } = decision.plan
    else {
        panic!("{decision:?}");
    };
    assert_eq!(cert_pem, next.cert);
}

#[test]
fn the_target_of_a_rotation_can_get_another_key() {
    let next = pair();
    let case = Case::new().rotating(&next);
    check(&case.wants(&next.cert, &next.key), "replace key");
    let case = Case::new().rotating(&next);
    check(
        &case.wants(&next.cert, &NONE).external(&next.cert),
        "replace key, desired must answer",
    );
    let target = Pair { key: NONE, ..next };
    let case = Case::new().rotating(&target);
    check(
        &case,
        "InvalidArgument: there must be at least one valid, reachable external CA \
         corresponding to the next CA",
    );
    let case = Case::new().rotating(&target).external(&target.cert);
    check(&case, "keep, next must answer");
}

#[test]
fn a_cluster_without_a_key_can_adopt_it_or_needs_its_authority() {
    let current = Case::new();
    let pair_of_current = current.current();
    let case = current.without_key();
    check(
        &case,
        "InvalidArgument: there must be at least one valid, reachable external CA \
         corresponding to the current CA",
    );
    check(&case.external(&NONE), "keep, current must answer");
    let mut case = Case::new();
    case.cluster.root_ca.as_mut().unwrap().ca_cert = pair_of_current.cert.clone();
    let case = case.without_key();
    check(
        &case.wants(&pair_of_current.cert, &pair_of_current.key),
        "adopt key",
    );
    let (next, wrong) = (pair(), pair().key);
    let case = Case::new().without_key();
    let cert = case.current().cert;
    check(
        &case.wants(&cert, &wrong),
        "InvalidArgument: invalid CA certificate",
    );
    let case = Case::new().without_key().external(&NONE);
    check(
        &case.wants(&next.cert, &next.key),
        "rotate to given by external, current must answer",
    );
    let case = Case::new().without_key().external(&NONE).forced();
    check(&case, "rotate to new by external, current must answer");
    let case = Case::new()
        .without_key()
        .external(&NONE)
        .external(&next.cert);
    check(
        &case.wants(&next.cert, &NONE),
        "InvalidArgument: rotating from one external CA to a different external CA",
    );
}

#[test]
fn roots_that_nobody_could_use_are_refused() {
    let (next, other) = (pair(), pair());
    let two = Bytes::from([&next.cert[..], &other.cert[..]].concat());
    let garbage = Bytes::from_static(b"garbage");
    for (cert, key, text) in [
        (&two, &next.key, "it must be a single one, not 2"),
        (&next.cert, &other.key, "certificate key mismatch"),
        (
            &next.cert,
            &garbage,
            "the key of the certificate authority cannot be used: the private key is not PEM",
        ),
        (&garbage, &next.key, "the root bundle cannot be read"),
    ] {
        let case = Case::new().wants(cert, key);
        check(
            &case,
            &format!("InvalidArgument: invalid CA certificate: {text}"),
        );
    }
    let case = Case::new().wants(&next.cert, &next.key);
    let life = crate::root::ROOT_VALIDITY - LIFE_LEFT_MIN;
    let last = at(0)
        .saturating_add(life)
        .saturating_sub(Duration::from_secs(3600));
    assert!(decide(&case.cluster, &case.wanted, last).is_ok());
    let late = last.saturating_add(Duration::from_secs(3600));
    let refusal = decide(&case.cluster, &case.wanted, late).unwrap_err();
    assert!(refusal.message.contains("one more year"), "{refusal}");
}

#[test]
fn the_same_key_cannot_be_certified_anew() {
    let case = Case::new();
    let key = KeyPem::from_bytes(&case.current().key).unwrap();
    let key = crate::key::PrivateKey::from_pem(&key).unwrap();
    let again = crate::root::self_sign(&key, at(3600)).unwrap();
    let case = case.wants(&again.into(), &key.to_pem().as_bytes().to_vec().into());
    let case = Case {
        cluster: case.cluster,
        wanted: case.wanted,
    };
    let refusal = decide(&case.cluster, &case.wanted, at(7200)).unwrap_err();
    assert_eq!(
        refusal.message,
        "Cannot update to a cert with an identical key"
    );
}

#[test]
fn external_authorities_are_checked_before_anyone_is_asked() {
    let with = |change: &dyn Fn(&mut v1::ExternalCa)| {
        let mut case = Case::new().external(&NONE);
        change(&mut case.wanted.external_cas[0]);
        case
    };
    check(
        &with(&|it| it.protocol = 9),
        "InvalidArgument: external CA https://ca.example/sign: 9 is",
    );
    for url in ["http://ca.example", "https://", "https:///sign", ""] {
        let case = with(&|it| it.url = url.to_owned());
        check(
            &case,
            &format!("InvalidArgument: external CA {url}: it must be an https URL"),
        );
    }
    let long = format!("https://{}", "x".repeat(URL_BYTES_MAX));
    assert!(
        with(&|it| it.url = long.clone())
            .text()
            .contains("at most 2048 bytes")
    );
    let case = with(&|it| it.ca_cert = Bytes::from_static(b"x"));
    assert!(case.text().contains("its CA certificate cannot be read"));
    let many = (0..=EXTERNAL_CAS_MAX).fold(Case::new(), |case, _| case.external(&NONE));
    check(
        &many,
        "InvalidArgument: there are 17 external CAs, at most 16",
    );
}

#[test]
fn what_was_decided_changes_the_root_object() {
    let next = pair();
    let case = Case::new().rotating(&next);
    let root_ca = case.cluster.root_ca.clone().unwrap();
    let kept = apply(&root_ca, &Plan::Keep, 5, None);
    assert_eq!(kept, *root_ca);
    let key_pem = Bytes::from_static(b"k");
    let adopted = apply(
        &root_ca,
        &Plan::Adopt {
            key_pem: key_pem.clone(),
        },
        5,
        None,
    );
    assert_eq!(
        (&adopted.ca_key, adopted.last_forced_rotation),
        (&key_pem, 5)
    );
    assert_eq!(
        (adopted.root_rotation, &adopted.ca_cert),
        (None, &root_ca.ca_cert)
    );
    let replaced = apply(
        &root_ca,
        &Plan::ReplaceKey {
            key_pem: key_pem.clone(),
        },
        5,
        None,
    );
    let rotation = replaced.root_rotation.unwrap();
    assert_eq!((rotation.ca_key, rotation.ca_cert), (key_pem, next.cert));
    assert_eq!(replaced.ca_key, root_ca.ca_key);
    let plan = Plan::Rotate {
        target: Target::Generate,
        by: CrossSigner::Local,
    };
    let made = pair();
    let cross_signed_pem = cross_sign(&case.cluster, &made.cert).unwrap();
    let new_root = NewRoot {
        cert_pem: made.cert.clone(),
        key_pem: made.key,
        cross_signed_pem: cross_signed_pem.clone(),
    };
    let rotated = apply(&root_ca, &plan, 5, Some(&new_root));
    let rotation = rotated.root_rotation.clone().unwrap();
    assert_eq!(rotation.cross_signed_ca_cert, cross_signed_pem);
    assert_eq!(
        (rotated.ca_cert, rotated.join_tokens),
        (root_ca.ca_cert.clone(), root_ca.join_tokens)
    );
    let roots = RootBundle::parse(&root_ca.ca_cert, at(0)).unwrap();
    let cross_signed = Certificate::all_from_pem(&rotation.cross_signed_ca_cert).unwrap();
    cross_signed[0]
        .check_signed_by(&roots.certificates()[0])
        .unwrap();
    assert_eq!(
        cross_signed[0].spki_der(),
        Certificate::all_from_pem(&made.cert).unwrap()[0].spki_der()
    );
}
