//! What secrets and configs have in common: a name, a payload that never changes, and services
//! that use it (spec 21.8, 21.9).
//!
//! Refuses to own: what an answer shows of a payload (`secret`, `config`).

use std::collections::{BTreeMap, BTreeSet};

use swarm_api::v1;
use swarm_store::{By, Root};
use swarm_types::{Kind, Service};

use crate::filter::has_labels;
use crate::refusal::{Refusal, rules};
use crate::request;

/// Bytes of a name at most (spec 21.1, name rule B).
pub const PAYLOAD_NAME_BYTES_MAX: usize = 64;
/// Bytes of a spec beside its payload at most: 64 KiB, so that a config of the largest size still
/// fits one transaction ([`swarm_store::TRANSACTION_BYTES_MAX`]).
pub const PAYLOAD_ENVELOPE_BYTES_MAX: usize = 64 * 1024;
/// The one template language, by the name of its driver (spec 6.5).
pub const TEMPLATE_DRIVER: &str = "golang";

rules! {
    PAYLOAD_ID_MISSING: InvalidArgument, "{} ID must be provided";
    PAYLOAD_NAME_MISSING: InvalidArgument, "name must be provided";
    PAYLOAD_NAME_INVALID: InvalidArgument,
        "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character \
         must be [a-zA-Z0-9]";
    PAYLOAD_SIZE: InvalidArgument, "{} data must be larger than 0 and less than {} bytes";
    PAYLOAD_ENVELOPE: InvalidArgument,
        "the {} spec has {} bytes beside its data, at most {} are allowed; use fewer labels";
    PAYLOAD_TEMPLATING: InvalidArgument,
        "{} templating driver \"{}\" is not known; use \"golang\", or none for plain data";
    PAYLOAD_CHANGED: InvalidArgument,
        "only updates to Labels are allowed: the {} of a {} cannot change; create another one \
         and refer to that";
    PAYLOAD_NOT_FOUND: NotFound, "could not find {} {}";
    PAYLOAD_IN_USE: InvalidArgument, "{} '{}' is in use by the following {}: {}";
    PAYLOAD_NAME_TAKEN: AlreadyExists, "{} {} already exists";
    PAYLOADS_MISSING: InvalidArgument, "{} not found: {}";
}

/// Reads the id of a secret or config that a request is about.
pub(crate) fn id<T: std::str::FromStr<Err = swarm_types::id::IdError>>(
    kind: Kind,
    text: &str,
) -> Result<T, Refusal> {
    if text.is_empty() {
        return Err(PAYLOAD_ID_MISSING.refuse(&[&kind]));
    }
    request::id(text)
}

/// Letters, digits, hyphens, underscores and dots, with a letter or digit at both ends.
pub(crate) fn check_name(annotations: Option<&v1::Annotations>) -> Result<(), Refusal> {
    let name = crate::validate::name(annotations).as_bytes();
    let (Some(first), Some(last)) = (name.first(), name.last()) else {
        return Err(PAYLOAD_NAME_MISSING.plain());
    };
    let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let has_ends = first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric();
    if name.len() > PAYLOAD_NAME_BYTES_MAX || !has_ends || !name.iter().all(is_inner) {
        return Err(PAYLOAD_NAME_INVALID.plain());
    }
    Ok(())
}

/// Checks the bytes of the payload against the first number that is too large.
pub(crate) fn check_size(kind: Kind, bytes: usize, limit: usize) -> Result<(), Refusal> {
    if bytes == 0 || bytes >= limit {
        return Err(PAYLOAD_SIZE.refuse(&[&kind, &limit]));
    }
    Ok(())
}

/// Checks what surrounds the payload.
pub(crate) fn check_envelope(kind: Kind, spec: usize, data: usize) -> Result<(), Refusal> {
    let bytes = spec.saturating_sub(data);
    if bytes > PAYLOAD_ENVELOPE_BYTES_MAX {
        let limit = PAYLOAD_ENVELOPE_BYTES_MAX;
        return Err(PAYLOAD_ENVELOPE.refuse(&[&kind, &bytes, &limit]));
    }
    Ok(())
}

/// Agents expand one language only; another name would fail each task that uses the object.
pub(crate) fn check_templating(kind: Kind, driver: Option<&v1::Driver>) -> Result<(), Refusal> {
    match driver {
        Some(driver) if driver.name != TEMPLATE_DRIVER => {
            Err(PAYLOAD_TEMPLATING.refuse(&[&kind, &driver.name]))
        }
        Some(_) | None => Ok(()),
    }
}

/// The store would refuse it as well: names are compared without case.
pub(crate) fn refuse_taken_name(kind: Kind, name: &str, is_taken: bool) -> Result<(), Refusal> {
    if is_taken {
        return Err(PAYLOAD_NAME_TAKEN.refuse(&[&kind, &name]));
    }
    Ok(())
}

/// What a removal says where other requests say "not found"; clients know both from SwarmKit.
pub(crate) fn not_found(kind: Kind, id: &dyn std::fmt::Display) -> Refusal {
    PAYLOAD_NOT_FOUND.refuse(&[&kind, id])
}

/// Says which part of an object an update would change beside its labels.
pub(crate) fn changed(kind: Kind, part: &str) -> Refusal {
    PAYLOAD_CHANGED.refuse(&[&part, &kind])
}

/// Whether two payloads are equal, in a time that depends on their lengths alone: an update answers
/// whether a guess of a secret is right, and should not say more than that.
pub(crate) fn is_same_data(stored: &[u8], given: &[u8]) -> bool {
    let difference = stored.iter().zip(given).fold(0, |difference, (a, b)| {
        std::hint::black_box(difference | (a ^ b))
    });
    stored.len() == given.len() && difference == 0
}

