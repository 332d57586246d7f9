//! How many files this process may have open, and what is done when it has them.
//!
//! A socket is a file as well, so whoever may open connections can use all of them up. Listeners
//! size what they admit by [`limit`]; what has to be opened all the same, whatever else goes on,
//! has a [`Spare`].

use std::fs::File;
use std::io;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// More files than this are not asked for: twice what the most connections need, and what a system
/// grants by default.
const FILES_MAX: u64 = 1 << 20;
/// Fewer are not enough for a node without any connection.
pub const FILES_MIN: u64 = 128;
/// Opens at any time, and costs nothing but its number.
const NOTHING: &str = "/dev/null";

/// The limit on open files before and after [`raise`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raised {
    /// What the process was started with, which is what programs that it starts expect.
    pub before: u64,
    /// What it has.
    pub now: u64,
}

/// Raises the limit as far as the system lets this process do it. Whoever comes later is told what
/// was before the first time.
///
/// # Errors
/// When the system does not tell the limit.
pub fn raise() -> io::Result<Raised> {
    static BEFORE: OnceLock<u64> = OnceLock::new();
    let (before, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let before = *BEFORE.get_or_init(|| before);
    let wanted = most.min(FILES_MAX).max(before);
    // A system that does not grant what it promises leaves the process with what it has.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, most);
    let (now, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(Raised { before, now })
}

/// Sets the limit back to what programs expect that this process is about to become or start.
///
/// # Errors
/// When the system refuses, which it does for more than the most.
pub fn lower(limit: u64) -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, limit.min(most), most)?)
}

/// How many files this process may have open.
pub fn limit() -> u64 {
    // Fails only for a resource that does not exist; nothing is admitted by it then.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(FILES_MIN, |(soft, _)| soft)
}

/// How many it has open, if the system tells.
pub fn open() -> Option<u64> {
    let directory = "/proc/self/fd";
    // Newer systems say it without making a list.
    let told = std::fs::metadata(directory).ok()?.len();
    if told > 0 {
        return Some(told);
    }
    let count = std::fs::read_dir(directory).ok()?.count();
    // Without the one of the list itself.
    u64::try_from(count).ok()?.checked_sub(1)
}

/// Whether a call failed because the process, or the machine, has as many files open as it may.
pub fn is_exhausted(error: &io::Error) -> bool {
    [Errno::EMFILE, Errno::ENFILE]
        .iter()
        .any(|it| error.raw_os_error() == Some(*it as i32))
}

/// A failure with the way out, if it is one of too many files.
pub fn in_words(error: &io::Error) -> String {
    if is_exhausted(error) {
        format!(
            "{error}: this process may have {} files open, and connections and tasks have taken \
             them; raise its limit (ulimit -n, LimitNOFILE=)",
            limit()
        )
    } else {
        error.to_string()
    }
}

/// A file that is kept for when no other can be opened. Its owner opens one at a time.
#[derive(Debug)]
pub struct Spare {
    held: Option<File>,
}

impl Default for Spare {
    fn default() -> Self {
        Self::new()
    }
}

impl Spare {
    /// Takes a file into reserve, if there is one.
    pub fn new() -> Self {
        let mut spare = Self { held: None };
        spare.refill();
        spare
    }

    /// Opens something, at the expense of the reserve if need be.
    ///
    /// # Errors
    /// Those of the attempt.
    pub fn open<T>(&mut self, mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        self.refill();
        match attempt() {
            Err(error) if is_exhausted(&error) && self.held.take().is_some() => attempt(),
            result => result,
        }
    }

    /// Replaces what was given away, as soon as that is possible.
    pub fn refill(&mut self) {
        if self.held.is_none() {
            self.held = File::open(NOTHING).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exhausted() -> io::Error {
        io::Error::from_raw_os_error(Errno::EMFILE as i32)
    }

    #[test]
    fn the_spare_is_given_away_once_and_replaced_when_there_is_one_again() {
        let mut spare = Spare::new();
        assert!(spare.held.is_some());
        let mut attempts = 0;
        let opened = spare.open(|| {
            attempts += 1;
            if attempts == 1 {
                Err(exhausted())
            } else {
                Ok(attempts)
            }
        });
        assert_eq!(opened.unwrap(), 2);
        assert!(spare.held.is_none());
        // It is whole again before the next attempt, and a failure of another kind leaves it so.
        let error = spare
            .open(|| Err::<(), _>(io::ErrorKind::NotFound.into()))
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(spare.held.is_some());
        let error = spare.open(|| Err::<(), _>(exhausted())).unwrap_err();
        assert!(is_exhausted(&error) && spare.held.is_none());
    }

    #[test]
    fn running_out_is_said_with_the_limit_and_the_way_out() {
        let words = in_words(&exhausted());
        assert!(words.contains(&limit().to_string()), "{words}");
        assert!(words.contains("ulimit -n"), "{words}");
        let other = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(in_words(&other), other.to_string());
    }

    #[test]
    fn the_limit_goes_up_and_files_are_counted() {
        let raised = raise().unwrap();
        assert_eq!(raise().unwrap(), raised);
        assert!(raised.now >= raised.before && raised.now == limit());
        let open = open().unwrap();
        assert!(open > 2 && open < limit(), "{open}");
    }
}
