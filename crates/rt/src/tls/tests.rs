//! Real handshakes on loopback.

mod admission;
mod authority;
mod floods;
mod hostile;
mod https;
mod no_alpn;
mod spot;
mod strangers;

use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::transport::{Channel, Server};
use tower::{Service as _, ServiceExt as _};

use self::authority::{Authority, DAY, HOUR, MANAGER, WORKER};
use super::*;
use crate::lanes::{Keepalive, Lane, serve};
use crate::metrics::{Metrics, Refused};
use crate::{OnError, Shutdown, Tasks};

/// Longest wait for anything; only reached when a test fails.
const DEADLINE: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("nothing happened before the deadline")
}

/// A listener whose service says who calls.
struct Rig {
    address: SocketAddr,
    connections: Connections,
    metrics: Metrics,
    credentials: Credentials,
    tasks: Tasks,
    lanes: Vec<Lane>,
}

impl Rig {
    async fn start(credentials: Credentials) -> Self {
        Self::limited(credentials, Limits::default()).await
    }

    async fn limited(credentials: Credentials, limits: Limits) -> Self {
        let tasks = Tasks::new(Shutdown::new());
        let metrics = Metrics::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lanes = vec![Lane::new().unwrap()];
        let listening = listen(
            &tasks,
            listener,
            &credentials,
            limits,
            metrics.clone(),
            lanes,
        );
        let (incoming, connections) = (listening.others, listening.connections);
        let service = tower::service_fn(|request: Request<Body>| async move {
            let connection = request.extensions().get::<Arc<Connection>>().unwrap();
            let connection = Arc::clone(connection);
            let said = match request.uri().path() {
                "/wait" => loop {
                    if let Some(reason) = connection.closing() {
                        break reason.to_owned();
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                },
                spot::PATH => spot::usual(request).await,
                _ => match connection.peer() {
                    Peer::Certified(identity) => identity.node.to_string(),
                    Peer::Anonymous => "nobody".to_owned(),
                    Peer::Local => "impossible".to_owned(),
                },
            };
            let response = Response::builder().header("said", said);
            Ok::<_, std::convert::Infallible>(response.body(Body::empty()).unwrap())
        });
        let mut lanes = Vec::new();
        for (lane, incoming) in listening.workers {
            lanes.push(lane.clone());
            let stop = tasks.shutdown().clone();
            let keepalive = Keepalive {
                interval: DEADLINE,
                timeout: DEADLINE,
            };
            let own = lane.clone();
            lane.spawn(&tasks, "lane", move || async move {
                serve(&own, incoming, spot::Backwards, service, keepalive, stop).await;
                Ok(())
            });
        }
        let stop = tasks.shutdown().clone();
        tasks.spawn("server", OnError::Stop, async move {
            let serving = Server::builder().serve_with_incoming(service, incoming);
            tokio::select! {
                served = serving => served.map_err(Into::into),
                () = stop.begun() => Ok(()),
            }
        });
        Self {
            address,
            connections,
            metrics,
            credentials,
            tasks,
            lanes,
        }
    }

    fn dial(&self, security: &Security) -> Channel {
        dial(&self.address.to_string(), security).unwrap()
    }

    /// Opens a connection of its own; who the listener says that calls, or the error's words.
    async fn ask(&self, security: &Security) -> Result<String, String> {
        ask(&mut self.dial(security), "/who").await
    }

    async fn refused(&self, reason: Refused, times: u64) {
        within(async {
            while self.metrics.refused_count(reason) < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_eq!(self.metrics.refused_count(reason), times);
    }

    async fn is_empty(&self) {
        within(async {
            while self.connections.count() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// The listener still serves whoever comes, and stops.
    async fn finish(self, good: &Security) {
        self.ask(good).await.unwrap();
        self.tasks.finish(DEADLINE).await.unwrap();
    }
}

async fn ask(channel: &mut Channel, path: &str) -> Result<String, String> {
    let words = |error: tonic::transport::Error| crate::chain(&error).to_string();
    let channel = within(channel.ready()).await.map_err(words)?;
    let uri = format!("https://manager{path}");
    let request = Request::post(uri).body(Body::empty()).unwrap();
    let response = within(channel.call(request)).await.map_err(words)?;
    Ok(response.headers()["said"].to_str().unwrap().to_owned())
}

fn node(tls: NodeTls) -> Security {
    Security::Node(Credentials::new(tls).unwrap(), ServerName::Manager)
}

#[tokio::test]
async fn a_listener_knows_nodes_by_their_certificate_and_others_as_nobody() {
    let authority = Authority::new();
    let listening = Rig::start(authority.credentials("m1", MANAGER)).await;
    let worker = node(authority.tls("w1", WORKER));
    assert_eq!(listening.ask(&worker).await.unwrap(), "w1");
    for name in [ServerName::Manager, ServerName::Ca] {
        let joining = Security::Verified(authority.root_pem.clone(), name);
        assert_eq!(listening.ask(&joining).await.unwrap(), "nobody");
    }
    let said = listening.ask(&Security::Unverified).await;
    assert_eq!(said.unwrap(), "nobody");
    listening.finish(&worker).await;
}

#[tokio::test]
async fn certificates_that_do_not_count_are_refused_in_words_and_counted() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let listening = Rig::start(authority.credentials("m1", MANAGER)).await;
    let now = Clock::new().now();
    let expired = authority.tls_valid("w1", WORKER, now.saturating_sub(DAY), HOUR);
    let future = authority.tls_valid("w1", WORKER, now.saturating_add(HOUR), DAY);
    let mut other = foreign.tls("w1", WORKER);
    other.root_pem = authority.root_pem.clone();
    for (tls, words, reason) in [
        (
            expired,
            "expired or is not valid yet",
            Refused::CertificateExpired,
        ),
        (future, "set the clocks", Refused::CertificateNotYetValid),
        (
            other,
            "another cluster",
            Refused::CertificateUnknownAuthority,
        ),
    ] {
        let error = listening.ask(&node(tls)).await.unwrap_err();
        assert!(error.contains(words), "{reason:?}: {error}");
        listening.refused(reason, 1).await;
    }
    assert_eq!(listening.connections.count(), 0);
    listening.finish(&node(authority.tls("w1", WORKER))).await;
}

#[tokio::test]
async fn managers_that_do_not_count_are_refused_in_words() {
    let (authority, foreign) = (Authority::new(), Authority::new());
    let now = Clock::new().now();
    let expired = authority.tls_valid("m1", MANAGER, now.saturating_sub(DAY), HOUR);
    let future = authority.tls_valid("m1", MANAGER, now.saturating_add(HOUR), DAY);
    let worker = node(authority.tls("w1", WORKER));
    for (tls, words) in [
        (expired, "the manager's certificate expired at"),
        (future, "the clocks of the two machines differ"),
        (foreign.tls("m1", MANAGER), "another cluster"),
        (
            authority.tls("w2", WORKER),
            "there is no manager at this address",
        ),
    ] {
        let listening = Rig::start(Credentials::new(tls).unwrap()).await;
        let error = listening.ask(&worker).await.unwrap_err();
        assert!(error.contains(words), "{words}: {error}");
        listening.tasks.finish(DEADLINE).await.unwrap();
    }
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_shown_with_both_times() {
    let authority = Authority::new();
    let start = Clock::new().now().saturating_add(5 * HOUR);
    let future = authority.tls_valid("m1", MANAGER, start, DAY);
    let listening = Rig::start(Credentials::new(future).unwrap()).await;
    let joining = Security::Verified(authority.root_pem.clone(), ServerName::Ca);
    let error = listening.ask(&joining).await.unwrap_err();
    let shown = swarm_types::Timestamp::from_millis(start.as_nanos() / 1_000_000_000 * 1000);
    assert!(error.contains(&shown.to_string()), "{error} lacks {shown}");
    assert!(error.contains("this machine's clock says"), "{error}");
    listening.tasks.finish(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn new_credentials_count_for_new_connections_and_old_ones_go_on() {
    let (first, second) = (Authority::new(), Authority::new());
    let listening = Rig::start(first.credentials("m1", MANAGER)).await;
    let mut open = listening.dial(&node(first.tls("w1", WORKER)));
    ask(&mut open, "/who").await.unwrap();

    let mut changes = listening.credentials.watch();
    let mut both = first.tls("m1", MANAGER);
    both.root_pem = format!("{}{}", first.root_pem, second.root_pem);
    listening.credentials.update(both.clone()).unwrap();
    within(changes.changed()).await;
    let trusts_first = |mut tls: NodeTls| {
        tls.root_pem = first.root_pem.clone();
        node(tls)
    };
    for tls in [first.tls("w2", WORKER), second.tls("w2", WORKER)] {
        assert_eq!(listening.ask(&trusts_first(tls)).await.unwrap(), "w2");
    }

    listening.credentials.update_root(&second.root_pem).unwrap();
    within(changes.changed()).await;
    let old = trusts_first(first.tls("w3", WORKER));
    let error = listening.ask(&old).await.unwrap_err();
    assert!(error.contains("does not trust the authority"), "{error}");
    assert_eq!(ask(&mut open, "/who").await.unwrap(), "w1");

    // What cannot be used changes nothing.
    let refused = listening.credentials.update_root("no root");
    assert!(refused.is_err());
    both.key_pem = first.tls("m1", MANAGER).key_pem;
    let refused = listening.credentials.update(both);
    assert!(matches!(refused, Err(CredentialsError::KeyMismatch)));
    let new = trusts_first(second.tls("w3", WORKER));
    listening.finish(&new).await;
}

#[tokio::test]
async fn a_client_uses_its_credentials_of_the_moment_it_dials() {
    let authority = Authority::new();
    let listening = Rig::start(authority.credentials("m1", MANAGER)).await;
    let credentials = authority.credentials("w1", WORKER);
    let security = Security::Node(credentials.clone(), ServerName::Manager);
    let mut channel = listening.dial(&security);
    assert_eq!(ask(&mut channel, "/who").await.unwrap(), "w1");
    credentials.update(authority.tls("w9", WORKER)).unwrap();
    assert_eq!(credentials.identity().node, "w9".parse().unwrap());
    let w1 = "w1".parse().unwrap();
    assert_eq!(listening.connections.close_node(&w1, "renew", |_| true), 1);
    listening.is_empty().await;
    // Whoever calls before it has heard of the end is told of it, and dials for its next call.
    let who = match ask(&mut channel, "/who").await {
        Ok(who) => who,
        Err(_) => ask(&mut channel, "/who").await.unwrap(),
    };
    assert_eq!(who, "w9");
    drop(channel);
    listening.finish(&security).await;
}

#[tokio::test]
async fn closing_a_node_ends_its_connections_with_the_reason_and_no_others() {
    let authority = Authority::new();
    let listening = Rig::start(authority.credentials("m1", MANAGER)).await;
    let keep = node(authority.tls("w2", WORKER));
    let mut kept = listening.dial(&keep);
    ask(&mut kept, "/who").await.unwrap();
    let mut as_worker = listening.dial(&node(authority.tls("w1", WORKER)));
    let mut as_manager = listening.dial(&node(authority.tls("w1", MANAGER)));
    ask(&mut as_worker, "/who").await.unwrap();
    ask(&mut as_manager, "/who").await.unwrap();
    let w1 = "w1".parse().unwrap();
    assert_eq!(listening.connections.of(&w1).len(), 2);
    let nodes = listening.connections.nodes();
    assert_eq!(nodes, [w1.clone(), "w2".parse().unwrap()]);

    let is_manager = |connection: &Connection| match connection.peer() {
        Peer::Certified(identity) => identity.is_manager(),
        Peer::Local | Peer::Anonymous => false,
    };
    let connections = listening.connections.clone();
    let (said, closed) = tokio::join!(ask(&mut as_manager, "/wait"), async {
        connections.close_node(&w1, "demoted", is_manager)
    });
    assert_eq!(closed, 1);
    assert_eq!(said.unwrap(), "demoted");
    within(async {
        while connections.of(&w1).len() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(ask(&mut as_worker, "/who").await.unwrap(), "w1");
    assert_eq!(ask(&mut kept, "/who").await.unwrap(), "w2");
    listening.finish(&keep).await;
}

#[test]
fn credentials_that_cannot_be_used_say_why() {
    let authority = Authority::new();
    let good = authority.tls("w1", WORKER);
    let with = |change: fn(&mut NodeTls)| {
        let mut tls = good.clone();
        change(&mut tls);
        crate::chain(&Credentials::new(tls).unwrap_err()).to_string()
    };
    for (error, words) in [
        (with(|tls| tls.chain_pem.clear()), "holds no certificate"),
        (with(|tls| tls.chain_pem = tls.root_pem.clone()), "subject"),
        (with(|tls| tls.key_pem = KeyPem::new(String::new())), "key"),
        (with(|tls| tls.root_pem.clear()), "root"),
        (
            with(|tls| tls.root_pem = tls.chain_pem.clone()),
            "self-signed",
        ),
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
    let shown = format!("{good:?} {:?}", Credentials::new(good.clone()).unwrap());
    let key = good.key_pem.as_str().lines().nth(1).unwrap();
    assert!(!shown.contains(key), "the key is shown");
}
