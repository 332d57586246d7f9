use std::sync::Arc;

use swarm_api::v1;
use swarm_types::{Secret, TaskId, TaskState, TaskStatus};

use super::*;
use crate::tests::world::{NOW, id, named, task};
use crate::{Commit, Root};

fn sets(sizes: &[usize]) -> Vec<WriteSet> {
    let deletion = Write::Delete {
        kind: Kind::Task,
        id: id("t"),
        version: Version(1),
    };
    sizes
        .iter()
        .map(|size| WriteSet(vec![deletion.clone(); *size]))
        .collect()
}

fn shape(batches: &[Vec<WriteSet>]) -> Vec<Vec<usize>> {
    let sizes = |batch: &Vec<WriteSet>| batch.iter().map(|set| set.0.len()).collect();
    batches.iter().map(sizes).collect()
}

#[test]
fn a_batch_takes_two_hundred_changes_and_not_one_more() {
    let split = |sizes: &[usize]| shape(&batches(sets(sizes)));
    assert!(split(&[]).is_empty());
    assert_eq!(split(&[1; 200]), [vec![1; 200]]);
    assert_eq!(split(&[1; 201]), [vec![1; 200], vec![1]]);
    // A set is never cut, neither at the border nor when it is too large.
    assert_eq!(split(&[199, 1, 1]), [vec![199, 1], vec![1]]);
    assert_eq!(split(&[199, 2]), [vec![199], vec![2]]);
    assert_eq!(split(&[500, 1]), [vec![500], vec![1]]);
    assert_eq!(split(&[1, 500, 1]), [vec![1], vec![500], vec![1]]);
}

#[test]
fn a_batch_takes_as_many_bytes_as_a_proposal_may_have() {
    let secret = |bytes: usize| {
        let spec = v1::SecretSpec {
            data: vec![0; bytes].into(),
            ..Default::default()
        };
        WriteSet(vec![Write::create(Secret::new(id("s").into(), spec))])
    };
    let overhead = secret(100_000).0[0].bytes() - 100_000;
    // Lengths of the same number of digits, so that the overhead is the same.
    let half = TRANSACTION_BYTES_MAX / 2;
    let exact = [
        secret(half - overhead),
        secret(TRANSACTION_BYTES_MAX - half - overhead),
    ];
    let total: usize = exact.iter().map(|set| set.0[0].bytes()).sum();
    assert_eq!(total, TRANSACTION_BYTES_MAX);
    assert_eq!(batches(exact.clone()).len(), 1);
    let mut more = exact.to_vec();
    more[1] = secret(TRANSACTION_BYTES_MAX - half - overhead + 1);
    assert_eq!(batches(more).len(), 2);
    // One that is too large alone goes alone.
    let huge = [secret(2 * TRANSACTION_BYTES_MAX), secret(1)];
    assert_eq!(batches(huge).len(), 2);
}

#[test]
fn the_bytes_of_a_write_are_what_the_log_takes() {
    let mut object = task(id("t"), 1);
    object.service_annotations = Arc::new(named("web"));
    let status = TaskStatus::new(TaskState::Running, NOW, "started");
    object = object.with_states(status, TaskState::Running);
    let mut tx = Root::default().begin(NOW);
    tx.create(object).unwrap();
    let stored = Arc::clone(tx.task(&TaskId::new(id("t"))).unwrap());
    let commit = tx.finish().1;
    let len = |commit: &Commit| crate::encode_commit(1, commit).len();
    let full = len(&commit);
    let empty = Commit {
        changes: vec![],
        ..commit
    };
    assert_eq!(Write::update(stored).bytes(), full - len(&empty));
}
