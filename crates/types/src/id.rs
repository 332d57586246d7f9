//! Object ids: 25 characters of base 36, packed; and the typed wrappers that keep ids of
//! different kinds apart.
//!
//! An id of 25 base-36 digits carries about 129.25 bits, so it does not fit 128 bits. It is kept as
//! a big-endian number of 130 bits, whose order equals the order of the text. Ids that other
//! programs made in another form (tests, old clusters) are kept as shared strings and sort after
//! every canonical id.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Digits in a canonical id.
pub const ID_DIGITS: usize = 25;
/// Longest id that is accepted from outside, in bytes; ours have 25. A bound on hostile input.
pub const ID_BYTES_MAX: usize = 256;

/// Digits that neighbours share: enough that a million objects made in groups of 200 rarely have
/// two groups in one neighbourhood, and so few that the start of an id still tells objects apart.
pub const NEIGHBOUR_DIGITS: usize = 4;

/// Digits in half of what `unpack` divides.
const HALF_DIGITS: usize = 12;
/// Bits of a canonical id beyond 128.
const LOW_BITS: u32 = 2;
/// How many values so many digits have: 36^12, which is below 2^63.
const HALF_VALUES: u128 = 36u128.pow(12);

/// The id of any object. Ordered like its text, canonical ids first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(Repr);

// The variants' order is the sort order.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Repr {
    Canonical(CanonicalId),
    FreeForm(Arc<str>),
}

/// An id of the canonical form, as nearly all are: a plain value. Sorts as ids do.
// The fields are big-endian. The first 64 bits stand alone, because they tell nearly all ids apart
// and the store compares ids all day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CanonicalId {
    high: u64,
    middle: u64,
    low: Low,
}

/// The last two bits of a canonical id. Not a number: an enum has values to spare, in which
/// another one keeps its tag, and so an [`Id`] is no longer than this. A whole word: ids are copied
/// all day, and what was written in pieces is slow to read at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u64)]
enum Low {
    #[default]
    Zero = 0,
    One = 1,
    Two = 2,
    Three = 3,
}

impl Low {
    fn of(number: u128) -> Self {
        match number % 4 {
            0 => Self::Zero,
            1 => Self::One,
            2 => Self::Two,
            _ => Self::Three,
        }
    }
}

impl From<CanonicalId> for Id {
    fn from(id: CanonicalId) -> Self {
        Self(Repr::Canonical(id))
    }
}

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("an id must not be empty")]
    Empty,
    /// The text is longer than [`ID_BYTES_MAX`].
    #[error("an id has at most {ID_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
}

impl Id {
    /// Makes an id from 17 random bytes, as SwarmKit does: the top bit is set so that the number
    /// has at least 26 digits in base 36, and the 25 digits after the first are the id.
    pub fn from_random(mut bytes: [u8; 17]) -> Self {
        bytes[0] |= 0x80;
        let mut digits = [0u8; 27];
        let mut count = 0;
        while bytes.iter().any(|byte| *byte != 0) {
            digits[count] = div_rem_36(&mut bytes);
            count += 1;
        }
        let mut text = [0u8; ID_DIGITS];
        for (index, slot) in text.iter_mut().enumerate() {
            *slot = digit_char(digits[count - 2 - index]);
        }
        Self(pack(&text).expect("25 base-36 digits were written above"))
    }

    /// Whether this id has the canonical form.
    pub fn is_canonical(&self) -> bool {
        self.canonical().is_some()
    }

    /// This id as a plain value, if it has the canonical form.
    pub fn canonical(&self) -> Option<CanonicalId> {
        match self.0 {
            Repr::Canonical(id) => Some(id),
            Repr::FreeForm(_) => None,
        }
    }

    /// The smallest id, for range scans.
    pub fn min() -> Self {
        CanonicalId::default().into()
    }

    /// The canonical ids which begin with `prefix` lie in this closed range; `None` if no
    /// canonical id can begin with it. Free-form ids must be looked at one by one, starting at
    /// [`Id::first_free_form`].
    pub fn prefix_range(prefix: &str) -> Option<(Self, Self)> {
        if prefix.len() > ID_DIGITS || !prefix.bytes().all(is_digit) {
            return None;
        }
        let mut low = [b'0'; ID_DIGITS];
        let mut high = [b'z'; ID_DIGITS];
        low[..prefix.len()].copy_from_slice(prefix.as_bytes());
        high[..prefix.len()].copy_from_slice(prefix.as_bytes());
        Some((Self(pack(&low)?), Self(pack(&high)?)))
    }

    /// A value that sorts at or before every free-form id and after every canonical one.
    pub fn first_free_form() -> Self {
        Self(Repr::FreeForm(Arc::from("")))
    }

    /// Whether the text of this id begins with `prefix`.
    pub fn starts_with(&self, prefix: &str) -> bool {
        self.with_str(|text| text.starts_with(prefix))
    }

