//! What the encoding does at the edges which peers of another make depend on.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use crate::{raftpb, v1};

#[test]
fn repeated_enums_marked_unpacked_are_written_one_by_one() {
    let filters = v1::list_nodes_request::Filters {
        memberships: vec![1, 0],
        ..Default::default()
    };
    // Field 4, varint, twice.
    assert_eq!(filters.encode_to_vec(), [0x20, 1, 0x20, 0]);
}

#[test]
fn repeated_enums_marked_unpacked_are_read_in_either_form() {
    let expected = v1::list_nodes_request::Filters {
        memberships: vec![1, 0],
        ..Default::default()
    };
    for form in [&[0x20, 1, 0x20, 0][..], &[0x22, 2, 1, 0][..]] {
        assert_eq!(
            v1::list_nodes_request::Filters::decode(form),
            Ok(expected.clone())
        );
    }
}

#[test]
fn repeated_numbers_marked_unpacked_are_written_one_by_one_and_read_in_either_form() {
    let reply = v1::JoinResponse {
        removed_members: vec![5, 6],
        ..Default::default()
    };
    assert_eq!(reply.encode_to_vec(), [0x18, 5, 0x18, 6]);
    assert_eq!(v1::JoinResponse::decode(&[0x1a, 2, 5, 6][..]), Ok(reply));

    let state = raftpb::ConfState {
        voters: vec![5, 6],
        ..Default::default()
    };
    assert_eq!(state.encode_to_vec(), [0x08, 5, 0x08, 6]);
    assert_eq!(raftpb::ConfState::decode(&[0x0a, 2, 5, 6][..]), Ok(state));
}

#[test]
fn unknown_enum_numbers_survive_reading_and_writing() {
    let wire = [0x10, 0xe7, 0x07]; // Field 2: 999.
    let status = v1::TaskStatus::decode(&wire[..]).unwrap();
    assert_eq!(status.state, 999);
    assert!(v1::TaskState::try_from(status.state).is_err());
    assert_eq!(status.encode_to_vec(), wire);
}

#[test]
fn task_states_have_the_numbers_of_the_specification_on_the_wire() {
    let status = v1::TaskStatus {
        state: v1::TaskState::Running.into(),
        ..Default::default()
    };
    assert_eq!(status.encode_to_vec(), [0x10, 0x80, 0x04]); // 512.
    assert_eq!(v1::TaskState::Orphaned.as_str_name(), "ORPHANED");
}

#[test]
fn absent_and_empty_messages_are_both_read() {
    let absent = v1::Task::decode(&[][..]).unwrap();
    let empty = v1::Task::decode(&[0x1a, 0][..]).unwrap(); // Field 3, no bytes.
    assert_eq!(absent.spec, None);
    assert_eq!(empty.spec, Some(v1::TaskSpec::default()));
    assert_eq!(
        absent.spec.unwrap_or_default(),
        empty.spec.unwrap_or_default()
    );
}

#[test]
fn empty_message_is_written_when_it_is_present() {
    let message = v1::StreamRaftMessageRequest {
        message: Some(raftpb::Message::default()),
    };
    assert_eq!(message.encode_to_vec(), [0x0a, 0]);
}

#[test]
fn consensus_messages_tell_a_written_zero_from_an_absent_field() {
    let zero = raftpb::HardState {
        term: Some(0),
        ..Default::default()
    };
    assert_eq!(zero.encode_to_vec(), [0x08, 0]);
    assert_eq!(raftpb::HardState::decode(&[0x08, 0][..]), Ok(zero));
    assert_eq!(raftpb::HardState::decode(&[][..]).unwrap().term, None);
}

#[test]
fn fields_of_newer_peers_are_skipped() {
    // Fields 15 and 16 of a consensus message exist in other libraries; field 2 is known.
    let wire = [0x10, 3, 0x78, 9, 0x80, 0x01, 9];
    let message = raftpb::Message::decode(&wire[..]).unwrap();
    assert_eq!(
        message,
        raftpb::Message {
            to: Some(3),
            ..Default::default()
        }
    );
}

#[test]
fn maps_are_written_in_order_of_keys() {
    let pairs = [("b", "2"), ("a", "1"), ("c", "3")];
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        owned.collect()
    };
    let annotations = v1::Annotations {
        labels: labels(&pairs),
        ..Default::default()
    };
    let wire = annotations.encode_to_vec();
    let keys: Vec<u8> = wire.chunks(8).map(|entry| entry[4]).collect();
    assert_eq!(keys, b"abc");
}

#[test]
fn truncated_message_is_refused_or_read_as_a_shorter_one_but_never_panics() {
    let spec = v1::SecretSpec {
        data: Bytes::from_static(b"x"),
        ..Default::default()
    };
    let wire = v1::Secret {
        id: "id".to_owned(),
        spec: Some(spec),
        ..Default::default()
    }
    .encode_to_vec();
    // Whole fields: nothing, the id, the id and the spec.
    let readable: Vec<usize> = (0..=wire.len())
        .filter(|&length| v1::Secret::decode(&wire[..length]).is_ok())
        .collect();
    assert_eq!(readable, [0, 4, wire.len()]);
}

#[test]
fn deeply_nested_message_is_refused() {
    // The library allows 100 levels; `responses` is the one field that nests without end.
    let nest = |levels: usize| {
        (0..levels).fold(raftpb::Message::default(), |inner, _| raftpb::Message {
            responses: vec![inner],
            ..Default::default()
        })
    };
    let decode = |levels: usize| raftpb::Message::decode(&nest(levels).encode_to_vec()[..]);
    assert!(decode(100).is_ok());
    assert!(decode(101).is_err());
}

#[cfg(feature = "grpc")]
#[test]
fn method_without_implementation_answers_unimplemented() {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    struct Nothing;
    impl v1::node_ca_server::NodeCa for Nothing {}

    let request = tonic::Request::new(v1::NodeCertificateStatusRequest::default());
    let mut reply = pin!(v1::node_ca_server::NodeCa::node_certificate_status(
        &Nothing, request
    ));
    let Poll::Ready(Err(status)) = reply.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("a default method answers at once, with an error");
    };
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}
