//! One simulated agent: a session with its four calls, and the state that an honest agent needs.
//!
//! Follows the wire (spec 5 and 6.1) without running anything: a task is in the state that was
//! asked for as soon as it arrives.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use swarm_api::v1;
use swarm_types::time::duration_from_wire;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use v1::assignment::Item;
use v1::assignment_change::AssignmentAction;
use v1::assignments_message::Type;
use v1::update_task_status_request::TaskStatusUpdate;

use crate::grpc::{Answers, Channel, Status, UNIMPLEMENTED};
use crate::options::{Client, Variant};
use crate::tally::Tally;
use crate::transport::{self, Identity, Roots};

/// How long a call may take (spec 6.1).
const RPC_TIMEOUT: Duration = Duration::from_secs(5);
/// Back-off between sessions: a step on top of twice the one before, at most the maximum
/// (spec 6.1).
const BACKOFF_STEP: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(8);

/// What all agents of a process have in common.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) manager: SocketAddr,
    pub(crate) variant: Variant,
    pub(crate) tally: Tally,
    pub(crate) roots: Roots,
    pub(crate) client: Client,
    /// All connections break when this is notified.
    pub(crate) cut: Notify,
    /// All certificates are renewed when this is notified.
    pub(crate) renew: Notify,
    /// So many at the same time.
    pub(crate) renewing: Semaphore,
}

/// Tasks of an agent with the state that was acknowledged last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks(Rc<RefCell<BTreeMap<String, v1::TaskState>>>);

impl Tasks {
    /// Tasks that run here as far as the manager was told.
    pub(crate) fn running(&self) -> u64 {
        let running = |state: &&v1::TaskState| **state == v1::TaskState::Running;
        self.0.borrow().values().filter(running).count() as u64
    }

    fn known(&self) -> Vec<(String, v1::TaskState)> {
        let tasks = self.0.borrow();
        tasks
            .iter()
            .map(|(id, state)| (id.clone(), *state))
            .collect()
    }

    /// All tasks here.
    pub(crate) fn held(&self) -> u64 {
        self.0.borrow().len() as u64
    }
}

/// One agent. Its state outlives its sessions.
#[derive(Debug)]
pub(crate) struct Agent {
    number: usize,
    world: Rc<World>,
    session: String,
    tasks: Tasks,
    /// For [`Tally::heartbeat`].
    period_seen: u64,
    backoff: Duration,
    random: u64,
}

impl Agent {
    pub(crate) fn new(number: usize, world: Rc<World>, tasks: Tasks) -> Self {
        Self {
            number,
            world,
            session: String::new(),
            tasks,
            period_seen: 0,
            backoff: Duration::ZERO,
            random: number as u64,
        }
    }

    /// Joins, then opens sessions until it is cancelled. Holds its place among those that join
    /// until its first session is open.
    pub(crate) async fn live(mut self, token: Rc<str>, place: OwnedSemaphorePermit) -> Infallible {
        let (mut since, mut place) = (Instant::now(), Some(place));
        let identity = loop {
            let (world, number) = (Rc::clone(&self.world), self.number);
            match transport::join(number, world.manager, &token, &world.roots, world.client).await {
                Ok(identity) => break Keeper::new(identity),
                Err(status) => self.pause_after(false, &status).await,
            }
        };
        loop {
            let mut is_open = false;
            let session = self.session(&identity, since, &mut is_open, &mut place);
            let Err(status) = session.await;
            if is_open {
                since = Instant::now();
            }
            self.pause_after(is_open, &status).await;
        }
    }

    async fn pause_after(&mut self, was_open: bool, status: &Status) {
        self.world.tally.ended(was_open, &status.to_string());
        let pause = self.next_pause();
        tokio::time::sleep(pause).await;
    }

