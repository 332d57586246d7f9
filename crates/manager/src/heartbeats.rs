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

#[cfg(test)]
mod tests {
    use swarm_api::v1;
    use swarm_dispatcher::{Code, Config, Dispatcher, SessionExtras, SessionOpen};
    use swarm_store::Root;
    use swarm_types::{Node, NodeState};

    use super::*;

    const NOW: Timestamp = Timestamp::EPOCH;

    fn node() -> NodeId {
        "n".parse().unwrap()
    }

    fn root() -> Root {
        let mut node = Node::new(node(), v1::NodeSpec::default());
        node.status.state = NodeState::Ready;
        let mut transaction = Root::default().begin(NOW);
        transaction.create(node).unwrap();
        transaction.finish().0
    }

    /// A term that serves, as the leader's task begins one.
    fn term(heartbeats: &Heartbeats, root: &Root) -> Dispatcher {
        let config = Config { leader: None };
        let mut dispatcher = Dispatcher::new(NOW, root, config, SessionExtras::default());
        dispatcher.handle_serving(NOW, &mut || 0);
        heartbeats.begin(dispatcher.pulses().clone());
        dispatcher
    }

    fn register(dispatcher: &mut Dispatcher, root: &Root, previous_session: &str) -> String {
        let node = node();
        let open = SessionOpen {
            node: &node,
            description: None,
            addr: "10.0.0.1",
            arrived: "",
            previous_session,
        };
        let ids = &mut OsIds::new();
        let begun = dispatcher.handle_session(NOW, open, root, ids, &mut || 0);
        begun.unwrap().session.to_string()
    }

    fn refused(heartbeats: &Heartbeats, session: &str) -> Code {
        let refused = heartbeats.beat(NOW, &node(), session);
        refused.unwrap_err().code
    }

    #[test]
    fn a_session_counts_in_its_term_only() {
        let (heartbeats, root) = (Heartbeats::default(), root());
        assert_eq!(refused(&heartbeats, "made-up"), Code::Aborted);
        let mut first = term(&heartbeats, &root);
        assert_eq!(refused(&heartbeats, "made-up"), Code::NotFound);
        let old = register(&mut first, &root, "");
        assert!(heartbeats.beat(NOW, &node(), &old).is_ok());

        first.handle_stop(&root);
        assert_eq!(refused(&heartbeats, &old), Code::Aborted);
        let mut second = term(&heartbeats, &root);
        assert_eq!(refused(&heartbeats, &old), Code::NotFound);
        assert_eq!(second.session_of(&node()), None, "nobody came back");
        let new = register(&mut second, &root, &old);
        assert_ne!(new, old);
        assert_eq!(refused(&heartbeats, &old), Code::InvalidArgument);
        assert!(heartbeats.beat(NOW, &node(), &new).is_ok());
        // The end of the former term comes late, and ends nothing of this one.
        first.handle_stop(&root);
        assert!(heartbeats.beat(NOW, &node(), &new).is_ok());
    }
}
