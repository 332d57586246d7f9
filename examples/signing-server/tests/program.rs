//! The program as its users have it: a root is made once, and whoever is no manager gets nothing.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use signing_server::{Authority, ClientRule, Options, Server};
use swarm_ca::issue::{Signer, Subject};
use swarm_ca::key::KeyPem;
use swarm_ca::{csr, root};
use swarm_rt::Clock;

const PROGRAM: &str = env!("CARGO_BIN_EXE_signing-server");
const DAY: Duration = Duration::from_secs(24 * 3600);

#[expect(clippy::disallowed_methods, reason = "the program is what is tested")]
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_root_is_made_once_and_the_way_on_is_printed() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("ca");
    let path = place.to_str().unwrap();
    let made = run(&["init", path]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let says = text(&made.stdout);
    assert!(
        says.contains("--external-ca") && says.contains("--cluster"),
        "{says}"
    );
    let mode = |name: &str| {
        let metadata = place.join(name).metadata().unwrap();
        metadata.permissions().mode() & 0o777
    };
    assert_eq!(
        (mode("root.key"), mode("certificates/swarm-node.key")),
        (0o600, 0o600)
    );
    assert!(place.join("certificates/swarm-root-ca.crt").exists());

    let key = std::fs::read_to_string(place.join("root.key")).unwrap();
    let again = run(&["init", path]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        text(&again.stderr).contains("root.key"),
        "{}",
        text(&again.stderr)
    );
    assert_eq!(
        std::fs::read_to_string(place.join("root.key")).unwrap(),
        key
    );
    let none = run(&["serve", "/nowhere", "--cluster", "c"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(
        text(&none.stderr).contains("/nowhere/root.crt"),
        "{}",
        text(&none.stderr)
    );
}

#[test]
fn the_program_says_where_it_signs() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("ca");
    let path = place.to_str().unwrap();
    assert!(run(&["init", path, "--root-only"]).status.success());
    assert!(!place.join("certificates").exists());
    let words = ["serve", path, "--cluster", "c", "--listen", "127.0.0.1:0"];
    let mut child = command(&words).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.starts_with("signing at https://localhost:"), "{line}");
}

/// A client with a certificate of a signer, for a role and a cluster.
struct Client<'a> {
    authority: &'a Authority,
    port: u16,
}

impl Client<'_> {
    fn ask(&self, signed_by: Option<(&Signer, &str, bool)>, body: &str) -> String {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.authority.root_pem().as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match signed_by {
            None => builder.with_no_client_auth(),
            Some((signer, cluster, is_manager)) => {
                let (chain, key) = issue(signer, cluster, is_manager);
                let chain = CertificateDer::pem_slice_iter(chain.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                let chain = chain.collect::<Result<_, _>>().unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let name = "localhost".try_into().unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let tcp = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut stream = StreamOwned::new(connection, tcp);
        let length = body.len();
        let request = format!("POST /sign HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}");
        let written = std::io::Write::write_all(&mut stream, request.as_bytes());
        let mut answer = String::new();
        // A server that refuses a certificate just ends.
        let read = written.and_then(|()| stream.read_to_string(&mut answer));
        if answer.is_empty() {
            return format!("no answer: {read:?}");
        }
        answer
    }
}

fn issue(signer: &Signer, cluster: &str, is_manager: bool) -> (String, KeyPem) {
    let key = csr::new_key();
    let request = csr::request(&key).unwrap();
    let subject = Subject {
        node: "caller".parse().unwrap(),
        cluster: cluster.parse().unwrap(),
        role: match is_manager {
            true => swarm_api::v1::NodeRole::Manager,
            false => swarm_api::v1::NodeRole::Worker,
        },
    };
    let now = Clock::new().now();
    (
        signer
            .sign(request.as_bytes(), &subject, DAY, now, [9; 20])
            .unwrap(),
        key,
    )
}

#[test]
fn only_managers_of_the_cluster_are_answered_and_only_about_nodes_of_it() {
    let directory = tempfile::tempdir().unwrap();
    Authority::create(directory.path()).unwrap();
    let authority = Authority::load(directory.path(), DAY).unwrap();
    let key = std::fs::read_to_string(directory.path().join("root.key")).unwrap();
    let own = Signer::new(authority.root_pem(), &KeyPem::new(key), "").unwrap();
    let (foreign_cert, foreign_key) = root::new_root(Clock::new().now());
    let foreign = Signer::new(&foreign_cert, &foreign_key, "").unwrap();
    let options = Options {
        listen: "127.0.0.1:0".to_owned(),
        names: vec!["localhost".to_owned()],
        rule: ClientRule {
            cluster: "c".to_owned(),
            cross_sign: false,
        },
        trusted_pem: Vec::new(),
    };
    let server = Server::start(authority.clone(), options).unwrap();
    let client = Client {
        authority: &authority,
        port: server.address().port(),
    };
    let request = csr::request(&csr::new_key()).unwrap();
    let subject = |cluster: &str| Subject {
        node: "n".parse().unwrap(),
        cluster: cluster.parse().unwrap(),
        role: swarm_api::v1::NodeRole::Worker,
    };
    let good = swarm_ca::cfssl::request(&request, &subject("c"));
    for (who, by) in [
        ("nobody", None),
        ("a worker", Some((&own, "c", false))),
        ("a manager of another cluster", Some((&own, "d", true))),
        ("a manager of another root", Some((&foreign, "c", true))),
    ] {
        let answer = client.ask(by, &good);
        assert!(answer.starts_with("no answer"), "{who}: {answer}");
    }
    let manager = Some((&own, "c", true));
    let signed = client.ask(manager, &good);
    assert!(
        signed.contains("200 OK") && signed.contains("BEGIN CERTIFICATE"),
        "{signed}"
    );
    let cross = swarm_ca::cfssl::cross_sign_request(&request, "swarm-ca");
    let more_hosts = good.replace(r#""hosts":["#, r#""hosts":["evil","#);
    for (body, words) in [
        (
            swarm_ca::cfssl::request(&request, &subject("d")),
            "of another one",
        ),
        (
            swarm_ca::cfssl::request("no request", &subject("c")),
            "request",
        ),
        (cross, "--cross-sign"),
        (more_hosts, "is not a name of this node"),
        ("{".to_owned(), "not the JSON of CFSSL"),
    ] {
        let answer = client.ask(manager, &body);
        assert!(answer.contains(r#""success":false"#), "{answer}");
        assert!(answer.contains(words), "{answer}");
    }
    assert_eq!(server.signed(), 1);
}
