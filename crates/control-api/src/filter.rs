//! List filters: values of one field are alternatives, fields are combined.
//!
//! The first field with values selects through an index; then every field is checked in memory.
//! The second check compares names with case, although the index does not (spec 21.1).

use std::collections::{BTreeMap, BTreeSet};

use swarm_store::By;

/// Values of one field that are looked up in an index, one by one. With more of them one pass over
/// all objects is cheaper, and bounds what a hostile filter can cost.
const INDEX_LOOKUPS_MAX: usize = 64;

/// The values of one field; none means that the field does not matter.
pub(crate) struct OneOf<T>(BTreeSet<T>);

impl<T: Ord> OneOf<T> {
    pub(crate) fn new(values: impl IntoIterator<Item = T>) -> Self {
        Self(values.into_iter().collect())
    }

    /// Whether the field matters.
    pub(crate) fn is_set(&self) -> bool {
        !self.0.is_empty()
    }

    /// Whether an object with this value passes.
    pub(crate) fn admits(&self, value: &T) -> bool {
        self.0.is_empty() || self.0.contains(value)
    }

    /// The look-up for these values; `None` if the field does not matter.
    pub(crate) fn lookup(&self, by: impl Fn(&T) -> Option<By>) -> Option<By> {
        match self.0.len() {
            0 => None,
            1..=INDEX_LOOKUPS_MAX => Some(By::Or(self.0.iter().filter_map(by).collect())),
            _ => Some(By::All),
        }
    }
}

/// Name, id and label filters, which every list has.
pub(crate) struct Common<'a> {
    names: OneOf<&'a str>,
    name_prefixes: OneOf<&'a str>,
    id_prefixes: OneOf<&'a str>,
    labels: &'a BTreeMap<String, String>,
}

impl<'a> Common<'a> {
    pub(crate) fn new(
        names: &'a [String],
        name_prefixes: &'a [String],
        id_prefixes: &'a [String],
        labels: &'a BTreeMap<String, String>,
    ) -> Self {
        Self {
            names: texts(names),
            name_prefixes: texts(name_prefixes),
            id_prefixes: texts(id_prefixes),
            labels,
        }
    }

    /// The first of these fields that can be looked up in an index.
    pub(crate) fn lookup(&self) -> Option<By> {
        let names = self.names.lookup(|name| Some(By::Name((*name).into())));
        names
            .or_else(|| {
                self.name_prefixes
                    .lookup(|prefix| Some(By::NamePrefix((*prefix).into())))
            })
            .or_else(|| {
                self.id_prefixes
                    .lookup(|prefix| Some(By::IdPrefix((*prefix).into())))
            })
    }

    /// Whether an object with this name, id and labels passes. A missing name passes only filters
    /// without names; missing labels pass only filters without labels.
    pub(crate) fn admits(
        &self,
        name: Option<&str>,
        id: &str,
        labels: Option<&BTreeMap<String, String>>,
    ) -> bool {
        let name_passes = match name {
            Some(name) => self.names.admits(&name) && begins_with(&self.name_prefixes, name),
            None => !self.names.is_set() && !self.name_prefixes.is_set(),
        };
        name_passes && begins_with(&self.id_prefixes, id) && has_labels(self.labels, labels)
    }
}

/// A field of texts.
pub(crate) fn texts(values: &[String]) -> OneOf<&str> {
    OneOf::new(values.iter().map(String::as_str))
}

/// Whether every wanted label is there; an empty wanted value matches any value.
pub(crate) fn has_labels(
    wanted: &BTreeMap<String, String>,
    labels: Option<&BTreeMap<String, String>>,
) -> bool {
    let Some(labels) = labels else {
        return wanted.is_empty();
    };
    wanted.iter().all(|(key, value)| {
        labels
            .get(key)
            .is_some_and(|found| value.is_empty() || value == found)
    })
}

/// Looks up each beginning of the value, so that the number of prefixes does not matter.
fn begins_with(prefixes: &OneOf<&str>, value: &str) -> bool {
    !prefixes.is_set()
        || (0..=value.len())
            .filter_map(|end| value.get(..end))
            .any(|beginning| prefixes.0.contains(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_wanted_label_value_matches_any_value_but_not_a_missing_key() {
        let labels = BTreeMap::from([("a".to_owned(), "1".to_owned())]);
        let wanted = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert!(has_labels(&wanted("a", ""), Some(&labels)));
        assert!(has_labels(&wanted("a", "1"), Some(&labels)));
        assert!(!has_labels(&wanted("a", "2"), Some(&labels)));
        assert!(!has_labels(&wanted("b", ""), Some(&labels)));
        assert!(!has_labels(&wanted("a", ""), None));
        assert!(has_labels(&BTreeMap::new(), None));
    }

    #[test]
    fn prefixes_match_whole_characters_and_the_empty_one_matches_all() {
        let field = |values: &[&'static str]| OneOf::new(values.iter().copied());
        assert!(begins_with(&field(&["x", "wé"]), "wéb"));
        assert!(!begins_with(&field(&["wébb", "éb"]), "wéb"));
        assert!(begins_with(&field(&[""]), ""));
        assert!(begins_with(&field(&[]), "anything"));
    }

    #[test]
    fn many_values_are_one_pass_instead_of_many_lookups() {
        let field = |count: usize| OneOf::new(0..count);
        let by = |value: &usize| Some(By::Name(value.to_string()));
        assert!(matches!(field(64).lookup(by), Some(By::Or(all)) if all.len() == 64));
        assert_eq!(field(65).lookup(by), Some(By::All));
        assert_eq!(field(0).lookup(by), None);
    }
}
