//! Pieces of certificates that several modules write: object identifiers, names, times, extensions.
//!
//! Owns no decision about which certificate contains what.

use std::time::Duration;

use der::asn1::{BitString, Utf8StringRef};
use der::asn1::{GeneralizedTime, Ia5String, OctetString, PrintableStringRef, SetOfVec, UtcTime};
use der::oid::{AssociatedOid, ObjectIdentifier};
use der::{Any, Decode as _, Reader as _};
use der::{DateTime, Encode, SliceReader};
use swarm_types::Timestamp;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

/// Object identifiers, by the names of the standards.
pub(crate) mod oids {
    use der::oid::ObjectIdentifier;

    const fn oid(text: &str) -> ObjectIdentifier {
        ObjectIdentifier::new_unwrap(text)
    }

    pub(crate) const EC_PUBLIC_KEY: ObjectIdentifier = oid("1.2.840.10045.2.1");
    pub(crate) const P256: ObjectIdentifier = oid("1.2.840.10045.3.1.7");
    pub(crate) const P384: ObjectIdentifier = oid("1.3.132.0.34");
    pub(crate) const P521: ObjectIdentifier = oid("1.3.132.0.35");
    pub(crate) const RSA: ObjectIdentifier = oid("1.2.840.113549.1.1.1");
    pub(crate) const RSA_SHA256: ObjectIdentifier = oid("1.2.840.113549.1.1.11");
    pub(crate) const RSA_SHA384: ObjectIdentifier = oid("1.2.840.113549.1.1.12");
    pub(crate) const RSA_SHA512: ObjectIdentifier = oid("1.2.840.113549.1.1.13");
    pub(crate) const ECDSA_SHA256: ObjectIdentifier = oid("1.2.840.10045.4.3.2");
    pub(crate) const ECDSA_SHA384: ObjectIdentifier = oid("1.2.840.10045.4.3.3");
    pub(crate) const ECDSA_SHA512: ObjectIdentifier = oid("1.2.840.10045.4.3.4");
    pub(crate) const COMMON_NAME: ObjectIdentifier = oid("2.5.4.3");
    pub(crate) const ORGANIZATION: ObjectIdentifier = oid("2.5.4.10");
    pub(crate) const ORGANIZATIONAL_UNIT: ObjectIdentifier = oid("2.5.4.11");
    pub(crate) const AUTHORITY_KEY_ID: ObjectIdentifier = oid("2.5.29.35");
    pub(crate) const SERVER_AUTH: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.1");
    pub(crate) const CLIENT_AUTH: ObjectIdentifier = oid("1.3.6.1.5.5.7.3.2");
}

/// The first year that a certificate writes in the longer form (RFC 5280, 4.1.2.5).
const GENERALIZED_TIME_FROM: u16 = 2050;

/// A name of one attribute after the other, each in a set of its own, as Go writes it.
pub(crate) fn name(attributes: &[(ObjectIdentifier, &str)]) -> der::Result<RdnSequence> {
    let rdns = attributes.iter().map(|(oid, text)| {
        // Go picks the narrower type if every character fits.
        let value = match PrintableStringRef::new(*text) {
            Ok(printable) => Any::from(printable),
            Err(_) => Any::from(Utf8StringRef::new(*text)?),
        };
        let attribute = AttributeTypeAndValue { oid: *oid, value };
        let mut set = SetOfVec::new();
        set.insert(attribute)?;
        Ok(RelativeDistinguishedName(set))
    });
    rdns.collect::<der::Result<Vec<_>>>().map(RdnSequence)
}

/// A time of a certificate; whole seconds, nothing before 1970.
pub(crate) fn time(at: Timestamp) -> der::Result<Time> {
    let nanos = u64::try_from(at.as_nanos()).unwrap_or(0);
    let whole = Duration::from_secs(Duration::from_nanos(nanos).as_secs());
    if DateTime::from_unix_duration(whole)?.year() < GENERALIZED_TIME_FROM {
        UtcTime::from_unix_duration(whole).map(Time::UtcTime)
    } else {
        GeneralizedTime::from_unix_duration(whole).map(Time::GeneralTime)
    }
}

