//! The names of services, slots and nodes that lines come from.

use std::collections::{BTreeMap, BTreeSet};

use swarm_api::v1;

use crate::failure::{Exit, Failure};
use crate::lookup::{Named as _, of_service, replica_name};
use crate::node;
use crate::output::Context;

/// Where a line comes from, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) service: String,
    pub(super) slot: u64,
    /// `service.slot`, or the id of the task.
    pub(super) replica: String,
}

/// What is known so far.
pub(super) struct Names<'a> {
    context: &'a Context,
    tasks: BTreeMap<String, Place>,
    nodes: BTreeMap<String, String>,
    /// Asked for in vain: removed, or never there.
    unknown: BTreeSet<String>,
    /// The longest prefix, to line up all of them.
    width: usize,
}

impl<'a> Names<'a> {
    pub(super) fn new(context: &'a Context) -> Self {
        Self {
            context,
            tasks: BTreeMap::new(),
            nodes: BTreeMap::new(),
            unknown: BTreeSet::new(),
            width: 0,
        }
    }

    pub(super) async fn learn_service(&mut self, id: &str) -> Result<(), Failure> {
        for task in of_service(&self.context.manager, id).await? {
            self.learn_task(task);
        }
        Ok(())
    }

    pub(super) fn learn_task(&mut self, task: v1::Task) {
        let service = task.service_annotations.clone().unwrap_or_default().name;
        let replica = match service.is_empty() {
            true => task.id.clone(),
            false => replica_name(&task),
        };
        let place = Place {
            service,
            slot: task.slot,
            replica,
        };
        self.tasks.insert(task.id, place);
    }

    pub(super) async fn learn_nodes(&mut self) -> Result<(), Failure> {
        for node in node::all(self.context).await? {
            let name = node.name();
            if !name.is_empty() {
                self.nodes.insert(node.id, name);
            }
        }
        Ok(())
    }

    /// Asks for what these lines come from and is not known yet.
    pub(super) async fn learn(&mut self, lines: &[v1::LogMessage]) -> Result<(), Failure> {
        for context in lines.iter().filter_map(|line| line.context.as_ref()) {
            let is_new = |id: &String| !id.is_empty() && !self.unknown.contains(id);
            if is_new(&context.task_id) && !self.tasks.contains_key(&context.task_id) {
                let manager = &self.context.manager;
                match v1::Task::get(manager, &context.task_id).await {
                    Ok(Some(task)) => self.learn_task(task),
                    Ok(None) => drop(self.unknown.insert(context.task_id.clone())),
                    Err(failure) if failure.exit() == Exit::NotFound => {
                        self.unknown.insert(context.task_id.clone());
                    }
                    Err(failure) => return Err(failure),
                }
            }
            let is_new = |id: &String| !id.is_empty() && !self.unknown.contains(id);
            if is_new(&context.node_id) && !self.nodes.contains_key(&context.node_id) {
                self.learn_nodes().await?;
                if !self.nodes.contains_key(&context.node_id) {
                    self.unknown.insert(context.node_id.clone());
                }
            }
        }
        Ok(())
    }

    pub(super) fn place(&self, context: &v1::LogContext) -> Place {
        self.tasks
            .get(&context.task_id)
            .cloned()
            .unwrap_or_default()
    }

    /// A text of the manager with names in the place of the ids of nodes.
    pub(super) fn resolved(&self, text: &str) -> String {
        if !self.context.resolve {
            return text.to_owned();
        }
        let mut text = text.to_owned();
        for (id, name) in &self.nodes {
            text = text.replace(&format!("node {id}"), &format!("node {name}"));
        }
        text
    }

    pub(super) fn node(&self, id: &str) -> String {
        match self.context.resolve {
            true => self.nodes.get(id).map_or(id, String::as_str).to_owned(),
            false => id.to_owned(),
        }
    }

    /// `service.slot@node`, or ids if names are not wanted; as wide as the widest so far.
    pub(super) fn prefix(&mut self, context: &v1::LogContext) -> String {
        let place = self.tasks.get(&context.task_id);
        let replica = match (place, self.context.resolve) {
            (Some(place), true) => &place.replica,
            (Some(_), false) | (None, _) => &context.task_id,
        };
        let text = format!("{replica}@{}", self.node(&context.node_id));
        self.width = self.width.max(text.chars().count());
        format!("{text:<width$}", width = self.width)
    }
}
