//! The HTTPS endpoint: one thread for each connection, few at a time, each with a deadline.

mod timed;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use swarm_ca::identity::{self, CertIdentity};
use swarm_rt::Clock;
use timed::Timed;

use crate::authority::{Authority, ClientRule};
use crate::{http, request};

/// Connections at a time; more are closed.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take, from the first byte of TLS to the end of the answer. Managers
/// wait half as long.
const EXCHANGE_MAX: Duration = Duration::from_secs(10);
/// Between two attempts to accept when the system refuses, for want of descriptors for example.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// The one path that is served.
const PATH: &str = "/sign";

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on, `host:port`.
    pub listen: String,
    /// The names by which managers know the server; they are in its certificate.
    pub names: Vec<String>,
    /// Who is answered.
    pub rule: ClientRule,
    /// Other roots (PEM) by which managers may be known: the one that a cluster rotates away from.
    pub trusted_pem: Vec<String>,
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    is_stopping: Arc<AtomicBool>,
    signed: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts to listen.
    ///
    /// # Errors
    /// The address, or certificates that cannot be used.
    pub fn start(authority: Authority, options: Options) -> anyhow::Result<Self> {
        let tls = Arc::new(tls(&authority, &options)?);
        let listener = TcpListener::bind(&options.listen)
            .with_context(|| format!("listen on {}", options.listen))?;
        let address = listener.local_addr()?;
        let (is_stopping, signed) = (Arc::<AtomicBool>::default(), Arc::default());
        let office = Arc::new(Office {
            authority,
            rule: options.rule,
            tls,
            open: Arc::default(),
            signed: Arc::clone(&signed),
            clock: Clock::new(),
        });
        let stop = Arc::clone(&is_stopping);
        let thread = std::thread::spawn(move || accept(&listener, &office, &stop));
        Ok(Self {
            address,
            is_stopping,
            signed,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many certificates it has signed.
    pub fn signed(&self) -> usize {
        self.signed.load(Ordering::Relaxed)
    }

    /// Serves until the process ends.
    pub fn join(mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is on standard error.
            drop(thread.join());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // Wakes the thread; when that fails, it is not waiting.
            drop(TcpStream::connect(self.address));
            drop(thread.join());
        }
    }
}

/// What every connection works with.
struct Office {
    authority: Authority,
    rule: ClientRule,
    tls: Arc<ServerConfig>,
    open: Arc<AtomicUsize>,
    signed: Arc<AtomicUsize>,
    clock: Clock,
}

/// One of the connections at a time, until it is dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(open));
        // The place gives its count back whether it is handed out or not.
        (open.fetch_add(1, Ordering::AcqRel) < CONNECTIONS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn tls(authority: &Authority, options: &Options) -> anyhow::Result<ServerConfig> {
    let mut roots = RootCertStore::empty();
    let own = authority.root_pem().to_owned();
    for pem in options.trusted_pem.iter().chain(std::iter::once(&own)) {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            roots.add(certificate.context("a trusted root is not PEM")?)?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()?;
    let (chain, key) = authority.server(&options.names)?;
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    Ok(config)
}

fn accept(listener: &TcpListener, office: &Arc<Office>, stop: &AtomicBool) {
    for stream in listener.incoming() {
        if stop.load(Ordering::Acquire) {
            return;
        }
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                anstream::eprintln!("signing-server: cannot accept a connection: {error}");
                std::thread::park_timeout(ACCEPT_RETRY);
                continue;
            }
        };
        let Some(place) = Place::take(&office.open) else {
            continue;
        };
        let office = Arc::clone(office);
        let serve = move || {
            let _place = place;
            if let Err(error) = office.serve(stream) {
                anstream::eprintln!("signing-server: {error:#}");
            }
        };
        if let Err(error) = std::thread::Builder::new().spawn(serve) {
            anstream::eprintln!("signing-server: no thread for a connection: {error}");
        }
    }
}

impl Office {
    fn serve(&self, stream: TcpStream) -> anyhow::Result<()> {
        let connection = ServerConnection::new(Arc::clone(&self.tls))?;
        let stream = Timed::new(stream, self.clock.clone(), EXCHANGE_MAX);
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream
                .conn
                .complete_io(&mut stream.sock)
                .context("no TLS with a peer")?;
        }
        let caller = self.caller(&stream.conn)?;
        let request = match http::read(&mut stream) {
            Ok(request) => request,
            // Whoever only looks whether the server is there.
            Err(http::Bad::Broken(_)) => return Ok(()),
            Err(http::Bad::Status(status, reason)) => {
                return Ok(http::answer(
                    &mut stream,
                    status,
                    &request::refused(reason),
                )?);
            }
        };
        let (status, body) = self.answer(&request, &caller);
        http::answer(&mut stream, status, &body)?;
        stream.conn.send_close_notify();
        // The peer may be gone by now, and has its answer.
        drop(stream.conn.complete_io(&mut stream.sock));
        Ok(())
    }

    /// The manager of the cluster that asks.
    fn caller(&self, connection: &ServerConnection) -> anyhow::Result<CertIdentity> {
        let leaf = connection
            .peer_certificates()
            .and_then(|chain| chain.first());
        let leaf = leaf.context("a peer showed no certificate")?;
        let caller = identity::read_der(leaf).context("a peer is no node")?;
        anyhow::ensure!(
            caller.is_manager() && caller.cluster.to_string() == self.rule.cluster,
            "refused {} of cluster {}: only managers of cluster {} are served",
            caller.node,
            caller.cluster,
            self.rule.cluster
        );
        Ok(caller)
    }

    fn answer(&self, request: &http::Request, caller: &CertIdentity) -> (u16, String) {
        if request.path != PATH {
            return (404, request::refused("only /sign is served"));
        }
        if request.method != "POST" {
            return (405, request::refused("only POST is served"));
        }
        let wanted: request::Request = match serde_json::from_slice(&request.body) {
            Ok(wanted) => wanted,
            Err(error) => {
                let reason = format!("the request is not the JSON of CFSSL: {error}");
                return (400, request::refused(&reason));
            }
        };
        match self.authority.sign(&wanted, caller, &self.rule) {
            Ok(chain) => {
                self.signed.fetch_add(1, Ordering::Relaxed);
                anstream::eprintln!("signing-server: signed for {}: {wanted}", caller.node);
                (200, request::issued(&chain))
            }
            Err(error) => {
                anstream::eprintln!("signing-server: refused {}: {error:#}", caller.node);
                (200, request::refused(&format!("{error:#}")))
            }
        }
    }
}