    /// Uniform between nothing and the back-off (spec 6.1).
    fn next_pause(&mut self) -> Duration {
        self.backoff = (BACKOFF_STEP + 2 * self.backoff).min(BACKOFF_MAX);
        // SplitMix64: spread out is all that is asked of it.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut draw = self.random;
        draw = (draw ^ (draw >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        draw = (draw ^ (draw >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.backoff
            .mul_f64((draw >> 11) as f64 / (1_u64 << 53) as f64)
    }

    async fn session(
        &mut self,
        identity: &Keeper,
        since: Instant,
        is_open: &mut bool,
        place: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<Infallible, Status> {
        let manager = self.world.manager;
        let connection = transport::connect(self.number, manager, &identity.get()).await?;
        let channel = connection.channel.clone();
        let request = v1::SessionRequest {
            description: Some(v1::NodeDescription {
                tls_info: Some((*identity.get().trust).clone()),
                ..description(self.number)
            }),
            session_id: self.session.clone(),
        };
        let registered = timeout(RPC_TIMEOUT, register(&channel, &request)).await;
        let (mut messages, first) = registered.map_err(|_| Status::late("Session"))??;
        self.session.clone_from(&first.session_id);
        self.backoff = Duration::ZERO;
        self.world.tally.joined(since);
        *is_open = true;
        drop(place.take());

        let tally = self.world.tally.clone();
        let beats = heartbeats(&channel, &self.session, &tally, &mut self.period_seen);
        let mut work = Work {
            channel: &channel,
            session: &self.session,
            world: &self.world,
            tasks: &self.tasks,
        };
        tokio::select! {
            ended = beats => ended.map_err(|status| status.of("heartbeat")),
            ended = listen(&mut messages) => ended.map_err(|status| status.of("session")),
            ended = work.follow() => ended.map_err(|status| status.of("assignments")),
            ended = logs(&channel) => ended.map_err(|status| status.of("log subscriptions")),
            Err(status) = renewals(self.number, &self.world, identity) => Err(status.of("renewal")),
            () = self.world.cut.notified() => Err(Status::unavailable("cut by order")),
        }
    }
}

/// The identity of an agent, which a renewal replaces; connections that are open keep theirs.
#[derive(Debug)]
struct Keeper(RefCell<Rc<Identity>>);

impl Keeper {
    fn new(identity: Identity) -> Self {
        Self(RefCell::new(Rc::new(identity)))
    }

    fn get(&self) -> Rc<Identity> {
        Rc::clone(&self.0.borrow())
    }
}

/// Renews the certificate whenever it is ordered.
async fn renewals(number: usize, world: &World, keeper: &Keeper) -> Result<Infallible, Status> {
    loop {
        world.renew.notified().await;
        // The semaphore is never closed.
        let _place = world.renewing.acquire().await;
        let (manager, current) = (world.manager, keeper.get());
        let renewed = transport::renew(number, manager, &current, &world.roots, world.client);
        let renewed = renewed.await?;
        keeper.0.replace(Rc::new(renewed));
        world.tally.count(|counts| counts.renewed += 1);
    }
}

async fn register(
    channel: &Channel,
    request: &v1::SessionRequest,
) -> Result<(Answers<v1::SessionMessage>, v1::SessionMessage), Status> {
    let mut messages = channel
        .stream("/docker.swarmkit.v1.Dispatcher/Session", request)
        .await?;
    let first = messages.next().await?;
    let first: v1::SessionMessage = first.ok_or_else(over)?;
    Ok((messages, first))
}

fn over() -> Status {
    Status::unavailable("the manager ended the stream")
}

/// Session messages are read; what they say of managers matters only with several of them.
async fn listen(messages: &mut Answers<v1::SessionMessage>) -> Result<Infallible, Status> {
    loop {
        messages.next().await?.ok_or_else(over)?;
    }
}

/// The first heartbeat goes out at once, each other one after the period that the last answer gave.
async fn heartbeats(
    channel: &Channel,
    session: &str,
    tally: &Tally,
    seen: &mut u64,
) -> Result<Infallible, Status> {
    let request = v1::HeartbeatRequest {
        session_id: session.to_owned(),
    };
    loop {
        let sent = Instant::now();
        let method = "/docker.swarmkit.v1.Dispatcher/Heartbeat";
        let answer: v1::HeartbeatResponse = channel.call(method, &request, RPC_TIMEOUT).await?;
        let period = answer.period.as_ref().and_then(duration_from_wire);
        let period = period.ok_or_else(|| Status::unavailable("a heartbeat without a period"))?;
        tally.heartbeat(sent.elapsed(), period, seen);
        tokio::time::sleep(period).await;
    }
}

/// Subscriptions to logs: the stream stays open. Nothing is published, as there are no logs.
async fn logs(channel: &Channel) -> Result<Infallible, Status> {
    let opened = channel
        .stream(
            "/docker.swarmkit.v1.LogBroker/ListenSubscriptions",
            &v1::ListenSubscriptionsRequest {},
        )
        .await;
    let mut messages: Answers<v1::SubscriptionMessage> = match opened {
        Ok(messages) => messages,
        Err(status) if status.code == UNIMPLEMENTED => return std::future::pending().await,
        Err(status) => return Err(status),
    };
    loop {
        match messages.next().await {
            Ok(Some(_)) => {}
            Ok(None) => return Err(over()),
            Err(status) if status.code == UNIMPLEMENTED => return std::future::pending().await,
            Err(status) => return Err(status),
        }
    }
}

/// Assignments and the reports on them.
struct Work<'a> {
    channel: &'a Channel,
    session: &'a str,
    world: &'a World,
    tasks: &'a Tasks,
}

impl Work<'_> {
    async fn follow(&mut self) -> Result<Infallible, Status> {
        // An agent that comes back reports everything that it knows (spec 6.1).
        let known = self.tasks.known();
        if !known.is_empty() {
            self.report(known).await?;
        }
        let request = v1::AssignmentsRequest {
            session_id: self.session.to_owned(),
        };
        let mut messages: Answers<v1::AssignmentsMessage> = self
            .channel
            .stream("/docker.swarmkit.v1.Dispatcher/Assignments", &request)
            .await?;
        let mut last = String::new();
        loop {
            let message = messages.next().await?.ok_or_else(over)?;
            if message.applies_to != last {
                self.world.tally.count(|counts| counts.misapplied += 1);
                return Err(Status::unavailable(format!(
                    "a message for {:?} came after {last:?}",
                    message.applies_to
                )));
            }
            last.clone_from(&message.results_in);
            let asked = self.take(message);
            if !asked.is_empty() {
                self.world.tally.count(|counts| counts.messages += 1);
                self.report_as_told(asked).await?;
            }
        }
    }

    /// Takes a message over; returns the tasks with the states that they are asked to be in.
    fn take(&mut self, message: v1::AssignmentsMessage) -> Vec<(String, v1::TaskState)> {
        let is_complete = message.r#type == Type::Complete as i32;
        let mut tasks = self.tasks.0.borrow_mut();
        let before = tasks.len();
        let mut kept = BTreeMap::new();
        let mut asked = Vec::new();
        for change in message.changes {
            let item = change.assignment.and_then(|assignment| assignment.item);
            let Some(Item::Task(task)) = item else {
                continue;
            };
            if change.action == AssignmentAction::Remove as i32 {
                tasks.remove(&task.id);
                continue;
            }
            let wanted = state_for(task.desired_state);
            if is_complete {
                let known = tasks.remove(&task.id);
                kept.insert(task.id.clone(), known.unwrap_or(v1::TaskState::Assigned));
            } else {
                let unknown = || v1::TaskState::Assigned;
                tasks.entry(task.id.clone()).or_insert_with(unknown);
            }
            asked.push((task.id, wanted));
        }
        if is_complete {
            // What a complete message does not name is not ours any more.
            *tasks = kept;
        }
        let (before, after) = (before as u64, tasks.len() as u64);
        self.world
            .tally
            .count(|counts| counts.held = counts.held + after - before);
        asked
    }

    async fn report_as_told(&mut self, asked: Vec<(String, v1::TaskState)>) -> Result<(), Status> {
        match self.world.variant {
            Variant::Batch => self.report(asked).await,
            Variant::Steps => {
                for (id, wanted) in asked {
                    for state in states_up_to(wanted) {
                        self.report(vec![(id.clone(), *state)]).await?;
                    }
                }
                Ok(())
            }
        }
    }

    async fn report(&mut self, states: Vec<(String, v1::TaskState)>) -> Result<(), Status> {
        let updates = states.iter().map(|(id, state)| TaskStatusUpdate {
            task_id: id.clone(),
            status: Some(status(*state)),
        });
        let request = v1::UpdateTaskStatusRequest {
            session_id: self.session.to_owned(),
            updates: updates.collect(),
        };
        let method = "/docker.swarmkit.v1.Dispatcher/UpdateTaskStatus";
        // Go's agents do not tell the manager how long they wait.
        let call = self.channel.ask(method, &request, None);
        let _: v1::UpdateTaskStatusResponse = timeout(RPC_TIMEOUT, call)
            .await
            .map_err(|_| Status::late("UpdateTaskStatus"))??;
        let mut tasks = self.tasks.0.borrow_mut();
        for (id, state) in states {
            if let Some(known) = tasks.get_mut(&id)
                && *known < state
            {
                *known = state;
                if state == v1::TaskState::Running {
                    self.world.tally.count(|counts| counts.running += 1);
                }
            }
        }
        Ok(())
    }
}

/// The state that a desired state asks for.
fn state_for(desired: i32) -> v1::TaskState {
    match v1::TaskState::try_from(desired) {
        Ok(v1::TaskState::Ready) => v1::TaskState::Ready,
        Ok(state) if state <= v1::TaskState::Running => v1::TaskState::Running,
        Ok(_) | Err(_) => v1::TaskState::Shutdown,
    }
}

/// The states on the way to one, as an agent passes them.
fn states_up_to(wanted: v1::TaskState) -> &'static [v1::TaskState] {
    use v1::TaskState::{Accepted, Preparing, Ready, Running, Shutdown, Starting};
    const WAY: [v1::TaskState; 5] = [Accepted, Preparing, Ready, Starting, Running];
    match WAY.iter().position(|state| *state == wanted) {
        Some(last) => &WAY[..=last],
        None => &[Shutdown],
    }
}

fn status(state: v1::TaskState) -> v1::TaskStatus {
    let now = std::time::UNIX_EPOCH + since_epoch();
    v1::TaskStatus {
        timestamp: Some(now.into()),
        state: state as i32,
        message: "simulated".to_owned(),
        ..Default::default()
    }
}

/// Time of day, for the time stamps of reports.
fn since_epoch() -> Duration {
    #[allow(
        clippy::disallowed_methods,
        reason = "reports carry the agent's own time of day"
    )]
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}