/// The time of a certificate as ours; far futures become the end of our range.
pub(crate) fn timestamp(time: &Time) -> Timestamp {
    Timestamp::EPOCH.saturating_add(time.to_unix_duration())
}

/// To the nearest whole minute, half of one upwards, as Go rounds.
pub(crate) fn to_minute(at: Timestamp) -> Timestamp {
    const MINUTE: i64 = 60_000_000_000;
    let shifted = at.as_nanos().saturating_add(MINUTE / 2);
    Timestamp::from_nanos(shifted - shifted.rem_euclid(MINUTE))
}

/// An extension of a certificate.
pub(crate) fn extension<T>(content: &T, critical: bool) -> der::Result<Extension>
where
    T: Encode + AssociatedOid,
{
    Ok(Extension {
        extn_id: T::OID,
        critical,
        extn_value: OctetString::new(content.to_der()?)?,
    })
}

/// A DNS name of a certificate.
pub(crate) fn dns_name(text: &str) -> der::Result<GeneralName> {
    Ia5String::new(text).map(GeneralName::DnsName)
}

/// Drops the sign bit, so that twenty random bytes are a positive number of twenty bytes.
pub(crate) fn serial(mut bytes: [u8; 20]) -> der::Result<SerialNumber> {
    bytes[0] &= 0x7f;
    // Zero is no serial number.
    bytes[19] |= u8::from(bytes == [0; 20]);
    SerialNumber::new(&bytes)
}

/// What is signed, the algorithm and the signature, as every signed structure of X.509 is.
pub(crate) fn signed(
    content: &[u8],
    algorithm: &AlgorithmIdentifierOwned,
    signature: &BitString,
) -> der::Result<Vec<u8>> {
    let algorithm = algorithm.to_der()?;
    let signature = signature.to_der()?;
    sequence(&[content, &algorithm, &signature])
}

/// A sequence of parts that are DER already.
pub(crate) fn sequence(parts: &[&[u8]]) -> der::Result<Vec<u8>> {
    tagged(der::Tag::Sequence, parts)
}

/// A constructed value of parts that are DER already.
pub(crate) fn tagged(tag: der::Tag, parts: &[&[u8]]) -> der::Result<Vec<u8>> {
    let content = parts.concat();
    let mut out = der::Header::new(tag, content.len())?.to_der()?;
    out.extend_from_slice(&content);
    Ok(out)
}

/// Splits the content of a constructed value into its parts, each with its head.
pub(crate) fn parts(der: &[u8]) -> der::Result<Vec<&[u8]>> {
    let mut reader = SliceReader::new(der)?;
    der::Header::decode(&mut reader)?;
    let mut parts = Vec::new();
    while !reader.is_finished() {
        parts.push(reader.tlv_bytes()?);
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_rounded_half_up() {
        let check = |seconds: i64, expected: i64| {
            let rounded = to_minute(Timestamp::from_millis(seconds * 1000));
            assert_eq!(rounded, Timestamp::from_millis(expected * 1000));
        };
        check(60, 60);
        check(89, 60);
        check(90, 120);
        check(0, 0);
    }

    #[test]
    fn years_from_2050_take_the_longer_form() {
        // 2050-01-01T00:00:00Z.
        let border = Timestamp::from_millis(2_524_608_000_000);
        let before = border.saturating_sub(Duration::from_secs(1));
        assert!(matches!(time(before).unwrap(), Time::UtcTime(_)));
        assert!(matches!(time(border).unwrap(), Time::GeneralTime(_)));
        assert_eq!(timestamp(&time(border).unwrap()), border);
    }

    #[test]
    fn serial_numbers_are_positive_and_twenty_bytes() {
        let der = serial([0xff; 20]).unwrap().to_der().unwrap();
        assert_eq!(der[..3], [2, 20, 0x7f]);
        assert_eq!(serial([0; 20]).unwrap().as_bytes(), [1]);
    }
}
