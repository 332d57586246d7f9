//! What the frames of a peer cost us, beside what its calls explain.
//!
//! A ping, settings and an update of a window are a few bytes to send and a turn of the connection
//! to answer. An honest peer sends them because of what we send: it updates windows for data that
//! it has read, and measures the line with pings meanwhile. So each frame of ours that carries a
//! part of an answer brings credit, time brings a little, and whoever has none left is hung up on.
//!
//! Owns the counting. Does not own HTTP/2: whatever is wrong with a frame is found by who serves
//! the connection.

use std::time::Duration;

/// What a peer may send at once without any reason.
const CREDIT_START: u32 = 1_000;
/// What it may have saved up.
const CREDIT_MAX: u32 = 16_384;
/// What comes back in a second.
const CREDIT_PER_SECOND: u32 = 50;
/// What one frame of an answer explains: an update for its stream, one for the connection, and
/// pings.
const CREDIT_PER_ANSWER: u32 = 4;
/// A frame without a purpose costs one more for so many bytes.
const BYTES_PER_CREDIT: u32 = 64;

/// The head of a frame (RFC 9113, 4.1).
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

/// Cuts what goes in one direction into frames.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; HEAD_BYTES],
    head_bytes: u8,
    /// What is still to come of the present one.
    payload_bytes: u32,
}

/// What is looked at of a frame.
#[derive(Clone, Copy, Debug)]
struct Frame {
    bytes: u32,
    kind: u8,
    flags: u8,
}

impl Frames {
    fn each(&mut self, mut bytes: &[u8], mut see: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.payload_bytes > 0 {
                let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                let passed = self.payload_bytes.min(length);
                self.payload_bytes -= passed;
                bytes = &bytes[passed as usize..];
                continue;
            }
            let have = usize::from(self.head_bytes);
            let taken = bytes.len().min(HEAD_BYTES - have);
            self.head[have..have + taken].copy_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if have + taken < HEAD_BYTES {
                // At most eight.
                self.head_bytes += taken as u8;
                return;
            }
            self.head_bytes = 0;
            let [a, b, c, kind, flags, ..] = self.head;
            self.payload_bytes = u32::from_be_bytes([0, a, b, c]);
            see(Frame {
                bytes: self.payload_bytes,
                kind,
                flags,
            });
        }
    }

    fn is_between(&self) -> bool {
        self.payload_bytes == 0 && self.head_bytes == 0
    }
}

/// The account of one connection.
#[derive(Debug)]
pub(super) struct Meter {
    received: Frames,
    sent: Frames,
    credit: u32,
    /// When time last brought something.
    since: Duration,
}

/// The peer has used up its credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overdrawn {
    /// The kind of its last frame.
    pub(super) kind: &'static str,
}

impl Meter {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            received: Frames::default(),
            sent: Frames::default(),
            credit: CREDIT_START,
            since: now,
        }
    }

    /// Takes account of what was sent.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        let mut credit = self.credit;
        self.sent.each(bytes, |frame| {
            if matches!(frame.kind, DATA | HEADERS) {
                credit = credit.saturating_add(CREDIT_PER_ANSWER);
            }
        });
        self.credit = credit.min(CREDIT_MAX);
    }

    /// Takes account of what was received after the preface. The clock is read only if there is
    /// something to pay for.
    pub(super) fn received(
        &mut self,
        bytes: &[u8],
        now: impl FnOnce() -> Duration,
    ) -> Result<(), Overdrawn> {
        let (mut price, mut earned, mut last) = (0_u32, 0_u32, DATA);
        self.received.each(bytes, |frame| {
            let own = price_of(frame);
            if own > 0 {
                last = frame.kind;
            }
            price = price.saturating_add(own);
            earned += u32::from(frame.kind == HEADERS);
        });
        self.credit = self.credit.saturating_add(earned).min(CREDIT_MAX);
        if price == 0 {
            return Ok(());
        }
        self.pass(now());
        match self.credit.checked_sub(price) {
            Some(left) => {
                self.credit = left;
                Ok(())
            }
            None => Err(Overdrawn { kind: name(last) }),
        }
    }

    /// Whether what was sent so far ends with a frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.sent.is_between()
    }

    /// Time goes by. What is less than a whole credit is kept for the next time.
    fn pass(&mut self, now: Duration) {
        let per_credit = Duration::from_secs(1) / CREDIT_PER_SECOND;
        let passed = now.saturating_sub(self.since);
        let earned = passed.as_nanos() / per_credit.as_nanos();
        let earned = u32::try_from(earned).unwrap_or(u32::MAX);
        if earned > 0 {
            self.since = self.since.saturating_add(per_credit.saturating_mul(earned));
            self.credit = self.credit.saturating_add(earned).min(CREDIT_MAX);
        }
    }
}

/// A goodbye of HTTP/2 (RFC 9113, 6.8) with words: the peer is to calm down.
pub(super) fn goodbye(words: &str) -> Vec<u8> {
    const GOAWAY: u8 = 7;
    const LAST_STREAM: u32 = i32::MAX.cast_unsigned();
    const ENHANCE_YOUR_CALM: u32 = 0xb;
    let length = u32::try_from(8 + words.len()).unwrap_or_default();
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([GOAWAY, 0, 0, 0, 0, 0]);
    frame.extend(LAST_STREAM.to_be_bytes());
    frame.extend(ENHANCE_YOUR_CALM.to_be_bytes());
    frame.extend(words.as_bytes());
    frame
}

