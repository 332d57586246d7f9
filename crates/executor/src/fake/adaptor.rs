//! The async contract around a [`FakeNode`], for tests that have a runtime.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use swarm_api::v1;
use swarm_types::{Task, TaskId, Timestamp};

use super::node::FakeNode;
use super::{Begun, Draw};
use crate::contract::{BoxFuture, Controller, Executor, Operation, Recovery};
use crate::dependencies::Dependencies;
use crate::error::ExecError;
use crate::logs::{LineFilter, LogLine, LogOptions, LogStream};

/// Lines handed out together.
const LINES_AT_ONCE_MAX: usize = 256;
/// Between two looks at a fake task that may write more.
const LOOK_PAUSE: Duration = Duration::from_millis(10);

/// The clock of the test.
pub trait Time: Send + Sync {
    /// The present.
    fn now(&self) -> Timestamp;
    /// Ends at `at`, at once if that is in the past.
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()>;
}

/// An executor over a fake node. Clones share the node, so a test restarts an "agent" by making a
/// new controller from a clone.
#[derive(Clone)]
pub struct FakeExecutor {
    shared: Arc<Shared>,
}

struct Shared {
    description: v1::NodeDescription,
    time: Arc<dyn Time>,
    world: Mutex<World>,
}

struct World {
    node: FakeNode,
    draw: Box<dyn Draw + Send>,
}

struct FakeController {
    shared: Arc<Shared>,
    task: Mutex<Arc<Task>>,
    closed: AtomicBool,
}

impl FakeExecutor {
    /// An executor with an empty node.
    pub fn new(
        description: v1::NodeDescription,
        time: Arc<dyn Time>,
        draw: Box<dyn Draw + Send>,
    ) -> Self {
        let world = Mutex::new(World {
            node: FakeNode::default(),
            draw,
        });
        Self {
            shared: Arc::new(Shared {
                description,
                time,
                world,
            }),
        }
    }

    /// The tasks whose processes run.
    pub fn running(&self) -> BTreeSet<TaskId> {
        self.shared.world().node.running(self.shared.time.now())
    }

    /// Kills the process of a task. A wait under way does not notice before it is begun again.
    pub fn kill(&self, id: &TaskId) {
        self.shared.world().node.kill(id, self.shared.time.now());
    }
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        // A panic of another test thread leaves the fake node as good as it was.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Executor for FakeExecutor {
    fn describe(&self) -> BoxFuture<'_, Result<v1::NodeDescription, ExecError>> {
        Box::pin(async { Ok(self.shared.description.clone()) })
    }

    fn configure<'a>(&'a self, _node: &'a v1::Node) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async { Ok(()) })
    }

    fn controller(&self, task: Arc<Task>) -> BoxFuture<'_, Result<Arc<dyn Controller>, ExecError>> {
        Box::pin(async {
            let controller: Arc<dyn Controller> = Arc::new(FakeController {
                shared: self.shared.clone(),
                task: Mutex::new(task),
                closed: AtomicBool::new(false),
            });
            Ok(controller)
        })
    }

    fn recover<'a>(
        &'a self,
        known: &'a BTreeSet<TaskId>,
    ) -> BoxFuture<'a, Result<Recovery, ExecError>> {
        Box::pin(async {
            Ok(self
                .shared
                .world()
                .node
                .recover(known, self.shared.time.now()))
        })
    }

    fn logs(
        &self,
        task: Arc<Task>,
        options: LogOptions,
    ) -> BoxFuture<'_, Result<Box<dyn LogStream>, ExecError>> {
        let stream = FakeLogs::new(self.shared.clone(), task.id.clone(), options);
        Box::pin(async { Ok(Box::new(stream) as Box<dyn LogStream>) })
    }
}

/// The lines of a fake task.
struct FakeLogs {
    shared: Arc<Shared>,
    task: TaskId,
    follow: bool,
    filter: LineFilter,
    next: u64,
    /// What there was when the stream began; without follow it ends there.
    first: u64,
}

