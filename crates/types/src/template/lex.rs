//! From bytes to tokens. Tells text from actions, trims, drops comments, reads constants.

use std::ops::Range;

use super::Fault;

pub(super) const LEFT: &[u8] = b"{{";
const RIGHT: &[u8] = b"}}";

/// What a part of the source is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// Text outside of actions: a range of the source.
    Text(Range<usize>),
    Open,
    Close,
    Space,
    /// A keyword or the name of a function.
    Word(String),
    /// `.Name`.
    Field(String),
    /// `$name`, without the dollar; empty for `$`.
    Variable(String),
    Dot,
    Str(Vec<u8>),
    Int(i64),
    Float(f64),
    LeftParen,
    RightParen,
    Pipe,
    Comma,
    Declare,
    Assign,
}

/// A token and where it begins.
pub(super) type At = (usize, Token);

/// Splits the source.
pub(super) fn lex(source: &[u8]) -> Result<Vec<At>, Fault> {
    let mut lexer = Lexer {
        source,
        at: 0,
        tokens: Vec::new(),
        trims_next: false,
    };
    while lexer.at < source.len() {
        lexer.text();
        if lexer.at < source.len() {
            lexer.action()?;
        }
    }
    Ok(lexer.tokens)
}

struct Lexer<'a> {
    source: &'a [u8],
    at: usize,
    tokens: Vec<At>,
    trims_next: bool,
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_name(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric() || !byte.is_ascii()
}

