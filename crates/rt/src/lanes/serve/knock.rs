//! Wakes the task of a connection, unless that is about to look anyway.
//!
//! An answer that is given in a turn of the connection's own task asks for another turn to be sent.
//! The turn that is under way sends it too, so the other one would find nothing to do, and it costs
//! a tenth of a heartbeat.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

/// The task of one connection, as its parts wake it.
#[derive(Default)]
pub(super) struct Knock {
    known: Option<(Arc<Door>, Waker)>,
}

struct Door {
    task: Waker,
    /// Whether the task is in a turn.
    is_open: AtomicBool,
    /// Whether somebody knocked in this turn.
    is_heard: AtomicBool,
}

impl Wake for Door {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Set first: whoever finds the door open is heard at the end of the turn.
        self.is_heard.store(true, Ordering::SeqCst);
        if !self.is_open.load(Ordering::SeqCst) {
            self.task.wake_by_ref();
        }
    }
}

impl Knock {
    /// A turn of this task begins. What to hand to the parts of the connection in it.
    pub(super) fn waker(&mut self, task: &Waker) -> Waker {
        let known = self
            .known
            .take()
            .filter(|(door, _)| door.task.will_wake(task));
        let (door, waker) = known.unwrap_or_else(|| {
            let door = Arc::new(Door {
                task: task.clone(),
                is_open: AtomicBool::new(false),
                is_heard: AtomicBool::new(false),
            });
            (Arc::clone(&door), Waker::from(door))
        });
        door.is_open.store(true, Ordering::SeqCst);
        let (_, waker) = self.known.insert((door, waker));
        waker.clone()
    }

    /// The turn looks at everything now; whoever has knocked so far needs no other one.
    pub(super) fn forget(&self) {
        if let Some((door, _)) = &self.known {
            // Not a plain store: what was done before the knock is to be seen after this.
            door.is_heard.swap(false, Ordering::SeqCst);
        }
    }

    /// The turn ends. Whoever knocked after the last look gets another one.
    pub(super) fn pass_on(&self) {
        if let Some((door, _)) = &self.known {
            door.is_open.store(false, Ordering::SeqCst);
            if door.is_heard.load(Ordering::SeqCst) {
                door.task.wake_by_ref();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_knock_in_a_turn_wakes_only_if_nobody_looked_after_it() {
        let count = Arc::new(Count::default());
        let task = Waker::from(Arc::clone(&count));
        let woken = || count.0.load(Ordering::SeqCst);
        let mut knock = Knock::default();

        let door = knock.waker(&task);
        knock.forget();
        door.wake_by_ref();
        knock.forget();
        knock.pass_on();
        assert_eq!(woken(), 0, "the second look was after the knock");
        door.wake_by_ref();
        assert_eq!(woken(), 1, "between two turns");

        let door = knock.waker(&task);
        knock.forget();
        door.wake_by_ref();
        assert_eq!(woken(), 1, "not before the end of the turn");
        knock.pass_on();
        assert_eq!(woken(), 2);
    }

    #[test]
    fn the_task_that_is_woken_is_the_one_of_the_last_turn() {
        let counts = [Arc::new(Count::default()), Arc::new(Count::default())];
        let mut knock = Knock::default();
        for count in &counts {
            let task = Waker::from(Arc::clone(count));
            let door = knock.waker(&task);
            knock.pass_on();
            door.wake();
            assert_eq!(count.0.load(Ordering::SeqCst), 1);
        }
    }
}
