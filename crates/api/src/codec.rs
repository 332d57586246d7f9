//! Messages in the frames of gRPC, with buffers as small as most messages are.
//!
//! Owns the sizes of the buffers. A stream keeps its buffer as long as it is open, and a manager
//! has two or three streams open for each of thousands of nodes, so the usual 8 KiB would be the
//! largest part of what a node costs.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::ProstDecoder;

/// What a buffer begins with, and grows by: heartbeats and most statuses fit.
pub const BUFFER_BYTES: usize = 512;
/// A stream that has so much ready sends it before it encodes the next message.
pub const YIELD_BYTES: usize = 32 << 10;

fn settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

/// What every stub of ours encodes and decodes with.
#[derive(Debug)]
pub struct SmallBufferCodec<T, U> {
    messages: PhantomData<fn() -> (T, U)>,
}

impl<T, U> Default for SmallBufferCodec<T, U> {
    fn default() -> Self {
        Self {
            messages: PhantomData,
        }
    }
}

impl<T, U> Codec for SmallBufferCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = SmallBufferEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        SmallBufferEncoder {
            message: PhantomData,
        }
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(settings())
    }
}

/// Encodes messages of one type.
#[derive(Debug)]
pub struct SmallBufferEncoder<T> {
    message: PhantomData<fn() -> T>,
}

impl<T: Message> Encoder for SmallBufferEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        // Once, since a large message would make a small buffer grow many times.
        buffer.reserve(item.encoded_len());
        item.encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}
