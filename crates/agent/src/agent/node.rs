//! What concerns the node as a whole: its description, its object, managers, keys, the trust root.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use swarm_api::v1;
use swarm_types::Timestamp;
use swarm_types::conditions::{self, Kind};

use super::{Agent, Timer};
use crate::task::RETRY_BASE;

/// The node is described anew so often (spec 6.1).
pub const DESCRIBE_INTERVAL: Duration = Duration::from_secs(20);
/// Warnings that wait to be logged; older ones are dropped. A bound on a manager that sends
/// nonsense.
pub const WARNINGS_MAX: usize = 100;

/// Something to do for the node as a whole.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeAction {
    /// Describe this node; the answer goes to [`Agent::handle_description`].
    Describe,
    /// Hand the node object to the executor.
    Configure(Box<v1::Node>),
    /// The complete list of managers; forget all others.
    Managers(Vec<v1::WeightedPeer>),
    /// The trust root changed.
    RootCa(Bytes),
    /// Hand all of these keys to the executor.
    NetworkKeys(Vec<v1::EncryptionKey>),
    /// Log this.
    Warn(String),
}

/// Latest wins; one entry of each kind.
#[derive(Debug, Default)]
pub(super) struct NodeActions {
    describe: bool,
    node: Option<Box<v1::Node>>,
    managers: Option<Vec<v1::WeightedPeer>>,
    root_ca: Option<Bytes>,
    keys: Option<Vec<v1::EncryptionKey>>,
    warnings: VecDeque<String>,
}

/// What the managers said last, to tell news from repetition.
#[derive(Debug, Default)]
pub(super) struct Heeded {
    node: Option<v1::Node>,
    managers: Vec<v1::WeightedPeer>,
    root_ca: Bytes,
    keys: Vec<v1::EncryptionKey>,
}

impl Agent {
    /// The node was described, or could not be (then the last description stays).
    pub fn handle_description(
        &mut self,
        now: Timestamp,
        description: Result<v1::NodeDescription, String>,
        draw: &mut dyn FnMut() -> u64,
    ) {
        match description {
            Err(error) => {
                self.warn(format!("the node could not be described: {error}"));
                if self.session.is_idle() {
                    let at = now.saturating_add(RETRY_BASE);
                    self.timers.set(Timer::Describe, at);
                }
            }
            Ok(description) => self.take_description(now, description, draw),
        }
    }

    fn take_description(
        &mut self,
        now: Timestamp,
        mut description: v1::NodeDescription,
        draw: &mut dyn FnMut() -> u64,
    ) {
        if let Some(cause) = self.persist.trouble(now) {
            let text = format!("tasks cannot be recorded: {cause}");
            conditions::add(&mut description, Kind::Disk, &text);
        }
        let is_news = description != self.description;
        if !is_news && self.session.is_open() {
            return;
        }
        self.description = description;
        if is_news && self.session.is_open() {
            self.fail_session(now, "the description of the node changed", false, draw);
        }
        self.session.start(now);
    }

    /// Tells the managers at once that the disk takes no writes, unless they know.
    pub(super) fn tell_trouble(&mut self, now: Timestamp) {
        if !conditions::has(&self.description, Kind::Disk) {
            self.describe(now);
        }
    }

    /// The node has another certificate or root: what it says about itself is out of date.
    pub fn handle_certificate_changed(&mut self, now: Timestamp) {
        self.describe(now);
    }

    /// The next thing to do for the node as a whole.
    pub fn poll_node_action(&mut self) -> Option<NodeAction> {
        let actions = &mut self.actions;
        if std::mem::take(&mut actions.describe) {
            return Some(NodeAction::Describe);
        }
        let managers = actions.managers.take().map(NodeAction::Managers);
        managers
            .or_else(|| actions.root_ca.take().map(NodeAction::RootCa))
            .or_else(|| actions.keys.take().map(NodeAction::NetworkKeys))
            .or_else(|| actions.node.take().map(NodeAction::Configure))
            .or_else(|| actions.warnings.pop_front().map(NodeAction::Warn))
    }

    pub(super) fn describe(&mut self, now: Timestamp) {
        self.actions.describe = true;
        let at = now.saturating_add(DESCRIBE_INTERVAL);
        self.timers.set(Timer::Describe, at);
    }

    pub(super) fn warn(&mut self, text: String) {
        if self.actions.warnings.len() >= WARNINGS_MAX {
            self.actions.warnings.pop_front();
        }
        self.actions.warnings.push_back(text);
    }

    /// Takes over what concerns the node as a whole.
    pub(super) fn heed(&mut self, message: v1::SessionMessage) {
        let (heeded, actions) = (&mut self.heeded, &mut self.actions);
        if message.managers != heeded.managers {
            heeded.managers.clone_from(&message.managers);
            actions.managers = Some(message.managers);
        }
        if !message.root_ca.is_empty() && message.root_ca != heeded.root_ca {
            heeded.root_ca.clone_from(&message.root_ca);
            actions.root_ca = Some(message.root_ca);
        }
        if !message.network_bootstrap_keys.is_empty()
            && message.network_bootstrap_keys != heeded.keys
        {
            heeded.keys.clone_from(&message.network_bootstrap_keys);
            actions.keys = Some(message.network_bootstrap_keys);
        }
        if let Some(node) = message.node {
            let essence = v1::Node {
                status: None,
                meta: None,
                ..node.clone()
            };
            if heeded.node.as_ref() != Some(&essence) {
                heeded.node = Some(essence);
                actions.node = Some(Box::new(node));
            }
        }
    }
}
