//! Writes protobuf fields from borrowed parts, or only counts their bytes.
//!
//! Messages are framed in one pass: the body is written, then its length is put before it. The
//! bodies here are short, so moving them is cheaper than counting first.

use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use swarm_types::id::ID_DIGITS;
use swarm_types::{Id, Timestamp, Version};

/// Where fields go.
pub(super) trait Sink: Sized {
    fn varint(&mut self, tag: u32, value: u64);
    fn bytes(&mut self, tag: u32, value: &[u8]);
    fn message(&mut self, tag: u32, message: &impl Message);
    /// A message whose fields `body` writes.
    fn framed(&mut self, tag: u32, body: impl FnOnce(&mut Self));

    /// Numbers and texts with the default value are not written.
    fn number(&mut self, tag: u32, value: u64) {
        if value != 0 {
            self.varint(tag, value);
        }
    }

    /// Signed numbers take ten bytes when they are negative.
    fn signed(&mut self, tag: u32, value: i64) {
        self.number(tag, value.cast_unsigned());
    }

    fn text(&mut self, tag: u32, value: &str) {
        if !value.is_empty() {
            self.bytes(tag, value.as_bytes());
        }
    }

    fn id(&mut self, tag: u32, id: Option<&Id>);

    fn time(&mut self, tag: u32, time: Timestamp) {
        self.message(tag, &time.to_wire());
    }

    fn version(&mut self, tag: u32, version: Version) {
        self.framed(tag, |out| out.number(1, version.0));
    }
}

impl Sink for Vec<u8> {
    fn varint(&mut self, tag: u32, value: u64) {
        encode_key(tag, WireType::Varint, self);
        encode_varint(value, self);
    }

    fn bytes(&mut self, tag: u32, value: &[u8]) {
        encode_key(tag, WireType::LengthDelimited, self);
        encode_varint(value.len() as u64, self);
        self.extend_from_slice(value);
    }

    fn message(&mut self, tag: u32, message: &impl Message) {
        prost::encoding::message::encode(tag, message, self);
    }

    fn id(&mut self, tag: u32, id: Option<&Id>) {
        if let Some(id) = id {
            id.with_str(|text| self.text(tag, text));
        }
    }

    fn framed(&mut self, tag: u32, body: impl FnOnce(&mut Self)) {
        encode_key(tag, WireType::LengthDelimited, self);
        let start = self.len();
        // Room for the length of a body below 128 bytes, which most are.
        self.push(0);
        body(self);
        let length = self.len() - start - 1;
        let prefix = encoded_len_varint(length as u64);
        if prefix > 1 {
            self.resize(start + prefix + length, 0);
            self.copy_within(start + 1..start + 1 + length, start + prefix);
        }
        encode_varint(length as u64, &mut &mut self[start..start + prefix]);
    }
}

/// Counts what would be written.
#[derive(Debug, Default)]
pub(super) struct Count(pub(super) usize);

impl Sink for Count {
    fn varint(&mut self, tag: u32, value: u64) {
        self.0 += key_len(tag) + encoded_len_varint(value);
    }

    fn bytes(&mut self, tag: u32, value: &[u8]) {
        self.0 += key_len(tag) + encoded_len_varint(value.len() as u64) + value.len();
    }

    fn id(&mut self, tag: u32, id: Option<&Id>) {
        match id {
            // Its digits need not be known to be counted.
            Some(id) if id.is_canonical() => {
                self.0 += key_len(tag) + encoded_len_varint(ID_DIGITS as u64) + ID_DIGITS;
            }
            Some(id) => id.with_str(|text| self.text(tag, text)),
            None => {}
        }
    }

    fn message(&mut self, tag: u32, message: &impl Message) {
        self.0 += prost::encoding::message::encoded_len(tag, message);
    }

    fn framed(&mut self, tag: u32, body: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        body(&mut inner);
        self.0 += key_len(tag) + encoded_len_varint(inner.0 as u64) + inner.0;
    }
}
