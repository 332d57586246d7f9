//! The store against a dumb twin: one flat map and linear scans.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use swarm_api::v1;
use swarm_types::{
    AnyObject, Cluster, Config, Extension, Id, Kind, Network, NetworkId, Node, NodeId, Object,
    Resource, Secret, Service, ServiceId, Slot, Task, TaskState, Version, Volume, naming, spec,
};

use super::world::{
    Dice, IDS, NAMES, NOW, VALUES, assert_indices, assert_same, id, object, touched_task,
};
use crate::root::sealed;
use crate::{By, Root, StoreError, Transaction};

/// One write that somebody tries.
#[derive(Clone, Debug)]
enum Try {
    Create(Kind, usize, u64),
    /// With the version that is stored, or with an old one.
    Update(Kind, usize, u64, bool),
    /// The next version of a task, which shares with the stored one what it leaves alone.
    Touch(usize, u64),
    Delete(Kind, usize),
}

fn tries() -> impl Strategy<Value = Vec<(Vec<Try>, bool)>> {
    let kind = prop::sample::select(swarm_types::kind::ALL.to_vec());
    let place = 0..IDS.len();
    let one = prop_oneof![
        3 => (kind.clone(), place.clone(), any::<u64>())
            .prop_map(|(kind, place, seed)| Try::Create(kind, place, seed)),
        3 => (kind.clone(), place.clone(), any::<u64>(), prop::bool::weighted(0.8))
            .prop_map(|(kind, place, seed, fresh)| Try::Update(kind, place, seed, fresh)),
        2 => (place.clone(), any::<u64>()).prop_map(|(place, seed)| Try::Touch(place, seed)),
        1 => (kind, place).prop_map(|(kind, place)| Try::Delete(kind, place)),
    ];
    let transaction = (prop::collection::vec(one, 1..30), prop::bool::weighted(0.8));
    prop::collection::vec(transaction, 1..6)
}

#[derive(Clone, Default)]
struct Twin {
    objects: BTreeMap<(Kind, Id), AnyObject>,
}

/// The name that must be unique, in lower case.
fn unique_name(object: &AnyObject) -> Option<String> {
    let annotations = annotations(object)?;
    match object.kind() {
        Kind::Node | Kind::Task => None,
        Kind::Service
        | Kind::Network
        | Kind::Cluster
        | Kind::Secret
        | Kind::Resource
        | Kind::Extension
        | Kind::Config
        | Kind::Volume => Some(annotations.name.to_lowercase()).filter(|name| !name.is_empty()),
    }
}

fn annotations(object: &AnyObject) -> Option<v1::Annotations> {
    match object {
        AnyObject::Node(object) => object.spec.annotations.clone(),
        AnyObject::Service(object) => Some((**object.spec.annotations()).clone()),
        AnyObject::Task(object) => object.annotations.as_deref().cloned(),
        AnyObject::Network(object) => object.spec.annotations.clone(),
        AnyObject::Cluster(object) => object.spec.annotations.clone(),
        AnyObject::Secret(object) => object.spec.annotations.clone(),
        AnyObject::Resource(object) => Some((*object.spec).clone()),
        AnyObject::Extension(object) => Some((*object.spec).clone()),
        AnyObject::Config(object) => object.spec.annotations.clone(),
        AnyObject::Volume(object) => object.spec.annotations.clone(),
    }
}

/// The name by which an object is found, in lower case.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all other kinds go by their annotations"
)]
fn found_name(object: &AnyObject) -> String {
    match object {
        AnyObject::Node(node) => node.hostname().to_lowercase(),
        AnyObject::Task(task) => naming::task_name(task).to_lowercase(),
        other => annotations(other).unwrap_or_default().name.to_lowercase(),
    }
}

fn with_meta(object: AnyObject, change: impl FnOnce(&mut swarm_types::Meta)) -> AnyObject {
    fn one<O: Object>(object: &Arc<O>, change: impl FnOnce(&mut swarm_types::Meta)) -> AnyObject {
        let mut object = O::clone(object);
        change(object.meta_mut());
        Arc::new(object).into_any()
    }
    match &object {
        AnyObject::Node(object) => one(object, change),
        AnyObject::Service(object) => one(object, change),
        AnyObject::Task(object) => one(object, change),
        AnyObject::Network(object) => one(object, change),
        AnyObject::Cluster(object) => one(object, change),
        AnyObject::Secret(object) => one(object, change),
        AnyObject::Resource(object) => one(object, change),
        AnyObject::Extension(object) => one(object, change),
        AnyObject::Config(object) => one(object, change),
        AnyObject::Volume(object) => one(object, change),
    }
}

