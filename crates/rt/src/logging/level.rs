//! What an operator may say about how much to log.
//!
//! Owns the names of levels: those of Go's programs, so that a flag that worked there works here.

use std::fmt;

/// What modules that a filter does not name log at.
const OTHERWISE: &str = "info";

/// A word that is no level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelError {
    word: String,
}

impl fmt::Display for LevelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "level {:?} is not known; known are trace, debug, info, warn, warning, error, fatal \
             and panic, or a filter by module such as \"info,swarm_agent=debug\"",
            self.word
        )
    }
}

impl std::error::Error for LevelError {}

/// Returns the directives that a level or a filter by module stands for. A word that is no level
/// would be taken for a module, and everything else would be silent.
pub(super) fn directives(text: &str) -> Result<String, LevelError> {
    let mut known = Vec::new();
    let mut has_level = false;
    for part in text.split(',').map(str::trim) {
        if let Some((module, word)) = part.rsplit_once('=') {
            let level = match word.trim() {
                "off" => "off",
                word => level(word)?,
            };
            known.push(format!("{}={level}", module.trim()));
        } else {
            known.push(level(part)?.to_owned());
            has_level = true;
        }
    }
    if !has_level {
        known.insert(0, OTHERWISE.to_owned());
    }
    Ok(known.join(","))
}

fn level(word: &str) -> Result<&'static str, LevelError> {
    match word.to_ascii_lowercase().as_str() {
        "trace" => Ok("trace"),
        "debug" => Ok("debug"),
        "info" => Ok("info"),
        "warn" | "warning" => Ok("warn"),
        // What ends the process is said whatever the level.
        "error" | "fatal" | "panic" => Ok("error"),
        _ => Err(LevelError {
            word: word.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_go_are_known_in_any_case() {
        for (name, level) in [
            ("trace", "trace"),
            ("debug", "debug"),
            ("info", "info"),
            ("INFO", "info"),
            ("warn", "warn"),
            ("warning", "warn"),
            ("Warning", "warn"),
            ("error", "error"),
            ("fatal", "error"),
            ("panic", "error"),
        ] {
            assert_eq!(directives(name).as_deref(), Ok(level), "{name}");
        }
    }

    #[test]
    fn a_filter_keeps_the_others_at_their_level() {
        for (text, expected) in [
            ("warning,swarm_agent=debug", "warn,swarm_agent=debug"),
            ("swarm_agent=debug", "info,swarm_agent=debug"),
            ("info, h2=off", "info,h2=off"),
        ] {
            assert_eq!(directives(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_by_its_name() {
        for (text, word) in [
            ("wanr", "wanr"),
            ("", ""),
            ("off", "off"),
            ("3", "3"),
            ("info,swarm_agent", "swarm_agent"),
            ("swarm_agent=loud", "loud"),
            ("swarm==", ""),
        ] {
            let error = directives(text).unwrap_err();
            assert_eq!(error.word, word, "{text}");
            assert!(error.to_string().contains("warning"), "{error}");
        }
    }
}
