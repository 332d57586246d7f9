//! From lines of the wire to text: prefixes, times, parts of long lines, notices, JSON.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;
use swarm_api::v1;
use swarm_types::printable;

use super::names::{Names, Place};
use crate::failure::Failure;

/// How lines are shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) is_json: bool,
    pub(super) has_prefix: bool,
    pub(super) has_times: bool,
    pub(super) has_details: bool,
}

/// Collects text until it is flushed.
pub(super) struct Printer {
    style: Style,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Whose line has begun and not ended, by task and stream.
    open: Option<(String, i32)>,
}

/// A line in JSON. The names of the fields are stable.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    stream: &'static str,
    service_id: &'a str,
    service: &'a str,
    slot: u64,
    task_id: &'a str,
    node_id: &'a str,
    node: &'a str,
    /// Bytes that are no UTF-8 are replaced.
    line: &'a str,
    /// Whether the line goes on in the next document of this task and stream.
    partial: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    details: BTreeMap<&'a str, &'a str>,
}

/// Whether a line is about lines: a node or an executor says that something is missing.
pub(super) fn is_notice(line: &v1::LogMessage) -> bool {
    line.stream() == v1::LogStream::Unknown
}

impl Printer {
    pub(super) fn new(style: Style) -> Self {
        Self {
            style,
            stdout: Vec::new(),
            stderr: Vec::new(),
            open: None,
        }
    }

    /// Takes one line.
    pub(super) fn put(&mut self, line: &v1::LogMessage, names: &mut Names<'_>) {
        let context = line.context.clone().unwrap_or_default();
        if self.style.is_json {
            return self.put_json(line, &context, names);
        }
        if is_notice(line) {
            self.finish();
            let text = names.resolved(&String::from_utf8_lossy(&line.data));
            let node = names.node(&context.node_id);
            let notice = format!("swarmctl: notice from {node}: {}", text.trim_end());
            self.stderr
                .extend_from_slice(printable::line(&notice).as_bytes());
            self.stderr.push(b'\n');
            return;
        }
        let head = self.head(line, &context, names);
        self.put_text(line, &context, &head);
    }

    /// What stands before a line.
    fn head(
        &self,
        line: &v1::LogMessage,
        context: &v1::LogContext,
        names: &mut Names<'_>,
    ) -> String {
        let mut head = String::new();
        if self.style.has_prefix {
            head.push_str(&names.prefix(context));
            head.push_str(" | ");
        }
        if self.style.has_times
            && let Some(at) = &line.timestamp
        {
            head.push_str(&format!("{at} "));
        }
        if self.style.has_details && !line.attrs.is_empty() {
            let pairs = line.attrs.iter();
            let pairs = pairs.map(|attr| format!("{}={}", attr.key, attr.value));
            head.push_str(&pairs.collect::<Vec<_>>().join(","));
            head.push(' ');
        }
        // The line is what the task wrote, to the letter; what stands before it is not.
        printable::line(&head).into_owned()
    }

    fn put_text(&mut self, line: &v1::LogMessage, context: &v1::LogContext, head: &str) {
        let key = (context.task_id.clone(), line.stream);
        let goes_on = self.open.as_ref() == Some(&key);
        if !goes_on {
            self.finish();
        }
        let out = self.out(line.stream);
        if !goes_on {
            out.extend_from_slice(head.as_bytes());
        }
        out.extend_from_slice(&line.data);
        self.open = (!line.data.ends_with(b"\n")).then_some(key);
    }

    fn put_json(&mut self, line: &v1::LogMessage, context: &v1::LogContext, names: &mut Names<'_>) {
        let text = String::from_utf8_lossy(&line.data);
        let Place { service, slot, .. } = names.place(context);
        let document = Document {
            timestamp: line.timestamp.as_ref().map(ToString::to_string),
            stream: match line.stream() {
                v1::LogStream::Stdout => "stdout",
                v1::LogStream::Stderr => "stderr",
                v1::LogStream::Unknown => "notice",
            },
            service_id: &context.service_id,
            service: &service,
            slot,
            task_id: &context.task_id,
            node_id: &context.node_id,
            node: &names.node(&context.node_id),
            line: text.strip_suffix('\n').unwrap_or(&text),
            partial: !text.ends_with('\n'),
            details: line
                .attrs
                .iter()
                .map(|attr| (attr.key.as_str(), attr.value.as_str()))
                .collect(),
        };
        let text = serde_json::to_string(&document).expect("strings and numbers are JSON");
        self.stdout
            .extend_from_slice(printable::json(&text).as_bytes());
        self.stdout.push(b'\n');
    }

    /// Ends a line that has begun, so that another one can begin.
    pub(super) fn finish(&mut self) {
        if let Some((_, stream)) = self.open.take() {
            self.out(stream).push(b'\n');
        }
    }

    fn out(&mut self, stream: i32) -> &mut Vec<u8> {
        match stream == v1::LogStream::Stderr as i32 {
            true => &mut self.stderr,
            false => &mut self.stdout,
        }
    }

    /// Writes everything; `false` when nobody reads it any more.
    ///
    /// # Errors
    /// When an output cannot be written.
    pub(super) fn flush(&mut self) -> Result<bool, Failure> {
        let written = write(&mut io::stdout().lock(), &mut self.stdout)
            .and_then(|()| write(&mut io::stderr().lock(), &mut self.stderr));
        match written {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::unwritten(&error)),
        }
    }
}

fn write(out: &mut impl io::Write, text: &mut Vec<u8>) -> io::Result<()> {
    out.write_all(text)?;
    text.clear();
    out.flush()
}

#[cfg(test)]
mod tests;
