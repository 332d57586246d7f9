//! Join tokens: the digest of the root that a node must find, and a secret that lets it in.
//!
//! Owns the text form. Owns no list of valid tokens and no time: that is for whoever keeps the
//! cluster object. A token never appears in `Debug` or in an error.

use std::fmt;

use crate::root::RootDigest;

/// What every token starts with.
const PREFIX: &str = "SWMTKN";
/// Characters of the digest, and of the secret.
const DIGEST_CHARACTERS: usize = 50;
const SECRET_CHARACTERS: usize = 25;

/// A token that was read or made.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    digest: RootDigest,
    secret: String,
    form: Form,
}

/// Which version of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `SWMTKN-1-…`.
    One,
    /// `SWMTKN-2-<0 or 1>-…`; whether every node must be in FIPS mode.
    Two { fips: bool },
}

/// Why a text is not a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid join token: {0}")]
pub struct TokenError(&'static str);

impl JoinToken {
    /// Reads a token.
    ///
    /// # Errors
    /// [`TokenError`], which says what is wrong and never quotes the token.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.split('-');
        if parts.next() != Some(PREFIX) {
            return Err(TokenError("it does not start with SWMTKN-"));
        }
        let parts: Vec<&str> = parts.take(5).collect();
        let (form, digest, secret) = match parts.as_slice() {
            ["1", digest, secret] => (Form::One, *digest, *secret),
            ["2", "0", digest, secret] => (Form::Two { fips: false }, *digest, *secret),
            ["2", "1", digest, secret] => (Form::Two { fips: true }, *digest, *secret),
            ["1" | "2", ..] => return Err(TokenError("it has too few or too many parts")),
            _ => return Err(TokenError("its version is not known")),
        };
        if digest.len() != DIGEST_CHARACTERS {
            return Err(TokenError("its digest does not have 50 characters"));
        }
        if secret.len() != SECRET_CHARACTERS {
            return Err(TokenError("its secret does not have 25 characters"));
        }
        if !secret.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(TokenError("its secret has a character that none has"));
        }
        let digest = from_base36(digest).ok_or(TokenError("its digest is not one"))?;
        Ok(Self {
            digest: RootDigest::from_bytes(digest),
            secret: secret.to_owned(),
            form,
        })
    }

    /// Makes a token from the exact text of the root bundle and 16 random bytes.
    pub fn generate(root_pem: &[u8], secret: [u8; 16]) -> Self {
        Self::new(RootDigest::of(root_pem), secret, Form::One)
    }

    /// Like [`JoinToken::generate`] for a cluster that admits nodes in FIPS mode only.
    pub fn generate_fips(root_pem: &[u8], secret: [u8; 16]) -> Self {
        Self::new(RootDigest::of(root_pem), secret, Form::Two { fips: true })
    }

    fn new(digest: RootDigest, secret: [u8; 16], form: Form) -> Self {
        Self {
            digest,
            secret: to_base36(&secret, SECRET_CHARACTERS),
            form,
        }
    }

    /// The digest that the root bundle must have.
    pub fn root_digest(&self) -> RootDigest {
        self.digest
    }

    /// A digest of the whole token, to recognise it by without keeping it.
    pub fn fingerprint(&self) -> String {
        RootDigest::of(self.to_string().as_bytes()).to_string()
    }

    /// Whether only nodes in FIPS mode may use it.
    pub fn requires_fips(&self) -> bool {
        matches!(self.form, Form::Two { fips: true })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = match self.form {
            Form::One => "1",
            Form::Two { fips: false } => "2-0",
            Form::Two { fips: true } => "2-1",
        };
        let digest = to_base36(self.digest.as_bytes(), DIGEST_CHARACTERS);
        write!(out, "{PREFIX}-{version}-{digest}-{}", self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "JoinToken({:?}, hidden)", self.digest)
    }
}

/// Whether two tokens are the same, in a time that depends on their lengths only.
pub fn same(left: &str, right: &str) -> bool {
    // Digests have one length and tell nothing about where the texts differ.
    let (left, right) = (
        RootDigest::of(left.as_bytes()),
        RootDigest::of(right.as_bytes()),
    );
    let pairs = left.as_bytes().iter().zip(right.as_bytes());
    let difference = pairs.fold(0, |all, (left, right)| all | (left ^ right));
    std::hint::black_box(difference) == 0
}

/// Big-endian bytes as digits 0-9a-z, padded with zeros on the left.
fn to_base36(bytes: &[u8], characters: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; characters];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0u32;
        for byte in &mut number {
            let value = rest * 256 + u32::from(*byte);
            *byte = u8::try_from(value / 36).expect("the rest is below 36");
            rest = value % 36;
        }
        let rest = u8::try_from(rest).expect("a rest is below 36");
        *digit = if rest < 10 {
            b'0' + rest
        } else {
            b'a' + rest - 10
        };
    }
    digits.into_iter().map(char::from).collect()
}

/// The reverse; `None` if a character is no digit or the number does not fit.
fn from_base36<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    let mut number = [0u8; BYTES];
    for character in text.chars() {
        let mut carry = character.to_digit(36)?;
        for byte in number.iter_mut().rev() {
            let value = u32::from(*byte) * 36 + carry;
            *byte = u8::try_from(value % 256).expect("a rest is below 256");
            carry = value / 256;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}
