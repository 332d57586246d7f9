//! Rust source as text: what is code, what is test code, where functions begin and end.
//!
//! Owns a scan good enough for source that rustfmt has formatted: comments and literals are
//! blanked, braces are counted. It is no parser; macros that build items are seen as written.

use std::collections::BTreeSet;

use super::File;

/// A Rust file, seen three ways: as written, without comments and literals, and by line as test
/// code or not.
pub(crate) struct Source<'a> {
    pub(crate) path: &'a str,
    pub(crate) text: &'a str,
    /// Same characters by line and column as `text`, with a space for each character of a comment
    /// or a literal.
    pub(crate) code: String,
    /// For each line, whether it is test code.
    pub(crate) test_lines: Vec<bool>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// Counted from 1: the line of `fn`.
    pub(crate) line: usize,
    /// From the line of `fn` to the line of the closing brace.
    pub(crate) lines: usize,
}

/// All Rust files. A file is test code as a whole when it lies in `tests/`, is called `tests.rs`,
/// or is declared by `#[cfg(test)] mod name;`.
pub(crate) fn sources(files: &[File]) -> Vec<Source<'_>> {
    let mut sources: Vec<Source> = files
        .iter()
        .filter(|file| file.path.ends_with(".rs"))
        .map(source)
        .collect();
    let declared: BTreeSet<String> = sources.iter().flat_map(declared_test_files).collect();
    for source in &mut sources {
        if is_test_path(source.path) || declared.contains(source.path) {
            source.test_lines.fill(true);
        }
    }
    sources
}

fn source(file: &File) -> Source<'_> {
    let code = blank_comments_and_literals(&file.text);
    let mut test_lines = vec![false; file.text.lines().count()];
    for (from, to) in test_items(&code) {
        let last = to.min(test_lines.len());
        test_lines[from.min(last)..last].fill(true);
    }
    Source {
        path: &file.path,
        text: &file.text,
        code,
        test_lines,
    }
}

fn is_test_path(path: &str) -> bool {
    path.split('/')
        .any(|part| part == "tests" || part == "tests.rs")
}

/// Files that a `#[cfg(test)] mod name;` of this one names.
fn declared_test_files(source: &Source) -> Vec<String> {
    let (directory, name) = source.path.rsplit_once('/').unwrap_or(("", source.path));
    let beside = match name {
        "lib.rs" | "main.rs" => directory.to_owned(),
        other => format!("{directory}/{}", other.trim_end_matches(".rs")),
    };
    let mut after_attribute = false;
    let mut found = Vec::new();
    for line in source.code.lines().map(str::trim) {
        let module = line.trim_start_matches("pub(crate) ").strip_prefix("mod ");
        if after_attribute && let Some(module) = module.and_then(|m| m.strip_suffix(';')) {
            found.push(format!("{beside}/{module}.rs"));
        }
        after_attribute = line == TEST_ATTRIBUTE;
    }
    found
}

const TEST_ATTRIBUTE: &str = "#[cfg(test)]";

/// Line ranges, counted from 0 and without the end, of items under `#[cfg(test)]`.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices(TEST_ATTRIBUTE) {
        let after = at + TEST_ATTRIBUTE.len();
        let end = body(&code[after..]).map_or(code.len(), |(_, end)| after + end);
        found.push((line_of(code, at), line_of(code, end) + 1));
    }
    found
}

/// Functions that have a body, in the order in which they begin.
pub(crate) fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let rest = &code[at + 3..];
        let name: String = rest.chars().take_while(|c| is_word(*c)).collect();
        let Some((Ending::Braces, end)) = body(rest) else {
            continue;
        };
        if name.is_empty() {
            continue;
        }
        let (first, last) = (line_of(code, at), line_of(code, at + 3 + end));
        found.push(Function {
            name,
            line: first + 1,
            lines: last - first + 1,
        });
    }
    found
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Semicolon,
    Braces,
}

/// Where the item that `code` begins with ends: at the first `;` outside brackets, or at the brace
/// that closes the first brace outside brackets.
fn body(code: &str) -> Option<(Ending, usize)> {
    let mut brackets = 0_usize;
    let mut braces = 0_usize;
    for (at, c) in code.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            '{' if brackets == 0 || braces > 0 => braces += 1,
            '}' if braces == 1 => return Some((Ending::Braces, at)),
            '}' => braces = braces.saturating_sub(1),
            ';' if brackets == 0 && braces == 0 => return Some((Ending::Semicolon, at)),
            _ => {}
        }
    }
    None
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn blank_comments_and_literals(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut previous = ' ';
    while let Some(c) = rest.chars().next() {
        let hidden = if is_word(previous) {
            0
        } else {
            prefixed_literal(rest)
        };
        let hidden = if hidden > 0 {
            hidden
        } else {
            comment_or_literal(rest)
        };
        if hidden == 0 {
            out.push(c);
            previous = c;
            rest = &rest[c.len_utf8()..];
            continue;
        }
        out.extend(
            rest[..hidden]
                .chars()
                .map(|c| if c == '\n' { '\n' } else { ' ' }),
        );
        previous = ' ';
        rest = &rest[hidden..];
    }
    out
}

