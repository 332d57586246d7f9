//! Which crate may use which, held as data.
//!
//! Owns the dependency table of `ARCHITECTURE.md` and the list of what pure crates must not touch.
//! A new edge between two of our crates is a change of this table in a commit of its own.

use std::collections::BTreeMap;

use super::Violation;

const RULE: &str = "edges";
const PREFIX: &str = "swarm-";

/// What a crate is allowed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Decides; cannot reach a clock, a random source, a file, a socket or a runtime.
    Pure,
    /// Touches the world and decides as little as possible.
    Shell,
    /// Tests or measures, and is never part of what ships.
    Tool,
    /// Parses arguments and assembles.
    Program,
}

/// One row of the table. Names of our own crates are without their prefix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    name: &'static str,
    layer: Layer,
    may_use: &'static [&'static str],
}

/// A workspace member as cargo describes it.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest: String,
    pub(crate) features: BTreeMap<String, Vec<String>>,
    pub(crate) dependencies: Vec<Dependency>,
}

#[derive(Clone, Debug)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    pub(crate) purpose: Purpose,
    pub(crate) optional: bool,
    pub(crate) features: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Linked into the library or program, or run by its build.
    Shipped,
    /// Used by tests and benchmarks only.
    Tests,
}

const fn row(name: &'static str, layer: Layer, may_use: &'static [&'static str]) -> Row {
    Row {
        name,
        layer,
        may_use,
    }
}

/// The whole list. What is not here is not allowed; what is here need not be used.
pub(crate) const TABLE: &[Row] = &[
    row("api", Layer::Pure, &[]),
    row("types", Layer::Pure, &["api"]),
    row("store", Layer::Pure, &["api", "types"]),
    row("reconcile", Layer::Pure, &["store", "types"]),
    row("raft", Layer::Pure, &["api"]),
    // Computes with `ring`, which draws keys and nonces itself (ADR 0008).
    row("ca", Layer::Pure, &["api", "reconcile", "store", "types"]),
    row("executor", Layer::Pure, &["api", "types"]),
    row("agent", Layer::Pure, &["api", "executor", "types"]),
    row("allocator", Layer::Pure, LOOP),
    row("scheduler", Layer::Pure, LOOP),
    row("orchestrator", Layer::Pure, LOOP),
    row("dispatcher", Layer::Pure, LOOP),
    row(
        "control-api",
        Layer::Pure,
        &["api", "ca", "reconcile", "store", "types"],
    ),
    row("log-broker", Layer::Pure, &["api", "store", "types"]),
    // Reads what the loops decide from, to say in words why an object is where it is.
    row(
        "explain",
        Layer::Pure,
        &[
            "api",
            "ca",
            "orchestrator",
            "reconcile",
            "scheduler",
            "store",
            "types",
        ],
    ),
    // Composes every loop, so that manager and simulator run the same one (ADR 0004).
    row(
        "leader",
        Layer::Pure,
        &[
            "allocator",
            "api",
            "ca",
            "dispatcher",
            "orchestrator",
            "reconcile",
            "scheduler",
            "store",
            "types",
        ],
    ),
    row("rt", Layer::Shell, &["api", "ca", "types"]),
    row(
        "raft-io",
        Layer::Shell,
        &["api", "raft", "reconcile", "rt", "store", "types"],
    ),
    row(
        "executor-native",
        Layer::Shell,
        &["api", "executor", "rt", "types"],
    ),
    row(
        "agent-io",
        Layer::Shell,
        &["agent", "api", "ca", "executor", "rt", "types"],
    ),
    row(
        "manager",
        Layer::Shell,
        &[
            "api",
            "ca",
            "control-api",
            "dispatcher",
            "explain",
            "leader",
            "log-broker",
            "raft",
            "raft-io",
            "reconcile",
            "rt",
            "scheduler",
            "store",
            "types",
        ],
    ),
    row(
        "node",
        Layer::Shell,
        &[
            "agent-io",
            "api",
            "ca",
            "executor",
            "executor-native",
            "manager",
            "raft-io",
            "rt",
            "types",
        ],
    ),
    row(
        "sim",
        Layer::Tool,
        &[
            "agent",
            "api",
            "ca",
            "control-api",
            "dispatcher",
            "executor",
            "leader",
            "log-broker",
            "raft",
            "reconcile",
            "store",
            "types",
        ],
    ),
    row(
        "bench",
        Layer::Tool,
        &["agent", "api", "reconcile", "scheduler", "store", "types"],
    ),
    row("load", Layer::Tool, &["api", "ca", "types"]),
    row("hello-web", Layer::Program, &[]),
    row(
        "signing-server",
        Layer::Program,
        &["api", "ca", "rt", "types"],
    ),
    row(
        "swarmd",
        Layer::Program,
        &[
            "api",
            "ca",
            "executor",
            "executor-native",
            "hello-web",
            "manager",
            "node",
            "rt",
            // Tests only: real daemons ask the real example.
            "signing-server",
            "types",
        ],
    ),
    row("swarmctl", Layer::Program, &["api", "rt", "types"]),
    row("xtask", Layer::Program, &[]),
];

const LOOP: &[&str] = &["api", "reconcile", "store", "types"];

/// What decisions must not be able to reach, with what to do instead.
const NOT_IN_PURE: &[(&[&str], &str)] = &[
    (
        &[
            "async-std",
            "futures",
            "smol",
            "tokio",
            "tokio-stream",
            "tokio-util",
        ],
        "a decision returns values and wake-up times; the shell that drives it owns the runtime",
    ),
    (
        &[
            "axum",
            "h2",
            "hyper",
            "hyper-util",
            "mio",
            "reqwest",
            "rustls",
            "socket2",
            "tonic",
            "tonic-prost",
            "tower",
        ],
        "a decision takes and returns messages; the shell that drives it owns the network",
    ),
    (
        &["libc", "nix", "procfs", "rustix", "signal-hook"],
        "a decision asks for an effect; the shell that drives it talks to the kernel",
    ),
    (
        &[
            "fjall", "fs2", "memmap2", "redb", "rusqlite", "sled", "tempfile",
        ],
        "a decision takes and returns bytes; the shell that drives it owns the files",
    ),
    (
        &["fastrand", "getrandom", "rand", "uuid"],
        "randomness is an argument: take a seeded generator, which only `swarm-rt` may seed",
    ),
    (
        &["chrono", "jiff", "time"],
        "time is an argument: take `now` from the caller",
    ),
    (
        &["clap", "env_logger", "tracing-subscriber"],
        "programs own their command line and their logs",
    ),
];

/// Dependencies that one crate hides from the others, so that they can be replaced.
const HIDDEN: &[(&str, &str)] = &[
    ("arc-swap", "store"),
    ("imbl", "store"),
    ("protobuf", "raft"),
    ("raft", "raft"),
    ("redb", "agent-io"),
    ("slog", "raft"),
];

/// A feature of ours that brings a gRPC runtime, and the optional dependencies behind it.
const RUNTIME_FEATURE: (&str, &str) = ("api", "grpc");
const BEHIND_RUNTIME_FEATURE: &[&str] = &["tonic", "tonic-prost"];

pub(crate) fn check(packages: &[Package], table: &[Row]) -> Vec<Violation> {
    let mut found = Vec::new();
    for package in packages {
        let Some(row) = table.iter().find(|row| row.name == short(&package.name)) else {
            let text = format!(
                "package `{}` is not in the dependency table; \
                 add a row to TABLE in xtask/src/tidy/edges.rs and a line to ARCHITECTURE.md",
                package.name
            );
            found.push(Violation::of_file(&package.manifest, RULE, text));
            continue;
        };
        let ours = |name: &str| table.iter().any(|row| name == full(row));
        for dependency in &package.dependencies {
            let problem = if ours(&dependency.name) {
                forbidden_edge(row, dependency)
            } else {
                forbidden_crate(row, dependency)
            };
            found.extend(problem.map(|text| Violation::of_file(&package.manifest, RULE, text)));
        }
        let problem = forbidden_feature(row, package);
        found.extend(problem.map(|text| Violation::of_file(&package.manifest, RULE, text)));
    }
    found
}

/// Names, without prefix, of the crates that decide.
pub(crate) fn pure_crates() -> Vec<&'static str> {
    TABLE
        .iter()
        .filter(|row| row.layer == Layer::Pure)
        .map(|row| row.name)
        .collect()
}

