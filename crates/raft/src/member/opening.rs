//! What of a directory counts: the rules that turn log and snapshots into one state.

use crate::consensus::Restored;
use crate::disk::{Disk, DiskError};
use crate::log::{HardState, Identity, LogError, Position, Recovered, Reset};
use crate::seal::Keyring;
use crate::snapshot::{self, SnapshotMeta, SnapshotReader};

/// What a crash left half made. The log removes its own.
pub(super) fn remove_unfinished<D: Disk>(disk: &mut D) -> Result<(), DiskError> {
    // A rename that only the system's memory knows counts from here on.
    disk.sync_dir()?;
    for name in disk.list()? {
        if snapshot::is_unfinished(&name) {
            disk.remove(&name)?;
        }
    }
    Ok(())
}

type FoundSnapshot = Option<(SnapshotMeta, Identity)>;

/// The newest snapshot that reads to its end, and why newer ones did not.
pub(super) fn newest_snapshot<D: Disk + Clone>(
    disk: &D,
    keys: &Keyring,
) -> Result<(FoundSnapshot, Vec<LogError>), LogError> {
    let mut skipped = Vec::new();
    for at in snapshot::list(&mut disk.clone())? {
        let opened = SnapshotReader::open(disk.clone(), at, keys).and_then(|reader| {
            let identity = reader.identity().clone();
            reader.verify().map(|meta| (meta, identity))
        });
        match opened {
            Ok(found) => return Ok((Some(found), skipped)),
            Err(error @ (LogError::Corrupt { .. } | LogError::Unsealable { .. })) => {
                skipped.push(error);
            }
            Err(
                error @ (LogError::Disk(_)
                | LogError::Poisoned(_)
                | LogError::WrongKey { .. }
                | LogError::UnknownFormat { .. }
                | LogError::Foreign { .. }
                | LogError::Gap { .. }),
            ) => return Err(error),
        }
    }
    Ok((None, skipped))
}

/// Puts the file of a snapshot that is damaged or missing in the place of the entries that are
/// missing with it: the operator looks for files.
pub(super) fn name_the_file(
    error: LogError,
    skipped: &[LogError],
    found: Option<&Recovered>,
) -> LogError {
    let LogError::Gap { from, to } = error else {
        return error;
    };
    if let Some(damage) = skipped.first() {
        return damage.clone();
    }
    match found.and_then(|found| found.snapshot) {
        Some(at) => LogError::Corrupt {
            file: snapshot::file_name(at),
            offset: 0,
            what: format!("the snapshot is missing, and entries {from} to {to} are in no segment"),
        },
        None => error,
    }
}

/// The identity on disk, which must fit the cluster; or the given one.
pub(super) fn settle_identity(
    given: &Identity,
    found: Option<&Recovered>,
    snapshot: Option<&(SnapshotMeta, Identity)>,
) -> Result<Identity, LogError> {
    let on_disk = found.map(|found| &found.identity);
    let in_snapshot = snapshot.map(|(_, identity)| identity);
    let Some(known) = on_disk.or(in_snapshot) else {
        return Ok(given.clone());
    };
    let foreign = |file: String, found: &Identity, expected: &Identity| LogError::Foreign {
        file,
        found: found.clone(),
        expected: expected.clone(),
    };
    if let (Some(identity), Some((meta, _))) = (in_snapshot, snapshot)
        && identity != known
    {
        return Err(foreign(snapshot::file_name(meta.at), identity, known));
    }
    let both = !known.cluster_id().is_empty() && !given.cluster_id().is_empty();
    if both && known.cluster_id() != given.cluster_id() {
        return Err(foreign("of the raft log".to_owned(), known, given));
    }
    Ok(known.clone())
}

/// Whether nothing ever happened to this member, but perhaps a first start that was cut short.
pub(super) fn is_unborn(restored: &Restored) -> bool {
    restored.snapshot.is_none()
        && restored.entries.len() <= 1
        && restored.hard_state == HardState::default()
}

/// Puts snapshot and log together.
pub(super) fn settle_log(
    found: Option<&Recovered>,
    snapshot: Option<SnapshotMeta>,
) -> Result<(Restored, Reset), LogError> {
    let at = snapshot.as_ref().map(|meta| meta.at).unwrap_or_default();
    let mut hard_state = found.map(|found| found.hard_state).unwrap_or_default();
    let mut restored = Restored {
        snapshot,
        ..Restored::default()
    };
    let mut reset = Reset::Keep;
    let usable = found.filter(|found| covers(found, at));
    match (found, usable) {
        (_, Some(found)) => {
            restored.entries = found.entries.clone();
            restored.base = match found.base_term {
                Some(term) => Position {
                    index: found.base_index,
                    term,
                },
                // The term of the base is gone, so the first entries are of no use: they end at
                // the snapshot at the latest.
                None => {
                    restored.entries.retain(|entry| entry.at.index > at.index);
                    at
                }
            };
        }
        (Some(found), None) if found.base_index > at.index => {
            return Err(LogError::Gap {
                from: at.index + 1,
                to: found.base_index,
            });
        }
        (_, None) => (restored.base, reset) = (at, Reset::Discard),
    }
    if at.term > hard_state.term {
        // The snapshot came from a leader whose term was not yet written down.
        (hard_state.term, hard_state.vote) = (at.term, 0);
    }
    hard_state.commit = hard_state.commit.max(at.index);
    let last = restored.base.index + restored.entries.len() as u64;
    if hard_state.commit > last {
        return Err(LogError::Gap {
            from: last + 1,
            to: hard_state.commit,
        });
    }
    restored.hard_state = hard_state;
    Ok((restored, reset))
}

/// Whether the log goes on from the snapshot: it holds that very entry.
fn covers(found: &Recovered, at: Position) -> bool {
    let in_range = at.index >= found.base_index && at.index <= found.last_index();
    in_range && found.term_at(at.index).is_none_or(|term| term == at.term)
}
