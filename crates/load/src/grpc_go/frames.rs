//! The frames of HTTP/2 (RFC 9113, section 4), as far as they are told apart here.

use bytes::{BufMut as _, BytesMut};

const HEAD_BYTES: usize = 9;
/// In front of everything but DATA and HEADERS: the answer to a frame of the same kind.
const ACK: u8 = 1;
/// Of DATA and HEADERS: the last frame of its stream.
const END_STREAM: u8 = 1;
/// A setting: how much may be sent ahead on each stream.
const INITIAL_WINDOW_SIZE: u16 = 4;
/// grpc-go tells its questions from those of others by what is in them; any eight bytes do.
const PING_BYTES: [u8; 8] = *b"estimate";

/// The kind of a frame by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind(u8);

impl Kind {
    pub(super) const DATA: Self = Self(0);
    pub(super) const HEADERS: Self = Self(1);
    pub(super) const RESET: Self = Self(3);
    pub(super) const SETTINGS: Self = Self(4);
    pub(super) const PING: Self = Self(6);
    pub(super) const WINDOW_UPDATE: Self = Self(8);
}

/// What a frame begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) length: u32,
    pub(super) kind: Kind,
    flags: u8,
    pub(super) stream: u32,
}

impl Head {
    fn read(bytes: [u8; HEAD_BYTES]) -> Self {
        let [a, b, c, kind, flags, e, f, g, h] = bytes;
        Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind: Kind(kind),
            flags,
            stream: u32::from_be_bytes([e, f, g, h]) & (u32::MAX >> 1),
        }
    }

    pub(super) fn bytes(self) -> [u8; HEAD_BYTES] {
        let [_, a, b, c] = self.length.to_be_bytes();
        let [e, f, g, h] = self.stream.to_be_bytes();
        [a, b, c, self.kind.0, self.flags, e, f, g, h]
    }

    pub(super) fn is_ack(self) -> bool {
        self.flags & ACK != 0
    }

    pub(super) fn ends_stream(self) -> bool {
        let can_end = self.kind == Kind::DATA || self.kind == Kind::HEADERS;
        can_end && self.flags & END_STREAM != 0
    }
}

/// What comes next in a direction of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// The head of a frame is complete.
    Begin(Head),
    /// A piece of its payload.
    Payload(Head, &'a [u8]),
    /// All of it has passed.
    End(Head),
}

/// Where in which frame a direction of a connection is.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    head: [u8; HEAD_BYTES],
    filled: usize,
    /// The frame that is under way, and what is still to come of its payload.
    current: Option<(Head, usize)>,
}

impl Cursor {
    pub(super) fn is_between_frames(&self) -> bool {
        self.current.is_none() && self.filled == 0
    }

    /// Takes the next step out of the bytes. `None` when they say no more.
    pub(super) fn advance<'a>(&mut self, bytes: &mut &'a [u8]) -> Option<Step<'a>> {
        if let Some((head, left)) = &mut self.current {
            if *left == 0 {
                let head = *head;
                self.current = None;
                return Some(Step::End(head));
            }
            if bytes.is_empty() {
                return None;
            }
            let (payload, rest) = bytes.split_at((*left).min(bytes.len()));
            *bytes = rest;
            *left -= payload.len();
            return Some(Step::Payload(*head, payload));
        }
        let missing = HEAD_BYTES - self.filled;
        let (part, rest) = bytes.split_at(missing.min(bytes.len()));
        *bytes = rest;
        self.head[self.filled..self.filled + part.len()].copy_from_slice(part);
        self.filled += part.len();
        if self.filled < HEAD_BYTES {
            return None;
        }
        self.filled = 0;
        let head = Head::read(self.head);
        self.current = Some((head, head.length as usize));
        Some(Step::Begin(head))
    }
}

fn begin(length: u32, kind: Kind, stream: u32, out: &mut BytesMut) {
    let head = Head {
        length,
        kind,
        flags: 0,
        stream,
    };
    out.put_slice(&head.bytes());
}

pub(super) fn ping(out: &mut BytesMut) {
    begin(PING_BYTES.len() as u32, Kind::PING, 0, out);
    out.put_slice(&PING_BYTES);
}

/// Stream 0 is the connection.
pub(super) fn window_update(stream: u32, bytes: u32, out: &mut BytesMut) {
    begin(4, Kind::WINDOW_UPDATE, stream, out);
    out.put_u32(bytes);
}

/// Nothing, or the window that new streams have.
pub(super) fn settings(window: Option<u32>, out: &mut BytesMut) {
    begin(if window.is_some() { 6 } else { 0 }, Kind::SETTINGS, 0, out);
    if let Some(bytes) = window {
        out.put_u16(INITIAL_WINDOW_SIZE);
        out.put_u32(bytes);
    }
}
