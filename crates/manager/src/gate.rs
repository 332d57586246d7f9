//! Holds calls back until this manager can answer them.

use std::time::Duration;

use tokio::sync::watch;
use tonic::Status;

/// How long a call waits for the manager to become ready before it is refused.
pub const READY_WAIT_MAX: Duration = Duration::from_secs(30);

/// SwarmKit's text for a group without a leader; clients show it.
const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers \
                         are online. Make sure more than half of the managers are online.";

/// Open while the manager leads and has everything replayed.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    open: watch::Sender<bool>,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self {
            open: watch::Sender::new(false),
        }
    }

    pub(crate) fn set(&self, open: bool) {
        self.open.send_replace(open);
    }

    pub(crate) fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    pub(crate) async fn opened(&self) {
        let mut receiver = self.open.subscribe();
        // An error would mean that the sender is gone, but this value holds one.
        let _ = receiver.wait_for(|open| *open).await;
    }

    /// Waits for the gate, but not for ever.
    ///
    /// # Errors
    /// `Unknown` with SwarmKit's text, after [`READY_WAIT_MAX`].
    pub(crate) async fn pass(&self) -> Result<(), Status> {
        if self.is_open() {
            return Ok(());
        }
        tokio::time::timeout(READY_WAIT_MAX, self.opened())
            .await
            .map_err(|_| Status::unknown(NO_LEADER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_waits_until_the_gate_opens() {
        let gate = Gate::new();
        let opener = gate.clone();
        let (passed, ()) = tokio::join!(gate.pass(), async {
            tokio::time::sleep(READY_WAIT_MAX - Duration::from_millis(1)).await;
            opener.set(true);
        });
        passed.unwrap();
        gate.pass().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_refused_when_the_gate_stays_closed() {
        let gate = Gate::new();
        gate.set(true);
        gate.set(false);
        let refused = gate.pass().await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unknown);
        assert!(refused.message().contains("does not have a leader"));
    }
}
