//! Child processes: how they are described, started and judged.
//!
//! Owns the environment that cargo hands to us and that a nested cargo must not see. Does not
//! decide what to run.

use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead as _, BufReader, Read};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use anyhow::Context as _;

/// A command line which knows how to print itself for a person to repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Child {
    program: String,
    args: Vec<String>,
    envs: Vec<(String, String)>,
}

/// Which output of the child is read as well as shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watched {
    Stdout,
    Stderr,
}

impl Child {
    pub(crate) fn cargo<'a>(args: impl IntoIterator<Item = &'a str>) -> Child {
        Child {
            program: String::from("cargo"),
            args: Vec::new(),
            envs: Vec::new(),
        }
        .args(args)
    }

    pub(crate) fn args<S: AsRef<str>>(mut self, args: impl IntoIterator<Item = S>) -> Child {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Child {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs with our terminal.
    pub(crate) fn status(&self) -> anyhow::Result<ExitStatus> {
        self.command()
            .status()
            .with_context(|| format!("start `{self}`"))
    }

    /// Runs with our terminal and turns the child's end into ours.
    pub(crate) fn exit_code(&self) -> anyhow::Result<ExitCode> {
        Ok(ExitCode::from(code_of(self.status()?)))
    }

    /// Runs, shows what the child writes and hands each line of `watched` to `line`.
    pub(crate) fn watch(
        &self,
        watched: Watched,
        mut line: impl FnMut(&str),
    ) -> anyhow::Result<ExitStatus> {
        let mut command = self.command();
        match watched {
            Watched::Stdout => command.stdout(Stdio::piped()),
            Watched::Stderr => command.stderr(Stdio::piped()),
        };
        let mut running = command.spawn().with_context(|| format!("start `{self}`"))?;
        let pipe: Option<Box<dyn Read>> = match watched {
            Watched::Stdout => running.stdout.take().map(|pipe| Box::new(pipe) as _),
            Watched::Stderr => running.stderr.take().map(|pipe| Box::new(pipe) as _),
        };
        let mut reader = BufReader::new(pipe.expect("the pipe was asked for above"));
        let mut bytes = Vec::new();
        while reader
            .read_until(b'\n', &mut bytes)
            .with_context(|| format!("read `{self}`"))?
            > 0
        {
            let text = String::from_utf8_lossy(&bytes);
            match watched {
                Watched::Stdout => print!("{text}"),
                Watched::Stderr => eprint!("{text}"),
            }
            line(text.trim_end());
            bytes.clear();
        }
        running.wait().with_context(|| format!("wait for `{self}`"))
    }

    /// Runs in silence and says whether it could be started and succeeded.
    pub(crate) fn succeeds(&self) -> bool {
        let status = self
            .command()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        status.is_ok_and(|status| status.success())
    }

    fn command(&self) -> Command {
        let mut command = match self.program.as_str() {
            // The very cargo that runs us, not another one from the path.
            "cargo" => Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())),
            program => Command::new(program),
        };
        for name in std::env::vars_os()
            .map(|(name, _)| name)
            .filter(describes_this_package)
        {
            command.env_remove(name);
        }
        command
            .args(&self.args)
            .envs(self.envs.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.envs {
            write!(f, "{name}={} ", quoted(value))?;
        }
        f.write_str(&self.program)?;
        self.args
            .iter()
            .try_for_each(|arg| write!(f, " {}", quoted(arg)))
    }
}

/// The exit code of a shell: what the child said, or 128 and the signal that ended it.
fn code_of(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| signal + 128));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// Cargo tells a program which package it is. A nested cargo would pass that on to build scripts
/// which watch it, and rebuild them each time the two ways of starting alternate.
fn describes_this_package(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Child {
        Child {
            program: String::from("sh"),
            args: Vec::new(),
            envs: Vec::new(),
        }
        .args(["-c", script])
    }

    #[test]
    fn prints_as_it_would_be_typed() {
        let child = Child::cargo(["doc", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(
            child.to_string(),
            "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps"
        );
        assert_eq!(
            Child::cargo(["x", "", "it's"]).to_string(),
            r"cargo x '' 'it'\''s'"
        );
    }

    #[test]
    fn passes_on_the_code_and_the_signal() {
        let check = |script: &str, expected: u8| {
            assert_eq!(
                code_of(shell(script).status().unwrap()),
                expected,
                "{script}"
            );
        };
        check("exit 0", 0);
        check("exit 7", 7);
        check("kill -9 $$", 137);
    }

    #[test]
    fn watches_one_output_only() {
        let check = |watched: Watched, expected: &str| {
            let mut seen = Vec::new();
            let script = shell("echo out; echo err >&2");
            let status = script
                .watch(watched, |line| seen.push(line.to_owned()))
                .unwrap();
            assert!(status.success());
            assert_eq!(seen, [expected]);
        };
        check(Watched::Stdout, "out");
        check(Watched::Stderr, "err");
    }

    #[test]
    fn forgets_which_package_started_it() {
        let check = |name: &str, expected: bool| {
            assert_eq!(describes_this_package(&name.into()), expected, "{name}");
        };
        check("CARGO_PKG_NAME", true);
        check("CARGO_MANIFEST_DIR", true);
        check("CARGO_HOME", false);
        check("CARGO", false);
    }

    #[test]
    fn missing_program_is_a_plain_failure() {
        let child = Child {
            program: String::from("no-such-program-here"),
            args: Vec::new(),
            envs: Vec::new(),
        };
        assert!(!child.succeeds());
        let error = child.status().unwrap_err();
        assert_eq!(error.to_string(), "start `no-such-program-here`");
    }
}
