//! Names that say nothing, and habits in tests that hide a failure.
//!
//! Owns the lists of both. Literals and comments may say what they like.

use super::Violation;
use super::rust_text::{Source, functions};

const RULE: &str = "names";

/// Names for "everything else".
const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "misc"];

/// What must not be written, and the way out.
const FORBIDDEN: &[(&str, &str)] = &[
    (
        "#[ignore",
        "assert what is true today and say what is wrong, or delete the test",
    ),
    (
        "#[should_panic",
        "assert on the returned error, or on the result of `catch_unwind`",
    ),
    (
        "todo!(",
        "return an error that names what is not implemented",
    ),
];

pub(crate) fn check(sources: &[Source]) -> Vec<Violation> {
    sources.iter().flat_map(check_source).collect()
}

fn check_source(source: &Source) -> Vec<Violation> {
    let mut found = Vec::new();
    found.extend(file_name(source.path));
    for (index, line) in source.code.lines().enumerate() {
        let mut say = |text| found.push(Violation::at(source.path, index + 1, RULE, text));
        if let Some(name) = inline_module(line).filter(|name| EMPTY_NAMES.contains(name)) {
            say(empty_name(name));
        }
        for (what, instead) in FORBIDDEN.iter().filter(|(what, _)| line.contains(what)) {
            say(format!("`{what}` is not used here; {instead}"));
        }
    }
    for function in functions(&source.code)
        .iter()
        .filter(|f| f.name.starts_with("test_"))
    {
        if is_test(source, function.line) {
            let text = format!(
                "test `{}` is named by its kind; name the behaviour, as in \
                 `drained_node_loses_its_tasks`",
                function.name
            );
            found.push(Violation::at(source.path, function.line, RULE, text));
        }
    }
    found
}

fn file_name(path: &str) -> Option<Violation> {
    if path.ends_with("/mod.rs") {
        let text = String::from("modules are `foo.rs` beside `foo/`; rename the file");
        return Some(Violation::of_file(path, RULE, text));
    }
    let name = path.split('/').map(|part| part.trim_end_matches(".rs"));
    let name = name.into_iter().find(|name| EMPTY_NAMES.contains(name))?;
    Some(Violation::of_file(path, RULE, empty_name(name)))
}

fn empty_name(name: &str) -> String {
    format!("`{name}` names nothing; name the module by what it owns, or move each part to its use")
}

/// The name in `mod name {`. A `mod name;` is judged by its file.
fn inline_module(line: &str) -> Option<&str> {
    let line = line.trim();
    let after = line
        .strip_prefix("mod ")
        .or_else(|| line.split_once(") mod ").map(|(_, r)| r));
    let after = after.or_else(|| line.strip_prefix("pub mod "))?;
    after.strip_suffix('{').map(str::trim)
}

/// Whether one of the attributes directly above `line` (counted from 1) marks a test.
fn is_test(source: &Source, line: usize) -> bool {
    let above: Vec<&str> = source.code.lines().take(line - 1).collect();
    let attributes = above.iter().rev().map(|line| line.trim());
    attributes
        .take_while(|line| line.is_empty() || line.starts_with("#[") || line.ends_with(']'))
        .any(|line| line == "#[test]" || line.contains("::test"))
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::super::rust_text::sources;
    use super::*;

    #[track_caller]
    fn check_text(path: &str, text: &str, expected: &[&str]) {
        let files = [File {
            path: path.to_owned(),
            text: text.to_owned(),
        }];
        let found: Vec<String> = check(&sources(&files))
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, part) in found.iter().zip(expected) {
            assert!(found.contains(part), "{found} has no {part}");
        }
    }

    #[test]
    fn modules_are_named_by_what_they_own() {
        check_text("crates/a/src/slot.rs", "", &[]);
        check_text("crates/a/src/utility.rs", "", &[]);
        check_text("crates/a/src/utils.rs", "", &["`utils` names nothing"]);
        check_text(
            "crates/a/tests/common/node.rs",
            "",
            &["`common` names nothing"],
        );
        check_text("crates/a/src/slot/mod.rs", "", &["`foo.rs` beside `foo/`"]);
        check_text("crates/a/src/mode.rs", "", &[]);
        check_text(
            "a.rs",
            "mod helpers {\n}\n",
            &["a.rs:1: [names] `helpers` names nothing"],
        );
        check_text(
            "a.rs",
            "pub(crate) mod misc {}\npub mod misc {\n}\n",
            &["a.rs:2"],
        );
        check_text("a.rs", "mod slots {\n}\n", &[]);
    }

    #[test]
    fn tests_do_not_hide_failures() {
        check_text("a.rs", "#[ignore]\n", &["`#[ignore` is not used here"]);
        check_text(
            "a.rs",
            "#[ignore = \"slow\"]\n",
            &["`#[ignore` is not used here"],
        );
        check_text(
            "a.rs",
            "#[should_panic(expected = \"x\")]\n",
            &["`#[should_panic`"],
        );
        check_text(
            "a.rs",
            "fn a() {\n    todo!()\n}\n",
            &["a.rs:2: [names] `todo!(`"],
        );
        check_text(
            "a.rs",
            "// todo!() and #[ignore]\nlet a = \"#[ignore]\";\n",
            &[],
        );
    }

    #[test]
    fn tests_are_named_by_behaviour() {
        let expected = ["a.rs:2: [names] test `test_a` is named by its kind"];
        check_text("a.rs", "#[test]\nfn test_a() {}\n", &expected);
        check_text("a.rs", "#[tokio::test]\nasync fn test_a() {}\n", &expected);
        check_text("a.rs", "#[test]\nfn adds_up() {}\n", &[]);
        check_text("a.rs", "fn test_executor() {}\n", &[]);
    }
}
