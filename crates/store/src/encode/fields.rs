//! Walks the top level of a protobuf message without building it.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::DecodeError;

/// The value of one field, as far as this crate looks at it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// A fixed number or a group; nothing that we read has one.
    Other,
}

/// Takes the next field off the front of `rest`; `None` at the end.
pub(super) fn next<'a>(rest: &mut &'a [u8]) -> Result<Option<(u32, Value<'a>)>, DecodeError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let (tag, wire_type) = decode_key(rest)?;
    let value = match wire_type {
        WireType::Varint => Value::Varint(decode_varint(rest)?),
        WireType::LengthDelimited => {
            let length = decode_varint(rest)?;
            let (value, after) = usize::try_from(length)
                .ok()
                .and_then(|length| rest.split_at_checked(length))
                .ok_or(DecodeError::Truncated {
                    field: tag,
                    wanted: length,
                    there: rest.len(),
                })?;
            *rest = after;
            Value::Bytes(value)
        }
        WireType::SixtyFourBit
        | WireType::ThirtyTwoBit
        | WireType::StartGroup
        | WireType::EndGroup => {
            skip_field(wire_type, tag, rest, DecodeContext::default())?;
            Value::Other
        }
    };
    Ok(Some((tag, value)))
}
