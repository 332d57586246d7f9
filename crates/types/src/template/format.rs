//! `printf`. Where verb and value do not fit Go leaves a mark in the output; here it is an error,
//! since nobody reads the output of a template before a program does.

use super::exec::text_of;
use super::value::{Value, float};

/// Widths and precisions at most: they stand in the template as a few digits and become as many
/// bytes.
const WIDTH_MAX: usize = 10_000;

/// How a value is to be written.
#[derive(Default)]
struct Spec {
    is_left: bool,
    has_sign: bool,
    has_zeros: bool,
    is_alternate: bool,
    has_blank: bool,
    width: usize,
    precision: Option<usize>,
}

pub(super) fn printf(arguments: &[Value]) -> Result<Vec<u8>, String> {
    let Some((Value::Str(pattern), values)) = arguments.split_first() else {
        return Err("the first argument must be a string".to_owned());
    };
    let mut out = Vec::new();
    let mut values = values.iter();
    let mut at = 0;
    while at < pattern.len() {
        let byte = pattern[at];
        at += 1;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let spec = spec(pattern, &mut at)?;
        let verb = *pattern.get(at).ok_or("the pattern ends after %")?;
        at += 1;
        if verb == b'%' {
            out.push(b'%');
            continue;
        }
        let value = values.next().ok_or("there are more verbs than values")?;
        pad(&write(verb, &spec, value)?, &spec, verb, &mut out);
    }
    match values.next() {
        None => Ok(out),
        Some(_) => Err("there are more values than verbs".to_owned()),
    }
}

fn spec(pattern: &[u8], at: &mut usize) -> Result<Spec, String> {
    let mut spec = Spec::default();
    while let Some(byte) = pattern.get(*at) {
        match byte {
            b'-' => spec.is_left = true,
            b'+' => spec.has_sign = true,
            b'#' => spec.is_alternate = true,
            b'0' => spec.has_zeros = true,
            b' ' => spec.has_blank = true,
            _ => break,
        }
        *at += 1;
    }
    spec.width = count(pattern, at)?;
    if pattern.get(*at) == Some(&b'.') {
        *at += 1;
        spec.precision = Some(count(pattern, at)?);
    }
    Ok(spec)
}

fn count(pattern: &[u8], at: &mut usize) -> Result<usize, String> {
    let mut count = 0;
    while let Some(digit) = pattern.get(*at).filter(|byte| byte.is_ascii_digit()) {
        count = count * 10 + usize::from(digit - b'0');
        if count > WIDTH_MAX {
            return Err(format!("a width or precision is more than {WIDTH_MAX}"));
        }
        *at += 1;
    }
    Ok(count)
}

fn write(verb: u8, spec: &Spec, value: &Value) -> Result<Vec<u8>, String> {
    match (verb, value) {
        (b'v', Value::Int(_)) => write(b'd', spec, value),
        (b'v', Value::Bool(_)) => write(b't', spec, value),
        (b'v', Value::Float(number)) => Ok(signed(float(*number), spec).into_bytes()),
        (b'v', Value::Map(_) | Value::Struct(_)) => Ok(text_of(value).to_vec()),
        (b's' | b'v', Value::Str(text)) => Ok(cut(text, spec)),
        (b'q', Value::Str(text)) => Ok(quoted(&cut(text, spec))),
        (b'x', Value::Str(text)) => Ok(hex(&cut(text, spec), false)),
        (b'X', Value::Str(text)) => Ok(hex(&cut(text, spec), true)),
        (b't', Value::Bool(value)) => Ok(value.to_string().into_bytes()),
        (b'd' | b'b' | b'o' | b'x' | b'X', Value::Int(number)) => {
            Ok(signed(digits(verb, spec, *number), spec).into_bytes())
        }
        (b'c', Value::Int(number)) => {
            let character = u32::try_from(*number).ok().and_then(char::from_u32);
            let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
            Ok(character.to_string().into_bytes())
        }
        (b'f' | b'F', Value::Float(number)) => {
            let places = spec.precision.unwrap_or(6);
            Ok(signed(format!("{number:.places$}"), spec).into_bytes())
        }
        (b'e', Value::Float(number)) => {
            let places = spec.precision.unwrap_or(6);
            Ok(signed(exponent(&format!("{number:.places$e}")), spec).into_bytes())
        }
        (b'g', Value::Float(number)) if spec.precision.is_none() => {
            Ok(signed(float(*number), spec).into_bytes())
        }
        _ => Err(format!(
            "the verb %{} does not fit {}",
            char::from(verb).escape_default(),
            value.kind()
        )),
    }
}

/// Go writes at least two digits and a sign.
fn exponent(text: &str) -> String {
    let Some((mantissa, exponent)) = text.split_once('e') else {
        return text.to_owned();
    };
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    format!("{mantissa}e{sign}{digits:0>2}")
}

fn digits(verb: u8, spec: &Spec, number: i64) -> String {
    let size = number.unsigned_abs();
    let (digits, prefix) = match verb {
        b'b' => (format!("{size:b}"), "0b"),
        b'o' => (format!("{size:o}"), "0"),
        b'x' => (format!("{size:x}"), "0x"),
        b'X' => (format!("{size:X}"), "0X"),
        _ => (size.to_string(), ""),
    };
    let places = spec.precision.unwrap_or(1);
    let prefix = if spec.is_alternate { prefix } else { "" };
    let sign = if number < 0 { "-" } else { "" };
    format!("{sign}{prefix}{digits:0>places$}")
}

fn signed(text: String, spec: &Spec) -> String {
    match text.as_bytes().first() {
        Some(b'-') | None => text,
        Some(_) if spec.has_sign => format!("+{text}"),
        Some(_) if spec.has_blank => format!(" {text}"),
        Some(_) => text,
    }
}

/// The precision of a text is a number of characters.
fn cut(text: &[u8], spec: &Spec) -> Vec<u8> {
    let Some(most) = spec.precision else {
        return text.to_vec();
    };
    let lossy = String::from_utf8_lossy(text);
    match lossy.char_indices().nth(most) {
        Some((end, _)) => lossy[..end].as_bytes().to_vec(),
        None => text.to_vec(),
    }
}

fn hex(text: &[u8], is_upper: bool) -> Vec<u8> {
    let digits = text.iter().flat_map(|byte| {
        let pair = if is_upper {
            format!("{byte:02X}")
        } else {
            format!("{byte:02x}")
        };
        pair.into_bytes()
    });
    digits.collect()
}

/// A Go string constant.
fn quoted(text: &[u8]) -> Vec<u8> {
    let mut out = String::from("\"");
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\u{7}' => out.push_str("\\a"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{b}' => out.push_str("\\v"),
                c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
                c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                c => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out.push('"');
    out.into_bytes()
}

fn pad(text: &[u8], spec: &Spec, verb: u8, out: &mut Vec<u8>) {
    let length = text
        .utf8_chunks()
        .map(|chunk| chunk.valid().chars().count() + usize::from(!chunk.invalid().is_empty()));
    let missing = spec.width.saturating_sub(length.sum());
    if spec.is_left {
        out.extend_from_slice(text);
        out.extend(std::iter::repeat_n(b' ', missing));
    } else if spec.has_zeros && spec.precision.is_none() | (verb == b'f') {
        let sign = usize::from(matches!(text.first(), Some(b'-' | b'+' | b' ')));
        out.extend_from_slice(&text[..sign]);
        out.extend(std::iter::repeat_n(b'0', missing));
        out.extend_from_slice(&text[sign..]);
    } else {
        out.extend(std::iter::repeat_n(b' ', missing));
        out.extend_from_slice(text);
    }
}
