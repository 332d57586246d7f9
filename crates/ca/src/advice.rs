//! What a person is to do on a node, in the words of what runs there: `swarmd`, or a Docker Engine,
//! which has commands of its own for the same.

use swarm_types::Node;
use swarm_types::engine::Engine;

/// How a node comes back that has no certificate which counts any more.
pub fn readmit(node: &Node) -> String {
    let id = &node.id;
    match Engine::of(node) {
        Some(Engine::Docker) => format!(
            "swarmctl node readmit {id}, and there `docker swarm leave` and the `docker swarm \
             join` that it prints; the node keeps its id"
        ),
        Some(Engine::Native) | None => {
            format!(
                "swarmctl node readmit {id}, and start swarmd there with the token that it prints"
            )
        }
    }
}

/// Starts what runs on a node, by the name that people have for the node.
pub fn start_again(node: &Node, name: &str) -> String {
    match Engine::of(node) {
        Some(Engine::Docker) => format!("start the Docker Engine on {name} again"),
        Some(Engine::Native) | None => format!("start `swarmd` on {name} again"),
    }
}

/// Whose log it is.
pub(crate) fn log(node: &Node) -> String {
    let program = match Engine::of(node) {
        Some(Engine::Docker) => "the Docker Engine",
        Some(Engine::Native) | None => "swarmd",
    };
    format!("look into the log of {program} on {}", node.id)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use swarm_api::v1;

    fn node(plugin: &str) -> Node {
        let mut node = Node::new("n".parse().unwrap(), v1::NodeSpec::default());
        node.description = Some(Arc::new(v1::NodeDescription {
            engine: Some(v1::EngineDescription {
                plugins: vec![v1::PluginDescription {
                    r#type: plugin.to_owned(),
                    name: "local".to_owned(),
                }],
                ..Default::default()
            }),
            ..Default::default()
        }));
        node
    }

    #[test]
    fn an_engine_is_told_about_in_dockers_words() {
        let engine = node("Volume");
        assert!(readmit(&engine).contains("`docker swarm leave`"));
        assert_eq!(
            start_again(&engine, "e"),
            "start the Docker Engine on e again"
        );
        assert_eq!(log(&engine), "look into the log of the Docker Engine on n");
        let own = node("other");
        assert!(readmit(&own).contains("start swarmd there"));
        assert_eq!(start_again(&own, "w"), "start `swarmd` on w again");
        assert_eq!(log(&own), "look into the log of swarmd on n");
    }
}
