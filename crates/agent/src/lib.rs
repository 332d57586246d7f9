//! The node's side: keeps a session with the managers, runs the assigned tasks step by step, and
//! reports what became of them.
//!
//! # Owns
//! The session loop with its back-off, what the managers assigned, the next operation for each
//! task, what has to be on disk before which operation or report, retries, and the removal of what
//! is no longer assigned.
//!
//! # Does not own
//! How a task runs (`swarm-executor` and its implementations), sockets, files and clocks
//! (`swarm-agent-io`), and any decision about what should run where (the managers).
//!
//! # Invariants
//! * I-TASK-1: a status never goes back; every change goes through `Task::advance`.
//! * I-AGENT-1: a task has at most one operation under way.
//! * I-AGENT-2: an operation or a report goes out only when the task and the status that led to it
//!   are on disk. So a crash at any point repeats operations, which executors answer with "already
//!   done", and never forgets a task. While the disk takes no writes, tasks that are recorded are
//!   ended and reported as ended all the same, and those that are not are given back untouched.
//! * I-AGENT-3: a task leaves the disk only after the executor confirmed its removal.
//! * I-AGENT-4: messages and replies of an earlier session change nothing.
//!
//! # Start reading at
//! [`step()`], then [`Agent`].
//!
//! # SwarmKit counterpart
//! `agent`, `agent/exec`. Intended differences: a gap in the assignments makes a new session
//! instead of a tight loop; retries double from 1 s to 30 s; statuses travel in batches; a removal
//! is repeated until it succeeds, also after a restart; a task that refuses to stop is terminated.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agent;
mod dependencies;
mod logs;
mod persist;
pub mod remotes;
mod reporter;
mod rpc;
mod session;
mod step;
mod task;
#[cfg(test)]
mod tests;

pub use agent::{ASSIGNMENTS_TIMEOUT, Agent, DESCRIBE_INTERVAL, NodeAction, WARNINGS_MAX};
pub use logs::{
    LOG_BURST_BYTES, LOG_BYTES_PER_SECOND, LOG_RECLAIM, LOG_SUBSCRIPTIONS_MAX, LogAction, LogPace,
};
pub use persist::{
    PERSIST_RETRY_BASE, PERSIST_RETRY_MAX, PersistBatch, PersistOp, PersistedTask, RECORD_PATIENCE,
};
pub use reporter::{REPORT_CHUNK_MAX, REPORT_DELAY};
pub use rpc::{AgentRpc, Call, Epoch, Reply, RpcError};
pub use session::{BACKOFF_BASE, BACKOFF_MAX, RPC_TIMEOUT};
pub use step::{ERROR_BYTES_MAX, Step, step};
pub use task::{CLEANUP_TIMEOUT, OpId, RETRY_BASE, RETRY_MAX, SHUTDOWN_MARGIN, TaskOperation};
