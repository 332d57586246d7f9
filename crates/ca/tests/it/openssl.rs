//! A second opinion on certificates and keys: the program `openssl`, skipped where it is missing.
#![allow(
    clippy::disallowed_methods,
    reason = "the second opinion is another program, fed files"
)]
#![allow(clippy::print_stderr, reason = "a skipped check must be seen")]

use std::process::Command;

use swarm_api::v1::NodeRole;
use swarm_ca::chain::{self, Expiry};
use swarm_ca::issue::Signer;
use swarm_ca::key::{KeyPem, PrivateKey};
use swarm_ca::keyfile::{ENCRYPTED_LABEL, Kek, KeyFile, Salt};
use swarm_ca::root::{self, RootBundle};
use swarm_ca::{cross, csr, pem};

use crate::{Authority, hours, now, subject};

/// Runs the program on files; `None` if it is not installed.
fn run(arguments: &[&str], files: &[(&str, &str)]) -> Option<(bool, String)> {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(directory.path().join(name), content).unwrap();
    }
    let output = Command::new("openssl")
        .args(arguments)
        .current_dir(directory.path())
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: `openssl` is not installed");
        return None;
    };
    let text = [output.stdout, output.stderr].concat();
    Some((
        output.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    ))
}

/// What `openssl` prints of a certificate, without the lines and words that differ between any two.
pub(crate) fn outline(pem: &str) -> Option<String> {
    let (ok, text) = run(&["x509", "-in", "c", "-noout", "-text"], &[("c", pem)])?;
    assert!(ok, "{text}");
    let different = |line: &&str| {
        let line = line.trim();
        line.contains(':') && line.split(':').all(|part| part.len() <= 3)
            || line.starts_with("Not ")
    };
    let lines = text.lines().filter(|line| !different(line)).map(|line| {
        let words = line.split(' ').map(|word| {
            let id = word.trim_start_matches("DNS:").trim_end_matches(',');
            if id.len() == 25 { "ID" } else { word }
        });
        words.collect::<Vec<_>>().join(" ")
    });
    Some(lines.collect::<Vec<_>>().join("\n"))
}

/// All that `openssl` prints of a certificate.
pub(crate) fn text(pem: &str) -> Option<String> {
    let (ok, text) = run(&["x509", "-in", "c", "-noout", "-text"], &[("c", pem)])?;
    assert!(ok, "{text}");
    Some(text)
}

fn verify(roots: &str, chain: &str) -> Option<bool> {
    let at = (now().as_nanos() / 1_000_000_000).to_string();
    let arguments = [
        "verify",
        "-attime",
        &at,
        "-x509_strict",
        "-CAfile",
        "roots",
        "-untrusted",
        "chain",
        "chain",
    ];
    let (ok, text) = run(&arguments, &[("roots", roots), ("chain", chain)])?;
    eprintln!("{text}");
    Some(ok)
}

#[test]
fn openssl_believes_what_is_issued() {
    let authority = Authority::new();
    let other = Authority::new();
    for role in [NodeRole::Manager, NodeRole::Worker] {
        let chain = authority.issue(role);
        assert_ne!(verify(&authority.cert_pem, &chain), Some(false));
        assert_ne!(verify(&other.cert_pem, &chain), Some(true));
    }
}

#[test]
fn openssl_believes_a_leaf_of_a_rotation_under_both_roots() {
    let (old, new) = (Authority::new(), Authority::new());
    let crossed = cross::cross_sign(&new.cert_pem, &old.signer).unwrap();
    let signer = Signer::new(&crossed, &new.key, &crossed).unwrap();
    let rotated = Authority { signer, ..new };
    let chain = rotated.issue(NodeRole::Worker);
    assert_ne!(verify(&old.cert_pem, &chain), Some(false));
    assert_ne!(verify(&rotated.cert_pem, &chain), Some(false));
}

