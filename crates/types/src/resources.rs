//! Generic resources: what a node offers besides processors and memory, as amounts (`ssd=4`) or as
//! named units (`gpu=uuid1`), and the arithmetic of claiming them (control-plane spec 17).
//!
//! Owns the text form and the arithmetic on lists. Who claims what and when is the scheduler's.

use std::collections::{BTreeMap, BTreeSet};

use swarm_api::v1;
use v1::generic_resource::Resource;

/// A list of resources, as node descriptions and tasks carry it.
pub type Resources = Vec<v1::GenericResource>;

/// Longest text form that is read, in bytes; a bound on hostile input.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;

/// Why a text, or a reservation, was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// Longer than [`TEXT_BYTES_MAX`].
    #[error("generic resources take at most {TEXT_BYTES_MAX} bytes, these have {0}; name fewer")]
    TooLong(usize),
    /// There is a line break.
    #[error("generic resources are one line of kind=value pairs; remove the line break")]
    LineBreak,
    /// A quoted field does not end, or text follows its end.
    #[error(
        "a quote in generic resources does not end before the next comma; write \"kind=value\""
    )]
    Quote,
    /// A term is not of the form kind=value.
    #[error("generic resource \"{0}\" is not of the form kind=value")]
    Pair(String),
    /// An amount below zero.
    #[error("generic resource {kind} has the negative amount {amount}; use 0 or more")]
    Negative {
        /// The kind.
        kind: String,
        /// The amount.
        amount: i64,
    },
    /// One kind with both amounts and names, or with several amounts.
    #[error(
        "generic resource {0} must be either one amount ({0}=4) or a set of names ({0}=a,{0}=b)"
    )]
    Mixed(String),
    /// A task reserves by name, or has an entry that is neither amount nor name.
    #[error("generic resource {0} must be reserved as an amount ({0}=1), not by name")]
    NotDiscrete(String),
}

/// An amount of a kind.
pub fn discrete(kind: impl Into<String>, value: i64) -> v1::GenericResource {
    v1::GenericResource {
        resource: Some(Resource::DiscreteResourceSpec(
            v1::DiscreteGenericResource {
                kind: kind.into(),
                value,
            },
        )),
    }
}

/// One named unit of a kind.
pub fn named(kind: impl Into<String>, value: impl Into<String>) -> v1::GenericResource {
    v1::GenericResource {
        resource: Some(Resource::NamedResourceSpec(v1::NamedGenericResource {
            kind: kind.into(),
            value: value.into(),
        })),
    }
}

/// The kind of an entry; empty for a message without content.
pub fn kind(resource: &v1::GenericResource) -> &str {
    match &resource.resource {
        Some(Resource::NamedResourceSpec(unit)) => &unit.kind,
        Some(Resource::DiscreteResourceSpec(amount)) => &amount.kind,
        None => "",
    }
}

/// Reads `kind=value,kind=value`. One integer makes an amount; anything else makes named units.
///
/// # Errors
/// [`ResourceError`], which names the term or the kind.
pub fn parse(text: &str) -> Result<Resources, ResourceError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(ResourceError::TooLong(text.len()));
    }
    let mut by_kind: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for field in fields(text)? {
        let (kind, value) = pair(&field)?;
        by_kind.entry(kind).or_default().push(value);
    }
    let mut resources = Resources::new();
    for (kind, values) in by_kind {
        read_kind(&kind, values, &mut resources)?;
    }
    Ok(resources)
}

fn read_kind(
    kind: &str,
    values: Vec<String>,
    resources: &mut Resources,
) -> Result<(), ResourceError> {
    let amounts: Vec<i64> = values
        .iter()
        .filter_map(|value| value.parse().ok())
        .collect();
    match (amounts.as_slice(), values.len()) {
        ([], _) => {
            let units: BTreeSet<String> = values.into_iter().collect();
            resources.extend(units.into_iter().map(|value| named(kind, value)));
        }
        ([amount], 1) if *amount < 0 => {
            return Err(ResourceError::Negative {
                kind: kind.to_owned(),
                amount: *amount,
            });
        }
        ([amount], 1) => resources.push(discrete(kind, *amount)),
        ([_, ..], _) => return Err(ResourceError::Mixed(kind.to_owned())),
    }
    Ok(())
}

fn pair(field: &str) -> Result<(String, String), ResourceError> {
    let refuse = || ResourceError::Pair(field.to_owned());
    let (kind, value) = field.split_once('=').ok_or_else(refuse)?;
    let (kind, value) = (kind.trim(), value.trim());
    if kind.is_empty() || value.is_empty() || value.contains('=') {
        return Err(refuse());
    }
    Ok((kind.to_owned(), value.to_owned()))
}