fn forbidden_edge(row: &Row, dependency: &Dependency) -> Option<String> {
    let target = short(&dependency.name);
    if !row.may_use.contains(&target) {
        return Some(format!(
            "`{}` may not use `{target}`, only [{}]; move what it needs down to a crate that both \
             may use, or change TABLE in xtask/src/tidy/edges.rs and ARCHITECTURE.md in one commit",
            row.name,
            row.may_use.join(", ")
        ));
    }
    let (crate_, feature) = RUNTIME_FEATURE;
    let asks_for_runtime = target == crate_ && dependency.features.iter().any(|f| f == feature);
    (row.layer == Layer::Pure && asks_for_runtime).then(|| runtime_feature_in(row))
}

fn forbidden_crate(row: &Row, dependency: &Dependency) -> Option<String> {
    let name = dependency.name.as_str();
    if let Some((_, owner)) = HIDDEN.iter().find(|(hidden, _)| *hidden == name)
        && *owner != row.name
    {
        return Some(format!(
            "`{}` may not use `{name}`, which is hidden behind `{owner}`; use what \
             `{owner}` offers",
            row.name
        ));
    }
    if dependency.purpose == Purpose::Tests {
        return None;
    }
    if name == "anyhow" && matches!(row.layer, Layer::Pure | Layer::Shell) {
        return Some(format!(
            "`{}` may not use `anyhow`: a library has an error enum (thiserror) that callers match",
            row.name
        ));
    }
    if row.layer != Layer::Pure {
        return None;
    }
    let gated = row.name == RUNTIME_FEATURE.0
        && dependency.optional
        && BEHIND_RUNTIME_FEATURE.contains(&name);
    let (_, instead) = NOT_IN_PURE
        .iter()
        .find(|(names, _)| names.contains(&name))?;
    (!gated).then(|| format!("`{}` is pure and may not use `{name}`: {instead}", row.name))
}

