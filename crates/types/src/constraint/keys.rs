//! The keys that a constraint can have, and which of them a wrong one probably meant.

use super::{ENGINE_LABEL, NODE_LABEL, suffix};

/// The keys without a label in them.
const PLAIN: [&str; 6] = [
    "node.id",
    "node.hostname",
    "node.ip",
    "node.role",
    "node.platform.os",
    "node.platform.arch",
];

/// The key that was meant instead of one that does not exist; `None` if it exists.
pub(super) fn meant(key: &str) -> Option<String> {
    let lower = key.to_ascii_lowercase();
    let is_label = suffix(key, NODE_LABEL).is_some() || suffix(key, ENGINE_LABEL).is_some();
    if is_label || PLAIN.contains(&lower.as_str()) {
        return None;
    }
    let (scope, name) = match key.split_once('.') {
        Some((scope, name)) if is_slip_of(scope, "node") => (Some(NODE_LABEL), name),
        Some((scope, name)) if is_slip_of(scope, "engine") => (Some(ENGINE_LABEL), name),
        Some(_) | None => (None, key),
    };
    if scope != Some(ENGINE_LABEL) {
        let whole = format!("node.{}", name.to_ascii_lowercase());
        // `platform` may be missing, `architecture` written out.
        let whole = match whole.as_str() {
            "node.os" => "node.platform.os",
            "node.arch" | "node.architecture" | "node.platform.architecture" => {
                "node.platform.arch"
            }
            "node.host" | "node.name" => "node.hostname",
            whole => whole,
        };
        if let Some(plain) = PLAIN.into_iter().find(|plain| is_slip_of(whole, plain)) {
            return Some(plain.to_owned());
        }
    }
    let label = match name.split_once('.') {
        Some((word, label)) if is_slip_of(&word.to_ascii_lowercase(), "labels") => label,
        Some(_) | None => name,
    };
    let label = if label.is_empty() || is_slip_of(label, "labels") {
        "NAME"
    } else {
        label
    };
    Some(format!("{}{label}", scope.unwrap_or(NODE_LABEL)))
}

/// Whether a word is another one with a letter or two wrong, missing or too many. Short words have
/// no room for that: `ip` is no slip of `id`, nor `zone` of `role`.
fn is_slip_of(word: &str, meant: &str) -> bool {
    let slips = match meant.rsplit('.').next().unwrap_or(meant).len() {
        0..=3 => 0,
        4 => 1,
        _ => 2,
    };
    distance(&word.to_ascii_lowercase(), meant) <= slips
}

/// How many letters have to be inserted, deleted or replaced to get from one word to the other.
/// Keys are short (a spec is bounded), and this is asked for a person.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, char) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for column in 1..=to.len() {
            let replaced = diagonal + usize::from(to[column - 1] != char);
            diagonal = row[column];
            row[column] = replaced.min(row[column - 1] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_key_is_told_the_right_one() {
        for (key, right) in [
            ("node.label.rack", "node.labels.rack"),
            ("node.lables.rack", "node.labels.rack"),
            ("labels.rack", "node.labels.rack"),
            ("label.rack", "node.labels.rack"),
            ("nodes.labels.rack", "node.labels.rack"),
            ("rack", "node.labels.rack"),
            ("node.rack", "node.labels.rack"),
            ("node.zone", "node.labels.zone"),
            ("node.labels.", "node.labels.NAME"),
            ("node.labels", "node.labels.NAME"),
            ("engine.label.rack", "engine.labels.rack"),
            ("engine.rack", "engine.labels.rack"),
            ("node.hostnam", "node.hostname"),
            ("hostname", "node.hostname"),
            ("node.name", "node.hostname"),
            ("node.roles", "node.role"),
            ("role", "node.role"),
            ("node.arch", "node.platform.arch"),
            ("node.platform.architecture", "node.platform.arch"),
            ("node.os", "node.platform.os"),
            ("node.labels.com.example.rack", ""),
            ("Node.Hostname", ""),
            ("engine.labels.rack", ""),
        ] {
            assert_eq!(meant(key).unwrap_or_default(), right, "{key}");
        }
    }
}
