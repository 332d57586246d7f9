//! Parts that many requests have: an id, a version, a spec of bounded size.

use std::str::FromStr;

use prost::Message;
use swarm_api::v1;
use swarm_types::id::IdError;
use swarm_types::{Kind, Version};

use crate::refusal::{Refusal, rules};

/// Encoded bytes of one spec at most: 512 KiB. An update stores the new spec beside the previous
/// one, and both must fit one transaction ([`swarm_store::TRANSACTION_BYTES_MAX`]).
pub const SPEC_BYTES_MAX: usize = 512 * 1024;

rules! {
    INVALID_ARGUMENT: InvalidArgument, "invalid argument";
    ID_TOO_LONG: InvalidArgument, "invalid argument: {}";
    NOT_FOUND: NotFound, "{} {} not found";
    SPEC_TOO_LARGE: InvalidArgument,
        "the {} spec has {} bytes, at most {} are allowed; move large content out of it";
    UNKNOWN_NUMBER: InvalidArgument,
        "{}: {} is not a value that this version knows; choose another";
}

/// Reads the id of the object that a request is about.
pub(crate) fn id<T: FromStr<Err = IdError>>(text: &str) -> Result<T, Refusal> {
    text.parse().map_err(|error| match error {
        IdError::Empty => INVALID_ARGUMENT.plain(),
        IdError::TooLong(_) => ID_TOO_LONG.refuse(&[&error]),
    })
}

/// The version that the client saw; an update without one is refused.
pub(crate) fn version(wire: Option<&v1::Version>) -> Result<Version, Refusal> {
    match wire {
        Some(wire) => Ok(Version(wire.index)),
        None => Err(INVALID_ARGUMENT.plain()),
    }
}

/// The spec that a request must carry, if it is not too large.
pub(crate) fn spec<T: Message>(kind: Kind, wire: Option<T>) -> Result<T, Refusal> {
    spec_ref(kind, wire.as_ref())?;
    wire.ok_or_else(|| INVALID_ARGUMENT.plain())
}

/// The same, to look at.
pub(crate) fn spec_ref<T: Message>(kind: Kind, wire: Option<&T>) -> Result<&T, Refusal> {
    let spec = wire.ok_or_else(|| INVALID_ARGUMENT.plain())?;
    let bytes = spec.encoded_len();
    if bytes > SPEC_BYTES_MAX {
        return Err(SPEC_TOO_LARGE.refuse(&[&kind, &bytes, &SPEC_BYTES_MAX]));
    }
    Ok(spec)
}

/// Says that there is no such object.
pub(crate) fn not_found(kind: Kind, id: &dyn std::fmt::Display) -> Refusal {
    NOT_FOUND.refuse(&[&kind, id])
}

/// Reads an enum number. A number that this program does not know would be stored and acted on
/// by guess, so it is refused.
pub(crate) fn known<E: TryFrom<i32>>(field: &str, number: i32) -> Result<E, Refusal> {
    E::try_from(number).map_err(|_| UNKNOWN_NUMBER.refuse(&[&field, &number]))
}
