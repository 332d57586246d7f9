//! The steps of the method, each with its clocks (`performance.md` 9).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use swarm_api::v1;

use crate::bars;
use crate::cluster::{Cluster, is_drained, is_ready, is_running};
use crate::manager::Manager;
use crate::options::{Client, Run, Step, Variant};
use crate::orders::Order;
use crate::processes::Processes;
use crate::report::{Report, Row, percentile};

/// How often the manager is asked whether something is done.
const POLL_EVERY: Duration = Duration::from_millis(100);
/// Longest time for any step. Generous: a step that takes longer is hung, not slow.
const STEP_TIMEOUT: Duration = Duration::from_secs(180);
/// The name of a node begins with this if it is one of ours.
const OUR_NODES: &str = "load-";

/// A cluster under load.
pub(crate) struct Bench {
    pub(crate) manager: Manager,
    pub(crate) report: Report,
    cluster: Cluster,
    processes: Processes,
    joining: usize,
    /// Agents that have not vanished.
    agents: u64,
    services: Vec<(String, u64)>,
    launches: u32,
    how: (Variant, Client),
    /// Nodes were drained or lost: there are more tasks than were launched, and some of them are on
    /// nodes that cannot say that they stopped them.
    is_disturbed: bool,
}

/// Processor time at the begin of a step.
struct Begun {
    at: Instant,
    manager: f64,
    driver: f64,
}

impl Bench {
    /// Starts manager and processes.
    ///
    /// # Errors
    /// When one of them does not start.
    pub(crate) async fn start(run: &Run) -> anyhow::Result<Self> {
        let manager = Manager::start(run)?;
        let cluster = Cluster::connect(&manager.socket).await;
        let cluster = cluster.with_context(|| match manager.directory() {
            Some(directory) => format!("see {}", directory.join("manager.log").display()),
            None => "the manager of --attach".to_owned(),
        })?;
        let processes = Processes::start(run, manager.addr)?;
        let mut bench = Self {
            manager,
            report: Report::default(),
            cluster,
            processes,
            joining: usize::from(run.joining),
            agents: u64::from(run.agents),
            services: Vec::new(),
            launches: 0,
            how: (run.variant, run.client),
            is_disturbed: false,
        };
        let resident = bench.manager.resident()?;
        bench.note("start", "resident", mib(resident), "MiB");
        Ok(bench)
    }

    /// Carries one step out.
    ///
    /// # Errors
    /// When it does not end, or the manager refuses something.
    pub(crate) async fn step(&mut self, step: Step) -> anyhow::Result<()> {
        match step {
            Step::Join => self.join().await,
            Step::Idle(time) => self.idle(time).await,
            Step::Launch(tasks) => self.launch(tasks).await,
            Step::Remove => self.remove().await,
            Step::Fail => self.fail().await,
            Step::Drain(nodes) => self.drain(nodes).await,
            Step::Reconnect => self.reconnect().await,
            Step::Renew => self.renew().await,
            Step::Period(period) => self.period(period).await,
        }
    }

    async fn join(&mut self) -> anyhow::Result<()> {
        let token = self.cluster.worker_token().await?;
        let (before, begun) = (self.manager.resident()?, self.begin()?);
        let processes = self.processes.len();
        let at_once = self.joining.div_ceil(processes);
        self.processes
            .order(&Order::Join { at_once, token })
            .await?;
        let agents = self.agents;
        let until = self
            .processes
            .until("join", STEP_TIMEOUT, |c| c.sessions == agents);
        let took = until.await?.duration_since(begun.at);
        self.note("join", "rate", agents as f64 / took.as_secs_f64(), "1/s");
        self.note_cpu(
            "join",
            &begun,
            agents,
            ["manager CPU per join", "driver CPU per join"],
        )?;
        let times = self.processes.times().await?;
        self.note_times("join", times.joins, &["p50", "p99"]);
        // What is resident settles with the first heartbeats, which go out at once.
        self.processes.rest(Duration::from_secs(1)).await;
        let grown = self.manager.resident()?.saturating_sub(before);
        self.note(
            "join",
            "resident per agent",
            kib(grown) / agents as f64,
            "KiB",
        );
        let refused = self.processes.counts().refused as f64;
        self.note("join", "attempts refused", refused, "");
        Ok(())
    }

