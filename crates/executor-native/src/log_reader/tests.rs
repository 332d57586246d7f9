//! Reading while a real writer writes and rotates.

use std::fs;

use super::*;
use crate::logs::{Splitter, Stream, Writer};
use crate::records::{Cause, Exit};

/// A task with a writer of small files.
struct World {
    _root: tempfile::TempDir,
    dir: TaskDir,
    writer: Writer,
    splitter: Splitter,
    clock: u64,
}

const FILES_MAX: u32 = 3;

impl World {
    fn new(file_bytes_max: u64) -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = TaskDir::new(root.path().join("task"));
        dir.create().unwrap();
        Self {
            writer: Writer::new(dir.log_path(), file_bytes_max, FILES_MAX),
            splitter: Splitter::new(Stream::Stdout),
            _root: root,
            dir,
            clock: 0,
        }
    }

    /// Writes text, one millisecond after the last.
    fn write(&mut self, text: &str) {
        self.clock += 1_000_000;
        let entries = self.splitter.push(text.as_bytes(), self.clock);
        self.writer.append(&entries);
    }

    fn end(&self, log_bytes_lost: u64) {
        self.dir
            .write_exit(&Exit {
                code: 0,
                cause: Cause::Exited,
                oom: false,
                message: String::new(),
                ended_at: 0,
                log_bytes_lost,
            })
            .unwrap();
    }

    fn reader(&self, options: LogOptions) -> Reader {
        Reader::new(self.dir.clone(), FILES_MAX, options)
    }

    fn read_all(&self, options: LogOptions) -> String {
        let mut reader = self.reader(options);
        let text = take(&mut reader);
        assert_eq!(reader.step().unwrap(), Step::End);
        text
    }
}

/// Everything up to the next pause or the end.
fn take(reader: &mut Reader) -> String {
    let mut text = String::new();
    loop {
        match reader.step().unwrap() {
            Step::Lines(lines) => {
                for line in lines {
                    text.push_str(std::str::from_utf8(&line.data).unwrap());
                }
            }
            Step::Skipped => {}
            Step::Idle | Step::End => return text,
        }
    }
}

fn tail(tail: Tail) -> LogOptions {
    LogOptions {
        tail,
        ..LogOptions::default()
    }
}

fn follow() -> LogOptions {
    LogOptions {
        follow: true,
        ..LogOptions::default()
    }
}

#[test]
fn entries_are_read_as_they_are_written_and_others_are_refused() {
    let entry = b"1764000000.000000007 stderr P a b  c\n";
    assert_eq!(
        parse(entry),
        Some(Parsed {
            at: Timestamp::from_nanos(1_764_000_000_000_000_007),
            origin: LogOrigin::Stderr,
            is_full: false,
            text_from: 30,
        })
    );
    assert_eq!(&entry[30..], b"a b  c\n");
    for bad in [
        "",
        "\n",
        "1.000000000 stdout F\n",
        "1.0 stdout F x\n",
        "1 stdout F x\n",
        "x.000000000 stdout F x\n",
        "1.000000000 stdin F x\n",
        "1.000000000 stdout Q x\n",
        "99999999999999999999.000000000 stdout F x\n",
    ] {
        assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
    }
}

#[test]
fn files_are_in_order_also_when_the_reader_stood_still_while_they_rotated() {
    let mut world = World::new(1);
    for number in 0..3 {
        world.write(&format!("line {number}\n"));
    }
    let mut reader = world.reader(LogOptions::default());
    let dir = world.dir.clone();
    let mut has_stood_still = false;
    let files = reader.open_with(|number| {
        if number == 1 && !std::mem::replace(&mut has_stood_still, true) {
            world.write("line 3\n");
            world.write("line 4\n");
        }
        OpenFile::open(&dir, number)
    });
    reader.files = files.unwrap();
    reader.is_open = true;
    assert_eq!(take(&mut reader), "line 2\nline 3\nline 4\n");
}

#[test]
fn a_tail_has_its_lines_and_no_more_while_the_task_writes() {
    let mut world = World::new(1 << 20);
    for number in 0..5 {
        world.write(&format!("line {number}\n"));
    }
    let reader = world.reader(tail(Tail::Last(3)));
    let mut files = reader.open_all().unwrap();
    reader.bound(&mut files).unwrap();
    world.write("too late\n");
    assert_eq!(reader.count(&mut files).unwrap(), 5);
    let entries = files[0].read().unwrap().unwrap();
    assert_eq!(entries.len(), 5, "nor is it read afterwards");
    assert_eq!(files[0].read().unwrap(), None);
}

#[test]
fn rotated_files_are_read_from_the_oldest_on() {
    let mut world = World::new(64);
    for number in 0..7 {
        world.write(&format!("line {number}\n"));
    }
    // Two entries fit one file.
    assert_eq!(
        world.read_all(tail(Tail::All)),
        "line 2\nline 3\nline 4\nline 5\nline 6\n"
    );
    assert_eq!(world.read_all(tail(Tail::Last(2))), "line 5\nline 6\n");
    assert_eq!(world.read_all(tail(Tail::Last(0))), "");
    assert_eq!(world.read_all(tail(Tail::Skip(4))), "line 6\n");
    let since = LogOptions {
        since: Some(Timestamp::from_millis(6)),
        ..LogOptions::default()
    };
    assert_eq!(world.read_all(since), "line 5\nline 6\n");
}

#[test]
fn a_task_that_wrote_nothing_has_an_empty_end() {
    let world = World::new(64);
    assert_eq!(world.read_all(tail(Tail::All)), "");
}

