//! Every package takes its versions, its lints and its metadata from the workspace.
//!
//! Owns the reading of manifests as lines: cargo's own description of a package no longer says
//! where a value came from. Does not judge which dependency is allowed.

use super::{File, Violation};

const RULE: &str = "manifest";

/// Keys of `[package]` that must be inherited.
const INHERITED: &[&str] = &["version", "edition", "rust-version", "license", "publish"];

pub(crate) fn check(files: &[File]) -> Vec<Violation> {
    let members = |file: &&File| file.path.ends_with("/Cargo.toml");
    files
        .iter()
        .filter(members)
        .flat_map(check_manifest)
        .collect()
}

fn check_manifest(file: &File) -> Vec<Violation> {
    let mut found = Vec::new();
    let lines: Vec<Line> = lines(&file.text).collect();
    for key in INHERITED {
        if !inherits(&lines, "package", key) {
            let text = format!("`{key}` is not inherited; write `{key}.workspace = true`");
            found.push(Violation::of_file(&file.path, RULE, text));
        }
    }
    if !lines
        .iter()
        .any(|line| line.section == "lints" && line.is("workspace", "true"))
    {
        let text = String::from("lints are not inherited; write `[lints]` and `workspace = true`");
        found.push(Violation::of_file(&file.path, RULE, text));
    }
    for line in &lines {
        let Some(name) = line.own_dependency(&lines) else {
            continue;
        };
        let text = format!(
            "`{name}` has its own version; name it in [workspace.dependencies] of the root \
             Cargo.toml and write `{name}.workspace = true`"
        );
        found.push(Violation::at(&file.path, line.number, RULE, text));
    }
    found
}

struct Line<'a> {
    number: usize,
    section: &'a str,
    /// Empty on the header of a section.
    key: &'a str,
    value: &'a str,
}

impl Line<'_> {
    fn is(&self, key: &str, value: &str) -> bool {
        self.key == key && self.value == value
    }

    /// The dependency that this line declares without the workspace.
    fn own_dependency(&self, lines: &[Line]) -> Option<&str> {
        if let Some((table, name)) = self.section.rsplit_once('.')
            && is_dependency_table(table)
        {
            let inherited =
                |line: &Line| line.section == self.section && line.is("workspace", "true");
            return (self.key.is_empty() && !lines.iter().any(inherited)).then_some(name);
        }
        let declares = is_dependency_table(self.section) && !self.key.is_empty();
        let inherited = self.key.ends_with(".workspace") && self.value == "true"
            || self.value.replace(' ', "").contains("workspace=true");
        (declares && !inherited).then(|| self.key.trim_end_matches(".workspace"))
    }
}

fn lines(text: &str) -> impl Iterator<Item = Line<'_>> {
    let mut section = "";
    text.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let number = index + 1;
        if let Some(header) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = header.trim();
            return Some(Line {
                number,
                section,
                key: "",
                value: "",
            });
        }
        let (key, value) = line.split_once('=')?;
        Some(Line {
            number,
            section,
            key: key.trim(),
            value: value.trim(),
        })
    })
}

fn inherits(lines: &[Line], section: &str, key: &str) -> bool {
    lines.iter().any(|line| {
        line.section == section
            && line.value == "true"
            && line
                .key
                .strip_suffix(".workspace")
                .is_some_and(|inherited| inherited == key)
    })
}

fn is_dependency_table(section: &str) -> bool {
    let table = section.rsplit('.').next().unwrap_or(section);
    matches!(
        table,
        "dependencies" | "dev-dependencies" | "build-dependencies"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[package]\nname = \"a\"\nversion.workspace = true\n\
        edition.workspace = true\nrust-version.workspace = true\nlicense.workspace = true\n\
        publish.workspace = true\n\n[lints]\nworkspace = true\n\n";

    #[track_caller]
    fn check_text(text: &str, expected: &[&str]) {
        let file = File {
            path: String::from("crates/a/Cargo.toml"),
            text: text.to_owned(),
        };
        let found: Vec<String> = check(&[file]).iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, part) in found.iter().zip(expected) {
            assert!(found.contains(part), "{found} has no {part}");
        }
    }

    #[test]
    fn metadata_and_lints_are_inherited() {
        check_text(GOOD, &[]);
        check_text(
            &GOOD.replace("publish.workspace = true", ""),
            &["`publish` is not inherited"],
        );
        let own = GOOD.replace("edition.workspace = true", "edition = \"2024\"");
        check_text(&own, &["`edition` is not inherited"]);
        check_text(
            &GOOD.replace("[lints]\nworkspace = true", ""),
            &["lints are not inherited"],
        );
    }

    #[test]
    fn versions_come_from_the_workspace() {
        let with = |lines: &str| format!("{GOOD}[dependencies]\n{lines}\n");
        check_text(&with("prost.workspace = true"), &[]);
        check_text(
            &with("api = { workspace = true, features = [\"grpc\"] }"),
            &[],
        );
        check_text(&with("# prost = \"1\""), &[]);
        check_text(
            &with("prost = \"0.14\""),
            &["13: [manifest] `prost` has its own version"],
        );
        check_text(
            &with("api = { path = \"../api\" }"),
            &["`api` has its own version"],
        );
    }

    #[test]
    fn other_dependency_tables_count_too() {
        check_text(
            &format!("{GOOD}[dev-dependencies]\na = \"1\"\n"),
            &["`a` has its own version"],
        );
        let target = "[target.'cfg(unix)'.dependencies]\na = \"1\"\n";
        check_text(&format!("{GOOD}{target}"), &["`a` has its own version"]);
        let table = "[dependencies.a]\nversion = \"1\"\n";
        check_text(
            &format!("{GOOD}{table}"),
            &["12: [manifest] `a` has its own version"],
        );
        check_text(&format!("{GOOD}[dependencies.a]\nworkspace = true\n"), &[]);
    }

    #[test]
    fn root_manifest_is_the_workspace_itself() {
        let file = File {
            path: String::from("Cargo.toml"),
            text: String::new(),
        };
        assert_eq!(check(&[file]), []);
    }
}