impl Lexer<'_> {
    fn rest(&self) -> &[u8] {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.rest().get(ahead).copied().unwrap_or(0)
    }

    fn push(&mut self, token: Token, bytes: usize) {
        self.tokens.push((self.at, token));
        self.at += bytes;
    }

    /// Text up to the next action, without the space that trim markers take away.
    fn text(&mut self) {
        let start = self.at;
        let length = find(self.rest(), LEFT).unwrap_or_else(|| self.rest().len());
        let mut range = start..start + length;
        self.at = range.end;
        let is_trimmed_right =
            self.rest().starts_with(LEFT) && self.peek(2) == b'-' && is_space(self.peek(3));
        let source = self.source;
        if std::mem::take(&mut self.trims_next) {
            while !range.is_empty() && is_space(source[range.start]) {
                range.start += 1;
            }
        }
        if is_trimmed_right {
            while !range.is_empty() && is_space(source[range.end - 1]) {
                range.end -= 1;
            }
        }
        if !range.is_empty() {
            self.tokens.push((range.start, Token::Text(range)));
        }
    }

    fn action(&mut self) -> Result<(), Fault> {
        let start = self.at;
        let trim = if self.peek(2) == b'-' && is_space(self.peek(3)) {
            2
        } else {
            0
        };
        if self.rest()[2 + trim..].starts_with(b"/*") {
            return self.comment(start, 2 + trim);
        }
        self.push(Token::Open, 2 + trim);
        loop {
            if self.rest().is_empty() {
                return Err(Fault::new(start, "unclosed action"));
            }
            if self.close() {
                return Ok(());
            }
            self.inside()?;
        }
    }

    /// Takes the end of an action, with its trim marker, if it is here.
    fn close(&mut self) -> bool {
        let spaces = self
            .rest()
            .iter()
            .take_while(|byte| is_space(**byte))
            .count();
        let tail = &self.rest()[spaces..];
        let (bytes, trims) = if spaces > 0 && tail.starts_with(b"-}}") {
            (spaces + 3, true)
        } else if spaces == 0 && tail.starts_with(RIGHT) {
            (2, false)
        } else {
            return false;
        };
        self.push(Token::Close, bytes);
        self.trims_next = trims;
        true
    }

    fn comment(&mut self, start: usize, opening: usize) -> Result<(), Fault> {
        self.at += opening + 2;
        let Some(end) = find(self.rest(), b"*/") else {
            return Err(Fault::new(start, "unclosed comment"));
        };
        self.at += end + 2;
        if !self.close() {
            return Err(Fault::new(start, "comment ends before closing delimiter"));
        }
        // A comment leaves nothing behind.
        self.tokens.pop();
        Ok(())
    }

    fn inside(&mut self) -> Result<(), Fault> {
        let byte = self.peek(0);
        match byte {
            _ if is_space(byte) => {
                let count = self
                    .rest()
                    .iter()
                    .take_while(|byte| is_space(**byte))
                    .count();
                self.push(Token::Space, count);
            }
            b':' if self.peek(1) == b'=' => self.push(Token::Declare, 2),
            b'=' => self.push(Token::Assign, 1),
            b'|' => self.push(Token::Pipe, 1),
            b',' => self.push(Token::Comma, 1),
            b'(' => self.push(Token::LeftParen, 1),
            b')' => self.push(Token::RightParen, 1),
            b'"' => self.quoted()?,
            b'`' => self.raw()?,
            b'\'' => self.character()?,
            b'$' => {
                let name = self.name(1);
                self.push(Token::Variable(name.clone()), 1 + name.len());
                self.terminated()?;
            }
            b'.' if !self.peek(1).is_ascii_digit() => {
                let name = self.name(1);
                if name.is_empty() {
                    self.push(Token::Dot, 1);
                } else {
                    self.push(Token::Field(name.clone()), 1 + name.len());
                    self.terminated()?;
                }
            }
            b'+' | b'-' | b'.' | b'0'..=b'9' => self.number()?,
            _ if is_name(byte) => {
                let word = self.name(0);
                self.push(Token::Word(word.clone()), word.len());
                self.terminated()?;
            }
            _ => return Err(self.bad_character()),
        }
        Ok(())
    }

    fn bad_character(&self) -> Fault {
        Fault::new(self.at, "bad character in an action")
    }

    fn name(&self, from: usize) -> String {
        let bytes = self.rest().get(from..).unwrap_or_default();
        let length = bytes.iter().take_while(|byte| is_name(**byte)).count();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    /// Names must not run into something else.
    fn terminated(&self) -> Result<(), Fault> {
        let byte = self.peek(0);
        let is_end = self.rest().is_empty()
            || is_space(byte)
            || matches!(byte, b'.' | b',' | b'|' | b':' | b'=' | b')' | b'(')
            || self.rest().starts_with(RIGHT);
        is_end.then_some(()).ok_or_else(|| self.bad_character())
    }

    fn raw(&mut self) -> Result<(), Fault> {
        let Some(length) = self.rest()[1..].iter().position(|byte| *byte == b'`') else {
            return Err(Fault::new(self.at, "unterminated raw quoted string"));
        };
        // Go leaves out carriage returns.
        let text = self.rest()[1..=length]
            .iter()
            .filter(|byte| **byte != b'\r');
        let text = text.copied().collect();
        self.push(Token::Str(text), length + 2);
        Ok(())
    }

    fn quoted(&mut self) -> Result<(), Fault> {
        let mut text = Vec::new();
        let mut at = 1;
        loop {
            match self.peek(at) {
                b'"' => break,
                b'\n' => return Err(self.unterminated()),
                _ if at >= self.rest().len() => return Err(self.unterminated()),
                b'\\' => at += self.escape(at, b'"', &mut text)?,
                byte => {
                    text.push(byte);
                    at += 1;
                }
            }
        }
        self.push(Token::Str(text), at + 1);
        Ok(())
    }

    fn unterminated(&self) -> Fault {
        Fault::new(self.at, "unterminated quoted string")
    }

    fn character(&mut self) -> Result<(), Fault> {
        let fault = || Fault::new(self.at, "malformed character constant");
        let mut text = Vec::new();
        let mut at = 1;
        if self.peek(1) == b'\\' {
            at += self.escape(1, b'\'', &mut text)?;
        } else {
            let end = self.rest()[1..].iter().position(|byte| *byte == b'\'');
            at += end.ok_or_else(fault)?;
            text.extend_from_slice(&self.rest()[1..at]);
        }
        if self.peek(at) != b'\'' {
            return Err(fault());
        }
        // `\xff` is the number 255, not a character in UTF-8.
        let number = match (std::str::from_utf8(&text), text.as_slice()) {
            (Ok(text), _) => {
                let mut chars = text.chars();
                match (chars.next(), chars.next()) {
                    (Some(only), None) => u32::from(only),
                    _ => return Err(fault()),
                }
            }
            (Err(_), [byte]) => u32::from(*byte),
            (Err(_), _) => return Err(fault()),
        };
        self.push(Token::Int(i64::from(number)), at + 1);
        Ok(())
    }

    /// Reads the escape at `at`, and says how long it is.
    fn escape(&self, at: usize, quote: u8, text: &mut Vec<u8>) -> Result<usize, Fault> {
        let fault = || Fault::new(self.at + at, "unknown escape in a constant");
        let simple = match self.peek(at + 1) {
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'\\' => b'\\',
            byte if byte == quote => quote,
            b'x' => return self.digits(at + 2, 2, 16, text, false).map(|()| 4),
            b'u' => return self.digits(at + 2, 4, 16, text, true).map(|()| 6),
            b'U' => return self.digits(at + 2, 8, 16, text, true).map(|()| 10),
            b'0'..=b'7' => return self.digits(at + 1, 3, 8, text, false).map(|()| 4),
            _ => return Err(fault()),
        };
        text.push(simple);
        Ok(2)
    }

    fn digits(
        &self,
        at: usize,
        count: usize,
        radix: u32,
        text: &mut Vec<u8>,
        is_char: bool,
    ) -> Result<(), Fault> {
        let fault = || Fault::new(self.at + at, "malformed escape in a constant");
        let digits = self.rest().get(at..at + count).ok_or_else(fault)?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(fault());
        }
        let digits = std::str::from_utf8(digits).map_err(|_| fault())?;
        let number = u32::from_str_radix(digits, radix).map_err(|_| fault())?;
        if is_char {
            let character = char::from_u32(number).ok_or_else(fault)?;
            let mut buffer = [0; 4];
            text.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
        } else {
            text.push(u8::try_from(number).map_err(|_| fault())?);
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Fault> {
        let fault = || Fault::new(self.at, "malformed number");
        let mut length = usize::from(matches!(self.peek(0), b'+' | b'-'));
        let mut last = 0;
        // A sign inside a number follows the letter of its exponent.
        while is_name(self.peek(length))
            || self.peek(length) == b'.'
            || (matches!(self.peek(length), b'+' | b'-') && matches!(last, b'e' | b'E'))
        {
            last = self.peek(length);
            length += 1;
        }
        let text = std::str::from_utf8(&self.rest()[..length]).map_err(|_| fault())?;
        let token = constant(text).ok_or_else(fault)?;
        self.push(token, length);
        self.terminated()
    }
}

/// A number as Go writes it, without imaginary parts.
fn constant(text: &str) -> Option<Token> {
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => ("-", &text[1..]),
        b'+' => ("", &text[1..]),
        _ => ("", text),
    };
    let has_bad_mark = digits.starts_with('_') || digits.ends_with('_') || digits.contains("__");
    if has_bad_mark {
        return None;
    }
    let plain = digits.replace('_', "").to_ascii_lowercase();
    let (radix, tail) = match plain.as_bytes() {
        [b'0', b'x', ..] => (16, &plain[2..]),
        [b'0', b'o', ..] => (8, &plain[2..]),
        [b'0', b'b', ..] => (2, &plain[2..]),
        [b'0', b'0'..=b'7', ..] if plain.bytes().all(|byte| byte.is_ascii_digit()) => {
            (8, &plain[1..])
        }
        _ => (10, plain.as_str()),
    };
    if !tail.is_empty() && tail.chars().all(|c| c.is_digit(radix)) {
        let number = i64::from_str_radix(&format!("{sign}{tail}"), radix).ok()?;
        return Some(Token::Int(number));
    }
    let is_decimal = radix == 10
        && plain.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && plain.bytes().any(|byte| byte.is_ascii_digit());
    let number: f64 = is_decimal.then(|| format!("{sign}{plain}").parse().ok())??;
    number.is_finite().then_some(Token::Float(number))
}

pub(super) fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}