    async fn idle(&mut self, time: Duration) -> anyhow::Result<()> {
        self.processes.times().await?;
        self.processes.catch_up();
        let before = self.processes.counts();
        let begun = self.begin()?;
        self.processes.rest(time).await;
        let cpu = self.manager.cpu()? - begun.manager;
        let seconds = begun.at.elapsed().as_secs_f64();
        let times = self.processes.times().await?;
        self.processes.catch_up();
        let after = self.processes.counts();
        let share = cpu / seconds * 100.0;
        self.note("idle", "manager CPU", share, "% of a core");
        let each = share / (self.agents as f64 / 1_000.0);
        self.note("idle", "manager CPU per 1,000 agents", each, "% of a core");
        let beats = (after.heartbeats - before.heartbeats) as f64;
        self.note("idle", "rate of heartbeats", beats / seconds, "1/s");
        let each = if beats > 0.0 { cpu / beats * 1e6 } else { 0.0 };
        self.note("idle", "manager CPU per heartbeat", each, "us");
        self.note_times(
            "idle",
            times.heartbeats,
            &["heartbeat p50", "heartbeat p99"],
        );
        self.note(
            "idle",
            "sessions lost",
            (after.lost - before.lost) as f64,
            "",
        );
        let nodes = self.our_nodes().await?;
        let ready = nodes.iter().filter(|node| is_ready(node)).count() as u64;
        let unready = self.agents.saturating_sub(ready);
        self.note("idle", "nodes not READY", unready as f64, "");
        let resident = self.manager.resident()?;
        self.note("idle", "resident", mib(resident), "MiB");
        Ok(())
    }

    async fn launch(&mut self, tasks: u64) -> anyhow::Result<()> {
        let step = format!("launch:{tasks}");
        self.launches += 1;
        let name = format!("load-{}", self.launches);
        self.processes.catch_up();
        let counts = self.processes.counts();
        let base = counts.running;
        let (before, begun) = (self.manager.resident()?, self.begin()?);
        let start = time_of_day();
        let service = self.cluster.create_service(&name, tasks).await?;
        let until = self
            .processes
            .until(&step, STEP_TIMEOUT, |c| c.running >= base + tasks);
        let acknowledged = until.await?.duration_since(begun.at);
        while self.cluster.running(&service).await? != tasks {
            anyhow::ensure!(
                begun.at.elapsed() < STEP_TIMEOUT,
                "{step}: not all tasks run"
            );
            self.processes.rest(POLL_EVERY).await;
        }
        let took = begun.at.elapsed();
        self.note_cpu(
            &step,
            &begun,
            tasks,
            ["manager CPU per task", "driver CPU per task"],
        )?;
        let messages = self.processes.counts().messages - counts.messages;
        let each = tasks as f64 / messages.max(1) as f64;
        self.note(&step, "tasks per message", each, "");
        let resident = self.manager.resident()?.saturating_sub(before);
        self.note(&step, "rate", tasks as f64 / took.as_secs_f64(), "1/s");
        self.note(&step, "all RUNNING", took.as_secs_f64(), "s");
        self.note(&step, "all acknowledged", acknowledged.as_secs_f64(), "s");
        self.note(
            &step,
            "resident per task",
            kib(resident) / tasks as f64,
            "KiB",
        );
        let listed = self.cluster.tasks(&service).await?;
        let (mut latencies, last) = latencies(&listed, start);
        self.note(&step, "last RUNNING committed", last, "s");
        self.note(&step, "task p50", percentile(&mut latencies, 50), "s");
        self.note(&step, "task p99", percentile(&mut latencies, 99), "s");
        self.services.push((service, tasks));
        Ok(())
    }

    async fn remove(&mut self) -> anyhow::Result<()> {
        let (service, tasks) = self.services.pop().context("rm: nothing was launched")?;
        let left: u64 = self.services.iter().map(|(_, tasks)| tasks).sum();
        let begun = self.begin()?;
        self.cluster.remove_service(&service).await?;
        if !self.is_disturbed {
            // Lists of many tasks are not asked for while agents still hold them.
            self.processes
                .until("rm", STEP_TIMEOUT, |c| c.held <= left)
                .await?;
        }
        let stay = loop {
            let tasks = self.cluster.tasks(&service).await?;
            if tasks.is_empty() || self.is_disturbed && self.are_on_lost_nodes(&tasks).await? {
                break tasks.len();
            }
            anyhow::ensure!(begun.at.elapsed() < STEP_TIMEOUT, "rm: tasks are left");
            self.processes.rest(POLL_EVERY).await;
        };
        if stay > 0 {
            self.note("rm", "tasks that stay on lost nodes", stay as f64, "");
        }
        let took = begun.at.elapsed().as_secs_f64();
        self.note_of("rm", "gone", took, "s", tasks);
        self.note_cpu(
            "rm",
            &begun,
            tasks,
            ["manager CPU per task", "driver CPU per task"],
        )
    }

    /// A task that is to be removed stays until its node says that it stopped, and a node that is
    /// lost says nothing.
    async fn are_on_lost_nodes(&self, tasks: &[v1::Task]) -> anyhow::Result<bool> {
        let nodes = self.our_nodes().await?;
        let ready = nodes.iter().filter(|node| is_ready(node));
        let ready: BTreeSet<&str> = ready.map(|node| node.id.as_str()).collect();
        Ok(!tasks.iter().any(|task| ready.contains(&*task.node_id)))
    }

