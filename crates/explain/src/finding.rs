//! A reason in the making, and the list of codes that programs know reasons by.

use swarm_api::ext;
use swarm_types::Timestamp;

/// What a reason is about. Programs compare [`Code::name`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The restart policy allows no further attempt.
    GaveUp,
    /// No node fits the task.
    NoSuitableNode,
    /// The allocator could not give the service what it publishes.
    Allocation,
    /// The node of the task is down.
    NodeDown,
    /// The manager does not know yet whether the node of the task is there.
    NodeUnknown,
    /// The node of the task was removed.
    NodeGone,
    /// The node is drained.
    NodeDrained,
    /// The node is paused.
    NodePaused,
    /// The task waits for the end of its restart delay.
    RestartDelay,
    /// The task waits for its predecessor to stop.
    OldTaskStopping,
    /// Tasks of the replica failed.
    Failing,
    /// The task failed or was rejected.
    Failed,
    /// The task belonged to a node that is lost.
    Orphaned,
    /// The task is asked to stop and has not confirmed it.
    Stopping,
    /// The task waits for a secret or config.
    Dependency,
    /// The program of the task runs, and its health check has not passed yet.
    Health,
    /// The agent of the node is at work.
    OnNode,
    /// The scheduler is about to choose a node.
    BeingPlaced,
    /// The allocator is about to look at it.
    BeingAllocated,
    /// The orchestrator is about to act.
    BeingReplaced,
    /// A replica has no task yet.
    NotCreated,
    /// A global service skips the node.
    NotEligible,
    /// The task did its work.
    Completed,
    /// The task was stopped on purpose.
    Stopped,
    /// The agent has a remark about a running task.
    Remark,
    /// The certificate of the node needs attention.
    Certificate,
    /// The node says that something is wrong with it, or cannot be had on it.
    Condition,
    /// The key file of a manager is not sealed as the cluster wants it.
    Unsealed,
    /// What the state means for tasks.
    Effect,
}

impl Code {
    /// The identifier on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::GaveUp => "gave_up",
            Self::NoSuitableNode => "no_suitable_node",
            Self::Allocation => "allocation",
            Self::NodeDown => "node_down",
            Self::NodeUnknown => "node_unknown",
            Self::NodeGone => "node_gone",
            Self::NodeDrained => "node_drained",
            Self::NodePaused => "node_paused",
            Self::RestartDelay => "restart_delay",
            Self::OldTaskStopping => "old_task_stopping",
            Self::Failing => "failing",
            Self::Failed => "failed",
            Self::Orphaned => "orphaned",
            Self::Stopping => "stopping",
            Self::Dependency => "dependency",
            Self::Health => "health",
            Self::OnNode => "on_node",
            Self::BeingPlaced => "being_placed",
            Self::BeingAllocated => "being_allocated",
            Self::BeingReplaced => "being_replaced",
            Self::NotCreated => "not_created",
            Self::NotEligible => "not_eligible",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
            Self::Remark => "remark",
            Self::Certificate => "certificate",
            Self::Condition => "condition",
            Self::Unsealed => "unsealed",
            Self::Effect => "effect",
        }
    }
}

/// A reason with what follows from it.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) code: Code,
    pub(crate) text: String,
    pub(crate) since: Option<Timestamp>,
    /// When the manager acts by itself.
    pub(crate) retry: Option<Timestamp>,
    pub(crate) filter_counts: Vec<ext::FilterCount>,
    pub(crate) nearest: Option<ext::NearestNode>,
    /// The object that it is about, when it is another one.
    pub(crate) object_id: String,
    pub(crate) steps: Vec<String>,
}

impl Finding {
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
            since: None,
            retry: None,
            filter_counts: Vec::new(),
            nearest: None,
            object_id: String::new(),
            steps: Vec::new(),
        }
    }

    pub(crate) fn since(mut self, since: Option<Timestamp>) -> Self {
        self.since = since;
        self
    }

    pub(crate) fn retry(mut self, retry: Timestamp) -> Self {
        self.retry = Some(retry);
        self
    }

    pub(crate) fn about(mut self, id: impl ToString) -> Self {
        self.object_id = id.to_string();
        self
    }

    pub(crate) fn step(mut self, step: impl Into<String>) -> Self {
        self.steps.push(step.into());
        self
    }

    pub(crate) fn steps(mut self, steps: impl IntoIterator<Item = String>) -> Self {
        self.steps.extend(steps);
        self
    }

    /// Puts the object in front that the text is about.
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.text = format!("{name}: {}", self.text);
        self
    }
}

/// The object that an answer is about.
pub(crate) struct Object {
    pub(crate) kind: &'static str,
    pub(crate) id: String,
    pub(crate) name: String,
}

/// Puts an answer together. `is_waiting` says whether the object waits for something.
pub(crate) fn answer(
    object: Object,
    headline: String,
    findings: Vec<Finding>,
    is_waiting: bool,
) -> ext::WhyResponse {
    let mut next_steps: Vec<String> = Vec::new();
    for step in findings.iter().flat_map(|finding| &finding.steps) {
        if !next_steps.contains(step) {
            next_steps.push(step.clone());
        }
    }
    let since = findings.iter().filter_map(|finding| finding.since).min();
    let retry = findings.iter().filter_map(|finding| finding.retry).min();
    ext::WhyResponse {
        object_kind: object.kind.to_owned(),
        object_id: object.id,
        object_name: object.name,
        headline,
        waiting_since: since.filter(|_| is_waiting).map(Timestamp::to_wire),
        next_retry: retry.map(Timestamp::to_wire),
        next_steps,
        reasons: findings.into_iter().map(reason).collect(),
    }
}

/// Adds a reason to an answer.
pub(crate) fn add(answer: &mut ext::WhyResponse, finding: Finding) {
    answer.next_steps.extend(finding.steps.iter().cloned());
    answer.reasons.push(reason(finding));
}

fn reason(finding: Finding) -> ext::Reason {
    ext::Reason {
        code: finding.code.name().to_owned(),
        text: finding.text,
        since: finding.since.map(Timestamp::to_wire),
        filter_counts: finding.filter_counts,
        nearest: finding.nearest,
        object_id: finding.object_id,
    }
}
