//! Tasks as plain processes of a Linux machine: no container engine, and no root where it can be
//! helped.
//!
//! The image reference must be `host`, the node's own file system; command and arguments name a
//! program there. Every part of a spec that a plain process cannot have is refused by name, with
//! the way out, and the task ends as REJECTED.
//!
//! # What a task finds
//! * Environment: `PATH` and `HOME`; `SWARM_TASK_ID`, `SWARM_TASK_DIR`, `SWARM_TASK_SLOT`,
//!   `SWARM_SERVICE_NAME`, `SWARM_NODE_ID`; `SWARM_PORT_<target>` with the published number of each
//!   port in host mode (a port published as 0 gets a free one, which the status of the task shows);
//!   `DOCKER_RESOURCE_<KIND>` for assigned generic resources; and what the spec says, which wins
//!   over all but `SWARM_TASK_ID` and `SWARM_TASK_DIR`. Nothing of the agent's own environment but
//!   its search path.
//! * `SWARM_SECRETS_DIR` (and `CREDENTIALS_DIRECTORY`, as for systemd services) and
//!   `SWARM_CONFIGS_DIR`: directories with the files of relative targets, in memory and never on a
//!   disk, gone when the task ends. With an agent of root the secrets are at `/run/secrets` too,
//!   and absolute targets of files that exist show the task its own content; nobody else sees it.
//! * A session and process group of its own, `/` or the spec's directory, no standard input. Its
//!   output is captured with time and stream (format: the first lines of `src/logs.rs`).
//! * The stop signal goes to its whole process group; after the grace period, and whenever its
//!   first process has ended, everything it started is killed.
//!
//! # Owns
//! The judgement of specs, the shim (one process per task, see [`shim`]), control groups, captured
//! output, health checks, and finding what an earlier agent left, also for a state directory that
//! is gone.
//!
//! # Does not own
//! When a task starts or ends (`swarm-agent`), images, networks, volumes.
//!
//! # Invariants
//! * A task never outlives its shim for longer than it takes an agent to notice, and never
//!   depends on its agent: killing the agent leaves tasks untouched, killing a shim ends its task.
//! * At most one shim runs a task: it holds a lock in the task's directory for its whole life.
//! * The end of a task is recorded once, after nothing of it runs any more.
//! * No signal is sent to a process whose start time is not the recorded one.
//!
//! A service manager that ends all processes of the agent's control group would end the tasks with
//! it: under systemd, use `KillMode=process` and `Delegate=yes`.
//!
//! # Start reading at
//! [`NativeExecutor`], then `spec`, then [`shim`].
//!
//! # SwarmKit counterpart
//! `swarmd/dockerexec`, with dockerd and containerd's shim behind it. Intended differences: ports
//! published through the ingress network are refused; the stop signal goes to the process group,
//! since there is no process namespace whose first process could pass it on.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cgroup;
mod cleanup;
mod clock;
mod conditions;
mod controller;
mod executor;
mod files;
mod leftovers;
mod lifecycle;
mod log_reader;
mod logs;
mod machine;
mod memory;
mod payload;
mod process;
mod records;
pub mod shim;
mod spec;
mod task_dir;

pub use executor::{LOG_FILE_BYTES_MAX, LOG_FILES_MAX, NativeConfig, NativeExecutor};
pub use leftovers::keep_running;
