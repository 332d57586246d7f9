//! Values of templates: what is true, how they print, how they compare.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

/// A value. Has no `Debug`, because it may be the content of a secret.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// Yes or no.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// Bytes, usually text.
    Str(Bytes),
    /// Values by name; a name that is not there is an error.
    Map(Arc<BTreeMap<String, Self>>),
    /// Fields with fixed names.
    Struct(Arc<[(&'static str, Self)]>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Str(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Str(text.into())
    }
}

impl From<&BTreeMap<String, String>> for Value {
    fn from(map: &BTreeMap<String, String>) -> Self {
        let values = map
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().into()));
        Self::Map(Arc::new(values.collect()))
    }
}

impl Value {
    /// The kind, for errors.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Str(_) => "a string",
            Self::Map(_) => "a map",
            Self::Struct(_) => "a structure",
        }
    }

    /// Whether `if` takes it for true: anything but false, zero and empty.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Str(value) => !value.is_empty(),
            Self::Map(value) => !value.is_empty(),
            Self::Struct(_) => true,
        }
    }

    /// A field or entry.
    pub(super) fn field(&self, name: &str) -> Result<Self, String> {
        match self {
            Self::Struct(fields) => {
                let found = fields.iter().find(|(field, _)| *field == name);
                found.map(|(_, value)| value.clone()).ok_or_else(|| {
                    let known: Vec<&str> = fields.iter().map(|(field, _)| *field).collect();
                    format!("there is no field {name}; there are {}", known.join(", "))
                })
            }
            Self::Map(entries) => {
                let found = entries.get(name).cloned();
                found.ok_or_else(|| format!("map has no entry for key {name:?}"))
            }
            Self::Bool(_) | Self::Int(_) | Self::Float(_) | Self::Str(_) => {
                Err(format!("can't evaluate field {name} in {}", self.kind()))
            }
        }
    }

    /// How many bytes a function that reads the value looks at, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Bool(_) | Self::Int(_) | Self::Float(_) => 8,
            Self::Str(text) => text.len(),
            Self::Map(entries) => {
                let entry = |(key, value): (&String, &Self)| key.len() + value.bytes();
                entries.iter().map(entry).sum()
            }
            Self::Struct(fields) => fields.iter().map(|(_, value)| value.bytes()).sum(),
        }
    }

    /// Appends the value as Go's `%v` shows it.
    pub(super) fn print(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Self::Int(value) => out.extend_from_slice(value.to_string().as_bytes()),
            Self::Float(value) => out.extend_from_slice(float(*value).as_bytes()),
            Self::Str(text) => out.extend_from_slice(text),
            Self::Map(entries) => {
                out.extend_from_slice(b"map[");
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push(b' ');
                    }
                    out.extend_from_slice(key.as_bytes());
                    out.push(b':');
                    value.print(out);
                }
                out.push(b']');
            }
            Self::Struct(fields) => {
                out.push(b'{');
                for (index, (_, value)) in fields.iter().enumerate() {
                    if index > 0 {
                        out.push(b' ');
                    }
                    value.print(out);
                }
                out.push(b'}');
            }
        }
    }

    /// Whether two values are equal; those of different kinds cannot be compared.
    pub(super) fn equals(&self, other: &Self) -> Result<bool, String> {
        match (self, other) {
            (Self::Bool(one), Self::Bool(two)) => Ok(one == two),
            _ => self.order(other).map(Ordering::is_eq),
        }
    }

    /// Which of two values comes first. Numbers that are no numbers come nowhere: Go says false to
    /// every comparison with them, but none can be written as a constant.
    pub(super) fn order(&self, other: &Self) -> Result<Ordering, String> {
        match (self, other) {
            (Self::Int(one), Self::Int(two)) => Ok(one.cmp(two)),
            (Self::Float(one), Self::Float(two)) => Ok(one.total_cmp(two)),
            (Self::Str(one), Self::Str(two)) => Ok(one.cmp(two)),
            _ => Err(format!(
                "incompatible types for comparison: {} and {}",
                self.kind(),
                other.kind()
            )),
        }
    }
}

/// A float as Go's `%v` shows it: the shortest digits that mean the same number, with an exponent
/// when it is below -4 or above 20.
pub(super) fn float(value: f64) -> String {
    let text = format!("{value:e}");
    let Some((mantissa, exponent)) = text.split_once('e') else {
        return text;
    };
    match exponent.parse::<i32>() {
        Ok(exponent @ ..-4) => format!("{mantissa}e-{:02}", exponent.abs()),
        Ok(exponent @ 21..) => format!("{mantissa}e+{exponent:02}"),
        Ok(_) | Err(_) => format!("{value}"),
    }
}
