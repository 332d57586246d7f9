//! Conditions of a node: what its agent says is wrong with it, or cannot be had on it.
//!
//! They travel as plugins of a reserved type in the engine's description, which managers and
//! clients of SwarmKit keep, replicate and otherwise pass over (ADR 0019). Owns their form and what
//! each kind means for new tasks. Does not own how a node finds them out.

use swarm_api::v1;

use crate::objects::Node;

/// Begins the type of a plugin that is a condition; the name of its kind follows.
pub const CONDITION_TYPE_PREFIX: &str = "swarmkit-rs.condition/";
/// Longest text of a condition, in bytes; the rest is cut off.
pub const CONDITION_BYTES_MAX: usize = 512;
/// Conditions of one node that are looked at. Ours has fewer kinds; a bound on one that makes up
/// its own.
pub const CONDITIONS_MAX: usize = 32;

/// What a condition is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The disk is full or does not take writes.
    Disk,
    /// Little memory is left.
    Memory,
    /// The log of the daemon cannot be written.
    Log,
    /// The clock differs from the manager's.
    Clock,
    /// Limits of CPU do not apply.
    LimitCpu,
    /// Limits of memory do not apply.
    LimitMemory,
    /// Limits of processes do not apply.
    LimitPids,
    /// The agent is not root, so tasks have its user.
    Rootless,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Disk,
        Self::Memory,
        Self::Log,
        Self::Clock,
        Self::LimitCpu,
        Self::LimitMemory,
        Self::LimitPids,
        Self::Rootless,
    ];

    /// The name on the wire and for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Memory => "memory",
            Self::Log => "log",
            Self::Clock => "clock",
            Self::LimitCpu => "limit-cpu",
            Self::LimitMemory => "limit-memory",
            Self::LimitPids => "limit-pids",
            Self::Rootless => "rootless",
        }
    }

    /// Whether the node takes no new tasks while it is so: it could not record them.
    pub fn refuses_tasks(self) -> bool {
        match self {
            Self::Disk => true,
            Self::Memory
            | Self::Log
            | Self::Clock
            | Self::LimitCpu
            | Self::LimitMemory
            | Self::LimitPids
            | Self::Rootless => false,
        }
    }

    /// Whether other nodes are preferred for new tasks while it is so.
    pub fn repels_tasks(self) -> bool {
        match self {
            Self::Disk | Self::Memory => true,
            Self::Log
            | Self::Clock
            | Self::LimitCpu
            | Self::LimitMemory
            | Self::LimitPids
            | Self::Rootless => false,
        }
    }

    /// Whether somebody should do something about it, rather than know it.
    pub fn is_trouble(self) -> bool {
        match self {
            Self::Disk | Self::Memory | Self::Log | Self::Clock => true,
            Self::LimitCpu | Self::LimitMemory | Self::LimitPids | Self::Rootless => false,
        }
    }

    /// What to do about it.
    pub fn way_out(self) -> &'static str {
        match self {
            Self::Disk => "free space on the disk of the node, or repair it",
            Self::Memory => "move tasks away from the node, or limit their memory",
            Self::Log => "give the log of `swarmd` on the node a place that takes writes",
            Self::Clock => "set the clock of the node, or let a time service do it",
            Self::LimitCpu | Self::LimitMemory | Self::LimitPids => {
                "run `swarmd` on the node as root or with a delegated cgroup"
            }
            Self::Rootless => "run `swarmd` on the node as root if tasks need other users",
        }
    }
}

/// One condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition<'a> {
    /// The name of its kind, which may be one that we do not know.
    pub name: &'a str,
    /// Its kind, if we know it.
    pub kind: Option<Kind>,
    /// What is so, in words.
    pub text: &'a str,
}