/// No pure crate switches the runtime on, neither by default nor by passing a feature on.
fn forbidden_feature(row: &Row, package: &Package) -> Option<String> {
    let (crate_, feature) = RUNTIME_FEATURE;
    let own_default = row.name == crate_
        && package
            .features
            .get("default")
            .is_some_and(|on| on.iter().any(|f| f == feature));
    let passed_on = format!("{PREFIX}{crate_}/{feature}");
    let passes_on = package.features.values().flatten().any(|f| *f == passed_on);
    (row.layer == Layer::Pure && (own_default || passes_on)).then(|| runtime_feature_in(row))
}

fn runtime_feature_in(row: &Row) -> String {
    let (crate_, feature) = RUNTIME_FEATURE;
    format!(
        "`{}` is pure and may not switch on feature `{feature}` of `{crate_}`, which brings a gRPC \
         runtime; only shells and programs may",
        row.name
    )
}

fn short(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or(name)
}

fn full(row: &Row) -> String {
    match row.layer {
        Layer::Pure | Layer::Shell | Layer::Tool => format!("{PREFIX}{}", row.name),
        Layer::Program => row.name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &[Row] = &[
        row("api", Layer::Pure, &[]),
        row("types", Layer::Pure, &["api"]),
        row("raft", Layer::Pure, &["api"]),
        row("rt", Layer::Shell, &["api", "types"]),
        row("swarmd", Layer::Program, &["rt"]),
    ];

    /// Reads `name: dep dep`, where a dependency is `[dev:|optional:]name[+feature]`.
    fn package(text: &str) -> Package {
        let (name, dependencies) = text.split_once(':').unwrap();
        Package {
            name: name.to_owned(),
            manifest: String::from("Cargo.toml"),
            features: BTreeMap::new(),
            dependencies: dependencies.split_whitespace().map(dependency).collect(),
        }
    }

    fn dependency(text: &str) -> Dependency {
        let (how, text) = text.split_once(':').unwrap_or(("", text));
        let (name, feature) = text.split_once('+').unwrap_or((text, ""));
        Dependency {
            name: name.to_owned(),
            purpose: if how == "dev" {
                Purpose::Tests
            } else {
                Purpose::Shipped
            },
            optional: how == "optional",
            features: Vec::from([feature.to_owned()]),
        }
    }

    #[track_caller]
    fn check_package(text: &str, expected: Option<&str>) {
        let found = check(&[package(text)], SMALL);
        match expected {
            None => assert_eq!(found, [], "{text}"),
            Some(part) => {
                assert_eq!(found.len(), 1, "{text}: {found:?}");
                assert!(found[0].text.contains(part), "{text}: {}", found[0].text);
            }
        }
    }

    #[test]
    fn edges_are_those_of_the_table() {
        check_package("swarm-types: swarm-api prost", None);
        check_package(
            "swarm-api: swarm-types",
            Some("`api` may not use `types`, only []"),
        );
        check_package(
            "swarm-types: dev:swarm-rt",
            Some("`types` may not use `rt`, only [api]"),
        );
        check_package("swarmd: swarm-rt", None);
        check_package("swarmd: swarm-api", Some("only [rt]"));
        check_package("swarm-extra: prost", Some("not in the dependency table"));
    }

    #[test]
    fn pure_crates_cannot_reach_the_world() {
        check_package(
            "swarm-types: tokio",
            Some("`types` is pure and may not use `tokio`"),
        );
        check_package("swarm-types: rand", Some("seeded generator"));
        check_package("swarm-types: rand_core", None);
        check_package("swarm-types: dev:tempfile", None);
        check_package("swarm-rt: tokio", None);
    }

    #[test]
    fn grpc_is_for_shells() {
        check_package(
            "swarm-types: swarm-api+grpc",
            Some("may not switch on feature `grpc`"),
        );
        check_package("swarm-rt: swarm-api+grpc", None);
        check_package("swarm-api: optional:tonic optional:tonic-prost", None);
        check_package(
            "swarm-api: tonic",
            Some("`api` is pure and may not use `tonic`"),
        );
        check_package("swarm-types: optional:tonic", Some("may not use `tonic`"));
    }

    #[test]
    fn features_do_not_smuggle_the_runtime_in() {
        let with = |name: &str, feature: &str, value: &str| {
            let mut package = package(&format!("{name}:"));
            package
                .features
                .insert(feature.to_owned(), vec![value.to_owned()]);
            check(&[package], SMALL).len()
        };
        assert_eq!(with("swarm-api", "grpc", "dep:tonic"), 0);
        assert_eq!(with("swarm-api", "default", "grpc"), 1);
        assert_eq!(with("swarm-types", "net", "swarm-api/grpc"), 1);
        assert_eq!(with("swarm-rt", "net", "swarm-api/grpc"), 0);
    }

    #[test]
    fn hidden_crates_have_one_user() {
        check_package("swarm-raft: raft protobuf", None);
        check_package("swarm-rt: raft", Some("hidden behind `raft`"));
        check_package("swarm-rt: dev:imbl", Some("hidden behind `store`"));
    }

    #[test]
    fn libraries_have_their_own_errors() {
        check_package("swarm-rt: anyhow", Some("`rt` may not use `anyhow`"));
        check_package("swarm-rt: dev:anyhow", None);
        check_package("swarmd: anyhow", None);
    }

    #[test]
    fn table_points_down() {
        for (index, row) in TABLE.iter().enumerate() {
            for used in row.may_use {
                let below = TABLE[..index].iter().find(|other| other.name == *used);
                let below = below.unwrap_or_else(|| panic!("{} -> {used} points up", row.name));
                let allowed = match row.layer {
                    Layer::Pure | Layer::Tool => below.layer == Layer::Pure,
                    Layer::Shell | Layer::Program => below.layer != Layer::Tool,
                };
                assert!(allowed, "{} -> {used} crosses a layer", row.name);
            }
        }
    }
}
