//! Addresses, requests, and one round over a real socket.

use std::collections::BTreeMap;

use super::*;

fn address_of(arguments: &[&str], variables: &[(&str, &str)]) -> Result<String, String> {
    let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    let variables: BTreeMap<_, _> = variables.iter().copied().collect();
    address(&arguments, &|name| {
        variables.get(name).map(|value| (*value).to_owned())
    })
}

#[test]
fn the_address_comes_from_arguments_then_the_environment_or_is_refused() {
    let slot = [("SWARM_TASK_SLOT", "3"), ("PORT", "1")];
    assert_eq!(
        address_of(&["--listen", "[::]:9"], &slot).unwrap(),
        "[::]:9"
    );
    assert_eq!(
        address_of(&["--port-base", "8080"], &slot).unwrap(),
        "127.0.0.1:8083"
    );
    assert_eq!(
        address_of(&["--port-base", "8080"], &[]).unwrap(),
        "127.0.0.1:8080"
    );
    assert_eq!(address_of(&[], &[("PORT", "1")]).unwrap(), "0.0.0.0:1");
    let both = [("PORT", "1"), ("SWARM_PORT_80", "2")];
    assert_eq!(address_of(&[], &both).unwrap(), "0.0.0.0:2");
    assert_eq!(address_of(&[], &[]).unwrap(), "127.0.0.1:8080");
    assert_eq!(
        address_of(&["--port-base", "65532"], &slot).unwrap(),
        "127.0.0.1:65535"
    );
    for wrong in [
        &["--port-base", "65533"][..],
        &["--port-base", "x"],
        &["--port"],
    ] {
        assert!(address_of(wrong, &slot).is_err(), "{wrong:?}");
    }
    assert!(address_of(&[], &[("PORT", "http")]).is_err());
}

#[test]
fn requests_get_their_status() {
    let status = |head: &[u8]| respond(head, "hi").0.split(' ').next().unwrap();
    assert_eq!(respond(b"GET / HTTP/1.1\r\n\r\n", "hi"), ("200 OK", "hi"));
    assert_eq!(status(b"GET /health HTTP/1.0\r\n\r\n"), "200");
    assert_eq!(status(b"GET /x HTTP/1.1\r\n\r\n"), "404");
    assert_eq!(status(b"POST / HTTP/1.1\r\n\r\n"), "405");
    for head in [
        &b"\r\n\r\n"[..],
        b"GET /\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"\xff\r\n\r\n",
    ] {
        assert_eq!(status(head), "400", "{head:?}");
    }
}

#[test]
fn a_client_over_a_socket_is_served_and_garbage_is_answered() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || serve(&listener, &Arc::from("hi there")));
    let ask = |request: &[u8]| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        stream.write_all(request).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        // A server that closes with bytes unread resets; what came before counts.
        let _may_be_reset = stream.read_to_string(&mut answer);
        answer
    };
    let answer = ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nhi there"), "{answer}");
    assert!(ask(b"\x16\x03\x01 not http").starts_with("HTTP/1.1 400"));
    assert!(ask(&vec![b'x'; HEAD_BYTES_MAX + 1]).starts_with("HTTP/1.1 431"));
}
