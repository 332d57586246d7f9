//! What becomes of a refusal: a count by its reason, and a line of the log, of which there are only
//! so many.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use crate::Clock;
use crate::metrics::{Metrics, Refused};
use crate::notices::Notices;

/// The refusals of one listener.
#[derive(Debug)]
pub(super) struct Refusals {
    metrics: Metrics,
    clock: Clock,
    /// By reason, so that a flood of one kind does not hide the others.
    notices: Mutex<BTreeMap<&'static str, Notices>>,
}

impl Refusals {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            clock: Clock::new(),
            notices: Mutex::default(),
        }
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A connection did not get in.
    pub(super) fn refuse(&self, remote: SocketAddr, reason: Refused, text: &str) {
        self.note(remote, reason, text, "connection refused");
    }

    /// A connection that was open is ended.
    pub(super) fn end(&self, remote: SocketAddr, reason: Refused, text: &str) {
        self.note(remote, reason, text, "connection ended");
    }

    fn note(&self, remote: SocketAddr, reason: Refused, text: &str, what: &str) {
        self.metrics.refused(reason);
        let reason = reason.label();
        let line = {
            let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
            notices
                .entry(reason)
                .or_default()
                .ask(self.clock.monotonic())
        };
        let Some(line) = line else { return };
        let more = if line.is_last {
            "; more for this reason will be counted in swarm_refused_total, and not written, for \
             some seconds"
        } else {
            ""
        };
        let left_out = (line.left_out > 0).then_some(line.left_out);
        // Anybody who reaches the port can cause this line, so it is not a warning.
        tracing::info!(%remote, reason, text, left_out, "{what}{more}");
    }
}
