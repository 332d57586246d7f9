//! Signs certificates of nodes, off the leader's task.
//!
//! Owns the work under way, which ends with the term. Does not own which certificates are signed,
//! nor what becomes of the results (`swarm-ca`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_ca::cfssl;
use swarm_ca::issue::{SignError, Signer};
use swarm_ca::issuer::{self, ExternalIssuer, Issuer};
use swarm_ca::server::{JobId, SignJob, Signed};
use swarm_rt::tls::{Credentials, https};
use swarm_rt::{Clock, OsIds, chain};
use tokio::task::{Id, JoinError, JoinSet};

/// How long one external authority may take (spec 2.8).
pub(crate) const EXTERNAL_TIMEOUT: Duration = Duration::from_secs(5);

/// The jobs under way; `swarm-ca` bounds how many.
pub(crate) struct Signing {
    jobs: JoinSet<Signed>,
    names: HashMap<Id, JobId>,
    /// The key that was used last, ready to sign. Reading one takes longer than signing.
    signer: Option<(Arc<Issuer>, Signer)>,
    clock: Clock,
    /// What external authorities are shown.
    credentials: Option<Credentials>,
}

impl Signing {
    pub(crate) fn new(clock: Clock, credentials: Option<Credentials>) -> Self {
        Self {
            jobs: JoinSet::new(),
            names: HashMap::new(),
            signer: None,
            clock,
            credentials,
        }
    }

    /// Begins a job.
    pub(crate) fn begin(&mut self, job: SignJob) {
        let id = job.id;
        let clock = self.clock.clone();
        let handle = match &*Arc::clone(&job.issuer) {
            Issuer::Local(_) => {
                let signer = self.signer(&job.issuer);
                self.jobs
                    .spawn_blocking(move || sign(&signer, &job, &clock))
            }
            Issuer::External(external) => {
                let (external, credentials) = (external.clone(), self.credentials.clone());
                self.jobs
                    .spawn(async move { ask(&external, credentials.as_ref(), &job, &clock).await })
            }
        };
        self.names.insert(handle.id(), id);
    }

