//! The language of placement constraints: `node.labels.disk == ssd`, and whether a node satisfies
//! one (control-plane spec 16).
//!
//! Owns the syntax and the match against one node. Which nodes are considered, and what follows
//! from a mismatch, is up to the scheduler and the orchestrators.

mod keys;

use std::fmt;
use std::net::IpAddr;

use swarm_api::v1;

use crate::objects::Node;

/// Prefix of keys that name a label which the user gave to a node.
const NODE_LABEL: &str = "node.labels.";
/// Prefix of keys that name a label which the engine of a node reported.
const ENGINE_LABEL: &str = "engine.labels.";
/// Punctuation that a value may contain besides letters, digits and white space. None of it has a
/// meaning: there are no patterns.
const VALUE_PUNCTUATION: &str = ":-_.*()?+[]\\^$|/";

/// How a key is compared with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

impl Operator {
    /// In the order in which they are looked for.
    const ALL: [Self; 2] = [Self::Equal, Self::NotEqual];

    /// As it is written.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
        }
    }

    fn holds(self, is_equal: bool) -> bool {
        match self {
            Self::Equal => is_equal,
            Self::NotEqual => !is_equal,
        }
    }
}

/// One parsed expression. Several of them must all hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Constraint {
    key: String,
    operator: Operator,
    value: String,
}

/// Why an expression was refused. The texts are SwarmKit's; users see them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// The part before the operator is not a name of at least two characters.
    #[error("key '{0}' is invalid")]
    Key(String),
    /// The part after the operator is empty or has a character outside the allowed ones.
    #[error("value '{0}' is invalid")]
    Value(String),
    /// There is no operator.
    #[error("constraint expected one operator from ==, !=")]
    Operator,
}

/// What a node has where a constraint looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen<'a> {
    /// The key names this text, which is empty where the node says nothing.
    Value(&'a str),
    /// The node has no such label, which counts as an empty text.
    NoLabel,
    /// The key names the node's id, which is kept packed and so cannot be lent as a text.
    NodeId,
    /// No such key exists, so no node matches.
    UnknownKey,
}

impl Constraint {
    /// Parses one expression. `==` is looked for first, and the first one splits.
    ///
    /// # Errors
    /// [`ConstraintError`] which repeats the part that is wrong.
    pub fn parse(expression: &str) -> Result<Self, ConstraintError> {
        let (operator, key, value) = Operator::ALL
            .into_iter()
            .find_map(|operator| {
                let (key, value) = expression.split_once(operator.symbol())?;
                Some((operator, key.trim(), value.trim()))
            })
            .ok_or(ConstraintError::Operator)?;
        if !is_key(key) {
            return Err(ConstraintError::Key(key.to_owned()));
        }
        if !is_value(value) {
            return Err(ConstraintError::Value(value.to_owned()));
        }
        Ok(Self {
            key: key.to_owned(),
            operator,
            value: value.to_owned(),
        })
    }

    /// Parses a list, all or nothing.
    ///
    /// # Errors
    /// The first [`ConstraintError`].
    pub fn parse_all(expressions: &[String]) -> Result<Vec<Self>, ConstraintError> {
        expressions
            .iter()
            .map(|expression| Self::parse(expression))
            .collect()
    }

    /// Whether the node satisfies this constraint.
    pub fn matches(&self, node: &Node) -> bool {
        if self.key.eq_ignore_ascii_case("node.ip") {
            return self.matches_address(&node.status.addr);
        }
        if self.key.eq_ignore_ascii_case("node.id") {
            let is_equal = |id: &str| id.eq_ignore_ascii_case(&self.value);
            return self.operator.holds(node.id.as_id().with_str(is_equal));
        }
        if self.key.eq_ignore_ascii_case("node.platform.arch") {
            let own = platform(node).map_or("", |platform| &platform.architecture);
            return self.operator.holds(is_same_architecture(own, &self.value));
        }
        match self.seen(node) {
            Seen::Value(text) => self.operator.holds(text.eq_ignore_ascii_case(&self.value)),
            // The value is never empty, so a missing label is never equal.
            Seen::NoLabel => self.operator.holds(false),
            // Compared above; a key that does not exist matches nothing.
            Seen::NodeId | Seen::UnknownKey => false,
        }
    }

