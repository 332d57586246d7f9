//! Lines as they are shown.

use clap::Parser as _;

use super::*;
use crate::cli::Cli;
use crate::output::Context;

const PLAIN: Style = Style {
    is_json: false,
    has_prefix: true,
    has_times: false,
    has_details: false,
};

fn line(task: &str, stream: v1::LogStream, text: &str) -> v1::LogMessage {
    v1::LogMessage {
        context: Some(v1::LogContext {
            service_id: "s".to_owned(),
            node_id: "n1".to_owned(),
            task_id: task.to_owned(),
        }),
        timestamp: Some(swarm_types::Timestamp::from_millis(1_500).to_wire()),
        stream: stream as i32,
        data: text.to_owned().into(),
        attrs: vec![v1::LogAttr {
            key: "k".to_owned(),
            value: "v".to_owned(),
        }],
    }
}

fn out(task: &str, text: &str) -> v1::LogMessage {
    line(task, v1::LogStream::Stdout, text)
}

/// Prints lines of tasks `a` (slot 1) and `b` (slot 10) of service `web`; stdout and stderr.
fn check(style: Style, words: &[&str], lines: &[v1::LogMessage], stdout: &str, stderr: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let all = ["swarmctl", "--socket", "/s"].iter().chain(words);
    let cli = Cli::try_parse_from(all.chain(&["version"])).unwrap();
    let context = Context::new(&cli).unwrap();
    let mut names = Names::new(&context);
    for (id, slot) in [("a", 1), ("b", 10)] {
        names.learn_task(v1::Task {
            id: id.to_owned(),
            slot,
            service_annotations: Some(v1::Annotations {
                name: "web".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        });
    }
    let mut printer = Printer::new(style);
    for line in lines {
        printer.put(line, &mut names);
    }
    printer.finish();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    assert_eq!(text(&printer.stdout), stdout);
    assert_eq!(text(&printer.stderr), stderr);
}

#[test]
fn lines_are_prefixed_and_go_where_they_came_from() {
    let lines = [
        out("a", "one\n"),
        line("b", v1::LogStream::Stderr, "two\n"),
        out("a", "three\n"),
        out("gone", "four\n"),
    ];
    check(
        PLAIN,
        &[],
        &lines,
        "web.1@n1 | one\nweb.1@n1  | three\ngone@n1   | four\n",
        "web.10@n1 | two\n",
    );
    check(PLAIN, &["-n"], &lines[..1], "a@n1 | one\n", "");
    let raw = Style {
        has_prefix: false,
        ..PLAIN
    };
    check(raw, &[], &lines, "one\nthree\nfour\n", "two\n");
}

#[test]
fn times_and_details_stand_before_the_line() {
    let style = Style {
        has_times: true,
        has_details: true,
        ..PLAIN
    };
    let expected = "web.1@n1 | 1970-01-01T00:00:01.500Z k=v one\n";
    check(style, &[], &[out("a", "one\n")], expected, "");
}

#[test]
fn parts_of_a_line_stay_together_unless_another_comes_between() {
    let parts = [out("a", "on"), out("a", "e"), out("a", "\n"), out("a", "x")];
    check(PLAIN, &[], &parts, "web.1@n1 | one\nweb.1@n1 | x\n", "");
    let mixed = [
        out("a", "on"),
        line("a", v1::LogStream::Stderr, "err\n"),
        out("a", "e\n"),
    ];
    check(
        PLAIN,
        &[],
        &mixed,
        "web.1@n1 | on\nweb.1@n1 | e\n",
        "web.1@n1 | err\n",
    );
}

#[test]
fn notices_go_to_stderr_and_count_as_missing_lines() {
    let notice = line("", v1::LogStream::Unknown, "node n1 is not available\n");
    assert!(is_notice(&notice) && !is_notice(&out("a", "x")));
    check(
        PLAIN,
        &[],
        &[out("a", "x"), notice],
        "web.1@n1 | x\n",
        "swarmctl: notice from n1: node n1 is not available\n",
    );
}

#[test]
fn json_is_one_document_for_each_line() {
    let style = Style {
        is_json: true,
        ..PLAIN
    };
    check(
        style,
        &[],
        &[
            out("b", "a \"b\"\n"),
            line("a", v1::LogStream::Unknown, "n"),
        ],
        "{\"timestamp\":\"1970-01-01T00:00:01.500Z\",\"stream\":\"stdout\",\"service_id\":\"s\",\
         \"service\":\"web\",\"slot\":10,\"task_id\":\"b\",\"node_id\":\"n1\",\"node\":\"n1\",\
         \"line\":\"a \\\"b\\\"\",\"partial\":false,\"details\":{\"k\":\"v\"}}\n\
         {\"timestamp\":\"1970-01-01T00:00:01.500Z\",\"stream\":\"notice\",\"service_id\":\"s\",\
         \"service\":\"web\",\"slot\":1,\"task_id\":\"a\",\"node_id\":\"n1\",\"node\":\"n1\",\
         \"line\":\"n\",\"partial\":true,\"details\":{\"k\":\"v\"}}\n",
        "",
    );
}