/// Length of the raw or byte literal that `text` begins with, or 0.
fn prefixed_literal(text: &str) -> usize {
    let letters = ["br", "cr", "r", "b", "c"]
        .into_iter()
        .find(|p| text.starts_with(p));
    let Some(letters) = letters else { return 0 };
    let after = &text[letters.len()..];
    if !letters.ends_with('r') {
        let length = if after.starts_with('"') {
            quoted(after, '"')
        } else {
            character(after)
        };
        return if length > 0 {
            letters.len() + length
        } else {
            0
        };
    }
    let hashes = after.len() - after.trim_start_matches('#').len();
    let Some(inside) = after[hashes..].strip_prefix('"') else {
        return 0;
    };
    let close = format!("\"{}", "#".repeat(hashes));
    let length = inside
        .find(&close)
        .map_or(inside.len(), |at| at + close.len());
    letters.len() + hashes + 1 + length
}

/// Length of the comment, string or character that `text` begins with, or 0.
fn comment_or_literal(text: &str) -> usize {
    if text.starts_with("//") {
        text.find('\n').unwrap_or(text.len())
    } else if text.starts_with("/*") {
        block_comment(text)
    } else if text.starts_with('"') {
        quoted(text, '"')
    } else {
        character(text)
    }
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(next) = text[at..]
        .find("*/")
        .into_iter()
        .chain(text[at..].find("/*"))
        .min()
    {
        at += next;
        depth = if text[at..].starts_with("/*") {
            depth + 1
        } else {
            depth.saturating_sub(1)
        };
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// A character literal, not a lifetime: what closes it is one character away, or it is escaped.
fn character(text: &str) -> usize {
    let mut chars = text.chars();
    if chars.next() != Some('\'') {
        return 0;
    }
    match chars.next() {
        Some('\\') => quoted(text, '\''),
        Some(c) if chars.next() == Some('\'') => 2 + c.len_utf8(),
        _ => 0,
    }
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return at + c.len_utf8();
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_in_place() {
        let check = |text: &str, expected: &str| {
            assert_eq!(blank_comments_and_literals(text), expected, "{text}");
        };
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ d */ e", "a                   e");
        check(r#"a("b\"{", 'c')"#, "a(      ,    )");
        check("r#\"{\" }\"# x", "          x");
        check("br\"{\" b\"{\" b'{' x", "                x");
        check("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}");
        check(r"'\'' '\u{7b}' '{' x", "                  x");
        check("number\"x\"", "number   ");
        check("\"two\nlines\" x", "    \n       x");
    }

    #[test]
    fn functions_are_found_with_their_length() {
        let check = |code: &str, expected: &[(&str, usize, usize)]| {
            let found = functions(code);
            let found: Vec<(&str, usize, usize)> = found
                .iter()
                .map(|f| (f.name.as_str(), f.line, f.lines))
                .collect();
            assert_eq!(found, expected, "{code}");
        };
        check("fn a() {}\n", &[("a", 1, 1)]);
        check(
            "\npub fn a(\n    x: [u8; 4],\n) -> u8 {\n    0\n}\n",
            &[("a", 2, 5)],
        );
        check(
            "fn a() {\n    fn b() {\n    }\n}\n",
            &[("a", 1, 4), ("b", 2, 2)],
        );
        check(
            "trait T {\n    fn a(&self);\n    fn b(&self) {}\n}\n",
            &[("b", 3, 1)],
        );
        check("type F = fn (u8) -> u8;\n", &[]);
        check("often x {}\n", &[]);
        check(
            "fn a(f: impl Fn(u8)) {\n    if x { y({ 1 }) }\n}\n",
            &[("a", 1, 3)],
        );
    }

    #[test]
    fn items_for_tests_are_told_from_code() {
        let check = |text: &str, expected: &[bool]| {
            let file = File {
                path: String::from("src/a.rs"),
                text: text.to_owned(),
            };
            assert_eq!(source(&file).test_lines, expected, "{text}");
        };
        check(
            "fn a() {}\n#[cfg(test)]\nmod tests {\n}\n",
            &[false, true, true, true],
        );
        check(
            "#[cfg(test)]\nfn a() {\n}\nfn b() {}\n",
            &[true, true, true, false],
        );
        check(
            "#[cfg(test)]\nuse a::{b};\nfn c() {}\n",
            &[true, true, false],
        );
        check("// #[cfg(test)]\nfn c() {}\n", &[false, false]);
    }

    #[test]
    fn whole_files_can_be_tests() {
        let file = |path: &str, text: &str| File {
            path: path.into(),
            text: text.into(),
        };
        let files = [
            file(
                "crates/a/src/lib.rs",
                "#[cfg(test)]\nmod model;\nmod real;\n",
            ),
            file("crates/a/src/model.rs", "fn a() {}\n"),
            file(
                "crates/a/src/real.rs",
                "#[cfg(test)]\nmod twin;\nfn b() {}\n",
            ),
            file("crates/a/src/real/twin.rs", "fn a() {}\n"),
            file("crates/a/src/real/tests.rs", "fn a() {}\n"),
            file("crates/a/tests/it.rs", "fn a() {}\n"),
            file("crates/a/README.md", "text\n"),
        ];
        let whole: Vec<&str> = sources(&files)
            .iter()
            .filter(|source| source.test_lines.iter().all(|test| *test))
            .map(|source| source.path)
            .collect();
        let expected = [
            "crates/a/src/model.rs",
            "crates/a/src/real/twin.rs",
            "crates/a/src/real/tests.rs",
            "crates/a/tests/it.rs",
        ];
        assert_eq!(whole, expected);
    }
}
