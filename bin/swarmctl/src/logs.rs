//! `swarmctl service logs` and `swarmctl task logs`: asks for lines, and prints them as they come.
//!
//! Owns names, prefixes and exit codes. Decides nothing about which lines there are: nodes choose
//! them, the manager brings them in the order in which they arrive.

mod flags;
mod names;
mod print;

use std::collections::BTreeSet;

use swarm_api::v1;

use crate::cli::Format;
use crate::failure::{Exit, Failure};
use crate::lookup::find;
use crate::output::Context;

pub(crate) use flags::LogFlags;
use names::Names;
use print::{Printer, Style};

/// How SwarmKit begins the error of a stream from which something is missing.
const INCOMPLETE: &str = "warning: incomplete log stream";

/// Prints the output of services.
///
/// # Errors
/// What the manager refused, and exit code 6 when something is missing.
pub(crate) async fn of_services(context: &Context, flags: LogFlags) -> Result<(), Failure> {
    let mut selector = v1::LogSelector::default();
    let mut names = Names::new(context);
    let wanted: BTreeSet<&String> = flags.objects.iter().collect();
    for object in wanted {
        let service: v1::Service = find(&context.manager, object).await?;
        names.learn_service(&service.id).await?;
        selector.service_ids.push(service.id);
    }
    run(context, &flags, selector, names).await
}

/// Prints the output of tasks.
///
/// # Errors
/// As [`of_services`].
pub(crate) async fn of_tasks(context: &Context, flags: LogFlags) -> Result<(), Failure> {
    let mut selector = v1::LogSelector::default();
    let mut names = Names::new(context);
    let wanted: BTreeSet<&String> = flags.objects.iter().collect();
    for object in wanted {
        let task: v1::Task = find(&context.manager, object).await?;
        selector.task_ids.push(task.id.clone());
        names.learn_task(task);
    }
    run(context, &flags, selector, names).await
}

/// How a stream ended, but for trouble.
enum End {
    /// The manager has no more; something is missing or not.
    Complete {
        is_missing: bool,
    },
    /// Nobody reads what we print.
    Unread,
    Interrupted,
}

async fn run(
    context: &Context,
    flags: &LogFlags,
    selector: v1::LogSelector,
    mut names: Names<'_>,
) -> Result<(), Failure> {
    names.learn_nodes().await?;
    let request = v1::SubscribeLogsRequest {
        selector: Some(selector),
        options: Some(flags.options(context.now())?),
    };
    let manager = &context.manager;
    let stream = manager.call(manager.logs().subscribe_logs(request)).await?;
    let printer = Printer::new(Style {
        is_json: flags.format == Format::Json,
        has_prefix: !flags.raw,
        has_times: flags.timestamps,
        has_details: flags.details,
    });
    let ended = tokio::select! {
        ended = print(context, stream, &mut names, printer) => ended?,
        _ = tokio::signal::ctrl_c() => End::Interrupted,
    };
    match ended {
        End::Complete { is_missing: false } | End::Unread => Ok(()),
        End::Complete { is_missing: true } => Err(Failure::new(
            Exit::Incomplete,
            "some lines are missing, as the notices above say",
        )),
        // Whoever pressed the keys knows.
        End::Interrupted => Err(Failure::new(Exit::Interrupted, "")),
    }
}

async fn print(
    context: &Context,
    mut stream: tonic::Streaming<v1::SubscribeLogsMessage>,
    names: &mut Names<'_>,
    mut printer: Printer,
) -> Result<End, Failure> {
    let mut is_missing = false;
    loop {
        match stream.message().await {
            Ok(Some(message)) => {
                names.learn(&message.messages).await?;
                for line in &message.messages {
                    is_missing |= print::is_notice(line);
                    printer.put(line, names);
                }
                if !printer.flush()? {
                    return Ok(End::Unread);
                }
            }
            Ok(None) => {
                printer.finish();
                printer.flush()?;
                return Ok(End::Complete { is_missing });
            }
            Err(status) => {
                printer.finish();
                printer.flush()?;
                if status.message().starts_with(INCOMPLETE) {
                    let text = names.resolved(status.message());
                    return Err(Failure::new(Exit::Incomplete, text)
                        .hint("`swarmctl node ls` shows which nodes are down"));
                }
                return Err(context.manager.failure(&status));
            }
        }
    }
}
