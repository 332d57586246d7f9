//! The filters in their order, what each of them tells users, and how counts become a sentence
//! (control-plane spec 15.4 and 15.5).

/// A filter; the first one in this order that rejects a node is the one that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    /// The node is not READY, or is paused or drained.
    Ready,
    /// Too little CPU, memory or generic resources is left.
    Resource,
    /// The disk of the node does not take the record of a task.
    Disk,
    /// A volume, network or log plugin is missing.
    Plugin,
    /// A placement constraint does not hold.
    Constraint,
    /// No listed platform is the node's.
    Platform,
    /// What runs the node's tasks cannot run the image.
    Engine,
    /// A host port is taken.
    HostPort,
    /// The node has as many tasks of the service as it may.
    MaxReplicas,
    /// The task mounts a cluster volume.
    Volumes,
}

impl Filter {
    /// All filters in order.
    pub const ALL: [Self; 10] = [
        Self::Ready,
        Self::Resource,
        Self::Disk,
        Self::Plugin,
        Self::Constraint,
        Self::Platform,
        Self::Engine,
        Self::HostPort,
        Self::MaxReplicas,
        Self::Volumes,
    ];

    /// What it says about so many rejected nodes. Users and scripts know these texts.
    pub fn text(self, nodes: u64) -> String {
        let on = if nodes == 1 {
            "on 1 node".to_owned()
        } else {
            format!("on {nodes} nodes")
        };
        match self {
            Self::Ready if nodes == 1 => "1 node not available for new tasks".to_owned(),
            Self::Ready => format!("{nodes} nodes not available for new tasks"),
            Self::Resource => format!("insufficient resources {on}"),
            Self::Disk => format!("disk trouble {on}"),
            Self::Plugin => format!("missing plugin {on}"),
            Self::Constraint => format!("scheduling constraints not satisfied {on}"),
            Self::Platform => format!("unsupported platform {on}"),
            Self::Engine => format!("image cannot be run {on}"),
            Self::HostPort => format!("host-mode port already in use {on}"),
            Self::MaxReplicas => "max replicas per node limit exceed".to_owned(),
            Self::Volumes => format!("cannot fulfill requested CSI volume mounts {on}"),
        }
    }
}

/// How many nodes each filter rejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts([u64; Filter::ALL.len()]);

impl Counts {
    /// One node, rejected by one filter.
    pub(crate) fn one(filter: Filter) -> Self {
        let mut counts = Self::default();
        counts.change(None, Some(filter));
        counts
    }

    /// Moves one node from one verdict to another.
    pub(crate) fn change(&mut self, old: Option<Filter>, new: Option<Filter>) {
        if let Some(old) = old {
            self.0[old as usize] -= 1;
        }
        if let Some(new) = new {
            self.0[new as usize] += 1;
        }
    }

    /// The filters that rejected nodes, the busiest first, in their order where equal.
    pub(crate) fn sorted(&self) -> Vec<(Filter, u64)> {
        let mut counts: Vec<(Filter, u64)> = Filter::ALL
            .into_iter()
            .map(|filter| (filter, self.0[filter as usize]))
            .filter(|(_, nodes)| *nodes > 0)
            .collect();
        counts.sort_by_key(|(_, nodes)| std::cmp::Reverse(*nodes));
        counts
    }

    /// The texts of [`Counts::sorted`] in one line; empty if nothing was rejected.
    pub(crate) fn explanation(&self) -> String {
        let texts: Vec<String> = self
            .sorted()
            .into_iter()
            .map(|(filter, nodes)| filter.text(nodes))
            .collect();
        texts.join("; ")
    }

    /// The error of a task for which there is no node.
    pub(crate) fn no_suitable_node(&self) -> String {
        let explanation = self.explanation();
        if explanation.is_empty() {
            "no suitable node".to_owned()
        } else {
            format!("no suitable node ({explanation})")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_has_its_singular_and_plural() {
        let texts: Vec<String> = Filter::ALL
            .into_iter()
            .flat_map(|filter| [filter.text(1), filter.text(2)])
            .collect();
        let expected = "\
1 node not available for new tasks
2 nodes not available for new tasks
insufficient resources on 1 node
insufficient resources on 2 nodes
disk trouble on 1 node
disk trouble on 2 nodes
missing plugin on 1 node
missing plugin on 2 nodes
scheduling constraints not satisfied on 1 node
scheduling constraints not satisfied on 2 nodes
unsupported platform on 1 node
unsupported platform on 2 nodes
image cannot be run on 1 node
image cannot be run on 2 nodes
host-mode port already in use on 1 node
host-mode port already in use on 2 nodes
max replicas per node limit exceed
max replicas per node limit exceed
cannot fulfill requested CSI volume mounts on 1 node
cannot fulfill requested CSI volume mounts on 2 nodes";
        assert_eq!(texts.join("\n"), expected);
    }

    #[test]
    fn explanations_begin_with_the_filter_that_rejected_most() {
        let mut counts = Counts::default();
        assert_eq!(counts.no_suitable_node(), "no suitable node");
        counts.change(None, Some(Filter::Ready));
        counts.change(None, Some(Filter::Platform));
        counts.change(None, Some(Filter::Platform));
        assert_eq!(
            counts.no_suitable_node(),
            "no suitable node (unsupported platform on 2 nodes; \
             1 node not available for new tasks)"
        );
        counts.change(Some(Filter::Platform), Some(Filter::Resource));
        assert_eq!(
            counts.explanation(),
            "1 node not available for new tasks; insufficient resources on 1 node; \
             unsupported platform on 1 node"
        );
    }
}
