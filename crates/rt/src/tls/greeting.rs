//! What a server says first.
//!
//! A client that insists on HTTP/2 by ALPN knows before its first word that it is understood. One
//! that does not finds out here: the first frame of a server holds its settings (RFC 9113, 3.4).

use std::io;

use super::words;

/// The head of a frame: length, kind, flags, stream.
const HEAD_BYTES: usize = 9;
const SETTINGS: u8 = 4;
/// Settings of a greeting are a few dozen bytes; texts read as a head mean millions.
const SETTINGS_BYTES_MAX: u32 = 1 << 14;

/// The first bytes of a server, as far as they have come.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    head: [u8; HEAD_BYTES],
    read: usize,
}

impl Greeting {
    /// Looks at what was read, until the head of the first frame is complete.
    ///
    /// # Errors
    /// When that cannot become the greeting of an HTTP/2 server, with what it is.
    pub(super) fn check(&mut self, bytes: &[u8]) -> io::Result<()> {
        let missing = HEAD_BYTES - self.read;
        if missing == 0 {
            return Ok(());
        }
        let taken = bytes.len().min(missing);
        self.head[self.read..self.read + taken].copy_from_slice(&bytes[..taken]);
        self.read += taken;
        if is_settings(&self.head[..self.read]) {
            return Ok(());
        }
        let mut said = self.head[..self.read].to_vec();
        said.extend_from_slice(&bytes[taken..]);
        let text = format!(
            "what answers does not speak HTTP/2, so it is no manager: it began with {}",
            words::first_line(&said)
        );
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }
}

/// Whether these bytes begin a frame of settings that is no acknowledgement.
fn is_settings(head: &[u8]) -> bool {
    let mut length = [0; 4];
    for (to, from) in length[1..].iter_mut().zip(head) {
        *to = *from;
    }
    let is_short = u32::from_be_bytes(length) <= SETTINGS_BYTES_MAX;
    let wanted = [SETTINGS, 0, 0, 0, 0, 0];
    let rest = head.get(3..).unwrap_or_default();
    is_short && wanted.starts_with(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of bytes that arrive in pieces of this size.
    fn check(bytes: &[u8], piece: usize) -> Result<(), String> {
        let mut greeting = Greeting::default();
        bytes
            .chunks(piece)
            .try_for_each(|it| greeting.check(it))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn settings_are_a_greeting_in_whatever_pieces_they_come() {
        for greeting in [
            &b"\0\0\0\x04\0\0\0\0\0"[..],
            b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\xff\xff\0\0\x04\x08",
        ] {
            for piece in 1..=greeting.len() {
                assert_eq!(check(greeting, piece), Ok(()), "{piece}");
            }
        }
    }

    #[test]
    fn everything_else_is_no_greeting_and_is_shown() {
        for (said, shown) in [
            (
                &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
                "`HTTP/1.1 400 Bad Request`",
            ),
            (b"220 mail ESMTP\r\n", "`220 mail ESMTP`"),
            // A ping, an acknowledgement, and settings of a stream.
            (b"\0\0\x08\x06\0\0\0\0\0", r"`\x00\x00\x08\x06"),
            (b"\0\0\0\x04\x01\0\0\0\0", r"`\x00\x00\x00\x04\x01"),
            (b"\0\0\0\x04\0\0\0\0\x01", r"`\x00\x00\x00\x04\x00"),
        ] {
            let error = check(said, said.len()).unwrap_err();
            assert!(error.contains(shown), "{error} lacks {shown}");
            assert!(check(said, 1).is_err(), "{shown}");
        }
    }
}
