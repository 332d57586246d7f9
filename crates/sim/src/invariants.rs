//! The list of what must always hold, and how a violation is told. `docs/invariants.md` says more
//! about each.

use std::fmt;

/// One invariant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invariant {
    /// Its id, as used in the docs of the crates.
    pub id: &'static str,
    /// What must hold.
    pub text: &'static str,
}

macro_rules! invariants {
    ($($name:ident = $id:literal: $text:literal;)*) => {
        $(pub(crate) const $name: Invariant = Invariant { id: $id, text: $text };)*
        /// All of them.
        pub const ALL: &[Invariant] = &[$($name,)*];
    };
}

invariants! {
    PANIC = "I-SIM-1": "nothing panics";
    STUCK = "I-SIM-2": "nobody works without end, at one instant or by asking again and again";
    TYPE_OK = "I-TYPE": "states, desired states, slots and nodes of tasks fit together (TypeOK)";
    STATE = "I-TASK-1": "the observed state of a task never decreases";
    DESIRED = "I-TASK-2": "the desired state of a task never decreases";
    NODE_SET = "I-TASK-3": "a task in ASSIGNED or later has a node, and keeps it";
    SERVICE_EXISTS = "I-TASK-4": "a task is made only for a service that exists";
    ENDED = "I-TASK-5": "the state of a task that has ended does not change";
    OWNER = "I-OWN-1": "each commit changes only fields that its author owns";
    TRANSITION = "I-OWN-2": "each change of a task's state is one that its author may make";
    DELETION = "I-OWN-3": "only tasks that cannot be running are deleted, unless the user says so";
    ONE_LIVE = "I-ORCH-1": "a replica never has two live tasks";
    STOP_FIRST = "I-ORCH-4": "a replacement starts after the task before it has stopped";
    ELIGIBLE = "I-SCHED-1": "tasks are assigned to nodes that pass every filter";
    RESOURCES = "I-SCHED-2": "reservations, host ports and replicas per node stay within limits";
    EXPLAINED = "I-SCHED-5": "a task that waits says why, and no node would take it";
    PORTS = "I-ALLOC-1": "no two services publish the same ingress port";
    ADDRESSES = "I-ALLOC-4": "no address has two holders";
    VERSIONS = "I-STORE-2": "versions of commits grow by one";
    FEED = "I-STORE-4": "the feed gives each commit once and in order; replayed it gives the store";
    REPLICA = "I-STORE-5": "a member that replays the log has the same store";
    DURABLE = "I-LOG-1": "an acknowledged write survives every crash";
    REOPENS = "I-LOG-2": "the log opens after every crash";
    DAMAGE = "I-LOG-3": "a damaged log has all that was acknowledged, or is refused by its file";
    SIGNED = "I-CA-1": "no certificate that needs a signature is forgotten";
    ROTATED = "I-CA-2": "a rotation of the root ends when it locks no node of the cluster out";
    PACED = "I-CA-3": "nodes are asked to renew at most 30 at a time and every 3 s";
    REMOVED = "I-CA-4": "a node that was removed is never in the cluster again";
    LINES_END = "I-LINES-1": "a subscription to logs ends, as complete only when it is";
    LINES_TOLD = "I-LINES-3":
        "listeners are told once of a subscription and of its end, a message at a time";
    LINES_NOTICE = "I-LINES-6": "a follower hears of each node of its tasks that is not there";
    LINES_KEPT = "I-LINES-7":
        "nothing is kept of subscriptions, listeners and publishers that are gone";
    SENT_ONCE = "I-DISP-6": "a node is sent a secret or config once, until it is taken back";
    HELD = "I-DISP-7": "a node has no secret or config that none of its tasks refers to";
    WITH_TASK = "I-DISP-8": "a task comes with everything that it refers to";
    STAYS = "I-DISP-9": "a node that comes back is told of every task that it has and may keep";
    HEARD = "I-DISP-10": "a node is taken for lost only when it missed its heartbeats";
    MISSED = "I-DISP-11": "a node that missed its heartbeats is in no session";
    TAKEN_BACK = "I-DISP-12": "a removed node is told that it has no task before its streams end";
    PREPARED = "I-AGENT-7": "a task starts only on a machine that has what it refers to";
    CACHE = "I-LOOP-4": "the caches of the loops equal what resync builds";
    PERSIST_FIRST = "I-AGENT-2": "a task is on the agent's disk before it is touched";
    KEEPS_TASKS = "I-AGENT-5": "a restarted agent keeps the processes of its tasks";
    LEAVES_NOTHING = "I-AGENT-8": "an agent that has left runs nothing any more";
    STARTS_ONCE = "I-AGENT-6": "a task is started once, on one node";
    NO_DOUBLE = "I-RUN-1": "no two processes of a replica, unless the manager gave one up";
    CONVERGES = "I-END-1": "when faults end, every service becomes as its spec says";
    QUIET = "I-END-2": "a converged cluster writes nothing";
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// What was seen.
    pub seen: String,
}

impl Violation {
    pub(crate) fn new(invariant: Invariant, seen: impl Into<String>) -> Self {
        Self {
            invariant,
            seen: seen.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Invariant { id, text } = self.invariant;
        write!(f, "{id} ({text}): {}", self.seen)
    }
}

/// The result of a check.
pub(crate) type Checked = Result<(), Violation>;

/// `Ok` if the condition holds.
pub(crate) fn ensure(holds: bool, invariant: Invariant, seen: impl FnOnce() -> String) -> Checked {
    if holds {
        return Ok(());
    }
    Err(Violation::new(invariant, seen()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_used_once_and_documented() {
        let docs = include_str!("../../../docs/invariants.md");
        let mut ids: Vec<_> = ALL.iter().map(|invariant| invariant.id).collect();
        for id in &ids {
            assert!(
                docs.contains(&format!("| {id} |")),
                "{id} is not in docs/invariants.md"
            );
        }
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), ALL.len());
    }
}
