//! What a node may say of itself and of its tasks, in bytes.
//!
//! All of it is stored beside other things in one object, and an object must fit one entry of the
//! log; so each field is bounded here, well below that. A description that is too large is refused:
//! the node has no session until it says less. A status must not be refused, since its task would
//! stay where it is for ever: what is too much is cut, and says so.

use prost::Message as _;
use swarm_api::v1;
use swarm_types::{NodeId, Task, TaskId, TaskStatus};

use crate::error::DispatchError;

/// Bytes of a host name at most: a name in DNS has 253.
pub const HOSTNAME_BYTES_MAX: usize = 255;
/// Bytes of the platform in a description at most.
pub const PLATFORM_BYTES_MAX: usize = 1024;
/// Bytes of each of the other parts of a description at most: resources, engine, trust, CSI
/// plugins. Four of them, with the spec of the node beside them, are two thirds of a transaction.
pub const DESCRIPTION_PART_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the message, and of the error, of a status that are kept at most.
pub const STATUS_TEXT_BYTES_MAX: usize = 8 * 1024;
/// Bytes of the description of a container in a status at most.
pub const STATUS_CONTAINER_BYTES_MAX: usize = 1024;
/// Bytes of the list of ports in a status that are kept at most, for a task that is to publish few
/// or none; for others twice as many as its endpoint has.
pub const STATUS_PORTS_BYTES_MIN: usize = 4 * 1024;

/// Checks what a node says of itself.
///
/// # Errors
/// Some part is too large.
pub(crate) fn check_description(
    node: &NodeId,
    description: &v1::NodeDescription,
) -> Result<(), DispatchError> {
    fn len<M: prost::Message>(part: Option<&M>) -> usize {
        part.map_or(0, prost::Message::encoded_len)
    }
    let csi: usize = description
        .csi_info
        .iter()
        .map(prost::Message::encoded_len)
        .sum();
    let most = DESCRIPTION_PART_BYTES_MAX;
    let parts = [
        ("host name", description.hostname.len(), HOSTNAME_BYTES_MAX),
        (
            "platform",
            len(description.platform.as_ref()),
            PLATFORM_BYTES_MAX,
        ),
        ("resources", len(description.resources.as_ref()), most),
        (
            "engine with labels and plugins",
            len(description.engine.as_ref()),
            most,
        ),
        ("trust", len(description.tls_info.as_ref()), most),
        ("CSI plugins", csi, most),
    ];
    for (part, bytes, limit) in parts {
        if bytes > limit {
            return Err(DispatchError::description_too_large(
                node, part, bytes, limit,
            ));
        }
    }
    Ok(())
}

/// What was cut off a status, in words for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "node {node} reports of task {task} {part} of {bytes} bytes, of which at most {limit} are kept"
)]
pub struct CutStatus {
    /// Who reported it.
    pub node: NodeId,
    /// Of which task.
    pub task: TaskId,
    /// Which part of the status.
    pub part: &'static str,
    /// How large it was.
    pub bytes: usize,
    /// How large it may be.
    pub limit: usize,
}

/// Cuts a status down to what may be stored; returns the parts that were too large.
pub(crate) fn cut_status(node: &NodeId, task: &Task, status: &mut TaskStatus) -> Vec<CutStatus> {
    let mut cuts = Vec::new();
    let mut cut = |part, bytes: usize, limit: usize| {
        if bytes > limit {
            cuts.push(CutStatus {
                node: node.clone(),
                task: task.id.clone(),
                part,
                bytes,
                limit,
            });
        }
        bytes > limit
    };
    for (part, text) in [
        ("a message", &mut status.message),
        ("an error", &mut status.err),
    ] {
        if cut(part, text.len(), STATUS_TEXT_BYTES_MAX) {
            *text = cut_text(text).into();
        }
    }
    let container = status.container.as_ref().map_or(0, |own| own.encoded_len());
    if cut("a container", container, STATUS_CONTAINER_BYTES_MAX)
        && let Some(container) = &mut status.container
    {
        // The process and the exit code are numbers.
        container.container_id = String::new();
    }
    let ports = status.ports.as_ref().map_or(0, |own| own.encoded_len());
    let is_long = ports > STATUS_PORTS_BYTES_MIN;
    if is_long && cut("a list of ports", ports, ports_bytes_max(task)) {
        status.ports = None;
    }
    cuts
}