impl Twin {
    fn check(&self, object: &AnyObject, creates: bool) -> Result<(), StoreError> {
        let (kind, id) = (object.kind(), object.raw_id().clone());
        let stored = self.objects.get(&(kind, id.clone()));
        match stored {
            Some(_) if creates => return Err(StoreError::Exists { kind, id }),
            None if !creates => return Err(StoreError::NotExists { kind, id }),
            Some(stored) if stored.meta().version != object.meta().version => {
                return Err(StoreError::OutOfSequence { kind, id });
            }
            Some(_) | None => {}
        }
        if let (Some(AnyObject::Task(old)), AnyObject::Task(new)) = (stored, object) {
            let mut old = Task::clone(old);
            old.advance(new.status().clone())?;
            old.set_desired(new.desired_state())?;
        }
        let Some(name) = unique_name(object) else {
            return Ok(());
        };
        let reserved = kind == Kind::Extension
            && swarm_types::kind::ALL
                .iter()
                .any(|kind| kind.name() == name);
        let taken = self.objects.values().any(|other| {
            other.kind() == kind
                && other.raw_id() != &id
                && unique_name(other).as_ref() == Some(&name)
        });
        if taken || reserved {
            let name = annotations(object).unwrap_or_default().name;
            return Err(StoreError::NameConflict { kind, name });
        }
        Ok(())
    }

    fn write(
        &mut self,
        object: AnyObject,
        creates: bool,
        version: Version,
    ) -> Result<(), StoreError> {
        self.check(&object, creates)?;
        let key = (object.kind(), object.raw_id().clone());
        let created_at = self
            .objects
            .get(&key)
            .map_or(NOW, |stored| stored.meta().created_at);
        let stamped = with_meta(object, |meta| {
            meta.version = version;
            meta.created_at = created_at;
            meta.updated_at = NOW;
        });
        self.objects.insert(key, stamped);
        Ok(())
    }

    fn delete(&mut self, kind: Kind, id: Id) -> Result<(), StoreError> {
        match self.objects.remove(&(kind, id.clone())) {
            Some(_) => Ok(()),
            None => Err(StoreError::NotExists { kind, id }),
        }
    }

    fn find<O: Object>(&self, by: &By) -> Option<Vec<O>> {
        let mut found = Vec::new();
        // Whether the kind has the index must not depend on what is stored.
        let example = object(O::KIND, id("x"), Dice(0));
        matches(&example, by)?;
        for any in self.objects.values() {
            if any.kind() == O::KIND && matches(any, by)? {
                found.push(O::clone(O::from_any(any)?));
            }
        }
        Some(found)
    }
}

/// Whether a selector takes an object; `None` when its kind has no such index.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the rest depends on the kind as well"
)]
fn matches(object: &AnyObject, by: &By) -> Option<bool> {
    let pairs = |wanted_key: &str, test: &dyn Fn(&str) -> bool| {
        let indices = annotations(object).unwrap_or_default().indices;
        indices.iter().any(|entry| {
            entry.key.to_lowercase() == wanted_key.to_lowercase() && test(&entry.val.to_lowercase())
        })
    };
    Some(match by {
        By::All => true,
        By::IdPrefix(prefix) => object.raw_id().to_string().starts_with(prefix),
        By::Name(name) => !name.is_empty() && found_name(object) == name.to_lowercase(),
        By::NamePrefix(prefix) => {
            let name = found_name(object);
            !name.is_empty() && name.starts_with(&prefix.to_lowercase())
        }
        By::Custom { key, value } => pairs(key, &|own| own == value.to_lowercase()),
        By::CustomPrefix { key, value } => {
            pairs(key, &|own| own.starts_with(&value.to_lowercase()))
        }
        By::Or(alternatives) => {
            let each: Option<Vec<bool>> =
                alternatives.iter().map(|by| matches(object, by)).collect();
            each?.contains(&true)
        }
        by => return matches_special(object, by),
    })
}

