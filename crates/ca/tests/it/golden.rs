//! Files that a Go node wrote are read, and what is written here has the same form.

use swarm_api::v1::NodeRole;
use swarm_ca::certificate::Certificate;
use swarm_ca::chain::{self, Expiry};
use swarm_ca::cross;
use swarm_ca::identity;
use swarm_ca::key::{KeyError, PrivateKey};
use swarm_ca::keyfile::data_keys::DataKeys;
use swarm_ca::keyfile::{Kek, KeyFile, KeyFileError};
use swarm_ca::root::{RootBundle, RootDigest};
use swarm_ca::token::JoinToken;
use swarm_ca::unlock;
use swarm_types::Timestamp;

use crate::{Authority, openssl};

const ROOT: &str = include_str!("golden/root.crt");
const NODE: &str = include_str!("golden/node.crt");
pub(crate) const KEY: &str = include_str!("golden/node.key");
const ROTATED_ROOT: &str = include_str!("golden/rotated-root.crt");
const ROTATED_NODE: &str = include_str!("golden/rotated-node.crt");
const LOCKED_NODE: &str = include_str!("golden/locked-node.crt");
pub(crate) const LOCKED_KEY: &str = include_str!("golden/locked-node.key");
const WORKER_TOKEN: &str =
    "SWMTKN-1-2chpy2rgzbwci7uah7flfmlkyrvsr00b8pca0zcw5ziocxuv01-58vyww6ve5sx5hnvi5drqaa36";
const ROTATED_TOKEN: &str =
    "SWMTKN-1-67ikniw8gn58vfj0jx95luonfwwtlkzn3s1rr7dt73ocn28r0n-3rxzjr07mu6b7if9c6kx32a77";
const UNLOCK_KEY: &str = "SWMKEY-1-kMN9lUlKK4saDRS24+tkiMK6y6u1U4KjbW5AuS5YZVw";

/// 2026-11-26T11:30:00Z, a quarter of an hour after the files were written.
fn then() -> Timestamp {
    Timestamp::from_millis(1_795_692_600_000)
}

pub(crate) fn kek() -> Kek {
    unlock::parse(UNLOCK_KEY).unwrap()
}

#[test]
fn the_token_of_a_go_cluster_holds_the_digest_of_its_root() {
    let token = JoinToken::parse(WORKER_TOKEN).unwrap();
    assert_eq!(token.root_digest(), RootDigest::of(ROOT.as_bytes()));
    assert_eq!(token.to_string(), WORKER_TOKEN);
    let token = JoinToken::parse(ROTATED_TOKEN).unwrap();
    assert_eq!(token.root_digest(), RootDigest::of(ROTATED_ROOT.as_bytes()));
}

#[test]
fn the_certificate_of_a_go_node_is_believed_and_read() {
    let roots = RootBundle::parse(ROOT.as_bytes(), then()).unwrap();
    let validated = chain::validate(NODE.as_bytes(), &roots, then(), Expiry::Enforce).unwrap();
    let identity = identity::CertIdentity::of(&validated.leaf).unwrap();
    assert_eq!(identity.cluster.to_string(), "x6gvbnlbhen7oo502e333afts");
    assert!(identity.is_manager() && !identity.is_worker());
    assert_eq!(
        validated.issuer.subject,
        roots.certificates()[0].subject_der()
    );
}

#[test]
fn the_key_file_of_a_go_node_is_read_and_written_back_byte_for_byte() {
    let file = KeyFile::read(KEY.as_bytes(), None).unwrap();
    assert_eq!(file.kek_version(), Ok(0));
    assert!(file.headers.0.contains_key("raft-dek"));
    assert_eq!(*file.write(None).unwrap(), KEY);
    let certificate = &Certificate::all_from_pem(NODE.as_bytes()).unwrap()[0];
    assert_eq!(file.key.spki_der(), certificate.spki_der());
}

