//! What a certificate says, and for how long.

use std::time::Duration;

use swarm_api::v1::NodeRole;
use swarm_ca::certificate::Certificate;
use swarm_ca::csr::{self, CsrError};
use swarm_ca::identity::{self, IdentityError};
use swarm_ca::issue::{SignError, Signer};
use swarm_ca::{cross, pem};
use swarm_types::Timestamp;

use crate::{Authority, hours, now, subject};

#[test]
fn the_subject_comes_from_the_authority() {
    let authority = Authority::new();
    for (role, manager) in [(NodeRole::Manager, true), (NodeRole::Worker, false)] {
        let identity = identity::read_pem(authority.issue(role).as_bytes()).unwrap();
        assert_eq!(identity.node, subject(role).node);
        assert_eq!(identity.cluster, subject(role).cluster);
        assert_eq!(
            (identity.is_manager(), identity.is_worker()),
            (manager, !manager)
        );
    }
    let root = identity::read_pem(authority.cert_pem.as_bytes());
    assert!(matches!(root, Err(IdentityError::Missing(_))), "{root:?}");
}

#[test]
fn validity_starts_an_hour_back_on_a_whole_minute() {
    let authority = Authority::new();
    let request = csr::request(&csr::new_key()).unwrap();
    let check = |expiry: Duration, seconds: i64, expected: Duration| {
        let at = Timestamp::from_millis(now().as_nanos() / 1_000_000 + seconds * 1000);
        let worker = subject(NodeRole::Worker);
        let signed = authority
            .signer
            .sign(request.as_bytes(), &worker, expiry, at, [1; 20])
            .unwrap();
        let certificate = &Certificate::all_from_pem(signed.as_bytes()).unwrap()[0];
        let minute = if seconds == 0 { 0 } else { 60_000 };
        let rounded = Timestamp::from_millis(1_795_694_400_000 + minute);
        assert_eq!(certificate.not_before(), rounded.saturating_sub(hours(1)));
        assert_eq!(certificate.not_after(), rounded.saturating_add(expected));
    };
    check(hours(1), 0, hours(1));
    check(hours(5), 1, hours(5));
    check(hours(1) - Duration::from_nanos(1), 0, hours(24 * 90));
    check(Duration::ZERO, 0, hours(24 * 90));
}

#[test]
fn a_root_is_valid_for_twenty_years_from_five_minutes_ago() {
    let authority = Authority::new();
    let root = &authority.roots().certificates()[0].clone();
    let minute = Timestamp::from_millis(1_795_694_400_000);
    let start = minute.saturating_sub(Duration::from_secs(300));
    assert_eq!(root.not_before(), start);
    assert_eq!(root.not_after(), start.saturating_add(hours(20 * 365 * 24)));
    assert!(root.is_ca());
}

#[test]
fn a_request_must_be_signed_by_its_own_key() {
    let request = csr::request(&csr::new_key()).unwrap();
    assert!(csr::public_key(request.as_bytes()).is_ok());
    let der = pem::read_one(request.as_bytes()).unwrap().der;
    for index in 0..der.len() {
        let mut broken = der.to_vec();
        broken[index] ^= 1;
        let broken = pem::write("CERTIFICATE REQUEST", &broken);
        assert!(csr::public_key(broken.as_bytes()).is_err(), "byte {index}");
    }
    let old = pem::write("NEW CERTIFICATE REQUEST", &der);
    assert!(csr::public_key(old.as_bytes()).is_ok());
    let other = pem::write("CERTIFICATE", &der);
    let refused = csr::public_key(other.as_bytes()).unwrap_err();
    assert_eq!(refused, CsrError::Label("CERTIFICATE".into()));
    let long = vec![b'a'; csr::CSR_BYTES_MAX + 1];
    assert!(matches!(csr::public_key(&long), Err(CsrError::TooLong(_))));
}

