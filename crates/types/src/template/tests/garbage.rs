//! Templates made of anything: an answer, never a panic, and never more than the bounds.

use proptest::prelude::*;

use super::*;

/// Parts that together are likely to get through the parser.
const PARTS: &[&str] = &[
    "{{",
    "}}",
    "{{- ",
    " -}}",
    "{{if ",
    "{{else}}",
    "{{else if ",
    "{{end}}",
    "{{range ",
    "{{with ",
    "{{define \"x\"}}",
    "{{template \"x\" ",
    "{{block \"x\" ",
    "{{break}}",
    "{{continue}}",
    ".Name",
    ".Labels",
    ".Labels.a",
    ".",
    "$",
    "$x",
    "$x := ",
    "$k, $v := ",
    "$x = ",
    "(",
    ")",
    " | ",
    " ",
    "printf ",
    "print ",
    "index ",
    "slice ",
    "len ",
    "eq ",
    "and ",
    "or ",
    "not ",
    "join ",
    "\"a\"",
    "\"%d%5s%v\"",
    "`r`",
    "'c'",
    "1",
    "-2",
    "1e3",
    "0x",
    "nil",
    "true",
    "/*",
    "*/",
    "text",
    "\n",
    "é",
    "\u{0}",
    "\\",
];

fn run(source: Vec<u8>) {
    let Ok(template) = Template::parse("t", source, Functions::Basic) else {
        return;
    };
    let data = dot();
    let scope = Scope {
        data: &data,
        lookup: None,
    };
    if let Ok(expansion) = template.expand(scope, 1000) {
        assert!(expansion.text.len() <= 1000);
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        run(bytes);
    }

    #[test]
    fn arbitrary_parts_are_answered(
        parts in prop::collection::vec(prop::sample::select(PARTS), 0..30),
    ) {
        run(parts.concat().into_bytes());
    }

    #[test]
    fn arbitrary_actions_are_answered(
        parts in prop::collection::vec(prop::sample::select(PARTS), 0..10),
    ) {
        run(format!("{{{{ {} }}}}", parts.concat()).into_bytes());
    }

    #[test]
    fn arbitrary_formats_are_answered(
        pattern in "%?[-+# 0]{0,3}[0-9]{0,3}(\\.[0-9]{0,2})?[a-zA-Z%]{0,2}",
    ) {
        for value in ["1", "1.5", "\"ab\"", "true", ".Labels"] {
            run(format!("{{{{printf `{pattern}` {value}}}}}").into_bytes());
        }
    }

    #[test]
    fn text_without_actions_is_kept(text in "[^{]{0,100}") {
        prop_assert_eq!(expand(&text), Ok(text));
    }
}
