//! `swarmd join --check`: would a join work, and if not, what fails?

use std::io::Write as _;

use serde::Serialize;
use swarm_node::check::{self, Report};
use swarm_rt::Clock;
use swarm_types::printable;

use crate::args::{CheckFormat, JoinCheck};

/// What programs get.
#[derive(Serialize)]
struct View<'a> {
    ok: bool,
    steps: Vec<StepView<'a>>,
}

#[derive(Serialize)]
struct StepView<'a> {
    name: &'a str,
    result: String,
    text: &'a str,
}

/// Checks, prints, and fails unless it is known that the token joins.
pub(crate) async fn run(args: JoinCheck) -> anyhow::Result<()> {
    anyhow::ensure!(
        args.check,
        "to join, start the daemon with the same flags: `swarmd --join-addr {} --join-token ...`; \
         to find out whether that would work, add --check",
        args.join_addr
    );
    let report = check::join(&args.join_addr, &args.join_token, &Clock::new()).await;
    let steps = text(&report, args.format)?;
    // The exit code tells the verdict, whether the steps can be written or not.
    let _nobody_reads = writeln!(std::io::stdout(), "{steps}");
    let failed: Vec<&str> = report.failed().map(|step| step.name).collect();
    anyhow::ensure!(
        report.is_good() || !failed.is_empty(),
        "nothing failed, but whether the manager takes this token is not known"
    );
    anyhow::ensure!(
        report.is_good(),
        "this machine cannot join with this address and token: {} failed",
        failed.join(", ")
    );
    Ok(())
}

fn text(report: &Report, format: CheckFormat) -> anyhow::Result<String> {
    match format {
        CheckFormat::Text => {
            let lines = report.steps.iter().map(|step| {
                // A step may hold what a peer said.
                let text = printable::line(&step.text);
                let line = format!("{:<8}  {:<10}  {text}", step.outcome, step.name);
                line.trim_end().to_owned()
            });
            Ok(lines.collect::<Vec<_>>().join("\n"))
        }
        CheckFormat::Json => {
            let steps = report.steps.iter().map(|step| StepView {
                name: step.name,
                result: step.outcome.to_string(),
                text: &step.text,
            });
            let view = View {
                ok: report.is_good(),
                steps: steps.collect(),
            };
            Ok(serde_json::to_string_pretty(&view)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_node::check::{Outcome, Step};

    #[test]
    fn people_get_lines_and_programs_get_json() {
        let step = |name, outcome, text: &str| Step {
            name,
            outcome,
            text: text.to_owned(),
        };
        let report = Report {
            steps: vec![
                step("address", Outcome::Good, "10.0.0.1:4242"),
                step("port", Outcome::Bad, "closed"),
                step("tls", Outcome::Untested, ""),
            ],
        };
        let lines = "ok        address     10.0.0.1:4242\n\
                     failed    port        closed\n\
                     untested  tls";
        assert_eq!(text(&report, CheckFormat::Text).unwrap(), lines);
        let json = text(&report, CheckFormat::Json).unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["ok"], false);
        assert_eq!(json["steps"][1]["result"], "failed");
    }
}
