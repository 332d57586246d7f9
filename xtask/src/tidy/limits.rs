//! The page of limits knows every bound of what ships.
//!
//! Owns what counts as a bound: a constant whose name says so ([`WORDS`]) in the code of a shipped
//! crate. Each is on `docs/limits.md` once, by its path as `manager::guard::WORKER_CALLS_MAX`; a
//! path on the page that no bound has is one that was forgotten there. Does not judge values.

use std::collections::BTreeMap;

use super::rust_text::Source;
use super::{File, Violation};

const RULE: &str = "limits";
const PAGE: &str = "docs/limits.md";

/// Words of names, between underscores, that make a constant a bound.
const WORDS: &[&str] = &[
    "MAX", "MIN", "LIMIT", "BOUND", "CAPACITY", "TIMEOUT", "DEADLINE", "WINDOW", "BURST", "BUDGET",
    "RESERVE",
];
/// Crates that do not ship, and code that only tests use.
const LEFT_OUT: &[&str] = &[
    "crates/bench/",
    "crates/load/",
    "crates/sim/",
    "crates/executor/src/fake",
];

pub(crate) fn check(files: &[File], sources: &[Source]) -> Vec<Violation> {
    let Some(page) = files.iter().find(|file| file.path == PAGE) else {
        let text = String::from("the page of limits is missing");
        return vec![Violation::of_file(PAGE, RULE, text)];
    };
    let named = named(&page.text);
    let mut found = Vec::new();
    let mut bounds = BTreeMap::new();
    for source in sources.iter().filter(|source| ships(source.path)) {
        for (name, line) in self::bounds(source) {
            bounds.insert(name, (source.path, line));
        }
    }
    for (name, (path, line)) in &bounds {
        if !named.contains_key(name.as_str()) {
            let text = format!(
                "`{name}` is a bound and is not in {PAGE}; add a line with its value, its setting \
                 and what one sees when it is reached, or one under \"Inside\" with the reason why \
                 nobody sees it"
            );
            found.push(Violation::at(path, *line, RULE, text));
        }
    }
    for (name, lines) in &named {
        let [first, rest @ ..] = lines.as_slice() else {
            continue;
        };
        if !bounds.contains_key(*name) {
            let text = format!("`{name}` is no bound of the tree (any more); take its line out");
            found.push(Violation::at(PAGE, *first, RULE, text));
        }
        for line in rest {
            let text = format!("`{name}` has another line, {first}");
            found.push(Violation::at(PAGE, *line, RULE, text));
        }
    }
    found
}

fn ships(path: &str) -> bool {
    let is_source = ["crates/", "bin/"].iter().any(|top| path.starts_with(top));
    is_source && path.contains("/src/") && !LEFT_OUT.iter().any(|part| path.starts_with(part))
}

/// The bounds of a file, by path, with their lines.
fn bounds(source: &Source) -> Vec<(String, usize)> {
    let lines = source.code.lines().zip(&source.test_lines).enumerate();
    let shipped = lines.filter(|(_, (_, is_test))| !**is_test);
    let named = shipped.filter_map(|(index, (line, _))| Some((constant(line)?, index + 1)));
    let bound = named.filter(|(name, _)| name.split('_').any(|word| WORDS.contains(&word)));
    let module = module(source.path);
    bound
        .map(|(name, line)| (format!("{module}::{name}"), line))
        .collect()
}

/// The name of the constant of a module or a type that the line begins.
fn constant(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line = match line.strip_prefix("pub") {
        Some(rest) => rest.trim_start_matches(|c| c != ' ').trim_start(),
        None => line,
    };
    let name = line.strip_prefix("const ")?.split(':').next()?;
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    (!name.is_empty() && name.chars().all(is_name)).then_some(name)
}

/// The path of the module that a file is: `raft-io::driver::worker`.
fn module(path: &str) -> String {
    let path = path.trim_end_matches(".rs");
    let parts = path.split('/').skip(1);
    let parts = parts.filter(|part| !matches!(*part, "src" | "lib" | "main" | "mod"));
    parts.collect::<Vec<_>>().join("::")
}

/// The paths of constants on the page, each with its lines.
fn named(page: &str) -> BTreeMap<&str, Vec<usize>> {
    let mut named: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, line) in page.lines().enumerate() {
        // The first cell of a row of a table.
        let cell = line
            .strip_prefix("| `")
            .and_then(|rest| rest.split('`').next());
        if let Some(path) = cell.filter(|cell| cell.contains("::")) {
            named.entry(path).or_default().push(index + 1);
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::super::rust_text::sources;
    use super::*;

    #[track_caller]
    fn check_texts(page: &str, path: &str, code: &str, expected: &[&str]) {
        let file = |path: &str, text: &str| File {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let files = [file(PAGE, page), file(path, code)];
        let mut found = check(&files, &sources(&files));
        found.sort();
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, part) in found.iter().zip(expected) {
            assert!(found.contains(part), "{found} has no {part}");
        }
    }

    const FILE: &str = "crates/raft-io/src/driver/worker.rs";
    const ROW: &str = "| `raft-io::driver::worker::BATCH_BYTES_MAX` | 1 MiB | |\n";

    #[test]
    fn each_bound_is_on_the_page_and_each_line_of_the_page_is_a_bound() {
        let code = "pub(crate) const BATCH_BYTES_MAX: usize = 1;\n";
        check_texts(ROW, FILE, code, &[]);
        let missing = format!("{FILE}:1: [limits] `raft-io::driver::worker::BATCH_BYTES_MAX`");
        check_texts("", FILE, code, &[&missing]);
        check_texts(ROW, FILE, "", &["docs/limits.md:1: [limits]"]);
        let twice = [ROW, ROW].concat();
        check_texts(&twice, FILE, code, &["docs/limits.md:2: [limits]"]);
    }

    #[test]
    fn a_bound_is_a_constant_that_ships_and_whose_name_says_so() {
        let code = "const CALL_TIMEOUT: u8 = 1;\nconst MAXIMAL: u8 = 1;\nfn a(b_MAX: u8) {}\n\
                    impl A {\n    pub const IN_A_TYPE_MAX: u8 = 1;\n}\n\
                    #[cfg(test)]\nmod tests {\n    const LINES_MAX: u8 = 1;\n}\n";
        let found = ["worker::CALL_TIMEOUT", "worker::IN_A_TYPE_MAX"];
        check_texts("", FILE, code, &found);
        check_texts("", "crates/sim/src/world.rs", code, &[]);
        check_texts("", "crates/raft-io/src/tests.rs", code, &[]);
        check_texts(
            "",
            "bin/swarmd/src/main.rs",
            "const A_LIMIT: u8 = 1;\n",
            &["`swarmd::A_LIMIT`"],
        );
    }
}
