//! Getting a root and a certificate from a manager (spec 2.5).
//!
//! Owns the calls, which answers are taken, and what is tried again. Owns no file: what is
//! obtained is handed back.

use std::time::Duration;

use swarm_agent_io::Remotes;
use swarm_api::v1;
use swarm_ca::certificate::Certificate;
use swarm_ca::chain::{self, ChainError, Expiry};
use swarm_ca::identity::{CertIdentity, IdentityError};
use swarm_ca::key::KeyPem;
use swarm_ca::root::{RootBundle, RootError};
use swarm_ca::token::JoinToken;
use swarm_ca::{csr, renewal};
use swarm_rt::net::{self, Address};
use swarm_rt::tls::{self, Security};
use swarm_rt::{Clock, OsIds};
use swarm_types::Timestamp;
use tonic::transport::Channel;
use tonic::{Code, Status};
use v1::ca_client::CaClient;
use v1::issuance_status::State;
use v1::node_ca_client::NodeCaClient;

use crate::certificates::Pair;
use crate::joining_key::KeyRequest;

/// How long one call may take that asks something.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call for a certificate may take: longer than a manager takes until it leads and has
/// written (30 s each). Each call that it carries out makes another node and is a use of the token,
/// so one that is under way is not given up for another.
const ISSUE_TIMEOUT: Duration = Duration::from_secs(65);
/// Between two attempts to reach a manager, doubling up to the second.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(15);
/// Attempts to get one certificate, once a manager answers (`MaxCertRequestAttempts`).
const REQUESTS_MAX: u32 = 5;
/// How long a certificate may be in the making before the node says that it waits.
const SAY_AFTER: Duration = Duration::from_secs(10);
/// Waits between two looks at a request: from nothing to this and twice the last, at most.
const POLL_BASE: Duration = Duration::from_secs(1);
const POLL_MAX: Duration = Duration::from_secs(30);
/// A request that is pending for so long was forgotten, and another is made.
const ISSUE_WAIT_MAX: Duration = Duration::from_secs(300);

/// Why there is no root or certificate.
#[derive(Debug, thiserror::Error)]
pub enum ObtainError {
    /// No manager is known.
    #[error("no manager is known; name one with --join-addr")]
    NoManager,
    /// A manager could not be asked.
    #[error("manager {address}: {reason}")]
    Unreachable {
        /// The manager.
        address: String,
        /// Why, in words.
        reason: String,
    },
    /// A manager understood and refused.
    #[error("manager {address} refuses: {reason}")]
    Refused {
        /// The manager.
        address: String,
        /// Why, in its words.
        reason: String,
    },
    /// The root is not the one that the token names.
    #[error(
        "remote CA does not match fingerprint: the manager at {address} has the root {found}, and \
         the join token is for {expected}; the token is of another cluster, or was made before \
         the root of the cluster was rotated: get a fresh one with `swarmctl cluster join-token \
         worker` on a manager of the cluster that you mean"
    )]
    Digest {
        /// The manager.
        address: String,
        /// The digest of what it sent.
        found: String,
        /// The digest in the token.
        expected: String,
    },
    /// What the manager sent as a root is none.
    #[error("manager {address} sent a root that is not accepted")]
    Root {
        /// The manager.
        address: String,
        /// Why.
        source: RootError,
    },
    /// The manager could not make a certificate.
    #[error("the cluster could not issue a certificate: {0}")]
    Failed(String),
    /// The certificate is still not issued.
    #[error(
        "the cluster did not issue a certificate within {} s; `swarmctl node ls` and the \
         manager's log say why it waits", ISSUE_WAIT_MAX.as_secs()
    )]
    Slow,
    /// The certificate that came is not believed.
    #[error("the certificate that the cluster issued is not accepted")]
    Chain(#[from] ChainError),
    /// The certificate that came does not name a node.
    #[error("the certificate that the cluster issued is not one of a node")]
    Identity(#[from] IdentityError),
    /// The certificate that came is for another key.
    #[error("the certificate that the cluster issued is for another key")]
    OtherKey,
    /// The key cannot make a request.
    #[error("a certificate request cannot be made")]
    Request(#[from] csr::CsrError),
}

impl ObtainError {
    /// Whether asking again later, or another manager, may help.
    pub(crate) fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Failed(_) | Self::Slow => true,
            Self::NoManager
            | Self::Refused { .. }
            | Self::Digest { .. }
            | Self::Root { .. }
            | Self::Chain(_)
            | Self::Identity(_)
            | Self::OtherKey
            | Self::Request(_) => false,
        }
    }

    /// Whether the certificate is signed by a root that this node does not have.
    pub(crate) fn is_unknown_authority(&self) -> bool {
        matches!(self, Self::Chain(ChainError::UnknownAuthority))
    }
}

