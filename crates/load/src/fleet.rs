//! The agents of one process, and the orders that move them.

use std::io::{BufRead as _, Write as _};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::{AbortHandle, LocalSet};

use crate::agent::{Agent, Tasks, World};
use crate::limits;
use crate::options::Fleet as Options;
use crate::orders::{COUNTS_EVERY_MILLIS, Counts, Notice, Order};
use crate::tally::Tally;
use crate::transport::Roots;

/// Agents of a process that renew their certificates at the same time.
const RENEWING_MAX: usize = 16;

/// Holds agents until standard input ends.
///
/// # Errors
/// When the system has no room for them, or the planning process sends what is no order.
pub(crate) fn main(options: &Options) -> anyhow::Result<()> {
    limits::check_open_files(options.agents as usize)?;
    // One thread: agents wait nearly always, and two processes use two cores.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    LocalSet::new().block_on(&runtime, serve(options))
}

async fn serve(options: &Options) -> anyhow::Result<()> {
    // Unbounded, but the planning process waits for the effect of most orders.
    let (sender, mut orders) = mpsc::unbounded_channel();
    // Standard input cannot be read without blocking; the thread ends with it.
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            let order: Result<Order, _> = serde_json::from_str(&line);
            if sender.send(order).is_err() {
                return;
            }
        }
    });
    let mut fleet = Fleet::new(options);
    let mut told = Counts::default();
    let mut tick = tokio::time::interval(Duration::from_millis(COUNTS_EVERY_MILLIS));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => fleet.take(order.context("read an order")?)?,
                None => return Ok(()),
            },
            _ = tick.tick() => {
                let counts = fleet.world.tally.counts();
                if counts != told {
                    tell(&Notice::Counts(counts.clone()))?;
                    told = counts;
                }
            }
        }
    }
}

struct Fleet {
    world: Rc<World>,
    first: usize,
    agents: Vec<(AbortHandle, Tasks)>,
    size: usize,
}

impl Fleet {
    fn new(options: &Options) -> Self {
        let world = World {
            manager: options.addr,
            variant: options.variant,
            tally: Tally::default(),
            roots: Roots::new(),
            client: options.client,
            cut: Notify::new(),
            renew: Notify::new(),
            renewing: Semaphore::new(RENEWING_MAX),
        };
        Self {
            world: Rc::new(world),
            first: options.first as usize,
            agents: Vec::new(),
            size: options.agents as usize,
        }
    }

    fn take(&mut self, order: Order) -> anyhow::Result<()> {
        match order {
            Order::Join { at_once, token } => self.join(at_once, &token),
            Order::Vanish { agents } => {
                let running = self.vanish(agents);
                tell(&Notice::Vanished { running })?;
            }
            Order::Reconnect => self.world.cut.notify_waiters(),
            Order::Renew => self.world.renew.notify_waiters(),
            Order::Period { millis } => {
                self.world.tally.watch_period(Duration::from_millis(millis));
            }
            Order::Times => tell(&Notice::Times(self.world.tally.take_times()))?,
        }
        Ok(())
    }

    fn join(&mut self, at_once: usize, token: &str) {
        let places = Arc::new(Semaphore::new(at_once.max(1)));
        let token: Rc<str> = token.into();
        for number in self.first..self.first + self.size {
            let (world, tasks) = (Rc::clone(&self.world), Tasks::default());
            let agent = Agent::new(number, world, tasks.clone());
            let (places, token) = (Arc::clone(&places), Rc::clone(&token));
            let life = async move {
                // The semaphore is never closed.
                if let Ok(place) = places.acquire_owned().await {
                    agent.live(token, place).await;
                }
            };
            let handle = tokio::task::spawn_local(life).abort_handle();
            self.agents.push((handle, tasks));
        }
    }

    /// Takes agents from the end, so that what is left is numbered without gaps.
    fn vanish(&mut self, agents: usize) -> u64 {
        let keep = self.agents.len().saturating_sub(agents);
        let gone = self.agents.split_off(keep);
        let (count, mut running, mut held) = (gone.len() as u64, 0, 0);
        for (handle, tasks) in gone {
            running += tasks.running();
            held += tasks.held();
            handle.abort();
        }
        self.world.tally.count(|counts| {
            counts.sessions = counts.sessions.saturating_sub(count);
            counts.held -= held;
        });
        running
    }
}

/// Tells the planning process.
fn tell(notice: &Notice) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(notice).context("encode a notice")?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line).context("tell the planning process")?;
    out.flush().context("tell the planning process")
}