/// Keys of every kind and form that an operator may bring, made by `openssl`.
#[test]
fn foreign_roots_of_every_accepted_kind_sign() {
    let kinds: [&[&str]; 4] = [
        &["ecparam", "-genkey", "-noout", "-name", "prime256v1"],
        &["ecparam", "-genkey", "-name", "secp384r1", "-noout"],
        &["genrsa", "-traditional", "2048"],
        &["genrsa", "3072"],
    ];
    for kind in kinds {
        let Some((true, key)) = run(kind, &[]) else {
            return;
        };
        let key = KeyPem::new(key[key.find("-----BEGIN").unwrap()..].to_owned());
        let parsed = PrivateKey::from_pem(&key).unwrap();
        let cert_pem = root::self_sign(&parsed, now()).unwrap();
        let again = PrivateKey::from_pem(&parsed.to_pem()).unwrap();
        assert_eq!(again.spki_der(), parsed.spki_der());
        let authority = Authority::from_parts(cert_pem, key);
        let chain = authority.issue(NodeRole::Worker);
        assert_eq!(verify(&authority.cert_pem, &chain), Some(true), "{kind:?}");

        let other = Authority::new();
        let crossed = cross::cross_sign(&other.cert_pem, &authority.signer).unwrap();
        let signer = Signer::new(&crossed, &other.key, &crossed).unwrap();
        let roots = authority.roots();
        signer.check_trusted(&roots, now()).unwrap();
        let chain = Authority { signer, ..other }.issue(NodeRole::Manager);
        assert_eq!(verify(&authority.cert_pem, &chain), Some(true), "{kind:?}");
    }
}

/// Any kind of root may follow upon any other, and nodes of either side believe the result.
#[test]
fn roots_of_every_kind_are_cross_signed_by_roots_of_every_kind() {
    let kinds: [&[&str]; 4] = [
        &["ecparam", "-genkey", "-noout", "-name", "prime256v1"],
        &["ecparam", "-genkey", "-noout", "-name", "secp384r1"],
        &["genrsa", "2048"],
        &["genrsa", "4096"],
    ];
    let authority = |kind: &[&str]| {
        let (_, key) = run(kind, &[])?;
        let key = KeyPem::new(key[key.find("-----BEGIN").unwrap()..].to_owned());
        let cert_pem = root::self_sign(&PrivateKey::from_pem(&key).unwrap(), now()).unwrap();
        Some(Authority::from_parts(cert_pem, key))
    };
    let made = kinds.map(authority).into_iter().collect::<Option<Vec<_>>>();
    let Some(roots) = made else { return };
    // Two of one kind are cross-signed by the other tests.
    for (index, old) in roots.iter().enumerate() {
        let others = roots
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index);
        for (_, new) in others {
            let crossed = cross::cross_sign(&new.cert_pem, &old.signer).unwrap();
            let signer = Signer::new(&crossed, &new.key, &crossed).unwrap();
            signer.check_trusted(&old.roots(), now()).unwrap();
            let request = csr::request(&csr::new_key()).unwrap();
            let worker = subject(NodeRole::Worker);
            let chain_pem = signer.sign(request.as_bytes(), &worker, hours(24), now(), [1; 20]);
            let chain_pem = chain_pem.unwrap();
            for root in [old, new] {
                chain::validate(chain_pem.as_bytes(), &root.roots(), now(), Expiry::Enforce)
                    .unwrap();
                assert_eq!(verify(&root.cert_pem, &chain_pem), Some(true));
            }
        }
    }
}

#[test]
fn keys_that_cannot_sign_are_refused_in_words() {
    let kinds: [(&[&str], &str); 4] = [
        (
            &["ecparam", "-genkey", "-noout", "-name", "secp521r1"],
            "P-521",
        ),
        (&["genrsa", "1024"], "2048 to 4096 bits"),
        (&["genpkey", "-algorithm", "ed25519"], "use ECDSA P-256"),
        (
            &["ecparam", "-genkey", "-noout", "-name", "secp256k1"],
            "EC on curve",
        ),
    ];
    for (kind, words) in kinds {
        let Some((true, key)) = run(kind, &[]) else {
            return;
        };
        let key = KeyPem::new(key[key.find("-----BEGIN").unwrap()..].to_owned());
        let error = PrivateKey::from_pem(&key).unwrap_err();
        assert!(error.to_string().contains(words), "{kind:?}: {error}");
    }
}