/// A certificate with its key, checked.
#[derive(Debug)]
pub(crate) struct Obtained {
    pub(crate) pair: Pair,
    pub(crate) identity: CertIdentity,
}

/// Asks managers. The remotes say which; it learns which of them answer.
#[derive(Debug)]
pub(crate) struct Asker {
    pub(crate) remotes: Remotes,
    pub(crate) clock: Clock,
    pub(crate) ids: OsIds,
}

impl Asker {
    pub(crate) fn new(remotes: Remotes, clock: Clock) -> Self {
        Self {
            remotes,
            clock,
            ids: OsIds::new(),
        }
    }

    fn select(&mut self) -> Result<Address, ObtainError> {
        let draw = self.ids.next_u64();
        self.remotes.select(draw).ok_or(ObtainError::NoManager)
    }

    /// Asks for the root until a manager answers. With a token, the answer must have its digest.
    /// Cancel safe.
    ///
    /// # Errors
    /// [`ObtainError`] that does not go away by waiting.
    pub(crate) async fn root(
        &mut self,
        token: Option<&JoinToken>,
    ) -> Result<RootBundle, ObtainError> {
        let mut patience = Patience::default();
        loop {
            let address = self.select()?;
            let answer = fetch_root(&address, self.clock.now(), token).await;
            self.remotes.observe(&address, answer.is_ok());
            match answer {
                Err(error) if error.is_temporary() => patience.wait(&error).await,
                answer => return answer,
            }
        }
    }

    /// Asks for a certificate for this key until there is one. A manager that took the request
    /// already finds its node by it, so an answer that is lost costs nothing. Cancel safe.
    ///
    /// # Errors
    /// [`ObtainError`] that does not go away by waiting.
    pub(crate) async fn certificate(
        &mut self,
        root: &RootBundle,
        security: &Security,
        wish: &Wish,
        key: &KeyRequest,
    ) -> Result<Obtained, ObtainError> {
        let mut patience = Patience::default();
        let mut failures = 0;
        loop {
            let obtained = self.request_for(root, security, wish, key).await;
            match obtained {
                Err(error @ ObtainError::Unreachable { .. }) => patience.wait(&error).await,
                Err(error) if error.is_temporary() && failures + 1 < REQUESTS_MAX => {
                    failures += 1;
                    patience.wait(&error).await;
                }
                obtained => return obtained,
            }
        }
    }

    /// One request for a new key, and looking at it until it is decided.
    ///
    /// # Errors
    /// [`ObtainError`].
    pub(crate) async fn request(
        &mut self,
        root: &RootBundle,
        security: &Security,
        wish: &Wish,
    ) -> Result<Obtained, ObtainError> {
        let key = KeyRequest::draw()?;
        self.request_for(root, security, wish, &key).await
    }

    async fn request_for(
        &mut self,
        root: &RootBundle,
        security: &Security,
        wish: &Wish,
        key: &KeyRequest,
    ) -> Result<Obtained, ObtainError> {
        let request = &key.request;
        let address = self.select()?;
        let issued = self.issue(&address, security, request, wish).await;
        self.remotes.observe(&address, issued.is_ok());
        let node_id = issued?;
        let chain_pem = self.wait(address, security, request, node_id).await?;
        check(chain_pem, key.key_pem.clone(), root, self.clock.now())
    }

