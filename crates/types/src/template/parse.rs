//! From tokens to a tree. Names of functions and variables are checked here, so that a typing
//! mistake is found when a spec is accepted, not when a branch is reached.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::lex::{At, Token, lex};
use super::value::Value;
use super::{Fault, Functions, TEMPLATE_DEPTH_MAX, functions};

/// A part of a template.
#[derive(Clone)]
pub(super) enum Node {
    Text(Bytes),
    Print(Pipeline),
    If(Box<Branch>),
    With(Box<Branch>),
    Range(Box<Branch>),
    Call {
        at: usize,
        name: String,
        argument: Option<Pipeline>,
    },
    Break,
    Continue,
}

/// What `if`, `with` and `range` have.
#[derive(Clone)]
pub(super) struct Branch {
    pub(super) pipeline: Pipeline,
    pub(super) then: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// Commands, each of which gets the value of the one before as its last argument.
#[derive(Clone)]
pub(super) struct Pipeline {
    pub(super) at: usize,
    pub(super) variables: Vec<String>,
    /// Whether the variables exist already.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Command>,
}

/// A function or value, and its arguments.
#[derive(Clone)]
pub(super) struct Command {
    pub(super) words: Vec<Operand>,
}

/// A word of a command and where it begins.
#[derive(Clone)]
pub(super) struct Operand {
    pub(super) at: usize,
    pub(super) base: Base,
    pub(super) fields: Vec<String>,
}

/// What an operand begins with.
#[derive(Clone)]
pub(super) enum Base {
    Dot,
    Nil,
    Constant(Value),
    Variable(String),
    Function(String),
    Pipeline(Box<Pipeline>),
}

type Tree = (Vec<Node>, BTreeMap<String, Vec<Node>>);

pub(super) fn parse(source: &Bytes, functions: Functions) -> Result<Tree, Fault> {
    let mut parser = Parser {
        source,
        tokens: lex(source)?,
        next: 0,
        functions,
        variables: vec![String::new()],
        loops: 0,
        depth: 0,
        defined: BTreeMap::new(),
    };
    let (nodes, end) = parser.list()?;
    match end {
        Stop::Source => Ok((nodes, parser.defined)),
        Stop::End(at) => Err(Fault::new(at, "unexpected {{end}}")),
        Stop::Else(at) => Err(Fault::new(at, "unexpected {{else}}")),
    }
}

struct Parser<'a> {
    source: &'a Bytes,
    tokens: Vec<At>,
    next: usize,
    functions: Functions,
    /// Names in scope; the empty one is `$`.
    variables: Vec<String>,
    loops: u32,
    depth: u32,
    defined: BTreeMap<String, Vec<Node>>,
}