    /// The next job that ended; never returns while there is none. Cancel safe.
    pub(crate) async fn done(&mut self) -> (JobId, Signed) {
        loop {
            match self.jobs.join_next_with_id().await {
                Some(ended) => {
                    if let Some(named) = self.name(ended) {
                        return named;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// A job that ended already.
    pub(crate) fn try_done(&mut self) -> Option<(JobId, Signed)> {
        let ended = self.jobs.try_join_next_with_id()?;
        self.name(ended)
    }

    fn name(&mut self, ended: Result<(Id, Signed), JoinError>) -> Option<(JobId, Signed)> {
        let (id, signed) = ended.unwrap_or_else(|error| {
            let reason = format!("signing broke off: {error}");
            (error.id(), Signed::Recoverable(reason))
        });
        Some((self.names.remove(&id)?, signed))
    }

    fn signer(&mut self, issuer: &Arc<Issuer>) -> Result<Signer, String> {
        if let Some((of, signer)) = &self.signer
            && Arc::ptr_eq(of, issuer)
        {
            return Ok(signer.clone());
        }
        let Issuer::Local(local) = &**issuer else {
            return Err("an external authority signs, not a key".to_owned());
        };
        let signer = local.signer().map_err(|error| chain(&error).to_string())?;
        self.signer = Some((Arc::clone(issuer), signer.clone()));
        Ok(signer)
    }
}

/// A request that is no request stays one; a key that cannot be used may be replaced.
fn sign(signer: &Result<Signer, String>, job: &SignJob, clock: &Clock) -> Signed {
    let signer = match signer {
        Ok(signer) => signer,
        Err(reason) => return Signed::Recoverable(reason.clone()),
    };
    let signed = signer.sign(
        &job.csr_pem,
        &job.subject,
        job.expiry,
        clock.now(),
        serial(),
    );
    match signed {
        Ok(chain_pem) => Signed::Issued(chain_pem),
        Err(error @ SignError::Csr(_)) => Signed::Failed(chain(&error).to_string()),
        Err(error) => Signed::Recoverable(chain(&error).to_string()),
    }
}

fn serial() -> [u8; 20] {
    let mut ids = OsIds::new();
    let mut serial = [0; 20];
    for part in serial.chunks_mut(8) {
        let bytes = ids.next_u64().to_be_bytes();
        part.copy_from_slice(&bytes[..part.len()]);
    }
    serial
}

/// The first authority that has an answer decides.
async fn ask(
    external: &ExternalIssuer,
    credentials: Option<&Credentials>,
    job: &SignJob,
    clock: &Clock,
) -> Signed {
    let Some(credentials) = credentials else {
        let reason = "this manager has no certificate to show to an external authority";
        return Signed::Recoverable(reason.to_owned());
    };
    let csr_pem = String::from_utf8_lossy(&job.csr_pem);
    let body = cfssl::request(&csr_pem, &job.subject);
    let mut reasons = Vec::new();
    for url in &external.urls {
        match ask_one(url, &external.trust_pem, credentials, body.clone()).await {
            Ok(certificate) => {
                let chain_pem = with_intermediates(&certificate, &external.intermediates_pem);
                let trust = &external.trust_pem;
                let checked = issuer::check_issued(
                    &chain_pem,
                    &job.csr_pem,
                    &job.subject,
                    trust,
                    clock.now(),
                );
                return match checked {
                    Ok(()) => Signed::Issued(chain_pem),
                    Err(reason) => Signed::Failed(format!(
                        "{url} answered with a certificate that is not usable: {reason}"
                    )),
                };
            }
            Err(Unanswered::Refused(reason)) => return Signed::Failed(reason),
            Err(Unanswered::Recoverable(reason)) => reasons.push(format!("{url}: {reason}")),
        }
    }
    Signed::Recoverable(reasons.join("; "))
}

/// Why an external authority gave no certificate.
pub(crate) enum Unanswered {
    /// It may work later.
    Recoverable(String),
    /// It understood and refused.
    Refused(String),
}

/// Asks one external authority for a certificate.
pub(crate) async fn ask_one(
    url: &str,
    trust_pem: &str,
    credentials: &Credentials,
    body: String,
) -> Result<String, Unanswered> {
    let server = server(url, trust_pem);
    let answer = https::post_json(&server, credentials, body).await;
    let answer = answer.map_err(|error| Unanswered::Recoverable(chain(&error).to_string()))?;
    cfssl::response(answer.status, &answer.body).map_err(|error| {
        if error.is_recoverable() {
            Unanswered::Recoverable(error.to_string())
        } else {
            Unanswered::Refused(error.to_string())
        }
    })
}

/// An external authority as a server.
pub(crate) fn server(url: &str, trust_pem: &str) -> https::Server {
    https::Server {
        url: url.to_owned(),
        trust_pem: trust_pem.to_owned(),
        timeout: EXTERNAL_TIMEOUT,
        answer_bytes_max: cfssl::RESPONSE_BYTES_MAX,
    }
}

fn with_intermediates(certificate: &str, intermediates: &str) -> String {
    let mut chain_pem = certificate.to_owned();
    if !chain_pem.ends_with('\n') {
        chain_pem.push('\n');
    }
    chain_pem.push_str(intermediates);
    chain_pem
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_api::v1;
    use swarm_ca::csr;
    use swarm_ca::issue::Subject;
    use swarm_ca::issuer::LocalIssuer;
    use swarm_ca::root::new_root;

    fn job(id: u64, csr_pem: &str, issuer: &Arc<Issuer>) -> SignJob {
        SignJob {
            id: JobId(id),
            csr_pem: csr_pem.as_bytes().to_vec().into(),
            subject: Subject {
                node: "n".parse().unwrap(),
                cluster: "c".parse().unwrap(),
                role: v1::NodeRole::Worker,
            },
            expiry: Duration::from_secs(7200),
            issuer: Arc::clone(issuer),
        }
    }

    fn local(cert_pem: &str, key_pem: &[u8]) -> Arc<Issuer> {
        Arc::new(Issuer::Local(LocalIssuer {
            cert_pem: cert_pem.as_bytes().to_vec().into(),
            key_pem: key_pem.to_vec().into(),
            intermediates_pem: bytes::Bytes::new(),
        }))
    }

    #[tokio::test]
    async fn requests_are_signed_with_the_key_of_the_cluster() {
        let clock = Clock::new();
        let (cert, key) = new_root(clock.now());
        let mut signing = Signing::new(clock.clone(), None);
        let csr = csr::request(&csr::new_key()).unwrap();
        let issuer = local(&cert, key.as_bytes());
        signing.begin(job(1, &csr, &issuer));
        let (id, signed) = signing.done().await;
        assert_eq!(id, JobId(1));
        let Signed::Issued(chain_pem) = signed else {
            panic!("{signed:?}");
        };
        let job = job(2, "garbage", &issuer);
        let (subject, now) = (&job.subject, clock.now());
        issuer::check_issued(&chain_pem, csr.as_bytes(), subject, &cert, now).unwrap();
        signing.begin(job);
        let (_, signed) = signing.done().await;
        assert!(matches!(signed, Signed::Failed(_)), "{signed:?}");
    }

    #[tokio::test]
    async fn a_key_that_is_none_and_an_authority_that_is_not_there_may_come_back() {
        let clock = Clock::new();
        let (cert, _) = new_root(clock.now());
        let mut signing = Signing::new(clock, None);
        let csr = csr::request(&csr::new_key()).unwrap();
        let external = Arc::new(Issuer::External(ExternalIssuer {
            urls: vec!["https://localhost:1/".to_owned()],
            trust_pem: cert.clone(),
            intermediates_pem: String::new(),
        }));
        for issuer in [local(&cert, b"no key"), external] {
            signing.begin(job(1, &csr, &issuer));
            let (_, signed) = signing.done().await;
            assert!(matches!(signed, Signed::Recoverable(_)), "{signed:?}");
        }
        assert!(signing.try_done().is_none());
    }
}
