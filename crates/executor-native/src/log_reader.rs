//! Reads captured output back: all files from the oldest on, and what is written meanwhile.
//!
//! Files are followed by their identity, not by their name: a file that was opened stays the same
//! file when it rotates away. Refuses to own: the form of an entry beyond what [`parse`] reads
//! (`logs` writes it), and which lines are wanted (`swarm_executor::LineFilter`).

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use swarm_executor::{
    BoxFuture, ExecError, LineFilter, LogLine, LogOptions, LogOrigin, LogStream, Tail,
};
use swarm_types::Timestamp;

use crate::files::FileError;
use crate::lifecycle::blocking;
use crate::logs::LINE_BYTES_MAX;
use crate::task_dir::TaskDir;

/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Longest entry: time, stream and tag take less than the rest. Longer ones are not ours.
const ENTRY_BYTES_MAX: usize = LINE_BYTES_MAX + 1024;
/// How often to look which files there are while they rotate.
const OPEN_ATTEMPTS_MAX: u32 = 8;
/// First pause at the end of a file that may grow; it doubles.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(20);
/// Longest such pause: how late a line of a quiet task is at most.
const LOOK_PAUSE_MAX: Duration = Duration::from_millis(320);

/// A stream of lines for the agent.
pub(crate) struct NativeLogs {
    /// `None` while a step is under way.
    reader: Option<Box<Reader>>,
    pause: Duration,
}

impl NativeLogs {
    pub(crate) fn new(dir: TaskDir, files_max: u32, options: LogOptions) -> Self {
        Self {
            reader: Some(Box::new(Reader::new(dir, files_max, options))),
            pause: LOOK_PAUSE_MIN,
        }
    }
}

impl LogStream for NativeLogs {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<LogLine>>, ExecError>> {
        Box::pin(async {
            loop {
                let Some(mut reader) = self.reader.take() else {
                    return Ok(None);
                };
                let (reader, step) = blocking(move || {
                    let step = reader.step()?;
                    Ok((reader, step))
                })
                .await?;
                match step {
                    Step::Lines(lines) => {
                        self.reader = Some(reader);
                        self.pause = LOOK_PAUSE_MIN;
                        return Ok(Some(lines));
                    }
                    Step::Skipped => self.reader = Some(reader),
                    Step::Idle => {
                        self.reader = Some(reader);
                        tokio::time::sleep(self.pause).await;
                        self.pause = (self.pause * 2).min(LOOK_PAUSE_MAX);
                    }
                    Step::End => return Ok(None),
                }
            }
        })
    }
}

/// What one look brought.
#[derive(Debug, PartialEq)]
enum Step {
    Lines(Vec<LogLine>),
    /// Something was read, but nothing that is wanted.
    Skipped,
    /// Nothing there now.
    Idle,
    End,
}

/// One file with what was read of it.
#[derive(Debug)]
struct OpenFile {
    file: File,
    id: (u64, u64),
    /// Where to stop; `None` at its end, wherever that is by then.
    until: Option<u64>,
    offset: u64,
    /// The beginning of an entry whose end was not there yet.
    rest: BytesMut,
}

#[derive(Debug)]
struct Reader {
    dir: TaskDir,
    /// How many files the task keeps; its plan knows.
    files_max: u32,
    options: LogOptions,
    filter: LineFilter,
    /// From the oldest on; the first one is being read.
    files: VecDeque<OpenFile>,
    is_open: bool,
    /// The directory of the task was there: a task that is not prepared yet has none either.
    was_there: bool,
    /// The task had ended before the last look.
    has_ended: bool,
    /// The newest file that we know has rotated, and everything in it was there before.
    has_rotated: bool,
    /// That the disk refused output was said.
    has_confessed: bool,
}

impl Reader {
    fn new(dir: TaskDir, files_max: u32, options: LogOptions) -> Self {
        Self {
            dir,
            files_max,
            options,
            filter: LineFilter::new(options, 0),
            files: VecDeque::new(),
            is_open: false,
            was_there: false,
            has_ended: false,
            has_rotated: false,
            has_confessed: false,
        }
    }

    /// Reads on. Blocks.
    fn step(&mut self) -> Result<Step, FileError> {
        if !self.is_open {
            return self.open();
        }
        while let Some(file) = self.files.front_mut() {
            let Some(entries) = file.read().map_err(|error| self.dir.log_error(error))? else {
                if self.files.len() == 1 {
                    return self.at_end();
                }
                self.files.pop_front();
                continue;
            };
            let mut lines = Vec::new();
            for entry in entries {
                lines.extend(self.choose(&entry));
            }
            return Ok(if lines.is_empty() {
                Step::Skipped
            } else {
                Step::Lines(lines)
            });
        }
        self.at_end()
    }

