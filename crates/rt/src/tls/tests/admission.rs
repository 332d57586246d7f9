//! Who gets in when there are many.

use rustls::pki_types::ServerName as Name;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::spot::{SETTINGS, frame};
use super::*;

/// Opens a connection without a certificate from an address of loopback, and waits until it is
/// served; `None` when it is not.
async fn open(rig: &Rig, last: u8) -> Option<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4().unwrap();
    let source = SocketAddr::from(([127, 0, 0, last], 0));
    socket.bind(source).unwrap();
    let stream = socket.connect(rig.address).await.unwrap();
    let config = hostile::client(&[b"h2"], rustls::ALL_VERSIONS);
    let connector = TlsConnector::from(Arc::new(config));
    let name = Name::try_from("swarm-ca").unwrap();
    let mut stream = within(connector.connect(name, stream)).await.ok()?;
    let mut start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    start.extend(frame(SETTINGS, 0, 0, b""));
    stream.write_all(&start).await.ok()?;
    within(stream.read_exact(&mut [0; 9])).await.ok()?;
    Some(stream)
}

async fn count(rig: &Rig, count: usize) {
    within(async {
        while rig.connections.count() != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn one_address_cannot_keep_strangers_from_elsewhere_out() {
    let authority = Authority::new();
    let limits = Limits {
        anonymous_max: 4,
        anonymous_per_address_max: 3,
        ..Limits::default()
    };
    let listening = Rig::limited(authority.credentials("m1", MANAGER), limits).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(open(&listening, 2).await.unwrap());
    }
    assert!(open(&listening, 2).await.is_none(), "three are the most");
    listening.refused(Refused::TooManyAnonymous, 1).await;
    held.push(open(&listening, 3).await.unwrap());
    // All places are taken, and one address has most of them.
    for (displaced, last) in (2..).zip([4, 5]) {
        held.push(open(&listening, last).await.unwrap());
        listening
            .refused(Refused::TooManyAnonymous, displaced)
            .await;
        count(&listening, 4).await;
    }
    for old in &mut held[..2] {
        let mut rest = Vec::new();
        // A reset is an end as well.
        let _ = within(old.read_to_end(&mut rest)).await;
    }
    assert!(open(&listening, 6).await.is_none(), "each has one");
    listening.refused(Refused::TooManyAnonymous, 4).await;
    let worker = node(authority.tls("w1", WORKER));
    assert_eq!(listening.ask(&worker).await.unwrap(), "w1");
    drop(held);
    listening.finish(&worker).await;
}

#[tokio::test]
async fn a_node_that_opens_one_connection_after_the_other_loses_its_oldest() {
    let authority = Authority::new();
    let limits = Limits {
        node_connections_max: 3,
        ..Limits::default()
    };
    let listening = Rig::limited(authority.credentials("m1", MANAGER), limits).await;
    let other = node(authority.tls("w2", WORKER));
    let mut others = listening.dial(&other);
    ask(&mut others, "/who").await.unwrap();
    let worker = node(authority.tls("w1", WORKER));
    let w1 = "w1".parse().unwrap();
    let mut held = Vec::new();
    for number in 0..8_u64 {
        let mut channel = listening.dial(&worker);
        assert_eq!(ask(&mut channel, "/who").await.unwrap(), "w1");
        held.push(channel);
        let displaced = (number + 1).saturating_sub(3);
        listening.refused(Refused::TooManyOfNode, displaced).await;
        count(&listening, held.len().min(3) + 1).await;
    }
    let numbers: Vec<u64> = listening
        .connections
        .of(&w1)
        .iter()
        .map(|it| it.number())
        .collect();
    assert_eq!(numbers.len(), 3);
    assert!(numbers[0] > 5, "the newest stay: {numbers:?}");
    assert_eq!(ask(&mut others, "/who").await.unwrap(), "w2");
    drop((held, others));
    listening.finish(&other).await;
}

#[test]
fn what_is_admitted_leaves_files_to_others() {
    let most = Limits::default();
    for files in [
        0,
        1,
        64,
        65,
        128,
        256,
        1_024,
        4_096,
        65_536,
        1 << 20,
        u64::MAX,
    ] {
        let limits = most.clone().within(files);
        let taken = limits.handshakes_max + limits.connections_max;
        let left = files.saturating_sub(taken as u64);
        assert!(
            left >= (files / 4).clamp(0, 4_096).min(files),
            "{files}: {limits:?}"
        );
        assert!(files < 128 || left >= 64, "{files}: {limits:?}");
        assert!(
            files < 128 || limits.connections_max >= 32,
            "{files}: {limits:?}"
        );
        assert!(
            limits.anonymous_max * 2 <= limits.connections_max.max(2),
            "{limits:?}"
        );
        assert!(limits.anonymous_per_address_max <= limits.anonymous_max.div_ceil(2));
        assert!(limits.handshakes_per_address_max <= limits.handshakes_max.div_ceil(2));
        assert!(limits.anonymous_per_address_max > 0 && limits.handshakes_per_address_max > 0);
    }
    let few = most.clone().within(1_024);
    assert_eq!((few.handshakes_max, few.connections_max), (96, 672));
    assert_eq!(
        (few.anonymous_max, few.anonymous_per_address_max),
        (168, 84)
    );
    let all = most.clone().within(1 << 20);
    assert_eq!(all.connections_max, most.connections_max);
    assert_eq!(
        all.anonymous_per_address_max,
        most.anonymous_per_address_max
    );
}
