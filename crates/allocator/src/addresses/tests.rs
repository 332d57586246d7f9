use proptest::prelude::*;

use super::*;

fn ip(number: u32) -> Ipv4Addr {
    number.into()
}

fn draw(pool: &Pool, range: RangeInclusive<u32>, count: usize) -> Vec<u32> {
    let mut draft = Draft::new(Some(pool), range, ip(1));
    std::iter::from_fn(|| draft.draw())
        .take(count)
        .map(u32::from)
        .collect()
}

#[test]
fn addresses_are_given_in_order_and_not_again_before_the_end() {
    let mut pool = Pool::default();
    assert_eq!(draw(&pool, 1..=6, 3), [2, 3, 4]);
    for number in 2..=4 {
        pool.take(ip(number));
    }
    assert!(pool.free(ip(2)));
    assert_eq!(draw(&pool, 1..=6, 9), [5, 6, 2]);
}

#[test]
fn a_draft_gives_every_free_address_once_and_then_nothing() {
    assert_eq!(draw(&Pool::default(), 1..=5, 99), [2, 3, 4, 5]);
    assert_eq!(draw(&Pool::default(), 1..=1, 99), []);
    let empty = RangeInclusive::new(5, 4);
    assert_eq!(draw(&Pool::default(), empty, 99), []);
    let top = u32::MAX - 1..=u32::MAX;
    assert_eq!(draw(&Pool::default(), top, 99), [u32::MAX - 1, u32::MAX]);
}

#[test]
fn an_address_with_two_holders_is_free_when_both_are_gone() {
    let mut pool = Pool::default();
    pool.take(ip(7));
    pool.take(ip(7));
    assert!(!pool.free(ip(7)));
    assert!(pool.free(ip(7)));
    assert!(!pool.free(ip(7)));
    assert_eq!(pool, Pool::default());
}

#[test]
fn a_pool_that_was_rebuilt_goes_on_behind_the_highest_address() {
    let mut pool = Pool::default();
    for number in [5, 9, 2] {
        pool.take(ip(number));
    }
    pool.rewind();
    assert_eq!(draw(&pool, 1..=10, 3), [10, 3, 4]);
}

#[derive(Clone, Debug)]
enum Step {
    Draw(usize),
    /// Frees what was taken at this place, modulo.
    Free(usize),
    Claim(u32),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1usize..5).prop_map(Step::Draw),
        any::<usize>().prop_map(Step::Free),
        (1u32..20).prop_map(Step::Claim),
    ]
}

proptest! {
    /// The pool agrees with an array of counters, and gives what a walk from its hint finds.
    #[test]
    fn a_pool_behaves_as_an_array_of_counters(steps in prop::collection::vec(any_step(), 0..80)) {
        const LAST: u32 = 16;
        let mut pool = Pool::default();
        let mut holders: Vec<u32> = Vec::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Draw(count) => {
                    let got = draw(&pool, 1..=LAST, count);
                    let mut twin = holders.clone();
                    let mut expected = Vec::new();
                    for _ in 0..count {
                        let start = if (1..=LAST).contains(&next) { next } else { 1 };
                        let walk = (start..=LAST).chain(1..start);
                        let Some(found) = { walk }.find(|at| *at != 1 && !twin.contains(at)) else {
                            break;
                        };
                        expected.push(found);
                        twin.push(found);
                        next = found + 1;
                    }
                    prop_assert_eq!(&got, &expected);
                    for address in got {
                        pool.take(ip(address));
                        holders.push(address);
                    }
                }
                Step::Free(place) if !holders.is_empty() => {
                    let address = holders.swap_remove(place % holders.len());
                    prop_assert_eq!(pool.free(ip(address)), !holders.contains(&address));
                }
                Step::Free(_) => {}
                Step::Claim(address) => {
                    pool.take(ip(address));
                    holders.push(address);
                    next = address + 1;
                }
            }
            for at in 0..=LAST + 4 {
                prop_assert_eq!(pool.run_of(at).is_some(), holders.contains(&at));
            }
            let mut fresh = Pool::default();
            for address in &holders {
                fresh.take(ip(*address));
            }
            prop_assert_eq!(&fresh, &pool);
            prop_assert_eq!(fresh.taken, pool.taken);
        }
    }
}
