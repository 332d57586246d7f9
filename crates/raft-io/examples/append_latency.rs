//! Measures what one durable proposal costs on the disk under the working directory.
//!
//! `cargo run --release -p swarm-raft-io --example append_latency [directory]`

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use swarm_api::raftpb;
use swarm_raft::{LogError, Position};
use swarm_raft_io::driver::{NoPeers, Origin, Pending, RestoreError, SnapshotPieces};
use swarm_raft_io::keys::{DataKey, InMemory, KeySet};
use swarm_raft_io::{Apply, Handle, Options, StateDir, start};
use swarm_rt::Clock;

/// Keeps nothing.
struct Nothing;

impl Apply for Nothing {
    fn apply(&mut self, _at: Position, _data: &Bytes, _origin: Origin) {}
    fn conf_change(&mut self, _at: Position, _change: &raftpb::ConfChange) {}
    fn refused(&mut self, _data: &Bytes) {}

    fn dropped(&mut self) {}
    fn snapshot(&mut self) -> SnapshotPieces {
        Box::new(std::iter::empty())
    }
    fn restore(
        &mut self,
        _at: Position,
        pieces: &mut dyn Iterator<Item = Result<Vec<u8>, LogError>>,
    ) -> Result<(), RestoreError> {
        for piece in pieces {
            piece?;
        }
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let chosen = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "append-latency-state".to_owned());
    let state = StateDir::open(Path::new(&chosen))?;
    // The same key for every run, so that the directory can be used again.
    let keeper = InMemory::with(KeySet::settled(DataKey::new([1; 32])));
    let (handle, _) = start(state, &keeper, Options::alone(""), Nothing, NoPeers)?;
    let mut out = std::io::stdout().lock();
    for together in [1, 16, 64, 256] {
        let (each, rate) = measure(&handle, together).await?;
        let (p10, p50, p99) = (
            each[each.len() / 10],
            each[each.len() / 2],
            each[each.len() - 2],
        );
        writeln!(
            out,
            "{together:>4} x 1 KiB per batch: p10 {p10:?} p50 {p50:?} p99 {p99:?}, {rate:.0}/s"
        )?;
    }
    handle.stop().await;
    Ok(())
}

/// Time of each of 200 batches, sorted, and proposals per second.
async fn measure(
    handle: &Handle,
    together: usize,
) -> Result<(Vec<Duration>, f64), Box<dyn std::error::Error>> {
    let clock = Clock::new();
    let data = Bytes::from(vec![b'x'; 1024]);
    let mut times = Vec::new();
    let begin = clock.monotonic();
    for _ in 0..200 {
        let before = clock.monotonic();
        let batch: Result<Vec<Pending>, _> = (0..together)
            .map(|_| handle.submit(data.clone(), 0))
            .collect();
        for one in batch? {
            one.wait().await?;
        }
        times.push(clock.monotonic() - before);
    }
    let rate = (200 * together) as f64 / (clock.monotonic() - begin).as_secs_f64();
    times.sort();
    Ok((times, rate))
}
