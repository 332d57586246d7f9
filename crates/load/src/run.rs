//! One run: a manager, its agents, the steps in order, the report.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::gates;
use crate::options::{Format, Run, Step};
use crate::report::Report;
use crate::steps::Bench;

/// Carries the options out; the exit code says whether every bar was kept.
///
/// # Errors
/// When a step fails.
pub(crate) fn main(run: &Run) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?;
    let report = LocalSet::new().block_on(&runtime, async {
        if let Some(agents_max) = run.gates {
            gates::all(run, agents_max).await
        } else {
            one(run, &run.steps).await
        }
    })?;
    print(run.format, &report)?;
    Ok(if report.missed() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One manager, one fleet.
///
/// # Errors
/// When a step fails; what was measured until then is printed.
pub(crate) async fn one(run: &Run, steps: &[Step]) -> anyhow::Result<Report> {
    let mut bench = Bench::start(run).await?;
    let mut failure = None;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    for step in steps {
        anstream::eprintln!("swarm-load: {} agents: {step:?}", run.agents);
        let done = tokio::select! {
            done = bench.step(*step) => done,
            _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
            _ = terminate.recv() => Err(anyhow::anyhow!("interrupted")),
        };
        if let Err(error) = done {
            failure = Some(error.context(format!("{step:?}")));
            break;
        }
    }
    let report = bench.stop().await;
    match failure {
        None => Ok(report),
        Some(error) => {
            anstream::eprintln!("{}", report.table());
            Err(error)
        }
    }
}

fn print(format: Format, report: &Report) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Text => {
            write!(out, "{}", report.table())?;
            let missed = report.missed();
            if missed > 0 {
                writeln!(out, "{missed} bars missed")?;
            }
        }
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, report)?;
            writeln!(out)?;
        }
    }
    Ok(())
}
