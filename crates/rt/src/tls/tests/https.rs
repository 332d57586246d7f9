//! A server that speaks HTTP/1.1 over TLS, as an external certificate authority does.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::super::https::{HttpsError, Server, check, post_json};
use super::*;

/// Accepts one connection that shows a certificate of the same root, if it shows one.
async fn accept(listener: &TcpListener, tls: &NodeTls) -> TlsStream<TcpStream> {
    let chain = CertificateDer::pem_slice_iter(tls.chain_pem.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(tls.key_pem.as_bytes()).unwrap();
    let roots = roots(&tls.root_pem).unwrap();
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider());
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    let (tcp, _) = listener.accept().await.unwrap();
    TlsAcceptor::from(Arc::new(config))
        .accept(tcp)
        .await
        .unwrap()
}

/// Answers one connection with `answer`, and returns what was asked and by whom.
async fn serve(listener: &TcpListener, tls: NodeTls, answer: String) -> (String, String) {
    let mut stream = accept(listener, &tls).await;
    let shown = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
    let by = identity::read_der(&shown).unwrap().node;
    let mut asked = Vec::new();
    while !asked.ends_with(b"{}") {
        let mut part = [0; 1024];
        match stream.read(&mut part).await.unwrap() {
            0 => break,
            count => asked.extend_from_slice(&part[..count]),
        }
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    (String::from_utf8(asked).unwrap(), by.to_string())
}

/// Takes one connection whose client finds fault with the certificate.
async fn refuse(listener: TcpListener, tls: NodeTls) {
    let chain = CertificateDer::pem_slice_iter(tls.chain_pem.as_bytes());
    let chain = chain.collect::<Result<Vec<_>, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(tls.key_pem.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let (tcp, _) = listener.accept().await.unwrap();
    let accepted = TlsAcceptor::from(Arc::new(config)).accept(tcp).await;
    assert!(accepted.is_err());
}

struct Asked {
    listener: TcpListener,
    server: Server,
    authority: Authority,
}

async fn asked(max: usize) -> Asked {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server {
        url: format!("https://localhost:{port}/sign?a=b"),
        trust_pem: authority.root_pem.clone(),
        timeout: Duration::from_secs(10),
        answer_bytes_max: max,
    };
    Asked {
        listener,
        server,
        authority,
    }
}

#[tokio::test]
async fn json_is_sent_with_the_nodes_certificate_and_answered() {
    let Asked {
        listener,
        server,
        authority,
    } = asked(5).await;
    let own = Credentials::new(authority.tls("m", MANAGER)).unwrap();
    // The certificate of the moment counts: the node may have got another one meanwhile.
    for name in ["m", "renewed"] {
        own.update(authority.tls(name, MANAGER)).unwrap();
        let answer = "HTTP/1.1 500 Oops\r\ncontent-length: 5\r\n\r\nhello".to_owned();
        let serving = serve(&listener, authority.tls("localhost", MANAGER), answer);
        let asking = post_json(&server, &own, "{}".to_owned());
        let ((asked, by), answer) = within(Box::pin(async { tokio::join!(serving, asking) })).await;
        let answer = answer.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (500, &b"hello"[..]));
        assert!(asked.starts_with("POST /sign?a=b HTTP/1.1\r\n"), "{asked}");
        assert!(
            asked.contains("content-type: application/json\r\n"),
            "{asked}"
        );
        assert_eq!(by, name);
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_not_read() {
    let Asked {
        listener,
        server,
        authority,
    } = asked(4).await;
    let own = Credentials::new(authority.tls("m", MANAGER)).unwrap();
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello".to_owned();
    let serving = serve(&listener, authority.tls("localhost", MANAGER), answer);
    let asking = post_json(&server, &own, "{}".to_owned());
    let (_, answer) = within(Box::pin(async { tokio::join!(serving, asking) })).await;
    assert!(
        matches!(answer, Err(HttpsError::Body { max: 4, .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let Asked {
        listener,
        mut server,
        authority,
    } = asked(4).await;
    server.timeout = Duration::from_millis(50);
    let own = Credentials::new(authority.tls("m", MANAGER)).unwrap();
    let checked = within(check(&server, &own)).await;
    assert!(
        matches!(checked, Err(HttpsError::Timeout { .. })),
        "{checked:?}"
    );
    drop(listener);
}

#[tokio::test]
async fn a_server_that_takes_a_request_and_says_nothing_is_given_up() {
    let Asked {
        listener,
        mut server,
        authority,
    } = asked(4).await;
    server.timeout = Duration::from_millis(500);
    let own = Credentials::new(authority.tls("m", MANAGER)).unwrap();
    let tls = authority.tls("localhost", MANAGER);
    let asking = post_json(&server, &own, "{}".to_owned());
    let (stream, answer) = within(Box::pin(async {
        tokio::join!(accept(&listener, &tls), asking)
    }))
    .await;
    assert!(
        matches!(answer, Err(HttpsError::Timeout { .. })),
        "{answer:?}"
    );
    drop(stream);
}

#[tokio::test]
async fn a_server_of_another_root_or_name_is_not_asked() {
    let strangers = Authority::new();
    for (trust_pem, name) in [(Some(strangers.root_pem), "localhost"), (None, "elsewhere")] {
        let Asked {
            listener,
            mut server,
            authority,
        } = asked(4).await;
        server.trust_pem = trust_pem.unwrap_or(server.trust_pem);
        let own = Credentials::new(authority.tls("m", MANAGER)).unwrap();
        let serving = refuse(listener, authority.tls(name, MANAGER));
        let (checked, ()) = within(async { tokio::join!(check(&server, &own), serving) }).await;
        assert!(
            matches!(checked, Err(HttpsError::Connect { .. })),
            "{checked:?}"
        );
    }
}

#[tokio::test]
async fn urls_must_be_https_with_a_host() {
    let authority = Authority::new();
    let own = Credentials::new(authority.tls("m", MANAGER)).unwrap();
    for url in [
        "http://localhost/",
        "localhost:1",
        "https://",
        "",
        "https:// /",
    ] {
        let server = Server {
            url: url.to_owned(),
            trust_pem: authority.root_pem.clone(),
            timeout: Duration::from_secs(1),
            answer_bytes_max: 1,
        };
        let checked = check(&server, &own).await;
        assert!(
            matches!(checked, Err(HttpsError::Url(_))),
            "{url}: {checked:?}"
        );
    }
}
