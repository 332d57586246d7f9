//! Supervised tasks: the one place that spawns.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::shutdown::Shutdown;

/// The error of a task that ends a component.
pub type TaskError = Box<dyn std::error::Error + Send + Sync>;

/// What the end of a task with an error, or its panic, means for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// It is logged; the others go on. A panic stops the group all the same: what it has left
    /// behind cannot be trusted.
    Log,
    /// The whole group is told to stop, and its owner gets the error.
    Stop,
}

/// A group of tasks that live and end together.
#[derive(Clone, Debug)]
pub struct Tasks {
    set: Arc<Mutex<JoinSet<()>>>,
    shutdown: Shutdown,
    failure: Arc<Mutex<Option<TaskError>>>,
}

impl Tasks {
    /// An empty group which `shutdown` ends.
    pub fn new(shutdown: Shutdown) -> Self {
        Self {
            set: Arc::default(),
            shutdown,
            failure: Arc::default(),
        }
    }

    /// The signal of the group.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Runs a future as a task of the group.
    pub fn spawn(
        &self,
        name: &'static str,
        on_error: OnError,
        future: impl Future<Output = Result<(), TaskError>> + Send + 'static,
    ) {
        let (failure, shutdown) = (Arc::clone(&self.failure), self.shutdown.clone());
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        // Ended tasks leave the set here, so that a long-lived group does not grow.
        while set.try_join_next().is_some() {}
        let inner = tokio::spawn(future);
        set.spawn(async move {
            let abort = AbortOnDrop(inner);
            let (error, on_error): (TaskError, OnError) = match abort.join().await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => (error, on_error),
                Err(join) if join.is_cancelled() => return,
                Err(join) => (Box::new(join), OnError::Stop),
            };
            tracing::error!(task = name, error = %crate::chain(&*error), "task failed");
            if on_error == OnError::Stop {
                let mut slot = failure.lock().unwrap_or_else(PoisonError::into_inner);
                slot.get_or_insert(error);
                shutdown.begin();
            }
        });
    }

    /// Waits until all tasks have ended after the signal, at most for `grace`; then cancels them.
    ///
    /// # Errors
    /// The first error of a task that was spawned with [`OnError::Stop`].
    pub async fn finish(&self, grace: Duration) -> Result<(), TaskError> {
        self.shutdown.begin();
        let mut set = std::mem::take(&mut *self.set.lock().unwrap_or_else(PoisonError::into_inner));
        let drained =
            tokio::time::timeout(grace, async { while set.join_next().await.is_some() {} });
        if drained.await.is_err() {
            tracing::warn!(
                left = set.len(),
                "tasks did not stop in time and are cancelled"
            );
            set.shutdown().await;
        }
        match self
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Cancelling the supervisor cancels what it supervises.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> AbortOnDrop<T> {
    async fn join(mut self) -> Result<T, tokio::task::JoinError> {
        (&mut self.0).await
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_task_stops_its_group_and_the_owner_gets_the_error() {
        let tasks = Tasks::new(Shutdown::new());
        tasks.spawn("fails", OnError::Stop, async { Err("broken".into()) });
        tasks.shutdown().begun().await;
        let error = tasks.finish(Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.to_string(), "broken");
    }

    #[tokio::test]
    async fn a_panic_stops_the_group_whatever_an_error_would_do() {
        for on_error in [OnError::Stop, OnError::Log] {
            let tasks = Tasks::new(Shutdown::new());
            tasks.spawn("panics", on_error, async { panic!("on purpose") });
            tasks.shutdown().begun().await;
            assert!(tasks.finish(Duration::from_secs(5)).await.is_err());
        }
    }

    #[tokio::test]
    async fn a_logged_failure_lets_the_others_go_on() {
        let tasks = Tasks::new(Shutdown::new());
        tasks.spawn("fails", OnError::Log, async { Err("broken".into()) });
        let (sender, receiver) = tokio::sync::oneshot::channel();
        tasks.spawn("works", OnError::Stop, async move {
            let _ = sender.send(());
            Ok(())
        });
        receiver.await.unwrap();
        tasks.finish(Duration::from_secs(5)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_that_do_not_stop_are_cancelled_after_the_grace_period() {
        let tasks = Tasks::new(Shutdown::new());
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn("hangs", OnError::Stop, async move {
            let _keep = sender;
            std::future::pending().await
        });
        tasks.finish(Duration::from_secs(5)).await.unwrap();
        assert!(receiver.await.is_err(), "the task was dropped");
    }
}
