//! What a task needs of a node: everything that filters and preferences read from it, in one value
//! that can be compared, so that tasks with equal needs share the work of judging nodes.

use std::sync::Arc;

use swarm_api::v1;
use swarm_types::conditions;
use swarm_types::constraint::{self, Constraint};
use swarm_types::engine::Engine;
use swarm_types::resources::{self, Resources};
use swarm_types::{Node, NodeState, Task, spec};
use v1::generic_resource::Resource;
use v1::placement_preference::Preference;

use crate::filter::Filter;
use crate::load::{HostPort, NodeView};

/// Plugin types, as nodes report them.
pub(crate) const VOLUME_PLUGIN: &str = "Volume";
pub(crate) const NETWORK_PLUGIN: &str = "Network";
pub(crate) const LOG_PLUGIN: &str = "Log";

/// The needs of a task. Ordered so that it can be a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Requirements {
    pub(crate) nano_cpus: i64,
    pub(crate) memory_bytes: i64,
    pub(crate) max_replicas: u64,
    pub(crate) generic: Vec<(String, i64)>,
    /// A reservation of named units, which nothing can satisfy.
    pub(crate) is_generic_malformed: bool,
    pub(crate) has_cluster_volume: bool,
    pub(crate) ports: Vec<HostPort>,
    /// Type and name of each plugin but the log driver's.
    pub(crate) plugins: Vec<(&'static str, String)>,
    pub(crate) log_driver: Option<String>,
    /// Architecture and operating system of each platform.
    pub(crate) platforms: Vec<(String, String)>,
    /// What can run the image; `None` for what is no container.
    pub(crate) engine: Option<Engine>,
    /// As the user wrote them.
    pub(crate) constraints: Vec<String>,
    pub(crate) spread: Vec<Spread>,
}

/// The label over whose values a task's service is spread.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Spread {
    NodeLabel(String),
    EngineLabel(String),
}

impl Spread {
    /// `None` for a descriptor that names no label; such a preference counts for nothing.
    fn parse(descriptor: &str) -> Option<Self> {
        let after = |prefix| constraint::suffix(descriptor, prefix).map(str::to_owned);
        after("node.labels.")
            .map(Self::NodeLabel)
            .or_else(|| after("engine.labels.").map(Self::EngineLabel))
    }

    /// The node's value; empty if it has none.
    pub(crate) fn value<'a>(&self, node: &'a Node) -> &'a str {
        match self {
            Self::NodeLabel(label) => constraint::node_label(node, label),
            Self::EngineLabel(label) => constraint::engine_label(node, label),
        }
        .unwrap_or("")
    }
}

impl Requirements {
    /// Reads them from a task.
    pub(crate) fn of(task: &Task) -> Self {
        let mut needs = Self::of_spec(&task.spec);
        let networks = task.networks.iter().filter_map(network_driver);
        needs
            .plugins
            .extend(networks.map(|driver| (NETWORK_PLUGIN, driver.to_owned())));
        needs.plugins.sort();
        needs.plugins.dedup();
        needs.ports = host_ports(task).collect();
        needs.ports.sort();
        needs.ports.dedup();
        needs
    }

    fn of_spec(spec: &v1::TaskSpec) -> Self {
        let mut needs = Self {
            log_driver: spec
                .log_driver
                .as_ref()
                .map(|driver| driver.name.clone())
                .filter(|name| !name.is_empty() && name != "none"),
            engine: spec::container(spec).map(Engine::for_container),
            ..Self::default()
        };
        if let Some(reservations) = spec::reservations(spec) {
            needs.reserve(reservations);
        }
        if let Some(placement) = &spec.placement {
            needs.restrict(placement);
        }
        for mount in spec::container(spec).map_or(&[][..], |container| &container.mounts) {
            needs.mount(mount);
        }
        needs
    }

    fn reserve(&mut self, reservations: &v1::Resources) {
        self.nano_cpus = reservations.nano_cpus.max(0);
        self.memory_bytes = reservations.memory_bytes.max(0);
        self.is_generic_malformed = resources::check_reservation(&reservations.generic).is_err();
        for entry in &reservations.generic {
            if let Some(Resource::DiscreteResourceSpec(amount)) = &entry.resource {
                self.generic.push((amount.kind.clone(), amount.value));
            }
        }
    }