    fn choose(&mut self, entry: &Bytes) -> Option<LogLine> {
        let Some(parsed) = parse(entry) else {
            let text = "an entry of the captured output is damaged and left out";
            return Some(LogLine::notice(text));
        };
        let is_taken = self
            .filter
            .takes(parsed.origin, Some(parsed.at), parsed.is_full);
        // The line feed that ends the entry is the one of a full line.
        let end = entry.len() - usize::from(!parsed.is_full);
        is_taken.then(|| LogLine {
            at: Some(parsed.at),
            origin: parsed.origin,
            data: entry.slice(parsed.text_from..end),
        })
    }

    /// Opens what there is, and counts it if the tail asks for that.
    fn open(&mut self) -> Result<Step, FileError> {
        let has_ended = self.has_task_ended()?;
        if let Some(plan) = self.dir.plan()? {
            self.files_max = plan.log_files_max;
        }
        let mut files = self.open_all()?;
        if files.is_empty() {
            // Nothing was written yet.
            if !self.options.follow || has_ended {
                return self.end();
            }
            // What comes from here on is new, and no tail leaves it out.
            if let Tail::Last(_) = self.options.tail {
                self.options.tail = Tail::All;
            }
            return Ok(Step::Idle);
        }
        self.is_open = true;
        self.begin(&mut files)?;
        self.files = files;
        Ok(Step::Skipped)
    }

    /// Counts the lines if the tail asks for that.
    fn begin(&mut self, files: &mut VecDeque<OpenFile>) -> Result<(), FileError> {
        self.bound(files)?;
        if let Tail::Last(_) = self.options.tail {
            let lines = self.count(files)?;
            self.filter = LineFilter::new(self.options, lines);
        }
        if let Some(newest) = files.back_mut().filter(|_| self.options.follow) {
            newest.until = None;
        }
        Ok(())
    }

    /// What the task writes from here on is not counted, and not read but by a follower; so a task
    /// that writes faster than this reads makes neither endless, and gives a tail no more lines.
    fn bound(&self, files: &mut VecDeque<OpenFile>) -> Result<(), FileError> {
        if let Some(newest) = files.back_mut() {
            let metadata = newest.file.metadata();
            let bytes = metadata.map_err(|error| self.dir.log_error(error))?.len();
            newest.until = Some(bytes);
        }
        Ok(())
    }

    fn count(&self, files: &mut VecDeque<OpenFile>) -> Result<u64, FileError> {
        let mut counter = LineFilter::counting(self.options);
        for file in files {
            while let Some(entries) = file.read().map_err(|error| self.dir.log_error(error))? {
                for parsed in entries.iter().filter_map(|entry| parse(entry)) {
                    counter.takes(parsed.origin, Some(parsed.at), parsed.is_full);
                }
            }
            file.rewind().map_err(|error| self.dir.log_error(error))?;
        }
        Ok(counter.lines())
    }

    /// All files from the oldest on.
    fn open_all(&self) -> Result<VecDeque<OpenFile>, FileError> {
        self.open_with(|number| OpenFile::open(&self.dir, number))
    }

    /// Opened from the newest on, so that one which rotates meanwhile is seen twice rather than
    /// never. Two that rotate meanwhile would be in the wrong order, so this looks again then.
    fn open_with(
        &self,
        mut open: impl FnMut(u32) -> io::Result<Option<OpenFile>>,
    ) -> Result<VecDeque<OpenFile>, FileError> {
        let mut open = |number| open(number).map_err(|error| self.dir.log_error(error));
        let mut attempts = 0;
        loop {
            attempts += 1;
            let mut files: VecDeque<OpenFile> = VecDeque::new();
            let mut newest = None;
            for number in 0..self.files_max {
                let Some(file) = open(number)? else {
                    continue;
                };
                if number == 0 {
                    newest = Some(file.id);
                }
                if files.iter().all(|known| known.id != file.id) {
                    files.push_front(file);
                }
            }
            let is_newest = open(0)?.map(|file| file.id) == newest;
            if is_newest || attempts >= OPEN_ATTEMPTS_MAX {
                return Ok(files);
            }
        }
    }

    /// Everything that is known was read.
    fn at_end(&mut self) -> Result<Step, FileError> {
        if !self.options.follow {
            return self.end();
        }
        let newest = self.files.back().map(|file| file.id);
        if self.has_rotated {
            self.has_rotated = false;
            return self.open_newer(newest);
        }
        let current = OpenFile::open(&self.dir, 0);
        let current = current.map_err(|error| self.dir.log_error(error))?;
        if current.is_some_and(|file| Some(file.id) != newest) {
            // It got its last entry before it rotated, perhaps after our look: look once more.
            self.has_rotated = true;
            return Ok(Step::Skipped);
        }
        if self.has_ended {
            return self.end();
        }
        self.has_ended = self.has_task_ended()?;
        // The same: what was written before the end is read after it.
        Ok(if self.has_ended {
            Step::Skipped
        } else {
            Step::Idle
        })
    }

