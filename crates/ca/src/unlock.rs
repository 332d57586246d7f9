//! The key that unlocks managers: how people write it, and when one replaces another (spec 2.7).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use swarm_types::IdSource;
use zeroize::Zeroizing;

use crate::keyfile::Kek;
use crate::tokens;

/// Bytes of an unlock key.
pub const KEY_BYTES: usize = 32;
/// What the written form begins with; the number is its version.
pub const PREFIX: &str = "SWMKEY-1-";

/// A text that is no unlock key. The text itself is not repeated: it may be one with a slip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid unlock key: one is `{PREFIX}` and 43 letters, digits, `+` or `/`")]
pub struct NoUnlockKey;

/// Reads the form that people copy; white space around it does not count.
///
/// # Errors
/// [`NoUnlockKey`].
pub fn parse(text: &str) -> Result<Kek, NoUnlockKey> {
    let secret = text.trim().strip_prefix(PREFIX).ok_or(NoUnlockKey)?;
    let bytes = STANDARD_NO_PAD.decode(secret).map_err(|_| NoUnlockKey)?;
    if bytes.len() != KEY_BYTES {
        return Err(NoUnlockKey);
    }
    Ok(Kek::new(bytes))
}

/// The form that people copy.
pub fn human(key: &Kek) -> Zeroizing<String> {
    Zeroizing::new(format!("{PREFIX}{}", STANDARD_NO_PAD.encode(key.bytes())))
}

/// A new key from 256 random bits.
pub fn draw(ids: &mut dyn IdSource) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    for half in key.chunks_mut(KEY_BYTES / 2) {
        half.copy_from_slice(&tokens::secret(ids));
    }
    key
}

/// What a key file is sealed under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    /// The key; `None` leaves the file open.
    pub kek: Option<Kek>,
    /// The version of the cluster object that the key is from.
    pub version: u64,
}

/// Two different keys of the same version of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the key file is sealed under another unlock key of the same version {0} of the cluster: it \
     belongs to another cluster, or was changed by hand"
)]
pub struct Conflict(pub u64);

impl Seal {
    /// Whether the key that the cluster wants takes the place of this one.
    ///
    /// # Errors
    /// [`Conflict`]; then nothing is to be written.
    pub fn yields_to(&self, wanted: &Self) -> Result<bool, Conflict> {
        if self.kek == wanted.kek {
            return Ok(false);
        }
        if self.version == wanted.version {
            return Err(Conflict(self.version));
        }
        Ok(wanted.version > self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_written_form_is_that_of_swarmkit() {
        let text = "SWMKEY-1-kMN9lUlKK4saDRS24+tkiMK6y6u1U4KjbW5AuS5YZVw";
        let key = parse(&format!("  {text}\n")).unwrap();
        assert_eq!(*human(&key), text);
        for wrong in [
            "",
            "SWMKEY-1-",
            "kMN9lUlKK4saDRS24+tkiMK6y6u1U4KjbW5AuS5YZVw",
            "SWMKEY-2-kMN9lUlKK4saDRS24+tkiMK6y6u1U4KjbW5AuS5YZVw",
            "SWMKEY-1-kMN9lUlKK4saDRS24+tkiMK6y6u1U4KjbW5AuS5YZV",
            "SWMKEY-1-kMN9lUlKK4saDRS24+tkiMK6y6u1U4KjbW5AuS5YZVw=",
            "SWMKEY-1-kMN9lUlKK4saDRS24_tkiMK6y6u1U4KjbW5AuS5YZVw",
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(!error.to_string().contains("kMN9"), "{error}");
        }
    }

    #[test]
    fn a_key_yields_to_another_one_of_a_later_version_only() {
        let seal = |byte: Option<u8>, version| Seal {
            kek: byte.map(|byte| Kek::new(vec![byte; 32])),
            version,
        };
        for (now, wanted, expected) in [
            (seal(None, 0), seal(None, 9), Ok(false)),
            (seal(None, 0), seal(Some(1), 9), Ok(true)),
            (seal(Some(1), 9), seal(Some(1), 12), Ok(false)),
            (seal(Some(1), 9), seal(Some(2), 12), Ok(true)),
            (seal(Some(1), 9), seal(Some(2), 8), Ok(false)),
            (seal(Some(1), 9), seal(None, 8), Ok(false)),
            (seal(Some(1), 9), seal(None, 12), Ok(true)),
            (seal(Some(1), 9), seal(Some(1), 9), Ok(false)),
            (seal(Some(1), 9), seal(Some(2), 9), Err(Conflict(9))),
            (seal(None, 9), seal(Some(2), 9), Err(Conflict(9))),
        ] {
            assert_eq!(now.yields_to(&wanted), expected, "{now:?} {wanted:?}");
        }
    }
}
