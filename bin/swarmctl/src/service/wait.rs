//! Waits in the foreground until a service converges, and shows how it goes on stderr.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use swarm_api::{ext, v1};
use swarm_types::printable;
use tokio::time::{Instant, MissedTickBehavior};

use super::create::WaitFlags;
use super::progress::{Judge, Progress, Verdict};
use crate::failure::{Exit, Failure};
use crate::lookup::{Named as _, of_service};
use crate::output::{Context, note};
use crate::{node, units};

/// How often the manager is asked.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// The pause between polls is at least this many times as long as a poll took, so that waiting for
/// a service of many tasks does not load the manager.
const POLL_SHARE: u32 = 4;
/// How long nothing has to change before the manager is asked why.
const STUCK_AFTER: Duration = Duration::from_secs(1);
/// How often it is asked why.
const WHY_INTERVAL: Duration = Duration::from_secs(2);

/// Waits until the service converges.
///
/// # Errors
/// That it does not (exit code 5), not in time (4), or Ctrl-C (130). The service stays.
pub(crate) async fn until_converged(
    context: &Context,
    id: &str,
    name: &str,
    flags: WaitFlags,
) -> Result<(), Failure> {
    let started = Instant::now();
    let mut wait = Wait {
        context,
        id,
        display: Display::new(context.may_move, name),
        judge: Judge::new(flags.monitor),
        started,
        text: String::new(),
        changed_at: started,
        asked_at: None,
        reason: String::new(),
        problem: String::new(),
    };
    let ended = tokio::select! {
        ended = wait.run() => ended.map_err(Some),
        () = tokio::time::sleep(flags.timeout) => Err(None),
        _ = tokio::signal::ctrl_c() => Err(Some(interrupted())),
    };
    wait.display.end();
    match ended {
        Ok(()) => {
            let took = units::show_duration(started.elapsed());
            note(&format!("{name}: {}, converged after {took}", wait.text));
            Ok(())
        }
        Err(end) => {
            let end = end.unwrap_or_else(|| timed_out(flags.timeout, wait.complaint()));
            Err(end.failure(name, &wait.text))
        }
    }
}

/// How a wait ends that does not end well.
struct End {
    exit: Exit,
    what: String,
    why: String,
}

fn hopeless(why: &str) -> End {
    End {
        exit: Exit::NotConverged,
        what: "failed to converge".to_owned(),
        why: why.to_owned(),
    }
}

fn timed_out(timeout: Duration, why: &str) -> End {
    End {
        exit: Exit::TimedOut,
        what: format!("did not converge within {}", units::show_duration(timeout)),
        why: why.to_owned(),
    }
}

fn interrupted() -> End {
    End {
        exit: Exit::Interrupted,
        what: "stays, only the wait was interrupted".to_owned(),
        why: String::new(),
    }
}

impl End {
    fn failure(self, name: &str, progress: &str) -> Failure {
        let mut message = format!("service {name:?} {}", self.what);
        if !progress.is_empty() {
            message.push_str(&format!(" ({progress})"));
        }
        if !self.why.is_empty() {
            message.push_str(&format!(": {}", self.why));
        }
        Failure::new(self.exit, message)
            .hint(format!("`swarmctl why {name}` says why it is where it is"))
            .hint(format!(
                "the service stays; `swarmctl service rm {name}` removes it"
            ))
    }
}

struct Wait<'a> {
    context: &'a Context,
    id: &'a str,
    display: Display,
    judge: Judge,
    started: Instant,
    /// The last progress in words, and when it became so.
    text: String,
    changed_at: Instant,
    asked_at: Option<Instant>,
    /// Why it does not go on, if it does not.
    reason: String,
    /// What its tasks complained about when it was last looked at.
    problem: String,
}

