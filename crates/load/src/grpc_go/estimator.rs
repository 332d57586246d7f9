//! How much is on the way between the two ends of a connection, as grpc-go estimates it
//! (`internal/transport/bdp_estimator.go`).
//!
//! The first data after a sample has ended begin the next: they are followed by a PING, and what
//! comes until its answer is the sample. So there is one PING at a time, and with an idle manager
//! one for each heartbeat.

use std::time::Instant;

/// Estimates beyond this are not made.
const ESTIMATE_BYTES_MAX: u32 = 16 << 20;
/// A sample of less than this part of the estimate says nothing about it.
const PART_THAT_COUNTS: f64 = 0.66;
/// The estimate is so many times the sample that fills it.
const GROWTH: f64 = 2.0;
/// What a new time of a round trip counts against those before, after the first ones.
const NEWS: f64 = 0.9;
/// Round trips of which the plain average is taken at the beginning.
const FIRST_SAMPLES: u64 = 10;
/// A sample holds at most so many times what is on the way at once.
const SAMPLE_PER_ROUND_TRIP: f64 = 1.5;

#[derive(Debug)]
pub(super) struct Estimator {
    estimate: u32,
    sample: u32,
    samples: u64,
    /// Seconds.
    round_trip: f64,
    /// Bytes a second.
    bandwidth_max: f64,
    /// A sample is under way, since then if its PING has gone out.
    is_under_way: bool,
    asked: Option<Instant>,
}

impl Estimator {
    pub(super) fn new() -> Self {
        Self {
            estimate: super::windows::INITIAL_BYTES,
            sample: 0,
            samples: 0,
            round_trip: 0.0,
            bandwidth_max: 0.0,
            is_under_way: false,
            asked: None,
        }
    }

    /// A DATA frame of so many bytes came; whether a PING has to follow.
    pub(super) fn received(&mut self, bytes: u32) -> bool {
        if self.estimate == ESTIMATE_BYTES_MAX {
            return false;
        }
        if self.is_under_way {
            self.sample = self.sample.saturating_add(bytes);
            return false;
        }
        self.is_under_way = true;
        self.sample = bytes;
        self.samples += 1;
        self.asked = None;
        true
    }

    /// The PING goes out.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    /// The answer to the PING came. The new size of all windows, if they are too small.
    pub(super) fn answered(&mut self, now: Instant) -> Option<u32> {
        let took = now.duration_since(self.asked?).as_secs_f64();
        let weight = if self.samples < FIRST_SAMPLES {
            1.0 / self.samples as f64
        } else {
            NEWS
        };
        self.round_trip += (took - self.round_trip) * weight;
        self.is_under_way = false;
        let sample = f64::from(self.sample);
        let bandwidth = sample / (self.round_trip * SAMPLE_PER_ROUND_TRIP);
        let is_fastest = bandwidth >= self.bandwidth_max;
        if is_fastest {
            self.bandwidth_max = bandwidth;
        }
        let is_filled = sample >= PART_THAT_COUNTS * f64::from(self.estimate);
        if !is_filled || !is_fastest {
            return None;
        }
        let grown = (GROWTH * sample).min(f64::from(ESTIMATE_BYTES_MAX));
        self.estimate = grown as u32;
        Some(self.estimate)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn there_is_one_ping_at_a_time_and_one_for_each_quiet_answer() {
        let (mut estimator, mut now) = (Estimator::new(), Instant::now());
        for _ in 0..20 {
            assert!(estimator.received(16), "the first data ask");
            estimator.asked(now);
            assert!(!estimator.received(16), "one question at a time");
            now += Duration::from_millis(100);
            assert_eq!(estimator.answered(now), None, "32 bytes fill no window");
        }
    }

    #[test]
    fn windows_grow_with_samples_that_fill_them_up_to_the_maximum() {
        let (mut estimator, mut now) = (Estimator::new(), Instant::now());
        let mut window = super::super::windows::INITIAL_BYTES;
        let mut grown = Vec::new();
        while estimator.received(window) {
            estimator.asked(now);
            now += Duration::from_millis(1);
            window = estimator.answered(now).expect("a full window");
            grown.push(window);
        }
        assert_eq!(grown[..2], [131_070, 262_140]);
        assert_eq!(grown.last(), Some(&ESTIMATE_BYTES_MAX));
    }

    #[test]
    fn a_slower_sample_changes_nothing() {
        let (mut estimator, now) = (Estimator::new(), Instant::now());
        assert!(estimator.received(60_000));
        estimator.asked(now);
        assert_eq!(
            estimator.answered(now + Duration::from_millis(1)),
            Some(120_000)
        );
        assert!(estimator.received(100_000));
        estimator.asked(now);
        assert_eq!(estimator.answered(now + Duration::from_secs(5)), None);
    }

    #[test]
    fn an_answer_to_no_question_is_nothing() {
        assert_eq!(Estimator::new().answered(Instant::now()), None);
    }
}
