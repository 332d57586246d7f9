use std::sync::Arc;

use super::*;

fn node() -> Node {
    let mut node = Node::new(
        "Node-1".parse().unwrap(),
        v1::NodeSpec {
            annotations: Some(v1::Annotations {
                labels: [
                    ("disk".to_owned(), "SSD".to_owned()),
                    ("Zone".to_owned(), "a*".to_owned()),
                    ("empty".to_owned(), String::new()),
                ]
                .into(),
                ..Default::default()
            }),
            ..Default::default()
        },
    );
    node.status.addr = "10.1.2.3".to_owned();
    node.description = Some(Arc::new(v1::NodeDescription {
        hostname: "web-1".to_owned(),
        platform: Some(v1::Platform {
            architecture: "x86_64".to_owned(),
            os: "linux".to_owned(),
        }),
        engine: Some(v1::EngineDescription {
            labels: [("storage".to_owned(), "overlay2".to_owned())].into(),
            ..Default::default()
        }),
        ..Default::default()
    }));
    node
}

fn check_refused(expressions: &[&str], why: impl Fn(&str) -> ConstraintError) {
    for expression in expressions {
        let part = |index| expression.split("==").nth(index).unwrap_or("").trim();
        let refusal = Constraint::parse(expression).unwrap_err();
        let (key, value) = (why(part(0)), why(part(1)));
        assert!(
            refusal == key || refusal == value,
            "{expression}: {refusal}"
        );
    }
}

#[test]
fn keys_begin_with_a_letter_or_underscore_and_have_two_characters() {
    check_refused(
        &[
            "a == b",
            "1node == b",
            "-node == b",
            "no de == b",
            "@x == b",
            " == b",
            "nöde == b",
        ],
        |part| ConstraintError::Key(part.to_owned()),
    );
    for good in ["ab == b", "_a == b", "A1 == b", "node.labels.a-b_c.d==b"] {
        assert!(Constraint::parse(good).is_ok(), "{good}");
    }
}

#[test]
fn values_are_not_empty_and_keep_to_the_allowed_characters() {
    check_refused(
        &[
            "node.id ==",
            "node.id ==  ",
            "node.id == a,b",
            "node.id == a=b",
            "node.id == {a}",
        ],
        |part| ConstraintError::Value(part.to_owned()),
    );
    for good in [
        ":", "-", "_", "a b", ".", "*", "(", ")", "?", "+", "[", "]", "\\", "^", "$", "|",
    ] {
        let parsed = Constraint::parse(&format!("node.id == {good}")).unwrap();
        assert_eq!(parsed.value(), good);
    }
}

#[test]
fn an_expression_without_an_operator_is_refused() {
    for bad in ["", "node.id", "node.id = a", "node.id ! a", "node.id > a"] {
        assert_eq!(
            Constraint::parse(bad),
            Err(ConstraintError::Operator),
            "{bad}"
        );
    }
    let error = Constraint::parse("node.id").unwrap_err();
    assert_eq!(
        error.to_string(),
        "constraint expected one operator from ==, !="
    );
}

#[test]
fn the_first_equality_splits_even_behind_an_inequality() {
    let error = Constraint::parse("node.id != a == b").unwrap_err();
    assert_eq!(error.to_string(), "key 'node.id != a' is invalid");
    let error = Constraint::parse("node.id != a != b").unwrap_err();
    assert_eq!(error.to_string(), "value 'a != b' is invalid");
}

#[test]
fn parsing_trims_and_displays_in_one_form() {
    let parsed = Constraint::parse("  node.Role!=manager ").unwrap();
    assert_eq!(parsed.to_string(), "node.Role != manager");
    assert_eq!(parsed.operator(), Operator::NotEqual);
    let list = ["node.id==ab".to_owned(), "x".to_owned()];
    assert_eq!(Constraint::parse_all(&list), Err(ConstraintError::Operator));
}

