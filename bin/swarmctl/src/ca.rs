//! `swarmctl cluster ca`: the root of the cluster, and the certificates of its nodes.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;
use swarm_api::{ext, v1};
use swarm_types::Timestamp;

use crate::cli::Format;
use crate::failure::Failure;
use crate::output::{Context, emit, emit_json};
use crate::{cluster, table, units};

/// Bytes of a PEM file at most; a hostile or wrong file is not sent.
const PEM_BYTES_MAX: u64 = 256 * 1024;

/// The verbs of `cluster ca`.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Change the root certificate; nodes renew one after the other, and nothing stops.
    Rotate(Rotate),
    /// Show the root, how far its rotation is, and certificates that need attention.
    Status(Status),
}

/// Flags of `cluster ca rotate`.
#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// The new root certificate, PEM; one is made unless given.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// The key of the new root certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// An external CA of the new root, its https URL, when the cluster does not get the key.
    #[arg(long, value_name = "URL", requires = "cert", conflicts_with = "key")]
    external: Vec<String>,
    /// How to print.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// Flags of `cluster ca status`.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Status {
    /// Show the certificates of all nodes.
    #[arg(short, long)]
    all: bool,
    /// How to print.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Debug, Serialize)]
struct StatusView {
    root: RootView,
    rotation: Option<RotationView>,
    nodes: Vec<NodeView>,
}

#[derive(Debug, Serialize)]
struct RootView {
    digest: String,
    not_after: Option<String>,
    signer: String,
    external_urls: Vec<String>,
}

#[derive(Debug, Serialize)]
struct RotationView {
    target: RootView,
    nodes_total: u32,
    nodes_rotated: u32,
    nodes_left_behind: u32,
    nodes: Vec<WaitingView>,
}

#[derive(Debug, Serialize)]
struct WaitingView {
    node_id: String,
    hostname: String,
    code: String,
    reason: String,
    next_step: String,
}

#[derive(Debug, Serialize)]
struct NodeView {
    node_id: String,
    hostname: String,
    role: String,
    state: String,
    error: String,
    not_after: Option<String>,
    issuer: String,
    warning: String,
    next_step: String,
}

fn text_of(wire: Option<&prost_types::Timestamp>) -> Option<String> {
    units::time(wire).map(|at: Timestamp| at.to_string())
}

impl From<ext::RootStatus> for RootView {
    fn from(root: ext::RootStatus) -> Self {
        Self {
            not_after: text_of(root.not_after.as_ref()),
            digest: root.digest,
            signer: root.signer,
            external_urls: root.external_urls,
        }
    }
}

impl From<ext::RotationStatus> for RotationView {
    fn from(rotation: ext::RotationStatus) -> Self {
        let waiting = |node: ext::NodeToRotate| WaitingView {
            node_id: node.node_id,
            hostname: node.hostname,
            code: node.code,
            reason: node.reason,
            next_step: node.next_step,
        };
        Self {
            target: rotation.target.unwrap_or_default().into(),
            nodes_total: rotation.nodes_total,
            nodes_rotated: rotation.nodes_rotated,
            nodes_left_behind: rotation.nodes_left_behind,
            nodes: rotation.nodes.into_iter().map(waiting).collect(),
        }
    }
}

impl From<ext::NodeCertificate> for NodeView {
    fn from(node: ext::NodeCertificate) -> Self {
        Self {
            not_after: text_of(node.not_after.as_ref()),
            node_id: node.node_id,
            hostname: node.hostname,
            role: node.role,
            state: node.state,
            error: node.error,
            issuer: node.issuer,
            warning: node.warning,
            next_step: node.next_step,
        }
    }
}

impl From<ext::CaStatusResponse> for StatusView {
    fn from(status: ext::CaStatusResponse) -> Self {
        Self {
            root: status.root.unwrap_or_default().into(),
            rotation: status.rotation.map(Into::into),
            nodes: status.nodes.into_iter().map(Into::into).collect(),
        }
    }
}

/// Runs a verb.
///
/// # Errors
/// What the manager refused, or a file that cannot be read.
pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Rotate(flags) => rotate(context, flags).await,
        Verb::Status(flags) => show(context, flags).await,
    }
}

/// How the certificates stand.
///
/// # Errors
/// Those of the call.
pub(crate) async fn status(context: &Context) -> Result<ext::CaStatusResponse, Failure> {
    let manager = &context.manager;
    let request = ext::CaStatusRequest {};
    manager.call(manager.identity().ca_status(request)).await
}

async fn show(context: &Context, flags: Status) -> Result<(), Failure> {
    let status = status(context).await?.into();
    print(&status, flags.all, flags.format)
}

fn print(status: &StatusView, all: bool, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => emit_json(status),
        Format::Table => emit(&summary(status, all)),
    }
}

