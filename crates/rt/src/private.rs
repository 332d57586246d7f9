//! Files and directories that belong to this user alone, whatever the umask and whoever made the
//! directory before.
//!
//! Owns how they are made and opened. What is in them belongs to others.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown,
};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::unistd::{getegid, geteuid};

/// Nobody but the owner may look into such a directory.
const DIRECTORY_MODE: u32 = 0o700;
/// Nobody but the owner may read such a file.
const FILE_MODE: u32 = 0o600;
/// What group and others must not have.
const OTHERS: u32 = 0o077;
/// The part of a mode that says who may do what.
const PERMISSIONS: u32 = 0o7777;

/// Makes a directory that only this user may enter. One that is there already is made so; the path
/// itself may be a symbolic link to it.
///
/// # Errors
/// When it belongs to somebody else or cannot be changed, in words; or what the system said.
pub fn directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(DIRECTORY_MODE).create(path)?;
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_DIRECTORY.bits())
        .open(path)?;
    take(path, &directory)
}

/// The same for a directory inside a private one, where nothing is a symbolic link.
///
/// # Errors
/// The same, and when it is a symbolic link.
pub fn subdirectory(path: &Path) -> io::Result<()> {
    let found = std::fs::symlink_metadata(path);
    if found.is_ok_and(|found| found.file_type().is_symlink()) {
        return Err(link());
    }
    directory(path)
}

/// Options for a file that only this user may read, and that is not opened if it is a symbolic
/// link. A file that is made gets its mode whatever the umask; [`open`] takes care of one that is
/// there.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options
        .mode(FILE_MODE)
        .custom_flags(OFlag::O_NOFOLLOW.bits());
    options
}

/// Opens a file with options of [`options`], and makes one that others could read private.
///
/// # Errors
/// What the system said; that it is a symbolic link, in words.
pub fn open(path: &Path, options: &OpenOptions) -> io::Result<File> {
    let file = options.open(path).map_err(|error| {
        let is_link = error.raw_os_error() == Some(nix::errno::Errno::ELOOP as i32);
        if is_link { link() } else { error }
    })?;
    keep(&file)?;
    Ok(file)
}

/// Takes a file from group and others, if they could read or write it.
fn keep(file: &File) -> io::Result<()> {
    let found = file.metadata()?;
    if found.is_file() && found.mode() & OTHERS != 0 {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(())
}

fn link() -> io::Error {
    let text = "it is a symbolic link, and none is followed here; move it away";
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// Makes an open directory private.
fn take(path: &Path, directory: &File) -> io::Result<()> {
    let found = directory.metadata()?;
    let (owner, own) = (found.uid(), geteuid());
    if owner != own.as_raw() {
        let taken = fchown(directory, Some(own.as_raw()), Some(getegid().as_raw()));
        taken.map_err(|error| {
            let text = format!(
                "it belongs to user {owner}, and this is user {own}: give it to this user, or \
                 choose another directory ({error})"
            );
            io::Error::new(io::ErrorKind::PermissionDenied, text)
        })?;
        tracing::warn!(path = %path.display(), owner, "took a directory that belonged to another");
    }
    let mode = found.mode() & PERMISSIONS;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    let closed = directory.set_permissions(Permissions::from_mode(DIRECTORY_MODE));
    closed.map_err(|error| {
        let text = format!(
            "others may enter it (mode {mode:04o}), and that cannot be changed: make it 0700, or \
             choose another directory ({error})"
        );
        io::Error::new(io::ErrorKind::PermissionDenied, text)
    })?;
    let mode = format!("{mode:04o}");
    let path = path.display();
    tracing::warn!(%path, mode, "made a directory private that others could enter");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & PERMISSIONS
    }

    fn scratch(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("swarm-rt-{name}-{}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn a_directory_that_others_could_enter_is_made_private() {
        let base = scratch("private-dir");
        let open = base.join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        let linked = base.join("linked");
        symlink(&open, &linked).unwrap();
        directory(&linked).unwrap();
        assert_eq!(mode(&open), 0o700);
        let fresh = base.join("a/b");
        directory(&fresh).unwrap();
        assert_eq!(mode(&fresh), 0o700);
        let error = subdirectory(&linked).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        std::fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn a_file_is_private_and_never_behind_a_link() {
        let base = scratch("private-file");
        let (target, link) = (base.join("target"), base.join("link"));
        std::fs::write(&target, "precious").unwrap();
        std::fs::set_permissions(&target, Permissions::from_mode(0o666)).unwrap();
        symlink(&target, &link).unwrap();
        let mut writing = options();
        writing.write(true).create(true).truncate(true);
        let error = open(&link, &writing).unwrap_err().to_string();
        assert!(error.contains("symbolic link"), "{error}");
        assert_eq!(std::fs::read(&target).unwrap(), b"precious");
        open(&target, &writing).unwrap();
        assert_eq!(mode(&target), 0o600);
        // A link that leads nowhere would be a file in a place that somebody else chose.
        std::fs::remove_file(&target).unwrap();
        open(&link, &writing).unwrap_err();
        assert!(!target.exists());
        std::fs::remove_dir_all(&base).unwrap();
    }
}
