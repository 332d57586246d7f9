//! Whether the path of a Unix socket is short enough.
//!
//! The address of a socket has room for little more than a hundred bytes. A path that is longer is
//! refused where it was chosen, with a shorter one, and not where the system finds out.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Longest path of a Unix socket, in bytes: `sun_path` of Linux without the zero at its end.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Where the proposals are. Every system has it, and it is empty after a start.
const SHORT_DIRECTORY: &str = "/run";

/// A path that no socket can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} {path:?} has {bytes} bytes, and the path of a Unix socket at most \
    {SOCKET_PATH_BYTES_MAX}; choose a shorter one, for example {proposal}"
)]
pub struct SocketPathTooLong {
    what: String,
    path: PathBuf,
    bytes: usize,
    proposal: String,
}

/// Checks the path of a socket that a flag has.
///
/// # Errors
/// When it is too long, with a path that is not.
pub fn check(flag: &str, path: &Path) -> Result<(), SocketPathTooLong> {
    check_or(flag, path, || format!("{flag} {}", shorter(path).display()))
}

/// Checks the path of a socket: `what` it is, and the proposal if it is too long.
///
/// # Errors
/// When it is too long.
pub fn check_or(
    what: &str,
    path: &Path,
    proposal: impl FnOnce() -> String,
) -> Result<(), SocketPathTooLong> {
    let bytes = path.as_os_str().as_bytes().len();
    if bytes <= SOCKET_PATH_BYTES_MAX {
        return Ok(());
    }
    Err(SocketPathTooLong {
        what: what.to_owned(),
        path: path.to_owned(),
        bytes,
        proposal: proposal(),
    })
}

/// The same name at a place that is short, or the usual one.
fn shorter(path: &Path) -> PathBuf {
    let usual = Path::new(SHORT_DIRECTORY).join("swarmd.sock");
    let name = path.file_name();
    let name = name.map(|name| Path::new(SHORT_DIRECTORY).join(name));
    let shorter = name.filter(|path| path.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX);
    shorter.unwrap_or(usual)
}

/// Checks a directory in which others make sockets: one with a name of a letter must fit.
///
/// # Errors
/// When none does.
pub fn check_directory(flag: &str, path: &Path) -> Result<(), SocketPathTooLong> {
    check_or(&format!("a socket in {flag}"), &path.join("x.sock"), || {
        format!("{flag} {SHORT_DIRECTORY}/swarmd-plugins")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An absolute path of so many bytes that ends in `/s.sock`.
    fn path(bytes: usize) -> PathBuf {
        let path = format!("/{}/s.sock", "d".repeat(bytes - 8));
        assert_eq!(path.len(), bytes);
        path.into()
    }

    #[test]
    fn the_limit_is_the_one_of_the_system() {
        let name = format!("swarm-socket-path-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let base = directory.as_os_str().len() + 1;
        for (bytes, fits) in [
            (SOCKET_PATH_BYTES_MAX, true),
            (SOCKET_PATH_BYTES_MAX + 1, false),
        ] {
            let path = directory.join("s".repeat(bytes - base));
            assert_eq!(check("--socket", &path).is_ok(), fits, "{bytes}");
            let bound = std::os::unix::net::UnixListener::bind(&path);
            assert_eq!(bound.is_ok(), fits, "{bytes}: {bound:?}");
        }
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_too_long_is_told_with_limit_length_and_a_proposal_that_fits() {
        let error = check("--listen-control-api", &path(131)).unwrap_err();
        let text = error.to_string();
        for part in [
            "131 bytes",
            "at most 107",
            "--listen-control-api /run/s.sock",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let name: PathBuf = "n".repeat(200).into();
        let text = check("--socket", &name).unwrap_err().to_string();
        assert!(text.ends_with("--socket /run/swarmd.sock"), "{text}");
    }

    #[test]
    fn a_directory_has_to_leave_room_for_a_name() {
        let of = |bytes: usize| PathBuf::from(format!("/{}", "d".repeat(bytes - 1)));
        assert_eq!(check_directory("--plugins-dir", &of(100)), Ok(()));
        let error = check_directory("--plugins-dir", &of(101)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("a socket in --plugins-dir"), "{text}");
        assert!(text.contains("108 bytes"), "{text}");
        assert!(
            text.ends_with("--plugins-dir /run/swarmd-plugins"),
            "{text}"
        );
    }
}
