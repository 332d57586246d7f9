//! PEM text: blocks with a label, headers and bytes.
//!
//! Owns reading and writing of the text form; owns no meaning of a label. Headers are supported
//! because the key file of a node carries its secrets there.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Longest text that is read, in bytes: more than a hundred certificates. A bound on hostile input.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Most blocks in one text.
pub const BLOCKS_MAX: usize = 64;
/// The label of a certificate.
pub const CERTIFICATE: &str = "CERTIFICATE";

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
const LINE_CHARACTERS: usize = 64;
/// Go writes this header before the others.
const FIRST_HEADER: &str = "Proc-Type";

/// One block.
pub struct Block {
    /// What follows `BEGIN`.
    pub label: String,
    /// Headers by name.
    pub headers: BTreeMap<String, String>,
    /// The decoded bytes.
    pub der: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Block {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Headers and bytes may be secrets.
        write!(out, "Block({}, {} bytes)", self.label, self.der.len())
    }
}

/// Why a text is not PEM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Longer than [`TEXT_BYTES_MAX`].
    #[error("PEM text has {0} bytes, at most {TEXT_BYTES_MAX} are read")]
    TooLong(usize),
    /// More than [`BLOCKS_MAX`].
    #[error("PEM text has more than {BLOCKS_MAX} blocks")]
    TooManyBlocks,
    /// Not text.
    #[error("PEM text has a byte that is not ASCII")]
    NotText,
    /// Nothing in it.
    #[error("no PEM block found")]
    Empty,
    /// A block that does not end, or ends as another one.
    #[error("PEM block {0:?} has no matching end line")]
    Unfinished(String),
    /// A line in the head of a block that is no header.
    #[error("PEM block {0:?} has a malformed header")]
    Header(String),
    /// The body of a block is not base 64.
    #[error("PEM block {0:?} is not base 64")]
    Base64(String),
    /// Text after the last block.
    #[error("there is text after the last PEM block")]
    TrailingText,
    /// A block of the wrong kind.
    #[error("expected a PEM block {expected:?}, found {found:?}")]
    Label {
        /// What was wanted.
        expected: &'static str,
        /// What is there.
        found: String,
    },
    /// More or fewer blocks than one.
    #[error("expected one PEM block, found {0}")]
    NotOne(usize),
}

/// Reads all blocks. Text before and between blocks is skipped, text after the last is an error,
/// as in the reader of certificates that SwarmKit uses.
///
/// # Errors
/// [`PemError`]; there is at least one block otherwise.
pub fn read_all(text: &[u8]) -> Result<Vec<Block>, PemError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(PemError::TooLong(text.len()));
    }
    let text = std::str::from_utf8(text).map_err(|_| PemError::NotText)?;
    let mut blocks = Vec::new();
    let mut lines = text.lines().map(str::trim_end);
    let mut stray = false;
    while let Some(line) = lines.next() {
        let Some(label) = label_of(line, BEGIN) else {
            stray |= !line.is_empty();
            continue;
        };
        if blocks.len() == BLOCKS_MAX {
            return Err(PemError::TooManyBlocks);
        }
        blocks.push(read_block(label, &mut lines)?);
        stray = false;
    }
    match (blocks.is_empty(), stray) {
        (true, _) => Err(PemError::Empty),
        (false, true) => Err(PemError::TrailingText),
        (false, false) => Ok(blocks),
    }
}

/// Reads a text that holds exactly one block.
///
/// # Errors
/// [`PemError`].
pub fn read_one(text: &[u8]) -> Result<Block, PemError> {
    let mut blocks = read_all(text)?;
    match (blocks.pop(), blocks.len()) {
        (Some(block), 0) => Ok(block),
        (_, others) => Err(PemError::NotOne(others + 1)),
    }
}

/// Reads a text of certificates only.
///
/// # Errors
/// [`PemError`].
pub fn read_certificates(text: &[u8]) -> Result<Vec<Vec<u8>>, PemError> {
    read_all(text)?
        .into_iter()
        .map(|block| {
            if block.label == CERTIFICATE {
                return Ok(block.der.to_vec());
            }
            let found = block.label;
            let expected = CERTIFICATE;
            Err(PemError::Label { expected, found })
        })
        .collect()
}

/// Writes a block without headers, in lines of 64 characters, with a line end at the end.
pub fn write(label: &str, der: &[u8]) -> String {
    write_with_headers(label, &BTreeMap::new(), der)
}

