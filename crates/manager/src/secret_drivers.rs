//! Asks secret drivers, off the leader's task and outside of any view of the store (control-plane
//! spec 28).
//!
//! Owns where plugins are, the words of the exchange, and the calls under way, which end with the
//! term. Does not own which secrets are asked for, when again, and what becomes of the answers
//! (`swarm-dispatcher`).

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use swarm_dispatcher::{SECRET_BYTES_LIMIT, SecretAnswer, SecretRequest, SecretRequestId};
use swarm_rt::chain;
use swarm_rt::plugin::{self, Plugin};
use swarm_types::{Secret, Task, naming};
use tokio::task::{Id, JoinError, JoinSet};

/// Where plugins have their sockets, as for Docker.
pub const PLUGINS_DIR: &str = "/run/docker/plugins";
/// How long one exchange with a plugin may take; there are two for each question.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is read: the largest secret in base64, and what surrounds it.
const ANSWER_BYTES_MAX: usize = SECRET_BYTES_LIMIT / 3 * 4 + 64 * 1024;
/// What a plugin must say that it implements.
const CAPABILITY: &str = "secretprovider";

type Answer = Result<SecretAnswer, String>;

/// The plugins of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Plugins {
    directory: PathBuf,
}

impl Plugins {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Whether a plugin of this name has a socket. Names that could lead elsewhere are none.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.socket(name).is_some()
    }

    fn socket(&self, name: &str) -> Option<PathBuf> {
        let is_plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(is_plain) {
            return None;
        }
        let file = format!("{name}.sock");
        let places = [
            self.directory.join(&file),
            self.directory.join(name).join(&file),
        ];
        places.into_iter().find(|place| place.exists())
    }

    fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The calls under way; `swarm-dispatcher` bounds how many.
pub(crate) struct SecretDrivers {
    plugins: Plugins,
    calls: JoinSet<Answer>,
    names: HashMap<Id, SecretRequestId>,
}

impl SecretDrivers {
    pub(crate) fn new(plugins: Plugins) -> Self {
        Self {
            plugins,
            calls: JoinSet::new(),
            names: HashMap::new(),
        }
    }

    /// Begins a call.
    pub(crate) fn begin(&mut self, request: SecretRequest) {
        let plugins = self.plugins.clone();
        let id = request.id;
        let handle = self
            .calls
            .spawn(async move { ask(&plugins, &request).await });
        self.names.insert(handle.id(), id);
    }

