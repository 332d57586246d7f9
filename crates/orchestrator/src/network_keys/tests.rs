use proptest::prelude::*;
use swarm_types::{Id, defaults};

use super::*;

/// Draws keys of equal bytes, counting up from 1; so is the first draw, which sets the clock.
struct Draws(u8);

impl IdSource for Draws {
    fn next_id(&mut self) -> Id {
        panic!("the loop creates no objects")
    }
    fn next_key(&mut self) -> [u8; 16] {
        self.0 += 1;
        [self.0; 16]
    }
}

const HOUR: i64 = 3_600_000;
const CREATED: i64 = 5 * HOUR;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(CREATED + millis)
}

struct World {
    root: Root,
    draws: Draws,
}

impl World {
    fn new(change: impl FnOnce(&mut Cluster)) -> Self {
        let mut cluster = Cluster::new("c".parse().unwrap(), defaults::cluster_spec());
        change(&mut cluster);
        let mut transaction = Root::default().begin(at(0));
        transaction.create(cluster).unwrap();
        let root = transaction.finish().0;
        let draws = Draws(0);
        Self { root, draws }
    }

    /// Lets the loop look; returns when it wants to look again.
    fn look(&mut self, now: Timestamp) -> Timestamp {
        let mut ctx = Ctx {
            now,
            ids: &mut self.draws,
        };
        let step = NetworkKeys.reconcile(&self.root, &(), &mut ctx);
        if !step.writes.is_empty() {
            let mut transaction = self.root.begin(now);
            transaction
                .apply_set(&swarm_store::WriteSet(step.writes))
                .unwrap();
            self.root = transaction.finish().0;
        }
        step.wake.unwrap().at
    }

    /// Another author writes the cluster.
    fn touch(&mut self, now: Timestamp) {
        let cluster = (**self.root.cluster().unwrap()).clone();
        let mut transaction = self.root.begin(now);
        transaction.update(cluster).unwrap();
        self.root = transaction.finish().0;
    }

    /// Lamport times, relative to the start of the clock, with the first byte of each key.
    fn keys(&self) -> String {
        let cluster = self.root.cluster().unwrap();
        let keys = cluster.network_bootstrap_keys.iter().map(|key| {
            let subsystem = key.subsystem.trim_start_matches("networking:");
            let time = key.lamport_time.saturating_sub(START);
            format!("{subsystem}:{time}={}", key.key[0])
        });
        keys.collect::<Vec<_>>().join(" ")
    }
}

/// What the first draw sets the clock to.
const START: u64 = 0x0101;
const FIRST: &str = "gossip:1=2 gossip:2=3 gossip:3=4 ipsec:4=5 ipsec:5=6 ipsec:6=7";

#[test]
fn a_new_cluster_gets_three_keys_for_each_subsystem_with_consecutive_times() {
    let mut world = World::new(|_| {});
    assert_eq!(world.look(at(1)), at(12 * HOUR));
    assert_eq!(world.keys(), FIRST);
    let cluster = world.root.cluster().unwrap();
    assert_eq!(cluster.encryption_key_lamport_clock, START + 6);
    assert!(
        cluster.network_bootstrap_keys.iter().all(|key| {
            key.algorithm == Algorithm::Aes128Gcm as i32 && key.key.len() == KEY_BYTES
        })
    );
    let version = world.root.version();
    world.look(at(2));
    assert_eq!(world.root.version(), version);
}

#[test]
fn a_cluster_that_was_created_with_keys_is_left_alone() {
    let mut draws = Draws(0);
    let mut world = World::new(|cluster| provide(cluster, &mut draws));
    let version = world.root.version();
    world.look(at(1));
    assert_eq!(world.root.version(), version);
    assert_eq!(world.keys(), FIRST);
}

#[test]
fn one_key_of_each_subsystem_gives_way_every_twelve_hours() {
    let mut world = World::new(|_| {});
    world.look(at(1));
    world.look(at(12 * HOUR - 1));
    assert_eq!(world.keys(), FIRST);
    assert_eq!(world.look(at(12 * HOUR)), at(24 * HOUR));
    let second = "gossip:2=3 gossip:3=4 gossip:7=8 ipsec:5=6 ipsec:6=7 ipsec:8=9";
    assert_eq!(world.keys(), second);
    world.look(at(13 * HOUR));
    assert_eq!(world.keys(), second);
    world.look(at(24 * HOUR));
    assert_eq!(
        world.keys(),
        "gossip:3=4 gossip:7=8 gossip:9=10 ipsec:6=7 ipsec:8=9 ipsec:10=11"
    );
}

