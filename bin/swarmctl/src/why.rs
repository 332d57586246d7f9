//! `swarmctl why`: the manager's explanation, for reading.

use clap::{Args, ValueEnum};
use swarm_api::ext;
use swarm_types::{Timestamp, printable};

use crate::cli::{Format, InspectFlags};
use crate::failure::Failure;
use crate::output::{Context, emit, emit_json};
use crate::units;
use crate::view::WhyView;

/// Flags of `why`.
#[derive(Debug, Args)]
pub(crate) struct Why {
    #[command(flatten)]
    flags: InspectFlags,
    /// What the object is, when its name fits objects of several kinds.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Service,
    Task,
    Node,
}

/// Asks and prints.
///
/// # Errors
/// What the manager refused.
pub(crate) async fn run(context: &Context, why: Why) -> Result<(), Failure> {
    let kind = match why.kind {
        Some(Kind::Service) => "service",
        Some(Kind::Task) => "task",
        Some(Kind::Node) => "node",
        None => "",
    };
    let request = ext::WhyRequest {
        kind: kind.to_owned(),
        object: why.flags.object,
    };
    let manager = &context.manager;
    let answer = manager.call(manager.explain().why(request)).await?;
    match why.flags.format {
        Format::Json => emit_json(&WhyView::from(answer)),
        Format::Table => emit(&text(&answer, context.now())),
    }
}

fn text(answer: &ext::WhyResponse, now: Timestamp) -> String {
    let mut lines = vec![answer.headline.clone()];
    let name = match answer.object_name.as_str() {
        "" => String::new(),
        name => format!(" {name}"),
    };
    lines.push(format!(
        "  {}{name}, id {}",
        answer.object_kind, answer.object_id
    ));
    if answer.waiting_since.is_some() {
        let since = units::time_and_age(answer.waiting_since.as_ref(), now);
        lines.push(format!("  waiting since {since}"));
    }
    if let Some(at) = units::time(answer.next_retry.as_ref()) {
        let left = units::show_duration(at.saturating_since(now));
        lines.push(format!(
            "  next try at {} (in {left})",
            units::show_time(at)
        ));
    }
    if !answer.reasons.is_empty() {
        lines.push(String::new());
        lines.push("Why:".to_owned());
        lines.extend(
            answer
                .reasons
                .iter()
                .flat_map(|reason| reason_lines(reason, now)),
        );
    }
    if !answer.next_steps.is_empty() {
        lines.push(String::new());
        lines.push("What you can do:".to_owned());
        lines.extend(answer.next_steps.iter().map(|step| format!("  {step}")));
    }
    lines.push(String::new());
    // A reason may hold what a node or a task said.
    let lines: Vec<_> = lines.iter().map(|it| printable::line(it)).collect();
    lines.join("\n")
}

fn reason_lines(reason: &ext::Reason, now: Timestamp) -> Vec<String> {
    let since = units::time(reason.since.as_ref());
    let since = since.map_or_else(String::new, |at| format!(" ({})", units::ago(at, now)));
    let mut lines = vec![format!("  - {}{since}", reason.text)];
    let width = reason
        .filter_counts
        .iter()
        .map(|count| count.filter.len())
        .max();
    for count in &reason.filter_counts {
        let width = width.unwrap_or(0);
        lines.push(format!("      {:width$}  {}", count.filter, count.text));
    }
    if let Some(nearest) = &reason.nearest {
        let name = match nearest.hostname.as_str() {
            "" => nearest.node_id.as_str(),
            name => name,
        };
        lines.push(format!("      nearest node: {name}"));
        lines.extend(nearest.missing.iter().map(|lack| format!("        {lack}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_api::prost_types;

    fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds, nanos: 0 })
    }

    #[test]
    fn an_explanation_reads_from_the_headline_to_the_way_out() {
        let answer = ext::WhyResponse {
            object_kind: "service".to_owned(),
            object_id: "s1".to_owned(),
            object_name: "web".to_owned(),
            headline: "Service web runs 1 of 2 tasks.".to_owned(),
            waiting_since: at(40),
            next_retry: at(105),
            next_steps: vec!["swarmctl node activate node-2".to_owned()],
            reasons: vec![ext::Reason {
                code: "no_suitable_node".to_owned(),
                text: "1 task fits no node".to_owned(),
                since: at(40),
                filter_counts: vec![
                    ext::FilterCount {
                        filter: "ready".to_owned(),
                        nodes: 1,
                        text: "1 node not available for new tasks".to_owned(),
                    },
                    ext::FilterCount {
                        filter: "constraint".to_owned(),
                        nodes: 2,
                        text: "scheduling constraints not satisfied on 2 nodes".to_owned(),
                    },
                ],
                nearest: Some(ext::NearestNode {
                    node_id: "n2".to_owned(),
                    hostname: "node-2".to_owned(),
                    missing: vec!["node is paused".to_owned()],
                }),
                object_id: String::new(),
            }],
        };
        let expected = "\
Service web runs 1 of 2 tasks.
  service web, id s1
  waiting since 1970-01-01T00:00:40Z (1 minute ago)
  next try at 1970-01-01T00:01:45Z (in 5 s)

Why:
  - 1 task fits no node (1 minute ago)
      ready       1 node not available for new tasks
      constraint  scheduling constraints not satisfied on 2 nodes
      nearest node: node-2
        node is paused

What you can do:
  swarmctl node activate node-2
";
        assert_eq!(text(&answer, Timestamp::from_millis(100_000)), expected);
    }

    #[test]
    fn what_a_worker_said_stays_in_its_line() {
        let answer = ext::WhyResponse {
            headline: "Task web.1 failed: a\u{9b}2J\nb.".to_owned(),
            reasons: vec![ext::Reason {
                text: "\u{1b}]0;x\u{7}".to_owned(),
                ..Default::default()
            }],
            next_steps: vec!["swarmctl why x\r".to_owned()],
            ..Default::default()
        };
        let text = text(&answer, Timestamp::EPOCH);
        assert!(
            text.starts_with("Task web.1 failed: a\\u{9b}2J\\nb.\n"),
            "{text}"
        );
        assert!(text.contains("  - \\u{1b}]0;x\\u{7}\n"), "{text}");
        assert!(text.ends_with("  swarmctl why x\\r\n"), "{text}");
    }

    #[test]
    fn an_explanation_without_reasons_is_two_lines() {
        let answer = ext::WhyResponse {
            object_kind: "node".to_owned(),
            object_id: "n1".to_owned(),
            headline: "Node n1 takes tasks.".to_owned(),
            ..Default::default()
        };
        let expected = "Node n1 takes tasks.\n  node, id n1\n";
        assert_eq!(text(&answer, Timestamp::EPOCH), expected);
    }
}
