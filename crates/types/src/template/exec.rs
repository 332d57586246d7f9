//! Walks the tree.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::parse::{Base, Branch, Command, Node, Operand, Pipeline};
use super::value::Value;
use super::{
    Budget, Expansion, Fault, Scope, TEMPLATE_DEPTH_MAX, TEMPLATE_STEPS_MAX,
    TEMPLATE_WORK_BYTES_MAX, functions,
};

/// The value of a command; `None` is Go's nil.
pub(super) type Result<T> = std::result::Result<T, Fault>;

pub(super) fn expand(
    nodes: &[Node],
    defined: &BTreeMap<String, Vec<Node>>,
    scope: Scope<'_>,
    bytes_max: usize,
    budget: &mut Budget,
) -> Result<Expansion> {
    let mut walk = Walk {
        defined,
        scope,
        bytes_max,
        out: Vec::new(),
        variables: vec![(String::new(), scope.data.clone())],
        budget,
        depth: 0,
        used_secret: false,
    };
    walk.list(scope.data, nodes)?;
    Ok(Expansion {
        text: walk.out.into(),
        used_secret: walk.used_secret,
    })
}

/// What a look at one variable costs.
const VARIABLE_BYTES: usize = 16;

struct Walk<'a> {
    defined: &'a BTreeMap<String, Vec<Node>>,
    scope: Scope<'a>,
    bytes_max: usize,
    out: Vec<u8>,
    variables: Vec<(String, Value)>,
    budget: &'a mut Budget,
    depth: u32,
    used_secret: bool,
}

