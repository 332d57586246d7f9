//! Captured output: lines with time and stream, in files that rotate.
//!
//! One line of output is one line in the file:
//!
//! ```text
//! 1764000000.123456789 stdout F the text
//! ```
//!
//! Seconds since 1970 with nanoseconds, the stream, `F` for a full line or `P` for a part that goes
//! on in the next line of that stream, and the bytes as they came. The current file is
//! `output.log`; `output.log.1` is older, and so on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::files;

/// Longer lines are kept in parts of this many bytes; bounds the memory one stream can take.
pub(crate) const LINE_BYTES_MAX: usize = 16 * 1024;

/// Which output of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Cuts the bytes of one stream into lines.
#[derive(Debug)]
pub(crate) struct Splitter {
    stream: Stream,
    rest: Vec<u8>,
    /// A part of a line was given out, and not its end.
    is_open: bool,
}

impl Splitter {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            rest: Vec::new(),
            is_open: false,
        }
    }

    /// The entries that `bytes` complete.
    pub(crate) fn push(&mut self, bytes: &[u8], wall_nanos: u64) -> Vec<u8> {
        let mut entries = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, is_full) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            while self.rest.len() + text.len() > LINE_BYTES_MAX {
                let (part, more) = text.split_at(LINE_BYTES_MAX - self.rest.len());
                self.rest.extend_from_slice(part);
                text = more;
                self.emit(&mut entries, b'P', wall_nanos);
            }
            self.rest.extend_from_slice(text);
            if is_full {
                self.emit(&mut entries, b'F', wall_nanos);
            }
        }
        entries
    }

    /// Whether there is a line without its end, of which not all was given out.
    pub(crate) fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// The entry for what there is of a line whose end does not come.
    pub(crate) fn flush(&mut self, wall_nanos: u64) -> Vec<u8> {
        let mut entries = Vec::new();
        if self.has_rest() {
            self.emit(&mut entries, b'P', wall_nanos);
        }
        entries
    }

    /// The entry for a last line without its end.
    pub(crate) fn finish(&mut self, wall_nanos: u64) -> Vec<u8> {
        let mut entries = Vec::new();
        if self.has_rest() || self.is_open {
            self.emit(&mut entries, b'F', wall_nanos);
        }
        entries
    }

    fn emit(&mut self, entries: &mut Vec<u8>, tag: u8, wall_nanos: u64) {
        let (seconds, nanos) = (wall_nanos / 1_000_000_000, wall_nanos % 1_000_000_000);
        let head = format!(
            "{seconds}.{nanos:09} {} {} ",
            self.stream.name(),
            char::from(tag)
        );
        entries.extend_from_slice(head.as_bytes());
        entries.append(&mut self.rest);
        entries.push(b'\n');
        self.is_open = tag == b'P';
    }
}

/// The files. Trouble with the disk never reaches the task: entries that cannot be written are
/// counted and dropped.
#[derive(Debug)]
pub(crate) struct Writer {
    path: PathBuf,
    file_bytes_max: u64,
    files_max: u32,
    file: Option<File>,
    file_bytes: u64,
    bytes_lost: u64,
}

impl Writer {
    pub(crate) fn new(path: PathBuf, file_bytes_max: u64, files_max: u32) -> Self {
        Self {
            path,
            file_bytes_max,
            files_max,
            file: None,
            file_bytes: 0,
            bytes_lost: 0,
        }
    }

    /// Appends whole entries, of which a busy machine hands over many at once. Each stays in one
    /// file, and only one that is longer than a file may be makes a file longer.
    pub(crate) fn append(&mut self, entries: &[u8]) {
        let mut rest = entries;
        while !rest.is_empty() {
            match self.try_append(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(_) => {
                    self.bytes_lost += u64::try_from(rest.len()).unwrap_or(u64::MAX);
                    // Begin afresh next time; the disk may have room then.
                    self.file = None;
                    return;
                }
            }
        }
    }

    /// Bytes that could not be written.
    pub(crate) fn bytes_lost(&self) -> u64 {
        self.bytes_lost
    }

