//! Which packages have examples in their documentation that must compile and run.
//!
//! Owns the reading of code fences. Does not run the examples.

use std::collections::BTreeSet;

use crate::tidy::File;

/// Names of the packages, sorted.
pub(crate) fn packages(files: &[File]) -> BTreeSet<String> {
    files
        .iter()
        .filter_map(|file| {
            let (package, inside) = file.path.strip_prefix("crates/")?.split_once('/')?;
            let library = inside.starts_with("src/") && inside.ends_with(".rs");
            (library && has_example(&file.text)).then(|| format!("swarm-{package}"))
        })
        .collect()
}

/// A fence opens an example unless it names another language or `ignore`.
fn has_example(text: &str) -> bool {
    let mut open = false;
    for line in text.lines().map(str::trim_start) {
        let Some(doc) = line
            .strip_prefix("///")
            .or_else(|| line.strip_prefix("//!"))
        else {
            open = false;
            continue;
        };
        let Some(words) = doc.trim().strip_prefix("```") else {
            continue;
        };
        if !open && words.split(',').all(is_rust) {
            return true;
        }
        open = !open;
    }
    false
}

fn is_rust(word: &str) -> bool {
    matches!(
        word.trim(),
        "" | "rust" | "no_run" | "should_panic" | "compile_fail"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rust_fences_are_examples() {
        let check = |text: &str, expected: bool| assert_eq!(has_example(text), expected, "{text}");
        check("/// ```\n/// let a = 1;\n/// ```\n", true);
        check("//! ```rust,no_run\n//! ```\n", true);
        check("    /// ```text\n    /// picture\n    /// ```\n", false);
        check("/// ```ignore\n/// ```\n", false);
        check("/// ```text\n/// ```\n/// ```\n/// ```\n", true);
        check("// ```\n", false);
        check("/// Words only.\n", false);
    }

    #[test]
    fn libraries_are_named_by_package() {
        let example = "//! ```\n//! ```\n";
        let file = |path: &str, text: &str| File {
            path: path.into(),
            text: text.into(),
        };
        let files = [
            file("crates/types/src/id.rs", example),
            file("crates/types/src/kind.rs", example),
            file("crates/store/src/lib.rs", "//! Words.\n"),
            file("crates/store/tests/it.rs", example),
            file("bin/swarmd/src/main.rs", example),
        ];
        assert_eq!(
            packages(&files),
            BTreeSet::from([String::from("swarm-types")])
        );
    }
}