/// Refuses if services use the object, and names them.
pub(crate) fn refuse_in_use(root: &Root, kind: Kind, name: &str, by: &By) -> Result<(), Refusal> {
    let services = root.find::<Service>(by)?;
    if services.is_empty() {
        return Ok(());
    }
    let noun = if services.len() == 1 {
        "service"
    } else {
        "services"
    };
    let names: Vec<&str> = services.iter().map(|service| service.spec.name()).collect();
    Err(PAYLOAD_IN_USE.refuse(&[&kind, &name, &noun, &names.join(", ")]))
}

/// Refuses references to objects that do not exist, all of one kind in one refusal.
pub(crate) fn refuse_missing(kind: Kind, missing: &[&str]) -> Result<(), Refusal> {
    let noun = match missing {
        [] => return Ok(()),
        [_] => kind.to_string(),
        [_, _, ..] => format!("{kind}s"),
    };
    Err(PAYLOADS_MISSING.refuse(&[&noun, &missing.join(", ")]))
}

/// The filters of a list: names, beginnings of names and beginnings of ids are alternatives, and
/// the labels must be there beside them. Names are compared without case.
pub(crate) struct Filter<'a> {
    names: BTreeSet<String>,
    name_prefixes: BTreeSet<String>,
    id_prefixes: BTreeSet<String>,
    labels: &'a BTreeMap<String, String>,
}

impl<'a> Filter<'a> {
    pub(crate) fn new(
        names: &[String],
        name_prefixes: &[String],
        id_prefixes: &[String],
        labels: &'a BTreeMap<String, String>,
    ) -> Self {
        let lower = |texts: &[String]| texts.iter().map(|text| text.to_lowercase()).collect();
        Self {
            names: lower(names),
            name_prefixes: lower(name_prefixes),
            id_prefixes: id_prefixes.iter().cloned().collect(),
            labels,
        }
    }

    /// Whether an object with this id and these annotations passes.
    pub(crate) fn admits(&self, id: &str, annotations: Option<&v1::Annotations>) -> bool {
        let name = crate::validate::name(annotations).to_lowercase();
        let is_unset =
            self.names.is_empty() && self.name_prefixes.is_empty() && self.id_prefixes.is_empty();
        let is_chosen = is_unset
            || self.names.contains(&name)
            || begins_with(&self.name_prefixes, &name)
            || begins_with(&self.id_prefixes, id);
        is_chosen && has_labels(self.labels, annotations.map(|own| &own.labels))
    }
}

/// Looks up each beginning of the value, so that the number of prefixes does not matter.
fn begins_with(prefixes: &BTreeSet<String>, value: &str) -> bool {
    (0..=value.len())
        .filter_map(|end| value.get(..end))
        .any(|beginning| prefixes.contains(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Result<(), String> {
        let annotations = v1::Annotations {
            name: name.to_owned(),
            ..Default::default()
        };
        check_name(Some(&annotations)).map_err(|refusal| refusal.message().to_owned())
    }

    #[test]
    fn names_are_letters_digits_and_inner_marks_up_to_64() {
        let at_most = "a".repeat(64);
        for name in ["a", "9", "a.b", "a-_.-b", "A..9", &at_most] {
            assert_eq!(named(name), Ok(()), "{name}");
        }
        let too_long = "a".repeat(65);
        for name in [".a", "a.", "-", "a b", "a/b", "ä", "a\n", &too_long] {
            assert!(
                named(name).unwrap_err().starts_with("invalid name"),
                "{name}"
            );
        }
        assert_eq!(named("").unwrap_err(), "name must be provided");
        assert!(check_name(None).is_err());
    }

    #[test]
    fn a_payload_has_at_least_one_byte_and_less_than_the_limit() {
        let allowed = |bytes| check_size(Kind::Secret, bytes, 10).is_ok();
        assert_eq!([0, 1, 9, 10].map(allowed), [false, true, true, false]);
    }

    #[test]
    fn payloads_are_equal_only_byte_for_byte() {
        assert!(is_same_data(b"abc", b"abc"));
        assert!(is_same_data(b"", b""));
        assert!(!is_same_data(b"abc", b"abd"));
        assert!(!is_same_data(b"abc", b"ab"));
        assert!(!is_same_data(b"ab", b"abc"));
    }

    #[test]
    fn names_and_prefixes_are_alternatives_and_labels_come_on_top() {
        let labels = BTreeMap::from([("a".to_owned(), String::new())]);
        let none = BTreeMap::new();
        let texts = |values: &[&str]| -> Vec<String> {
            values.iter().map(|value| (*value).to_owned()).collect()
        };
        let object = |name: &str, label: Option<&str>| v1::Annotations {
            name: name.to_owned(),
            labels: label
                .map(|key| (key.to_owned(), "1".to_owned()))
                .into_iter()
                .collect(),
            ..Default::default()
        };
        let filter = |names: &[&str], prefixes: &[&str], ids: &[&str], with_labels| {
            let labels = if with_labels { &labels } else { &none };
            Filter::new(&texts(names), &texts(prefixes), &texts(ids), labels)
        };
        let either = filter(&["DB"], &["we"], &["x1"], false);
        assert!(either.admits("y", Some(&object("db", None))));
        assert!(either.admits("y", Some(&object("Web", None))));
        assert!(either.admits("x12", Some(&object("other", None))));
        assert!(!either.admits("y", Some(&object("other", None))));
        assert!(filter(&[], &[], &[], false).admits("y", None));
        let labelled = filter(&["db"], &[], &[], true);
        assert!(labelled.admits("y", Some(&object("db", Some("a")))));
        assert!(!labelled.admits("y", Some(&object("db", Some("b")))));
        assert!(!labelled.admits("y", Some(&object("other", Some("a")))));
    }
}