/// The fields of one CSV record: a field in quotes may contain commas, and a doubled quote in it
/// stands for one.
fn fields(text: &str) -> Result<Vec<String>, ResourceError> {
    if text.trim_end_matches(['\r', '\n']).contains(['\r', '\n']) {
        return Err(ResourceError::LineBreak);
    }
    let mut fields = Vec::new();
    let mut rest = text.trim_end_matches(['\r', '\n']);
    if rest.trim().is_empty() {
        return Ok(fields);
    }
    loop {
        let (field, tail) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => plain_field(rest)?,
        };
        fields.push(field);
        match tail {
            Some(tail) => rest = tail,
            None => return Ok(fields),
        }
    }
}

fn plain_field(text: &str) -> Result<(String, Option<&str>), ResourceError> {
    let (field, tail) = match text.split_once(',') {
        Some((field, tail)) => (field, Some(tail)),
        None => (text, None),
    };
    if field.contains('"') {
        return Err(ResourceError::Quote);
    }
    Ok((field.to_owned(), tail))
}

fn quoted_field(text: &str) -> Result<(String, Option<&str>), ResourceError> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, tail) = rest.split_once('"').ok_or(ResourceError::Quote)?;
        field.push_str(part);
        if let Some(tail) = tail.strip_prefix('"') {
            field.push('"');
            rest = tail;
        } else if tail.is_empty() {
            return Ok((field, None));
        } else {
            let tail = tail.strip_prefix(',').ok_or(ResourceError::Quote)?;
            return Ok((field, Some(tail)));
        }
    }
}

/// Checks what a task reserves: amounts only, none below zero.
///
/// # Errors
/// [`ResourceError::NotDiscrete`] or [`ResourceError::Negative`] with the kind.
pub fn check_reservation(reservation: &[v1::GenericResource]) -> Result<(), ResourceError> {
    for entry in reservation {
        match &entry.resource {
            Some(Resource::DiscreteResourceSpec(amount)) if amount.value < 0 => {
                return Err(ResourceError::Negative {
                    kind: amount.kind.clone(),
                    amount: amount.value,
                });
            }
            Some(Resource::DiscreteResourceSpec(_)) => {}
            Some(Resource::NamedResourceSpec(_)) | None => {
                return Err(ResourceError::NotDiscrete(kind(entry).to_owned()));
            }
        }
    }
    Ok(())
}

/// How much of a kind a list has. The type of its first entry decides: an amount counts as such,
/// named units are counted one by one.
pub fn amount_of(available: &[v1::GenericResource], wanted: &str) -> i64 {
    let mut entries = available.iter().filter(|entry| kind(entry) == wanted);
    match entries.next().map(|entry| &entry.resource) {
        Some(Some(Resource::DiscreteResourceSpec(amount))) => amount.value,
        Some(Some(Resource::NamedResourceSpec(_))) => i64::try_from(entries.count())
            .unwrap_or(i64::MAX)
            .saturating_add(1),
        Some(None) | None => 0,
    }
}

/// Whether there is enough for one entry of a reservation. A kind of which there is no entry is
/// never enough, not even for zero.
///
/// # Errors
/// [`ResourceError::NotDiscrete`] if the entry is not an amount.
pub fn is_enough(
    available: &[v1::GenericResource],
    wanted: &v1::GenericResource,
) -> Result<bool, ResourceError> {
    let Some(Resource::DiscreteResourceSpec(wanted)) = &wanted.resource else {
        return Err(ResourceError::NotDiscrete(kind(wanted).to_owned()));
    };
    let is_known = available.iter().any(|entry| kind(entry) == wanted.kind);
    Ok(is_known && amount_of(available, &wanted.kind) >= wanted.value)
}

/// Takes a reservation out of what is available and returns what was taken: an amount, or the first
/// units by order. What is not there is not taken, and an amount of zero leaves no record.
pub fn claim(available: &mut Resources, reservation: &[v1::GenericResource]) -> Resources {
    let mut taken = Resources::new();
    for entry in reservation {
        if let Some(Resource::DiscreteResourceSpec(wanted)) = &entry.resource
            && wanted.value > 0
            && is_enough(available, entry) == Ok(true)
        {
            claim_one(available, wanted, &mut taken);
        }
    }
    taken
}

fn claim_one(
    available: &mut Resources,
    wanted: &v1::DiscreteGenericResource,
    taken: &mut Resources,
) {
    let mut missing = wanted.value;
    available.retain_mut(|entry| match &mut entry.resource {
        Some(Resource::DiscreteResourceSpec(amount)) if amount.kind == wanted.kind => {
            if missing > 0 {
                amount.value -= missing;
                taken.push(discrete(wanted.kind.clone(), missing));
                missing = 0;
            }
            amount.value > 0
        }
        Some(Resource::NamedResourceSpec(unit)) if unit.kind == wanted.kind && missing > 0 => {
            taken.push(named(wanted.kind.clone(), unit.value.clone()));
            missing -= 1;
            false
        }
        Some(Resource::DiscreteResourceSpec(_) | Resource::NamedResourceSpec(_)) | None => true,
    });
}

