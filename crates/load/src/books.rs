//! Processor time and memory of a process, from the kernel's own books.

use anyhow::Context as _;

/// The unit of `/proc/PID/stat`; Linux shows hundredths of a second whatever its own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds of processor time that a process has used, user and system, all its threads.
///
/// # Errors
/// When there is no such process.
pub(crate) fn cpu(process: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{process}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    ticks(&text)
        .map(|ticks| ticks as f64 / TICKS_PER_SECOND)
        .with_context(|| format!("understand {path}"))
}

/// Bytes of memory of a process that are resident.
///
/// # Errors
/// When there is no such process.
pub(crate) fn resident(process: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{process}/status");
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    kib(&text)
        .map(|kib| kib * 1_024)
        .with_context(|| format!("understand {path}"))
}

/// The sum of fields 14 and 15. The name before them is in parentheses and may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn kib(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_are_read_whatever_the_name_of_the_process() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 900 0 0 0 12 30 0 0 20 0 5 0 99";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (a) S 1"), None);
        assert_eq!(kib("Name:\tx\nVmRSS:\t  1234 kB\n"), Some(1_234));
        assert_eq!(kib("Name:\tx\n"), None);
        let own = std::process::id();
        assert!(resident(own).unwrap() > 100_000 && cpu(own).is_ok());
    }
}
