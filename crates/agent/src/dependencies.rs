//! Secrets and configs that came with the assignments. They live in memory only: after a restart
//! they come again with the first message of the managers.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_api::v1;
use swarm_executor::Dependencies;
use swarm_types::{Task, TaskId};

/// Everything that was assigned.
#[derive(Debug, Default)]
pub(crate) struct Store {
    secrets: BTreeMap<String, Arc<v1::Secret>>,
    configs: BTreeMap<String, Arc<v1::Config>>,
}

impl Store {
    pub(crate) fn clear(&mut self) {
        self.secrets.clear();
        self.configs.clear();
    }

    pub(crate) fn put_secret(&mut self, secret: v1::Secret) {
        self.secrets.insert(secret.id.clone(), Arc::new(secret));
    }

    pub(crate) fn put_config(&mut self, config: v1::Config) {
        self.configs.insert(config.id.clone(), Arc::new(config));
    }

    pub(crate) fn remove_secret(&mut self, id: &str) {
        self.secrets.remove(id);
    }

    pub(crate) fn remove_config(&mut self, id: &str) {
        self.configs.remove(id);
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        let ids = self.secrets.keys().chain(self.configs.keys());
        ids.map(String::as_str)
    }

    pub(crate) fn of(&self, task: &Task) -> Dependencies {
        Dependencies::of(
            task,
            |id| self.secret(id, &task.id),
            |id| self.configs.get(id).map(Arc::clone),
        )
    }

    /// A secret that was made for this task alone goes before the shared one (spec 6.5).
    fn secret(&self, id: &str, task: &TaskId) -> Option<Arc<v1::Secret>> {
        let own = self.secrets.get(&format!("{id}.{task}"));
        own.or_else(|| self.secrets.get(id)).map(Arc::clone)
    }
}
