//! The functions that templates call. `and` and `or` are in `exec`, since they look at as few
//! arguments as they can.

use std::cmp::Ordering;

use bytes::Bytes;

use super::exec::text_of;
use super::format;
use super::value::Value;
use super::{Functions, Lookup};

const BASIC: &[&str] = &[
    "and", "eq", "ge", "gt", "html", "index", "join", "js", "le", "len", "lt", "ne", "not", "or",
    "print", "printf", "println", "slice", "urlquery",
];
const PAYLOAD: &[&str] = &["config", "env", "secret"];

/// Whether templates of this kind may call the function.
pub(super) fn is_known(name: &str, functions: Functions) -> bool {
    BASIC.contains(&name) || (functions == Functions::Payload && PAYLOAD.contains(&name))
}

/// Calls a function; the error is a text without its name.
pub(super) fn call(
    name: &str,
    arguments: &[Value],
    lookup: Option<&dyn Lookup>,
) -> Result<Value, String> {
    match name {
        "not" => one(arguments).map(|value| Value::Bool(!value.is_true())),
        "len" => one(arguments).and_then(length),
        "index" => index(arguments),
        "slice" => slice(arguments),
        "eq" => equal_to_any(arguments),
        "ne" => two(arguments).and_then(|(a, b)| Ok(Value::Bool(!a.equals(b)?))),
        "lt" => ordered(arguments, Ordering::is_lt),
        "le" => ordered(arguments, Ordering::is_le),
        "gt" => ordered(arguments, Ordering::is_gt),
        "ge" => ordered(arguments, Ordering::is_ge),
        "print" => Ok(Value::Str(spaced(arguments).into())),
        "println" => Ok(Value::Str(line(arguments).into())),
        "printf" => format::printf(arguments).map(|text| Value::Str(text.into())),
        "html" => Ok(Value::Str(html(&spaced(arguments)).into())),
        "js" => Ok(Value::Str(js(&spaced(arguments)).into())),
        "urlquery" => Ok(Value::Str(urlquery(&spaced(arguments)).into())),
        "join" => join(arguments),
        "env" | "secret" | "config" => {
            let lookup = lookup.ok_or("it is not available here")?;
            look_up(name, lookup, arguments)
        }
        _ => Err("it is not defined".to_owned()),
    }
}

fn wrong_count(wanted: &str, given: usize) -> String {
    format!("wrong number of arguments: {wanted} wanted, {given} given")
}

fn one(arguments: &[Value]) -> Result<&Value, String> {
    match arguments {
        [only] => Ok(only),
        _ => Err(wrong_count("1", arguments.len())),
    }
}

fn two(arguments: &[Value]) -> Result<(&Value, &Value), String> {
    match arguments {
        [first, second] => Ok((first, second)),
        _ => Err(wrong_count("2", arguments.len())),
    }
}

fn string(value: &Value) -> Result<&Bytes, String> {
    match value {
        Value::Str(text) => Ok(text),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Map(_) | Value::Struct(_) => {
            Err(format!("a string is wanted, {} was given", value.kind()))
        }
    }
}

fn number(value: &Value) -> Result<i64, String> {
    match value {
        Value::Int(number) => Ok(*number),
        Value::Bool(_) | Value::Float(_) | Value::Str(_) | Value::Map(_) | Value::Struct(_) => {
            Err(format!("an integer is wanted, {} was given", value.kind()))
        }
    }
}

fn length(value: &Value) -> Result<Value, String> {
    let length = match value {
        Value::Str(text) => text.len(),
        Value::Map(entries) => entries.len(),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Struct(_) => {
            return Err(format!("{} has no length", value.kind()));
        }
    };
    Ok(Value::Int(i64::try_from(length).unwrap_or(i64::MAX)))
}

/// An entry of a map, empty if there is none; a byte of a string.
fn index(arguments: &[Value]) -> Result<Value, String> {
    let Some((first, keys)) = arguments.split_first() else {
        return Err(wrong_count("at least 1", 0));
    };
    keys.iter()
        .try_fold(first.clone(), |value, key| match &value {
            Value::Map(entries) => {
                let key = string(key)?;
                let entry = std::str::from_utf8(key)
                    .ok()
                    .and_then(|key| entries.get(key));
                Ok(entry.cloned().unwrap_or_else(|| Value::from("")))
            }
            Value::Str(text) => {
                let at = usize::try_from(number(key)?).ok();
                let byte = at.and_then(|at| text.get(at));
                let byte = byte.ok_or_else(|| out_of_range(text))?;
                Ok(Value::Int(i64::from(*byte)))
            }
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Struct(_) => {
                Err(format!("can't index {}", value.kind()))
            }
        })
}