#[test]
fn roots_that_openssl_makes_are_accepted_or_refused_in_words() {
    let root = |kind: &[&str], digest: &str| {
        let (_, key) = run(kind, &[])?;
        let arguments = [
            "req", "-x509", "-new", "-key", "k", digest, "-subj", "/CN=mine", "-days",
        ];
        let arguments: Vec<&str> = arguments.into_iter().chain(["36500"]).collect();
        let (_, text) = run(&arguments, &[("k", &key)])?;
        Some(text[text.find("-----BEGIN").unwrap()..].to_owned())
    };
    let ec = |curve| ["ecparam", "-genkey", "-noout", "-name", curve];
    for (kind, digest) in [
        (&ec("prime256v1")[..], "-sha256"),
        (&ec("prime256v1")[..], "-sha384"),
        (&ec("secp384r1")[..], "-sha256"),
        (&["genrsa", "2048"][..], "-sha512"),
    ] {
        let Some(pem) = root(kind, digest) else {
            return;
        };
        RootBundle::parse_any_time(pem.as_bytes()).unwrap();
    }
    for (kind, digest, words) in [
        (&ec("secp521r1")[..], "-sha512", "P-521"),
        (&ec("prime256v1")[..], "-sha512", "SHA-512"),
        (&["genrsa", "2048"][..], "-sha1", "not accepted"),
    ] {
        let pem = root(kind, digest).unwrap();
        let error = RootBundle::parse_any_time(pem.as_bytes()).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains(words), "{source}");
    }
}

#[test]
fn openssl_opens_an_encrypted_key_file() {
    let key = PrivateKey::generate();
    let plain = KeyFile::new(PrivateKey::from_pem(&key.to_pem()).unwrap(), 3);
    let salt = Salt {
        derivation: [1; 8],
        cipher: [2; 16],
    };
    let kek = Kek::new(b"password of letters".to_vec());
    let text = plain.write(Some((&kek, salt))).unwrap();
    // It refuses headers that it does not know.
    let text = pem::write(
        ENCRYPTED_LABEL,
        &pem::read_one(text.as_bytes()).unwrap().der,
    );
    let arguments = ["pkcs8", "-in", "k", "-passin", "pass:password of letters"];
    let Some((ok, opened)) = run(&arguments, &[("k", &text)]) else {
        return;
    };
    assert!(ok, "{opened}");
    let opened = PrivateKey::from_pem(&KeyPem::new(opened)).unwrap();
    assert_eq!(opened.spki_der(), key.spki_der());
}

#[test]
fn requests_are_read_by_openssl_and_those_of_openssl_are_signed() {
    let ours = csr::request(&csr::new_key()).unwrap();
    let check = ["req", "-in", "r", "-noout", "-verify", "-subject"];
    let Some((ok, text)) = run(&check, &[("r", &ours)]) else {
        return;
    };
    assert!(ok && text.contains("verify OK"), "{text}");

    let key = PrivateKey::generate().to_pem();
    let hostile = [
        "req",
        "-new",
        "-key",
        "k",
        "-subj",
        "/O=other/OU=swarm-manager/CN=admin",
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "subjectAltName=DNS:swarm-manager",
    ];
    let (_, theirs) = run(&hostile, &[("k", key.as_str())]).unwrap();
    let authority = Authority::new();
    let worker = subject(NodeRole::Worker);
    let issued = authority
        .signer
        .sign(theirs.as_bytes(), &worker, hours(24), now(), [1; 20])
        .unwrap();
    let outlines = (
        outline(&issued),
        outline(&authority.issue(NodeRole::Worker)),
    );
    assert_eq!(outlines.0, outlines.1);
}
