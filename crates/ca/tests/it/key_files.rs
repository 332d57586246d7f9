//! The key file in all its forms, and that a crash between any two steps leaves a usable pair.

use std::collections::BTreeMap;

use swarm_api::v1::NodeRole;
use swarm_ca::csr;
use swarm_ca::key::PrivateKey;
use swarm_ca::keyfile::plan::{self, Found, Recovered, Step};
use swarm_ca::keyfile::{self, Kek, KeyFile, KeyFileError, Salt};
use zeroize::Zeroizing;

use crate::{Authority, golden, hours, now, subject};

fn salt(byte: u8) -> Salt {
    Salt {
        derivation: [byte; 8],
        cipher: [byte; 16],
    }
}

#[test]
fn a_key_file_round_trips_with_and_without_encryption() {
    let mut file = KeyFile::new(PrivateKey::generate(), 12);
    file.headers.0.insert("raft-dek".into(), "c2VjcmV0".into());
    let kek = Kek::new(vec![5; 32]);
    for encryption in [None, Some((&kek, salt(3)))] {
        let text = file.write(encryption).unwrap();
        assert_eq!(
            keyfile::is_encrypted(text.as_bytes()),
            Ok(encryption.is_some())
        );
        let again = KeyFile::read(text.as_bytes(), Some(&kek)).unwrap();
        assert_eq!(again.headers, file.headers);
        assert_eq!(again.kek_version(), Ok(12));
        assert_eq!(again.key.spki_der(), file.key.spki_der());
    }
    assert!(!format!("{file:?} {kek:?}").contains("c2VjcmV0"));
}

/// Padding is right by chance once in 256 times; the key must be refused even then.
#[test]
fn a_wrong_unlock_key_never_opens_a_file() {
    let file = KeyFile::new(PrivateKey::generate(), 1);
    let text = file.write(Some((&Kek::new(vec![5; 32]), salt(1)))).unwrap();
    for byte in 0..=255u8 {
        let wrong = Kek::new(vec![byte; 31]);
        let refused = KeyFile::read(text.as_bytes(), Some(&wrong)).map(drop);
        assert_eq!(refused, Err(KeyFileError::Locked));
    }
}

#[test]
fn the_old_form_of_encryption_is_refused_with_the_way_out() {
    let text = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                DEK-Info: AES-256-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    let error = KeyFile::read(text.as_bytes(), None).unwrap_err();
    assert!(error.to_string().contains("openssl pkcs8"), "{error}");
    assert_eq!(keyfile::is_encrypted(text.as_bytes()), Ok(true));
}

/// A directory in memory.
#[derive(Clone, Default)]
struct Directory(BTreeMap<&'static str, Vec<u8>>);

impl Directory {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Write { name, content, .. } => {
                self.0.insert(name, content.to_vec());
            }
            Step::Rename { from, to } => {
                let content = self.0.remove(from).unwrap();
                self.0.insert(to, content);
            }
            Step::Remove { name } => {
                self.0.remove(name).unwrap();
            }
        }
    }

    fn found(&self) -> Found {
        let get = |name| self.0.get(name).cloned();
        Found {
            cert: get(plan::NODE_CERT),
            cert_next: get(plan::NODE_CERT_NEXT),
            key: get(plan::NODE_KEY).map(Zeroizing::new),
            key_old: get(plan::NODE_KEY_OLD).map(Zeroizing::new),
        }
    }

    /// The certificate that a start would use, after tidying up.
    fn start(&mut self) -> Option<String> {
        let (recovered, steps) = plan::recover(&self.found(), None).unwrap();
        steps.iter().for_each(|step| self.apply(step));
        match recovered {
            Recovered::Nothing => None,
            Recovered::Pair { cert_pem, .. } => {
                assert_eq!(self.0[plan::NODE_CERT], cert_pem.as_bytes());
                assert!(!self.0.contains_key(plan::NODE_CERT_NEXT), "not tidied up");
                Some(cert_pem)
            }
        }
    }
}

fn pair(authority: &Authority) -> (String, String) {
    let key = csr::new_key();
    let request = csr::request(&key).unwrap();
    let worker = subject(NodeRole::Worker);
    let cert = authority
        .signer
        .sign(request.as_bytes(), &worker, hours(24), now(), [1; 20])
        .unwrap();
    let file = KeyFile::new(PrivateKey::from_pem(&key).unwrap(), 0);
    (cert, file.write(None).unwrap().to_string())
}

#[test]
fn a_crash_between_any_two_steps_leaves_the_old_pair_or_the_new_one() {
    let authority = Authority::new();
    let (old, new) = (pair(&authority), pair(&authority));
    let mut before = Directory::default();
    plan::replace(&old.0, &old.1)
        .iter()
        .for_each(|step| before.apply(step));
    assert_eq!(before.clone().start(), Some(old.0.clone()));

    let steps = plan::replace(&new.0, &new.1);
    for done in 0..=steps.len() {
        let mut directory = before.clone();
        steps[..done].iter().for_each(|step| directory.apply(step));
        // The key decides: the second step is the moment of change.
        let expected = if done < 2 { &old.0 } else { &new.0 };
        assert_eq!(
            directory.start().as_ref(),
            Some(expected),
            "after {done} steps"
        );
        assert_eq!(directory.start().as_ref(), Some(expected), "once more");
    }
}

#[test]
fn a_first_write_that_was_cut_short_counts_as_nothing_until_the_key_is_there() {
    let new = pair(&Authority::new());
    let steps = plan::replace(&new.0, &new.1);
    for done in 0..=steps.len() {
        let mut directory = Directory::default();
        steps[..done].iter().for_each(|step| directory.apply(step));
        assert_eq!(directory.start().is_some(), done >= 2, "after {done} steps");
    }
}

#[test]
fn an_old_key_beside_its_certificate_is_taken_and_moved() {
    let (cert, key) = pair(&Authority::new());
    let mut directory = Directory::default();
    directory
        .0
        .insert(plan::NODE_CERT, cert.clone().into_bytes());
    directory.0.insert(plan::NODE_KEY_OLD, key.into_bytes());
    assert_eq!(directory.start(), Some(cert.clone()));
    assert!(directory.0.contains_key(plan::NODE_KEY));
    assert_eq!(directory.start(), Some(cert));
}

#[test]
fn a_locked_directory_is_an_error_and_not_an_empty_one() {
    let mut directory = Directory::default();
    directory
        .0
        .insert(plan::NODE_KEY, golden::LOCKED_KEY.as_bytes().to_vec());
    let refused = plan::recover(&directory.found(), None).map(drop);
    assert_eq!(refused, Err(KeyFileError::Locked));
    assert!(plan::recover(&directory.found(), Some(&golden::kek())).is_ok());
}