impl FakeLogs {
    fn new(shared: Arc<Shared>, task: TaskId, options: LogOptions) -> Self {
        let now = shared.time.now();
        let (mut counter, mut first) = (LineFilter::counting(options), 0);
        if let Some(fake) = shared.world().node.task(&task) {
            first = fake.output(now).lines;
            for number in 0..first {
                if let Some(line) = fake.line(number, now) {
                    counter.takes(line.origin, line.at, true);
                }
            }
        }
        Self {
            shared,
            task,
            follow: options.follow,
            filter: LineFilter::new(options, counter.lines()),
            next: 0,
            first,
        }
    }

    /// The lines that there are, or whether to wait for more.
    fn take(&mut self) -> Result<Vec<LogLine>, bool> {
        let now = self.shared.time.now();
        let world = self.shared.world();
        let Some(fake) = world.node.task(&self.task) else {
            return Err(self.follow);
        };
        let written = fake.output(now);
        let end = if self.follow {
            written.lines
        } else {
            self.first
        };
        let mut lines = Vec::new();
        while self.next < end && lines.len() < LINES_AT_ONCE_MAX {
            let line = fake.line(self.next, now);
            self.next += 1;
            lines.extend(line.filter(|line| self.filter.takes(line.origin, line.at, true)));
        }
        if !lines.is_empty() {
            return Ok(lines);
        }
        Err(self.next < end || self.follow && !written.is_over)
    }
}

impl LogStream for FakeLogs {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<LogLine>>, ExecError>> {
        Box::pin(async {
            loop {
                match self.take() {
                    Ok(lines) => return Ok(Some(lines)),
                    Err(false) => return Ok(None),
                    Err(true) => {
                        let at = self.shared.time.now().saturating_add(LOOK_PAUSE);
                        self.shared.time.sleep_until(at).await;
                    }
                }
            }
        })
    }
}

impl FakeController {
    fn task(&self) -> Arc<Task> {
        self.task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn run(&self, operation: Operation) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async move {
            if self.closed.load(Ordering::Relaxed) {
                return Err(ExecError::ControllerClosed);
            }
            match self.begin(operation) {
                Begun {
                    completes_at: Some(at),
                    outcome,
                } => {
                    self.shared.time.sleep_until(at).await;
                    outcome.result
                }
                Begun {
                    completes_at: None, ..
                } => std::future::pending().await,
            }
        })
    }

    fn begin(&self, operation: Operation) -> Begun {
        let now = self.shared.time.now();
        let task = self.task();
        let mut world = self.shared.world();
        let World { node, draw } = &mut *world;
        node.begin(&task, operation, now, draw.as_mut())
    }
}