/// How a list ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl Walk<'_> {
    fn step(&mut self, at: usize) -> Result<()> {
        let Some(left) = self.budget.steps.checked_sub(1) else {
            let text = format!(
                "more than {TEMPLATE_STEPS_MAX} steps, with the templates before it in the same \
                 spec; make the templates simpler"
            );
            return Err(Fault::new(at, text));
        };
        self.budget.steps = left;
        Ok(())
    }

    fn charge(&mut self, at: usize, bytes: usize) -> Result<()> {
        let Some(left) = self.budget.work.checked_sub(bytes) else {
            let text = format!(
                "its functions move more than {TEMPLATE_WORK_BYTES_MAX} bytes, with the templates \
                 before it in the same spec; make the templates simpler"
            );
            return Err(Fault::new(at, text));
        };
        self.budget.work = left;
        Ok(())
    }

    fn enter(&mut self, at: usize) -> Result<()> {
        self.depth += 1;
        if self.depth > TEMPLATE_DEPTH_MAX {
            let text = format!("nested more than {TEMPLATE_DEPTH_MAX} deep");
            return Err(Fault::new(at, text));
        }
        Ok(())
    }

    fn emit(&mut self, at: usize, text: &[u8]) -> Result<()> {
        self.charge(at, text.len())?;
        if self.out.len() + text.len() > self.bytes_max {
            let text = format!("the result has more than {} bytes", self.bytes_max);
            return Err(Fault::new(at, text));
        }
        self.out.extend_from_slice(text);
        Ok(())
    }

    fn list(&mut self, dot: &Value, nodes: &[Node]) -> Result<Flow> {
        let scope = self.variables.len();
        let mut flow = Flow::On;
        for node in nodes {
            flow = self.node(dot, node)?;
            if flow != Flow::On {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(flow)
    }

    fn node(&mut self, dot: &Value, node: &Node) -> Result<Flow> {
        match node {
            Node::Text(text) => self.emit(0, text)?,
            Node::Print(pipeline) => {
                let value = self.pipeline(dot, pipeline)?;
                if pipeline.variables.is_empty() {
                    self.charge(pipeline.at, value.bytes())?;
                    let mut text = Vec::new();
                    value.print(&mut text);
                    self.emit(pipeline.at, &text)?;
                }
            }
            Node::If(branch) => return self.branch(dot, branch, false),
            Node::With(branch) => return self.branch(dot, branch, true),
            Node::Range(branch) => return self.range(dot, branch),
            Node::Call { at, name, argument } => self.call(dot, *at, name, argument.as_ref())?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn branch(&mut self, dot: &Value, branch: &Branch, moves_dot: bool) -> Result<Flow> {
        self.enter(branch.pipeline.at)?;
        let scope = self.variables.len();
        let value = self.pipeline(dot, &branch.pipeline)?;
        let flow = if !value.is_true() {
            self.list(dot, &branch.otherwise)?
        } else if moves_dot {
            self.list(&value, &branch.then)?
        } else {
            self.list(dot, &branch.then)?
        };
        self.variables.truncate(scope);
        self.depth -= 1;
        Ok(flow)
    }

    fn range(&mut self, dot: &Value, branch: &Branch) -> Result<Flow> {
        let at = branch.pipeline.at;
        self.enter(at)?;
        let value = self.commands(dot, &branch.pipeline)?;
        let items: Box<dyn Iterator<Item = (Value, Value)>> = match &value {
            Value::Map(entries) => {
                let entry = |(key, value): (&String, &Value)| (key.as_str().into(), value.clone());
                Box::new(entries.iter().map(entry))
            }
            Value::Int(count) => Box::new((0..*count).map(|n| (Value::Int(n), Value::Int(n)))),
            Value::Bool(_) | Value::Float(_) | Value::Str(_) | Value::Struct(_) => {
                let text = format!("range can't iterate over {}", value.kind());
                return Err(Fault::new(at, text));
            }
        };
        let mut is_empty = true;
        let scope = self.variables.len();
        for (key, item) in items {
            is_empty = false;
            self.step(at)?;
            self.bind_item(&branch.pipeline, key, &item)?;
            let flow = self.list(&item, &branch.then)?;
            self.variables.truncate(scope);
            if flow == Flow::Break {
                break;
            }
        }
        let flow = if is_empty {
            self.list(dot, &branch.otherwise)?
        } else {
            Flow::On
        };
        self.depth -= 1;
        Ok(flow)
    }

    /// One variable gets the item, two get key and item.
    fn bind_item(&mut self, pipeline: &Pipeline, key: Value, item: &Value) -> Result<()> {
        let bound = match pipeline.variables.as_slice() {
            [] => Vec::new(),
            [one] => vec![(one, item.clone())],
            [one, two, ..] => vec![(one, key), (two, item.clone())],
        };
        for (name, value) in bound {
            self.set(pipeline.at, name, value, pipeline.assigns)?;
        }
        Ok(())
    }

    fn set(&mut self, at: usize, name: &str, value: Value, assigns: bool) -> Result<()> {
        if !assigns {
            self.variables.push((name.to_owned(), value));
            return Ok(());
        }
        let place = self.variables.iter().rposition(|(known, _)| known == name);
        if let Some(place) = place {
            self.charge_search(at, place)?;
            self.variables[place].1 = value;
        }
        Ok(())
    }

    /// Pays for the variables that were looked at, from the last one to this.
    fn charge_search(&mut self, at: usize, place: usize) -> Result<()> {
        let seen = self.variables.len() - place;
        self.charge(at, seen * VARIABLE_BYTES)
    }

    fn call(
        &mut self,
        dot: &Value,
        at: usize,
        name: &str,
        argument: Option<&Pipeline>,
    ) -> Result<()> {
        self.enter(at)?;
        self.step(at)?;
        let nodes = self
            .defined
            .get(name)
            .ok_or_else(|| Fault::new(at, format!("template {name:?} not defined")))?;
        let dot = match argument {
            Some(argument) => self.pipeline(dot, argument)?,
            // Go hands over nil, of which nothing can be read; an empty structure has no fields.
            None => Value::Struct([].into()),
        };
        let outer = std::mem::replace(&mut self.variables, vec![(String::new(), dot.clone())]);
        self.list(&dot, nodes)?;
        self.variables = outer;
        self.depth -= 1;
        Ok(())
    }

    /// The value of a pipeline; its variables are set.
    fn pipeline(&mut self, dot: &Value, pipeline: &Pipeline) -> Result<Value> {
        let value = self.commands(dot, pipeline)?;
        for name in &pipeline.variables {
            self.set(pipeline.at, name, value.clone(), pipeline.assigns)?;
        }
        Ok(value)
    }

    fn commands(&mut self, dot: &Value, pipeline: &Pipeline) -> Result<Value> {
        self.enter(pipeline.at)?;
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(dot, command, last)?);
        }
        self.depth -= 1;
        last.ok_or_else(|| Fault::new(pipeline.at, "empty pipeline"))
    }

    fn command(&mut self, dot: &Value, command: &Command, last: Option<Value>) -> Result<Value> {
        let Some((first, rest)) = command.words.split_first() else {
            return Err(Fault::new(0, "empty command"));
        };
        self.step(first.at)?;
        if let Base::Function(name) = &first.base {
            let value = self.function(dot, first.at, name, rest, last)?;
            return fields(value, first);
        }
        if !rest.is_empty() || last.is_some() {
            return Err(Fault::new(
                first.at,
                "a value that is no function cannot be given arguments",
            ));
        }
        if matches!(first.base, Base::Nil) {
            return Err(Fault::new(first.at, "nil is not a command"));
        }
        self.operand(dot, first)
    }

    fn operand(&mut self, dot: &Value, operand: &Operand) -> Result<Value> {
        let value = match &operand.base {
            Base::Dot => dot.clone(),
            Base::Constant(value) => value.clone(),
            Base::Variable(name) => {
                let place = self.variables.iter().rposition(|(known, _)| known == name);
                let undefined = || Fault::new(operand.at, format!("undefined variable ${name}"));
                let place = place.ok_or_else(undefined)?;
                self.charge_search(operand.at, place)?;
                self.variables[place].1.clone()
            }
            Base::Function(name) => self.function(dot, operand.at, name, &[], None)?,
            Base::Pipeline(pipeline) => {
                let scope = self.variables.len();
                let value = self.pipeline(dot, pipeline)?;
                self.variables.truncate(scope);
                value
            }
            Base::Nil => {
                return Err(Fault::new(operand.at, "nil is no argument of any function"));
            }
        };
        fields(value, operand)
    }

    fn function(
        &mut self,
        dot: &Value,
        at: usize,
        name: &str,
        rest: &[Operand],
        last: Option<Value>,
    ) -> Result<Value> {
        if let "and" | "or" = name {
            return self.short_circuit(dot, at, name == "or", rest, last);
        }
        let mut arguments = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            arguments.push(self.operand(dot, operand)?);
        }
        arguments.extend(last);
        self.charge(at, arguments.iter().map(Value::bytes).sum())?;
        self.used_secret |= name == "secret";
        let value = functions::call(name, &arguments, self.scope.lookup)
            .map_err(|text| Fault::new(at, format!("{name}: {text}")))?;
        self.charge(at, value.bytes())?;
        Ok(value)
    }

    /// The first argument that decides, or the last one.
    fn short_circuit(
        &mut self,
        dot: &Value,
        at: usize,
        decides: bool,
        rest: &[Operand],
        last: Option<Value>,
    ) -> Result<Value> {
        let mut value = None;
        for operand in rest {
            let this = self.operand(dot, operand)?;
            if this.is_true() == decides {
                return Ok(this);
            }
            value = Some(this);
        }
        last.or(value)
            .ok_or_else(|| Fault::new(at, "wrong number of arguments: at least 1 is needed"))
    }
}

fn fields(value: Value, operand: &Operand) -> Result<Value> {
    operand.fields.iter().try_fold(value, |value, name| {
        value
            .field(name)
            .map_err(|text| Fault::new(operand.at, text))
    })
}

/// Text of an argument, for functions that work on text.
pub(super) fn text_of(value: &Value) -> Bytes {
    match value {
        Value::Str(text) => text.clone(),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Map(_) | Value::Struct(_) => {
            let mut text = Vec::new();
            value.print(&mut text);
            text.into()
        }
    }
}
