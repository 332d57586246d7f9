//! Stop signals by name and number, as Docker takes them on Linux.

/// The greatest number of a signal, `SIGRTMAX`.
pub const SIGNAL_MAX: i32 = 64;
/// `SIGRTMIN` as programs see it: the C library keeps the two before it.
const RT_MIN: i32 = 34;
const SIGTERM: i32 = 15;

/// From signal(7), for the architectures that we run on.
const NAMES: [(&str, i32); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", SIGTERM),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The number of a stop signal: by name with or without `SIG`, in any case; `RTMIN+n` and
/// `RTMAX-n`; or by number. None given is `SIGTERM`.
///
/// # Errors
/// There is no such signal.
pub fn stop_signal(text: &str) -> Result<i32, String> {
    if text.is_empty() {
        return Ok(SIGTERM);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = match name.parse::<i32>() {
        // Only plain digits: a sign belongs to a name.
        Ok(number) if text.bytes().all(|byte| byte.is_ascii_digit()) => Some(number),
        Ok(_) | Err(_) => by_name(name),
    };
    number
        .filter(|number| (1..=SIGNAL_MAX).contains(number))
        .ok_or_else(|| {
            format!(
                "stop_signal: there is no signal {text:?}; use a name like SIGTERM or SIGRTMIN+3, \
                 or a number from 1 to {SIGNAL_MAX}"
            )
        })
}

fn by_name(name: &str) -> Option<i32> {
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let offset = |digits: &str| {
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse::<i32>().ok().filter(|_| is_plain)
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(""), _) => RT_MIN,
        (_, Some("")) => SIGNAL_MAX,
        (Some(rest), _) => RT_MIN.checked_add(offset(rest.strip_prefix('+')?)?)?,
        (_, Some(rest)) => SIGNAL_MAX.checked_sub(offset(rest.strip_prefix('-')?)?)?,
        (None, None) => return None,
    };
    (RT_MIN..=SIGNAL_MAX).contains(&number).then_some(number)
}
