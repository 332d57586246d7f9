use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use swarm_api::v1::NodeRole;
use swarm_ca::issue::{Signer, Subject};
use swarm_ca::{csr, root};
use swarm_types::Timestamp;

use swarm_ca::unlock;
use swarm_raft_io::keys::{DataKey, KeyKeeper, KeySet};

use super::*;

fn pair() -> Pair {
    pair_of(NodeRole::Manager)
}

fn pair_of(role: NodeRole) -> Pair {
    let now = Timestamp::from_millis(1_795_694_429_000);
    let (root_pem, key) = root::new_root(now);
    let signer = Signer::new(&root_pem, &key, "").unwrap();
    let key_pem = csr::new_key();
    let request = csr::request(&key_pem).unwrap();
    let subject = Subject {
        node: "n".parse().unwrap(),
        cluster: "c".parse().unwrap(),
        role,
    };
    let day = Duration::from_secs(24 * 3600);
    let chain_pem = signer
        .sign(request.as_bytes(), &subject, day, now, [1; 20])
        .unwrap();
    Pair { chain_pem, key_pem }
}

fn names(directory: &Path) -> Vec<(String, u32)> {
    let entries = std::fs::read_dir(directory.join(DIRECTORY)).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            (entry.file_name().into_string().unwrap(), mode)
        })
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_saved_is_loaded_under_the_names_and_modes_of_a_go_node() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = Certificates::open(directory.path()).unwrap();
    assert!(certificates.load(None).unwrap().pair.is_none());
    let pair = pair();
    certificates.begin_first_start().unwrap();
    certificates.save_root("root\n").unwrap();
    certificates.save(&pair).unwrap();
    let loaded = certificates.load(None).unwrap();
    assert!(loaded.is_first_start);
    assert_eq!(loaded.root_pem.as_deref(), Some("root\n"));
    assert_eq!(loaded.pair.unwrap().chain_pem, pair.chain_pem);
    certificates.end_first_start().unwrap();
    certificates.end_first_start().unwrap();
    assert!(!certificates.load(None).unwrap().is_first_start);
    let expected = [
        ("swarm-node.crt", 0o644),
        ("swarm-node.key", 0o600),
        ("swarm-root-ca.crt", 0o644),
    ];
    let expected = expected.map(|(name, mode)| (name.to_owned(), mode));
    assert_eq!(names(directory.path()), expected);
}

#[test]
fn headers_of_the_key_file_outlive_a_renewal() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = Certificates::open(directory.path()).unwrap();
    let first = pair();
    let key = PrivateKey::from_pem(&first.key_pem).unwrap();
    let mut file = KeyFile::new(key, 9);
    let value = "EiABAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ==";
    file.headers.0.insert("raft-dek".into(), value.into());
    let text = file.write(None).unwrap();
    for step in plan::replace(&first.chain_pem, &text) {
        certificates.apply(&step).unwrap();
    }
    certificates.load(None).unwrap();
    certificates.save(&pair()).unwrap();
    let text = certificates.read(plan::NODE_KEY).unwrap().unwrap();
    let file = KeyFile::read(&text, None).unwrap();
    assert_eq!(file.headers.0["raft-dek"], value);
    assert_eq!(file.kek_version(), Ok(9));
}

#[test]
fn a_crash_between_any_two_steps_leaves_a_pair_that_loads() {
    let (old, new) = (pair(), pair());
    let key = PrivateKey::from_pem(&new.key_pem).unwrap();
    let text = KeyFile::new(key, 0).write(None).unwrap();
    let steps = plan::replace(&new.chain_pem, &text);
    for done in 0..=steps.len() {
        let directory = tempfile::tempdir().unwrap();
        let certificates = Certificates::open(directory.path()).unwrap();
        certificates.save(&old).unwrap();
        for step in &steps[..done] {
            certificates.apply(step).unwrap();
        }
        // A write that was cut short leaves such a file.
        let half = directory.path().join(DIRECTORY).join(".tmp-swarm-node.key");
        std::fs::write(half, "half").unwrap();
        let expected = if done < 2 { &old } else { &new };
        for _ in 0..2 {
            let loaded = certificates.load(None).unwrap().pair.unwrap();
            assert_eq!(loaded.chain_pem, expected.chain_pem, "after {done} steps");
        }
        certificates.save(&old).unwrap();
        let loaded = certificates.load(None).unwrap().pair.unwrap();
        assert_eq!(loaded.chain_pem, old.chain_pem);
    }
}