    async fn issue(
        &self,
        address: &Address,
        security: &Security,
        request: &str,
        wish: &Wish,
    ) -> Result<String, ObtainError> {
        let mut client = NodeCaClient::new(connect(address, security)?);
        let message = v1::IssueNodeCertificateRequest {
            csr: request.as_bytes().to_vec().into(),
            token: wish.token.clone(),
            availability: wish.availability as i32,
            ..Default::default()
        };
        let mut call = std::pin::pin!(client.issue_node_certificate(message));
        let answer = match tokio::time::timeout(SAY_AFTER, &mut call).await {
            Ok(answer) => answer,
            Err(_) => {
                tracing::warn!(manager = %address, "waiting for the manager to take the request");
                within(ISSUE_TIMEOUT.saturating_sub(SAY_AFTER), call).await
            }
        };
        let answer = answer.map_err(|status| said(address, &status))?;
        Ok(answer.into_inner().node_id)
    }

    /// Looks at a request until it is decided. Another manager is asked when one fails.
    async fn wait(
        &mut self,
        mut address: Address,
        security: &Security,
        request: &str,
        node_id: String,
    ) -> Result<String, ObtainError> {
        let start = self.clock.monotonic();
        let (mut has_said, mut reason) = (false, String::new());
        for looks in 0.. {
            let asked = look(&address, security, &node_id).await;
            match asked {
                Ok(answer) => {
                    if let Some(decided) = decided(&answer, request) {
                        return decided;
                    }
                    reason = answer.status.map(|it| it.err).unwrap_or_default();
                }
                Err(status) if status.code() == Code::NotFound => {
                    return Err(said(&address, &status));
                }
                // A decision that takes long looks like this.
                Err(status) if status.code() == Code::DeadlineExceeded => {}
                Err(_) => {
                    self.remotes.observe(&address, false);
                    address = self.select()?;
                }
            }
            let waited = self.clock.monotonic().saturating_sub(start);
            if waited > ISSUE_WAIT_MAX {
                return Err(ObtainError::Slow);
            }
            if waited > SAY_AFTER && !has_said {
                has_said = true;
                tracing::warn!(
                    node = node_id,
                    reason,
                    "waiting for the cluster to issue a certificate"
                );
            }
            tokio::time::sleep(poll_pause(looks, self.ids.next_u64())).await;
        }
        Err(ObtainError::Slow)
    }
}

/// What to ask for.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// The token's text; empty for a renewal.
    pub(crate) token: String,
    /// What the node's spec begins with.
    pub(crate) availability: v1::node_spec::Availability,
}

impl Wish {
    pub(crate) fn renewal() -> Self {
        Self {
            token: String::new(),
            availability: v1::node_spec::Availability::Active,
        }
    }
}

/// Waits longer from time to time, and says why it waits, once per reason.
#[derive(Debug, Default)]
struct Patience {
    attempts: u32,
    said: String,
}