/// Writes a block with headers in the order in which Go writes them.
///
/// Names and values must be free of line ends, and names of colons; what does not hold to that is
/// an error of the caller and would be read back otherwise, so such headers are left out.
pub fn write_with_headers(label: &str, headers: &BTreeMap<String, String>, der: &[u8]) -> String {
    let mut out = format!("{BEGIN}{label}{DASHES}\n");
    let first = headers.get_key_value(FIRST_HEADER);
    let others = headers.iter().filter(|(name, _)| *name != FIRST_HEADER);
    let mut any = false;
    for (name, value) in first.into_iter().chain(others) {
        if is_header(name, value) {
            out.extend([name, ": ", value.as_str(), "\n"]);
            any = true;
        }
    }
    if any {
        out.push('\n');
    }
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, left) = rest.split_at(rest.len().min(LINE_CHARACTERS));
        out.extend([line, "\n"]);
        rest = left;
    }
    out.extend([END, label, DASHES, "\n"]);
    out
}

fn is_header(name: &str, value: &str) -> bool {
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_graphic() || c == ' ');
    !name.is_empty() && plain(name) && plain(value) && !name.contains(':')
}

fn label_of<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.strip_prefix(start)?.strip_suffix(DASHES)
}

fn read_block<'a>(
    label: &str,
    lines: &mut impl Iterator<Item = &'a str>,
) -> Result<Block, PemError> {
    let mut headers = BTreeMap::new();
    let mut body = Zeroizing::new(String::new());
    for line in lines {
        if let Some(end) = label_of(line, END) {
            if end != label {
                break;
            }
            let der = STANDARD.decode(body.as_bytes());
            let der = der.map_err(|_| PemError::Base64(short(label)))?;
            return Ok(Block {
                label: label.to_owned(),
                headers,
                der: Zeroizing::new(der),
            });
        }
        if let Some((name, value)) = line.split_once(':') {
            if !body.is_empty() {
                return Err(PemError::Header(short(label)));
            }
            headers.insert(name.trim().to_owned(), value.trim().to_owned());
        } else {
            body.push_str(line.trim_start());
        }
    }
    Err(PemError::Unfinished(short(label)))
}

/// Labels come from outside; errors quote the start of them.
fn short(label: &str) -> String {
    label.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_block_is_written_as_go_writes_it() {
        let headers = [("kek-version", "7"), ("Proc-Type", "x"), ("a", "b: c")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let text = write_with_headers("T", &headers.into(), &[0; 50]);
        let expected = "-----BEGIN T-----\nProc-Type: x\na: b: c\nkek-version: 7\n\n\
                        AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\nAAA=\n\
                        -----END T-----\n";
        assert_eq!(text, expected);
        let block = read_one(text.as_bytes()).unwrap();
        assert_eq!(block.headers.get("a").unwrap(), "b: c");
        assert_eq!(*block.der, [0; 50]);
    }

    #[test]
    fn text_between_blocks_is_skipped_and_text_after_them_refused() {
        let one = write("T", b"one");
        let text = format!("note\n{one}\nanother note\n{one}\n\n");
        assert_eq!(read_all(text.as_bytes()).unwrap().len(), 2);
        let text = format!("{one}note");
        assert_eq!(
            read_all(text.as_bytes()).unwrap_err(),
            PemError::TrailingText
        );
    }

    #[test]
    fn broken_texts_are_refused_in_words() {
        let check = |text: &[u8], expected: PemError| {
            assert_eq!(read_all(text).unwrap_err(), expected);
        };
        check(b"", PemError::Empty);
        check(b"\xff", PemError::NotText);
        check(
            b"-----BEGIN T-----\nAAAA\n",
            PemError::Unfinished("T".into()),
        );
        check(
            b"-----BEGIN T-----\nAAAA\n-----END U-----\n",
            PemError::Unfinished("T".into()),
        );
        check(
            b"-----BEGIN T-----\n?\n-----END T-----\n",
            PemError::Base64("T".into()),
        );
        check(
            b"-----BEGIN T-----\nAAAA\na: b\n-----END T-----\n",
            PemError::Header("T".into()),
        );
        check(
            &vec![b' '; TEXT_BYTES_MAX + 1],
            PemError::TooLong(TEXT_BYTES_MAX + 1),
        );
        let many = write("T", b"").repeat(BLOCKS_MAX + 1);
        check(many.as_bytes(), PemError::TooManyBlocks);
        let two = write("T", b"").repeat(2);
        assert_eq!(read_one(two.as_bytes()).unwrap_err(), PemError::NotOne(2));
    }

    proptest! {
        #[test]
        fn blocks_round_trip(der: Vec<u8>, headers: BTreeMap<String, String>) {
            let plain = headers.into_iter()
                .filter(|(name, value)| is_header(name, value))
                .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
                .filter(|(name, _)| !name.is_empty());
            let plain: BTreeMap<_, _> = plain.collect();
            let block = read_one(write_with_headers("A B", &plain, &der).as_bytes()).unwrap();
            prop_assert_eq!(block.headers, plain);
            prop_assert_eq!(&*block.der, &der);
        }

        #[test]
        fn garbage_is_read_without_panic(
            text: Vec<u8>,
            tail in "(-----BEGIN A-----)?[ -~\n]{0,99}",
        ) {
            let _ = read_all(&text);
            let _ = read_all(tail.as_bytes());
        }
    }
}
