//! Where the unlock key of a manager comes from, and how that of a new cluster is shown.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::Path;

use anyhow::Context as _;
use swarm_ca::keyfile::Kek;
use swarm_ca::unlock;
use swarm_node::Locking;

use crate::args;

/// The longest file that may hold a key. A key has 52 characters.
const FILE_BYTES_MAX: u64 = 4096;

/// Reads the key that was given, if one was.
///
/// # Errors
/// A file that cannot be read, or what is no key. The text itself is not in the error.
pub(crate) fn read(args: &args::Locking) -> anyhow::Result<Locking> {
    let unlock_key = match (&args.unlock_key, &args.unlock_key_file) {
        (Some(text), _) => Some(parse(&text.0, "--unlock-key, or SWARM_UNLOCK_KEY")?),
        (None, Some(path)) => Some(read_file(path)?),
        (None, None) => None,
    };
    Ok(Locking {
        autolock: args.autolock,
        show: args.autolock.then_some(show),
        unlock_key,
    })
}

fn parse(text: &str, source: &str) -> anyhow::Result<Kek> {
    unlock::parse(text).with_context(|| source.to_owned())
}

fn read_file(path: &Path) -> anyhow::Result<Kek> {
    let source = format!("--unlock-key-file {}", path.display());
    let text = if path == Path::new("-") {
        bounded(io::stdin().lock())
    } else {
        File::open(path).and_then(bounded)
    };
    parse(&text.with_context(|| source.clone())?, &source)
}

fn bounded(from: impl Read) -> io::Result<String> {
    let mut text = String::new();
    from.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Prints the key on the standard output, where no log line is.
fn show(key: &str) {
    let mut out = io::stdout().lock();
    let text = format!(
        "The managers of this cluster are locked: one that starts again needs the unlock key\n\
         \n    {key}\n\nKeep it in another place than this machine. It is printed this once; as \
         long as a manager runs, `swarmctl cluster unlock-key` shows it as well.\n"
    );
    if out
        .write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        tracing::warn!(
            "the unlock key of the new cluster could not be printed; get it with `swarmctl cluster \
             unlock-key` before this manager stops"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "SWMKEY-1-kMN9lUlKK4saDRS24+tkiMK6y6u1U4KjbW5AuS5YZVw";

    fn from_file(path: &Path) -> anyhow::Result<Locking> {
        read(&args::Locking {
            unlock_key_file: Some(path.to_owned()),
            ..Default::default()
        })
    }

    #[test]
    fn a_key_is_read_from_its_place_and_never_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, format!("{KEY}\n")).unwrap();
        let expected = unlock::parse(KEY).unwrap();
        assert_eq!(from_file(&path).unwrap().unlock_key, Some(expected.clone()));
        let given = args::Locking {
            unlock_key: Some(KEY.into()),
            ..Default::default()
        };
        assert_eq!(read(&given).unwrap().unlock_key, Some(expected));
        assert_eq!(read(&args::Locking::default()).unwrap().unlock_key, None);

        std::fs::write(&path, &KEY[..40]).unwrap();
        let error = format!("{:#}", from_file(&path).unwrap_err());
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(
            error.contains("SWMKEY-1-") && !error.contains("kMN9"),
            "{error}"
        );
        std::fs::remove_file(&path).unwrap();
        let error = format!("{:#}", from_file(&path).unwrap_err());
        assert!(error.contains("No such file"), "{error}");
    }
}