#[test]
fn the_locked_key_file_of_a_go_node_opens_with_its_unlock_key_only() {
    let file = KeyFile::read(LOCKED_KEY.as_bytes(), Some(&kek())).unwrap();
    let certificate = &Certificate::all_from_pem(LOCKED_NODE.as_bytes()).unwrap()[0];
    assert_eq!(file.key.spki_der(), certificate.spki_der());
    assert!(file.kek_version().unwrap() > 0);
    let without = KeyFile::read(LOCKED_KEY.as_bytes(), None).unwrap_err();
    assert_eq!(without, KeyFileError::Locked);
    let wrong = KeyFile::read(LOCKED_KEY.as_bytes(), Some(&Kek::new(vec![1; 32])));
    assert_eq!(wrong.unwrap_err(), KeyFileError::Locked);
    assert_eq!(
        PrivateKey::from_pem(&swarm_ca::key::KeyPem::new(LOCKED_KEY.to_owned())).unwrap_err(),
        KeyError::Encrypted
    );
}

/// The Go node made another data key when it was locked; both files are of the same swarm.
#[test]
fn the_data_keys_of_a_go_node_are_read_and_written_as_it_does() {
    let open = KeyFile::read(KEY.as_bytes(), None).unwrap();
    let plain = DataKeys::read(&open.headers, None).unwrap().unwrap();
    let mut again = open.headers.clone();
    plain.write(&mut again, None, &mut || unreachable!("nothing is sealed"));
    assert_eq!(again, open.headers);

    let locked = KeyFile::read(LOCKED_KEY.as_bytes(), Some(&kek())).unwrap();
    let sealed = DataKeys::read(&locked.headers, Some(&kek()));
    let sealed = sealed.unwrap().unwrap();
    assert!(sealed.pending.is_none() && !sealed.needs_rotation);
    for wrong in [None, Some(Kek::new(vec![1; 32]))] {
        let refused = DataKeys::read(&locked.headers, wrong.as_ref());
        assert_eq!(refused, Err(KeyFileError::Locked));
    }
    // With the nonce of the Go node, the sealed form is the same to the last bit.
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let record = engine.decode(&locked.headers.0["raft-dek"]).unwrap();
    let nonce: [u8; 24] = record[record.len() - 24..].try_into().unwrap();
    let mut again = locked.headers.clone();
    sealed.write(&mut again, Some(&kek()), &mut || nonce);
    assert_eq!(again, locked.headers);
}

#[test]
fn a_go_chain_from_a_rotation_is_believed_under_both_roots_with_one_issuer() {
    let validate = |root: &str| {
        let roots = RootBundle::parse(root.as_bytes(), then()).unwrap();
        chain::validate(ROTATED_NODE.as_bytes(), &roots, then(), Expiry::Enforce).unwrap()
    };
    let (old, new) = (validate(ROOT), validate(ROTATED_ROOT));
    assert_eq!(old.issuer, new.issuer);
    // And the leaf from before the rotation is not one of the new root.
    let roots = RootBundle::parse(ROTATED_ROOT.as_bytes(), then()).unwrap();
    let refused = chain::validate(NODE.as_bytes(), &roots, then(), Expiry::Enforce);
    assert_eq!(refused.unwrap_err(), chain::ChainError::UnknownAuthority);
}

/// The key of Go's root is not in its files, so the same copy is made with another signer and
/// compared with what Go copied from the same certificate.
#[test]
fn cross_signing_copies_what_go_copies() {
    let signer = Authority::new().signer;
    let ours = cross::cross_sign(ROTATED_ROOT, &signer).unwrap();
    let ours = &Certificate::all_from_pem(ours.as_bytes()).unwrap()[0];
    let go = &Certificate::all_from_pem(ROTATED_NODE.as_bytes()).unwrap()[1];
    assert_eq!(ours.subject_der(), go.subject_der());
    assert_eq!(ours.spki_der(), go.spki_der());
    assert_eq!(ours.serial_der(), go.serial_der());
    assert_eq!(ours.not_before(), go.not_before());
    assert_eq!(ours.not_after(), go.not_after());
    ours.check_signed_by(signer.certificate()).unwrap();
}

/// Everything but ids, keys, times and signatures is compared, by `openssl`.
#[test]
fn certificates_made_here_have_the_outline_of_those_made_by_go() {
    let authority = Authority::new();
    let ours = authority.issue(NodeRole::Manager);
    assert_eq!(openssl::outline(&ours), openssl::outline(NODE));
    assert_eq!(
        openssl::outline(&authority.cert_pem),
        openssl::outline(ROOT)
    );
}