    fn restrict(&mut self, placement: &v1::Placement) {
        self.max_replicas = placement.max_replicas;
        self.constraints.clone_from(&placement.constraints);
        self.platforms = placement
            .platforms
            .iter()
            .map(|platform| (platform.architecture.clone(), platform.os.clone()))
            .collect();
        self.spread = placement
            .preferences
            .iter()
            .filter_map(|preference| match preference.preference.as_ref()? {
                Preference::Spread(spread) => Spread::parse(&spread.spread_descriptor),
            })
            .collect();
    }

    fn mount(&mut self, mount: &v1::Mount) {
        if mount.r#type == v1::mount::Type::Cluster as i32 {
            self.has_cluster_volume = true;
        }
        if mount.r#type == v1::mount::Type::Volume as i32
            && let Some(options) = &mount.volume_options
            && let Some(driver) = &options.driver_config
            && !driver.name.is_empty()
            && driver.name != "local"
        {
            self.plugins.push((VOLUME_PLUGIN, driver.name.clone()));
        }
    }

    /// The generic reservation as a list of resources.
    pub(crate) fn generic_reservation(&self) -> Resources {
        self.generic
            .iter()
            .map(|(kind, amount)| resources::discrete(kind.clone(), *amount))
            .collect()
    }
}

/// Whether two tasks need the same, as far as a quick look at what needs are read from can tell.
pub(crate) fn are_same(one: &Task, two: &Task) -> bool {
    fn drivers(task: &Task) -> impl Iterator<Item = &str> {
        task.networks.iter().filter_map(network_driver)
    }
    one.shares_body(two)
        || (Arc::ptr_eq(&one.spec, &two.spec) || one.spec == two.spec)
            && drivers(one).eq(drivers(two))
            && host_ports(one).eq(host_ports(two))
}

/// The driver of an attached network, if the allocator has set it up.
fn network_driver(attachment: &v1::NetworkAttachment) -> Option<&str> {
    let driver = attachment.network.as_ref()?.driver_state.as_ref()?;
    (!driver.name.is_empty()).then_some(driver.name.as_str())
}

/// The host ports that a task wants or holds.
pub(crate) fn host_ports(task: &Task) -> impl Iterator<Item = HostPort> {
    let ports = task
        .endpoint
        .as_ref()
        .map_or(&[][..], |endpoint| &endpoint.ports);
    ports
        .iter()
        .filter(|port| {
            port.publish_mode == v1::port_config::PublishMode::Host as i32
                && port.published_port != 0
        })
        .map(|port| HostPort {
            protocol: port.protocol,
            port: port.published_port,
        })
}

/// The needs of tasks with what is worked out once from them.
#[derive(Clone, Debug)]
pub(crate) struct Pipeline {
    pub(crate) needs: Arc<Requirements>,
    /// Empty when they do not parse: validation refuses such a spec, and one that is stored all the
    /// same must not block its service for ever (spec 15.4: the filter is off then).
    pub(crate) constraints: Vec<Constraint>,
}

impl Pipeline {
    pub(crate) fn new(needs: Arc<Requirements>) -> Self {
        let constraints = Constraint::parse_all(&needs.constraints).unwrap_or_default();
        Self { needs, constraints }
    }

    /// The first of the filters that depend on nothing but the node object.
    pub(crate) fn fixed(&self, node: &Node) -> Option<Filter> {
        if !is_ready(node) {
            Some(Filter::Ready)
        } else if conditions::refuse_tasks(node) {
            Some(Filter::Disk)
        } else if !self.has_plugins(node) {
            Some(Filter::Plugin)
        } else if !constraint::matches_all(&self.constraints, node) {
            Some(Filter::Constraint)
        } else if !self.has_platform(node) {
            Some(Filter::Platform)
        } else if !self.has_engine(node) {
            Some(Filter::Engine)
        } else {
            None
        }
    }

