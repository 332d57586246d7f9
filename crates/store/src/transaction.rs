//! Writing: a transaction works on a private root, sees its own writes, and becomes a commit or
//! nothing.

use std::ops::Deref;
use std::sync::Arc;

use swarm_types::{
    AnyObject, Cluster, Config, Extension, Id, Kind, Meta, Network, Node, Resource, Secret,
    Service, Task, Timestamp, Version, Volume,
};

use crate::encode::{change_len, encode_changes};
use crate::error::StoreError;
use crate::root::{HasTable, Root, sealed};
use crate::tables::{Stored, Table, is_table_name, lower};
use crate::write::{Conflict, Write, WriteSet};

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// It is new.
    Create,
    /// It was written again.
    Update,
    /// It is gone.
    Remove,
}

/// One object's change. For a removal, `object` is what was there last.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What happened.
    pub action: Action,
    /// The object after the change; before it, for a removal.
    pub object: AnyObject,
    /// The object before an update.
    pub old: Option<AnyObject>,
}

/// The changes of one transaction, in the order in which they were made.
#[derive(Clone, Debug, PartialEq)]
pub struct Commit {
    /// The version that they lead to.
    pub version: Version,
    /// When, by the leader's clock.
    pub at: Timestamp,
    /// The changes.
    pub changes: Vec<Change>,
}

/// A transaction in the making. Reads through it see its own writes; dropping it undoes them.
#[derive(Debug)]
pub struct Transaction {
    root: Root,
    version: Version,
    now: Timestamp,
    changes: Vec<Change>,
}

impl Deref for Transaction {
    type Target = Root;
    fn deref(&self) -> &Root {
        &self.root
    }
}

impl Root {
    /// Starts a transaction on this version; `now` is stamped on what it writes.
    pub fn begin(&self, now: Timestamp) -> Transaction {
        Transaction {
            root: self.clone(),
            version: self.version.next(),
            now,
            changes: Vec::new(),
        }
    }

    /// The root after a commit that another member made: its objects are taken as they are.
    ///
    /// # Errors
    /// [`StoreError`] if the commit does not fit this root; nothing is applied then.
    pub fn apply(&self, commit: &Commit) -> Result<Self, StoreError> {
        let mut transaction = self.begin(commit.at);
        for change in &commit.changes {
            match change.action {
                Action::Create => transaction.put_any(Mode::Create, change.object.clone())?,
                Action::Update => transaction.put_any(Mode::Replace, change.object.clone())?,
                Action::Remove => {
                    transaction.remove(change.object.kind(), change.object.raw_id(), None)?;
                }
            }
        }
        transaction.root.version = commit.version.max(transaction.version);
        Ok(transaction.root)
    }
}

/// How an object is put.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// As new, with its times as they are.
    Create,
    /// In place of another one, without looking at versions.
    Replace,
    /// As new, with version and times stamped.
    StampCreate,
    /// In place of the version that it carries, with version and time stamped.
    StampUpdate,
}

/// What is written into an object that is new in this transaction.
#[derive(Clone, Copy)]
struct Stamp {
    version: Version,
    now: Timestamp,
}

impl Stamp {
    fn put_on<O: Stored>(self, mut object: Arc<O>, created_at: Timestamp) -> Arc<O> {
        // A caller that handed over its only reference spares the copy.
        *Arc::make_mut(&mut object).meta_mut() = Meta {
            version: self.version,
            created_at,
            updated_at: self.now,
        };
        object
    }
}

impl Transaction {
    /// The version that the commit will have.
    pub fn commit_version(&self) -> Version {
        self.version
    }

    /// Adds an object.
    ///
    /// # Errors
    /// `Exists` or `NameConflict`.
    pub fn create(&mut self, object: impl Into<AnyObject>) -> Result<(), StoreError> {
        self.put_any(Mode::StampCreate, object.into())
    }