    /// An id that sorts near this one: its first [`NEIGHBOUR_DIGITS`] digits, then those of
    /// `fresh`, which still have some 108 random bits. Objects that are made together and worked on
    /// together then lie together in the store. An id that is not canonical has no neighbours:
    /// `fresh` is returned.
    #[must_use]
    pub fn neighbour(&self, fresh: Self) -> Self {
        if !self.is_canonical() || !fresh.is_canonical() {
            return fresh;
        }
        let mut text = [0u8; ID_DIGITS];
        fresh.with_str(|fresh| text.copy_from_slice(fresh.as_bytes()));
        self.with_str(|own| {
            let shared = &own.as_bytes()[..NEIGHBOUR_DIGITS];
            text[..NEIGHBOUR_DIGITS].copy_from_slice(shared);
        });
        pack(&text).map_or(fresh, Self)
    }

    /// Lends the text without allocating.
    pub fn with_str<R>(&self, read: impl FnOnce(&str) -> R) -> R {
        match &self.0 {
            Repr::FreeForm(text) => read(text),
            Repr::Canonical(id) => {
                let buffer = unpack(*id);
                read(std::str::from_utf8(&buffer).expect("base-36 digits are ASCII"))
            }
        }
    }
}

/// Divides the big-endian number in place by 36 and returns the remainder.
fn div_rem_36(bytes: &mut [u8; 17]) -> u8 {
    let mut rest: u32 = 0;
    for byte in bytes.iter_mut() {
        let value = (rest << 8) | u32::from(*byte);
        *byte = u8::try_from(value / 36).expect("rest < 36, so the quotient is below 256");
        rest = value % 36;
    }
    u8::try_from(rest).expect("a remainder by 36 fits a byte")
}

fn digit_char(value: u8) -> u8 {
    if value < 10 {
        b'0' + value
    } else {
        b'a' + value - 10
    }
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit() || byte.is_ascii_lowercase()
}

/// Packs 25 digits; `None` when the text has another form.
fn pack(text: &[u8]) -> Option<Repr> {
    if text.len() != ID_DIGITS {
        return None;
    }
    // 24 digits take 124.1 bits, so the last multiplication alone can pass 128 bits.
    let (front, back) = text[..ID_DIGITS - 1].split_at(HALF_DIGITS);
    let number = u128::from(half_value(front)?) * HALF_VALUES + u128::from(half_value(back)?);
    let last = u128::from(digit_value(text[ID_DIGITS - 1])?);
    let low = (number & u128::from(u64::MAX)) * 36 + last;
    let high = (number >> 64) * 36 + (low >> 64);
    // 36^25 is below 2^130: 66 bits here and 64 in `low`.
    let front = (high << (64 - LOW_BITS)) | ((low & u128::from(u64::MAX)) >> LOW_BITS);
    Some(Repr::Canonical(CanonicalId {
        high: low_64(front >> 64),
        middle: low_64(front),
        low: Low::of(low),
    }))
}

/// The number that at most twelve digits make.
fn half_value(digits: &[u8]) -> Option<u64> {
    let mut number: u64 = 0;
    for byte in digits {
        number = number * 36 + u64::from(digit_value(*byte)?);
    }
    Some(number)
}

fn low_64(value: u128) -> u64 {
    u64::try_from(value & u128::from(u64::MAX)).expect("masked to 64 bits")
}

fn digit_value(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'z' => Some(byte - b'a' + 10),
        _ => None,
    }
}

fn unpack(id: CanonicalId) -> [u8; ID_DIGITS] {
    let front = (u128::from(id.high) << 64) | u128::from(id.middle);
    let back = low_64(front << LOW_BITS) | id.low as u64;
    let front = front >> (64 - LOW_BITS);
    // The last digit first: what is left has 125 bits and fits u128 arithmetic.
    let (quotient_high, rest_high) = div_rem_36_wide(low_64(front >> 64), low_64(front));
    let (quotient_low, last) = div_rem_36_wide(rest_high, back);
    let number = (u128::from(quotient_high) << 64) | u128::from(quotient_low);
    let mut text = [0u8; ID_DIGITS];
    text[ID_DIGITS - 1] = digit_char(u8::try_from(last).expect("below 36"));
    // Two halves of twelve digits fit 64 bits each, whose division is many times cheaper.
    let (front, back) = text[..ID_DIGITS - 1].split_at_mut(HALF_DIGITS);
    let upper = number / HALF_VALUES;
    let halves = [upper, number - upper * HALF_VALUES];
    for (part, value) in [front, back].into_iter().zip(halves) {
        let mut value = low_64(value);
        for slot in part.iter_mut().rev() {
            *slot = digit_char(u8::try_from(value % 36).expect("below 36"));
            value /= 36;
        }
    }
    text
}

/// Divides `high * 2^64 + low` by 36, for a `high` below 36: quotient and remainder.
fn div_rem_36_wide(high: u64, low: u64) -> (u64, u64) {
    // 2^64 is 36 times this, plus 16.
    const QUOTIENT: u64 = ((1u128 << 64) / 36) as u64;
    const REMAINDER: u64 = ((1u128 << 64) % 36) as u64;
    let rest = high * REMAINDER + low % 36;
    (high * QUOTIENT + low / 36 + rest / 36, rest % 36)
}

