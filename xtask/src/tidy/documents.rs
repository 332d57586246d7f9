//! Markdown: one title to a page.
//!
//! Owns that rule for the root and `docs/`. Does not judge style.

use super::{File, Violation};

const RULE: &str = "title";

pub(crate) fn check(files: &[File]) -> Vec<Violation> {
    let page = |file: &&File| {
        let in_scope = file.path.starts_with("docs/") || !file.path.contains('/');
        in_scope && file.path.ends_with(".md")
    };
    files.iter().filter(page).flat_map(check_page).collect()
}

fn check_page(file: &File) -> Vec<Violation> {
    let titles = titles(&file.text);
    if titles.is_empty() {
        let text = String::from("the page has no title; begin it with `# ` and its subject");
        return vec![Violation::at(&file.path, 1, RULE, text)];
    }
    let more = titles.iter().skip(1).map(|line| {
        let text = String::from("the page has a second `# ` title; make it `## `");
        Violation::at(&file.path, *line, RULE, text)
    });
    more.collect()
}

/// Lines, counted from 1, that are titles and not comments in a block of code.
fn titles(text: &str) -> Vec<usize> {
    let mut in_code = false;
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code && line.starts_with("# ") {
            found.push(index + 1);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_text(path: &str, text: &str, expected: &[&str]) {
        let found = check(&[File {
            path: path.to_owned(),
            text: text.to_owned(),
        }]);
        let found: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, part) in found.iter().zip(expected) {
            assert!(found.contains(part), "{found} has no {part}");
        }
    }

    #[test]
    fn each_page_has_one_title() {
        check_text("docs/a.md", "# A\n\n## B\n", &[]);
        check_text(
            "docs/adr/a.md",
            "Words\n",
            &["docs/adr/a.md:1: [title] the page has no title"],
        );
        check_text(
            "README.md",
            "# A\n\n# B\n\n# C\n",
            &["README.md:3", "README.md:5"],
        );
    }

    #[test]
    fn comments_in_code_are_no_titles() {
        check_text(
            "README.md",
            "# A\n\n```sh\n# build\ncargo build\n```\n",
            &[],
        );
        check_text("README.md", "# A\n\n```\n```\n# B\n", &["README.md:5"]);
    }

    #[test]
    fn other_places_are_free() {
        check_text("crates/a/README.md", "Words\n", &[]);
        check_text("docs/a.txt", "Words\n", &[]);
    }
}