fn out_of_range(text: &Bytes) -> String {
    format!("index out of range: there are {} bytes", text.len())
}

fn slice(arguments: &[Value]) -> Result<Value, String> {
    let (text, bounds) = match arguments {
        [text, bounds @ ..] if bounds.len() <= 2 => (string(text)?, bounds),
        _ => return Err(wrong_count("1 to 3", arguments.len())),
    };
    let bound = |index: usize, default: usize| match bounds.get(index) {
        Some(value) => usize::try_from(number(value)?).map_err(|_| out_of_range(text)),
        None => Ok(default),
    };
    let (from, to) = (bound(0, 0)?, bound(1, text.len())?);
    if from > to || to > text.len() {
        return Err(out_of_range(text));
    }
    Ok(Value::Str(text.slice(from..to)))
}

fn equal_to_any(arguments: &[Value]) -> Result<Value, String> {
    let (first, others) = match arguments {
        [first, others @ ..] if !others.is_empty() => (first, others),
        _ => return Err(wrong_count("at least 2", arguments.len())),
    };
    for other in others {
        if first.equals(other)? {
            return Ok(Value::Bool(true));
        }
    }
    Ok(Value::Bool(false))
}

fn ordered(arguments: &[Value], is_so: fn(Ordering) -> bool) -> Result<Value, String> {
    let (first, second) = two(arguments)?;
    first.order(second).map(|order| Value::Bool(is_so(order)))
}

/// Values one after the other, with a space between two of which neither is a string.
fn spaced(arguments: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut was_string = true;
    for (index, value) in arguments.iter().enumerate() {
        let is_string = matches!(value, Value::Str(_));
        if index > 0 && !is_string && !was_string {
            out.push(b' ');
        }
        value.print(&mut out);
        was_string = is_string;
    }
    out
}

fn line(arguments: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, value) in arguments.iter().enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        value.print(&mut out);
    }
    out.push(b'\n');
    out
}

fn html(text: &[u8]) -> Vec<u8> {
    escaped(text, |byte, out| {
        let escape: &[u8] = match byte {
            0 => "\u{fffd}".as_bytes(),
            b'"' => b"&#34;",
            b'\'' => b"&#39;",
            b'&' => b"&amp;",
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            _ => return false,
        };
        out.extend_from_slice(escape);
        true
    })
}

fn js(text: &[u8]) -> Vec<u8> {
    escaped(text, |byte, out| {
        let escape: &[u8] = match byte {
            b'\\' => br"\\",
            b'\'' => br"\'",
            b'"' => br#"\""#,
            b'<' => br"\u003C",
            b'>' => br"\u003E",
            b'&' => br"\u0026",
            b'=' => br"\u003D",
            0..=31 | 127 => {
                out.extend_from_slice(format!("\\u{byte:04X}").as_bytes());
                return true;
            }
            _ => return false,
        };
        out.extend_from_slice(escape);
        true
    })
}

fn urlquery(text: &[u8]) -> Vec<u8> {
    escaped(text, |byte, out| {
        match byte {
            b' ' => out.push(b'+'),
            b'-' | b'_' | b'.' | b'~' => return false,
            _ if byte.is_ascii_alphanumeric() => return false,
            _ => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
        true
    })
}

/// Copies bytes, but for those that `escape` takes.
fn escaped(text: &[u8], escape: impl Fn(u8, &mut Vec<u8>) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for byte in text {
        if !escape(*byte, &mut out) {
            out.push(*byte);
        }
    }
    out
}

/// The first argument between the others.
fn join(arguments: &[Value]) -> Result<Value, String> {
    let Some((separator, parts)) = arguments.split_first() else {
        return Err(wrong_count("at least 1", 0));
    };
    let separator = string(separator)?;
    // The separator counts as often as it is written.
    let parts: Vec<&Bytes> = parts.iter().map(string).collect::<Result<_, _>>()?;
    let parts: Vec<&[u8]> = parts.into_iter().map(|part| &part[..]).collect();
    Ok(Value::Str(parts.join(&separator[..]).into()))
}

fn look_up(name: &str, lookup: &dyn Lookup, arguments: &[Value]) -> Result<Value, String> {
    let wanted = text_of(one(arguments)?);
    let wanted = std::str::from_utf8(&wanted).map_err(|_| "the name is not text".to_owned())?;
    let found = match name {
        "env" => Ok(lookup.env(wanted)),
        "secret" => lookup.secret(wanted),
        _ => lookup.config(wanted),
    };
    found.map(Value::Str)
}
