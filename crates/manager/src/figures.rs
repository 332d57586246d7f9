//! What a manager shows of the cluster's objects (control-plane spec 26).
//!
//! Counted when somebody asks, from the view of that moment: nothing is kept up to date in between,
//! and what a scrape shows is one state of the store.

use swarm_raft_io::ReplicatedStore;
use swarm_rt::metrics::{Family, Gauge, Histogram, Label, Metrics, Registry, SECONDS};
use swarm_store::{Commit, Root};
use swarm_types::state;
use swarm_types::{
    AnyObject, ClusterId, Config, Network, Node, NodeId, NodeState, Secret, Service, Task,
    TaskState,
};

use crate::gate::Gate;

/// The gauges of one manager.
#[derive(Clone, Default)]
struct Figures {
    nodes: Family<Label, Gauge>,
    tasks: Family<Label, Gauge>,
    services: Gauge,
    networks: Gauge,
    secrets: Gauge,
    configs: Gauge,
    leads: Gauge,
}

/// The name of these figures among those of the node.
const PART: &str = "manager";
const DELAY_PART: &str = "scheduling";

/// Shows the objects of a store, and who the node is.
pub(crate) fn show(
    metrics: &Metrics,
    store: ReplicatedStore,
    gate: Gate,
    (cluster, node): (&ClusterId, &NodeId),
    sessions: Gauge,
) {
    let figures = Figures::default();
    let info = Family::<Vec<(&'static str, String)>, Gauge>::default();
    let labels = vec![
        ("swarm_id", cluster.to_string()),
        ("node_id", node.to_string()),
    ];
    info.get_or_create(&labels).set(1);
    let is_manager: Gauge = Gauge::default();
    is_manager.set(1);
    let add = |registry: &mut Registry| {
        registry.register("swarm_node_info", "The node; always 1", info);
        let help = "Whether this node is a manager";
        registry.register("swarm_node_manager", help, is_manager);
        let help = "Nodes that are in a session with this manager";
        registry.register("swarm_dispatcher_sessions", help, sessions);
        figures.register(registry);
    };
    let counted = figures.clone();
    metrics.show(PART, add, move || {
        counted.count(&store.view());
        counted.leads.set(i64::from(gate.is_open()));
    });
}

/// How long tasks take from their creation until they run, as long as this manager leads.
#[derive(Clone, Debug)]
pub(crate) struct SchedulingDelay(Histogram);

impl SchedulingDelay {
    pub(crate) fn show(metrics: &Metrics) -> Self {
        let delay = Histogram::new(SECONDS);
        let shown = delay.clone();
        let add = |registry: &mut Registry| {
            registry.register(
                "swarm_dispatcher_scheduling_delay_seconds",
                "How long tasks took from their creation until they ran",
                shown,
            );
        };
        metrics.show(DELAY_PART, add, || {});
        Self(delay)
    }

    /// Takes notice of the tasks that begin to run with a commit.
    pub(crate) fn observe(&self, commit: &Commit) {
        for change in &commit.changes {
            let (AnyObject::Task(task), Some(AnyObject::Task(old))) = (&change.object, &change.old)
            else {
                continue;
            };
            if task.state() == TaskState::Running && old.state() < TaskState::Running {
                let delay = task.meta.updated_at.saturating_since(task.meta.created_at);
                self.0.observe(delay.as_secs_f64());
            }
        }
    }
}

/// Shows nothing more: the manager stopped.
pub(crate) fn forget(metrics: &Metrics) {
    metrics.forget(PART);
    metrics.forget(DELAY_PART);
}

impl Figures {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "swarm_manager_nodes",
            "Nodes of the cluster, by state",
            self.nodes.clone(),
        );
        registry.register(
            "swarm_manager_tasks_total",
            "Tasks in the store, by state",
            self.tasks.clone(),
        );
        for (name, help, gauge) in [
            ("services", "Services in the store", &self.services),
            ("networks", "Networks in the store", &self.networks),
            ("secrets", "Secrets in the store", &self.secrets),
            ("configs", "Configs in the store", &self.configs),
        ] {
            registry.register(format!("swarm_manager_{name}_total"), help, gauge.clone());
        }
        registry.register(
            "swarm_manager_leader",
            "Whether this manager leads",
            self.leads.clone(),
        );
    }

    fn count(&self, view: &Root) {
        let mut nodes = [0; NODE_STATES.len()];
        for node in view.all::<Node>() {
            nodes[node_state(node.status.state)] += 1;
        }
        for (name, count) in NODE_STATES.iter().zip(nodes) {
            self.nodes.get_or_create(&[("state", name)]).set(count);
        }
        let mut tasks = [0; state::ALL.len()];
        for task in view.all::<Task>() {
            let index = state::ALL.iter().position(|state| *state == task.state());
            tasks[index.expect("ALL has every state")] += 1;
        }
        for (state, count) in state::ALL.iter().zip(tasks) {
            self.tasks
                .get_or_create(&[("state", state.name())])
                .set(count);
        }
        for (gauge, count) in [
            (&self.services, view.count::<Service>()),
            (&self.networks, view.count::<Network>()),
            (&self.secrets, view.count::<Secret>()),
            (&self.configs, view.count::<Config>()),
        ] {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

const NODE_STATES: [&str; 4] = ["unknown", "down", "ready", "disconnected"];

/// The place of a state in [`NODE_STATES`].
fn node_state(state: NodeState) -> usize {
    match state {
        NodeState::Unknown => 0,
        NodeState::Down => 1,
        NodeState::Ready => 2,
        NodeState::Disconnected => 3,
    }
}
