//! The keys with which engines encrypt gossip and traffic between containers (node-and-wire spec
//! 7.1): three for each subsystem, of which the oldest gives way to a new one every twelve hours.
//!
//! An engine refuses any other number of keys, tells them apart by their Lamport time, and sends
//! with the second oldest: a key is known everywhere for one period before anybody uses it, and
//! for one after.
//!
//! When keys are rotated is read off the cluster object: periods are counted from its creation,
//! and a rotation is due when the object was last written in an earlier period. A change of leaders
//! neither delays nor hastens it (SwarmKit counts twelve hours of one leader's term). Another write
//! of the object right at the border of two periods puts the rotation off by one.
//!
//! Key bytes are drawn from the source of the step; they are never shown, as the message that holds
//! them hides them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_api::v1;
use swarm_reconcile::{Ctx, Reconciler, Step};
use swarm_store::{Change, Root, Write};
use swarm_types::{AnyObject, Cluster, IdSource, Timestamp};
use v1::encryption_key::Algorithm;

/// Who has keys, in the order in which first keys are made. Engines know no other subsystems.
pub const SUBSYSTEMS: [&str; 2] = ["networking:gossip", "networking:ipsec"];
/// Keys of each subsystem.
pub const KEYS_PER_SUBSYSTEM: usize = 3;
/// Bytes of a key: those of AES-128.
pub const KEY_BYTES: usize = 16;
/// How long a key is the newest.
pub const ROTATION_PERIOD: Duration = Duration::from_secs(12 * 3600);

/// The loop that keeps the keys. It has one key itself: the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkKeys;

impl Reconciler for NetworkKeys {
    type Key = ();
    const NAME: &'static str = "network-keys";

    fn observe(&mut self, change: &Change, _: &Root, dirty: &mut BTreeSet<()>) {
        if matches!(change.object, AnyObject::Cluster(_)) {
            dirty.insert(());
        }
    }

    fn resync(&mut self, _: &Root, dirty: &mut BTreeSet<()>) {
        dirty.insert(());
    }

    fn reconcile(&self, view: &Root, (): &(), ctx: &mut Ctx<'_>) -> Step {
        let mut step = Step::default();
        let Some(cluster) = view.cluster() else {
            return step;
        };
        let mut rings = Rings::of(cluster);
        if period(cluster, ctx.now) > period(cluster, cluster.meta.updated_at) {
            rings.drop_oldest();
        }
        rings.fill(ctx.ids);
        let keys = rings.into_keys();
        if keys.0 != cluster.network_bootstrap_keys {
            let mut cluster = (**cluster).clone();
            (
                cluster.network_bootstrap_keys,
                cluster.encryption_key_lamport_clock,
            ) = keys;
            step.writes.push(Write::update(cluster));
        }
        let next = period(cluster, ctx.now).saturating_add(1);
        let passed = ROTATION_PERIOD.saturating_mul(u32::try_from(next).unwrap_or(u32::MAX));
        let at = cluster.meta.created_at.saturating_add(passed);
        step.wake_by(at, "network keys are rotated");
        step
    }
}

/// Gives a cluster that is about to be created its first keys, so that nobody has to write it again
/// at once.
pub fn provide(cluster: &mut Cluster, source: &mut dyn IdSource) {
    let mut rings = Rings::of(cluster);
    rings.fill(source);
    (
        cluster.network_bootstrap_keys,
        cluster.encryption_key_lamport_clock,
    ) = rings.into_keys();
}

/// Whole periods from the creation of the cluster to a time.
fn period(cluster: &Cluster, at: Timestamp) -> u128 {
    let age = at.saturating_since(cluster.meta.created_at);
    age.as_nanos() / ROTATION_PERIOD.as_nanos()
}

/// The keys of all subsystems, by Lamport time.
struct Rings {
    rings: [BTreeMap<u64, v1::EncryptionKey>; SUBSYSTEMS.len()],
    clock: u64,
}

impl Rings {
    /// The stored keys, but for those that an engine would not take, and those beyond the newest
    /// three.
    fn of(cluster: &Cluster) -> Self {
        let mut rings = SUBSYSTEMS.map(|_| BTreeMap::new());
        let mut clock = cluster.encryption_key_lamport_clock;
        for key in &cluster.network_bootstrap_keys {
            clock = clock.max(key.lamport_time);
            let is_fit = key.algorithm == Algorithm::Aes128Gcm as i32 && key.key.len() == KEY_BYTES;
            let place = SUBSYSTEMS.iter().position(|name| *name == key.subsystem);
            if let Some(place) = place.filter(|_| is_fit) {
                rings[place].insert(key.lamport_time, key.clone());
            }
        }
        for ring in &mut rings {
            while ring.len() > KEYS_PER_SUBSYSTEM {
                ring.pop_first();
            }
        }
        Self { rings, clock }
    }

    fn drop_oldest(&mut self) {
        for ring in &mut self.rings {
            if ring.len() == KEYS_PER_SUBSYSTEM {
                ring.pop_first();
            }
        }
    }

    /// Makes keys until every subsystem has three. The clock of a cluster without keys starts
    /// anywhere below 65536.
    fn fill(&mut self, source: &mut dyn IdSource) {
        if self.clock == 0 && self.rings.iter().all(BTreeMap::is_empty) {
            let [low, high, ..] = source.next_key();
            self.clock = u64::from(u16::from_le_bytes([low, high]));
        }
        for (name, ring) in SUBSYSTEMS.iter().zip(&mut self.rings) {
            while ring.len() < KEYS_PER_SUBSYSTEM {
                self.clock += 1;
                let key = v1::EncryptionKey {
                    subsystem: (*name).to_owned(),
                    algorithm: Algorithm::Aes128Gcm as i32,
                    key: source.next_key().to_vec().into(),
                    lamport_time: self.clock,
                };
                ring.insert(self.clock, key);
            }
        }
    }

    /// All keys, subsystem by subsystem, the oldest first, and the clock.
    fn into_keys(self) -> (Vec<v1::EncryptionKey>, u64) {
        let keys = self.rings.into_iter().flat_map(BTreeMap::into_values);
        (keys.collect(), self.clock)
    }
}

#[cfg(test)]
mod tests;