fn matches_special(object: &AnyObject, by: &By) -> Option<bool> {
    let has = |wanted: &Id, texts: Vec<&str>| {
        Some(
            texts
                .iter()
                .any(|text| text.parse::<Id>().as_ref() == Ok(wanted)),
        )
    };
    match (object, by) {
        (AnyObject::Task(task), By::Service(id)) => Some(task.service_id.as_ref() == Some(id)),
        (AnyObject::Task(task), By::Node(id)) => Some(task.node_id.as_ref() == Some(id)),
        (AnyObject::Task(task), By::Slot(id, slot)) => {
            Some(task.service_id.as_ref() == Some(id) && task.slot == *slot)
        }
        (AnyObject::Task(task), By::DesiredState(state)) => Some(task.desired_state() == *state),
        (AnyObject::Node(node), By::Role(role)) => Some(node.role == *role),
        (AnyObject::Node(node), By::Membership(membership)) => {
            Some(node.spec.membership == *membership as i32)
        }
        (AnyObject::Resource(resource), By::Kind(kind)) => Some(resource.kind == *kind),
        (AnyObject::Volume(volume), By::VolumeGroup(group)) => Some(volume.spec.group == *group),
        (AnyObject::Volume(volume), By::Driver(name)) => {
            let driver = volume.spec.driver.as_ref();
            Some(driver.is_some_and(|driver| driver.name == *name))
        }
        (AnyObject::Task(task), By::ReferencedNetwork(id)) => {
            let attached = task.networks.iter().filter_map(|one| one.network.as_ref());
            let wanted = spec::network_targets(&task.spec);
            has(
                id.as_id(),
                wanted.chain(attached.map(|one| &*one.id)).collect(),
            )
        }
        (AnyObject::Task(task), By::ReferencedVolume(id)) => has(
            id.as_id(),
            task.volumes.iter().map(|one| &*one.id).collect(),
        ),
        (AnyObject::Service(service), By::ReferencedNetwork(id)) => {
            let deprecated = service.spec.networks.iter().map(|one| &*one.target);
            let wanted = spec::network_targets(service.spec.task());
            has(id.as_id(), wanted.chain(deprecated).collect())
        }
        (AnyObject::Task(task), By::ReferencedSecret(id)) => {
            has(id.as_id(), spec::secret_ids(&task.spec).collect())
        }
        (AnyObject::Task(task), By::ReferencedConfig(id)) => {
            has(id.as_id(), spec::config_ids(&task.spec).collect())
        }
        (AnyObject::Service(service), By::ReferencedSecret(id)) => {
            has(id.as_id(), spec::secret_ids(service.spec.task()).collect())
        }
        (AnyObject::Service(service), By::ReferencedConfig(id)) => {
            has(id.as_id(), spec::config_ids(service.spec.task()).collect())
        }
        _ => None,
    }
}

/// Every selector with every value that the world knows, and values that nobody has.
fn selectors(twin: &Twin) -> Vec<By> {
    let mut selectors = vec![
        By::All,
        By::Role(v1::NodeRole::Worker),
        By::Role(v1::NodeRole::Manager),
        By::Membership(v1::node_spec::Membership::Pending),
        By::Membership(v1::node_spec::Membership::Accepted),
        By::DesiredState(TaskState::Ready),
        By::DesiredState(TaskState::Running),
        By::DesiredState(TaskState::Remove),
        By::DesiredState(TaskState::New),
    ];
    for text in IDS.iter().chain(&["nobody"]) {
        let id = id(text);
        selectors.extend([
            By::Service(id.clone().into()),
            By::Node(id.clone().into()),
            By::ReferencedNetwork(id.clone().into()),
            By::ReferencedSecret(id.clone().into()),
            By::ReferencedConfig(id.clone().into()),
            By::ReferencedVolume(id.clone().into()),
        ]);
        selectors.extend((0..4).map(|slot| By::Slot(id.clone().into(), Slot(slot))));
    }
    let prefixes = [
        "",
        "a",
        "aa",
        "aab",
        "aaaaaaaaaaaaaaaaaaaaaaaa",
        "zz",
        "aa-",
        "U",
        "u",
    ];
    selectors.extend(prefixes.map(|prefix| By::IdPrefix(prefix.to_owned())));
    selectors.extend(IDS.map(|id| By::IdPrefix(id.to_owned())));
    for name in NAMES.iter().chain(&["w", "WEB-", "web.1", "STRASSE"]) {
        selectors.push(By::Name((*name).to_owned()));
        selectors.push(By::NamePrefix((*name).to_owned()));
    }
    for object in twin.objects.values() {
        let name = found_name(object);
        selectors.push(By::Name(name.to_uppercase()));
        selectors.push(By::NamePrefix(name));
    }
    for value in VALUES.iter().chain(&["o"]) {
        let value = (*value).to_owned();
        selectors.push(By::Kind(value.clone()));
        selectors.push(By::VolumeGroup(value.clone()));
        selectors.push(By::Driver(value.clone()));
        for key in ["k", "K", "other", "none"] {
            let (key, value) = (key.to_owned(), value.clone());
            selectors.push(By::Custom {
                key: key.clone(),
                value: value.clone(),
            });
            selectors.push(By::CustomPrefix { key, value });
        }
    }
    selectors.push(By::Or(vec![]));
    selectors.push(By::Or(vec![
        By::Name("web".to_owned()),
        By::IdPrefix("aa".to_owned()),
    ]));
    selectors.push(By::Or(vec![By::All, By::Role(v1::NodeRole::Manager)]));
    selectors
}

