//! The `.proto` files against what is made from them and against what they are made after.
//!
//! Owns the compilation of the `.proto` files, which no other crate and no build script does.
#![allow(clippy::unwrap_used)]
#![allow(
    clippy::disallowed_methods,
    reason = "reads sources, and rewrites generated ones when asked to by UPDATE_CODEGEN"
)]

mod generate;
mod tables;

use std::path::{Path, PathBuf};

use prost_reflect::{DynamicMessage, MethodDescriptor};

/// The files whose packages are checked in; everything else they import is an input only.
const PROTOS: [&str; 15] = [
    "raftpb/raft.proto",
    "swarmkit/ca.proto",
    "swarmkit/control.proto",
    "swarmkit/dispatcher.proto",
    "swarmkit/health.proto",
    "swarmkit/logbroker.proto",
    "swarmkit/objects.proto",
    "swarmkit/raft.proto",
    "swarmkit/resource.proto",
    "swarmkit/snapshot.proto",
    "swarmkit/specs.proto",
    "swarmkit/types.proto",
    "swarmkit/watch.proto",
    "swarmkit_rs/explain.proto",
    "swarmkit_rs/identity.proto",
];

/// Full name and number of the method option which says who may call a method.
const AUTHORIZATION_OPTION: (&str, u32) = ("swarmkit_rs.options.tls_authorization", 73_626_345);

fn compile() -> protox::Compiler {
    let mut compiler = protox::Compiler::new([proto_dir()]).unwrap();
    // Source info carries the comments, which become the documentation of the Rust items.
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(PROTOS).unwrap();
    compiler
}

fn proto_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("proto")
}

/// Role names and the insecure mark of one method.
fn authorization(method: &MethodDescriptor) -> (Vec<String>, bool) {
    let (name, number) = AUTHORIZATION_OPTION;
    let option = method.parent_pool().get_extension_by_name(name).unwrap();
    assert_eq!(option.number(), number);
    let options: DynamicMessage = method.options();
    let path = method.full_name();
    assert!(
        options.has_extension(&option),
        "{path} does not say who may call it"
    );

    let rule = options.get_extension(&option);
    let rule = rule.as_message().unwrap();
    let roles = rule.get_field_by_name("roles").unwrap();
    let roles: Vec<String> = roles
        .as_list()
        .unwrap()
        .iter()
        .map(|role| role.as_str().unwrap().to_owned())
        .collect();
    let insecure = rule
        .get_field_by_name("insecure")
        .unwrap()
        .as_bool()
        .unwrap();
    assert_eq!(
        roles.is_empty(),
        insecure,
        "{path} must name roles or be insecure, not both"
    );
    (roles, insecure)
}
