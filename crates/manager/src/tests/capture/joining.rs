//! Connections 1 and 2 of the capture: the root, a certificate, and what became of it.

use hyper::body::Bytes;
use swarm_rt::tls::NodeTls;
use v1::issuance_status::State;

use super::shape::is_id;
use super::wire::call;
use super::*;

/// The engine, after it joined.
pub(super) struct Engine {
    pub(super) id: String,
    pub(super) csr: Bytes,
    pub(super) channel: Channel,
    pub(super) description: v1::NodeDescription,
}

/// Connections 1 and 2 of the capture: the root, a certificate, and what became of it.
pub(super) async fn join(world: &World) -> Engine {
    let token = world.tokens().await.worker;
    let channel = world.dial(&Security::Unverified);
    let request = v1::GetRootCaCertificateRequest {};
    let answer = call(&channel, "CA/GetRootCACertificate", &request).await;
    let root: v1::GetRootCaCertificateResponse = answer.only().await;
    assert_eq!(root.certificate, world.authority.root_pem.as_bytes());
    drop(channel);

    let key_pem = swarm_ca::csr::new_key();
    let csr = Bytes::from(swarm_ca::csr::request(&key_pem).unwrap());
    let channel = world.dial(&Security::Verified(
        world.authority.root_pem.clone(),
        ServerName::Ca,
    ));
    let request = v1::IssueNodeCertificateRequest {
        csr: csr.clone(),
        token,
        ..Default::default()
    };
    let answer = call(&channel, "NodeCA/IssueNodeCertificate", &request).await;
    let issued: v1::IssueNodeCertificateResponse = answer.only().await;
    assert!(is_id(&issued.node_id), "{issued:?}");
    let accepted = v1::node_spec::Membership::Accepted;
    assert_eq!(issued.node_membership(), accepted);
    let request = v1::NodeCertificateStatusRequest {
        node_id: issued.node_id.clone(),
    };
    let answer = call(&channel, "NodeCA/NodeCertificateStatus", &request).await;
    let status: v1::NodeCertificateStatusResponse = answer.only().await;
    assert_eq!(status.status.unwrap().state(), State::Issued);
    let certificate = status.certificate.unwrap();
    expect_certificate(&certificate, &csr, &issued.node_id);
    let chain_pem = String::from_utf8(certificate.certificate.to_vec()).unwrap();
    let identity = swarm_ca::identity::read_pem(chain_pem.as_bytes()).unwrap();
    assert_eq!(identity.node.to_string(), issued.node_id);
    assert!(!identity.is_manager());
    let tls = NodeTls {
        chain_pem,
        key_pem,
        root_pem: world.authority.root_pem.clone(),
    };
    Engine {
        id: issued.node_id,
        csr,
        description: description(world),
        channel: world.dial_as(tls),
    }
}

#[track_caller]
pub(super) fn expect_certificate(certificate: &v1::Certificate, csr: &[u8], id: &str) {
    assert_eq!(certificate.csr, csr, "agents keep no other");
    let status = certificate.status.as_ref().unwrap();
    assert_eq!((status.state(), status.err.as_str()), (State::Issued, ""));
    assert_eq!(certificate.role(), v1::NodeRole::Worker);
    assert_eq!(certificate.cn, id);
    assert!(
        certificate
            .certificate
            .starts_with(b"-----BEGIN CERTIFICATE-----")
    );
}

/// What the engine says of its machine.
pub(super) fn description(world: &World) -> v1::NodeDescription {
    let plugin = |(kind, name): (&str, &str)| v1::PluginDescription {
        r#type: kind.to_owned(),
        name: name.to_owned(),
    };
    let plugins = [("Log", "awslogs"), ("Log", "json-file")];
    let networks = ["bridge", "host", "ipvlan", "macvlan", "null", "overlay"];
    let plugins = plugins
        .into_iter()
        .chain(networks.map(|name| ("Network", name)))
        .chain([("Volume", "local")]);
    let issuer = swarm_ca::rotation::issuer_of(world.authority.root_pem.as_bytes()).unwrap();
    v1::NodeDescription {
        hostname: "vm".to_owned(),
        platform: Some(v1::Platform {
            architecture: "x86_64".to_owned(),
            os: "linux".to_owned(),
        }),
        resources: Some(v1::Resources {
            nano_cpus: 2_000_000_000,
            memory_bytes: 25_276_510_208,
            generic: vec![swarm_types::resources::discrete("GPU", 2)],
        }),
        engine: Some(v1::EngineDescription {
            engine_version: "20.10.24+dfsg1".to_owned(),
            labels: [("gpu".to_owned(), "none".to_owned())].into(),
            plugins: plugins.map(plugin).collect(),
        }),
        tls_info: Some(v1::NodeTlsInfo {
            trust_root: world.authority.root_pem.clone().into(),
            cert_issuer_subject: issuer.subject.into(),
            cert_issuer_public_key: issuer.public_key.into(),
        }),
        ..Default::default()
    }
}