    /// What the node has where this constraint looks; for explanations.
    pub fn seen<'a>(&self, node: &'a Node) -> Seen<'a> {
        let key = self.key.as_str();
        if let Some(label) = suffix(key, NODE_LABEL) {
            return node_label(node, label).map_or(Seen::NoLabel, Seen::Value);
        }
        if let Some(label) = suffix(key, ENGINE_LABEL) {
            return engine_label(node, label).map_or(Seen::NoLabel, Seen::Value);
        }
        match key.to_ascii_lowercase().as_str() {
            "node.id" => Seen::NodeId,
            "node.hostname" => Seen::Value(node.hostname()),
            "node.ip" => Seen::Value(&node.status.addr),
            "node.role" => Seen::Value(role_name(node.role)),
            "node.platform.os" => Seen::Value(platform(node).map_or("", |platform| &platform.os)),
            "node.platform.arch" => {
                Seen::Value(platform(node).map_or("", |platform| &platform.architecture))
            }
            _ => Seen::UnknownKey,
        }
    }

    /// The key as it was written.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The key that was probably meant, of a constraint that no node can match because there is no
    /// such key.
    pub fn meant(&self) -> Option<String> {
        keys::meant(&self.key)
    }

    /// The operator.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The value as it was written.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// One address, or a network in CIDR form. A malformed value matches nothing, not even with
    /// `!=`.
    fn matches_address(&self, seen: &str) -> bool {
        let seen = parse_address(seen);
        let is_equal = if let Some((network, bits)) = parse_network(&self.value) {
            seen.is_some_and(|seen| contains(network, bits, seen))
        } else if let Some(wanted) = parse_address(&self.value) {
            seen == Some(wanted)
        } else {
            return false;
        };
        self.operator.holds(is_equal)
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.key, self.operator.symbol(), self.value)
    }
}

/// Whether the node satisfies all of them.
pub fn matches_all(constraints: &[Constraint], node: &Node) -> bool {
    constraints
        .iter()
        .all(|constraint| constraint.matches(node))
}

/// The value of a label that the user gave to a node.
pub fn node_label<'a>(node: &'a Node, label: &str) -> Option<&'a str> {
    let labels = &node.spec.annotations.as_ref()?.labels;
    labels.get(label).map(String::as_str)
}

/// The value of a label that the engine of a node reported.
pub fn engine_label<'a>(node: &'a Node, label: &str) -> Option<&'a str> {
    let engine = node.description.as_ref()?.engine.as_ref()?;
    engine.labels.get(label).map(String::as_str)
}

/// Whether some constraint can ask for this label of a node with this value. Labels that came from
/// elsewhere may have a name or value which the language cannot write.
pub fn can_name_label(name: &str, value: &str) -> bool {
    let expression = format!("{NODE_LABEL}{name}=={value}");
    Constraint::parse(&expression)
        .is_ok_and(|parsed| suffix(&parsed.key, NODE_LABEL) == Some(name) && parsed.value == value)
}

/// Whether two names mean the same architecture: what the kernel, the image format and
/// distributions call it, in any case.
pub fn is_same_architecture(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other) || architecture(one) == architecture(other)
}

/// The name of an architecture in the image format, where a synonym of it is known.
fn architecture(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "x86_64" | "x86-64" | "x64" => "amd64",
        "aarch64" | "arm64v8" | "armv8" | "armv8l" => "arm64",
        "i386" | "i486" | "i586" | "i686" | "x86" | "x86_32" => "386",
        "armhf" | "armel" | "armv5l" | "armv6l" | "armv7l" | "armv7" | "arm32" => "arm",
        "ppc64el" | "powerpc64le" => "ppc64le",
        "powerpc64" => "ppc64",
        "mips64el" => "mips64le",
        "mipsel" => "mipsle",
        "loongarch64" => "loong64",
        _ => return name,
    }
    .to_owned()
}

/// The part of a key after a prefix which is compared without case; `None` when nothing follows.
pub fn suffix<'a>(key: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, tail) = key.split_at_checked(prefix.len())?;
    (head.eq_ignore_ascii_case(prefix) && !tail.is_empty()).then_some(tail)
}

fn role_name(role: v1::NodeRole) -> &'static str {
    match role {
        v1::NodeRole::Worker => "worker",
        v1::NodeRole::Manager => "manager",
    }
}

fn platform(node: &Node) -> Option<&v1::Platform> {
    node.description.as_ref()?.platform.as_ref()
}

fn is_key(key: &str) -> bool {
    let mut bytes = key.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    first
        && key.len() >= 2
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_value(value: &str) -> bool {
    !value.is_empty()
        && value.chars().all(|char| {
            char.is_ascii_alphanumeric()
                || char.is_ascii_whitespace()
                || VALUE_PUNCTUATION.contains(char)
        })
}

/// An IPv4 address that was written as an IPv6 one is the same address.
fn parse_address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical())
}

fn parse_network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    let is_number = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
    let bits = bits
        .parse()
        .ok()
        .filter(|bits| is_number && *bits <= bits_max)?;
    Some((address, bits))
}

fn contains(network: IpAddr, bits: u8, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let shift = 32 - u32::from(bits);
            let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let shift = 128 - u32::from(bits);
            let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests;
