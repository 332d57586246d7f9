//! Runs seeds, one or thousands, on several threads, and tells what came of them.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

use crate::invariants::{PANIC, Violation};
use crate::settings::{Options, Settings};
use crate::world::World;

/// What came of one run.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was asked for.
    pub options: Options,
    /// Everything that was drawn.
    pub settings: Settings,
    /// Hash of the whole trace.
    pub hash: u64,
    /// Lines of the trace.
    pub events: u64,
    /// Virtual time at the end, in nanoseconds.
    pub end: u64,
    /// Commits.
    pub commits: u64,
    /// How often two processes of one replica ran at once for an allowed reason.
    pub double_runs: u64,
    /// Actions of the user that were accepted and refused.
    pub actions: (u64, u64),
    /// The most nodes that were asked at once to renew their certificates.
    pub asked_most: usize,
    /// The violation that ended the run, if one did.
    pub violation: Option<Violation>,
    /// The last lines of the trace.
    pub recent: Vec<String>,
    /// The lines that were asked for.
    pub printed: Vec<String>,
}

impl Report {
    /// One line.
    pub fn summary(&self) -> String {
        format!(
            "seed {} {} {} trace {:016x}: {} events, {} commits, {} actions taken, {} refused, {} \
             double runs, {} virtual seconds",
            self.options.seed,
            self.options.scenario.name(),
            if self.violation.is_some() {
                "FAILED"
            } else {
                "ok"
            },
            self.hash,
            self.events,
            self.commits,
            self.actions.0,
            self.actions.1,
            self.double_runs,
            self.end / crate::time::S
        )
    }
}

/// Runs one seed.
pub fn run(options: Options) -> Report {
    run_with(Settings::draw(options))
}

/// Runs with settings that somebody chose.
pub fn run_with(settings: Settings) -> Report {
    catch_panics();
    let mut world = World::new(settings.clone());
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let violation = match result {
        Ok(checked) => checked.err(),
        Err(_) => Some(Violation::new(PANIC, LAST_PANIC.take())),
    };
    Report {
        options: settings.options,
        settings,
        hash: world.trace.hash(),
        events: world.trace.events(),
        end: world.agenda.now().0,
        commits: world.checker.commits,
        double_runs: world.checker.double_runs,
        asked_most: world.trust.asked_most,
        actions: (world.user.accepted, world.user.refused),
        violation,
        recent: world.trace.recent(),
        printed: std::mem::take(&mut world.trace.printed),
    }
}

/// Runs `count` seeds from that of `options` on; hands each report over as it comes, in no
/// particular order, until `take` answers `false`.
pub fn run_many(
    options: Options,
    count: u64,
    threads: usize,
    mut take: impl FnMut(Report) -> bool,
) {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (sender, reports) = mpsc::sync_channel(threads.max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (sender, next, stop) = (sender.clone(), &next, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if place >= count {
                        break;
                    }
                    let seed = options.seed.wrapping_add(place);
                    if sender.send(run(Options { seed, ..options })).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for report in reports.iter() {
            if !take(report) {
                stop.store(true, Ordering::Relaxed);
                break;
            }
        }
        drop(reports);
    });
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics of a run are violations, with their text and place.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| LAST_PANIC.set(info.to_string())));
    });
}
