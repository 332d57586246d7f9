//! Which sockets stay unread until their peer makes its next call.
//!
//! A client on grpc-go sends a window update and a PING after the data of every answer. Nothing
//! hurries about these: with the PING it estimates the bandwidth of a connection on which nothing
//! travels. Reading and answering them at once costs a manager as much as another heartbeat, and
//! with the next heartbeat next to nothing. So what comes soon after a small answer, and is too
//! short for a call, stays in the kernel until more comes, for [`LEFT_UNREAD`] at most. No client
//! that is content with waiting for a heartbeat loses patience in that time: grpc-go takes a
//! connection for dead 20 s after a PING that it sent to find that out, and sends such a one only
//! when nothing has come for 10 s, so never soon after an answer.
//!
//! Owns the rule. Does not own sockets, nor how they are woken.

use std::collections::VecDeque;
use std::time::Duration;

/// Nothing stays unread for so long after a large read or write on a connection: whoever still
/// takes in what was sent says with such small frames that there is room for more.
const QUIET: Duration = Duration::from_secs(5);
/// What comes so soon after an answer may be a reaction to it: the two looks at the sockets that
/// follow, and the way to the peer and back.
const REACTION: Duration = Duration::from_millis(500);
/// A window update and a PING in one record of TLS 1.2 are 59 bytes, of TLS 1.3 52. A call with its
/// message is longer, but for a few that have no field, and those wait for nothing at the peer.
pub(super) const REACTION_BYTES_MAX: usize = 64;
/// How long they may stay unread: a little longer than the longest pause between two heartbeats at
/// the default period.
pub(super) const LEFT_UNREAD: Duration = Duration::from_secs(6);
/// Sockets of a lane that are left unread, and those that were within [`LEFT_UNREAD`]. What comes
/// beyond that is read at once.
const LEFT_MAX: usize = 1 << 16;

/// Milliseconds on the clock of a lane.
pub(super) type Millis = u64;

pub(super) fn millis(time: Duration) -> Millis {
    Millis::try_from(time.as_millis()).unwrap_or(Millis::MAX)
}

/// Whether news after an answer may be a mere reaction to it, on a connection that has been busy at
/// one time.
pub(super) fn is_reaction(busy: Millis, answered: Millis, now: Millis) -> bool {
    let is_quiet = now.saturating_sub(busy) >= millis(QUIET);
    is_quiet && now.saturating_sub(answered) <= millis(REACTION)
}

/// The sockets that are left unread, by their keys, in the order of their ends.
#[derive(Debug, Default)]
pub(super) struct Echoes {
    left: VecDeque<(Millis, u64)>,
}

impl Echoes {
    /// Leaves a socket unread; whether there is room for it.
    pub(super) fn leave(&mut self, key: u64, now: Millis) -> bool {
        let has_room = self.left.len() < LEFT_MAX;
        if has_room {
            self.left.push_back((now + millis(LEFT_UNREAD), key));
        }
        has_room
    }

    /// The next socket whose time is over. It may have been read meanwhile.
    pub(super) fn next_due(&mut self, now: Millis) -> Option<u64> {
        let (until, key) = *self.left.front()?;
        if until > now {
            return None;
        }
        self.left.pop_front();
        Some(key)
    }

    /// When the next one is due.
    pub(super) fn due(&self) -> Option<Millis> {
        self.left.front().map(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_due_in_order_and_not_before_their_time() {
        let (mut echoes, wait) = (Echoes::default(), millis(LEFT_UNREAD));
        assert!(echoes.leave(1, 1_000));
        assert!(echoes.leave(2, 1_500));
        assert_eq!(echoes.due(), Some(1_000 + wait));
        assert_eq!(echoes.next_due(999 + wait), None);
        assert_eq!(echoes.next_due(1_000 + wait), Some(1));
        assert_eq!(echoes.next_due(1_000 + wait), None);
        assert_eq!(echoes.next_due(9_000 + wait), Some(2));
        assert_eq!(echoes.due(), None);
    }

    #[test]
    fn no_more_are_left_than_the_bound() {
        let mut echoes = Echoes::default();
        let left = (0..).take_while(|key| echoes.leave(*key, 0)).count();
        assert_eq!(left, LEFT_MAX);
    }

    #[test]
    fn only_what_comes_soon_on_a_quiet_connection_is_a_reaction() {
        assert!(is_reaction(0, 7_000, 7_000));
        assert!(is_reaction(0, 7_000, 7_500));
        assert!(!is_reaction(0, 7_000, 7_501));
        assert!(is_reaction(2_100, 7_000, 7_100));
        assert!(!is_reaction(2_101, 7_000, 7_100));
    }
}
