//! Answers heartbeats without asking the leader's task.
//!
//! The task says at the start of each term whose sessions these are; the rule is
//! `swarm_dispatcher::Pulses`. A heartbeat so waits for nothing that the leader does.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use swarm_dispatcher::{DispatchError, Pulses};
use swarm_rt::OsIds;
use swarm_types::{NodeId, Timestamp};

/// The sessions of the current term. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heartbeats {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Those of the last term go on to refuse heartbeats after it.
    term: RwLock<Option<Pulses>>,
    draws: Mutex<OsIds>,
}

impl Heartbeats {
    /// A term begins.
    pub(crate) fn begin(&self, pulses: Pulses) {
        let mut term = self.inner.term.write();
        *term.as_deref_mut().unwrap_or_else(|error| error.get_mut()) = Some(pulses);
    }

    /// Answers a heartbeat.
    ///
    /// # Errors
    /// As [`Pulses::beat`]; before the first term as if the dispatcher were stopped.
    pub(crate) fn beat(
        &self,
        now: Timestamp,
        node: &NodeId,
        session: &str,
    ) -> Result<Duration, DispatchError> {
        let term = self.inner.term.read();
        let term = term.unwrap_or_else(PoisonError::into_inner);
        let pulses = term.as_ref().ok_or_else(DispatchError::stopped)?;
        let mut draw = || {
            let draws = self.inner.draws.lock();
            draws.unwrap_or_else(PoisonError::into_inner).next_u64()
        };
        pulses.beat(now, node, session, &mut draw)
    }
}
