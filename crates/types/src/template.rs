//! Templates in specs, secrets and configs: the language of Go's `text/template` (control-plane
//! spec 27).
//!
//! A template is parsed once and expanded against [`Scope`], values that the caller has. Every
//! expansion is bounded in depth, steps, bytes moved and output, so a template from a stranger
//! costs a known amount and cannot panic. An error names the template, the line and the column; it
//! never repeats a value, since values may be secret.
//!
//! What of the language is there: fields, variables, pipelines, `if`, `with`, `range`, `break`,
//! `continue`, `define`, `template`, `block`, comments, trim markers, and the functions `and`,
//! `or`, `not`, `eq`, `ne`, `lt`, `le`, `gt`, `ge`, `len`, `index`, `slice`, `print`, `printf`,
//! `println`, `html`, `js`, `urlquery` and `join`. What is not: complex numbers, `call` (no value
//! is a function), and the marks that `printf` leaves in its output when verb and value do not fit,
//! which are errors here.
//!
//! # Start reading at
//! [`Template`], then [`task`] for what a task's templates see.

mod exec;
mod format;
mod functions;
mod lex;
mod parse;
pub mod task;
mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bytes::Bytes;

use parse::Node;
pub use value::Value;

/// Nesting of a template at most, and of its expansion: blocks, parentheses and calls of templates
/// together. Keeps the stack small.
pub const TEMPLATE_DEPTH_MAX: u32 = 100;
/// Commands that one expansion carries out at most; all expansions of one spec together.
pub const TEMPLATE_STEPS_MAX: u32 = 100_000;
/// Bytes that one expansion, or all of one spec together, read and make at most: 64 MiB.
pub const TEMPLATE_WORK_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is left of steps and bytes. A spec has thousands of fields that may be templates, so they
/// share one.
#[derive(Debug)]
pub struct Budget {
    steps: u32,
    work: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            steps: TEMPLATE_STEPS_MAX,
            work: TEMPLATE_WORK_BYTES_MAX,
        }
    }
}

/// Why a template does not parse, or cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template {name}:{line}:{column}: {message}")]
pub struct TemplateError {
    /// What the template is, as the caller named it.
    pub name: String,
    /// The line, from 1.
    pub line: usize,
    /// The byte in the line, from 1.
    pub column: usize,
    /// What is wrong. Holds no value.
    pub message: String,
}

/// An error at a byte of the source.
#[derive(Debug)]
struct Fault {
    at: usize,
    message: String,
}

impl Fault {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
        }
    }
}

/// Functions that only the expansion of payloads has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Functions {
    /// Those of the language, and `join`.
    Basic,
    /// With `env`, `secret` and `config`.
    Payload,
}

/// Answers the functions `env`, `secret` and `config`.
pub trait Lookup {
    /// A variable of the task's environment as the spec has it; empty if there is none.
    fn env(&self, name: &str) -> Bytes;

    /// The content of the secret with this file target.
    ///
    /// # Errors
    /// Why there is none, without any content.
    fn secret(&self, target: &str) -> Result<Bytes, String>;

    /// The content of the config with this file target.
    ///
    /// # Errors
    /// Why there is none, without any content.
    fn config(&self, target: &str) -> Result<Bytes, String>;
}

/// What a template sees.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The dot at the beginning.
    pub data: &'a Value,
    /// Must be there for templates that were parsed with [`Functions::Payload`].
    pub lookup: Option<&'a dyn Lookup>,
}

/// What an expansion made.
#[derive(Clone, PartialEq, Eq)]
pub struct Expansion {
    /// The text.
    pub text: Bytes,
    /// Whether `secret` was called, so that the text is to be kept like a secret.
    pub used_secret: bool,
}

/// A template that parsed.
#[derive(Clone)]
pub struct Template {
    name: String,
    source: Bytes,
    nodes: Vec<Node>,
    defined: BTreeMap<String, Vec<Node>>,
}

impl Template {
    /// Parses a template; `name` says in errors what it is.
    ///
    /// # Errors
    /// [`TemplateError`] with the place.
    pub fn parse(
        name: &str,
        source: impl Into<Bytes>,
        functions: Functions,
    ) -> Result<Self, TemplateError> {
        let source = source.into();
        match parse::parse(&source, functions) {
            Ok((nodes, defined)) => Ok(Self {
                name: name.to_owned(),
                source,
                nodes,
                defined,
            }),
            Err(fault) => Err(located(name, &source, fault)),
        }
    }

    /// Expands the template into at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`TemplateError`] with the place.
    pub fn expand(&self, scope: Scope<'_>, bytes_max: usize) -> Result<Expansion, TemplateError> {
        self.expand_within(scope, bytes_max, &mut Budget::default())
    }

    /// The same, paid for from a budget that others use as well.
    ///
    /// # Errors
    /// [`TemplateError`] with the place.
    pub fn expand_within(
        &self,
        scope: Scope<'_>,
        bytes_max: usize,
        budget: &mut Budget,
    ) -> Result<Expansion, TemplateError> {
        exec::expand(&self.nodes, &self.defined, scope, bytes_max, budget)
            .map_err(|fault| located(&self.name, &self.source, fault))
    }
}

/// Whether a text has to be expanded at all.
pub fn is_template(text: &[u8]) -> bool {
    text.windows(2).any(|pair| pair == lex::LEFT)
}

fn located(name: &str, source: &[u8], fault: Fault) -> TemplateError {
    let before = &source[..fault.at.min(source.len())];
    let line_start = before.iter().rposition(|byte| *byte == b'\n');
    TemplateError {
        name: name.to_owned(),
        line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
        column: before.len() - line_start.map_or(0, |at| at + 1) + 1,
        message: fault.message,
    }
}
