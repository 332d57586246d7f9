//! The ten kinds of stored objects.

use std::fmt;

/// A kind of object. Each has its own table in the store; ids are unique within a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A machine of the cluster.
    Node,
    /// What a user wants to run.
    Service,
    /// A network.
    Network,
    /// One run of one replica.
    Task,
    /// The cluster itself; there is one, named `default`.
    Cluster,
    /// A secret.
    Secret,
    /// An object of a kind which an extension defines.
    Resource,
    /// A kind of resources.
    Extension,
    /// A config.
    Config,
    /// A cluster volume.
    Volume,
}

/// All kinds, in the order of their numbers in a store action.
pub const ALL: [Kind; 10] = [
    Kind::Node,
    Kind::Service,
    Kind::Task,
    Kind::Network,
    Kind::Cluster,
    Kind::Secret,
    Kind::Resource,
    Kind::Extension,
    Kind::Config,
    Kind::Volume,
];

impl Kind {
    /// The name, in lower case, as messages and the watch API use it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Service => "service",
            Self::Network => "network",
            Self::Task => "task",
            Self::Cluster => "cluster",
            Self::Secret => "secret",
            Self::Resource => "resource",
            Self::Extension => "extension",
            Self::Config => "config",
            Self::Volume => "volume",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
