//! What a task of image `host` cannot be on any node: refused here, rather than by each node that
//! gets the task, again and again.

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::native::{self, IMAGE_HOST};
use swarm_types::networks;
use v1::task_spec::Runtime;

use super::find_network;
use crate::refusal::{Refusal, rules};

/// The predefined network that a process of a node is on.
const NETWORK_HOST: &str = "host";

rules! {
    NATIVE: InvalidArgument,
        "TaskSpec: image \"host\" is a process of a node, and no node can run it so: {}";
    NATIVE_MANY: InvalidArgument,
        "TaskSpec: image \"host\" is a process of a node, and no node can run it so: {}; and {} \
         more";
    NATIVE_NETWORK: InvalidArgument,
        "TaskSpec: image \"host\" is a process of a node, which is on network host and not on {}; \
         attach it to host or to none";
}

/// Refuses a spec of image `host` that the executor of no node runs. Comes after all other checks,
/// which have SwarmKit's texts.
pub(crate) fn check(root: &Root, spec: &v1::ServiceSpec) -> Result<(), Refusal> {
    let Some(task) = &spec.task else {
        return Ok(());
    };
    let Some(Runtime::Container(container)) = &task.runtime else {
        return Ok(());
    };
    if container.image != IMAGE_HOST {
        return Ok(());
    }
    for config in task.networks.iter().chain(&spec.networks) {
        let network = find_network(root, &config.target)?;
        if networks::name(&network) != NETWORK_HOST {
            return Err(NATIVE_NETWORK.refuse(&[&networks::name(&network)]));
        }
    }
    // Templates stay as they are, since this is under the writer's lock: no field with a template
    // is looked at for more than that it is there.
    let problems = native::problems(task, container);
    match &problems[..] {
        [] => Ok(()),
        [only] => Err(NATIVE.refuse(&[only])),
        [first, more @ ..] => Err(NATIVE_MANY.refuse(&[first, &more.len()])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::world::{web, with, with_container};

    fn check(spec: &v1::ServiceSpec) -> Option<String> {
        let refusal = super::check(&Root::default(), spec).err();
        refusal.map(|refusal| refusal.to_string())
    }

    #[test]
    fn what_a_process_can_be_is_taken() {
        assert_eq!(check(&web("web")), None);
        assert_eq!(check(&v1::ServiceSpec::default()), None);
        let signal = with_container(|it| it.stop_signal = "SIGRTMIN+3".to_owned());
        assert_eq!(check(&signal), None);
    }

    #[test]
    fn what_no_node_runs_is_refused_with_the_first_reason_and_their_number() {
        let one = check(&with_container(|it| it.tty = true)).unwrap();
        assert!(one.contains("so: tty: not supported"), "{one}");
        let three = with_container(|it| {
            it.tty = true;
            it.stop_signal = "SIGNOPE".to_owned();
            it.dir = "here".to_owned();
        });
        let three = check(&three).unwrap();
        assert!(
            three.contains("tty") && three.ends_with("; and 2 more"),
            "{three}"
        );
    }

    #[test]
    fn other_images_are_for_container_engines() {
        let nginx = with_container(|it| {
            it.image = "nginx".to_owned();
            it.tty = true;
        });
        assert_eq!(check(&nginx), None);
        let unknown = with(web("web"), |spec| {
            let target = "gone".to_owned();
            spec.networks = vec![v1::NetworkAttachmentConfig {
                target,
                ..Default::default()
            }];
        });
        assert!(check(&unknown).is_some());
    }
}
