//! The script of a fake task, read from the task's own spec.
//!
//! Every label of the container and every word of its command and arguments that begins with
//! `fake.` is a setting `key=value`; arguments win over labels. Durations are a number with `ms` or
//! `s`.
//!
//! | Setting | Meaning | Default |
//! |---|---|---|
//! | `fake.prepare=200ms` | how long preparing takes | 10 ms |
//! | `fake.start=1s` | how long starting takes | 10 ms |
//! | `fake.stop=2s` | how long a shutdown takes | 10 ms |
//! | `fake.run=5s` | how long the task runs | for ever |
//! | `fake.jitter=50ms` | up to this much is added to each of the above | none |
//! | `fake.exit=1` | the exit code after `fake.run` | 0 |
//! | `fake.oom=true` | the task ends by its memory limit, code 137 | false |
//! | `fake.reject=reason` | preparing fails for good | |
//! | `fake.fail=start` or `start:25` | the operation fails for good, always or in 25 % | |
//! | `fake.hang=start` or `start:25` | the operation never ends, always or in 25 % | |
//! | `fake.temporary=prepare:3` | the first 3 attempts fail with passing trouble | |
//! | `fake.line-every=100ms` | writes a line at the start, and again each such time | none |

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_api::v1;
use swarm_api::v1::task_spec::Runtime;
use thiserror::Error;

use crate::contract::Operation;

/// How long an operation takes when the script does not say.
const STEP_DEFAULT: Duration = Duration::from_millis(10);
const PREFIX: &str = "fake.";

/// What a fake task does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// How long preparing takes.
    pub prepare: Duration,
    /// How long starting takes.
    pub start: Duration,
    /// How long a shutdown takes.
    pub stop: Duration,
    /// How long the task runs; `None` for ever.
    pub run: Option<Duration>,
    /// The largest random addition to each duration.
    pub jitter: Duration,
    /// The exit code when it ends by itself.
    pub exit: i32,
    /// Whether it ends by its memory limit.
    pub oom: bool,
    /// Why preparing fails, if it does.
    pub reject: Option<String>,
    /// Percent of attempts at each operation that fail for good.
    pub fail: BTreeMap<Operation, u8>,
    /// Percent of attempts at each operation that never end.
    pub hang: BTreeMap<Operation, u8>,
    /// How many first attempts at each operation fail with passing trouble.
    pub temporary: BTreeMap<Operation, u32>,
    /// The time between two lines of output; never zero.
    pub line_every: Option<Duration>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            prepare: STEP_DEFAULT,
            start: STEP_DEFAULT,
            stop: STEP_DEFAULT,
            run: None,
            jitter: Duration::ZERO,
            exit: 0,
            oom: false,
            reject: None,
            fail: BTreeMap::new(),
            hang: BTreeMap::new(),
            temporary: BTreeMap::new(),
            line_every: None,
        }
    }
}

/// A setting that cannot be read. The fake task is rejected with this text.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("fake setting {setting:?} is not understood: {expected}")]
pub struct ScriptError {
    /// The setting as it was found.
    pub setting: String,
    /// What would be right.
    pub expected: &'static str,
}

impl Script {
    /// Reads the script from a task's spec. A spec without settings gives a task that runs for
    /// ever.
    ///
    /// # Errors
    /// [`ScriptError`] for the first setting that is not understood.
    pub fn from_spec(spec: &v1::TaskSpec) -> Result<Self, ScriptError> {
        let mut script = Self::default();
        let Some(Runtime::Container(container)) = &spec.runtime else {
            return Ok(script);
        };
        for (key, value) in &container.labels {
            script.apply_word(&format!("{key}={value}"))?;
        }
        for word in container.command.iter().chain(&container.args) {
            script.apply_word(word)?;
        }
        Ok(script)
    }

    fn apply_word(&mut self, word: &str) -> Result<(), ScriptError> {
        let Some(setting) = word.strip_prefix(PREFIX) else {
            return Ok(());
        };
        let refuse = |expected| ScriptError {
            setting: word.to_owned(),
            expected,
        };
        let (key, value) = setting
            .split_once('=')
            .ok_or_else(|| refuse("write fake.<key>=<value>"))?;
        self.apply(key, value).map_err(refuse)
    }

