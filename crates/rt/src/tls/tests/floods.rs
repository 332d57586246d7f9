//! Peers whose calls do not explain what they send.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::spot::{SETTINGS, Wire, frame};
use super::*;

const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
/// A few more than anybody may send without a reason, time included.
const FLOOD: usize = 3_000;

/// The frames of which a peer can send as many as it likes.
fn frames() -> [Vec<u8>; 3] {
    [
        frame(PING, 0, 0, b"12345678"),
        frame(SETTINGS, 0, 0, b""),
        frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
    ]
}

#[tokio::test]
async fn floods_of_frames_are_ended_with_words_and_counted() {
    let authority = Authority::new();
    let listening = Rig::start(authority.credentials("m1", MANAGER)).await;
    let keep = authority.credentials("w9", WORKER);
    let mut kept = Wire::open(&listening, &keep).await;
    let mut count = 0;
    // Workers are served by a lane, managers are not.
    for role in [WORKER, MANAGER] {
        for frame in frames() {
            let credentials = authority.credentials("w1", role);
            let Wire(stream) = Wire::open(&listening, &credentials).await;
            let (mut reader, mut writer) = tokio::io::split(stream);
            let flood = frame.repeat(FLOOD);
            let mut answer = Vec::new();
            // Neither of them needs to come to a good end.
            let _ = within(async {
                tokio::join!(reader.read_to_end(&mut answer), writer.write_all(&flood))
            })
            .await;
            count += 1;
            listening.refused(Refused::FrameFlood, count).await;
            let words = b"send fewer pings";
            let is_told = answer.windows(words.len()).any(|it| it == words);
            assert!(is_told, "{}", answer.escape_ascii());
        }
    }
    assert_eq!(
        kept.call(1, &[b"\0\0\0\0\x03abc"]).await,
        b"\0\0\0\0\x03cba"
    );
    drop(kept);
    let worker = Security::Node(keep, ServerName::Manager);
    listening.finish(&worker).await;
}

#[tokio::test]
async fn a_peer_that_measures_the_line_and_updates_windows_goes_on() {
    let authority = Authority::new();
    let listening = Rig::start(authority.credentials("m1", MANAGER)).await;
    // Not a worker, whose small requests are gathered for a while.
    let credentials = authority.credentials("m2", MANAGER);
    let mut wire = Wire::open(&listening, &credentials).await;
    let [ping, _, update] = frames();
    let reaction = [ping, update.clone(), update].concat();
    // More than the start allows.
    for stream in (1..).step_by(2).take(800) {
        wire.call(stream, &[b"\0\0\0\0\x03abc"]).await;
        wire.0.write_all(&reaction).await.unwrap();
    }
    assert_eq!(listening.metrics.refused_count(Refused::FrameFlood), 0);
    drop(wire);
    let worker = Security::Node(credentials, ServerName::Manager);
    listening.finish(&worker).await;
}
