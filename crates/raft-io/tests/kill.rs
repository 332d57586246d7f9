//! kill -9 of a process that writes the log, again and again: what it had acknowledged is there
//! after the next start.
//!
//! This file is its own program: started with a directory as its argument it is the child that
//! writes; started by cargo it is the test.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use swarm_api::raftpb;
use swarm_raft::seal::DataKey;
use swarm_raft::{LogError, Position};
use swarm_raft_io::driver::{NoPeers, Origin, RestoreError, SnapshotPieces};
use swarm_raft_io::keys::{InMemory, KeySet};
use swarm_raft_io::{Apply, Handle, Options, StateDir, start};

/// First argument of the child.
const CHILD: &str = "write-until-killed";

/// How often the child is killed.
const ROUNDS: usize = 12;

/// Longest life of a child, if its parent does not kill it.
const CHILD_LIFE_MAX: Duration = Duration::from_secs(60);

/// Numbers in the order of the log.
#[derive(Clone, Default)]
struct Numbers(Arc<Mutex<Vec<u64>>>);

impl Numbers {
    fn with<R>(&self, act: impl FnOnce(&mut Vec<u64>) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("entries are eight bytes"))
}

impl Apply for Numbers {
    fn apply(&mut self, _at: Position, data: &Bytes, _origin: Origin) {
        self.with(|all| all.push(number(data)));
    }

    fn conf_change(&mut self, _at: Position, _change: &raftpb::ConfChange) {}

    fn refused(&mut self, _data: &Bytes) {}

    fn dropped(&mut self) {}

    fn snapshot(&mut self) -> SnapshotPieces {
        let all = self.with(|all| all.clone());
        Box::new(
            all.into_iter()
                .map(|number| Bytes::copy_from_slice(&number.to_le_bytes())),
        )
    }

    fn restore(
        &mut self,
        _at: Position,
        pieces: &mut dyn Iterator<Item = Result<Vec<u8>, LogError>>,
    ) -> Result<(), RestoreError> {
        let bytes = pieces.collect::<Result<Vec<_>, _>>()?.concat();
        self.with(|all| *all = bytes.chunks(8).map(number).collect());
        Ok(())
    }
}

fn open(dir: &Path) -> (Handle, Numbers) {
    let mut options = Options::alone("cluster");
    options.member.segment_bytes = 16 * 1024;
    options.member.snapshot_interval = 40;
    options.member.entries_for_slow_followers = 5;
    let numbers = Numbers::default();
    let state = StateDir::open(dir).expect("nobody else holds the directory");
    let keeper = InMemory::with(KeySet::settled(DataKey::new([1; 32])));
    let started = start(state, &keeper, options, numbers.clone(), NoPeers);
    let (handle, _) = started.expect("the log opens");
    (handle, numbers)
}

/// Writes numbers and says which are acknowledged, until the end.
async fn write_until_killed(dir: &Path) {
    let (handle, numbers) = open(dir);
    let mut out = std::io::stdout();
    for next in numbers.with(|all| all.len() as u64).. {
        let data = Bytes::copy_from_slice(&next.to_le_bytes());
        handle.propose(data).await.expect("the log takes it");
        // The pipe may be gone with the parent; then this life has no purpose.
        if writeln!(out, "{next}").and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a process to kill is what this test is about"
)]
fn spawn(dir: &Path) -> (Child, BufReader<ChildStdout>) {
    let program = std::env::current_exe().expect("a running program has a path");
    let mut child = Command::new(program)
        .arg(CHILD)
        .arg(dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test can start itself");
    let out = child.stdout.take().expect("it was piped");
    (child, BufReader::new(out))
}

/// Kills a child after some acknowledgements and returns the last one that it made.
fn one_life(dir: &Path, acknowledgements: usize) -> Option<u64> {
    let (mut child, out) = spawn(dir);
    let mut lines = out.lines();
    let mut last = None;
    for line in lines.by_ref().take(acknowledgements) {
        last = line.ok().and_then(|line| line.parse().ok());
    }
    child.kill().expect("the child runs until it is killed");
    child.wait().expect("a killed child ends");
    // What was said before the end counts as well; a line cut short does not.
    for line in lines.map_while(Result::ok) {
        last = line.parse().ok().max(last);
    }
    last
}

fn killed_again_and_again_it_keeps_what_it_acknowledged() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut acknowledged = None;
    for round in 0..ROUNDS {
        let last = one_life(dir.path(), 5 + round * 17);
        assert!(
            last > acknowledged,
            "round {round}: no progress, {last:?} after {acknowledged:?}"
        );
        acknowledged = last;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let (handle, numbers) = open(dir.path());
        let all = numbers.with(|all| all.clone());
        let count = all.len() as u64;
        assert!(
            Some(count) > acknowledged,
            "round {round}: {count} of {acknowledged:?}"
        );
        assert_eq!(
            all,
            (0..count).collect::<Vec<_>>(),
            "round {round}: in order, each once"
        );
        runtime.block_on(handle.stop());
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, word, dir] = arguments.as_slice()
        && word == CHILD
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let work = async {
            tokio::time::timeout(CHILD_LIFE_MAX, write_until_killed(Path::new(dir))).await
        };
        let ended = runtime.map(|runtime| runtime.block_on(work));
        return if ended.is_ok() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        };
    }
    killed_again_and_again_it_keeps_what_it_acknowledged();
    ExitCode::SUCCESS
}