    fn apply(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        match key {
            "prepare" => self.prepare = duration(value)?,
            "start" => self.start = duration(value)?,
            "stop" => self.stop = duration(value)?,
            "run" => self.run = Some(duration(value)?),
            "jitter" => self.jitter = duration(value)?,
            "exit" => self.exit = value.parse().map_err(|_| "an exit code is a number")?,
            "oom" => self.oom = value.parse().map_err(|_| "write true or false")?,
            "reject" => self.reject = Some(value.to_owned()),
            "fail" => insert_chance(&mut self.fail, value)?,
            "hang" => insert_chance(&mut self.hang, value)?,
            "line-every" => match duration(value)? {
                Duration::ZERO => return Err("the time between lines is above zero"),
                pause => self.line_every = Some(pause),
            },
            "temporary" => {
                let (name, count) = value
                    .split_once(':')
                    .ok_or("write <operation>:<attempts>")?;
                let count = count.parse().map_err(|_| "the attempts are a number")?;
                self.temporary.insert(operation(name)?, count);
            }
            _ => return Err("see swarm_executor::fake for the known keys"),
        }
        Ok(())
    }
}

fn insert_chance(chances: &mut BTreeMap<Operation, u8>, value: &str) -> Result<(), &'static str> {
    let (name, percent) = value.split_once(':').unwrap_or((value, "100"));
    let percent: u8 = percent.parse().map_err(|_| "the chance is 0 to 100")?;
    if percent > 100 {
        return Err("the chance is 0 to 100");
    }
    chances.insert(operation(name)?, percent);
    Ok(())
}

fn operation(name: &str) -> Result<Operation, &'static str> {
    Operation::from_name(name).ok_or("no operation has this name")
}

fn duration(text: &str) -> Result<Duration, &'static str> {
    const EXPECTED: &str = "a duration is a whole number with ms or s";
    if let Some(number) = text.strip_suffix("ms") {
        return number
            .parse()
            .map(Duration::from_millis)
            .map_err(|_| EXPECTED);
    }
    let number = text.strip_suffix('s').ok_or(EXPECTED)?;
    number
        .parse()
        .map(Duration::from_secs)
        .map_err(|_| EXPECTED)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A container spec with these words as its arguments.
    pub(crate) fn spec(words: &[&str]) -> v1::TaskSpec {
        let args = words.iter().map(|word| (*word).to_owned()).collect();
        let container = v1::ContainerSpec {
            args,
            ..Default::default()
        };
        v1::TaskSpec {
            runtime: Some(Runtime::Container(container)),
            ..Default::default()
        }
    }

    #[test]
    fn settings_come_from_labels_and_arguments_win() {
        let mut spec = spec(&["serve", "fake.run=5s", "fake.exit=3", "fake.hang=start"]);
        let Some(Runtime::Container(container)) = &mut spec.runtime else {
            unreachable!()
        };
        container.labels.insert("fake.run".into(), "1s".into());
        container.labels.insert("fake.stop".into(), "7ms".into());
        container.labels.insert("other".into(), "x".into());
        let script = Script::from_spec(&spec).unwrap();
        assert_eq!(script.run, Some(Duration::from_secs(5)));
        assert_eq!(script.stop, Duration::from_millis(7));
        assert_eq!(script.exit, 3);
        assert_eq!(script.hang, BTreeMap::from([(Operation::Start, 100)]));
        assert_eq!(script.prepare, STEP_DEFAULT);
    }

    #[test]
    fn settings_that_are_not_understood_are_refused_with_their_text() {
        for word in [
            "fake.run",
            "fake.run=5",
            "fake.run=-1s",
            "fake.nap=1s",
            "fake.fail=start:101",
            "fake.fail=lunch",
            "fake.temporary=start",
            "fake.exit=one",
            "fake.oom=maybe",
            "fake.line-every=0s",
        ] {
            let error = Script::from_spec(&spec(&[word])).unwrap_err();
            assert_eq!(error.setting, word);
        }
        assert!(Script::from_spec(&spec(&["fake.fail=start:100"])).is_ok());
    }
}