/// Adds a condition to a description; one of the same kind is replaced.
pub fn add(description: &mut v1::NodeDescription, kind: Kind, text: &str) {
    let r#type = format!("{CONDITION_TYPE_PREFIX}{}", kind.name());
    let plugins = &mut description.engine.get_or_insert_default().plugins;
    plugins.retain(|plugin| plugin.r#type != r#type);
    let mut name: String = text
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect();
    name.truncate(name.floor_char_boundary(CONDITION_BYTES_MAX));
    plugins.push(v1::PluginDescription { r#type, name });
}

/// Takes all conditions out of a description.
pub fn clear(description: &mut v1::NodeDescription) {
    if let Some(engine) = &mut description.engine {
        engine.plugins.retain(|plugin| !is_condition(plugin));
    }
}

/// The conditions in a description.
pub fn of(description: &v1::NodeDescription) -> impl Iterator<Item = Condition<'_>> {
    let engine = description.engine.as_ref();
    let plugins = engine.map_or(&[][..], |engine| &engine.plugins);
    plugins.iter().filter_map(read).take(CONDITIONS_MAX)
}

/// The conditions of a node.
pub fn of_node(node: &Node) -> impl Iterator<Item = Condition<'_>> {
    node.description.as_deref().into_iter().flat_map(of)
}

/// Whether a description has a condition of this kind.
pub fn has(description: &v1::NodeDescription, kind: Kind) -> bool {
    of(description).any(|condition| condition.kind == Some(kind))
}

/// Whether this is a condition, rather than a plugin.
pub fn is_condition(plugin: &v1::PluginDescription) -> bool {
    plugin.r#type.starts_with(CONDITION_TYPE_PREFIX)
}

/// Whether a node takes no new tasks because of a condition.
pub fn refuse_tasks(node: &Node) -> bool {
    of_node(node).any(|condition| condition.kind.is_some_and(Kind::refuses_tasks))
}

/// Whether other nodes are preferred to this one.
pub fn repel_tasks(node: &Node) -> bool {
    of_node(node).any(|condition| condition.kind.is_some_and(Kind::repels_tasks))
}

fn read(plugin: &v1::PluginDescription) -> Option<Condition<'_>> {
    let name = plugin.r#type.strip_prefix(CONDITION_TYPE_PREFIX)?;
    Some(Condition {
        name,
        kind: Kind::ALL.into_iter().find(|kind| kind.name() == name),
        text: &plugin.name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_comes_back_and_is_replaced_by_the_next_of_its_kind() {
        let mut description = v1::NodeDescription::default();
        for kind in Kind::ALL {
            add(&mut description, kind, "first");
            add(&mut description, kind, &format!("{} is\nbad", kind.name()));
        }
        let found: Vec<Condition<'_>> = of(&description).collect();
        assert_eq!(found.len(), Kind::ALL.len());
        for (condition, kind) in found.iter().zip(Kind::ALL) {
            assert_eq!(condition.kind, Some(kind));
            assert_eq!(condition.text, format!("{} is bad", kind.name()));
        }
        assert!(has(&description, Kind::Disk));
        clear(&mut description);
        assert_eq!(description.engine.unwrap().plugins, []);
    }

    #[test]
    fn plugins_are_no_conditions_and_unknown_kinds_are_shown_and_mean_nothing() {
        let plugin = |kind: &str, name: &str| v1::PluginDescription {
            r#type: kind.to_owned(),
            name: name.to_owned(),
        };
        let mut description = v1::NodeDescription::default();
        let engine = description.engine.get_or_insert_default();
        engine.plugins = vec![
            plugin("Network", "host"),
            plugin("swarmkit-rs.condition/fan", "it stands still"),
        ];
        let found: Vec<Condition<'_>> = of(&description).collect();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name, found[0].kind), ("fan", None));
        let mut node = Node::new("n".parse().unwrap(), v1::NodeSpec::default());
        assert!(!repel_tasks(&node));
        node.description = Some(description.into());
        assert!(!repel_tasks(&node) && !refuse_tasks(&node));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let mut description = v1::NodeDescription::default();
        add(
            &mut description,
            Kind::Log,
            &"ä".repeat(CONDITION_BYTES_MAX),
        );
        let text = of(&description).next().unwrap().text;
        assert_eq!(text.len(), CONDITION_BYTES_MAX);
    }
}
