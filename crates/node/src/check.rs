//! Whether a join would work, step by step, without joining (`swarmd join --check`).
//!
//! Owns which steps there are and what a failure means. Nothing is changed, neither here nor on
//! the manager: no node is made and no use of a token is counted.

use std::fmt;
use std::time::Duration;

use swarm_api::ext;
use swarm_ca::root::RootBundle;
use swarm_ca::token::JoinToken;
use swarm_rt::Clock;
use swarm_rt::net::{self, Address};
use swarm_rt::tls::{Security, ServerName};
use swarm_types::Timestamp;
use tokio::net::TcpStream;
use tonic::{Code, Status};

use crate::obtain::{self, ObtainError};

/// Clocks that differ by more than this are reported. Certificates are valid from an hour before
/// they are issued, so a difference below it does no harm.
pub const SKEW_MAX: Duration = Duration::from_secs(60);

/// How one step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Good,
    /// A join would fail here.
    Bad,
    /// A step before it failed, or the manager cannot be asked.
    Untested,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Good => "ok",
            Self::Bad => "failed",
            Self::Untested => "untested",
        })
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its name, stable for programs.
    pub name: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found, or what is wrong and how to go on.
    pub text: String,
}

/// All steps, in order; the same ones whatever happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The steps.
    pub steps: Vec<Step>,
}

/// The names of all steps.
const NAMES: [&str; 8] = [
    "token-form",
    "address",
    "port",
    "tls",
    "root",
    "manager",
    "clock",
    "token",
];

impl Report {
    /// Whether a join would work: nothing failed, and the manager says that it takes the token.
    pub fn is_good(&self) -> bool {
        let is_taken = |step: &Step| step.name == "token" && step.outcome == Outcome::Good;
        self.failed().next().is_none() && self.steps.iter().any(is_taken)
    }

    /// The steps that failed.
    pub fn failed(&self) -> impl Iterator<Item = &Step> {
        let steps = self.steps.iter();
        steps.filter(|step| step.outcome == Outcome::Bad)
    }

    fn add(&mut self, name: &'static str, outcome: Outcome, text: impl Into<String>) {
        let text = text.into();
        self.steps.push(Step {
            name,
            outcome,
            text,
        });
    }

    fn good(&mut self, name: &'static str, text: impl Into<String>) {
        self.add(name, Outcome::Good, text);
    }

    /// Ends the report: what comes after a failure was not tested.
    fn bad(&mut self, name: &'static str, text: impl Into<String>) {
        self.add(name, Outcome::Bad, text);
    }

    fn finish(mut self) -> Self {
        for name in NAMES {
            if !self.steps.iter().any(|step| step.name == name) {
                self.add(name, Outcome::Untested, "");
            }
        }
        let place = |step: &Step| NAMES.iter().position(|name| *name == step.name);
        self.steps.sort_by_key(place);
        self
    }
}

/// Tries everything that a join needs. A token that is malformed does not keep the rest from being
/// tested.
pub async fn join(address: &str, token: &str, clock: &Clock) -> Report {
    let mut report = Report::default();
    let parsed = match JoinToken::parse(token) {
        Ok(token) if token.requires_fips() => {
            let text =
                "the token is for clusters of nodes in FIPS mode, which this program has not";
            report.bad("token-form", text);
            None
        }
        Ok(token) => {
            report.good(
                "token-form",
                format!("for the root {}", token.root_digest()),
            );
            Some(token)
        }
        Err(error) => {
            report.bad("token-form", error.to_string());
            None
        }
    };
    if reach(&mut report, address).await {
        inside(&mut report, address, parsed.as_ref(), clock).await;
    }
    report.finish()
}

/// Address and port.
async fn reach(report: &mut Report, address: &str) -> bool {
    if !matches!(Address::parse(address), Ok(Address::Tcp(_))) {
        report.bad("address", format!("`{address}` is not host:port"));
        return false;
    }
    let lookup = tokio::time::timeout(obtain::CALL_TIMEOUT, tokio::net::lookup_host(address));
    let found: Vec<_> = match lookup.await {
        Ok(Ok(found)) => found.collect(),
        Ok(Err(error)) => {
            report.bad("address", format!("`{address}` is not known: {error}"));
            return false;
        }
        Err(_) => {
            report.bad(
                "address",
                format!("nobody says within 5 s what `{address}` is"),
            );
            return false;
        }
    };
    let names: Vec<String> = found.iter().map(ToString::to_string).collect();
    report.good("address", names.join(", "));
    let connect = tokio::time::timeout(net::CONNECT_TIMEOUT, TcpStream::connect(&found[..]));
    let text = match connect.await {
        Ok(Ok(_)) => {
            report.good("port", "open");
            return true;
        }
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => format!(
            "closed ({error}): no manager listens there; is it started, and does it listen on \
             that address (--listen-remote-api)?"
        ),
        Ok(Err(error)) => format!("cannot be reached: {error}"),
        Err(_) => format!(
            "no answer within {} s: the machine is off, or a firewall drops packets to this port",
            net::CONNECT_TIMEOUT.as_secs()
        ),
    };
    report.bad("port", text);
    false
}

