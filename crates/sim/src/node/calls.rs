//! What an agent asks of its shell: calls, and things about its node.

use std::time::Duration;

use swarm_agent::{AgentRpc, Call, NodeAction};
use swarm_api::v1;
use swarm_types::{networks, resources};

use super::{Dice, Node};
use crate::event::{Caller, Event, NodeEvent, NodeIx, Request};
use crate::identity::{Certificate, Identity};
use crate::manager::Io;
use crate::trace::Weight;

impl Node {
    pub(super) fn call(&mut self, io: &mut Io<'_>, rpc: AgentRpc) {
        let request = match rpc.call {
            Call::Close { .. } => {
                if let Some(conn) = self.conn.take() {
                    io.network.close(io.agenda, conn);
                }
                return;
            }
            Call::OpenSession {
                description,
                previous_session,
            } => {
                let caller = Caller {
                    node: self.ix,
                    life: self.life,
                    epoch: rpc.epoch,
                };
                let certificate = self.identity.certificate.clone();
                self.conn = Some(io.network.open(caller, certificate));
                self.epoch = rpc.epoch;
                Request::Session {
                    description,
                    previous: previous_session,
                }
            }
            Call::ListenSubscriptions => Request::Listen,
            Call::OpenAssignments { session } => Request::Assignments { session },
            Call::Heartbeat { session } => Request::Heartbeat { session },
            Call::UpdateTaskStatus {
                session,
                report,
                updates,
            } => Request::Statuses {
                session,
                report,
                updates,
            },
        };
        if let Some(conn) = self.conn {
            io.trace.add(
                io.agenda.now(),
                Weight::Minor,
                self.ix,
                format_args!("calls {}", request.name()),
            );
            io.network.send_request(io.agenda, conn, request);
        }
    }

    pub(super) fn act(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>, action: NodeAction) {
        match action {
            NodeAction::Describe => {
                let after = dice
                    .draws
                    .span(Duration::from_micros(100), Duration::from_millis(20));
                io.agenda
                    .after(after, Event::Node(self.ix, self.life, NodeEvent::Described));
            }
            NodeAction::Warn(text) => io.trace.add(
                io.agenda.now(),
                Weight::Major,
                self.ix,
                format_args!("warns: {text}"),
            ),
            NodeAction::Configure(_)
            | NodeAction::Managers(_)
            | NodeAction::RootCa(_)
            | NodeAction::NetworkKeys(_) => {}
        }
    }
}

pub(super) fn describe(ix: NodeIx, size: u64, identity: &Identity) -> v1::NodeDescription {
    let size = i64::try_from(size).unwrap_or(0);
    let mut generic = vec![resources::discrete("disk", 2 + size)];
    generic.extend((0..=size).map(|unit| resources::named("gpu", format!("gpu{unit}"))));
    v1::NodeDescription {
        hostname: ix.to_string(),
        platform: Some(v1::Platform {
            architecture: "x86_64".to_owned(),
            os: "linux".to_owned(),
        }),
        resources: Some(v1::Resources {
            nano_cpus: (2 + size) * 1_000_000_000,
            memory_bytes: (2 + size) << 30,
            generic,
        }),
        engine: Some(v1::EngineDescription {
            plugins: vec![v1::PluginDescription {
                r#type: networks::NETWORK_PLUGIN.to_owned(),
                name: networks::OVERLAY_DRIVER.to_owned(),
            }],
            ..Default::default()
        }),
        tls_info: identity.certificate.as_ref().map(Certificate::tls_info),
        ..Default::default()
    }
}