fn compare_kind<O: sealed::Readable>(root: &Root, twin: &Twin, selectors: &[By]) {
    let own: Vec<O> = twin.find(&By::All).unwrap();
    assert_eq!(root.count::<O>(), own.len());
    assert!(root.all::<O>().map(Arc::as_ref).eq(&own));
    for text in IDS {
        let expected = twin.objects.get(&(O::KIND, id(text)));
        assert_eq!(root.get_any(O::KIND, &id(text)).as_ref(), expected);
        let typed = root.get::<O>(&O::Id::from(id(text)));
        assert_eq!(typed, expected.and_then(O::from_any));
    }
    for by in selectors {
        let found = root.find::<O>(by);
        let expected: Option<Vec<O>> = twin.find(by);
        match (found, expected) {
            (Ok(found), Some(expected)) => {
                assert!(
                    found.iter().map(Arc::as_ref).eq(&expected),
                    "{:?} {by:?}: {found:?} where {expected:?} match",
                    O::KIND
                );
            }
            (Err(refused), None) => assert_eq!(refused.kind, O::KIND),
            (found, expected) => panic!("{:?} {by:?}: {found:?}, {expected:?}", O::KIND),
        }
    }
}

fn compare(root: &Root, twin: &Twin) {
    let selectors = selectors(twin);
    compare_kind::<Node>(root, twin, &selectors);
    compare_kind::<Service>(root, twin, &selectors);
    compare_kind::<Task>(root, twin, &selectors);
    compare_kind::<Network>(root, twin, &selectors);
    compare_kind::<Cluster>(root, twin, &selectors);
    compare_kind::<Secret>(root, twin, &selectors);
    compare_kind::<Resource>(root, twin, &selectors);
    compare_kind::<Extension>(root, twin, &selectors);
    compare_kind::<Config>(root, twin, &selectors);
    compare_kind::<Volume>(root, twin, &selectors);
    compare_shortcuts(root, twin);
}

/// The look-ups that have a method of their own.
fn compare_shortcuts(root: &Root, twin: &Twin) {
    let tasks = |by: By| -> Vec<Task> { twin.find(&by).unwrap() };
    for text in IDS {
        let service: ServiceId = id(text).into();
        let node: NodeId = id(text).into();
        let expected = tasks(By::Service(service.clone()));
        assert_eq!(root.count_tasks_of_service(&service), expected.len());
        assert!(
            root.tasks_of_service(&service)
                .map(Arc::as_ref)
                .eq(&expected)
        );
        let expected = tasks(By::Node(node.clone()));
        assert!(root.tasks_on_node(&node).map(Arc::as_ref).eq(&expected));
        let expected = tasks(By::Slot(service.clone(), Slot(1)));
        let found = root.tasks_in_slot(&service, Slot(1));
        assert!(found.map(Arc::as_ref).eq(&expected));
    }
    for state in [TaskState::Running, TaskState::Remove] {
        let expected = tasks(By::DesiredState(state));
        assert!(root.tasks_desired(state).map(Arc::as_ref).eq(&expected));
    }
    let cluster: Vec<Cluster> = twin.find(&By::Name("default".to_owned())).unwrap();
    assert_eq!(root.cluster().map(Arc::as_ref), cluster.first());
    let networks: Vec<Network> = twin.find(&By::All).unwrap();
    let ingress = networks.iter().find(|network| network.spec.ingress);
    assert_eq!(root.ingress_network().map(Arc::as_ref), ingress);
}

