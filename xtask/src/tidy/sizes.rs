//! How long a line, a function and a module may be.
//!
//! Owns the limits and the list of exceptions. Test code has no limits but that of a line;
//! generated code has none.

use super::Violation;
use super::rust_text::{Source, functions};

const RULE: &str = "size";

/// Checked-in output of the protobuf generator.
const GENERATED: &str = "crates/api/src/gen/";

#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// In characters.
    line_columns: usize,
    /// From `fn` to the closing brace.
    function_lines: usize,
    /// Without test code.
    module_lines: usize,
}

/// The hard limits. What to aim for is far below them: functions of 5 to 30 lines, modules of 100
/// to 300.
pub(crate) const LIMITS: Limits = Limits {
    line_columns: 100,
    function_lines: 70,
    module_lines: 800,
};

/// A module or function that reads better whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exception {
    path: &'static str,
    /// `None` excepts the module's length, a name that of a function in it.
    function: Option<&'static str>,
    /// Its own limit, in lines.
    lines: usize,
    reason: &'static str,
}

/// Short, or the limits mean nothing. An exception that is no longer needed is a violation.
pub(crate) const EXCEPTIONS: &[Exception] = &[];

pub(crate) fn check(
    sources: &[Source],
    limits: &Limits,
    exceptions: &[Exception],
) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut used = vec![false; exceptions.len()];
    for source in sources
        .iter()
        .filter(|source| !source.path.starts_with(GENERATED))
    {
        found.extend(long_lines(source, limits));
        let mut allowed = |function: Option<&str>, lines: usize| {
            let excepts = |e: &Exception| e.path == source.path && e.function == function;
            exceptions.iter().position(excepts).is_some_and(|index| {
                used[index] = true;
                lines <= exceptions[index].lines
            })
        };
        for (name, line, lines) in long_functions(source, limits) {
            if !allowed(Some(&name), lines) {
                let limit = limits.function_lines;
                let text = format!(
                    "function `{name}` has {lines} lines, the limit is {limit}; split it by what \
                     it does, or except it with a reason in xtask/src/tidy/sizes.rs"
                );
                found.push(Violation::at(source.path, line, RULE, text));
            }
        }
        let lines = source.test_lines.iter().filter(|test| !**test).count();
        let limit = limits.module_lines;
        if lines > limit && !allowed(None, lines) {
            let text = format!(
                "the module has {lines} lines without tests, the limit is {limit}; split it by \
                 noun, or except it with a reason in xtask/src/tidy/sizes.rs"
            );
            found.push(Violation::of_file(source.path, RULE, text));
        }
    }
    let unused = exceptions.iter().zip(used).filter(|(_, used)| !used);
    found.extend(unused.map(|(exception, _)| idle(exception)));
    found
}

fn long_lines(source: &Source, limits: &Limits) -> Vec<Violation> {
    let mut found = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        // An address cannot be broken.
        if columns > limits.line_columns && !line.contains("://") {
            let text = format!(
                "the line has {columns} columns, the limit is {}; break it (`\\` continues a \
                 string)",
                limits.line_columns
            );
            found.push(Violation::at(source.path, index + 1, RULE, text));
        }
    }
    found
}

/// Name, first line and length of each function above the limit that is not test code.
fn long_functions(source: &Source, limits: &Limits) -> Vec<(String, usize, usize)> {
    functions(&source.code)
        .into_iter()
        .filter(|function| function.lines > limits.function_lines)
        .filter(|function| {
            !source
                .test_lines
                .get(function.line - 1)
                .is_some_and(|test| *test)
        })
        .map(|function| (function.name, function.line, function.lines))
        .collect()
}

fn idle(exception: &Exception) -> Violation {
    let what = exception
        .function
        .map_or_else(String::new, |name| format!(" of `{name}`"));
    let text = format!(
        "the size exception{what} ({}) is not needed; remove it from xtask/src/tidy/sizes.rs",
        exception.reason
    );
    Violation::of_file(exception.path, RULE, text)
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::super::rust_text::sources;
    use super::*;

    const SMALL: Limits = Limits {
        line_columns: 20,
        function_lines: 3,
        module_lines: 6,
    };

    #[track_caller]
    fn check_at(path: &str, text: &str, exceptions: &[Exception], expected: &[&str]) {
        let files = [File {
            path: path.to_owned(),
            text: text.to_owned(),
        }];
        let found = check(&sources(&files), &SMALL, exceptions);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, part) in found.iter().zip(expected) {
            assert!(found.contains(part), "{found} has no {part}");
        }
    }

    fn function(lines: usize) -> String {
        format!("fn a() {{\n{}}}\n", "x;\n".repeat(lines - 2))
    }

    #[test]
    fn lines_are_counted_in_characters() {
        check_at("a.rs", &format!("{}\n", "é".repeat(20)), &[], &[]);
        let expected = "a.rs:1: [size] the line has 21 columns, the limit is 20";
        check_at("a.rs", &format!("{}\n", "é".repeat(21)), &[], &[expected]);
        check_at(
            "a.rs",
            &format!("// https://{}\n", "a".repeat(30)),
            &[],
            &[],
        );
    }

    #[test]
    fn functions_up_to_the_limit_pass() {
        check_at("a.rs", &function(3), &[], &[]);
        check_at(
            "a.rs",
            &function(4),
            &[],
            &["a.rs:1: [size] function `a` has 4 lines"],
        );
        check_at("tests/a.rs", &function(4), &[], &[]);
        check_at("a.rs", &format!("#[cfg(test)]\n{}", function(4)), &[], &[]);
    }

    #[test]
    fn modules_are_counted_without_tests() {
        check_at("a.rs", &"x;\n".repeat(6), &[], &[]);
        check_at(
            "a.rs",
            &"x;\n".repeat(7),
            &[],
            &["has 7 lines without tests, the limit is 6"],
        );
        let tests = "#[cfg(test)]\nmod tests {\n    x;\n}\n";
        check_at("a.rs", &format!("{}{tests}", "x;\n".repeat(6)), &[], &[]);
    }

    #[test]
    fn generated_code_is_not_measured() {
        check_at(
            "crates/api/src/gen/a.rs",
            &"long line, over the limit\n".repeat(9),
            &[],
            &[],
        );
    }

    #[test]
    fn exceptions_hold_up_to_their_own_limit() {
        let except = |function, lines| {
            [Exception {
                path: "a.rs",
                function,
                lines,
                reason: "r",
            }]
        };
        check_at("a.rs", &function(5), &except(Some("a"), 5), &[]);
        check_at(
            "a.rs",
            &function(6),
            &except(Some("a"), 5),
            &["function `a` has 6 lines"],
        );
        check_at("a.rs", &"x;\n".repeat(7), &except(None, 7), &[]);
        check_at(
            "a.rs",
            &"x;\n".repeat(6),
            &except(None, 7),
            &["exception (r) is not needed"],
        );
        check_at(
            "a.rs",
            &function(3),
            &except(Some("a"), 5),
            &["of `a` (r) is not needed"],
        );
    }
}
