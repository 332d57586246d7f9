//! What is on the wire between the library and a manager.

use std::time::Duration;

use super::*;

/// A frame as it is on the wire.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

const SETTINGS: u8 = 4;
const ACK: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const PING: u8 = 6;

/// A wire on which the library has sent its preface and settings.
fn begun() -> Wire {
    let mut wire = Wire::new();
    wire.take_out(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    wire.take_out(&frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]));
    wire.take_out(&frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0, 0]));
    wire
}

fn kinds(bytes: &[u8]) -> Vec<(u8, u32)> {
    let (mut cursor, mut bytes, mut found) = (Cursor::default(), bytes, Vec::new());
    while let Some(step) = cursor.advance(&mut bytes) {
        if let Step::Begin(head) = step {
            found.push((head.bytes()[3], head.length));
        }
    }
    assert!(cursor.is_between_frames());
    found
}

/// A DATA frame with one message of so many bytes.
fn message(stream: u32, size: usize) -> Vec<u8> {
    let mut payload = vec![0];
    payload.extend(u32::try_from(size).unwrap().to_be_bytes());
    payload.resize(5 + size, 7);
    frame(0, 0, stream, &payload)
}

fn written(wire: &mut Wire) -> Vec<(u8, u32)> {
    kinds(&wire.unwritten.split())
}

#[test]
fn a_connection_begins_with_empty_settings_and_no_windows() {
    let mut wire = begun();
    let begin = wire.unwritten.split();
    assert_eq!(kinds(&begin[PREFACE_BYTES..]), [(SETTINGS, 0)]);
}

#[test]
fn data_are_followed_by_a_window_and_a_ping_until_that_is_answered() {
    let (mut wire, now) = (begun(), Instant::now());
    wire.unwritten.clear();
    let answer = message(1, 10);
    wire.take_in(&answer, || now);
    assert_eq!(written(&mut wire), [(WINDOW_UPDATE, 4), (PING, 8)]);
    assert_eq!(wire.arrived.split(), answer, "the library reads the same");
    wire.take_in(&message(1, 10), || now);
    assert_eq!(written(&mut wire), [], "one question at a time");
    let later = now + Duration::from_millis(50);
    wire.take_in(&frame(PING, ACK, 0, b"estimate"), || later);
    wire.take_in(&message(3, 10), || later);
    assert_eq!(written(&mut wire), [(WINDOW_UPDATE, 4), (PING, 8)]);
}

#[test]
fn frames_of_ours_wait_for_the_end_of_one_of_the_librarys() {
    let mut wire = begun();
    wire.unwritten.clear();
    let headers = frame(1, 4, 3, b"some headers");
    let (first, rest) = headers.split_at(11);
    wire.take_out(first);
    wire.take_in(&message(1, 10), Instant::now);
    wire.take_out(rest);
    let sent = written(&mut wire);
    assert_eq!(sent, [(1, 12), (WINDOW_UPDATE, 4), (PING, 8)]);
}

#[test]
fn bytes_may_come_one_by_one() {
    let mut wire = begun();
    wire.unwritten.clear();
    for byte in message(1, 300) {
        wire.take_in(&[byte], Instant::now);
    }
    assert_eq!(written(&mut wire), [(WINDOW_UPDATE, 4), (PING, 8)]);
    assert_eq!(wire.arrived.len(), 9 + 5 + 300);
}

#[test]
fn a_message_beyond_the_window_gets_room_at_once() {
    let mut wire = begun();
    let mut head = message(1, 0);
    // Announces 200,000 bytes, of which none is here.
    head[10..14].copy_from_slice(&200_000_u32.to_be_bytes());
    wire.unwritten.clear();
    wire.take_in(&head, Instant::now);
    let sent = wire.unwritten.split();
    assert_eq!(
        kinds(&sent),
        [(WINDOW_UPDATE, 4), (WINDOW_UPDATE, 4), (PING, 8)]
    );
    assert_eq!(sent[9..13], 200_000_u32.to_be_bytes(), "for the stream");
    assert_eq!(sent[22..26], 5_u32.to_be_bytes(), "for the connection");
}

#[test]
fn larger_windows_are_told_and_their_acknowledgement_is_ours() {
    let (mut wire, now) = (begun(), Instant::now());
    let ack = frame(SETTINGS, ACK, 0, b"");
    wire.take_in(&ack, || now);
    assert_eq!(wire.arrived.split(), ack, "for the library's own settings");
    for stream in [1, 3, 5, 7] {
        wire.take_in(&message(stream, 16_000), || now);
    }
    wire.unwritten.clear();
    let later = now + Duration::from_millis(1);
    wire.take_in(&frame(PING, ACK, 0, b"estimate"), || later);
    assert_eq!(written(&mut wire), [(WINDOW_UPDATE, 4), (SETTINGS, 6)]);
    wire.arrived.clear();
    wire.take_in(&ack, || later);
    assert!(wire.arrived.is_empty(), "the library did not send those");
}