impl Patience {
    async fn wait(&mut self, error: &ObtainError) {
        let pause = (RETRY_FIRST * 2u32.pow(self.attempts.min(8))).min(RETRY_LAST);
        self.attempts += 1;
        let reason = swarm_rt::chain(error).to_string();
        if self.said == reason {
            tracing::debug!(reason, "still no answer");
        } else {
            tracing::warn!(reason, "cannot join yet; trying again until it works");
            self.said = reason;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Fetches a root once.
pub(crate) async fn fetch_root(
    address: &Address,
    now: Timestamp,
    token: Option<&JoinToken>,
) -> Result<RootBundle, ObtainError> {
    let mut client = CaClient::new(connect(address, &Security::Unverified)?);
    let answer = limited(client.get_root_ca_certificate(v1::GetRootCaCertificateRequest {})).await;
    let answer = answer
        .map_err(|status| said(address, &status))?
        .into_inner();
    let source = address.to_string();
    let root =
        RootBundle::parse_any_time(&answer.certificate).map_err(|error| ObtainError::Root {
            address: source.clone(),
            source: error,
        })?;
    if let Some(token) = token
        && token.root_digest() != root.digest()
    {
        return Err(ObtainError::Digest {
            address: source,
            found: root.digest().to_string(),
            expected: token.root_digest().to_string(),
        });
    }
    // Only now, so that a clock that is wrong is named as such and not hidden by a wrong token.
    RootBundle::parse(&answer.certificate, now).map_err(|error| ObtainError::Root {
        address: source,
        source: error,
    })
}

/// A connection to a manager, or to the control socket of this node.
pub(crate) fn connect(address: &Address, security: &Security) -> Result<Channel, ObtainError> {
    let unreachable = |reason: String| ObtainError::Unreachable {
        address: address.to_string(),
        reason,
    };
    match address {
        Address::Tcp(text) => tls::dial(text, security).map_err(|e| unreachable(e.to_string())),
        Address::Unix(_) => net::dial(address).map_err(|e| unreachable(e.to_string())),
    }
}

async fn look(
    address: &Address,
    security: &Security,
    node_id: &str,
) -> Result<v1::NodeCertificateStatusResponse, Status> {
    let channel = connect(address, security).map_err(|e| Status::unavailable(e.to_string()))?;
    let mut client = NodeCaClient::new(channel);
    let request = v1::NodeCertificateStatusRequest {
        node_id: node_id.to_owned(),
    };
    let answer = limited(client.node_certificate_status(request)).await?;
    Ok(answer.into_inner())
}

/// The chain if the answer is about this very request and final.
fn decided(
    answer: &v1::NodeCertificateStatusResponse,
    request: &str,
) -> Option<Result<String, ObtainError>> {
    let certificate = answer.certificate.as_ref()?;
    if certificate.csr != request.as_bytes() {
        return None;
    }
    let status = answer.status.as_ref()?;
    match status.state() {
        State::Issued | State::Rotate => {
            let chain = String::from_utf8(certificate.certificate.to_vec());
            let chain = chain.map_err(|_| ChainError::Text(not_text()));
            Some(chain.map_err(ObtainError::from))
        }
        State::Failed => Some(Err(ObtainError::Failed(status.err.clone()))),
        State::Unknown | State::Renew | State::Pending => None,
    }
}

fn not_text() -> swarm_ca::certificate::CertificateError {
    swarm_ca::pem::PemError::NotText.into()
}

/// Checks what came: it leads to the root, is valid by this clock, and is for this key.
fn check(
    chain_pem: String,
    key_pem: KeyPem,
    root: &RootBundle,
    now: Timestamp,
) -> Result<Obtained, ObtainError> {
    let validated = chain::validate(chain_pem.as_bytes(), root, now, Expiry::Enforce)?;
    let key = swarm_ca::key::PrivateKey::from_pem(&key_pem).map_err(|_| ObtainError::OtherKey)?;
    if key.spki_der() != validated.leaf.spki_der() {
        return Err(ObtainError::OtherKey);
    }
    let identity = CertIdentity::of(&validated.leaf)?;
    let certificates = Certificate::all_from_pem(chain_pem.as_bytes()).map_err(ChainError::from)?;
    Ok(Obtained {
        pair: Pair {
            // Without what may stand between the blocks.
            chain_pem: certificates.iter().map(Certificate::to_pem).collect(),
            key_pem,
        },
        identity,
    })
}

pub(crate) async fn limited<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    within(CALL_TIMEOUT, call).await
}

async fn within<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
        let seconds = limit.as_secs();
        let text = format!("no answer within {seconds} s");
        Err(Status::deadline_exceeded(text))
    })
}

/// What a failed call means.
pub(crate) fn said(address: &Address, status: &Status) -> ObtainError {
    let address = address.to_string();
    let reason = in_words(status);
    match status.code() {
        Code::InvalidArgument
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::NotFound
        | Code::FailedPrecondition
        | Code::Unimplemented => ObtainError::Refused { address, reason },
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => ObtainError::Unreachable { address, reason },
    }
}

/// The text of a status, or what is behind it if the call never arrived.
pub(crate) fn in_words(status: &Status) -> String {
    std::error::Error::source(status).map_or_else(
        || status.message().to_owned(),
        |source| swarm_rt::chain(source).to_string(),
    )
}

fn poll_pause(looks: u32, draw: u64) -> Duration {
    let range = (POLL_BASE + POLL_BASE * 2u32.pow(looks.min(8))).min(POLL_MAX);
    let nanos = u64::try_from(range.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(draw % nanos)
}

/// When a failed renewal is tried again.
pub(crate) fn renewal_pause(failures: u32, draw: u64) -> Duration {
    renewal::backoff(failures, draw)
}
