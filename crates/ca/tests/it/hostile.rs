//! Bytes from anywhere end in an error, never in a panic.

use std::sync::LazyLock;

use proptest::prelude::*;
use swarm_api::v1::NodeRole;
use swarm_ca::certificate::Certificate;
use swarm_ca::chain::{self, Expiry};
use swarm_ca::key::{KeyPem, PrivateKey};
use swarm_ca::keyfile::{self, Kek, KeyFile};
use swarm_ca::root::RootBundle;
use swarm_ca::token::JoinToken;
use swarm_ca::{cfssl, cross, csr, identity, pem};

use crate::{Authority, golden, now};

static AUTHORITY: LazyLock<Authority> = LazyLock::new(Authority::new);
static SEEDS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let der = |text: &str| pem::read_one(text.as_bytes()).unwrap().der.to_vec();
    vec![
        der(&AUTHORITY.cert_pem),
        der(&AUTHORITY.issue(NodeRole::Manager)),
        der(&csr::request(&csr::new_key()).unwrap()),
        der(AUTHORITY.key.as_str()),
        der(golden::LOCKED_KEY),
    ]
});

/// Everything that reads bytes, on the same bytes.
fn feed(der: &[u8]) {
    let _ = Certificate::from_der(der);
    let _ = identity::read_der(der);
    let _ = PrivateKey::from_pkcs8(der);
    for label in [
        "EC PRIVATE KEY",
        "RSA PRIVATE KEY",
        "ENCRYPTED PRIVATE KEY",
        "PRIVATE KEY",
    ] {
        let text = pem::write(label, der);
        let _ = PrivateKey::from_pem(&KeyPem::new(text.clone()));
        let _ = KeyFile::read(text.as_bytes(), Some(&Kek::new(vec![1; 32])));
        let _ = keyfile::is_encrypted(text.as_bytes());
    }
    let _ = csr::public_key(pem::write("CERTIFICATE REQUEST", der).as_bytes());
    let text = pem::write("CERTIFICATE", der);
    let _ = RootBundle::parse(text.as_bytes(), now());
    let _ = cross::cross_sign(&text, &AUTHORITY.signer);
    let _ = chain::validate(text.as_bytes(), &AUTHORITY.roots(), now(), Expiry::Allow);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn garbage_is_refused(der: Vec<u8>, text: String) {
        feed(&der);
        let _ = JoinToken::parse(&text);
        let _ = cfssl::response(200, &der);
        let _ = csr::public_key(&der);
    }

    #[test]
    fn damaged_real_structures_are_refused(
        seed in 0usize..5,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: prop::sample::Index,
        shorten: bool,
    ) {
        let mut der = SEEDS[seed].clone();
        for (at, byte) in flips {
            let at = at.index(der.len());
            // A huge count of iterations is refused, one of a million only takes long.
            if seed == 4 && (20..60).contains(&at) {
                continue;
            }
            der[at] = byte;
        }
        if shorten {
            der.truncate(cut.index(der.len()));
        }
        feed(&der);
    }

    #[test]
    fn a_certificate_with_one_bit_changed_is_not_believed(at: prop::sample::Index, bit in 0u8..8) {
        let roots = AUTHORITY.roots();
        let mut der = SEEDS[1].clone();
        let at = at.index(der.len());
        der[at] ^= 1 << bit;
        let text = pem::write("CERTIFICATE", &der);
        let believed = chain::validate(text.as_bytes(), &roots, now(), Expiry::Enforce);
        prop_assert!(believed.is_err());
    }

    #[test]
    fn tokens_round_trip(root: Vec<u8>, secret: [u8; 16]) {
        let token = JoinToken::generate(&root, secret);
        prop_assert_eq!(JoinToken::parse(&token.to_string()), Ok(token));
    }
}