    /// The next call that ended; never returns while there is none. Cancel safe.
    pub(crate) async fn done(&mut self) -> (SecretRequestId, Answer) {
        loop {
            match self.calls.join_next_with_id().await {
                Some(ended) => {
                    if let Some(named) = self.name(ended) {
                        return named;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// A call that ended already.
    pub(crate) fn try_done(&mut self) -> Option<(SecretRequestId, Answer)> {
        let ended = self.calls.try_join_next_with_id()?;
        self.name(ended)
    }

    fn name(
        &mut self,
        ended: Result<(Id, Answer), JoinError>,
    ) -> Option<(SecretRequestId, Answer)> {
        let (id, answer) = ended.unwrap_or_else(|error| {
            let reason = "the call to the driver broke off".to_owned();
            (error.id(), Err(reason))
        });
        Some((self.names.remove(&id)?, answer))
    }
}

async fn ask(plugins: &Plugins, request: &SecretRequest) -> Answer {
    let driver = &request.driver;
    let socket = plugins.socket(driver).ok_or_else(|| {
        format!(
            "driver {driver} has no socket in {}; start its plugin on the leading manager",
            plugins.directory().display()
        )
    })?;
    let plugin = Plugin {
        socket,
        timeout: CALL_TIMEOUT,
        answer_bytes_max: ANSWER_BYTES_MAX,
    };
    let told = |reason: String| format!("driver {driver}: {reason}");
    let activated: Activated = call(&plugin, "/Plugin.Activate", String::new())
        .await
        .map_err(told)?;
    if !activated.implements.iter().any(|name| name == CAPABILITY) {
        return Err(told(format!("it does not implement {CAPABILITY}")));
    }
    let query = Query::new(&request.secret, &request.task);
    let body = serde_json::to_string(&query).map_err(|error| told(error.to_string()))?;
    let reply: Reply = call(&plugin, "/SecretProvider.GetSecret", body)
        .await
        .map_err(told)?;
    if !reply.err.is_empty() {
        return Err(told(reply.err));
    }
    // The error of the decoder repeats a byte of the value.
    let value = STANDARD
        .decode(reply.value)
        .map_err(|_| told("its value is not base64".to_owned()))?;
    Ok(SecretAnswer {
        value: value.into(),
        do_not_reuse: reply.do_not_reuse,
    })
}

async fn call<T: for<'de> Deserialize<'de>>(
    plugin: &Plugin,
    path: &str,
    body: String,
) -> Result<T, String> {
    let answer = plugin::post_json(plugin, path, body).await;
    let answer = answer.map_err(|error| chain(&error).to_string())?;
    if answer.status != 200 {
        return Err(format!("{path} was answered with status {}", answer.status));
    }
    // The error of the parser can repeat what it read.
    serde_json::from_slice(&answer.body)
        .map_err(|_| format!("the answer to {path} is not what the protocol says"))
}

#[derive(Deserialize)]
struct Activated {
    #[serde(default, rename = "Implements")]
    implements: Vec<String>,
}

/// The reply; has no `Debug`.
#[derive(Deserialize)]
struct Reply {
    #[serde(default, rename = "Value", deserialize_with = "none_is_empty")]
    value: String,
    #[serde(default, rename = "Err")]
    err: String,
    #[serde(default, rename = "DoNotReuse")]
    do_not_reuse: bool,
}

/// Go writes null for no bytes.
fn none_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

type Labels = BTreeMap<String, String>;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Query {
    #[serde(skip_serializing_if = "String::is_empty")]
    secret_name: String,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    secret_labels: Labels,
    #[serde(skip_serializing_if = "String::is_empty")]
    service_hostname: String,
    #[serde(rename = "ServiceID", skip_serializing_if = "String::is_empty")]
    service_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    service_name: String,
    #[serde(skip_serializing_if = "Labels::is_empty")]
    service_labels: Labels,
    #[serde(rename = "TaskID", skip_serializing_if = "String::is_empty")]
    task_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    task_name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    task_image: String,
    #[serde(rename = "NodeID", skip_serializing_if = "String::is_empty")]
    node_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_endpoint_spec: Option<EndpointQuery>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct EndpointQuery {
    #[serde(skip_serializing_if = "is_zero")]
    mode: i32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ports: Vec<PortQuery>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct PortQuery {
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "is_zero")]
    protocol: i32,
    #[serde(skip_serializing_if = "is_none")]
    target_port: u32,
    #[serde(skip_serializing_if = "is_none")]
    published_port: u32,
    #[serde(skip_serializing_if = "is_zero")]
    publish_mode: i32,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over references"
)]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over references"
)]
fn is_none(number: &u32) -> bool {
    *number == 0
}

impl Query {
    fn new(secret: &Secret, task: &Task) -> Self {
        let annotations = secret.spec.annotations.clone().unwrap_or_default();
        let container = task.container();
        let endpoint = task.endpoint.as_ref().and_then(|own| own.spec.as_ref());
        Self {
            secret_name: annotations.name,
            secret_labels: annotations.labels,
            service_hostname: container.map_or_else(String::new, |own| own.hostname.clone()),
            service_id: task
                .service_id
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            service_name: task.service_annotations.name.clone(),
            service_labels: task.service_annotations.labels.clone(),
            task_id: task.id.to_string(),
            task_name: naming::task_name(task),
            task_image: container.map_or_else(String::new, |own| own.image.clone()),
            node_id: task
                .node_id
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            service_endpoint_spec: endpoint.map(|spec| EndpointQuery {
                mode: spec.mode,
                ports: spec.ports.iter().map(PortQuery::new).collect(),
            }),
        }
    }
}

impl PortQuery {
    fn new(port: &swarm_api::v1::PortConfig) -> Self {
        Self {
            name: port.name.clone(),
            protocol: port.protocol,
            target_port: port.target_port,
            published_port: port.published_port,
            publish_mode: port.publish_mode,
        }
    }
}

#[cfg(test)]
mod tests;