/// Everything that needs an answer of the manager.
async fn inside(report: &mut Report, address: &str, token: Option<&JoinToken>, clock: &Clock) {
    let address = Address::Tcp(address.to_owned());
    let root = match obtain::fetch_root(&address, clock.now(), None).await {
        Ok(root) => root,
        Err(error) => return root_failed(report, &error),
    };
    report.good("tls", "HTTP/2 over TLS");
    match token {
        Some(token) if token.root_digest() != root.digest() => {
            let text = format!(
                "the manager has the root {}, and the token is for {}: the token is of another \
                 cluster, or was made before the root was rotated",
                root.digest(),
                token.root_digest()
            );
            return report.bad("root", text);
        }
        Some(_) => report.good("root", format!("{}, as in the token", root.digest())),
        None => report.add("root", Outcome::Untested, root.digest().to_string()),
    }
    ask(report, &address, &root, token, clock).await;
}

fn root_failed(report: &mut Report, error: &ObtainError) {
    let text = swarm_rt::chain(error).to_string();
    match error {
        ObtainError::Unreachable { .. } => report.bad("tls", text),
        ObtainError::Root { .. } => {
            report.good("tls", "HTTP/2 over TLS");
            report.bad("root", text);
        }
        ObtainError::Refused { .. } => {
            report.good("tls", "HTTP/2 over TLS");
            report.bad("manager", format!("what answers is not a manager: {text}"));
        }
        ObtainError::NoManager
        | ObtainError::Digest { .. }
        | ObtainError::Failed(_)
        | ObtainError::Slow
        | ObtainError::Chain(_)
        | ObtainError::Identity(_)
        | ObtainError::OtherKey
        | ObtainError::Request(_) => report.bad("root", text),
    }
}

/// The manager's own certificate, its clock, and the token.
async fn ask(
    report: &mut Report,
    address: &Address,
    root: &RootBundle,
    token: Option<&JoinToken>,
    clock: &Clock,
) {
    let security = Security::Verified(root.pem().to_owned(), ServerName::Ca);
    let text = token.map(ToString::to_string).unwrap_or_default();
    let before = clock.now();
    let answer = call(address, &security, text).await;
    match answer {
        Ok(answer) => {
            report.good("manager", "its certificate is one of the root");
            clock_of(report, &answer, before, clock.now());
            match token {
                Some(_) => token_of(report, &answer),
                None => report.add("token", Outcome::Untested, ""),
            }
        }
        Err(status) if status.code() == Code::Unimplemented => {
            report.good("manager", "its certificate is one of the root");
            let text = "a manager of another program cannot be asked whether it takes a token, \
                        nor whether the token admits managers, which cannot run here; only the \
                        join itself shows it";
            report.add("token", Outcome::Untested, text);
        }
        Err(status) => report.bad("manager", obtain::in_words(&status)),
    }
}

async fn call(
    address: &Address,
    security: &Security,
    token: String,
) -> Result<ext::CheckJoinTokenResponse, Status> {
    let channel = obtain::connect(address, security);
    let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut client = ext::identity_client::IdentityClient::new(channel);
    let call = client.check_join_token(ext::CheckJoinTokenRequest { token });
    Ok(obtain::limited(call).await?.into_inner())
}

fn clock_of(
    report: &mut Report,
    answer: &ext::CheckJoinTokenResponse,
    before: Timestamp,
    after: Timestamp,
) {
    let theirs = answer.manager_time.as_ref().and_then(Timestamp::from_wire);
    let Some(theirs) = theirs else {
        return report.add(
            "clock",
            Outcome::Untested,
            "the manager does not tell its time",
        );
    };
    // The manager looked at its clock between the two readings of ours.
    let behind = theirs.saturating_since(after);
    let ahead = before.saturating_since(theirs);
    let (skew, word) = if behind > ahead {
        (behind, "behind")
    } else {
        (ahead, "ahead of")
    };
    if skew <= SKEW_MAX {
        return report.good("clock", format!("within {} s", skew.as_secs() + 1));
    }
    let text = format!(
        "this machine's clock is {} s {word} the manager's: set the one that is wrong, or \
         certificates will seem expired or not yet valid",
        skew.as_secs()
    );
    report.bad("clock", text);
}

fn token_of(report: &mut Report, answer: &ext::CheckJoinTokenResponse) {
    if !answer.valid {
        return report.bad("token", answer.reason.clone());
    }
    if answer.role == "manager" {
        let text = "it admits managers, and a second manager cannot run yet; use the token for \
                    workers";
        return report.bad("token", text);
    }
    let mut text = match answer.node_id.as_str() {
        "" => format!("admits a {}", answer.role),
        node => format!("readmits node {node}, from its own state directory only"),
    };
    if let Some(at) = answer.expires_at.as_ref().and_then(Timestamp::from_wire) {
        text.push_str(&format!(", until {at}"));
    }
    if let Some(left) = answer.uses_left {
        text.push_str(&format!(", {left} more times"));
    }
    report.good("token", text);
}