async fn rotate(context: &Context, flags: Rotate) -> Result<(), Failure> {
    let read = |path: &Option<PathBuf>| path.as_deref().map(read_pem).transpose();
    let (cert, key) = (read(&flags.cert)?, read(&flags.key)?);
    let cluster = cluster::only(context).await?;
    let mut spec = cluster.spec.clone().unwrap_or_default();
    let config = spec.ca_config.get_or_insert_default();
    match cert {
        None => config.force_rotate = config.force_rotate.wrapping_add(1),
        Some(cert) => {
            for url in &flags.external {
                config.external_cas.push(v1::ExternalCa {
                    url: url.clone(),
                    ca_cert: cert.clone().into(),
                    ..Default::default()
                });
            }
            config.signing_ca_cert = cert.into();
            config.signing_ca_key = key.unwrap_or_default().into();
        }
    }
    cluster::send(context, &cluster, Some(spec), v1::KeyRotation::default()).await?;
    let status = status(context).await?.into();
    print(&status, false, flags.format)
}

fn read_pem(path: &std::path::Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read as _;
    let failed = |error: std::io::Error| {
        Failure::usage(format!("{} cannot be read: {error}", path.display()))
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut pem = Vec::new();
    let count = file
        .take(PEM_BYTES_MAX + 1)
        .read_to_end(&mut pem)
        .map_err(failed)?;
    if count as u64 > PEM_BYTES_MAX {
        return Err(Failure::usage(format!(
            "{} has more than {PEM_BYTES_MAX} bytes; is it a PEM file?",
            path.display()
        )));
    }
    Ok(pem)
}

fn summary(status: &StatusView, all: bool) -> String {
    let mut fields = Vec::new();
    let mut push = |name: &str, value: String| fields.push((name.to_owned(), value));
    root_fields("Root", &status.root, &mut push);
    match &status.rotation {
        None => push("Rotation", "none".to_owned()),
        Some(rotation) => {
            root_fields("Next root", &rotation.target, &mut push);
            let (rotated, total) = (rotation.nodes_rotated, rotation.nodes_total);
            let left = match rotation.nodes_left_behind {
                0 => String::new(),
                count => format!(", {count} left behind"),
            };
            push(
                "Rotation",
                format!("{rotated} of {total} nodes rotated{left}"),
            );
        }
    }
    let mut text = table::fields(&fields);
    if let Some(rotation) = status.rotation.as_ref().filter(|it| !it.nodes.is_empty()) {
        let header = ["Not rotated", "Name", "Why", "Next Step"];
        let row = |node: &WaitingView| {
            let (reason, next_step) = (node.reason.clone(), node.next_step.clone());
            vec![
                node.node_id.clone(),
                node.hostname.clone(),
                reason,
                next_step,
            ]
        };
        let rows = rotation.nodes.iter().map(row).collect();
        text.push_str(&format!("\n{}", table::render(&header, rows)));
    }
    let shown = |node: &&NodeView| all || !node.warning.is_empty() || !node.error.is_empty();
    let nodes: Vec<&NodeView> = status.nodes.iter().filter(shown).collect();
    if !nodes.is_empty() {
        text.push_str(&format!("\n{}", certificates(&nodes)));
    }
    text
}

fn root_fields(name: &str, root: &RootView, push: &mut impl FnMut(&str, String)) {
    let until = root.not_after.as_deref().unwrap_or("an unknown time");
    push(name, format!("{}, valid until {until}", root.digest));
    push("Signed by", root.signer.clone());
    for url in &root.external_urls {
        push("External CA", url.clone());
    }
}

fn certificates(nodes: &[&NodeView]) -> String {
    let header = [
        "Node",
        "Name",
        "Role",
        "State",
        "Issuer",
        "Valid Until",
        "Note",
    ];
    let row = |node: &&NodeView| {
        let notes = [&node.error, &node.warning, &node.next_step];
        let notes: Vec<&str> = notes
            .into_iter()
            .map(String::as_str)
            .filter(|note| !note.is_empty())
            .collect();
        vec![
            node.node_id.clone(),
            node.hostname.clone(),
            node.role.clone(),
            node.state.clone(),
            node.issuer.clone(),
            node.not_after
                .clone()
                .unwrap_or_else(|| "unknown".to_owned()),
            notes.join("; "),
        ]
    };
    table::render(&header, nodes.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_tells_progress_and_what_needs_attention() {
        let root = |digest: &str| ext::RootStatus {
            digest: digest.to_owned(),
            signer: "this cluster".to_owned(),
            ..Default::default()
        };
        let node = |id: &str, warning: &str| ext::NodeCertificate {
            node_id: id.to_owned(),
            state: "issued".to_owned(),
            warning: warning.to_owned(),
            ..Default::default()
        };
        let status = ext::CaStatusResponse {
            root: Some(root("sha256:old")),
            rotation: Some(ext::RotationStatus {
                target: Some(root("sha256:new")),
                nodes_total: 5,
                nodes_rotated: 3,
                nodes_left_behind: 1,
                nodes: vec![ext::NodeToRotate {
                    node_id: "n1".to_owned(),
                    reason: "it is gone".to_owned(),
                    next_step: "start it".to_owned(),
                    ..Default::default()
                }],
            }),
            nodes: vec![node("n1", "it expired"), node("n2", "")],
        };
        let text = summary(&status.into(), false);
        for part in [
            "Root       sha256:old",
            "Next root  sha256:new",
            "3 of 5 nodes rotated, 1 left behind",
            "it is gone",
            "start it",
            "it expired",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("n2"), "{text}");
    }
}
