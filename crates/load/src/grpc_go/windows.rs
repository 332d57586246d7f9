//! How much the manager may send, and when grpc-go tells it that it may send more
//! (`internal/transport/flowcontrol.go`).
//!
//! The connection's window counts what arrives, a stream's what its caller has read; here both are
//! the same moment, as agents take every message at once. Either is told when a quarter of it is
//! used up, the connection's also in front of each PING. A stream whose next message is larger than
//! its window gets room for all of that message.

use std::collections::BTreeMap;

use bytes::BytesMut;

use super::frames;

/// Every window at the beginning.
pub(super) const INITIAL_BYTES: u32 = 65_535;
/// A flag for compression and the length, in front of each message.
const PREFIX_BYTES: usize = 5;
/// The part of a window that may be used up without a word.
const QUIET_PART: u32 = 4;

#[derive(Debug)]
pub(super) struct Windows {
    limit: u32,
    /// What arrived and was not told.
    untold: u32,
    streams: BTreeMap<u32, Stream>,
}

#[derive(Debug, Default)]
struct Stream {
    untold: u32,
    /// Granted beyond the limit, for a message that is larger.
    extra: u32,
    prefix: [u8; PREFIX_BYTES],
    prefix_filled: usize,
    /// Of the message that is under way.
    message_left: u32,
}

impl Windows {
    pub(super) fn new() -> Self {
        Self {
            limit: INITIAL_BYTES,
            untold: 0,
            streams: BTreeMap::new(),
        }
    }

    /// A DATA frame arrived on the connection.
    pub(super) fn received(&mut self, bytes: u32, out: &mut BytesMut) {
        self.untold += bytes;
        if self.untold >= self.limit / QUIET_PART {
            self.tell_all(out);
        }
    }

    /// Tells the manager all that the connection has taken.
    pub(super) fn tell_all(&mut self, out: &mut BytesMut) {
        let untold = std::mem::take(&mut self.untold);
        if untold > 0 {
            frames::window_update(0, untold, out);
        }
    }

    /// Data of a stream are read.
    pub(super) fn read(&mut self, number: u32, mut data: &[u8], out: &mut BytesMut) {
        let stream = self.streams.entry(number).or_default();
        stream.read(data.len() as u32, self.limit, number, out);
        while !data.is_empty() {
            let ahead = (data.len() as u32).min(stream.message_left) as usize;
            stream.message_left -= ahead as u32;
            data = &data[ahead..];
            let Some((first, rest)) = data.split_first() else {
                return;
            };
            stream.prefix[stream.prefix_filled] = *first;
            stream.prefix_filled += 1;
            data = rest;
            if stream.prefix_filled == PREFIX_BYTES {
                stream.prefix_filled = 0;
                let [_, a, b, c, d] = stream.prefix;
                let size = u32::from_be_bytes([a, b, c, d]);
                stream.message_left = size;
                stream.expect(size, data.len() as u32, self.limit, number, out);
            }
        }
    }

    /// The stream is over.
    pub(super) fn forget(&mut self, number: u32) {
        self.streams.remove(&number);
    }

    /// All windows become larger.
    pub(super) fn widen(&mut self, limit: u32, out: &mut BytesMut) {
        let more = limit.saturating_sub(self.limit);
        self.limit = limit;
        if more > 0 {
            frames::window_update(0, more, out);
        }
        frames::settings(Some(limit), out);
    }
}

impl Stream {
    fn read(&mut self, bytes: u32, limit: u32, number: u32, out: &mut BytesMut) {
        let beyond = bytes.min(self.extra);
        self.extra -= beyond;
        self.untold += bytes - beyond;
        if self.untold >= limit / QUIET_PART {
            let untold = std::mem::take(&mut self.untold);
            if untold > 0 {
                frames::window_update(number, untold, out);
            }
        }
    }

    /// A message of so many bytes follows, some of which are here.
    fn expect(&mut self, size: u32, here: u32, limit: u32, number: u32, out: &mut BytesMut) {
        let missing = size.saturating_sub(here);
        let room = limit.saturating_sub(self.untold);
        if missing > room {
            self.extra = size.min(i32::MAX as u32 - limit);
            frames::window_update(number, self.extra, out);
        }
    }
}