#[test]
fn what_is_damaged_or_locked_is_refused_and_left_alone() {
    let pair = pair();
    let locked =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    for (name, content) in [
        (plan::NODE_KEY, "nonsense"),
        (plan::NODE_KEY, locked),
        (plan::NODE_CERT, "nonsense"),
        (plan::NODE_CERT, ""),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let certificates = Certificates::open(directory.path()).unwrap();
        certificates.save(&pair).unwrap();
        let path = directory.path().join(DIRECTORY).join(name);
        std::fs::write(&path, content).unwrap();
        let error = certificates.load(None).unwrap_err();
        assert!(error.to_string().contains("swarm-node"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
}

fn seal(byte: Option<u8>, version: u64) -> Seal {
    Seal {
        kek: byte.map(|byte| Kek::new(vec![byte; 32])),
        version,
    }
}

fn keys() -> KeySet {
    KeySet::settled(DataKey::new([7; 32]))
}

/// A manager's directory, sealed as given, with a data key in it.
fn sealed(directory: &Path, seal: &Seal) -> Certificates {
    let certificates = Certificates::open(directory).unwrap();
    certificates.save_root("root\n").unwrap();
    certificates.save(&pair()).unwrap();
    KeyKeeper::save(&certificates, &keys()).unwrap();
    certificates.reseal(seal).unwrap();
    certificates
}

fn key_text(directory: &Path) -> String {
    let path = directory.join(DIRECTORY).join(plan::NODE_KEY);
    std::fs::read_to_string(path).unwrap()
}

/// Everything in the directory of certificates.
fn all(directory: &Path) -> Vec<(std::ffi::OsString, Vec<u8>)> {
    let entries = std::fs::read_dir(directory.join(DIRECTORY)).unwrap();
    let mut all: Vec<_> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_sealed_directory_opens_with_its_key_only_and_refusals_leave_everything_alone() {
    let directory = tempfile::tempdir().unwrap();
    let seal = seal(Some(1), 9);
    sealed(directory.path(), &seal);
    // What a crash left is tidied up by a start that may, and by no other.
    let certs = directory.path().join(DIRECTORY);
    std::fs::write(certs.join(plan::NODE_CERT_NEXT), "half").unwrap();
    let before = all(directory.path());
    let text = key_text(directory.path());
    assert!(
        text.contains("ENCRYPTED") && text.contains("kek-version: 9"),
        "{text}"
    );

    let again = Certificates::open(directory.path()).unwrap();
    let without = again.load(None).unwrap_err().to_string();
    assert!(
        without.contains("node is locked, and needs a valid unlock key")
            && without.contains("swarm-node.key")
            && without.contains("--unlock-key-file"),
        "{without}"
    );
    let wrong = again.load(Some(&Kek::new(vec![2; 32]))).unwrap_err();
    let wrong = wrong.to_string();
    assert!(
        wrong.contains("node is locked, and needs a valid unlock key")
            && wrong.contains("swarm-node.key"),
        "{wrong}"
    );
    assert_eq!(all(directory.path()), before);
    assert!(again.load(seal.kek.as_ref()).unwrap().pair.is_some());
    assert!(again.is_sealed());
    let kept = KeyKeeper::load(&again).unwrap().unwrap();
    assert_eq!(kept.current.id(), keys().current.id());
}

/// The key of the log is sealed under the same key as the key of the node; a header that is sealed
/// under another one was put there by somebody.
#[test]
fn an_unlock_key_has_to_open_the_data_keys_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = sealed(directory.path(), &seal(Some(1), 9));
    let mut file = certificates.key_file(&seal(Some(1), 9)).unwrap().unwrap();
    let keys = DataKeys::read(&file.headers, Some(&Kek::new(vec![1; 32])));
    let keys = keys.unwrap().unwrap();
    keys.write(&mut file.headers, Some(&Kek::new(vec![2; 32])), &mut nonce);
    let text = sealed_text(&file, &seal(Some(1), 9)).unwrap();
    certificates.apply(&plan::replace_key(&text)).unwrap();
    let error = certificates.load(Some(&Kek::new(vec![1; 32]))).unwrap_err();
    assert!(
        matches!(error, CertificatesError::WrongUnlockKey(_)),
        "{error}"
    );
}

#[test]
fn the_seal_follows_the_cluster_and_asks_for_what_was_in_the_clear_to_be_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = sealed(directory.path(), &seal(None, 0));
    let reseal = |wanted: &Seal| certificates.reseal(wanted).unwrap();
    assert_eq!(reseal(&seal(None, 8)), Resealed::Kept);
    assert!(!certificates.wants_data_key().unwrap());
    assert_eq!(reseal(&seal(Some(1), 9)), Resealed::Locked);
    assert!(certificates.wants_data_key().unwrap());
    let text = key_text(directory.path());
    assert!(text.contains("raft-dek-needs-rotation: true"), "{text}");
    // A new data key was taken, and then the old one is gone.
    let mut next = keys();
    next.pending = Some(DataKey::new([8; 32]));
    KeyKeeper::save(&certificates, &next).unwrap();
    let text = key_text(directory.path());
    assert!(
        text.contains("raft-dek-pending: ") && !text.contains("needs-rotation"),
        "{text}"
    );
    assert!(certificates.wants_data_key().unwrap());
    let settled = KeySet::settled(DataKey::new([8; 32]));
    KeyKeeper::save(&certificates, &settled).unwrap();
    assert!(!certificates.wants_data_key().unwrap());

    assert_eq!(reseal(&seal(Some(1), 12)), Resealed::Kept);
    assert_eq!(reseal(&seal(Some(2), 13)), Resealed::Changed);
    assert!(!certificates.wants_data_key().unwrap());
    // A renewal keeps the seal, and the data key behind it.
    certificates.save(&pair()).unwrap();
    let again = Certificates::open(directory.path()).unwrap();
    again.load(Some(&Kek::new(vec![2; 32]))).unwrap();
    let kept = KeyKeeper::load(&again).unwrap().unwrap();
    assert_eq!(kept.current.id(), settled.current.id());
    assert_eq!(again.reseal(&seal(Some(1), 12)).unwrap(), Resealed::Kept);
    assert!(again.reseal(&seal(Some(1), 13)).is_err());

    assert_eq!(again.reseal(&seal(None, 14)).unwrap(), Resealed::Opened);
    assert!(!again.wants_data_key().unwrap());
    assert!(again.load(None).is_ok());
    assert!(key_text(directory.path()).contains("kek-version: 14"));
}

/// A kill at any point of a change leaves a file that the key of before or the new one opens.
#[test]
fn a_change_of_the_unlock_key_that_is_cut_short_leaves_the_old_one_or_the_new_one() {
    let seals = [
        seal(None, 0),
        seal(Some(1), 9),
        seal(Some(2), 10),
        seal(None, 11),
    ];
    for change in seals.windows(2) {
        let [old, new] = change else { unreachable!() };
        let directory = tempfile::tempdir().unwrap();
        sealed(directory.path(), old).reseal(new).unwrap();
        let after = key_text(directory.path());
        // Before the rename: the new file is there in part, in whole, and under the last name.
        for (part, is_renamed) in [
            (0, false),
            (after.len() / 2, false),
            (after.len(), false),
            (0, true),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let certificates = sealed(directory.path(), old);
            let certs = directory.path().join(DIRECTORY);
            std::fs::write(certs.join(".tmp-swarm-node.key"), &after[..part]).unwrap();
            if is_renamed {
                certificates.reseal(new).unwrap();
            }
            let expected = if is_renamed { new } else { old };
            let other = if is_renamed { old } else { new };
            let again = Certificates::open(directory.path()).unwrap();
            if expected.kek.is_some() {
                assert!(again.load(other.kek.as_ref()).is_err());
            }
            assert!(again.load(expected.kek.as_ref()).unwrap().pair.is_some());
            let kept = KeyKeeper::load(&again).unwrap().unwrap();
            assert_eq!(kept.current.id(), keys().current.id());
            // And the next start finishes the work.
            again.reseal(new).unwrap();
            assert!(again.load(new.kek.as_ref()).is_ok());
            certificates_tidy(directory.path());
        }
    }
}

/// Nothing of a change that was cut short is left.
fn certificates_tidy(directory: &Path) {
    let names: Vec<_> = names(directory).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        ["swarm-node.crt", "swarm-node.key", "swarm-root-ca.crt"]
    );
}

#[test]
fn the_certificate_of_a_worker_opens_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = sealed(directory.path(), &seal(Some(1), 9));
    certificates.save(&pair_of(NodeRole::Worker)).unwrap();
    let text = key_text(directory.path());
    assert!(
        text.contains("kek-version: 0") && !text.contains("raft-dek"),
        "{text}"
    );
    assert!(certificates.load(None).unwrap().pair.is_some());
}