impl Wait<'_> {
    /// The best that is known about why it does not go on.
    fn complaint(&self) -> &str {
        match self.reason.as_str() {
            "" => &self.problem,
            reason => reason,
        }
    }

    async fn run(&mut self) -> Result<(), End> {
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let polled = Instant::now();
            match self.poll().await {
                Ok(progress) => match self.step(&progress, polled).await {
                    Verdict::Converged => return Ok(()),
                    Verdict::Hopeless(why) => return Err(hopeless(&why)),
                    Verdict::Waiting | Verdict::Watching { .. } => {}
                },
                Err(failure) if failure.exit() == Exit::NotFound => {
                    return Err(hopeless("it was removed"));
                }
                // A manager that restarts comes back; the time limit is the limit.
                Err(failure) => self.display.show(&self.text, failure.message()),
            }
            tokio::time::sleep(polled.elapsed() * POLL_SHARE).await;
        }
    }

    async fn poll(&self) -> Result<Progress, Failure> {
        let manager = &self.context.manager;
        let Some(service) = v1::Service::get(manager, self.id).await? else {
            return Err(Failure::new(Exit::NotFound, "the service is gone"));
        };
        let tasks = of_service(manager, self.id).await?;
        let nodes = node::all(self.context).await?;
        Ok(Progress::measure(&service, &tasks, &nodes))
    }

    async fn step(&mut self, progress: &Progress, polled: Instant) -> Verdict {
        let now = Instant::now();
        let since_start = |at: Instant| at.duration_since(self.started);
        let asked = since_start(polled)..since_start(now);
        let text = progress.text();
        progress.problem().clone_into(&mut self.problem);
        if text != self.text {
            self.text = text;
            self.changed_at = now;
            self.reason.clear();
        }
        let verdict = self.judge.judge(progress, asked);
        let note = match &verdict {
            Verdict::Watching { left } => {
                self.reason.clear();
                format!(
                    "watching for {} more",
                    units::show_duration(round_up(*left))
                )
            }
            Verdict::Waiting if now.duration_since(self.changed_at) >= STUCK_AFTER => {
                self.ask_why(now).await;
                self.reason.clone()
            }
            Verdict::Waiting | Verdict::Converged | Verdict::Hopeless(_) => String::new(),
        };
        self.display
            .bar(progress.running.len() as u64, progress.desired);
        self.display.show(&self.text, &note);
        verdict
    }

    /// Asks the manager; one that cannot say leaves us with what the tasks complain about.
    async fn ask_why(&mut self, now: Instant) {
        let is_recent = |at: Instant| now.duration_since(at) < WHY_INTERVAL;
        if self.asked_at.is_some_and(is_recent) && !self.reason.is_empty() {
            return;
        }
        self.asked_at = Some(now);
        let request = ext::WhyRequest {
            kind: "service".to_owned(),
            object: self.id.to_owned(),
        };
        let manager = &self.context.manager;
        let answer = manager.call(manager.explain().why(request)).await;
        let first = answer
            .ok()
            .and_then(|answer| answer.reasons.into_iter().next());
        self.reason = first.map_or_else(|| self.problem.clone(), |reason| reason.text);
    }
}

fn round_up(left: Duration) -> Duration {
    Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0))
}

/// Where progress is shown.
enum Display {
    /// A line that moves.
    Bar(ProgressBar),
    /// A line for each change.
    Plain { name: String, last: String },
}

impl Display {
    fn new(may_move: bool, name: &str) -> Self {
        if !may_move {
            return Self::Plain {
                name: name.to_owned(),
                last: String::new(),
            };
        }
        let style = ProgressStyle::with_template("{spinner} {prefix} [{bar:24}] {msg} ({elapsed})")
            .expect("the template is fixed and was tried")
            .progress_chars("=> ");
        let bar = ProgressBar::new(1).with_style(style);
        bar.set_prefix(name.to_owned());
        Self::Bar(bar)
    }

    fn bar(&self, running: u64, desired: u64) {
        match self {
            Self::Bar(bar) => {
                bar.set_length(desired);
                bar.set_position(running.min(desired));
            }
            Self::Plain { .. } => {}
        }
    }

    fn show(&mut self, text: &str, note: &str) {
        let line = match note {
            "" => text.to_owned(),
            note => format!("{text}; {note}"),
        };
        match self {
            Self::Bar(bar) => {
                bar.set_message(printable::line(&line).into_owned());
                bar.tick();
            }
            Self::Plain { name, last } => {
                // The countdown is no change worth a line.
                let key = note
                    .strip_prefix("watching")
                    .map_or(line.as_str(), |_| text);
                if key != last {
                    key.clone_into(last);
                    crate::output::note(&format!("{name}: {key}"));
                }
            }
        }
    }

    fn end(&self) {
        match self {
            Self::Bar(bar) => bar.finish_and_clear(),
            Self::Plain { .. } => {}
        }
    }
}