/// Lets both sides try the same.
fn attempt(tx: &mut Transaction, twin: &mut Twin, attempt: &Try) {
    let version = tx.commit_version();
    let (store, twin) = match attempt {
        Try::Create(kind, place, seed) => {
            let object = object(*kind, id(IDS[*place]), Dice(*seed));
            (tx.create(object.clone()), twin.write(object, true, version))
        }
        Try::Update(kind, place, seed, fresh) => {
            let stored = tx.get_any(*kind, &id(IDS[*place]));
            let seen = stored.map_or(Version(0), |stored| stored.meta().version);
            let object = object(*kind, id(IDS[*place]), Dice(*seed));
            let object = with_meta(object, |meta| {
                meta.version = if *fresh { seen } else { Version(u64::MAX) };
            });
            (
                tx.update(object.clone()),
                twin.write(object, false, version),
            )
        }
        Try::Touch(place, seed) => {
            let Some(stored) = tx.task(&id(IDS[*place]).into()) else {
                return;
            };
            let touched: AnyObject = touched_task(stored, Dice(*seed)).into();
            (
                tx.update(touched.clone()),
                twin.write(touched, false, version),
            )
        }
        Try::Delete(kind, place) => {
            let id = id(IDS[*place]);
            (tx.delete(*kind, &id), twin.delete(*kind, id))
        }
    };
    assert_eq!(store, twin, "{attempt:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_store_agrees_with_its_twin(transactions in tries()) {
        let mut root = Root::default();
        let mut replica = Root::default();
        let mut twin = Twin::default();
        for (tries, commits) in transactions {
            let (before, twin_before) = (root.clone(), twin.clone());
            let mut tx = root.begin(NOW);
            for one in &tries {
                attempt(&mut tx, &mut twin, one);
            }
            // Its own writes are visible to a transaction, and to nobody else.
            compare(&tx, &twin);
            assert_same(&root, &before);
            if !commits {
                drop(tx);
                twin = twin_before;
                compare(&root, &twin);
                continue;
            }
            let (after, commit) = tx.finish();
            prop_assert_eq!(after.version(), root.version().next());
            assert_indices(&after);
            replica = replica.apply(&commit).unwrap();
            assert_same(&replica, &after);
            root = after;
        }
        let ids: BTreeSet<&Id> = twin.objects.keys().map(|(_, id)| id).collect();
        prop_assert!(ids.len() <= IDS.len());
    }
}

#[test]
fn the_worlds_of_the_twin_reach_every_refusal() {
    // A property that never sees a conflict proves nothing about conflicts.
    let mut twin = Twin::default();
    let mut tx = Root::default().begin(NOW);
    let secret = |place: usize, name: &str| {
        let spec = v1::SecretSpec {
            annotations: Some(super::world::named(name)),
            ..Default::default()
        };
        Secret::new(id(IDS[place]).into(), spec)
    };
    let mut both = |object: AnyObject, creates: bool| {
        let version = tx.commit_version();
        let store = if creates {
            tx.create(object.clone())
        } else {
            tx.update(object.clone())
        };
        assert_eq!(store, twin.write(object, creates, version));
        store.unwrap_err().to_string()
    };
    let refused = both(object(Kind::Extension, id("e"), Dice(15)), true);
    assert_eq!(refused, "name conflicts with an existing object");
    let refused = both(secret(0, "web").into(), false);
    assert_eq!(refused, "object does not exist");
    tx.create(secret(0, "web")).unwrap();
    assert_eq!(
        tx.create(secret(1, "WEB")).unwrap_err(),
        StoreError::NameConflict {
            kind: Kind::Secret,
            name: "WEB".to_owned()
        }
    );
    assert_eq!(
        tx.find::<Secret>(&By::Name("wEb".to_owned()))
            .unwrap()
            .len(),
        1
    );
    let reference = NetworkId::new(id("n"));
    assert!(
        tx.find::<Secret>(&By::ReferencedNetwork(reference))
            .is_err()
    );
}
