//! An agent that crashes between any two of its outputs loses no task and runs none twice.
//!
//! A manager, a disk and a fake machine that outlive the agent; a seed decides what happens next:
//! writes that are lost or not, calls and messages that are lost, repeated or late.

#![allow(clippy::unwrap_used, missing_docs)]

mod world;

use proptest::prelude::*;

use world::World;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        // The seed is printed; a file of it would be left behind by every broken build.
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn crashes_lose_no_task_and_run_none_twice(seed in any::<u64>()) {
        let mut world = World::new(seed);
        for _ in 0..1_000 {
            world.step();
            world.check_step();
        }
        world.settle();
        world.check_settled();
    }
}