#[test]
fn parts_of_a_long_line_are_put_together_by_their_missing_line_feeds() {
    let mut world = World::new(16 << 10);
    let long = "x".repeat(LINE_BYTES_MAX + 5);
    world.write(&format!("{long}\nshort\n"));
    assert_eq!(world.read_all(tail(Tail::All)), format!("{long}\nshort\n"));
    assert_eq!(
        world.read_all(tail(Tail::Last(2))),
        format!("{long}\nshort\n")
    );
    assert_eq!(world.read_all(tail(Tail::Last(1))), "short\n");
}

#[test]
fn following_goes_on_across_rotations_to_the_end_of_the_task() {
    let mut world = World::new(64);
    let mut reader = world.reader(follow());
    assert_eq!(reader.step().unwrap(), Step::Idle, "it has not begun");
    world.write("line 0\n");
    assert_eq!(take(&mut reader), "line 0\n");
    for number in 1..6 {
        world.write(&format!("line {number}\n"));
    }
    assert_eq!(
        take(&mut reader),
        "line 1\nline 2\nline 3\nline 4\nline 5\n"
    );
    world.write("line 6\n");
    world.end(0);
    assert_eq!(take(&mut reader), "line 6\n");
    assert_eq!(reader.step().unwrap(), Step::End);
}

#[test]
fn lines_that_rotated_away_unread_are_missed_with_a_notice() {
    let mut world = World::new(64);
    world.write("line 0\n");
    let mut reader = world.reader(follow());
    assert_eq!(take(&mut reader), "line 0\n");
    for number in 1..20 {
        world.write(&format!("line {number}\n"));
    }
    let text = take(&mut reader);
    // The file that it had open is read to its end, wherever it went.
    let (notice, rest) = text
        .strip_prefix("line 1\n")
        .and_then(|text| text.split_once('\n'))
        .unwrap();
    assert!(notice.contains("output was lost"), "{notice}");
    assert!(rest.ends_with("line 18\nline 19\n"), "{rest}");
    assert!(!rest.contains("line 5\n"), "{rest}");
}

#[test]
fn without_follow_it_ends_where_the_file_ended_when_it_began() {
    let mut world = World::new(16 << 10);
    world.write("one\n");
    let mut reader = world.reader(tail(Tail::All));
    assert_eq!(
        reader.step().unwrap(),
        Step::Skipped,
        "it has opened the file"
    );
    world.write("two\n");
    assert_eq!(take(&mut reader), "one\n");
}

#[test]
fn a_last_entry_that_is_half_written_waits_for_its_end() {
    let mut world = World::new(16 << 10);
    world.write("one\n");
    let path = world.dir.log_path();
    let whole = fs::read(&path).unwrap();
    let torn = [&whole[..], b"0.002000000 stdout F tw"].concat();
    fs::write(&path, &torn).unwrap();
    let mut reader = world.reader(follow());
    assert_eq!(take(&mut reader), "one\n");
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"o\n").unwrap();
    assert_eq!(take(&mut reader), "two\n");
}

#[test]
fn damage_is_left_out_with_a_notice() {
    let mut world = World::new(16 << 10);
    world.write("one\n");
    let path = world.dir.log_path();
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"\0\0\0garbage\n");
    fs::write(&path, &bytes).unwrap();
    let mut reader = world.reader(tail(Tail::All));
    let text = take(&mut reader);
    assert!(
        text.starts_with("one\n") && text.contains("damaged"),
        "{text}"
    );
}

#[test]
fn output_that_the_disk_refused_is_confessed_at_the_end() {
    let mut world = World::new(16 << 10);
    world.write("one\n");
    world.end(7);
    for options in [tail(Tail::All), follow()] {
        let text = world.read_all(options);
        assert_eq!(
            text,
            "one\n7 bytes of output could not be written to the disk of the node\n"
        );
    }
}

#[test]
fn the_first_lines_of_a_task_are_new_whatever_the_tail_says() {
    let mut world = World::new(16 << 10);
    let none = LogOptions {
        follow: true,
        ..tail(Tail::Last(0))
    };
    let mut reader = world.reader(none);
    assert_eq!(reader.step().unwrap(), Step::Idle);
    world.write("one\n");
    assert_eq!(take(&mut reader), "one\n");
    let mut late = world.reader(none);
    assert_eq!(take(&mut late), "");
    world.write("two\n");
    assert_eq!(take(&mut late), "two\n");
}

#[test]
fn a_task_that_is_not_prepared_yet_is_waited_for_by_followers_only() {
    let root = tempfile::tempdir().unwrap();
    let dir = TaskDir::new(root.path().join("task"));
    let mut now = Reader::new(dir.clone(), FILES_MAX, tail(Tail::All));
    assert_eq!(now.step().unwrap(), Step::End);
    let mut reader = Reader::new(dir.clone(), FILES_MAX, follow());
    assert_eq!(reader.step().unwrap(), Step::Idle);
    dir.create().unwrap();
    assert_eq!(reader.step().unwrap(), Step::Idle);
    let mut writer = Writer::new(dir.log_path(), 1 << 20, FILES_MAX);
    writer.append(b"0.000000001 stdout F one\n");
    assert_eq!(take(&mut reader), "one\n");
}

#[test]
fn a_removed_task_ends_its_stream() {
    let mut world = World::new(16 << 10);
    world.write("one\n");
    let mut reader = world.reader(follow());
    assert_eq!(take(&mut reader), "one\n");
    world.dir.remove().unwrap();
    assert_eq!(take(&mut reader), "");
    assert_eq!(reader.step().unwrap(), Step::End);
}
