//! A crate with its own `clippy.toml` keeps every ban of the root one, or says why not.
//!
//! Clippy reads the nearest file and does not merge, so a copy could lose a ban in silence. Owns
//! the comparison. The bans themselves are in the root `clippy.toml`.

use super::{File, Violation};

const RULE: &str = "bans";
const ROOT: &str = "clippy.toml";

pub(crate) fn check(files: &[File]) -> Vec<Violation> {
    let Some(root) = files.iter().find(|file| file.path == ROOT) else {
        let text = String::from("the file is missing; it holds the bans for every crate");
        return vec![Violation::of_file(ROOT, RULE, text)];
    };
    let copies = files
        .iter()
        .filter(|file| file.path.ends_with("/clippy.toml"));
    copies.flat_map(|copy| check_copy(root, copy)).collect()
}

fn check_copy(root: &File, copy: &File) -> Vec<Violation> {
    let mut found = Vec::new();
    let own: Vec<&str> = rules(&copy.text).collect();
    let lifts: Vec<Lift> = lifts(&copy.text).collect();
    let missing = |rule: &&str| !own.contains(rule);
    for rule in rules(&root.text).filter(missing) {
        let name = banned_path(rule).unwrap_or(rule);
        if lifts.iter().any(|lift| name.starts_with(lift.path)) {
            continue;
        }
        let text = format!(
            "`{name}` of the root clippy.toml is missing or differs; copy its line, or write \
             `# Lifts {name}: <reason>`"
        );
        found.push(Violation::of_file(&copy.path, RULE, text));
    }
    for Lift {
        number,
        path,
        reason,
    } in lifts
    {
        let banned_at_root = rules(&root.text)
            .filter_map(banned_path)
            .any(|p| p.starts_with(path));
        let banned_here = own
            .iter()
            .filter_map(|r| banned_path(r))
            .any(|p| p.starts_with(path));
        let problem = if reason.is_empty() {
            "gives no reason; write `# Lifts <path>: <reason>`"
        } else if !banned_at_root {
            "names no ban of the root clippy.toml; remove the line"
        } else if banned_here {
            "is banned below all the same; remove one of the two lines"
        } else {
            continue;
        };
        let text = format!("the lift of `{path}` {problem}");
        found.push(Violation::at(&copy.path, number, RULE, text));
    }
    found
}

struct Lift<'a> {
    number: usize,
    path: &'a str,
    reason: &'a str,
}

fn lifts(text: &str) -> impl Iterator<Item = Lift<'_>> {
    text.lines().enumerate().filter_map(|(index, line)| {
        let rest = line.strip_prefix("# Lifts ")?;
        let (path, reason) = rest.split_once(": ").unwrap_or((rest, ""));
        Some(Lift {
            number: index + 1,
            path,
            reason,
        })
    })
}

/// Settings and bans, one a line.
fn rules(text: &str) -> impl Iterator<Item = &str> {
    let trimmed = text.lines().map(str::trim);
    trimmed.filter(|line| line.contains(" = ") && !line.starts_with('#') && !line.ends_with('['))
}

fn banned_path(rule: &str) -> Option<&str> {
    rule.strip_prefix("{ path = \"")?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT_TEXT: &str = "allow-unwrap-in-tests = true\n\
        disallowed-methods = [\n    { path = \"std::fs::read\", reason = \"a\" },\n\
            { path = \"std::fs::write\", reason = \"a\" },\n\
            { path = \"tokio::spawn\", reason = \"b\" },\n]\n";

    #[track_caller]
    fn check_against_root(copy: &str, expected: &[&str]) {
        let file = |path: &str, text: &str| File {
            path: path.into(),
            text: text.into(),
        };
        let files = [file(ROOT, ROOT_TEXT), file("crates/rt/clippy.toml", copy)];
        let found: Vec<String> = check(&files).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, part) in found.iter().zip(expected) {
            assert!(found.contains(part), "{found} has no {part}");
        }
    }

    fn without(part: &str) -> String {
        ROOT_TEXT
            .lines()
            .filter(|l| !l.contains(part))
            .map(|l| format!("{l}\n"))
            .collect()
    }

    #[test]
    fn copies_keep_what_they_do_not_lift() {
        check_against_root(ROOT_TEXT, &[]);
        check_against_root(&without("tokio::spawn"), &["`tokio::spawn` of the root"]);
        check_against_root(
            &without("allow-unwrap"),
            &["`allow-unwrap-in-tests = true` of"],
        );
        let weaker = ROOT_TEXT.replace("\"b\"", "\"\"");
        check_against_root(
            &weaker,
            &["`tokio::spawn` of the root clippy.toml is missing or"],
        );
    }

    #[test]
    fn lifts_cover_paths_below_them() {
        let lifted = format!("# Lifts std::fs: files.\n{}", without("std::fs"));
        check_against_root(&lifted, &[]);
        let one = format!("# Lifts std::fs::read: files.\n{}", without("std::fs"));
        check_against_root(&one, &["`std::fs::write` of the root"]);
    }

    #[test]
    fn lifts_have_reason_and_effect() {
        let spawn = without("tokio::spawn");
        check_against_root(
            &format!("# Lifts tokio::spawn\n{spawn}"),
            &["gives no reason"],
        );
        check_against_root(&format!("# Lifts a::b: c.\n{ROOT_TEXT}"), &["names no ban"]);
        check_against_root(
            &format!("# Lifts std::fs: c.\n{ROOT_TEXT}"),
            &["banned below"],
        );
    }

    #[test]
    fn root_file_must_exist() {
        assert_eq!(check(&[]).len(), 1);
    }
}
