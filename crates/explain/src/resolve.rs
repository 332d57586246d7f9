//! Which object is meant.

use std::fmt;
use std::sync::Arc;

use swarm_store::{By, Root};
use swarm_types::{Id, Node, NodeId, Service, ServiceId, Slot, Task, TaskId};

use crate::words::{node_name, task_name};

/// Candidates that an ambiguous name lists.
pub const CANDIDATES_MAX: usize = 10;

/// A kind of object that can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A service.
    Service,
    /// A task.
    Task,
    /// A node.
    Node,
}

impl Subject {
    /// Reads the name of a kind; an empty one stands for any.
    ///
    /// # Errors
    /// [`Unanswered::UnknownKind`].
    pub fn parse(name: &str) -> Result<Option<Self>, Unanswered> {
        match name {
            "" => Ok(None),
            "service" => Ok(Some(Self::Service)),
            "task" => Ok(Some(Self::Task)),
            "node" => Ok(Some(Self::Node)),
            other => Err(Unanswered::UnknownKind(other.to_owned())),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Task => "task",
            Self::Node => "node",
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The request names no object.
    NoObject,
    /// The request names a kind that cannot be explained.
    UnknownKind(String),
    /// No object has this id or name.
    NotFound {
        /// The kind that was asked for.
        subject: Option<Subject>,
        /// What was asked for.
        object: String,
    },
    /// Several objects have this name, or ids that begin so.
    Ambiguous {
        /// What was asked for.
        object: String,
        /// The first [`CANDIDATES_MAX`] of them.
        candidates: Vec<Candidate>,
        /// How many there are.
        total: usize,
    },
}

/// An object that may be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its kind.
    pub subject: Subject,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoObject => {
                f.write_str("no object is named; give the id or name of a service, task or node")
            }
            Self::UnknownKind(kind) => {
                write!(
                    f,
                    "kind {kind:?} cannot be explained; use service, task or node"
                )
            }
            Self::NotFound { subject, object } => {
                let kinds = subject.map_or("service, task or node", Subject::name);
                write!(f, "no {kinds} has the id or name {object:?}")
            }
            Self::Ambiguous {
                object,
                candidates,
                total,
            } => {
                let shown: Vec<String> = candidates.iter().map(ToString::to_string).collect();
                write!(f, "{object:?} is ambiguous: it fits {}", shown.join(", "))?;
                match total - candidates.len() {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

impl std::error::Error for Unanswered {}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.subject.name(), self.id, self.name)
    }
}

/// The object.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Service(Arc<Service>),
    Task(Arc<Task>),
    Node(Arc<Node>),
}

/// Finds the object that is meant.
pub(crate) fn resolve(
    view: &Root,
    subject: Option<Subject>,
    object: &str,
) -> Result<Found, Unanswered> {
    if object.is_empty() {
        return Err(Unanswered::NoObject);
    }
    let search = Search {
        view,
        subject,
        object,
    };
    for found in [search.by_id(), search.by_name(), search.by_prefix()] {
        if let Some(found) = search.only(found)? {
            return Ok(found);
        }
    }
    Err(Unanswered::NotFound {
        subject,
        object: object.to_owned(),
    })
}

struct Search<'a> {
    view: &'a Root,
    subject: Option<Subject>,
    object: &'a str,
}

impl Search<'_> {
    fn wants(&self, subject: Subject) -> bool {
        self.subject.is_none_or(|wanted| wanted == subject)
    }

    fn by_id(&self) -> Vec<Found> {
        let Ok(id) = self.object.parse::<Id>() else {
            return Vec::new();
        };
        let service = self.view.service(&ServiceId::new(id.clone()));
        let node = self.view.node(&NodeId::new(id.clone()));
        let task = self.view.task(&TaskId::new(id));
        self.wanted(
            service.cloned().into_iter().collect(),
            task.cloned().into_iter().collect(),
            node.cloned().into_iter().collect(),
        )
    }

    fn by_name(&self) -> Vec<Found> {
        let by = By::Name(self.object.to_owned());
        let mut found = self.select(&by);
        if found.is_empty() && self.wants(Subject::Task) {
            found.extend(self.by_replica_name().map(Found::Task));
        }
        found
    }

    fn by_prefix(&self) -> Vec<Found> {
        self.select(&By::IdPrefix(self.object.to_owned()))
    }

    /// The task that a replica has now, by `service.slot` or `service.node`.
    fn by_replica_name(&self) -> Option<Arc<Task>> {
        let (service, place) = self.object.rsplit_once('.')?;
        let services = self
            .view
            .find::<Service>(&By::Name(service.to_owned()))
            .ok()?;
        let service = services.first()?;
        let tasks: Vec<&Arc<Task>> = match place.parse() {
            Ok(slot) => self.view.tasks_in_slot(&service.id, Slot(slot)).collect(),
            Err(_) => {
                let nodes = self.view.find::<Node>(&By::Name(place.to_owned())).ok()?;
                let node = &nodes.first()?.id;
                let tasks = self.view.tasks_on_node(node);
                tasks
                    .filter(|task| task.service_id.as_ref() == Some(&service.id))
                    .collect()
            }
        };
        tasks
            .into_iter()
            .max_by_key(|task| (task.is_live(), task.meta.created_at, &task.id))
            .cloned()
    }

    fn select(&self, by: &By) -> Vec<Found> {
        self.wanted(
            self.view.find::<Service>(by).unwrap_or_default(),
            self.view.find::<Task>(by).unwrap_or_default(),
            self.view.find::<Node>(by).unwrap_or_default(),
        )
    }

    fn wanted(
        &self,
        services: Vec<Arc<Service>>,
        tasks: Vec<Arc<Task>>,
        nodes: Vec<Arc<Node>>,
    ) -> Vec<Found> {
        let mut found = Vec::new();
        if self.wants(Subject::Service) {
            found.extend(services.into_iter().map(Found::Service));
        }
        if self.wants(Subject::Node) {
            found.extend(nodes.into_iter().map(Found::Node));
        }
        if self.wants(Subject::Task) {
            found.extend(tasks.into_iter().map(Found::Task));
        }
        found
    }

    fn only(&self, mut found: Vec<Found>) -> Result<Option<Found>, Unanswered> {
        if found.len() <= 1 {
            return Ok(found.pop());
        }
        let candidates = found.iter().take(CANDIDATES_MAX);
        Err(Unanswered::Ambiguous {
            object: self.object.to_owned(),
            candidates: candidates.map(|found| self.candidate(found)).collect(),
            total: found.len(),
        })
    }

    fn candidate(&self, found: &Found) -> Candidate {
        let (subject, id, name) = match found {
            Found::Service(it) => (
                Subject::Service,
                it.id.to_string(),
                it.spec.name().to_owned(),
            ),
            Found::Task(it) => (Subject::Task, it.id.to_string(), task_name(self.view, it)),
            Found::Node(it) => (Subject::Node, it.id.to_string(), node_name(it)),
        };
        Candidate { subject, id, name }
    }
}