impl FromStr for Id {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.len() {
            0 => Err(IdError::Empty),
            len if len > ID_BYTES_MAX => Err(IdError::TooLong(len)),
            _ => Ok(Self(
                pack(text.as_bytes()).unwrap_or_else(|| Repr::FreeForm(Arc::from(text))),
            )),
        }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_str(|text| f.pad(text))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where new ids come from. The shell feeds it from the operating system, tests and the simulator
/// from a seed, one stream per loop so that one loop's extra id does not shift another's.
pub trait IdSource {
    /// A fresh id.
    fn next_id(&mut self) -> Id;

    /// 16 bytes for a key. This default follows from an id, which is right for seeded sources; a
    /// source that feeds a real cluster draws them from the operating system's generator.
    fn next_key(&mut self) -> [u8; 16] {
        let mut key = [0; 16];
        self.next_id().with_str(|text| {
            for (index, byte) in text.bytes().enumerate() {
                let slot: &mut u8 = &mut key[index % 16];
                *slot = slot.rotate_left(3) ^ byte;
            }
        });
        key
    }
}

macro_rules! typed_ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Id);

        impl $name {
            /// Wraps an id whose kind the caller knows.
            pub fn new(id: Id) -> Self {
                Self(id)
            }
            /// The id without its kind.
            pub fn as_id(&self) -> &Id {
                &self.0
            }
            /// Reads an id where the wire has a string and an empty one means "none".
            ///
            /// # Errors
            /// When the text is longer than [`ID_BYTES_MAX`].
            pub fn from_wire(text: &str) -> Result<Option<Self>, IdError> {
                if text.is_empty() { Ok(None) } else { text.parse().map(Some) }
            }
        }
        impl From<Id> for $name {
            fn from(id: Id) -> Self {
                Self(id)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                text.parse().map(Self)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

typed_ids! {
    /// The id of a node; the common name of its certificate.
    NodeId,
    /// The id of a service.
    ServiceId,
    /// The id of a task.
    TaskId,
    /// The id of a network.
    NetworkId,
    /// The id of a cluster; the organisation of its certificates.
    ClusterId,
    /// The id of a secret.
    SecretId,
    /// The id of a config.
    ConfigId,
    /// The id of a resource.
    ResourceId,
    /// The id of an extension.
    ExtensionId,
    /// The id of a volume.
    VolumeId,
    /// The id of a dispatcher session.
    SessionId,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn random_bytes_give_25_digits_as_swarmkit_does() {
        // 0x80 then zeros: 2^135 in base 36, computed independently.
        let id = Id::from_random([0; 17]);
        assert_eq!(id.to_string(), "hvy0lj3x0b883f8e30fyp2172");
        assert_eq!(Id::from_random([0xff; 17]).to_string().len(), ID_DIGITS);
        assert!(id.is_canonical());
    }

    #[test]
    fn neighbours_share_a_beginning_and_nothing_else() {
        let (one, two) = (Id::from_random([7; 17]), Id::from_random([0xab; 17]));
        let (own, fresh) = (one.to_string(), two.to_string());
        let neighbour = one.neighbour(two.clone()).to_string();
        assert_eq!(neighbour[..4], own[..4]);
        assert_eq!(neighbour[4..], fresh[4..]);
        assert_ne!(own[..4], fresh[..4], "the test would see nothing");
        let other: Id = "Other".parse().unwrap();
        assert_eq!(other.neighbour(two.clone()), two);
        assert_eq!(one.neighbour(other.clone()), other);
    }

    #[test]
    fn limits_of_outside_ids() {
        assert_eq!("".parse::<Id>(), Err(IdError::Empty));
        assert!("x".repeat(ID_BYTES_MAX).parse::<Id>().is_ok());
        assert_eq!("x".repeat(257).parse::<Id>(), Err(IdError::TooLong(257)));
    }

    #[test]
    fn an_id_takes_24_bytes_also_as_an_option() {
        assert_eq!(size_of::<Id>(), 24);
        assert_eq!(size_of::<Option<TaskId>>(), 24);
    }

    proptest! {
        #[test]
        fn canonical_ids_round_trip_and_sort_like_text(a in "[0-9a-z]{25}", b in "[0-9a-z]{25}") {
            let (x, y): (Id, Id) = (a.parse().unwrap(), b.parse().unwrap());
            prop_assert!(x.is_canonical());
            prop_assert_eq!(&x.to_string(), &a);
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }

        #[test]
        fn free_form_ids_round_trip_and_follow_the_canonical(a in "[A-Z][ -~]{0,40}") {
            let id: Id = a.parse().unwrap();
            prop_assert_eq!(id.to_string(), a);
            prop_assert!(id >= Id::first_free_form());
            prop_assert!("z".repeat(25).parse::<Id>().unwrap() < id);
        }

        #[test]
        fn a_prefix_range_holds_exactly_the_ids_with_the_prefix(
            id in "[0-9a-z]{25}", prefix in "[0-9a-z]{0,3}"
        ) {
            let parsed: Id = id.parse().unwrap();
            let (low, high) = Id::prefix_range(&prefix).unwrap();
            prop_assert_eq!(low <= parsed && parsed <= high, id.starts_with(&prefix));
        }
    }
}
