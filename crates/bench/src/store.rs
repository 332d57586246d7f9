//! The eight benchmarks of the object store (`performance.md` 2.1): 10,000 nodes with a random id
//! and a spec name each, no log behind the store.

use std::hint::black_box;
use std::sync::Arc;

use swarm_api::v1;
use swarm_store::{By, Root, Store, StoreError, Transaction};
use swarm_types::{IdSource, Kind, Node, NodeId};

use crate::runner::{Clock, Row, Took};
use crate::world::{self, Ids, NOW};

/// Nodes in the store.
const NODES: usize = 10_000;
/// Writers and readers of the concurrency row, each.
const THREADS: usize = 5;

macro_rules! rows {
    ($($name:literal, $go:literal, $bar:literal, $round:expr;)*) => {
        /// The rows with Go's quiet medians.
        pub const ROWS: &[Row] = &[$(Row {
            name: concat!("store/", $name),
            go: $go,
            bar: $bar,
            rounds_max: usize::MAX,
            round: $round,
        },)*];
    };
}

rows! {
    "CreateNode", 13_800.0, 5.0, create;
    "UpdateNode", 12_900.0, 5.0, update;
    "UpdateNodeTransaction", 29_900.0, 5.0, update_transaction;
    "DeleteNodeTransaction", 10_600.0, 3.0, delete_transaction;
    "GetNode", 1_035.0, 5.0, get;
    "FindAllNodes", 9_890_000.0, 5.0, find_all;
    "FindNodeByName", 332.0, 3.0, find_by_name;
    "NodeConcurrency", 139_600.0, 5.0, concurrency;
}

/// Time of `operations` runs of `work`.
fn timed(operations: usize, mut work: impl FnMut(usize)) -> Took {
    let clock = Clock::start();
    for index in 0..operations {
        work(index);
    }
    clock.stop(operations)
}

fn node_ids(count: usize) -> Vec<NodeId> {
    let mut ids = Ids::new(1);
    (0..count).map(|_| NodeId::new(ids.next_id())).collect()
}

fn filled() -> (Arc<Store>, Vec<NodeId>) {
    let ids = node_ids(NODES);
    let store = Store::default();
    store
        .update::<_, StoreError>(NOW, |tx| {
            for (index, id) in ids.iter().enumerate() {
                tx.create(world::bare_node(id.as_id().clone(), format!("name{index}")))?;
            }
            Ok(())
        })
        .expect("fresh ids do not collide");
    (Arc::new(store), ids)
}

/// What an update does: read, change the spec's name, write.
fn rename(tx: &mut Transaction, id: &NodeId, name: String) -> Result<(), StoreError> {
    let mut node = Node::clone(tx.node(id).expect("was created"));
    node.spec = Arc::new(v1::NodeSpec {
        annotations: Some(world::named(name)),
        ..Default::default()
    });
    tx.update(node)
}

fn create() -> Took {
    const OPERATIONS: usize = 50_000;
    let ids = node_ids(OPERATIONS);
    let store = Store::default();
    let clock = Clock::start();
    store
        .update::<_, StoreError>(NOW, |tx| {
            for (index, id) in ids.iter().enumerate() {
                tx.create(world::bare_node(id.as_id().clone(), format!("name{index}")))?;
            }
            Ok(())
        })
        .expect("fresh ids do not collide");
    clock.stop(OPERATIONS)
}

fn update() -> Took {
    const OPERATIONS: usize = 100_000;
    let (store, ids) = filled();
    let clock = Clock::start();
    store
        .update::<_, StoreError>(NOW, |tx| {
            for index in 0..OPERATIONS {
                rename(tx, &ids[index % NODES], format!("name{index}-2"))?;
            }
            Ok(())
        })
        .expect("every node is there");
    clock.stop(OPERATIONS)
}

fn update_transaction() -> Took {
    let (store, ids) = filled();
    timed(50_000, |index| {
        store
            .update(NOW, |tx| {
                rename(tx, &ids[index % NODES], format!("name{index}-2"))
            })
            .expect("every node is there");
    })
}

fn delete_transaction() -> Took {
    let (store, ids) = filled();
    timed(50_000, |index| {
        let outcome = store.update::<(), &str>(NOW, |tx| {
            tx.delete(Kind::Node, ids[index % NODES].as_id())
                .expect("every node is there");
            Err("not to be committed")
        });
        assert!(black_box(outcome).is_err());
    })
}

fn get() -> Took {
    let (store, ids) = filled();
    let view = store.view();
    timed(500_000, |index| {
        black_box(view.node(&ids[index % NODES]).cloned());
    })
}

fn find_all() -> Took {
    let (store, _) = filled();
    let view = store.view();
    timed(200, |_| {
        let found = view.find::<Node>(&By::All).expect("all kinds have it");
        assert_eq!(black_box(found).len(), NODES);
    })
}

/// As in Go the name is never found: the name index holds host names, and these nodes have none.
fn find_by_name() -> Took {
    let (store, _) = filled();
    let view: Arc<Root> = store.view();
    timed(200_000, |index| {
        let found = view.find::<Node>(&By::Name(format!("name{index}")));
        assert!(black_box(found).expect("nodes have names").is_empty());
    })
}

/// Five threads of one-object transactions and five of gets inside one view each; an operation is
/// one write and one read of each thread.
fn concurrency() -> Took {
    const OPERATIONS: usize = 5_000;
    let (store, ids) = filled();
    let clock = Clock::start();
    std::thread::scope(|scope| {
        for writer in 0..THREADS {
            let (store, ids) = (&store, &ids);
            scope.spawn(move || {
                for index in 0..OPERATIONS {
                    store
                        .update(NOW, |tx| {
                            rename(tx, &ids[index % NODES], format!("name{index}-{writer}"))
                        })
                        .expect("every node is there");
                }
            });
            scope.spawn(move || {
                let view = store.view();
                for index in 0..OPERATIONS {
                    black_box(view.node(&ids[index % NODES]).cloned());
                }
            });
        }
    });
    clock.stop_threads(OPERATIONS)
}
