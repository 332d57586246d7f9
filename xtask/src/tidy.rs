//! `cargo xtask tidy`: the house rules that neither the compiler nor clippy knows.
//!
//! Owns the gathering of the tree (tracked files and package metadata), the list of checks and the
//! report. Each check is a pure function in its own module, from texts to violations. Does not
//! repair anything.

mod bans;
mod documents;
mod edges;
mod headers;
mod limits;
mod machine_paths;
mod manifests;
mod names;
mod rust_text;
mod sizes;

use std::fmt;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};

/// A tracked file: its path from the root, with `/`, and its text.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// One broken rule, with all that is needed to mend it without reading this tool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    path: String,
    /// Counted from 1; 0 means the file as a whole.
    line: usize,
    rule: &'static str,
    /// What was seen, the limit, and the way out.
    text: String,
}

impl Violation {
    fn of_file(path: &str, rule: &'static str, text: String) -> Violation {
        Violation::at(path, 0, rule, text)
    }

    fn at(path: &str, line: usize, rule: &'static str, text: String) -> Violation {
        Violation {
            path: path.to_owned(),
            line,
            rule,
            text,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": [{}] {}", self.rule, self.text)
    }
}

/// # Errors
///
/// When the tree cannot be read. Violations are an exit code.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let violations = violations()?;
    print(&violations);
    Ok(if violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// One line for each violation, then how many there are.
pub(crate) fn print(violations: &[Violation]) {
    for violation in violations {
        println!("{violation}");
    }
    match violations.len() {
        0 => println!("tidy: no violations"),
        1 => println!("tidy: 1 violation"),
        n => println!("tidy: {n} violations"),
    }
}

/// Everything that is wrong with the tree, sorted by file and line.
///
/// # Errors
///
/// When git or cargo cannot describe the tree.
pub(crate) fn violations() -> anyhow::Result<Vec<Violation>> {
    let files = tracked_files()?;
    let mut found = edges::check(&packages()?, edges::TABLE);
    found.extend(manifests::check(&files));
    found.extend(bans::check(&files));
    found.extend(headers::check(&files, &edges::pure_crates()));
    found.extend(documents::check(&files));
    found.extend(machine_paths::check(&files));
    let sources = rust_text::sources(&files);
    found.extend(sizes::check(&sources, &sizes::LIMITS, sizes::EXCEPTIONS));
    found.extend(names::check(&sources));
    found.extend(limits::check(&files, &sources));
    found.sort();
    Ok(found)
}

/// The text files that git tracks, in git's order. Files deleted but not yet committed as such are
/// left out, and so are files that are not UTF-8.
///
/// # Errors
///
/// When this is not a git checkout, or a tracked file cannot be read.
pub(crate) fn tracked_files() -> anyhow::Result<Vec<File>> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .output()
        .context("start git")?;
    if !output.status.success() {
        bail!(
            "git ls-files failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let mut files = Vec::new();
    for path in String::from_utf8_lossy(&output.stdout).split_terminator('\0') {
        match std::fs::read_to_string(path) {
            Ok(text) => files.push(File {
                path: path.to_owned(),
                text,
            }),
            Err(error) if is_no_text(&error) => {}
            Err(error) => return Err(error).with_context(|| format!("read {path}")),
        }
    }
    Ok(files)
}

fn is_no_text(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData)
}

/// The workspace as cargo sees it, reduced to what the dependency table judges.
fn packages() -> anyhow::Result<Vec<edges::Package>> {
    let metadata = cargo_metadata::MetadataCommand::new().no_deps().exec()?;
    let root = metadata.workspace_root.to_string();
    let relative = |path: &str| {
        let inside = path.strip_prefix(&root).unwrap_or(path);
        inside.trim_start_matches('/').to_owned()
    };
    let reduce = |package: cargo_metadata::Package| edges::Package {
        manifest: relative(package.manifest_path.as_str()),
        name: package.name.to_string(),
        features: package.features,
        dependencies: package.dependencies.into_iter().map(reduced).collect(),
    };
    Ok(metadata.packages.into_iter().map(reduce).collect())
}

fn reduced(dependency: cargo_metadata::Dependency) -> edges::Dependency {
    edges::Dependency {
        name: dependency.name,
        purpose: if dependency.kind == cargo_metadata::DependencyKind::Development {
            edges::Purpose::Tests
        } else {
            edges::Purpose::Shipped
        },
        optional: dependency.optional,
        features: dependency.features,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_print_where_which_and_what() {
        let text = || String::from("three titles");
        let whole = Violation::of_file("docs/a.md", "title", text());
        assert_eq!(whole.to_string(), "docs/a.md: [title] three titles");
        let line = Violation::at("docs/a.md", 7, "title", text());
        assert_eq!(line.to_string(), "docs/a.md:7: [title] three titles");
    }
}