#[test]
fn a_signer_whose_parts_do_not_belong_together_is_refused() {
    let (one, other) = (Authority::new(), Authority::new());
    let check = |cert: &str, key, intermediates: &str| {
        Signer::new(cert, key, intermediates).map(drop).unwrap_err()
    };
    assert_eq!(check(&one.cert_pem, &other.key, ""), SignError::KeyMismatch);
    let two = format!("{}{}", one.cert_pem, other.cert_pem);
    assert_eq!(check(&two, &one.key, ""), SignError::NotOne(2));
    let foreign = check(&one.cert_pem, &one.key, &other.cert_pem);
    assert_eq!(foreign, SignError::Intermediates);
    assert!(one.signer.check_trusted(&one.roots(), now()).is_ok());
    let refused = one.signer.check_trusted(&other.roots(), now());
    assert!(matches!(refused, Err(SignError::NotTrusted(_))));
}

#[test]
fn only_an_authority_is_cross_signed() {
    let (one, other) = (Authority::new(), Authority::new());
    let leaf = one.issue(NodeRole::Manager);
    let refused = cross::cross_sign(&leaf, &other.signer).unwrap_err();
    assert_eq!(refused, SignError::NotCa);
    let two = format!("{}{}", one.cert_pem, other.cert_pem);
    assert_eq!(
        cross::cross_sign(&two, &one.signer).unwrap_err(),
        SignError::NotOne(2)
    );
}

#[test]
fn secrets_are_not_shown() {
    let authority = Authority::new();
    let shown = format!("{:?} {:?}", authority.key, authority.signer);
    let line = authority.key.as_str().lines().nth(1).unwrap().to_owned();
    assert!(!shown.contains(&line) && shown.contains("hidden"));
}

/// What an external authority signs of a root that it only knows a request of.
#[test]
fn a_root_that_another_signed_by_its_request_leads_to_both() {
    use swarm_ca::chain::{self, Expiry};
    let (old, new) = (Authority::new(), Authority::new());
    let request = csr::request(&new.key).unwrap();
    let validity = (
        now().saturating_sub(hours(1)),
        now().saturating_add(hours(1000)),
    );
    let sign = |name: &str| {
        old.signer
            .sign_authority(request.as_bytes(), name, validity, [3; 20])
            .unwrap()
    };
    let crossed = sign(swarm_ca::CA_NAME);
    let certificate = &Certificate::all_from_pem(crossed.as_bytes()).unwrap()[0];
    assert!(certificate.is_ca());
    let chain_pem = format!("{}{crossed}", new.issue(NodeRole::Worker));
    for roots in [old.roots(), new.roots()] {
        chain::validate(chain_pem.as_bytes(), &roots, now(), Expiry::Enforce).unwrap();
    }
    // Under another name it is no issuer of what the root signs.
    let chain_pem = format!("{}{}", new.issue(NodeRole::Worker), sign("other"));
    let refused = chain::validate(chain_pem.as_bytes(), &old.roots(), now(), Expiry::Enforce);
    assert!(refused.is_err());
}

#[test]
fn the_certificate_of_a_server_has_its_names_and_is_no_node_s() {
    let authority = Authority::new();
    let request = csr::request(&csr::new_key()).unwrap();
    let validity = (
        now().saturating_sub(hours(1)),
        now().saturating_add(hours(1)),
    );
    let names = ["ca.example", "192.0.2.1", "2001:db8::1"].map(str::to_owned);
    let signed = authority
        .signer
        .sign_server(request.as_bytes(), &names, validity, [3; 20])
        .unwrap();
    if let Some(text) = crate::openssl::text(&signed) {
        for name in [
            "DNS:ca.example",
            "IP Address:192.0.2.1",
            "IP Address:2001:DB8",
        ] {
            assert!(text.contains(name), "{text}");
        }
    }
    assert!(identity::read_pem(signed.as_bytes()).is_err());
    let none = authority
        .signer
        .sign_server(request.as_bytes(), &[], validity, [3; 20]);
    assert_eq!(none.unwrap_err(), SignError::Encode);
}
