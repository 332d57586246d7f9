//! Shutdown is a value that is passed down.

use tokio::sync::watch;

/// Tells components to stop. Clones observe the same signal.
#[derive(Clone, Debug)]
pub struct Shutdown {
    sender: watch::Sender<bool>,
}

impl Default for Shutdown {
    fn default() -> Self {
        Self::new()
    }
}

impl Shutdown {
    /// A signal that was not given yet.
    pub fn new() -> Self {
        Self {
            sender: watch::Sender::new(false),
        }
    }

    /// Gives the signal; giving it again changes nothing.
    pub fn begin(&self) {
        self.sender.send_replace(true);
    }

    /// Whether the signal was given.
    pub fn has_begun(&self) -> bool {
        *self.sender.borrow()
    }

    /// Waits for the signal. Cancel safe.
    pub async fn begun(&self) {
        let mut receiver = self.sender.subscribe();
        // An error would mean that the sender is gone, but this value holds one.
        let _ = receiver.wait_for(|begun| *begun).await;
    }

    /// A signal for a part: given when this one is, or by itself.
    pub fn child(&self, tasks: &crate::Tasks) -> Self {
        let child = Self::new();
        let (parent, inner) = (self.clone(), child.clone());
        tasks.spawn("shutdown relay", crate::OnError::Log, async move {
            tokio::select! {
                () = parent.begun() => inner.begin(),
                () = inner.begun() => {}
            }
            Ok(())
        });
        child
    }
}
