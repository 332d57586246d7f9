//! What each crate and each module says about itself at the top.
//!
//! Owns the five headings of crate docs. Does not judge the words below them.

use super::{File, Violation};

const RULE: &str = "docs";

const MISSING_DOCS: &str = "#![warn(missing_docs)]";

const HEADINGS: [&str; 5] = [
    "# Owns",
    "# Does not own",
    "# Invariants",
    "# Start reading at",
    "# SwarmKit counterpart",
];

/// `pure` names the crates, without prefix, whose every public item is documented.
pub(crate) fn check(files: &[File], pure: &[&str]) -> Vec<Violation> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| needs_header(&file.path)) {
        let root_of = crate_root(&file.path);
        if !file.text.starts_with("//!") {
            let text = String::from(
                "the file does not open with `//!`; say what it owns and what it refuses to own",
            );
            found.push(Violation::at(&file.path, 1, RULE, text));
        } else if root_of.is_some() {
            found.extend(missing_headings(file));
        }
        if root_of.is_some_and(|name| pure.contains(&name)) && !file.text.contains(MISSING_DOCS) {
            let text = format!("a pure crate documents what is public; write `{MISSING_DOCS}`");
            found.push(Violation::of_file(&file.path, RULE, text));
        }
    }
    found
}

/// Modules of libraries and programs. Test modules and generated code explain themselves.
fn needs_header(path: &str) -> bool {
    let generated = path.starts_with("crates/api/src/gen/");
    let test = path
        .split('/')
        .any(|part| part == "tests" || part == "tests.rs");
    path.ends_with(".rs") && path.contains("src/") && !generated && !test
}

/// The crate whose root this file is.
fn crate_root(path: &str) -> Option<&str> {
    let (name, inside) = path.strip_prefix("crates/")?.split_once('/')?;
    (inside == "src/lib.rs").then_some(name)
}

/// Headings that are not there, or have no words below them.
fn missing_headings(file: &File) -> Option<Violation> {
    let docs: Vec<&str> = file
        .text
        .lines()
        .take_while(|line| line.starts_with("//!"))
        .map(|line| line.trim_start_matches("//!").trim())
        .collect();
    let said = |heading: &str| {
        let at = docs.iter().position(|line| *line == heading)?;
        let below = docs[at + 1..].iter().find(|line| !line.is_empty())?;
        (!below.starts_with("# ")).then_some(())
    };
    let missing: Vec<String> = HEADINGS
        .iter()
        .filter(|heading| said(heading).is_none())
        .map(|heading| format!("`{heading}`"))
        .collect();
    if missing.is_empty() {
        return None;
    }
    let text = format!(
        "crate docs have {} of {} headings with words below; add {}",
        HEADINGS.len() - missing.len(),
        HEADINGS.len(),
        missing.join(", ")
    );
    Some(Violation::of_file(&file.path, RULE, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "crates/a/src/lib.rs";

    #[track_caller]
    fn check_text(path: &str, text: &str, expected: &[&str]) {
        let files = [File {
            path: path.to_owned(),
            text: text.to_owned(),
        }];
        let found = check(&files, &["pure"]);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, part) in found.iter().zip(expected) {
            assert!(found.text.contains(part), "{} has no {part}", found.text);
        }
    }

    fn complete() -> String {
        let sections = HEADINGS.map(|heading| format!("//!\n//! {heading}\n//!\n//! Words.\n"));
        format!("//! A crate.\n{}\npub mod b;\n", sections.concat())
    }

    #[test]
    fn crate_docs_have_five_headings_with_words() {
        check_text(ROOT, &complete(), &[]);
        let missing = complete().replace("# Invariants", "# Invariance");
        check_text(
            ROOT,
            &missing,
            &["4 of 5 headings with words below; add `# Invariants`"],
        );
        let empty = complete().replace("# Owns\n//!\n//! Words.", "# Owns");
        check_text(ROOT, &empty, &["add `# Owns`"]);
        let last = complete().replace("counterpart\n//!\n//! Words.", "counterpart");
        check_text(ROOT, &last, &["add `# SwarmKit counterpart`"]);
    }

    #[test]
    fn pure_crates_document_what_is_public() {
        let pure = "crates/pure/src/lib.rs";
        check_text(pure, &complete(), &["write `#![warn(missing_docs)]`"]);
        check_text(
            pure,
            &format!("{}#![warn(missing_docs)]\n", complete()),
            &[],
        );
    }

    #[test]
    fn modules_open_with_docs() {
        check_text("crates/a/src/b.rs", "//! Owns b.\n", &[]);
        check_text(
            "crates/a/src/b.rs",
            "use x;\n",
            &["does not open with `//!`"],
        );
        check_text("xtask/src/b.rs", "use x;\n", &["does not open with `//!`"]);
        check_text("crates/a/src/b/tests.rs", "use x;\n", &[]);
        check_text("crates/a/tests/it.rs", "use x;\n", &[]);
        check_text("crates/api/src/gen/b.rs", "use x;\n", &[]);
    }
}