/// An executor reports the ports that it published, which are those of the endpoint.
fn ports_bytes_max(task: &Task) -> usize {
    let endpoint = task.endpoint.as_ref().map_or(0, |own| own.encoded_len());
    STATUS_PORTS_BYTES_MIN + 2 * endpoint
}

/// The beginning of a text, and how much there was.
fn cut_text(text: &str) -> String {
    let note = format!(" [cut: {} bytes]", text.len());
    let kept = text.floor_char_boundary(STATUS_TEXT_BYTES_MAX - note.len());
    format!("{}{note}", &text[..kept])
}

/// The same status with as little as possible, for a task beside which nothing more fits.
pub(crate) fn bare_status(status: &TaskStatus) -> TaskStatus {
    let mut container = status.container.clone();
    if let Some(container) = &mut container {
        container.container_id = String::new();
    }
    let kept = status.err.floor_char_boundary(BARE_ERR_BYTES_MAX);
    TaskStatus {
        message: "reported; the rest of the status does not fit beside this task".into(),
        err: status.err[..kept].to_owned().into(),
        container,
        ports: None,
        ..status.clone()
    }
}

/// Bytes of the error that are kept even then.
const BARE_ERR_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::{TaskState, Timestamp};

    fn node() -> NodeId {
        "n".parse().unwrap()
    }

    #[test]
    fn each_part_of_a_description_has_a_limit_and_is_named() {
        let long = |bytes: usize| "x".repeat(bytes);
        let most = DESCRIPTION_PART_BYTES_MAX;
        let engine = |bytes| v1::NodeDescription {
            engine: Some(v1::EngineDescription {
                labels: [("a".to_owned(), long(bytes))].into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let host = |bytes| v1::NodeDescription {
            hostname: long(bytes),
            ..Default::default()
        };
        let trust = |bytes| v1::NodeDescription {
            tls_info: Some(v1::NodeTlsInfo {
                trust_root: long(bytes).into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let generic = |bytes| v1::NodeDescription {
            resources: Some(v1::Resources {
                generic: vec![swarm_types::resources::named("gpu", long(bytes))],
                ..Default::default()
            }),
            ..Default::default()
        };
        for (part, small, large) in [
            (
                "host name",
                host(HOSTNAME_BYTES_MAX),
                host(HOSTNAME_BYTES_MAX + 1),
            ),
            ("engine", engine(most - 64), engine(most)),
            ("trust", trust(most - 64), trust(most)),
            ("resources", generic(most - 64), generic(most)),
        ] {
            assert!(check_description(&node(), &small).is_ok(), "{part}");
            let error = check_description(&node(), &large).unwrap_err();
            assert!(error.message.contains(part), "{error}");
        }
    }

    #[test]
    fn a_status_is_cut_where_it_is_too_large_and_says_so() {
        let mut status = TaskStatus::new(TaskState::Failed, Timestamp::EPOCH, "ok");
        status.err = "é".repeat(1_000_000).into();
        status.container = Some(Box::new(v1::ContainerStatus {
            container_id: "c".repeat(5_000),
            pid: 7,
            exit_code: 3,
        }));
        status.ports = Some(Box::new(v1::PortStatus {
            ports: vec![v1::PortConfig::default(); 20_000],
        }));
        let mut task = Task::new("t".parse().unwrap(), std::sync::Arc::default());
        let cuts = cut_status(&node(), &task, &mut status);
        let parts: Vec<&str> = cuts.iter().map(|cut| cut.part).collect();
        assert_eq!(parts, ["an error", "a container", "a list of ports"]);
        assert_eq!(status.message.as_str(), "ok");
        assert!(status.err.len() <= STATUS_TEXT_BYTES_MAX);
        assert!(status.err.ends_with("[cut: 2000000 bytes]"));
        let container = status.container.as_ref().unwrap();
        assert_eq!((container.pid, container.exit_code), (7, 3));
        assert!(status.ports.is_none());
        let again = cut_status(&node(), &task, &mut status);
        assert!(again.is_empty(), "{again:?}");
        let ports = vec![v1::PortConfig::default(); 20_000];
        task.endpoint = Some(std::sync::Arc::new(v1::Endpoint {
            ports: ports.clone(),
            ..Default::default()
        }));
        status.ports = Some(Box::new(v1::PortStatus { ports }));
        let none = cut_status(&node(), &task, &mut status);
        assert!(none.is_empty(), "it is to publish so many: {none:?}");
    }
}