    async fn fail(&mut self) -> anyhow::Result<()> {
        let vanish = self.agents / 10;
        anyhow::ensure!(
            vanish > 0,
            "fail: a tenth of {} agents is none",
            self.agents
        );
        self.processes.catch_up();
        let base = self.processes.counts().running;
        let begun = self.begin()?;
        let moved = self.processes.vanish(usize::try_from(vanish)?).await?;
        self.agents -= vanish;
        self.is_disturbed = true;
        anyhow::ensure!(moved > 0, "fail: nothing ran on the agents that vanished");
        let first = self
            .processes
            .until("fail", STEP_TIMEOUT, |c| c.running > base)
            .await?;
        let last = self
            .processes
            .until("fail", STEP_TIMEOUT, |c| c.running >= base + moved);
        let last = last.await?.duration_since(begun.at).as_secs_f64();
        self.note("fail", "tasks that moved", moved as f64, "");
        let first = first.duration_since(begun.at).as_secs_f64();
        self.note("fail", "first RUNNING again", first, "s");
        self.note("fail", "all RUNNING again", last, "s");
        let cpu = self.manager.cpu()? - begun.manager;
        self.note("fail", "manager CPU", cpu, "s");
        Ok(())
    }

    async fn drain(&mut self, count: usize) -> anyhow::Result<()> {
        let (service, _) = self
            .services
            .last()
            .context("drain: nothing was launched")?;
        let tasks = self.cluster.tasks(&service.clone()).await?;
        let mut on: BTreeMap<&str, u64> = BTreeMap::new();
        for task in tasks.iter().filter(|task| is_running(task)) {
            *on.entry(&task.node_id).or_default() += 1;
        }
        let nodes = self.our_nodes().await?.into_iter();
        let chosen: Vec<_> = nodes
            .filter(|node| is_ready(node) && !is_drained(node))
            .map(|node| (on.get(&*node.id).copied().unwrap_or(0), node))
            .filter(|(tasks, _)| *tasks > 0)
            .take(count)
            .collect();
        anyhow::ensure!(
            chosen.len() == count,
            "drain: only {} nodes run tasks",
            chosen.len()
        );
        let moved: u64 = chosen.iter().map(|(tasks, _)| tasks).sum();
        self.processes.catch_up();
        let base = self.processes.counts().running;
        self.is_disturbed = true;
        let begun = self.begin()?;
        for (_, node) in &chosen {
            self.cluster.drain(node).await?;
        }
        let last = self
            .processes
            .until("drain", STEP_TIMEOUT, |c| c.running >= base + moved);
        let last = last.await?.duration_since(begun.at).as_secs_f64();
        self.note("drain", "tasks that moved", moved as f64, "");
        self.note("drain", "all RUNNING again", last, "s");
        let cpu = self.manager.cpu()? - begun.manager;
        self.note("drain", "manager CPU", cpu, "s");
        Ok(())
    }

    async fn reconnect(&mut self) -> anyhow::Result<()> {
        self.processes.times().await?;
        self.processes.catch_up();
        let before = self.processes.counts();
        let begun = self.begin()?;
        self.processes.order(&Order::Reconnect).await?;
        let agents = self.agents;
        let is_back =
            |c: &crate::orders::Counts| c.opened >= before.opened + agents && c.sessions == agents;
        let until = self
            .processes
            .until("reconnect", STEP_TIMEOUT, is_back)
            .await?;
        let took = until.duration_since(begun.at).as_secs_f64();
        self.note("reconnect", "all back", took, "s");
        let names = ["manager CPU per agent", "driver CPU per agent"];
        self.note_cpu("reconnect", &begun, agents, names)?;
        let times = self.processes.times().await?;
        self.note_times("reconnect", times.joins, &["p50", "p99"]);
        let refused = self.processes.counts().refused - before.refused;
        self.note("reconnect", "attempts refused", refused as f64, "");
        Ok(())
    }

    async fn renew(&mut self) -> anyhow::Result<()> {
        self.processes.catch_up();
        let before = self.processes.counts();
        let begun = self.begin()?;
        self.processes.order(&Order::Renew).await?;
        let agents = self.agents;
        let until = self.processes.until("renew", STEP_TIMEOUT, |c| {
            c.renewed >= before.renewed + agents
        });
        let took = until.await?.duration_since(begun.at).as_secs_f64();
        self.note("renew", "all renewed", took, "s");
        let names = ["manager CPU per agent", "driver CPU per agent"];
        self.note_cpu("renew", &begun, agents, names)?;
        let lost = self.processes.counts().lost - before.lost;
        self.note("renew", "sessions lost", lost as f64, "");
        Ok(())
    }

