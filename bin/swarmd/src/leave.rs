//! `swarmd leave`: ends what this machine has of a cluster.

use swarm_node::leave::{self, Left};

use crate::args::{Leave, LeaveTasks};

/// Leaves, and says what was done and what is left to do.
pub(crate) async fn run(args: Leave) -> anyhow::Result<()> {
    let tasks = match args.tasks {
        LeaveTasks::End => leave::Tasks::End,
        LeaveTasks::Keep => leave::Tasks::Keep,
    };
    let left = leave::leave(&args.state_dir, tasks, args.force).await;
    let left = left.map_err(|error| anyhow::anyhow!("{}", swarm_rt::chain(&error)))?;
    tell(&args, &left);
    Ok(())
}

fn tell(args: &Leave, left: &Left) {
    let node = left
        .node
        .as_ref()
        .map_or_else(String::new, |node| format!(" of node {node}"));
    let dir = args.state_dir.display();
    anstream::println!(
        "removed the state{node} from {dir}; {} tasks were ended",
        left.ended
    );
    if let Some(kept) = &left.kept {
        anstream::eprintln!(
            "warning: tasks run on, and nobody cares for them: they are in {}; `swarmd leave \
             --state-dir {dir}` ends them",
            kept.display()
        );
    }
    for other in &left.others {
        anstream::eprintln!(
            "warning: {} is no state of a node and stays",
            other.display()
        );
    }
    if let Some(node) = &left.node {
        anstream::eprintln!(
            "hint: to take the node out of the cluster's list, run `swarmctl node rm --force \
             {node}` on a manager"
        );
    }
}
