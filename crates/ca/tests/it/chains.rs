//! Which chains are believed.

use swarm_api::v1::NodeRole;
use swarm_ca::chain::{self, CHAIN_MAX, ChainError, Expiry};
use swarm_ca::cross;
use swarm_ca::issue::Signer;
use swarm_types::Timestamp;

use crate::{Authority, hours, now};

fn check(
    chain: &str,
    authority: &Authority,
    at: Timestamp,
    expiry: Expiry,
) -> Result<(), ChainError> {
    chain::validate(chain.as_bytes(), &authority.roots(), at, expiry).map(drop)
}

#[test]
fn a_leaf_is_believed_from_its_first_to_its_last_second() {
    let authority = Authority::new();
    let leaf = authority.issue(NodeRole::Worker);
    let at = |at| check(&leaf, &authority, at, Expiry::Enforce);
    // The root is valid for a shorter time than the leaf looks back.
    let minute = Timestamp::from_millis(1_795_694_400_000);
    let root_start = minute.saturating_sub(std::time::Duration::from_secs(300));
    let end = minute.saturating_add(hours(24 * 90));
    let second = std::time::Duration::from_secs(1);
    assert_eq!(at(root_start), Ok(()));
    assert!(matches!(
        at(root_start.saturating_sub(second)),
        Err(ChainError::Time { .. })
    ));
    assert_eq!(at(end), Ok(()));
    assert!(matches!(
        at(end.saturating_add(second)),
        Err(ChainError::Time { .. })
    ));
    let later = end.saturating_add(hours(1000));
    assert_eq!(check(&leaf, &authority, later, Expiry::Allow), Ok(()));
}

#[test]
fn a_leaf_older_than_its_root_was_never_valid() {
    let authority = Authority::new();
    let early = now().saturating_sub(hours(24 * 365));
    let leaf = authority.issue_at(NodeRole::Worker, early);
    let refused = check(&leaf, &authority, now(), Expiry::Allow);
    assert_eq!(refused, Err(ChainError::NeverValid));
}

#[test]
fn strangers_and_disorder_are_refused() {
    let (one, other) = (Authority::new(), Authority::new());
    let leaf = one.issue(NodeRole::Worker);
    let unknown = Err(ChainError::UnknownAuthority);
    assert_eq!(check(&leaf, &other, now(), Expiry::Enforce), unknown);
    assert_eq!(check(&leaf, &other, now(), Expiry::Allow), unknown);
    let wrong = format!("{leaf}{}", other.cert_pem);
    assert_eq!(
        check(&wrong, &one, now(), Expiry::Enforce),
        Err(ChainError::Order(1))
    );
    let reversed = format!("{}{leaf}", one.cert_pem);
    assert_eq!(
        check(&reversed, &one, now(), Expiry::Enforce),
        Err(ChainError::Order(1))
    );
    let long = leaf.repeat(CHAIN_MAX + 1);
    let refused = check(&long, &one, now(), Expiry::Enforce);
    assert_eq!(refused, Err(ChainError::TooLong(CHAIN_MAX + 1)));
}

/// A node must not be able to issue certificates, however real its own is.
#[test]
fn a_leaf_signs_nobody() {
    let authority = Authority::new();
    let key = swarm_ca::csr::new_key();
    let request = swarm_ca::csr::request(&key).unwrap();
    let manager = crate::subject(NodeRole::Manager);
    let leaf = authority
        .signer
        .sign(request.as_bytes(), &manager, hours(24), now(), [1; 20])
        .unwrap();
    let false_signer = Signer::new(&leaf, &key, &leaf).unwrap();
    let impostor = Authority {
        signer: false_signer,
        ..Authority::new()
    };
    let chain = impostor.issue(NodeRole::Manager);
    let refused = check(&chain, &authority, now(), Expiry::Enforce);
    assert_eq!(refused, Err(ChainError::UnknownAuthority));
}

/// The intermediate of a rotation ends with the root that it is a copy of, which may be long
/// before the leaf does.
#[test]
fn an_intermediate_counts_only_in_its_time_however_fresh_the_leaf_is() {
    let later = now().saturating_add(hours(24 * 365 * 5));
    let aged = |at| {
        let (cert_pem, key) = swarm_ca::root::new_root(at);
        Authority::from_parts(cert_pem, key)
    };
    let nineteen_years = hours(24 * 365 * 19);
    let (old, new) = (aged(now()), aged(now().saturating_sub(nineteen_years)));
    let crossed = cross::cross_sign(&new.cert_pem, &old.signer).unwrap();
    let signer = Signer::new(&crossed, &new.key, &crossed).unwrap();
    let rotated = Authority { signer, ..new };
    let early = rotated.issue(NodeRole::Worker);
    assert_eq!(check(&early, &old, now(), Expiry::Enforce), Ok(()));
    let late = rotated.issue_at(NodeRole::Worker, later);
    let refused = check(&late, &old, later, Expiry::Enforce);
    assert!(
        matches!(refused, Err(ChainError::Time { index: 2, .. })),
        "{refused:?}"
    );
    // Nor was there a time at which leaf and intermediate were valid together.
    let refused = check(&late, &old, later, Expiry::Allow);
    assert_eq!(refused, Err(ChainError::NeverValid));
    let much_later = later.saturating_add(hours(24 * 365));
    assert_eq!(check(&early, &old, much_later, Expiry::Allow), Ok(()));
}

#[test]
fn a_rotation_is_believed_by_nodes_with_either_root() {
    let (old, new) = (Authority::new(), Authority::new());
    let crossed = cross::cross_sign(&new.cert_pem, &old.signer).unwrap();
    let signer = Signer::new(&crossed, &new.key, &crossed).unwrap();
    signer.check_trusted(&old.roots(), now()).unwrap();
    let rotated = Authority { signer, ..new };
    let chain = rotated.issue(NodeRole::Worker);
    assert_eq!(check(&chain, &old, now(), Expiry::Enforce), Ok(()));
    assert_eq!(check(&chain, &rotated, now(), Expiry::Enforce), Ok(()));
    let bare = &swarm_ca::certificate::Certificate::all_from_pem(chain.as_bytes()).unwrap()[0];
    let refused = check(&bare.to_pem(), &old, now(), Expiry::Enforce);
    assert_eq!(refused, Err(ChainError::UnknownAuthority));
}
