//! The example service, seen through the same API that every client uses.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use swarm_api::v1;
use swarm_rt::net::{self, Address};
use tonic::transport::Channel;
use v1::control_client::ControlClient;

use super::{http, own_program};
use crate::args::Dev;

/// Its name.
const NAME: &str = "hello";
/// Port ranges that are tried before giving up.
const PORT_TRIES_MAX: u16 = 50;
/// Between two looks while tasks stop.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) struct Example {
    client: ControlClient<Channel>,
    service: String,
    port_base: u16,
    replicas: u16,
}

/// What the replicas answered.
pub(crate) struct Seen {
    pub(crate) lines: Vec<String>,
    pub(crate) nodes: usize,
}

impl Example {
    /// Creates the service.
    pub(crate) async fn deploy(socket: &Path, args: &Dev) -> anyhow::Result<Self> {
        let mut client = connect(socket)?;
        let port_base = free_ports(args.port_base, args.replicas)?;
        let spec = Some(spec(port_base, args.replicas)?);
        let created = client
            .create_service(v1::CreateServiceRequest { spec })
            .await
            .map_err(|status| anyhow::anyhow!("create the service: {}", status.message()))?;
        let service = created
            .into_inner()
            .service
            .context("the answer has the service")?
            .id;
        Ok(Self {
            client,
            service,
            port_base,
            replicas: args.replicas,
        })
    }

    pub(crate) fn name(&self) -> &'static str {
        NAME
    }

    pub(crate) fn url(&self, slot: u16) -> String {
        format!("http://{}/", self.address(slot))
    }

    fn address(&self, slot: u16) -> String {
        format!("127.0.0.1:{}", self.port_base + slot)
    }

    /// How many replicas run.
    pub(crate) async fn running(&mut self) -> anyhow::Result<u64> {
        let request = v1::ListServiceStatusesRequest {
            services: vec![self.service.clone()],
        };
        let answer = self
            .client
            .list_service_statuses(request)
            .await?
            .into_inner();
        Ok(answer
            .statuses
            .first()
            .map_or(0, |status| status.running_tasks))
    }

    /// Why replicas do not run, in words.
    pub(crate) async fn trouble(&mut self) -> anyhow::Result<String> {
        let tasks = tasks(&mut self.client).await?;
        let texts: BTreeSet<String> = tasks
            .into_iter()
            .filter_map(|task| task.status)
            .map(|status| {
                format!("{} {}", status.message, status.err)
                    .trim()
                    .to_owned()
            })
            .collect();
        Ok(texts.into_iter().collect::<Vec<_>>().join("; "))
    }

    /// Asks every replica who it is. A replica that listens a moment after it runs is waited for.
    pub(crate) async fn visit(&self) -> anyhow::Result<Seen> {
        let mut seen = Seen {
            lines: Vec::new(),
            nodes: 0,
        };
        let mut nodes = BTreeSet::new();
        for slot in 1..=self.replicas {
            let body = http::get(&self.address(slot)).await?;
            let field = |name: &str| {
                let line = body.lines().find_map(|line| line.strip_prefix(name));
                line.map_or("?", |value| value.trim_start_matches(':').trim())
                    .to_owned()
            };
            let node = field("node");
            seen.lines.push(format!(
                "  {}  slot {}  node {}  pid {}",
                self.url(slot),
                field("slot"),
                node,
                field("pid")
            ));
            nodes.insert(node);
        }
        seen.nodes = nodes.len();
        Ok(seen)
    }
}

/// The token that admits workers.
pub(crate) async fn worker_token(socket: &Path) -> anyhow::Result<String> {
    let mut client = connect(socket)?;
    let listed = client.list_clusters(v1::ListClustersRequest::default());
    let clusters = listed.await?.into_inner().clusters;
    let root = clusters.into_iter().next().and_then(|it| it.root_ca);
    let tokens = root.and_then(|root| root.join_tokens);
    Ok(tokens.context("the cluster has join tokens")?.worker)
}

/// Removes every service and waits until no task is left.
pub(crate) async fn remove_all(socket: &Path) -> anyhow::Result<()> {
    let mut client = connect(socket)?;
    let services = client
        .list_services(v1::ListServicesRequest::default())
        .await?
        .into_inner();
    for service in services.services {
        let request = v1::RemoveServiceRequest {
            service_id: service.id,
        };
        client.remove_service(request).await?;
    }
    while !tasks(&mut client).await?.is_empty() {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(())
}

fn connect(socket: &Path) -> anyhow::Result<ControlClient<Channel>> {
    let channel = net::dial(&Address::Unix(socket.to_owned()))?;
    Ok(ControlClient::new(channel).max_decoding_message_size(net::CLIENT_RECEIVE_BYTES_MAX))
}

async fn tasks(client: &mut ControlClient<Channel>) -> anyhow::Result<Vec<v1::Task>> {
    Ok(client
        .list_tasks(v1::ListTasksRequest::default())
        .await?
        .into_inner()
        .tasks)
}

fn spec(port_base: u16, replicas: u16) -> anyhow::Result<v1::ServiceSpec> {
    let program = own_program()?.to_string_lossy().into_owned();
    let container = v1::ContainerSpec {
        image: "host".to_owned(),
        command: vec![program, "hello-web".to_owned()],
        args: vec!["--port-base".to_owned(), port_base.to_string()],
        ..Default::default()
    };
    let restart = v1::RestartPolicy {
        condition: v1::restart_policy::RestartCondition::Any as i32,
        delay: Some(swarm_types::time::duration_to_wire(Duration::from_secs(1))),
        ..Default::default()
    };
    Ok(v1::ServiceSpec {
        annotations: Some(v1::Annotations {
            name: NAME.to_owned(),
            ..Default::default()
        }),
        task: Some(v1::TaskSpec {
            runtime: Some(v1::task_spec::Runtime::Container(container)),
            restart: Some(restart),
            ..Default::default()
        }),
        mode: Some(v1::service_spec::Mode::Replicated(v1::ReplicatedService {
            replicas: u64::from(replicas),
        })),
        ..Default::default()
    })
}

/// A base after which as many ports are free as there are replicas (and a few more, to scale up).
fn free_ports(base: u16, replicas: u16) -> anyhow::Result<u16> {
    let needed = replicas + 10;
    for attempt in 0..PORT_TRIES_MAX {
        let Some(base) = base.checked_add(attempt * (needed + 1)) else {
            break;
        };
        let Some(last) = base.checked_add(needed) else {
            break;
        };
        if (base + 1..=last).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return Ok(base);
        }
    }
    anyhow::bail!(
        "no {needed} free ports in a row were found after {base}; choose another --port-base"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_with_a_taken_port_is_passed_over() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port().clamp(2000, 50_000);
        let held = TcpListener::bind(("127.0.0.1", port));
        let base = free_ports(port - 1, 2).unwrap();
        assert!(base > port - 1 || held.is_err(), "{base} {port}");
    }
}
