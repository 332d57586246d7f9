//! Health checks of a spec, with Docker's defaults.

use std::time::Duration;

use swarm_api::prost_types;
use swarm_api::v1;
use swarm_types::time::duration_from_wire;

use crate::records::HealthCheck;

// Docker's defaults; zero in a spec means the default too.
const INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const START_INTERVAL_DEFAULT: Duration = Duration::from_secs(5);
const RETRIES_DEFAULT: u32 = 3;
/// Docker's smallest interval; below, the checks would be most of the work.
const INTERVAL_MIN: Duration = Duration::from_millis(1);

/// The check, or `None` when there is none.
pub(super) fn check(config: Option<&v1::HealthConfig>) -> Result<Option<HealthCheck>, String> {
    let Some(config) = config else {
        return Ok(None);
    };
    let words: Vec<&str> = config.test.iter().map(String::as_str).collect();
    let argv: Vec<String> = match words[..] {
        // An empty test means the one of the image; the node's own file system has none.
        [] | ["NONE"] => return Ok(None),
        ["CMD-SHELL", script] => vec!["/bin/sh".into(), "-c".into(), script.into()],
        ["CMD", program, ..] if !program.is_empty() => config.test[1..].to_vec(),
        _ => {
            return Err(format!(
                "healthcheck: test {words:?} is not understood; write NONE, CMD with a program \
                 and its arguments, or CMD-SHELL with one script"
            ));
        }
    };
    let retries = match config.retries {
        0 => RETRIES_DEFAULT,
        retries => u32::try_from(retries)
            .map_err(|_| format!("healthcheck: retries is {retries}; use 0 or more"))?,
    };
    Ok(Some(HealthCheck {
        argv,
        interval: duration("interval", &config.interval, INTERVAL_DEFAULT)?.max(INTERVAL_MIN),
        timeout: duration("timeout", &config.timeout, TIMEOUT_DEFAULT)?,
        retries,
        start_period: duration("start_period", &config.start_period, Duration::ZERO)?,
        start_interval: duration(
            "start_interval",
            &config.start_interval,
            START_INTERVAL_DEFAULT,
        )?
        .max(INTERVAL_MIN),
    }))
}

/// Longest duration in a health check; keeps sums of them far from overflow.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

fn duration(
    name: &str,
    wire: &Option<prost_types::Duration>,
    default: Duration,
) -> Result<Duration, String> {
    let Some(wire) = wire else { return Ok(default) };
    match duration_from_wire(wire) {
        Some(Duration::ZERO) => Ok(default),
        Some(value) if value <= DURATION_MAX => Ok(value),
        Some(_) | None => Err(format!(
            "healthcheck: {name} is {wire}; use 0 s to {DURATION_MAX:?}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(words: &[&str]) -> v1::HealthConfig {
        let test = words.iter().map(|word| (*word).to_owned()).collect();
        v1::HealthConfig {
            test,
            ..Default::default()
        }
    }

    #[test]
    fn the_three_forms_are_understood_and_get_the_defaults() {
        let check = |words: &[&str]| check(Some(&config(words))).unwrap();
        assert_eq!(check(&[]), None);
        assert_eq!(check(&["NONE"]), None);
        let program = check(&["CMD", "probe", "-v"]).unwrap();
        assert_eq!(program.argv, ["probe", "-v"]);
        assert_eq!(program.interval, Duration::from_secs(30));
        assert_eq!(program.timeout, Duration::from_secs(30));
        assert_eq!(program.retries, 3);
        assert_eq!(program.start_period, Duration::ZERO);
        let shell = check(&["CMD-SHELL", "exit 0"]).unwrap();
        assert_eq!(shell.argv, ["/bin/sh", "-c", "exit 0"]);
    }

    #[test]
    fn other_forms_and_numbers_are_refused() {
        let forms: [&[&str]; 6] = [
            &["CMD"],
            &["CMD", ""],
            &["CMD-SHELL"],
            &["CMD-SHELL", "a", "b"],
            &["x"],
            &["NONE", "x"],
        ];
        for words in forms {
            assert!(check(Some(&config(words))).is_err(), "{words:?}");
        }
        let retries = v1::HealthConfig {
            retries: -1,
            ..config(&["CMD", "x"])
        };
        assert!(check(Some(&retries)).unwrap_err().contains("retries is -1"));
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let negative = v1::HealthConfig {
            interval: seconds(-1),
            ..config(&["CMD", "x"])
        };
        assert!(check(Some(&negative)).unwrap_err().contains("interval"));
        let huge = v1::HealthConfig {
            timeout: seconds(i64::MAX),
            ..config(&["CMD", "x"])
        };
        assert!(check(Some(&huge)).is_err());
    }
}