    /// Appends those entries that go into one file; how many bytes these are.
    fn try_append(&mut self, entries: &[u8]) -> io::Result<usize> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.open()?,
        };
        let mut length = fitting(entries, self.file_bytes_max.saturating_sub(self.file_bytes));
        if length == 0 && self.file_bytes > 0 {
            drop(file);
            self.rotate()?;
            file = self.open()?;
            length = fitting(entries, self.file_bytes_max);
        }
        if length == 0 {
            length = entries
                .split_inclusive(is_end)
                .next()
                .map_or(0, <[u8]>::len);
        }
        file.write_all(entries.get(..length).unwrap_or_default())?;
        self.file_bytes += u64::try_from(length).unwrap_or(u64::MAX);
        self.file = Some(file);
        Ok(length)
    }

    /// Opens the current file, which may be there since before a restart.
    fn open(&mut self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        let options = options.append(true).create(true).mode(0o600);
        let file = options.custom_flags(files::NO_LINK).open(&self.path)?;
        self.file_bytes = file.metadata()?.len();
        Ok(file)
    }

    fn rotate(&self) -> io::Result<()> {
        for number in (1..self.files_max).rev() {
            match fs::rename(self.numbered(number - 1), self.numbered(number)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn numbered(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

fn is_end(byte: &u8) -> bool {
    *byte == b'\n'
}

/// How many bytes of whole entries have room.
fn fitting(entries: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    let fitting = entries.get(..room).unwrap_or(entries);
    fitting.iter().rposition(is_end).map_or(0, |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn lines_are_cut_wherever_the_reads_were() {
        let mut splitter = Splitter::new(Stream::Stderr);
        assert_eq!(text(splitter.push(b"on", 5)), "");
        assert_eq!(
            text(splitter.push(b"e\n\ntw", 2_000_000_007)),
            "2.000000007 stderr F one\n2.000000007 stderr F \n"
        );
        assert_eq!(text(splitter.finish(9)), "0.000000009 stderr F tw\n");
        assert_eq!(text(splitter.finish(9)), "");
    }

    #[test]
    fn what_has_no_end_is_given_out_in_parts_and_ended_once() {
        let mut splitter = Splitter::new(Stream::Stdout);
        assert_eq!(splitter.flush(1).len(), 0);
        splitter.push(b"name: ", 1);
        assert!(splitter.has_rest());
        assert_eq!(text(splitter.flush(2)), "0.000000002 stdout P name: \n");
        assert_eq!(splitter.flush(3).len(), 0);
        assert_eq!(text(splitter.push(b"\nnext", 4)), "0.000000004 stdout F \n");
        assert_eq!(text(splitter.flush(5)), "0.000000005 stdout P next\n");
        assert_eq!(text(splitter.finish(6)), "0.000000006 stdout F \n");
        assert_eq!(splitter.finish(7).len(), 0);
    }

    #[test]
    fn long_lines_are_kept_in_parts() {
        let mut splitter = Splitter::new(Stream::Stdout);
        let exact = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(
            splitter.push(&exact, 0).len(),
            0,
            "exactly the limit is not yet too long"
        );
        let entries = text(splitter.push(b"y\n", 0));
        let lines: Vec<&str> = entries.lines().collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            lines[0],
            format!("0.000000000 stdout P {}", "x".repeat(LINE_BYTES_MAX))
        );
        assert_eq!(lines[1], "0.000000000 stdout F y");
    }

    #[test]
    fn files_rotate_at_their_size_and_the_oldest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("output.log");
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        let mut writer = Writer::new(path, 8, 3);
        writer.append(b"1234\n");
        writer.append(b"67\n");
        assert_eq!(
            read("output.log"),
            "1234\n67\n",
            "exactly the limit does not rotate"
        );
        for entry in [b"b\n", b"c\n", b"d\n", b"e\n", b"f\n"] {
            writer.append(entry);
        }
        assert_eq!(read("output.log.1"), "b\nc\nd\ne\n");
        assert_eq!(read("output.log"), "f\n");
        writer.append(b"too long for one file\n");
        writer.append(b"last\n");
        assert_eq!(read("output.log"), "last\n");
        assert_eq!(read("output.log.1"), "too long for one file\n");
        assert_eq!(read("output.log.2"), "f\n");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        assert_eq!(writer.bytes_lost(), 0);
    }

    #[test]
    fn many_entries_at_once_make_no_file_longer_than_it_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("output.log");
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
        fs::write(&path, "old\n").unwrap();
        let mut writer = Writer::new(path, 8, 3);
        writer.append(b"a1\nb2\n");
        assert_eq!(read("output.log.1"), "old\na1\n", "as much as has room");
        writer.append(b"c\nd\ntoo long for one file\nlast\n");
        assert_eq!(read("output.log.2"), "b2\nc\nd\n");
        assert_eq!(read("output.log.1"), "too long for one file\n");
        assert_eq!(read("output.log"), "last\n");
        assert_eq!(writer.bytes_lost(), 0);
    }

    #[test]
    fn a_disk_that_refuses_costs_lines_not_the_task() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("later");
        let mut writer = Writer::new(home.join("output.log"), 100, 2);
        writer.append(b"lost\n");
        assert_eq!(writer.bytes_lost(), 5);
        fs::create_dir(&home).unwrap();
        writer.append(b"kept\n");
        assert_eq!(
            fs::read_to_string(home.join("output.log")).unwrap(),
            "kept\n"
        );
        assert_eq!(writer.bytes_lost(), 5);
    }
}
