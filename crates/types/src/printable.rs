//! Text that others chose, made safe to show: a host name, a label or an error of a task must not
//! move the cursor of whoever reads it, forge lines, or turn around what stands beside it.
//!
//! Owns which characters are shown as escapes, and their form. Where text leaves a program for a
//! person (tables, explanations, log lines), it goes through here; JSON has its own escapes and
//! uses them for the same characters. What is stored and sent stays as it is.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// Whether a character is shown as it is. Control characters are not, nor what reorders or hides
/// the text around it.
pub fn is_printable(char: char) -> bool {
    !char.is_control()
        && !matches!(
            char,
            // Marks, embeddings, overrides and isolates of direction.
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Ends of lines and paragraphs.
            | '\u{2028}' | '\u{2029}'
            // What has no width.
            | '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{feff}'
            // Tags, which nothing shows.
            | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text in one line: what is not printable, ends of lines included, is shown as `\n` or
/// `\u{1b}`.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_printable)
}

/// The same for text of several lines: their ends, and tabs, stay.
pub fn text(text: &str) -> Cow<'_, str> {
    escaped(text, |char| {
        is_printable(char) || matches!(char, '\n' | '\t')
    })
}

/// The same for a JSON document, in the escapes of JSON: what it says does not change.
pub fn json(document: &str) -> Cow<'_, str> {
    // Outside of strings a document has no such characters but ends of lines.
    let is_plain = |char| is_printable(char) || char.is_ascii_whitespace();
    if document.chars().all(is_plain) {
        return Cow::Borrowed(document);
    }
    let mut safe = String::with_capacity(document.len());
    for char in document.chars() {
        if is_plain(char) {
            safe.push(char);
            continue;
        }
        for unit in char.encode_utf16(&mut [0; 2]) {
            write!(safe, "\\u{unit:04x}").expect("a string can be written to");
        }
    }
    Cow::Owned(safe)
}

fn escaped(text: &str, is_plain: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(&is_plain) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        push(&mut safe, char, &is_plain).expect("a string can be written to");
    }
    Cow::Owned(safe)
}

fn push(out: &mut dyn Write, char: char, is_plain: &impl Fn(char) -> bool) -> fmt::Result {
    if is_plain(char) {
        out.write_char(char)
    } else {
        write!(out, "{}", char.escape_default())
    }
}

/// Passes on what is written to it as [`line()`] shows it.
pub struct Line<'a>(pub &'a mut dyn Write);

impl fmt::Debug for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Line")
    }
}

impl Write for Line<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write_str(&line(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_the_cursor_or_forges_a_line_is_escaped() {
        for (given, shown) in [
            ("node-1", "node-1"),
            ("größe 雪 👍", "größe 雪 👍"),
            (
                "a\u{1b}[2J\u{1b}]0;owned\u{7}",
                "a\\u{1b}[2J\\u{1b}]0;owned\\u{7}",
            ),
            // The control sequence introducer in one character.
            ("\u{9b}31mred", "\\u{9b}31mred"),
            ("x\nroot  READY", "x\\nroot  READY"),
            ("50 %\r100 %", "50 %\\r100 %"),
            ("a\tb\u{7f}", "a\\tb\\u{7f}"),
            ("user\u{202e}nimda", "user\\u{202e}nimda"),
            ("a\u{200b}b\u{feff}", "a\\u{200b}b\\u{feff}"),
        ] {
            assert_eq!(line(given), shown);
        }
        assert!(matches!(line("plain"), Cow::Borrowed(_)));
    }

    #[test]
    fn text_of_several_lines_keeps_their_ends() {
        assert_eq!(text("a\n\tb\u{1b}[A\r\n"), "a\n\tb\\u{1b}[A\\r\n");
    }

    #[test]
    fn json_says_the_same_in_its_own_escapes() {
        let document = "{\n  \"name\": \"a\u{9b}m\u{202e}\u{e0041}\"\n}";
        assert_eq!(
            json(document),
            "{\n  \"name\": \"a\\u009bm\\u202e\\udb40\\udc41\"\n}"
        );
        assert_eq!(json("{\"a\": \"ü\"}\n"), "{\"a\": \"ü\"}\n");
    }

    #[test]
    fn a_writer_escapes_what_passes() {
        let mut out = String::new();
        write!(Line(&mut out), "a\n-{}", 1).unwrap();
        assert_eq!(out, "a\\n-1");
    }
}