    /// The filter that rejects the node, given what [`Pipeline::fixed`] found; `service_tasks` is
    /// how many active tasks of the service are on it.
    pub(crate) fn verdict(
        &self,
        fixed: Option<Filter>,
        node: &NodeView<'_>,
        service_tasks: u64,
    ) -> Option<Filter> {
        // The filters' order is: Ready, Resource, the other fixed ones, and then the rest.
        if fixed == Some(Filter::Ready) {
            return fixed;
        }
        if !self.has_resources(node) {
            return Some(Filter::Resource);
        }
        let needs = &self.needs;
        if fixed.is_some() {
            fixed
        } else if needs.ports.iter().any(|port| node.is_port_used(*port)) {
            Some(Filter::HostPort)
        } else if needs.max_replicas > 0 && service_tasks >= needs.max_replicas {
            Some(Filter::MaxReplicas)
        } else if needs.has_cluster_volume {
            Some(Filter::Volumes)
        } else {
            None
        }
    }

    fn has_resources(&self, node: &NodeView<'_>) -> bool {
        let needs = &self.needs;
        if needs.nano_cpus > 0 && i128::from(needs.nano_cpus) > node.free_nano_cpus()
            || needs.memory_bytes > 0 && i128::from(needs.memory_bytes) > node.free_memory()
            || needs.is_generic_malformed
        {
            return false;
        }
        // One kind may be listed twice; claiming one after the other adds them up.
        let mut free = None;
        needs
            .generic
            .iter()
            .filter(|(_, amount)| *amount > 0)
            .all(|(kind, amount)| {
                let free = free.get_or_insert_with(|| node.free_generic());
                let wanted = resources::discrete(kind.clone(), *amount);
                !resources::claim(free, std::slice::from_ref(&wanted)).is_empty()
            })
    }

    fn has_plugins(&self, node: &Node) -> bool {
        self.missing_plugins(node).next().is_none()
    }

    /// Type and name of each plugin that the node lacks. A node which reports no engine is trusted,
    /// and so is one which reports no log plugins at all.
    pub(crate) fn missing_plugins<'a>(
        &'a self,
        node: &'a Node,
    ) -> impl Iterator<Item = (&'static str, &'a str)> {
        let engine = node
            .description
            .as_ref()
            .and_then(|description| description.engine.as_ref());
        let plugins = engine.map_or(&[][..], |engine| &engine.plugins);
        let reports_logs = plugins.iter().any(|plugin| plugin.r#type == LOG_PLUGIN);
        let log = self.needs.log_driver.as_deref().filter(|_| reports_logs);
        self.needs
            .plugins
            .iter()
            .map(|(kind, name)| (*kind, name.as_str()))
            .chain(log.map(|name| (LOG_PLUGIN, name)))
            .filter(move |(kind, name)| engine.is_some() && !has_plugin(plugins, kind, name))
    }

    /// Whether any listed platform is the node's.
    pub(crate) fn has_platform(&self, node: &Node) -> bool {
        let platforms = &self.needs.platforms;
        if platforms.is_empty() {
            return true;
        }
        let Some(own) = node
            .description
            .as_ref()
            .and_then(|description| description.platform.as_ref())
        else {
            return false;
        };
        platforms.iter().any(|(architecture, os)| {
            let fits_architecture = architecture.is_empty()
                || constraint::is_same_architecture(architecture, &own.architecture);
            fits_architecture && (os.is_empty() || *os == own.os)
        })
    }

    /// Whether what runs the node's tasks can run the image. A node that does not say what that is
    /// is trusted.
    pub(crate) fn has_engine(&self, node: &Node) -> bool {
        match (self.needs.engine, Engine::of(node)) {
            (Some(needed), Some(own)) => needed == own,
            (None, _) | (_, None) => true,
        }
    }
}

/// Whether a node takes new tasks.
pub(crate) fn is_ready(node: &Node) -> bool {
    node.status.state == NodeState::Ready
        && node.availability() == v1::node_spec::Availability::Active
}

fn has_plugin(plugins: &[v1::PluginDescription], kind: &str, name: &str) -> bool {
    plugins.iter().any(|plugin| {
        plugin.r#type == kind
            && (plugin.name == name || plugin.name.strip_suffix(":latest") == Some(name))
    })
}