    async fn period(&mut self, period: Duration) -> anyhow::Result<()> {
        let cluster = self.cluster.cluster().await?;
        let old = cluster
            .spec
            .and_then(|spec| spec.dispatcher?.heartbeat_period);
        let old = old.as_ref().and_then(swarm_types::time::duration_from_wire);
        let old = old.context("period: the cluster has none")?;
        anyhow::ensure!(
            old.abs_diff(period) > Duration::from_secs(1),
            "period: {period:?} cannot be told from {old:?}, both are drawn within half a second"
        );
        let millis = u64::try_from(period.as_millis())?;
        self.processes.order(&Order::Period { millis }).await?;
        let begun = self.begin()?;
        self.cluster.set_period(period).await?;
        let agents = self.agents;
        let until = self
            .processes
            .until("period", STEP_TIMEOUT, |c| c.at_period == agents);
        let took = until.await?.duration_since(begun.at).as_secs_f64();
        let step = format!("period:{}", period.as_secs_f64());
        self.note(&step, "told to all agents", took, "s");
        // The longest period that was drawn before, and a little for the way.
        let limit = old.as_secs_f64() + 0.6;
        if let Some(row) = self.report.rows.last_mut() {
            row.bar = Some(crate::report::Bar::AtMost(limit));
        }
        Ok(())
    }

    /// Stops everything.
    pub(crate) async fn stop(self) -> Report {
        let Self {
            manager,
            report,
            processes,
            ..
        } = self;
        drop(processes);
        manager.stop().await;
        report
    }

    async fn our_nodes(&self) -> anyhow::Result<Vec<v1::Node>> {
        let mut nodes = self.cluster.nodes().await?;
        nodes.retain(|node| {
            let description = node.description.as_ref();
            description.is_some_and(|description| description.hostname.starts_with(OUR_NODES))
        });
        Ok(nodes)
    }

    fn begin(&self) -> anyhow::Result<Begun> {
        Ok(Begun {
            at: Instant::now(),
            manager: self.manager.cpu()?,
            driver: self.processes.cpu(),
        })
    }

    fn note(&mut self, step: &str, name: &'static str, value: f64, unit: &'static str) {
        let tasks = step
            .split_once(':')
            .and_then(|(_, tasks)| tasks.parse().ok());
        self.note_of(step, name, value, unit, tasks.unwrap_or(0));
    }

    fn note_of(
        &mut self,
        step: &str,
        name: &'static str,
        value: f64,
        unit: &'static str,
        tasks: u64,
    ) {
        let known = bars::known(step, name, (self.agents, tasks), self.how);
        self.report.rows.push(Row {
            step: step.to_owned(),
            name,
            value,
            unit,
            better: bars::better(name),
            go: known.go,
            bar: known.bar,
        });
    }

    fn note_cpu(
        &mut self,
        step: &str,
        begun: &Begun,
        each: u64,
        names: [&'static str; 2],
    ) -> anyhow::Result<()> {
        let manager = self.manager.cpu()? - begun.manager;
        let driver = self.processes.cpu() - begun.driver;
        let [manager_name, driver_name] = names;
        self.note(step, manager_name, manager * 1e3 / each as f64, "ms");
        self.note(step, driver_name, driver * 1e3 / each as f64, "ms");
        Ok(())
    }

    fn note_times(&mut self, step: &str, times: Vec<u32>, names: &[&'static str; 2]) {
        let mut millis: Vec<f64> = times.into_iter().map(|us| f64::from(us) / 1e3).collect();
        self.note(step, names[0], percentile(&mut millis, 50), "ms");
        self.note(step, names[1], percentile(&mut millis, 99), "ms");
    }
}

/// Of each task the seconds from its creation to its last write, and how long after `start` the
/// last of these writes was.
fn latencies(tasks: &[v1::Task], start: Duration) -> (Vec<f64>, f64) {
    let seconds = |time: Option<swarm_api::prost_types::Timestamp>| {
        time.map_or(0.0, |time| {
            time.seconds as f64 + f64::from(time.nanos) / 1e9
        })
    };
    let mut last = start.as_secs_f64();
    let mut all = Vec::with_capacity(tasks.len());
    for meta in tasks.iter().filter_map(|task| task.meta.as_ref()) {
        let updated = seconds(meta.updated_at);
        last = last.max(updated);
        all.push(updated - seconds(meta.created_at));
    }
    (all, last - start.as_secs_f64())
}

/// Time of day, to compare with the manager's on the same machine.
fn time_of_day() -> Duration {
    #[allow(
        clippy::disallowed_methods,
        reason = "compared with time stamps of the manager"
    )]
    let now = SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

fn kib(bytes: u64) -> f64 {
    bytes as f64 / 1_024.0
}