/// Each expression with whether the node of these tests satisfies it.
const MATCHES: &[(&str, bool)] = &[
    ("node.id == node-1", true),
    ("NODE.ID != node-1", false),
    ("node.id == node-2", false),
    ("node.id != node-2", true),
    ("node.hostname == WEB-1", true),
    ("node.hostname == web", false),
    ("node.hostname != web", true),
    ("node.role == worker", true),
    ("node.role == Manager", false),
    ("node.role != manager", true),
    ("node.platform.os == Linux", true),
    ("node.platform.os == windows", false),
    ("node.platform.arch == x86_64", true),
    ("node.platform.arch == amd64", true),
    ("node.platform.arch == X86-64", true),
    ("node.platform.arch != amd64", false),
    ("node.platform.arch == arm64", false),
    ("node.platform.arch != aarch64", true),
    ("node.labels.disk == ssd", true),
    ("Node.Labels.disk == ssd", true),
    ("node.labels.Disk == ssd", false),
    ("node.labels.Disk != ssd", true),
    ("node.labels.disk != ssd", false),
    // Patterns are plain text.
    ("node.labels.disk == s*", false),
    ("node.labels.disk == (ssd|hdd)", false),
    ("node.labels.Zone == a*", true),
    ("node.labels.empty == x", false),
    ("node.labels.empty != x", true),
    ("engine.labels.storage == overlay2", true),
    ("engine.labels.storage == ssd", false),
    ("engine.labels.none != ssd", true),
    ("node.labels. == ssd", false),
    ("node.labels. != ssd", false),
    ("node.unknown == ssd", false),
    ("node.unknown != ssd", false),
    ("node.ip == 10.1.2.3", true),
    ("node.ip != 10.1.2.3", false),
    ("node.ip == ::ffff:10.1.2.3", true),
    ("node.ip == 10.1.2.4", false),
    ("node.ip == 10.1.2.0/24", true),
    ("node.ip != 10.1.2.0/24", false),
    ("node.ip == 10.1.3.0/24", false),
    ("node.ip != 10.1.3.0/24", true),
    ("node.ip == 10.1.2.2/31", true),
    ("node.ip == 10.1.2.4/31", false),
    ("node.ip == 0.0.0.0/0", true),
    ("node.ip == 10.1.2.3/32", true),
    ("node.ip == 10.1.2.3/33", false),
    ("node.ip != 10.1.2.3/33", false),
    ("node.ip == fe80::/10", false),
    ("node.ip != fe80::/10", true),
    ("node.ip == ::/0", false),
    // Malformed addresses match nothing.
    ("node.ip == 10.1.2", false),
    ("node.ip != 10.1.2", false),
    ("node.ip != 10.1.2.0/x", false),
    ("node.ip != 10.1.2.0/", false),
];

#[test]
fn every_key_is_compared_without_case_and_as_a_whole() {
    for (expression, expected) in MATCHES {
        let constraint = Constraint::parse(expression).unwrap();
        assert_eq!(constraint.matches(&node()), *expected, "{expression}");
    }
}

#[test]
fn a_node_that_never_registered_has_empty_texts() {
    let bare = Node::new("n1".parse().unwrap(), v1::NodeSpec::default());
    for (expression, expected) in [
        ("node.hostname == web-1", false),
        ("node.hostname != web-1", true),
        ("node.platform.os != linux", true),
        ("node.platform.arch == x86_64", false),
        ("engine.labels.storage != overlay2", true),
        ("node.labels.disk != ssd", true),
        ("node.ip == 10.1.2.3", false),
        ("node.ip != 10.1.2.3", true),
    ] {
        let constraint = Constraint::parse(expression).unwrap();
        assert_eq!(constraint.matches(&bare), expected, "{expression}");
    }
}

#[test]
fn all_constraints_of_a_list_must_hold() {
    let parse = |list: &[&str]| {
        let list: Vec<String> = list.iter().map(|text| (*text).to_owned()).collect();
        Constraint::parse_all(&list).unwrap()
    };
    assert!(matches_all(&[], &node()));
    let both = parse(&["node.role == worker", "node.labels.disk == ssd"]);
    assert!(matches_all(&both, &node()));
    let one = parse(&["node.role == worker", "node.labels.disk == hdd"]);
    assert!(!matches_all(&one, &node()));
}

#[test]
fn what_a_node_has_is_told_for_explanations() {
    let seen = |expression: &str| {
        let constraint = Constraint::parse(expression).unwrap();
        format!("{:?}", constraint.seen(&node()))
    };
    assert_eq!(seen("node.labels.disk == hdd"), "Value(\"SSD\")");
    assert_eq!(seen("node.labels.rack == hdd"), "NoLabel");
    assert_eq!(seen("node.id == hdd"), "NodeId");
    assert_eq!(seen("node.color == hdd"), "UnknownKey");
}

#[test]
fn an_architecture_goes_by_all_its_names() {
    for (one, other, is_same) in [
        ("x86_64", "amd64", true),
        ("aarch64", "ARM64", true),
        ("armv7l", "arm", true),
        ("i686", "386", true),
        ("ppc64le", "ppc64el", true),
        ("riscv64", "riscv64", true),
        ("x86_64", "386", false),
        ("aarch64", "arm", false),
        ("ppc64le", "ppc64", false),
        ("", "amd64", false),
    ] {
        assert_eq!(is_same_architecture(one, other), is_same, "{one} {other}");
    }
}

#[test]
fn labels_that_no_constraint_can_name_are_known() {
    for (name, value, can) in [
        ("rack", "r1", true),
        ("com.example.disk", "big ssd (new)", true),
        ("my rack", "r1", false),
        ("größe", "1", false),
        ("a/b", "1", false),
        ("a==b", "1", false),
        ("rack", "", false),
        ("rack", " r1", false),
        ("rack", "a,b", false),
    ] {
        assert_eq!(can_name_label(name, value), can, "{name}={value}");
    }
}
