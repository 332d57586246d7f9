//! No tracked file names a directory of the machine it was written on.
//!
//! Owns the list of such directories.

use super::{File, Violation};

const RULE: &str = "machine-path";

/// Directories of build machines and of people. Written in two parts, so that this file passes.
const PLACES: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

pub(crate) fn check(files: &[File]) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in files {
        for (index, line) in file.text.lines().enumerate() {
            for place in PLACES.iter().filter(|place| begins_in(line, place)) {
                let text = format!(
                    "`{place}` exists on one machine only; use a path inside the repository or a \
                     temporary directory"
                );
                found.push(Violation::at(&file.path, index + 1, RULE, text));
            }
        }
    }
    found
}

/// Whether a path that begins with `place` is in the line, not one that has it further down.
fn begins_in(line: &str, place: &str) -> bool {
    let continues = |c: char| c.is_alphanumeric() || "._-})/~*".contains(c);
    line.match_indices(place)
        .any(|(at, _)| !line[..at].chars().next_back().is_some_and(continues))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_begin_there_count() {
        let check_line = |line: &str, expected: usize| {
            let line = line.replace('W', "wo").replace('R', "ro");
            let file = File {
                path: String::from("a"),
                text: format!("x\n{line}\n"),
            };
            let found = check(&[file]);
            assert_eq!(found.len(), expected, "{line}: {found:?}");
            assert!(found.iter().all(|violation| violation.line == 2));
        };
        check_line("cd /Wrk/main", 1);
        check_line("path = \"/Rot/.cargo\"", 1);
        check_line("/Wrk/a and /Rot/b", 2);
        check_line("state/Wrk/tasks", 0);
        check_line("{dir}/Wrk/tasks", 0);
        check_line("/Wrking/a", 0);
        check_line("/Rot", 0);
    }
}
