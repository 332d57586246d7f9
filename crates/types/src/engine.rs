//! What runs the tasks of a node, as its description says, and which images it can run. Does not
//! own how they are run (the executors) nor where they are placed (`swarm-scheduler`).

use swarm_api::v1;

use crate::native::IMAGE_HOST;
use crate::objects::Node;
use crate::spec;

/// The type of plugin under which a node of ours names its executor.
pub const EXECUTOR_PLUGIN: &str = "Executor";
/// The executor that runs programs of the node itself.
pub const NATIVE_EXECUTOR: &str = "native";
/// The type under which Docker Engines report what manages volumes; each has the local one.
const VOLUME_PLUGIN: &str = "Volume";

/// What runs tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Engine {
    /// Programs of the node itself, by `swarmd`.
    Native,
    /// Containers, by a Docker Engine.
    Docker,
}

impl Engine {
    /// What a node has; `None` if it does not say, and then it is trusted with everything.
    pub fn of(node: &Node) -> Option<Self> {
        Self::of_description(node.description.as_ref()?)
    }

    /// The same of a node's description.
    pub fn of_description(description: &v1::NodeDescription) -> Option<Self> {
        let plugins = &description.engine.as_ref()?.plugins;
        let has = |kind: &str, name: Option<&str>| {
            let mut plugins = plugins.iter();
            plugins.any(|it| it.r#type == kind && name.is_none_or(|name| it.name == name))
        };
        if has(EXECUTOR_PLUGIN, Some(NATIVE_EXECUTOR)) {
            Some(Self::Native)
        } else if has(VOLUME_PLUGIN, None) {
            Some(Self::Docker)
        } else {
            None
        }
    }

    /// What a container needs.
    pub fn for_container(container: &v1::ContainerSpec) -> Self {
        if container.image == IMAGE_HOST {
            Self::Native
        } else {
            Self::Docker
        }
    }
}

/// Whether a node can run a task, as far as its image says. A node that does not say what it has is
/// trusted.
pub fn can_run(task: &v1::TaskSpec, node: &Node) -> bool {
    match (spec::container(task), Engine::of(node)) {
        (Some(container), Some(own)) => Engine::for_container(container) == own,
        (None, _) | (_, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn node(plugins: &[(&str, &str)]) -> Node {
        let mut node = Node::new("n".parse().unwrap(), v1::NodeSpec::default());
        let plugins = plugins.iter().map(|(kind, name)| v1::PluginDescription {
            r#type: (*kind).to_owned(),
            name: (*name).to_owned(),
        });
        node.description = Some(Arc::new(v1::NodeDescription {
            engine: Some(v1::EngineDescription {
                plugins: plugins.collect(),
                ..Default::default()
            }),
            ..Default::default()
        }));
        node
    }

    #[test]
    fn a_node_says_by_its_plugins_what_runs_its_tasks() {
        let of = |plugins: &[(&str, &str)]| Engine::of(&node(plugins));
        let stock = [
            ("Volume", "local"),
            ("Network", "overlay"),
            ("Log", "json-file"),
        ];
        assert_eq!(of(&stock), Some(Engine::Docker));
        let own = [("Network", "host"), ("Executor", "native")];
        assert_eq!(of(&own), Some(Engine::Native));
        assert_eq!(of(&[("Network", "overlay")]), None);
        let mut silent = node(&[]);
        silent.description = None;
        assert_eq!(Engine::of(&silent), None);
    }

    #[test]
    fn the_image_says_what_a_container_needs() {
        let of = |image: &str| {
            Engine::for_container(&v1::ContainerSpec {
                image: image.to_owned(),
                ..Default::default()
            })
        };
        assert_eq!(of("host"), Engine::Native);
        for image in ["", "nginx", "host:latest", "HOST"] {
            assert_eq!(of(image), Engine::Docker, "{image}");
        }
    }
}
