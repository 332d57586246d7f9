//! Damage to the files of the log, tried on a copy at each death of the manager's process: what was
//! acknowledged is there, or the start is refused and names the file.
//!
//! Owns its own randomness, so that runs stay the same whatever is damaged.

use swarm_raft::LogError;
use swarm_raft::disk::Disk as _;
use swarm_raft::member::OpenError;
use swarm_raft::simdisk::SimDisk;
use swarm_types::Version;

use super::Manager;
use super::replica::Replica;
use crate::invariants::{Checked, DAMAGE, ensure};
use crate::random::{Purpose, Random};

/// What befalls the newest segment.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// The file ends there.
    Cut(usize),
    /// There are zeros from there on.
    Zeroed(usize),
    /// One byte is another one.
    Flipped(usize),
    /// The file is gone.
    Missing,
}

impl Manager {
    /// Damages a copy of the disk and starts on that. `acked` is the version of the last write that
    /// was acknowledged; `None` when the manifest may be older than that, as after a loss of power.
    pub(super) fn try_damage(&mut self, acked: Option<Version>) {
        let seed = self.settings.options.seed ^ (self.life.0 << 32);
        let mut random = Random::new(seed, Purpose::Damage);
        let copy = self.disk.fork(seed);
        let Some((name, damage)) = strike(&copy, &mut random) else {
            return;
        };
        let salts = Random::new(!seed, Purpose::Damage);
        let opened = Replica::open(&copy, &self.settings, salts, 1);
        let opened = opened.map(|(replica, _)| replica.store.view().version());
        let judged = judge(opened, acked, &format!("{name} {damage:?}"));
        let before = std::mem::replace(&mut self.damage_seen, Ok(()));
        self.damage_seen = before.and(judged);
    }

    /// I-LOG-3: what damaged logs led to since the last time.
    pub(crate) fn check_damage(&mut self) -> Checked {
        std::mem::replace(&mut self.damage_seen, Ok(()))
    }
}

/// Damages the newest segment, if there is one.
fn strike(disk: &SimDisk, random: &mut Random) -> Option<(String, Damage)> {
    let names = disk.clone().list().ok()?;
    let name = names.into_iter().rfind(|name| name.ends_with(".seg"))?;
    let mut bytes = disk.bytes(&name)?;
    let end = bytes.iter().rposition(|byte| *byte != 0)? + 1;
    let at = usize::try_from(random.below(end as u64)).ok()?;
    let damage = match random.below(4) {
        0 => Damage::Cut(at),
        1 => Damage::Zeroed(at),
        2 => Damage::Flipped(at),
        _ => Damage::Missing,
    };
    match damage {
        Damage::Cut(at) => bytes.truncate(at),
        Damage::Zeroed(at) => bytes[at..].fill(0),
        Damage::Flipped(at) => bytes[at] ^= 1 << random.below(8),
        Damage::Missing => {
            disk.clone().remove(&name).ok()?;
            return Some((name, damage));
        }
    }
    disk.put(&name, bytes);
    Some((name, damage))
}

fn judge(opened: Result<Version, OpenError>, acked: Option<Version>, damage: &str) -> Checked {
    match opened {
        Ok(version) => ensure(acked.is_none_or(|acked| acked <= version), DAMAGE, || {
            format!("{damage}: a start without a word at {version}, acknowledged were {acked:?}")
        }),
        Err(OpenError::Log(LogError::Corrupt { .. } | LogError::Unsealable { .. })) => Ok(()),
        Err(error) => ensure(false, DAMAGE, || {
            format!("{damage}: refused without the file: {error:?}")
        }),
    }
}