    /// Replaces an object; its `meta.version` must be the stored one.
    ///
    /// # Errors
    /// `NotExists`, `OutOfSequence`, `NameConflict` or `Regression`.
    pub fn update(&mut self, object: impl Into<AnyObject>) -> Result<(), StoreError> {
        self.put_any(Mode::StampUpdate, object.into())
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// `NotExists`.
    pub fn delete(&mut self, kind: Kind, id: &Id) -> Result<(), StoreError> {
        self.remove(kind, id, None)
    }

    /// Applies a write set, or refuses it and changes nothing.
    ///
    /// Copies what it writes; [`Transaction::apply_owned`] does not.
    ///
    /// # Errors
    /// [`Conflict`] with the first write that does not fit.
    pub fn apply_set(&mut self, set: &WriteSet) -> Result<(), Conflict> {
        self.apply_owned(set.clone())
    }

    /// Applies a write set that nobody else needs, or refuses it and changes nothing.
    ///
    /// # Errors
    /// [`Conflict`] with the first write that does not fit.
    pub fn apply_owned(&mut self, set: WriteSet) -> Result<(), Conflict> {
        let before = self.changes.len();
        for (index, write) in set.0.into_iter().enumerate() {
            if let Err(error) = self.apply_write(write) {
                self.undo(before);
                return Err(Conflict { index, error });
            }
        }
        Ok(())
    }

    /// Takes changes back until so many are left. A copy of the root to return to would be simpler,
    /// but while it lives each write copies its whole path through every tree.
    pub(crate) fn undo(&mut self, keep: usize) {
        while self.changes.len() > keep {
            let Some(change) = self.changes.pop() else {
                return;
            };
            match (change.action, change.old) {
                (Action::Create, _) => self.take_any(change.object.kind(), change.object.raw_id()),
                (Action::Remove, _) => self.put_back(change.object),
                (Action::Update, Some(old)) => self.put_back(old),
                (Action::Update, None) => unreachable!("an update replaced something"),
            }
        }
    }

    fn apply_write(&mut self, write: Write) -> Result<(), StoreError> {
        match write {
            Write::Create(object) => self.put_any(Mode::StampCreate, object),
            Write::Update(object) => self.put_any(Mode::StampUpdate, object),
            Write::Delete { kind, id, version } => self.remove(kind, &id, Some(version)),
            Write::Require { kind, id, version } => {
                if self.root.version_of(kind, &id) == version {
                    Ok(())
                } else {
                    Err(StoreError::OutOfSequence { kind, id })
                }
            }
        }
    }

    /// Puts an object as it is, without a change to tell: for reading a snapshot.
    pub(crate) fn load(&mut self, object: AnyObject) -> Result<(), StoreError> {
        self.put_any(Mode::Create, object)?;
        self.changes.clear();
        Ok(())
    }

    /// How many changes were made so far.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// What was changed so far, as the log will have it with this id.
    pub(crate) fn encoded(&self, id: u64) -> Vec<u8> {
        encode_changes(id, self.version, self.now, &self.changes)
    }

    /// How many bytes each change takes in the log.
    pub(crate) fn change_lens(&self) -> Vec<usize> {
        self.changes.iter().map(change_len).collect()
    }

    /// Whether nothing was changed so far.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Ends the transaction: the root after it, and what changed.
    pub fn finish(mut self) -> (Root, Commit) {
        self.root.version = self.version;
        (
            self.root,
            Commit {
                version: self.version,
                at: self.now,
                changes: self.changes,
            },
        )
    }

    fn put_any(&mut self, mode: Mode, object: AnyObject) -> Result<(), StoreError> {
        match object {
            AnyObject::Node(object) => self.put(mode, object),
            AnyObject::Service(object) => self.put(mode, object),
            AnyObject::Task(object) => self.put(mode, object),
            AnyObject::Network(object) => self.put(mode, object),
            AnyObject::Cluster(object) => self.put(mode, object),
            AnyObject::Secret(object) => self.put(mode, object),
            AnyObject::Resource(object) => self.put(mode, object),
            AnyObject::Extension(object) => self.put(mode, object),
            AnyObject::Config(object) => self.put(mode, object),
            AnyObject::Volume(object) => self.put(mode, object),
        }
    }

    /// Undoes an update or a removal.
    fn put_back(&mut self, object: AnyObject) {
        fn put<O: Stored>(root: &mut Root, object: Arc<O>)
        where
            Root: HasTable<O>,
        {
            HasTable::<O>::table_mut(root).put(object);
        }
        let root = &mut self.root;
        match object {
            AnyObject::Node(object) => put(root, object),
            AnyObject::Service(object) => put(root, object),
            AnyObject::Task(object) => put(root, object),
            AnyObject::Network(object) => put(root, object),
            AnyObject::Cluster(object) => put(root, object),
            AnyObject::Secret(object) => put(root, object),
            AnyObject::Resource(object) => put(root, object),
            AnyObject::Extension(object) => put(root, object),
            AnyObject::Config(object) => put(root, object),
            AnyObject::Volume(object) => put(root, object),
        }
    }

    /// Undoes a creation.
    fn take_any(&mut self, kind: Kind, id: &Id) {
        fn take<O: Stored>(root: &mut Root, id: &Id)
        where
            Root: HasTable<O>,
        {
            HasTable::<O>::table_mut(root).take(id);
        }
        let root = &mut self.root;
        match kind {
            Kind::Node => take::<Node>(root, id),
            Kind::Service => take::<Service>(root, id),
            Kind::Task => take::<Task>(root, id),
            Kind::Network => take::<Network>(root, id),
            Kind::Cluster => take::<Cluster>(root, id),
            Kind::Secret => take::<Secret>(root, id),
            Kind::Resource => take::<Resource>(root, id),
            Kind::Extension => take::<Extension>(root, id),
            Kind::Config => take::<Config>(root, id),
            Kind::Volume => take::<Volume>(root, id),
        }
    }

    fn put<O: Stored + sealed::Readable>(
        &mut self,
        mode: Mode,
        object: Arc<O>,
    ) -> Result<(), StoreError>
    where
        Root: HasTable<O>,
    {
        let stamp = Stamp {
            version: self.version,
            now: self.now,
        };
        match mode {
            Mode::Create => self.put_new(object, None),
            Mode::StampCreate => self.put_new(object, Some(stamp)),
            Mode::Replace => self.put_over(object, None),
            Mode::StampUpdate => self.put_over(object, Some(stamp)),
        }
    }

    fn put_new<O: Stored + sealed::Readable>(
        &mut self,
        object: Arc<O>,
        stamp: Option<Stamp>,
    ) -> Result<(), StoreError>
    where
        Root: HasTable<O>,
    {
        let table: &Table<O> = HasTable::<O>::table(&self.root);
        if table.objects.contains_key(object.raw_id()) {
            return Err(StoreError::Exists {
                kind: O::KIND,
                id: object.raw_id().clone(),
            });
        }
        check_name(&table.indices, None, &*object)?;
        let object = match stamp {
            Some(stamp) => stamp.put_on(object, stamp.now),
            None => object,
        };
        HasTable::<O>::table_mut(&mut self.root).put(Arc::clone(&object));
        self.changes.push(Change {
            action: Action::Create,
            object: object.into_any(),
            old: None,
        });
        Ok(())
    }

    fn put_over<O: Stored + sealed::Readable>(
        &mut self,
        object: Arc<O>,
        stamp: Option<Stamp>,
    ) -> Result<(), StoreError>
    where
        Root: HasTable<O>,
    {
        let table: &mut Table<O> = HasTable::<O>::table_mut(&mut self.root);
        // One way down the tree: what is refused below has copied it for nothing, which is rare.
        let Some(stored) = table.objects.get_mut(object.raw_id()) else {
            return Err(StoreError::NotExists {
                kind: O::KIND,
                id: object.raw_id().clone(),
            });
        };
        if stamp.is_some() && stored.meta().version != object.meta().version {
            return Err(StoreError::OutOfSequence {
                kind: O::KIND,
                id: object.raw_id().clone(),
            });
        }
        // The same checks as the mutators make, a second time, on the other side of the log.
        O::check_step(stored, &object)?;
        check_name(&table.indices, Some(&**stored), &*object)?;
        let object = match stamp {
            Some(stamp) => stamp.put_on(object, stored.meta().created_at),
            None => object,
        };
        let old = std::mem::replace(stored, Arc::clone(&object));
        O::reindex(
            &mut table.indices,
            object.raw_id(),
            Some(&old),
            Some(&object),
        );
        self.changes.push(Change {
            action: Action::Update,
            object: object.into_any(),
            old: Some(old.into_any()),
        });
        Ok(())
    }

    fn remove(&mut self, kind: Kind, id: &Id, version: Option<Version>) -> Result<(), StoreError> {
        match kind {
            Kind::Node => self.take::<Node>(id, version),
            Kind::Service => self.take::<Service>(id, version),
            Kind::Task => self.take::<Task>(id, version),
            Kind::Network => self.take::<Network>(id, version),
            Kind::Cluster => self.take::<Cluster>(id, version),
            Kind::Secret => self.take::<Secret>(id, version),
            Kind::Resource => self.take::<Resource>(id, version),
            Kind::Extension => self.take::<Extension>(id, version),
            Kind::Config => self.take::<Config>(id, version),
            Kind::Volume => self.take::<Volume>(id, version),
        }
    }

    fn take<O: Stored + sealed::Readable>(
        &mut self,
        id: &Id,
        version: Option<Version>,
    ) -> Result<(), StoreError>
    where
        Root: HasTable<O>,
    {
        let Some(stored) = O::get(&self.root, id) else {
            return Err(StoreError::NotExists {
                kind: O::KIND,
                id: id.clone(),
            });
        };
        if version.is_some_and(|version| version != stored.meta().version) {
            return Err(StoreError::OutOfSequence {
                kind: O::KIND,
                id: id.clone(),
            });
        }
        let old = HasTable::<O>::table_mut(&mut self.root)
            .take(id)
            .expect("was found above");
        self.changes.push(Change {
            action: Action::Remove,
            object: old.into_any(),
            old: None,
        });
        Ok(())
    }
}

fn check_name<O: Stored>(
    indices: &O::Indices,
    stored: Option<&O>,
    object: &O,
) -> Result<(), StoreError> {
    if !O::UNIQUE_NAMES {
        return Ok(());
    }
    let Some(name) = object.name() else {
        return Ok(());
    };
    if stored.and_then(|stored| stored.name()) == Some(name) {
        return Ok(());
    }
    let taken = O::common(indices)
        .names
        .ids(&*lower(name))
        .any(|holder| holder != object.raw_id());
    if taken || is_table_name(O::KIND, name) {
        return Err(StoreError::NameConflict {
            kind: O::KIND,
            name: name.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
