//! Compares the `.proto` files with `tests/tables/wire.txt`, in both directions.
//!
//! Owns the rendering of descriptors in the form of that file. The file itself comes from the
//! wire specification: a difference is an error in the `.proto` files unless the
//! specification changed.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::prost_types::field_descriptor_proto::Label;
use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor, Syntax,
};

use crate::{authorization, compile};

const WIRE: &str = include_str!("../tables/wire.txt");
const MAIN_PACKAGE: &str = "docker.swarmkit.v1";
const PACKAGES: [&str; 2] = [MAIN_PACKAGE, "raftpb"];

/// Lines by heading.
type Blocks = BTreeMap<String, BTreeSet<String>>;

#[test]
fn protos_equal_the_tables_of_the_specification() {
    let expected = parse(WIRE);
    let found = render(&compile().descriptor_pool());
    let differences = compare(&expected, &found);
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}

#[test]
fn table_lists_each_heading_and_line_once() {
    let blocks = parse(WIRE);
    let lines = WIRE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let kept = blocks.len() + blocks.values().map(BTreeSet::len).sum::<usize>();
    assert_eq!(lines.count(), kept);
    // The numbers of entries in the specification, so that a cut file does not go unseen.
    let count = |kind: &str| blocks.keys().filter(|key| key.starts_with(kind)).count();
    assert_eq!(
        (count("message ") + count("enum "), count("service ")),
        (326, 11)
    );
}

#[test]
fn comparison_reports_both_directions() {
    let expected = parse("message A\n 1 x string\n\nmessage B\n");
    let found = parse("message A\n 1 x bytes\n\nmessage C\n");
    assert_eq!(
        compare(&expected, &found),
        [
            "message A: missing  1 x string",
            "message A: extra    1 x bytes",
            "missing message B",
            "extra   message C",
        ]
    );
}

fn parse(text: &str) -> Blocks {
    let mut blocks = Blocks::new();
    let mut heading = String::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.starts_with(' ') {
            let block = blocks.get_mut(&heading).expect("a line follows a heading");
            block.insert(line.to_owned());
        } else if !line.is_empty() {
            line.clone_into(&mut heading);
            blocks.insert(heading.clone(), BTreeSet::new());
        }
    }
    blocks
}

fn compare(expected: &Blocks, found: &Blocks) -> Vec<String> {
    let mut differences = Vec::new();
    for (heading, lines) in expected {
        let Some(others) = found.get(heading) else {
            differences.push(format!("missing {heading}"));
            continue;
        };
        let missing = lines.difference(others);
        differences.extend(missing.map(|line| format!("{heading}: missing {line}")));
        let extra = others.difference(lines);
        differences.extend(extra.map(|line| format!("{heading}: extra   {line}")));
    }
    let extra = found
        .keys()
        .filter(|heading| !expected.contains_key(*heading));
    differences.extend(extra.map(|heading| format!("extra   {heading}")));
    differences
}

fn render(pool: &DescriptorPool) -> Blocks {
    let mut blocks = Blocks::new();
    for message in pool.all_messages() {
        if PACKAGES.contains(&message.package_name()) && !message.is_map_entry() {
            let heading = format!("message {}", short(message.full_name()));
            blocks.insert(heading, render_message(&message));
        }
    }
    for enumeration in pool.all_enums() {
        if PACKAGES.contains(&enumeration.package_name()) {
            let heading = format!("enum {}", short(enumeration.full_name()));
            blocks.insert(heading, render_enum(&enumeration));
        }
    }
    for service in pool.services() {
        if PACKAGES.contains(&service.package_name()) {
            let heading = format!("service {}", short(service.full_name()));
            blocks.insert(heading, render_service(&service));
        }
    }
    blocks
}

fn render_message(message: &MessageDescriptor) -> BTreeSet<String> {
    message.fields().map(|field| render_field(&field)).collect()
}

fn render_field(field: &FieldDescriptor) -> String {
    let declared = field.field_descriptor_proto();
    let is_message = field.kind().as_message().is_some();
    let mut line = format!(" {} {}", field.number(), field.name());
    assert_ne!(declared.label(), Label::Required, "{}", field.full_name());
    if field.is_list() {
        line.push_str(" repeated");
    } else if field.supports_presence() && !is_message && field.containing_oneof().is_none() {
        line.push_str(" optional");
    }
    line.push(' ');
    line.push_str(&render_type(field));
    if field.is_list() && is_packable(field) && !is_packed(field) {
        line.push_str(" unpacked");
    }
    if declared
        .options
        .as_ref()
        .is_some_and(|options| options.deprecated())
    {
        line.push_str(" deprecated");
    }
    if let Some(oneof) = field.containing_oneof() {
        line.push_str(" oneof=");
        line.push_str(oneof.name());
    }
    line
}

fn render_type(field: &FieldDescriptor) -> String {
    match field.kind().as_message() {
        Some(entry) if field.is_map() => format!(
            "map<{},{}>",
            render_type(&entry.map_entry_key_field()),
            render_type(&entry.map_entry_value_field())
        ),
        _ => short(&format!("{:?}", field.kind())),
    }
}

fn is_packable(field: &FieldDescriptor) -> bool {
    let kind = format!("{:?}", field.kind());
    field.kind().as_message().is_none() && kind != "string" && kind != "bytes"
}

/// Read from the declaration: the descriptor's own answer is settled before options are.
fn is_packed(field: &FieldDescriptor) -> bool {
    let by_default = field.parent_file().syntax() == Syntax::Proto3;
    let options = field.field_descriptor_proto().options.as_ref();
    options
        .and_then(|options| options.packed)
        .unwrap_or(by_default)
}

fn render_enum(enumeration: &EnumDescriptor) -> BTreeSet<String> {
    enumeration
        .values()
        .map(|value| format!(" {} {}", value.number(), value.name()))
        .collect()
}

fn render_service(service: &ServiceDescriptor) -> BTreeSet<String> {
    service
        .methods()
        .map(|method| render_method(&method))
        .collect()
}

fn render_method(method: &MethodDescriptor) -> String {
    let stream = |streams: bool| if streams { "stream " } else { "" };
    let (mut roles, insecure) = authorization(method);
    roles.sort();
    if insecure {
        roles.push("insecure".to_owned());
    }
    format!(
        " {} ({}{}) ({}{}) {}",
        method.name(),
        stream(method.is_client_streaming()),
        short(method.input().full_name()),
        stream(method.is_server_streaming()),
        short(method.output().full_name()),
        roles.join(" ")
    )
}

/// The name as the table writes it.
fn short(full_name: &str) -> String {
    let prefix = format!("{MAIN_PACKAGE}.");
    full_name
        .strip_prefix(&prefix)
        .unwrap_or(full_name)
        .to_owned()
}
