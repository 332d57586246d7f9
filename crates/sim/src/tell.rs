//! How commits look in the trace.

use std::fmt;

use swarm_store::{Action, Change};
use swarm_types::{AnyObject, Task};

use crate::manager::replica::Entry;
use crate::trace::Weight;
use crate::world::World;

impl World {
    /// One line for each change.
    pub(crate) fn tell_commit(&mut self, entry: &Entry) {
        let author = entry.author.name();
        if self.is_calm {
            self.last_authors.push(author);
        }
        let (at, version) = (self.agenda.now(), entry.commit.version);
        for change in &entry.commit.changes {
            let told = Told {
                change,
                nodes: &self.nodes,
            };
            let what = format_args!("v{version} {author} {told}");
            self.trace.add(at, Weight::Major, "store", what);
        }
    }
}

struct Told<'a> {
    change: &'a Change,
    nodes: &'a [crate::node::Node],
}

impl fmt::Display for Told<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.change.action {
            Action::Create => "creates ",
            Action::Update => "updates ",
            Action::Remove => "removes ",
        })?;
        match &self.change.object {
            AnyObject::Task(task) => self.tell_task(f, task),
            AnyObject::Node(node) => {
                let state = node.status.state.name();
                write!(
                    f,
                    "node {} {state} {:?}",
                    node.hostname(),
                    node.availability()
                )
            }
            AnyObject::Service(_)
            | AnyObject::Network(_)
            | AnyObject::Cluster(_)
            | AnyObject::Secret(_)
            | AnyObject::Resource(_)
            | AnyObject::Extension(_)
            | AnyObject::Config(_)
            | AnyObject::Volume(_) => {
                let object = &self.change.object;
                write!(f, "{:?} {}", object.kind(), object.raw_id())
            }
        }
    }
}

impl Told<'_> {
    fn tell_task(&self, f: &mut fmt::Formatter<'_>, task: &Task) -> fmt::Result {
        let name = &task.service_annotations.name;
        write!(f, "task {} of {name} slot {}", task.id, task.slot)?;
        if let Some(id) = &task.node_id {
            match self.nodes.iter().find(|node| node.id == *id) {
                Some(node) => write!(f, " on {}", node.ix)?,
                None => write!(f, " on {id}")?,
            }
        }
        write!(f, " {} wanted {}", task.state(), task.desired_state())?;
        if !task.status().err.is_empty() {
            write!(f, " ({})", task.status().err)?;
        }
        Ok(())
    }
}
