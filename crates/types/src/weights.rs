//! How much nodes prefer a manager (node-and-wire spec 3.5). Owns where an operator says so: a
//! label of the manager's node. Does not own how nodes choose (`swarm-agent-io`).

use swarm_api::v1;

use crate::objects::Node;

/// The label of a manager's node with its weight.
pub const MANAGER_WEIGHT_LABEL: &str = "swarm.manager-weight";
/// The weight of a manager without the label, as in SwarmKit.
pub const MANAGER_WEIGHT_DEFAULT: i64 = 10;
/// Weights are whole numbers from 0, which nodes use only when nothing else answers, to this.
pub const MANAGER_WEIGHT_MAX: i64 = 256;

/// Reads a weight; `None` when it is no whole number or out of range.
pub fn parse(text: &str) -> Option<i64> {
    let weight: i64 = text.parse().ok()?;
    (0..=MANAGER_WEIGHT_MAX).contains(&weight).then_some(weight)
}

/// The text of the label in a node's spec, if it has one.
pub fn label(spec: &v1::NodeSpec) -> Option<&str> {
    let labels = &spec.annotations.as_ref()?.labels;
    labels.get(MANAGER_WEIGHT_LABEL).map(String::as_str)
}

/// The weight of a manager. A label that is no weight was refused at the edge, and counts for
/// nothing here; so does a manager without a node object.
pub fn manager_weight(node: Option<&Node>) -> i64 {
    node.and_then(|node| parse(label(&node.spec)?))
        .unwrap_or(MANAGER_WEIGHT_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_a_whole_number_up_to_256() {
        for (text, expected) in [
            ("0", Some(0)),
            ("256", Some(256)),
            ("257", None),
            ("-1", None),
            ("1.5", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_manager_without_a_usable_label_has_the_default_weight() {
        let node = |label: Option<&str>| {
            let labels = label.map(|text| (MANAGER_WEIGHT_LABEL.to_owned(), text.to_owned()));
            let annotations = v1::Annotations {
                labels: labels.into_iter().collect(),
                ..Default::default()
            };
            let spec = v1::NodeSpec {
                annotations: Some(annotations),
                ..Default::default()
            };
            Node::new("n".parse().unwrap(), spec)
        };
        assert_eq!(manager_weight(None), MANAGER_WEIGHT_DEFAULT);
        assert_eq!(manager_weight(Some(&node(None))), MANAGER_WEIGHT_DEFAULT);
        assert_eq!(
            manager_weight(Some(&node(Some("x")))),
            MANAGER_WEIGHT_DEFAULT
        );
        assert_eq!(manager_weight(Some(&node(Some("0")))), 0);
    }
}
