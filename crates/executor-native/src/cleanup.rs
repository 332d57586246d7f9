//! Ending whatever is left of a task: the same steps for the shim at the end of its task and for
//! the agent that finds a task without its shim.

use std::time::Duration;

use crate::cgroup::Group;
use crate::process::{Family, Identity};

/// How long the remains of a task may take to die. A killed process only waits for the kernel, for
/// instance for a disk.
pub(crate) const KILL_DEADLINE: Duration = Duration::from_secs(10);
/// How often to look whether they are gone. Ending is rare, so looking often costs nothing.
pub(crate) const KILL_TICK: Duration = Duration::from_millis(10);

/// Kills what lives in the groups and of the family, and says what it found. Call again until
/// nothing is found: a process may have made another one meanwhile.
pub(crate) fn kill_all(groups: &[Group], family: Option<&Family<'_>>) -> Vec<Identity> {
    for group in groups {
        group.kill();
    }
    let mut found: Vec<Identity> = groups.iter().flat_map(Group::members).collect();
    found.extend(family.map(Family::members).unwrap_or_default());
    found.sort_unstable();
    found.dedup();
    for identity in &found {
        identity.kill();
    }
    found
}

/// Removes empty groups from the machine and from the list; `true` when none is left.
pub(crate) fn remove_groups(groups: &mut Vec<Group>) -> bool {
    groups.retain(|group| !group.remove());
    groups.is_empty()
}
