//! How far this node's clock is off the manager's, as a condition of the node.

use std::time::Duration;

use swarm_api::v1;
use swarm_types::Timestamp;
use swarm_types::conditions::{self, Kind};

/// Clocks may differ by so much: what `swarmd join --check` allows too. The answer to a session
/// takes a moment, which counts as a difference.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

/// What was heard of the manager's clock at the last session.
#[derive(Debug, Default)]
pub(crate) struct Skew {
    /// The words, for as long as the clocks differ: a description that changes costs a session.
    trouble: Option<String>,
}

impl Skew {
    /// A manager told its time.
    pub(crate) fn hear(&mut self, ours: Timestamp, theirs: Timestamp) {
        let (difference, direction) = match ours >= theirs {
            true => (ours.saturating_since(theirs), "ahead of"),
            false => (theirs.saturating_since(ours), "behind"),
        };
        if difference <= CLOCK_SKEW_MAX {
            self.trouble = None;
        } else if self.trouble.is_none() {
            let seconds = difference.as_secs();
            self.trouble = Some(format!(
                "the clock is {seconds} s {direction} the manager's"
            ));
        }
    }

    /// Adds to a description what is so.
    pub(crate) fn describe(&self, description: &mut v1::NodeDescription) {
        if let Some(text) = &self.trouble {
            conditions::add(description, Kind::Clock, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_of_more_than_a_minute_is_told_until_it_is_gone() {
        let mut skew = Skew::default();
        let mut told = |ours: i64, theirs: i64| {
            let at = |seconds: i64| Timestamp::from_millis(seconds * 1000);
            skew.hear(at(ours), at(theirs));
            let mut description = v1::NodeDescription::default();
            skew.describe(&mut description);
            let told = conditions::of(&description).next();
            told.map(|condition| condition.text.to_owned())
        };
        assert_eq!(told(60, 0), None);
        assert_eq!(told(0, 60), None);
        let ahead = Some("the clock is 61 s ahead of the manager's".to_owned());
        assert_eq!(told(61, 0), ahead);
        assert_eq!(told(65, 0), ahead, "the same words");
        assert_eq!(told(10, 0), None);
        let behind = Some("the clock is 3600 s behind the manager's".to_owned());
        assert_eq!(told(0, 3600), behind);
    }
}
