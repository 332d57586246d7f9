//! Which root bundles are accepted, and that their text is kept.

use swarm_api::v1::NodeRole;
use swarm_ca::cross;
use swarm_ca::root::{ROOTS_MAX, RootBundle, RootDigest, RootError};
use swarm_ca::token::{self, JoinToken};

use crate::{Authority, hours, now};

#[test]
fn a_bundle_keeps_its_exact_text() {
    let text = format!(
        "# mine\n{}\n{}",
        Authority::new().cert_pem,
        Authority::new().cert_pem
    );
    let bundle = RootBundle::parse(text.as_bytes(), now()).unwrap();
    assert_eq!(bundle.pem(), text);
    assert_eq!(bundle.ders().len(), 2);
    assert_eq!(bundle.digest(), RootDigest::of(text.as_bytes()));
    assert!(bundle.digest().to_string().starts_with("sha256:"));
}

#[test]
fn roots_outside_their_time_are_refused() {
    let pem = Authority::new().cert_pem;
    let early = now().saturating_sub(hours(1));
    let late = now().saturating_add(hours(24 * 366 * 20));
    for at in [early, late] {
        let refused = RootBundle::parse(pem.as_bytes(), at);
        assert!(matches!(
            refused,
            Err(RootError::Certificate { index: 1, .. })
        ));
    }
    assert!(RootBundle::parse_any_time(pem.as_bytes()).is_ok());
}

#[test]
fn what_others_signed_is_no_root() {
    let (one, other) = (Authority::new(), Authority::new());
    let parse = |pem: &str| RootBundle::parse(pem.as_bytes(), now()).map(drop);
    let leaf = one.issue(NodeRole::Manager);
    assert_eq!(parse(&leaf), Err(RootError::NotSelfSigned(1)));
    // Same name, other key: a cross-signed root is not self-signed although its names say so.
    let crossed = cross::cross_sign(&one.cert_pem, &other.signer).unwrap();
    let both = format!("{}{crossed}", one.cert_pem);
    assert_eq!(parse(&both), Err(RootError::NotSelfSigned(2)));
    let many = one.cert_pem.repeat(ROOTS_MAX + 1);
    assert_eq!(parse(&many), Err(RootError::TooMany(ROOTS_MAX + 1)));
    assert!(matches!(parse("nothing"), Err(RootError::Text(_))));
}

#[test]
fn tokens_are_read_exactly_or_not_at_all() {
    let token = JoinToken::generate(b"root", [9; 16]);
    let text = token.to_string();
    assert_eq!(JoinToken::parse(&text).unwrap(), token);
    assert!(!token.requires_fips());
    let fips = JoinToken::generate_fips(b"root", [0; 16]);
    assert!(fips.to_string().starts_with("SWMTKN-2-1-"));
    assert!(JoinToken::parse(&fips.to_string()).unwrap().requires_fips());
    let open = fips.to_string().replace("-2-1-", "-2-0-");
    assert!(!JoinToken::parse(&open).unwrap().requires_fips());

    let (_, tail) = text.split_once("-1-").unwrap();
    let check = |text: String, words: &str| {
        let error = JoinToken::parse(&text).unwrap_err().to_string();
        assert!(
            error.starts_with("invalid join token: ") && error.contains(words),
            "{error}"
        );
        assert!(!error.contains(&tail[52..]), "a secret is in {error}");
    };
    check(String::new(), "does not start");
    check(text.replace("SWMTKN", "SWMKEY"), "does not start");
    check(format!("SWMTKN-3-{tail}"), "version");
    check(format!("SWMTKN-2-2-{tail}"), "parts");
    check(format!("{text}-x"), "parts");
    check(text[..text.len() - 1].to_owned(), "secret does not have 25");
    check(text.replacen("-1-", "-1-0", 1), "digest does not have 50");
    check(
        format!("SWMTKN-1-{}-{}", "z".repeat(50), &tail[51..]),
        "digest is not one",
    );
    check(
        format!("SWMTKN-1-{}?-{}", &tail[..49], &tail[51..]),
        "digest is not one",
    );
    check(
        format!("SWMTKN-1-{}-{}?", &tail[..50], &tail[52..]),
        "secret has a character",
    );
}

#[test]
fn tokens_are_equal_only_as_a_whole() {
    let text = JoinToken::generate(b"root", [9; 16]).to_string();
    assert!(token::same(&text, &text));
    assert!(!token::same(&text, &text[..text.len() - 1]));
    assert!(!token::same("", &text));
    let shown = format!("{:?}", JoinToken::parse(&text).unwrap());
    assert!(!shown.contains(&text[60..]));
}
