//! The processes that hold the agents, seen from the planning one.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::books;
use crate::options::Run;
use crate::orders::{Counts, Notice, Order, Times};

/// Notices that may wait; a process that is not heard waits.
const NOTICES_MAX: usize = 256;
/// How long the answer to an order may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// All of them. They end when this is dropped.
pub(crate) struct Processes {
    children: Vec<Member>,
    notices: mpsc::Receiver<(usize, Notice)>,
    counts: Vec<Counts>,
    _readers: JoinSet<()>,
}

struct Member {
    child: Child,
    orders: ChildStdin,
    agents: usize,
}

impl Processes {
    /// Starts them.
    ///
    /// # Errors
    /// When a process cannot be started.
    pub(crate) fn start(run: &Run, addr: std::net::SocketAddr) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let (sender, notices) = mpsc::channel(NOTICES_MAX);
        let mut readers = JoinSet::new();
        let mut children = Vec::new();
        let (total, processes) = (run.agents, u32::from(run.processes));
        for index in 0..processes {
            let first = total * index / processes;
            let agents = total * (index + 1) / processes - first;
            let mut child = Command::new(&program)
                .arg("fleet")
                .args(["--first", &first.to_string()])
                .args(["--agents", &agents.to_string()])
                .args(["--addr", &addr.to_string()])
                .args(["--variant", run.variant.name()])
                .args(["--client", run.client.name()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .context("start a process for agents")?;
            let orders = child.stdin.take().context("standard input of a process")?;
            let said = child
                .stdout
                .take()
                .context("standard output of a process")?;
            let (lines, sender) = (BufReader::new(said).lines(), sender.clone());
            readers.spawn_local(read(index as usize, lines, sender));
            children.push(Member {
                child,
                orders,
                agents: agents as usize,
            });
        }
        Ok(Self {
            counts: vec![Counts::default(); children.len()],
            children,
            notices,
            _readers: readers,
        })
    }

    /// How many processes there are.
    pub(crate) fn len(&self) -> usize {
        self.children.len()
    }

    /// Seconds of processor time that they took so far.
    pub(crate) fn cpu(&self) -> f64 {
        let ids = self.children.iter().filter_map(|member| member.child.id());
        ids.filter_map(|id| books::cpu(id).ok()).sum()
    }

    /// Sends an order to all of them.
    ///
    /// # Errors
    /// When one of them is gone.
    pub(crate) async fn order(&mut self, order: &Order) -> anyhow::Result<()> {
        for member in &mut self.children {
            member.send(order).await?;
        }
        Ok(())
    }

    /// Lets so many agents vanish, spread over the processes; returns how many tasks ran on them.
    ///
    /// # Errors
    /// When one of the processes is gone or does not answer.
    pub(crate) async fn vanish(&mut self, agents: usize) -> anyhow::Result<u64> {
        let processes = self.children.len();
        for (index, member) in self.children.iter_mut().enumerate() {
            let share = agents * (index + 1) / processes - agents * index / processes;
            let share = share.min(member.agents);
            member.agents -= share;
            member.send(&Order::Vanish { agents: share }).await?;
        }
        let mut all = 0;
        self.answers(|notice| match notice {
            Notice::Vanished { running } => {
                all += running;
                true
            }
            Notice::Counts(_) | Notice::Times(_) => false,
        })
        .await?;
        Ok(all)
    }

    /// The times that were collected since the last question.
    ///
    /// # Errors
    /// When one of the processes is gone or does not answer.
    pub(crate) async fn times(&mut self) -> anyhow::Result<Times> {
        self.order(&Order::Times).await?;
        let mut all = Times::default();
        self.answers(|notice| match notice {
            Notice::Times(times) => {
                all.joins.extend(&times.joins);
                all.heartbeats.extend(&times.heartbeats);
                true
            }
            Notice::Counts(_) | Notice::Vanished { .. } => false,
        })
        .await?;
        Ok(all)
    }

    /// The counts of all of them together.
    pub(crate) fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        for counts in &self.counts {
            sum.add(counts);
        }
        sum
    }

    /// Waits, and takes in what is said meanwhile: a process that is not heard stops after a while,
    /// and its agents with it.
    pub(crate) async fn rest(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while let Ok(Some((index, notice))) =
            tokio::time::timeout_at(deadline.into(), self.notices.recv()).await
        {
            self.note(index, &notice);
        }
    }

    /// Takes in what has been said.
    pub(crate) fn catch_up(&mut self) {
        while let Ok((index, notice)) = self.notices.try_recv() {
            self.note(index, &notice);
        }
    }

    /// Waits until the counts say so. Returns when that was.
    ///
    /// # Errors
    /// When they do not within the time, with the counts; when a process is gone.
    pub(crate) async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        is_done: impl Fn(&Counts) -> bool,
    ) -> anyhow::Result<Instant> {
        let deadline = Instant::now() + limit;
        loop {
            let counts = self.counts();
            if is_done(&counts) {
                return Ok(Instant::now());
            }
            let heard = tokio::time::timeout_at(deadline.into(), self.notices.recv()).await;
            match heard {
                Ok(Some((index, notice))) => self.note(index, &notice),
                Ok(None) => anyhow::bail!("the processes that hold agents are gone"),
                Err(_) => anyhow::bail!("{what}: not within {limit:?}; {counts:?}"),
            }
        }
    }

    async fn answers(&mut self, mut is_answer: impl FnMut(&Notice) -> bool) -> anyhow::Result<()> {
        let mut left = self.children.len();
        while left > 0 {
            let heard = tokio::time::timeout(ANSWER_TIMEOUT, self.notices.recv()).await;
            let heard = heard.context("a process that holds agents does not answer")?;
            let (index, notice) = heard.context("the processes that hold agents are gone")?;
            if is_answer(&notice) {
                left -= 1;
            }
            self.note(index, &notice);
        }
        Ok(())
    }

    fn note(&mut self, index: usize, notice: &Notice) {
        if let Notice::Counts(counts) = notice {
            self.counts[index].clone_from(counts);
        }
    }
}

impl Member {
    async fn send(&mut self, order: &Order) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(order).context("encode an order")?;
        line.push(b'\n');
        let sent = self.orders.write_all(&line).await;
        sent.context("a process that holds agents is gone")
    }
}

/// Hands on what a process says.
async fn read(
    index: usize,
    mut lines: Lines<BufReader<ChildStdout>>,
    sender: mpsc::Sender<(usize, Notice)>,
) {
    while let Ok(Some(line)) = lines.next_line().await {
        let notice = match serde_json::from_str(&line) {
            Ok(notice) => notice,
            Err(error) => {
                anstream::eprintln!("swarm-load: process {index} said something else: {error}");
                return;
            }
        };
        if sender.send((index, notice)).await.is_err() {
            return;
        }
    }
}