/// A file that cannot be read holds keys that nothing else has; it is not replaced.
#[test]
fn a_renewal_does_not_replace_a_key_file_that_cannot_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = sealed(directory.path(), &seal(None, 0));
    let path = directory.path().join(DIRECTORY).join(plan::NODE_KEY);
    std::fs::write(&path, "nonsense").unwrap();
    certificates.save(&pair()).unwrap_err();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "nonsense");
}

/// The directory of a Docker Engine's manager that was locked.
#[test]
fn the_locked_directory_of_a_go_manager_is_opened_resealed_and_opened_again() {
    const CERT: &str = include_str!("../../../ca/tests/it/golden/locked-node.crt");
    const KEY: &str = include_str!("../../../ca/tests/it/golden/locked-node.key");
    let kek = unlock::parse("SWMKEY-1-kMN9lUlKK4saDRS24+tkiMK6y6u1U4KjbW5AuS5YZVw").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let certificates = Certificates::open(directory.path()).unwrap();
    for step in plan::replace(CERT, KEY) {
        certificates.apply(&step).unwrap();
    }
    let locked = certificates.load(None).unwrap_err();
    assert!(matches!(locked, CertificatesError::Locked(_)), "{locked}");
    assert!(certificates.load(Some(&kek)).unwrap().pair.is_some());
    let before = KeyKeeper::load(&certificates).unwrap().unwrap();
    certificates.reseal(&seal(Some(3), 19)).unwrap();
    let again = Certificates::open(directory.path()).unwrap();
    again.load(Some(&Kek::new(vec![3; 32]))).unwrap();
    let after = KeyKeeper::load(&again).unwrap().unwrap();
    assert_eq!(after.current.id(), before.current.id());
}