/// What a node says of itself (`performance.md` 9).
fn description(number: usize) -> v1::NodeDescription {
    let plugin = |kind: &str, name: &str| v1::PluginDescription {
        r#type: kind.to_owned(),
        name: name.to_owned(),
    };
    let networks = ["bridge", "host", "ipvlan", "macvlan", "null", "overlay"];
    let logs = [
        "awslogs",
        "fluentd",
        "gcplogs",
        "gelf",
        "journald",
        "json-file",
        "local",
        "none",
        "splunk",
        "syslog",
    ];
    let mut plugins: Vec<_> = networks
        .iter()
        .map(|name| plugin("Network", name))
        .collect();
    plugins.extend(logs.iter().map(|name| plugin("Log", name)));
    plugins.push(plugin("Volume", "local"));
    v1::NodeDescription {
        hostname: format!("load-{number}"),
        platform: Some(v1::Platform {
            architecture: "x86_64".to_owned(),
            os: "linux".to_owned(),
        }),
        resources: Some(v1::Resources {
            nano_cpus: 64_000_000_000,
            memory_bytes: 256 << 30,
            generic: Vec::new(),
        }),
        engine: Some(v1::EngineDescription {
            engine_version: "20.10.24".to_owned(),
            labels: [("zone", "a"), ("disk", "ssd")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            plugins,
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(variant: Variant) -> Agent {
        let world = World {
            manager: "127.0.0.1:1".parse().unwrap(),
            variant,
            tally: Tally::default(),
            roots: Roots::new(),
            client: Client::GrpcGo,
            cut: Notify::new(),
            renew: Notify::new(),
            renewing: Semaphore::new(1),
        };
        Agent::new(7, Rc::new(world), Tasks::default())
    }

    #[test]
    fn a_node_describes_itself_as_in_the_method() {
        let description = description(3);
        assert_eq!(description.engine.unwrap().plugins.len(), 17);
        assert_eq!(description.resources.unwrap().nano_cpus, 64_000_000_000);
    }

    #[test]
    fn tasks_are_reported_in_the_state_that_is_asked_for() {
        use v1::TaskState::{Assigned, Ready, Remove, Running, Shutdown};
        let cases = [
            (Ready, Ready),
            (Running, Running),
            (Assigned, Running),
            (Shutdown, Shutdown),
            (Remove, Shutdown),
        ];
        for (desired, state) in cases {
            assert_eq!(state_for(desired as i32), state, "{desired:?}");
        }
        assert_eq!(states_up_to(Running).len(), 5);
        assert_eq!(states_up_to(Ready).len(), 3);
        assert_eq!(states_up_to(Shutdown), [Shutdown]);
    }

    #[test]
    fn pauses_grow_to_their_maximum_and_are_spread() {
        let mut agent = agent(Variant::Batch);
        let bounds = [100, 300, 700, 1_500, 3_100, 6_300, 8_000, 8_000];
        for bound in bounds {
            assert!(agent.next_pause() < Duration::from_millis(bound));
            assert_eq!(agent.backoff, Duration::from_millis(bound));
        }
        let mut pauses: Vec<_> = (0..1_000).map(|_| agent.next_pause()).collect();
        pauses.sort();
        assert!(pauses[100] < Duration::from_millis(1_200));
        assert!(pauses[900] > Duration::from_millis(6_800));
    }
}