/// What a frame costs. Calls and their data have bounds of their own.
fn price_of(frame: Frame) -> u32 {
    match frame.kind {
        HEADERS => 0,
        DATA => u32::from(frame.bytes == 0 && frame.flags & END_STREAM == 0),
        _ => 1 + frame.bytes / BYTES_PER_CREDIT,
    }
}

fn name(kind: u8) -> &'static str {
    match kind {
        DATA => "empty DATA",
        HEADERS => "HEADERS",
        2 => "PRIORITY",
        3 => "RST_STREAM",
        4 => "SETTINGS",
        5 => "PUSH_PROMISE",
        6 => "PING",
        7 => "GOAWAY",
        8 => "WINDOW_UPDATE",
        9 => "CONTINUATION",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, flags: u8, bytes: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, bytes, kind, flags, 0, 0, 0, 1];
        frame.extend(vec![0xff; usize::from(bytes)]);
        frame
    }

    fn at(seconds: u64) -> impl FnOnce() -> Duration {
        move || Duration::from_secs(seconds)
    }

    /// How many of these a peer may send at once.
    fn bears(meter: &mut Meter, frame: &[u8]) -> (u32, &'static str) {
        for count in 0.. {
            if let Err(over) = meter.received(frame, at(0)) {
                return (count, over.kind);
            }
        }
        unreachable!()
    }

    #[test]
    fn frames_are_found_in_whatever_pieces_they_come() {
        let stream: Vec<u8> = [
            frame(PING, 0, 8),
            frame(DATA, 0, 200),
            frame(SETTINGS, 1, 0),
            frame(HEADERS, 4, 30),
        ]
        .concat();
        for piece in 1..stream.len() {
            let (mut frames, mut kinds) = (Frames::default(), Vec::new());
            for bytes in stream.chunks(piece) {
                frames.each(bytes, |it| kinds.push((it.kind, it.flags, it.bytes)));
            }
            let wanted = [
                (PING, 0, 8),
                (DATA, 0, 200),
                (SETTINGS, 1, 0),
                (HEADERS, 4, 30),
            ];
            assert_eq!(kinds, wanted, "{piece}");
            assert!(frames.is_between());
        }
        let mut frames = Frames::default();
        frames.each(&stream[..12], |_| {});
        assert!(!frames.is_between());
    }

    #[test]
    fn floods_are_borne_for_as_long_as_the_start_lasts() {
        for (kind, bytes, name) in [
            (PING, 8, "PING"),
            (WINDOW_UPDATE, 4, "WINDOW_UPDATE"),
            (SETTINGS, 0, "SETTINGS"),
            (DATA, 0, "empty DATA"),
            (200, 0, "unknown"),
        ] {
            let mut meter = Meter::new(Duration::ZERO);
            let borne = bears(&mut meter, &frame(kind, 0, bytes));
            assert_eq!(borne, (CREDIT_START, name));
        }
        // What is larger costs more.
        let mut meter = Meter::new(Duration::ZERO);
        let (count, _) = bears(&mut meter, &frame(SETTINGS, 0, 192));
        assert_eq!(count, CREDIT_START / 4);
    }

    #[test]
    fn calls_and_their_data_cost_nothing() {
        let mut meter = Meter::new(Duration::ZERO);
        let call = [
            frame(HEADERS, 4, 30),
            frame(DATA, 0, 9),
            frame(DATA, END_STREAM, 0),
        ]
        .concat();
        for _ in 0..100_000 {
            meter
                .received(&call, || panic!("nothing to pay for"))
                .unwrap();
        }
    }

    #[test]
    fn what_is_sent_explains_updates_and_pings() {
        let mut meter = Meter::new(Duration::ZERO);
        let answer = frame(DATA, 0, 100);
        let reaction = [
            frame(WINDOW_UPDATE, 0, 4),
            frame(WINDOW_UPDATE, 0, 4),
            frame(PING, 0, 8),
        ]
        .concat();
        for _ in 0..100_000 {
            meter.sent(&answer);
            meter.received(&reaction, at(0)).unwrap();
        }
        // Answers to pings explain nothing.
        let mut meter = Meter::new(Duration::ZERO);
        for _ in 0..CREDIT_START {
            meter.received(&frame(PING, 0, 8), at(0)).unwrap();
            meter.sent(&frame(PING, 1, 8));
        }
        meter.received(&frame(PING, 0, 8), at(0)).unwrap_err();
    }

    #[test]
    fn time_brings_a_little_and_not_more_than_the_most() {
        let mut meter = Meter::new(Duration::ZERO);
        let ping = frame(PING, 0, 8);
        bears(&mut meter, &ping);
        for second in 1..100 {
            for _ in 0..CREDIT_PER_SECOND {
                meter.received(&ping, at(second)).unwrap();
            }
            meter.received(&ping, at(second)).unwrap_err();
        }
        let later = 1_000_000;
        for _ in 0..CREDIT_MAX {
            meter.received(&ping, at(later)).unwrap();
        }
        meter.received(&ping, at(later)).unwrap_err();
    }

    #[test]
    fn a_goodbye_is_a_frame_with_its_words() {
        let bytes = goodbye("calm");
        let mut kinds = Vec::new();
        let mut frames = Frames::default();
        frames.each(&bytes, |it| kinds.push((it.kind, it.bytes)));
        assert_eq!(kinds, [(7, 12)]);
        assert!(frames.is_between() && bytes.ends_with(b"calm"));
    }
}