/// The file has its new name, and the attempt failed all the same: the directory was not synced.
#[test]
fn a_change_of_which_only_the_end_failed_is_done_again() {
    for (old, new, expected) in [
        (seal(None, 0), seal(Some(1), 9), Resealed::Locked),
        (seal(Some(1), 9), seal(Some(2), 10), Resealed::Changed),
        (seal(Some(1), 9), seal(None, 10), Resealed::Opened),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let certificates = sealed(directory.path(), &old);
        let other = Certificates::open(directory.path()).unwrap();
        other.load(old.kek.as_ref()).unwrap();
        other.reseal(&new).unwrap();
        assert_eq!(certificates.reseal(&new).unwrap(), expected);
        certificates.save(&pair()).unwrap();
        let kept = KeyKeeper::load(&certificates).unwrap().unwrap();
        assert_eq!(kept.current.id(), keys().current.id());
    }
}

#[test]
fn a_key_that_was_in_the_clear_is_known_until_another_one_is_there() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = sealed(directory.path(), &seal(None, 0));
    assert!(!certificates.wants_renewal().unwrap());
    certificates.reseal(&seal(Some(1), 9)).unwrap();
    // As after a kill at this point, and with another unlock key.
    let again = Certificates::open(directory.path()).unwrap();
    again.load(Some(&Kek::new(vec![1; 32]))).unwrap();
    assert!(again.wants_renewal().unwrap());
    again.reseal(&seal(Some(2), 10)).unwrap();
    assert!(again.wants_renewal().unwrap());
    again.save(&pair()).unwrap();
    assert!(!again.wants_renewal().unwrap());
    // A file that is opened again has no use for it.
    again.reseal(&seal(None, 11)).unwrap();
    again.reseal(&seal(Some(3), 12)).unwrap();
    assert!(again.wants_renewal().unwrap());
    again.reseal(&seal(None, 13)).unwrap();
    assert!(!again.wants_renewal().unwrap());
}

/// An old version renamed the key last; it may have been sealed in between.
#[test]
fn the_seal_is_that_of_the_file_that_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let certificates = sealed(directory.path(), &seal(Some(1), 9));
    let certs = directory.path().join(DIRECTORY);
    std::fs::rename(certs.join(plan::NODE_KEY), certs.join(plan::NODE_KEY_OLD)).unwrap();
    let stranger = PrivateKey::from_pem(&pair().key_pem).unwrap();
    let open = KeyFile::new(stranger, 0).write(None).unwrap();
    std::fs::write(certs.join(plan::NODE_KEY), open.as_bytes()).unwrap();
    drop(certificates);
    let again = Certificates::open(directory.path()).unwrap();
    again.load(Some(&Kek::new(vec![1; 32]))).unwrap();
    assert!(again.is_sealed());
    assert!(KeyKeeper::load(&again).unwrap().is_some());
}