impl Controller for FakeController {
    fn update(&self, task: Arc<Task>) -> BoxFuture<'_, Result<(), ExecError>> {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = task;
        self.run(Operation::Update)
    }
    fn provide(&self, _dependencies: Dependencies) {
        // Scripts say what a task does, whatever it could read.
    }
    fn prepare(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        self.run(Operation::Prepare)
    }
    fn start(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        self.run(Operation::Start)
    }
    fn wait(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        self.run(Operation::Wait)
    }
    fn shutdown(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        self.run(Operation::Shutdown)
    }
    fn terminate(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        self.run(Operation::Terminate)
    }
    fn remove(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        self.run(Operation::Remove)
    }
    fn close(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        self.closed.store(true, Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }
    fn container_status(&self) -> BoxFuture<'_, Result<Option<v1::ContainerStatus>, ExecError>> {
        let (id, now) = (self.task().id.clone(), self.shared.time.now());
        let world = self.shared.world();
        let status = world
            .node
            .task(&id)
            .and_then(|task| task.container_status(now));
        Box::pin(async { Ok(status) })
    }
    fn port_status(&self) -> BoxFuture<'_, Result<Option<v1::PortStatus>, ExecError>> {
        let id = self.task().id.clone();
        let status = self
            .shared
            .world()
            .node
            .task(&id)
            .and_then(|task| task.port_status());
        Box::pin(async { Ok(status) })
    }
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::contract::Report;
    use crate::fake::script::tests::spec;
    use crate::logs::Tail;

    /// Every sleep jumps to its end.
    #[derive(Default)]
    struct Jumping(Mutex<Timestamp>);

    impl Time for Jumping {
        fn now(&self) -> Timestamp {
            *self.0.lock().unwrap()
        }
        fn sleep_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
            let mut now = self.0.lock().unwrap();
            *now = at.max(*now);
            Box::pin(async {})
        }
    }

    /// The value of a future that needs no waiting; `None` if it waits.
    fn finish<T>(future: impl Future<Output = T>) -> Option<T> {
        match Box::pin(future)
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn a_second_controller_adopts_the_task_of_the_first() {
        let time = Arc::new(Jumping::default());
        let executor = FakeExecutor::new(v1::NodeDescription::default(), time, Box::new(|| 0));
        let task = Task::new(
            "t".parse().unwrap(),
            Arc::new(spec(&["fake.run=1s", "fake.exit=2"])),
        );
        let task = Arc::new(task);
        let run = |controller: &dyn Controller, operation| {
            finish(Report::of(controller, operation, task.clone())).unwrap()
        };
        let first = finish(executor.controller(task.clone())).unwrap().unwrap();
        assert_eq!(run(&*first, Operation::Prepare).result, Ok(()));
        assert_eq!(run(&*first, Operation::Start).container.unwrap().pid, 1);
        run(&*first, Operation::Close).result.unwrap();
        assert_eq!(
            run(&*first, Operation::Wait).result,
            Err(ExecError::ControllerClosed)
        );
        assert_eq!(executor.running(), [task.id.clone()].into());
        let known = [task.id.clone()].into();
        assert_eq!(
            finish(executor.recover(&known)).unwrap().unwrap().running,
            known
        );
        let second = finish(executor.controller(task.clone())).unwrap().unwrap();
        assert_eq!(
            run(&*second, Operation::Start).result,
            Err(ExecError::AlreadyStarted)
        );
        let ended = run(&*second, Operation::Wait);
        assert_eq!(ended.result.unwrap_err().exit_code(), Some(2));
        assert_eq!(ended.container.unwrap().exit_code, 2);
    }

    /// All lines of a stream, as numbers; it must end.
    fn numbers(executor: &FakeExecutor, task: &Arc<Task>, options: LogOptions) -> Vec<u64> {
        let mut stream = finish(executor.logs(task.clone(), options))
            .unwrap()
            .unwrap();
        let mut numbers = Vec::new();
        while let Some(lines) = finish(stream.next()).unwrap().unwrap() {
            assert!(!lines.is_empty());
            for line in lines {
                let text = String::from_utf8(line.data.to_vec()).unwrap();
                numbers.push(text.split(' ').nth(1).unwrap().parse().unwrap());
            }
        }
        numbers
    }

    #[test]
    fn lines_come_with_time_and_end_with_the_task() {
        let time = Arc::new(Jumping::default());
        let executor =
            FakeExecutor::new(v1::NodeDescription::default(), time.clone(), Box::new(|| 0));
        let words = ["fake.run=950ms", "fake.line-every=100ms"];
        let task = Arc::new(Task::new("t".parse().unwrap(), Arc::new(spec(&words))));
        let options = |follow, tail| LogOptions {
            follow,
            tail,
            ..LogOptions::default()
        };
        assert!(numbers(&executor, &task, options(false, Tail::All)).is_empty());
        let controller = finish(executor.controller(task.clone())).unwrap().unwrap();
        for operation in [Operation::Prepare, Operation::Start] {
            finish(Report::of(&*controller, operation, task.clone()))
                .unwrap()
                .result
                .unwrap();
        }
        let until = time.now().saturating_add(Duration::from_millis(450));
        finish(time.sleep_until(until)).unwrap();
        assert_eq!(
            numbers(&executor, &task, options(false, Tail::All)),
            [0, 1, 2, 3, 4]
        );
        assert_eq!(
            numbers(&executor, &task, options(false, Tail::Last(2))),
            [3, 4]
        );
        let followed = numbers(&executor, &task, options(true, Tail::Last(1)));
        assert_eq!(
            followed,
            [4, 5, 6, 7, 8, 9],
            "it follows to the end of the task"
        );
        let stderr = LogOptions {
            stdout: false,
            ..options(true, Tail::All)
        };
        assert_eq!(numbers(&executor, &task, stderr), [3, 7]);
    }
}
