//! `swarmd join --check`, step by step.

use swarm_api::ext;
use swarm_ca::token::JoinToken;
use swarm_rt::Clock;
use swarm_types::Timestamp;
use tokio::net::TcpListener;

use super::fake::Fake;
use super::within;
use crate::check::{self, Outcome, Report, Step};

async fn check(address: &str, token: &str) -> Report {
    within(check::join(address, token, &Clock::new())).await
}

fn step<'a>(report: &'a Report, name: &str) -> &'a Step {
    report.steps.iter().find(|step| step.name == name).unwrap()
}

/// The only bad step has this name and these words; what follows was not tested.
fn assert_bad(report: &Report, name: &str, words: &str) {
    let bad = |step: &&Step| step.outcome == Outcome::Bad;
    let bad: Vec<&Step> = report.steps.iter().filter(bad).collect();
    assert_eq!(bad.len(), 1, "{report:?}");
    assert_eq!(bad[0].name, name, "{report:?}");
    assert!(bad[0].text.contains(words), "{report:?}");
    assert!(!report.is_good());
    assert_eq!(report.steps.len(), 8);
}

fn about(now: Timestamp) -> ext::CheckJoinTokenResponse {
    ext::CheckJoinTokenResponse {
        valid: true,
        role: "worker".to_owned(),
        manager_time: Some(now.to_wire()),
        ..Default::default()
    }
}

#[tokio::test]
async fn everything_is_good_and_nothing_is_asked_for() {
    let fake = Fake::start().await;
    fake.behaviour().about_token = Some(about(Clock::new().now()));
    let report = check(&fake.address, &fake.token()).await;
    assert!(report.is_good(), "{report:?}");
    let all = |step: &Step| step.outcome == Outcome::Good;
    assert!(report.steps.iter().all(all), "{report:?}");
    assert!(fake.behaviour().asked.is_empty());
}

#[tokio::test]
async fn a_manager_that_does_not_know_the_question_leaves_open_whether_the_token_joins() {
    let fake = Fake::start().await;
    let report = check(&fake.address, &fake.token()).await;
    assert!(report.failed().next().is_none(), "{report:?}");
    assert!(!report.is_good(), "{report:?}");
    assert_eq!(step(&report, "token").outcome, Outcome::Untested);
    assert_eq!(step(&report, "clock").outcome, Outcome::Untested);
}

#[tokio::test]
async fn each_step_fails_by_its_name() {
    let fake = Fake::start().await;
    let token = fake.token();
    assert_bad(&check("nonsense", &token).await, "address", "not host:port");
    let unknown = check("no-such-host.invalid:1", &token).await;
    assert_bad(&unknown, "address", "no-such-host.invalid");
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = free.local_addr().unwrap().to_string();
    drop(free);
    assert_bad(&check(&closed, &token).await, "port", "no manager listens");

    let other = JoinToken::generate(b"other root", [1; 16]).to_string();
    assert_bad(
        &check(&fake.address, &other).await,
        "root",
        "another cluster",
    );

    fake.behaviour().about_token = Some(ext::CheckJoinTokenResponse {
        valid: false,
        reason: "expired at noon".to_owned(),
        ..about(Clock::new().now())
    });
    let report = check(&fake.address, &token).await;
    assert_bad(&report, "token", "expired at noon");
    fake.behaviour().about_token = Some(ext::CheckJoinTokenResponse {
        role: "manager".to_owned(),
        ..about(Clock::new().now())
    });
    let report = check(&fake.address, &token).await;
    assert_bad(&report, "token", "a second manager");

    let hour = std::time::Duration::from_secs(3600);
    let past = Clock::new().now().saturating_sub(hour);
    fake.behaviour().about_token = Some(about(past));
    let report = check(&fake.address, &token).await;
    assert_bad(&report, "clock", "ahead of the manager's");
}

#[tokio::test]
async fn a_malformed_token_does_not_hide_the_rest() {
    let fake = Fake::start().await;
    fake.behaviour().about_token = Some(about(Clock::new().now()));
    let report = check(&fake.address, "SWMTKN-1-x").await;
    assert_bad(&report, "token-form", "invalid join token");
    assert_eq!(step(&report, "manager").outcome, Outcome::Good);
    assert_eq!(step(&report, "clock").outcome, Outcome::Good);
    assert_eq!(step(&report, "token").outcome, Outcome::Untested);
}

#[tokio::test]
async fn a_port_that_is_no_manager_fails_at_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let hang_up = async {
        loop {
            drop(listener.accept().await);
        }
    };
    let token = JoinToken::generate(b"root", [1; 16]).to_string();
    let report = tokio::select! {
        report = check(&address, &token) => report,
        () = hang_up => return,
    };
    assert_bad(&report, "tls", "no manager at this address");
}