#[test]
fn a_leader_that_comes_late_rotates_once_however_much_time_has_passed() {
    let mut world = World::new(|_| {});
    world.look(at(1));
    let next = world.look(at(100 * HOUR));
    assert_eq!(next, at(108 * HOUR));
    let second = "gossip:2=3 gossip:3=4 gossip:7=8 ipsec:5=6 ipsec:6=7 ipsec:8=9";
    assert_eq!(world.keys(), second);
    world.look(at(101 * HOUR));
    assert_eq!(world.keys(), second);
}

#[test]
fn other_writes_and_other_leaders_do_not_put_the_rotation_off() {
    let mut world = World::new(|_| {});
    world.look(at(1));
    for hour in 1..12 {
        world.touch(at(hour * HOUR));
        assert_eq!(world.look(at(hour * HOUR)), at(12 * HOUR));
    }
    assert_eq!(world.keys(), FIRST);
    world.look(at(12 * HOUR));
    assert_ne!(world.keys(), FIRST);
}

#[test]
fn a_clock_that_goes_back_rotates_nothing() {
    let mut world = World::new(|_| {});
    world.look(at(1));
    world.touch(at(30 * HOUR));
    world.look(at(13 * HOUR));
    assert_eq!(world.keys(), FIRST);
    world.look(at(-HOUR));
    assert_eq!(world.keys(), FIRST);
}

#[test]
fn what_an_engine_would_refuse_is_repaired() {
    let key = |subsystem: &str, time: u64, bytes: usize| v1::EncryptionKey {
        subsystem: subsystem.to_owned(),
        algorithm: 0,
        key: vec![99; bytes].into(),
        lamport_time: START + time,
    };
    let mut world = World::new(|cluster| {
        cluster.network_bootstrap_keys = vec![
            key("networking:gossip", 4, 16),
            key("networking:gossip", 1, 16),
            key("networking:gossip", 2, 16),
            key("networking:gossip", 3, 16),
            key("networking:ipsec", 8, 15),
            key("networking:other", 9, 16),
        ];
    });
    world.look(at(1));
    assert_eq!(
        world.keys(),
        "gossip:2=99 gossip:3=99 gossip:4=99 ipsec:10=1 ipsec:11=2 ipsec:12=3"
    );
}

#[test]
fn keys_are_not_shown() {
    let mut world = World::new(|_| {});
    world.look(at(1));
    let shown = format!("{:?}", world.root.cluster().unwrap().network_bootstrap_keys);
    assert!(shown.contains("networking:gossip"));
    for byte in 2..8u8 {
        assert!(!shown.contains(&format!("{byte}, {byte}")), "{shown}");
        assert!(
            !shown.contains(&format!("\\x{byte:02x}\\x{byte:02x}")),
            "{shown}"
        );
    }
}

proptest! {
    /// Whenever leaders look and whoever else writes, there are three keys of each subsystem, at
    /// most one of each is new after a look, and times only grow.
    #[test]
    fn every_look_keeps_two_of_three_keys(
        steps in prop::collection::vec((0i64..40, any::<bool>()), 1..30),
    ) {
        let mut world = World::new(|_| {});
        let mut now = 1;
        world.look(at(now));
        for (hours, touches) in steps {
            now += hours * HOUR / 2;
            if touches {
                world.touch(at(now));
            }
            let before = world.root.cluster().unwrap().network_bootstrap_keys.clone();
            let next = world.look(at(now));
            prop_assert!(next > at(now));
            let after = &world.root.cluster().unwrap().network_bootstrap_keys;
            for subsystem in SUBSYSTEMS {
                let of = |keys: &[v1::EncryptionKey]| -> Vec<u64> {
                    let own = keys.iter().filter(|key| key.subsystem == subsystem);
                    own.map(|key| key.lamport_time).collect()
                };
                let (old, new) = (of(&before), of(after));
                prop_assert_eq!(new.len(), KEYS_PER_SUBSYSTEM);
                prop_assert!(new == old || new[..2] == old[1..] && new[2] > old[2]);
            }
        }
    }
}