    /// The last word, if the task has ended and some of its output could not be kept.
    fn end(&mut self) -> Result<Step, FileError> {
        let lost = self.dir.exit()?.map_or(0, |exit| exit.log_bytes_lost);
        if lost == 0 || self.has_confessed {
            return Ok(Step::End);
        }
        self.has_confessed = true;
        let text = format!("{lost} bytes of output could not be written to the disk of the node");
        Ok(Step::Lines(vec![LogLine::notice(&text)]))
    }

    /// Goes on with the files that are newer than the one that was read to its end.
    fn open_newer(&mut self, read: Option<(u64, u64)>) -> Result<Step, FileError> {
        let mut files = self.open_all()?;
        let place = files.iter().position(|file| Some(file.id) == read);
        match place {
            Some(place) => drop(files.drain(..=place)),
            None => {
                let text = "output was lost: the task wrote more than its log files hold before \
                            it could be read";
                self.files = files;
                return Ok(Step::Lines(vec![LogLine::notice(text)]));
            }
        }
        self.files = files;
        Ok(Step::Skipped)
    }

    /// Whether nothing will be written any more: the task has ended, or was removed.
    fn has_task_ended(&mut self) -> Result<bool, FileError> {
        let is_there = self.dir.path().exists();
        self.was_there |= is_there;
        Ok(self.dir.exit()?.is_some() || self.was_there && !is_there)
    }
}

impl OpenFile {
    /// Opens a file by its number; `None` if it is not there.
    fn open(dir: &TaskDir, number: u32) -> io::Result<Option<Self>> {
        let file = match File::open(dir.log_file(number)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        Ok(Some(Self {
            file,
            id: (metadata.dev(), metadata.ino()),
            until: None,
            offset: 0,
            rest: BytesMut::new(),
        }))
    }

    fn rewind(&mut self) -> io::Result<()> {
        self.offset = self.file.seek(SeekFrom::Start(0))?;
        self.rest.clear();
        Ok(())
    }

    /// The next entries, with their line feeds; `None` at the end. The list is empty when none is
    /// complete yet.
    fn read(&mut self) -> io::Result<Option<Vec<Bytes>>> {
        let left = self.until.map(|until| until.saturating_sub(self.offset));
        let left = left.and_then(|left| usize::try_from(left).ok());
        let wanted = left.unwrap_or(READ_BYTES).min(READ_BYTES);
        if wanted == 0 {
            return Ok(None);
        }
        let before = self.rest.len();
        self.rest.resize(before + wanted, 0);
        let count = match self.file.read(&mut self.rest[before..]) {
            Ok(count) => count,
            Err(error) => {
                self.rest.truncate(before);
                return Err(error);
            }
        };
        self.rest.truncate(before + count);
        if count == 0 {
            return Ok(None);
        }
        self.offset += u64::try_from(count).unwrap_or(u64::MAX);
        Ok(Some(self.split()))
    }

    /// Takes the complete entries out of what was read.
    fn split(&mut self) -> Vec<Bytes> {
        let Some(end) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            // No entry of ours is so long; drop it rather than to hold it for ever.
            if self.rest.len() > ENTRY_BYTES_MAX {
                self.rest.clear();
            }
            return Vec::new();
        };
        let mut block = self.rest.split_to(end + 1).freeze();
        let mut entries = Vec::new();
        while let Some(end) = block.iter().position(|byte| *byte == b'\n') {
            entries.push(block.split_to(end + 1));
        }
        entries
    }
}

/// An entry, understood.
#[derive(Debug, PartialEq)]
struct Parsed {
    at: Timestamp,
    origin: LogOrigin,
    is_full: bool,
    text_from: usize,
}

/// Reads `seconds.nanos stream tag text`; `None` if it is anything else.
fn parse(entry: &[u8]) -> Option<Parsed> {
    let mut parts = entry.splitn(4, |byte| *byte == b' ');
    let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
    parts.next()?;
    let (seconds, nanos) = std::str::from_utf8(time).ok()?.split_once('.')?;
    if nanos.len() != 9 {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    let nanos: i64 = nanos.parse().ok()?;
    let origin = match stream {
        b"stdout" => LogOrigin::Stdout,
        b"stderr" => LogOrigin::Stderr,
        _ => return None,
    };
    let is_full = match tag {
        b"F" => true,
        b"P" => false,
        _ => return None,
    };
    Some(Parsed {
        at: Timestamp::from_nanos(seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?),
        origin,
        is_full,
        text_from: time.len() + stream.len() + tag.len() + 3,
    })
}

#[cfg(test)]
mod tests;