/// What a list of nodes ended with.
enum Stop {
    Source,
    End(usize),
    /// `else`; the rest of the action is still to be read.
    Else(usize),
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, token)| token)
    }

    /// Where the next token begins, or the source ends.
    fn at(&self) -> usize {
        self.tokens
            .get(self.next)
            .map_or(self.source.len(), |(at, _)| *at)
    }

    fn take(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.next += 1;
        token
    }

    fn skip_space(&mut self) {
        if self.peek() == Some(&Token::Space) {
            self.next += 1;
        }
    }

    fn unexpected<T>(&self, place: &str) -> Result<T, Fault> {
        Err(Fault::new(
            self.at(),
            format!("unexpected token in {place}"),
        ))
    }

    fn close(&mut self, place: &str) -> Result<(), Fault> {
        self.skip_space();
        if self.peek() == Some(&Token::Close) {
            self.next += 1;
            return Ok(());
        }
        self.unexpected(place)
    }

    fn enter(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        if self.depth > TEMPLATE_DEPTH_MAX {
            let text = format!("nested more than {TEMPLATE_DEPTH_MAX} deep");
            return Err(Fault::new(self.at(), text));
        }
        Ok(())
    }

    fn list(&mut self) -> Result<(Vec<Node>, Stop), Fault> {
        self.enter()?;
        let mut nodes = Vec::new();
        let end = loop {
            let at = self.at();
            match self.take() {
                None => break Stop::Source,
                Some(Token::Text(range)) => nodes.push(Node::Text(self.source.slice(range))),
                Some(Token::Open) => {
                    self.skip_space();
                    let word = match self.peek() {
                        Some(Token::Word(word)) => word.clone(),
                        Some(_) | None => String::new(),
                    };
                    match word.as_str() {
                        "end" => {
                            self.next += 1;
                            self.close("end")?;
                            break Stop::End(at);
                        }
                        "else" => {
                            self.next += 1;
                            break Stop::Else(at);
                        }
                        word => nodes.extend(self.action(at, word)?),
                    }
                }
                // The lexer begins with a text or an opening, and each action ends with a closing.
                Some(_) => return Err(Fault::new(at, "unexpected token outside of an action")),
            }
        };
        self.depth -= 1;
        Ok((nodes, end))
    }

    fn action(&mut self, at: usize, word: &str) -> Result<Option<Node>, Fault> {
        match word {
            "if" | "with" | "range" => {
                self.next += 1;
                self.branch(at, word).map(Some)
            }
            "template" => {
                self.next += 1;
                self.call(at).map(Some)
            }
            "block" => {
                self.next += 1;
                self.block(at).map(Some)
            }
            "define" => {
                self.next += 1;
                self.define(at).map(|()| None)
            }
            "break" | "continue" => {
                self.next += 1;
                self.close(word)?;
                if self.loops == 0 {
                    return Err(Fault::new(
                        at,
                        format!("{{{{{word}}}}} outside {{{{range}}}}"),
                    ));
                }
                let is_break = word == "break";
                Ok(Some(if is_break {
                    Node::Break
                } else {
                    Node::Continue
                }))
            }
            _ => {
                let pipeline = self.pipeline("an action", &Token::Close)?;
                Ok(Some(Node::Print(pipeline)))
            }
        }
    }

    fn branch(&mut self, at: usize, word: &str) -> Result<Node, Fault> {
        let is_range = word == "range";
        let scope = self.variables.len();
        let pipeline = self.pipeline(word, &Token::Close)?;
        if pipeline.variables.len() > 1 && !is_range {
            return Err(Fault::new(at, "only {{range}} declares two variables"));
        }
        self.loops += u32::from(is_range);
        let (then, end) = self.list()?;
        self.loops -= u32::from(is_range);
        let otherwise = match end {
            Stop::End(_) => Vec::new(),
            Stop::Else(at) => self.otherwise(at, word)?,
            Stop::Source => {
                return Err(Fault::new(at, format!("{{{{{word}}}}} has no {{{{end}}}}")));
            }
        };
        self.variables.truncate(scope);
        let branch = Box::new(Branch {
            pipeline,
            then,
            otherwise,
        });
        Ok(match word {
            "if" => Node::If(branch),
            "with" => Node::With(branch),
            _ => Node::Range(branch),
        })
    }

    /// After `else`: either the other list, or a chained `if` or `with`, which shares the `end`.
    fn otherwise(&mut self, at: usize, word: &str) -> Result<Vec<Node>, Fault> {
        self.skip_space();
        if self.peek() == Some(&Token::Word(word.to_owned())) && word != "range" {
            self.next += 1;
            self.enter()?;
            let node = self.branch(at, word)?;
            self.depth -= 1;
            return Ok(vec![node]);
        }
        self.close("else")?;
        let (nodes, end) = self.list()?;
        match end {
            Stop::End(_) => Ok(nodes),
            Stop::Else(at) => Err(Fault::new(at, "a second {{else}}")),
            Stop::Source => Err(Fault::new(at, "{{else}} has no {{end}}")),
        }
    }

    fn string(&mut self, place: &str) -> Result<String, Fault> {
        self.skip_space();
        let Some(Token::Str(text)) = self.peek().cloned() else {
            return self.unexpected(place);
        };
        self.next += 1;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn call(&mut self, at: usize) -> Result<Node, Fault> {
        let name = self.string("template")?;
        self.skip_space();
        let argument = if self.peek() == Some(&Token::Close) {
            self.next += 1;
            None
        } else {
            Some(self.pipeline("template", &Token::Close)?)
        };
        Ok(Node::Call { at, name, argument })
    }

    fn block(&mut self, at: usize) -> Result<Node, Fault> {
        let name = self.string("block")?;
        let argument = Some(self.pipeline("block", &Token::Close)?);
        let nodes = self.body(at)?;
        self.defined.entry(name.clone()).or_insert(nodes);
        Ok(Node::Call { at, name, argument })
    }

    fn define(&mut self, at: usize) -> Result<(), Fault> {
        if self.depth > 1 {
            return Err(Fault::new(at, "{{define}} inside of another action"));
        }
        let name = self.string("define")?;
        self.close("define")?;
        let nodes = self.body(at)?;
        self.defined.insert(name, nodes);
        Ok(())
    }

    /// The list of a template of its own: it sees no variables but `$`, and no loop around it.
    fn body(&mut self, at: usize) -> Result<Vec<Node>, Fault> {
        let outer = std::mem::replace(&mut self.variables, vec![String::new()]);
        let loops = std::mem::take(&mut self.loops);
        let (nodes, end) = self.list()?;
        self.variables = outer;
        self.loops = loops;
        match end {
            Stop::End(_) => Ok(nodes),
            Stop::Else(at) => Err(Fault::new(at, "unexpected {{else}}")),
            Stop::Source => Err(Fault::new(at, "unclosed template definition")),
        }
    }

    fn pipeline(&mut self, place: &str, end: &Token) -> Result<Pipeline, Fault> {
        self.enter()?;
        self.skip_space();
        let at = self.at();
        let (variables, assigns) = self.declarations(place)?;
        let mut commands = Vec::new();
        loop {
            self.skip_space();
            let token = self.peek();
            if token == Some(end) {
                break;
            }
            commands.push(self.command(place)?);
            self.skip_space();
            if self.peek() == Some(&Token::Pipe) {
                self.next += 1;
                self.skip_space();
                if self.peek() == Some(end) {
                    return Err(Fault::new(self.at(), format!("missing command in {place}")));
                }
            } else if self.peek() != Some(end) {
                return self.unexpected(place);
            }
        }
        self.next += 1;
        if commands.is_empty() {
            return Err(Fault::new(at, format!("missing value for {place}")));
        }
        check_later_commands(&commands)?;
        if !assigns {
            self.variables.extend(variables.iter().cloned());
        }
        self.depth -= 1;
        Ok(Pipeline {
            at,
            variables,
            assigns,
            commands,
        })
    }

    /// `$x :=`, `$x =`, or `$k, $v :=`.
    fn declarations(&mut self, place: &str) -> Result<(Vec<String>, bool), Fault> {
        let start = self.next;
        let mut names = Vec::new();
        while let Some(Token::Variable(name)) = self.peek().cloned() {
            self.next += 1;
            names.push(name);
            self.skip_space();
            match self.peek() {
                Some(Token::Declare) => {
                    self.next += 1;
                    return Ok((names, false));
                }
                Some(Token::Assign) => {
                    self.next += 1;
                    for name in &names {
                        self.known_variable(name)?;
                    }
                    return Ok((names, true));
                }
                Some(Token::Comma) if place == "range" && names.len() == 1 => {
                    self.next += 1;
                    self.skip_space();
                }
                Some(_) | None => break,
            }
        }
        self.next = start;
        Ok((Vec::new(), false))
    }

    fn known_variable(&self, name: &str) -> Result<(), Fault> {
        if self.variables.iter().any(|known| known == name) {
            return Ok(());
        }
        Err(Fault::new(
            self.at(),
            format!("undefined variable \"${name}\""),
        ))
    }

    fn command(&mut self, place: &str) -> Result<Command, Fault> {
        let mut words = Vec::new();
        loop {
            self.skip_space();
            match self.peek() {
                Some(Token::Close | Token::RightParen | Token::Pipe) => break,
                Some(_) => words.push(self.operand(place)?),
                None => return self.unexpected(place),
            }
            match self.peek() {
                Some(Token::Space | Token::Close | Token::RightParen | Token::Pipe) => {}
                Some(_) | None => return self.unexpected(place),
            }
        }
        if words.is_empty() {
            return Err(Fault::new(self.at(), format!("empty command in {place}")));
        }
        Ok(Command { words })
    }

    fn operand(&mut self, place: &str) -> Result<Operand, Fault> {
        let at = self.at();
        let mut fields = Vec::new();
        let base = match self.take() {
            Some(Token::Dot) => Base::Dot,
            Some(Token::Field(name)) => {
                fields.push(name);
                Base::Dot
            }
            Some(Token::Variable(name)) => {
                self.known_variable(&name)?;
                Base::Variable(name)
            }
            Some(Token::Word(word)) => match word.as_str() {
                "nil" => Base::Nil,
                "true" => Base::Constant(Value::Bool(true)),
                "false" => Base::Constant(Value::Bool(false)),
                name if functions::is_known(name, self.functions) => Base::Function(word),
                _ => {
                    let text = format!("function {word:?} not defined");
                    return Err(Fault::new(at, text));
                }
            },
            Some(Token::Str(text)) => Base::Constant(Value::Str(text.into())),
            Some(Token::Int(number)) => Base::Constant(Value::Int(number)),
            Some(Token::Float(number)) => Base::Constant(Value::Float(number)),
            Some(Token::LeftParen) => {
                let pipeline = self.pipeline("a parenthesis", &Token::RightParen)?;
                Base::Pipeline(Box::new(pipeline))
            }
            Some(_) | None => {
                self.next -= 1;
                return self.unexpected(place);
            }
        };
        while let Some(Token::Field(name)) = self.peek() {
            fields.push(name.clone());
            self.next += 1;
        }
        let has_no_fields = matches!(base, Base::Nil | Base::Constant(_));
        if has_no_fields && !fields.is_empty() {
            return Err(Fault::new(at, "unexpected . after a constant"));
        }
        Ok(Operand { at, base, fields })
    }
}

/// A command that gets a value must be able to take it.
fn check_later_commands(commands: &[Command]) -> Result<(), Fault> {
    for command in commands.iter().skip(1) {
        let Some(first) = command.words.first() else {
            continue;
        };
        if matches!(first.base, Base::Constant(_) | Base::Nil)
            || matches!(first.base, Base::Dot if first.fields.is_empty())
        {
            return Err(Fault::new(first.at, "non executable command in pipeline"));
        }
    }
    Ok(())
}