/// Takes exactly these entries, as a task that runs already has them; what is not there is ignored.
pub fn consume(available: &mut Resources, assigned: &[v1::GenericResource]) {
    for entry in assigned {
        match &entry.resource {
            Some(Resource::DiscreteResourceSpec(amount)) => {
                let mut left = amount.value.max(0);
                available.retain_mut(|entry| match &mut entry.resource {
                    Some(Resource::DiscreteResourceSpec(have)) if have.kind == amount.kind => {
                        let used = left.min(have.value);
                        left -= used;
                        have.value -= used;
                        have.value > 0
                    }
                    Some(Resource::DiscreteResourceSpec(_) | Resource::NamedResourceSpec(_))
                    | None => true,
                });
            }
            Some(Resource::NamedResourceSpec(_)) => available.retain(|have| have != entry),
            None => {}
        }
    }
}

/// Gives back what a task had, then makes the list agree with what the node describes: a kind that
/// is gone or changed its type is replaced by the description's, an amount above the described one
/// is cut to it, unknown units are dropped.
pub fn reclaim(
    available: &mut Resources,
    assigned: &[v1::GenericResource],
    described: &[v1::GenericResource],
) {
    for entry in assigned {
        give_back(available, entry);
    }
    sanitise(available, described);
}

fn give_back(available: &mut Resources, entry: &v1::GenericResource) {
    match &entry.resource {
        Some(Resource::DiscreteResourceSpec(returned)) => {
            for have in available.iter_mut() {
                if let Some(Resource::DiscreteResourceSpec(have)) = &mut have.resource
                    && have.kind == returned.kind
                {
                    have.value = have.value.saturating_add(returned.value);
                    return;
                }
            }
            available.push(entry.clone());
        }
        Some(Resource::NamedResourceSpec(_)) if !available.contains(entry) => {
            available.push(entry.clone());
        }
        Some(Resource::NamedResourceSpec(_)) | None => {}
    }
}

fn sanitise(available: &mut Resources, described: &[v1::GenericResource]) {
    let mut replaced: BTreeSet<String> = BTreeSet::new();
    let mut result = Resources::new();
    for entry in available.iter() {
        let kind = kind(entry);
        let mut of_kind = described.iter().filter(|other| self::kind(other) == kind);
        match (
            &entry.resource,
            of_kind.clone().next().map(|first| &first.resource),
        ) {
            (
                Some(Resource::DiscreteResourceSpec(have)),
                Some(Some(Resource::DiscreteResourceSpec(most))),
            ) => result.push(discrete(kind, have.value.min(most.value))),
            (Some(Resource::NamedResourceSpec(_)), Some(Some(Resource::NamedResourceSpec(_)))) => {
                if of_kind.any(|other| other == entry) {
                    result.push(entry.clone());
                }
            }
            (Some(_), Some(Some(_))) => {
                if replaced.insert(kind.to_owned()) {
                    result.extend(of_kind.cloned());
                }
            }
            (None, _) | (_, Some(None) | None) => {}
        }
    }
    *available = result;
}

/// Whether a list still has what a task was given: the same kind in the same form, at least the
/// amount, or exactly the unit.
pub fn has_resource(available: &[v1::GenericResource], wanted: &v1::GenericResource) -> bool {
    available
        .iter()
        .any(|entry| match (&entry.resource, &wanted.resource) {
            (
                Some(Resource::DiscreteResourceSpec(have)),
                Some(Resource::DiscreteResourceSpec(wanted)),
            ) => have.kind == wanted.kind && wanted.value <= have.value,
            (
                Some(Resource::NamedResourceSpec(have)),
                Some(Resource::NamedResourceSpec(wanted)),
            ) => have == wanted,
            (Some(_), Some(_)) | (None, _) | (_, None) => false,
        })
}

/// What executors export: `DOCKER_RESOURCE_<KIND>` with the values joined by commas, by kind.
pub fn environment(assigned: &[v1::GenericResource]) -> Vec<(String, String)> {
    let mut by_kind: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for entry in assigned {
        let value = match &entry.resource {
            Some(Resource::NamedResourceSpec(unit)) => unit.value.clone(),
            Some(Resource::DiscreteResourceSpec(amount)) => amount.value.to_string(),
            None => continue,
        };
        let name = format!("DOCKER_RESOURCE_{}", kind(entry).to_uppercase());
        by_kind.entry(name).or_default().push(value);
    }
    by_kind
        .into_iter()
        .map(|(name, values)| (name, values.join(",")))
        .collect()
}

/// The text form that [`parse`] reads.
pub fn to_text(resources: &[v1::GenericResource]) -> String {
    let terms: Vec<String> = resources
        .iter()
        .filter_map(|entry| match entry.resource.as_ref()? {
            Resource::NamedResourceSpec(unit) => Some(format!("{}={}", unit.kind, unit.value)),
            Resource::DiscreteResourceSpec(amount) => {
                Some(format!("{}={}", amount.kind, amount.value))
            }
        })
        .collect();
    terms.join(",")
}

#[cfg(test)]
mod tests;
