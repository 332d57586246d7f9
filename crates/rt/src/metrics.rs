//! The figures that a node shows to Prometheus.
//!
//! Owns the registry, the counters of what was refused, and the gauges of connections. Other parts
//! add their own by [`Metrics::show`]. Names are those of
//! SwarmKit where it has them; ours begin with `swarm_` too.

mod http;
mod refused;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::text::{encode_eof, encode_registry};

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::family::Family;
pub use prometheus_client::metrics::gauge::Gauge;
pub use prometheus_client::metrics::histogram::Histogram;
pub use prometheus_client::registry::Registry;

use crate::files;
pub use http::serve;
pub use refused::Refused;

/// The buckets of every histogram of seconds; those that Go's client of Prometheus has unless told
/// otherwise.
pub const SECONDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// One label and its value, both from a fixed set: a label never holds what a peer sent.
pub type Label = [(&'static str, &'static str); 1];

/// The figures of one node. Clones share them.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

struct Inner {
    registry: Mutex<Registry>,
    refused: Family<Label, Counter>,
    connections: Family<Label, Gauge>,
    handshakes: Gauge,
    files: Files,
    /// Of other parts, by their names.
    parts: Mutex<BTreeMap<&'static str, Part>>,
}

/// The files of the process, with the names that every exporter gives them.
#[derive(Debug, Default)]
struct Files {
    open: Gauge,
    max: Gauge,
}

impl Files {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "process_open_fds",
            "Files that the process has open, sockets among them",
            self.open.clone(),
        );
        registry.register(
            "process_max_fds",
            "Files that the process may have open",
            self.max.clone(),
        );
    }

    fn update(&self) {
        let shown = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.open.set(files::open().map_or(0, shown));
        self.max.set(shown(files::limit()));
    }
}

/// The figures of a part that may be started anew.
struct Part {
    registry: Registry,
    update: Box<dyn Fn() + Send>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry with the figures of connections and refusals.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let refused = Family::<Label, Counter>::default();
        for reason in Refused::ALL {
            // Shown as zero from the start, so that a rate can be taken of the first one.
            drop(refused.get_or_create(&[("reason", reason.label())]));
        }
        let connections = Family::<Label, Gauge>::default();
        for peer in ["manager", "none", "worker"] {
            drop(connections.get_or_create(&[("peer", peer)]));
        }
        let handshakes = Gauge::default();
        registry.register(
            "swarm_refused",
            "What peers asked for and did not get, by reason",
            refused.clone(),
        );
        registry.register(
            "swarm_connections",
            "Open connections on the remote listener, by what the peer showed",
            connections.clone(),
        );
        registry.register(
            "swarm_handshakes",
            "TLS handshakes in progress on the remote listener",
            handshakes.clone(),
        );
        let files = Files::default();
        files.register(&mut registry);
        Self {
            inner: Arc::new(Inner {
                registry: Mutex::new(registry),
                refused,
                connections,
                handshakes,
                files,
                parts: Mutex::default(),
            }),
        }
    }

    /// Shows the figures of a part, in place of those that a part of this name showed before.
    /// `update` brings them up to date each time before somebody looks.
    pub fn show(
        &self,
        name: &'static str,
        add: impl FnOnce(&mut Registry),
        update: impl Fn() + Send + 'static,
    ) {
        let mut registry = Registry::default();
        add(&mut registry);
        let update = Box::new(update);
        self.parts().insert(name, Part { registry, update });
    }

    /// Shows nothing more of a part, which is over.
    pub fn forget(&self, name: &'static str) {
        self.parts().remove(name);
    }

    /// Counts something that was refused.
    pub fn refused(&self, reason: Refused) {
        self.inner
            .refused
            .get_or_create(&[("reason", reason.label())])
            .inc();
    }

    /// How often this was refused.
    pub fn refused_count(&self, reason: Refused) -> u64 {
        self.inner
            .refused
            .get_or_create(&[("reason", reason.label())])
            .get()
    }

    /// Open connections, by what the peer showed: `worker`, `manager` or `none`.
    pub(crate) fn connections(&self, peer: &'static str) -> Gauge {
        self.inner
            .connections
            .get_or_create_owned(&[("peer", peer)])
    }

    /// Handshakes in progress.
    pub(crate) fn handshakes(&self) -> &Gauge {
        &self.inner.handshakes
    }

    /// Everything in the text format of OpenMetrics.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let parts = self.parts();
        self.inner.files.update();
        // Writing into a string cannot fail.
        let _ = encode_registry(&mut text, &self.registry());
        for part in parts.values() {
            (part.update)();
            let _ = encode_registry(&mut text, &part.registry);
        }
        let _ = encode_eof(&mut text);
        text
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<&'static str, Part>> {
        let parts = self.inner.parts.lock();
        parts.unwrap_or_else(PoisonError::into_inner)
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.inner
            .registry
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_is_shown_from_the_start_and_counted_by_its_reason() {
        let metrics = Metrics::new();
        let text = metrics.text();
        for reason in Refused::ALL {
            let line = format!("swarm_refused_total{{reason=\"{}\"}} 0\n", reason.label());
            assert!(text.contains(&line), "{line} is not in\n{text}");
        }
        metrics.refused(Refused::HandshakeTimeout);
        let text = metrics.text();
        let line = "swarm_refused_total{reason=\"handshake_timeout\"} 1\n";
        assert!(text.contains(line), "{text}");
        assert_eq!(metrics.refused_count(Refused::HandshakeTimeout), 1);
        assert_eq!(metrics.refused_count(Refused::RemovedNode), 0);
    }

    #[test]
    fn a_part_that_starts_anew_replaces_its_figures_and_one_that_is_over_has_none() {
        let metrics = Metrics::new();
        for value in 1..=2 {
            let gauge = Gauge::<i64>::default();
            let shown = gauge.clone();
            metrics.show(
                "part",
                |registry| registry.register("swarm_part", "A part", gauge),
                move || _ = shown.set(value),
            );
        }
        let text = metrics.text();
        assert_eq!(text.matches("\nswarm_part 2\n").count(), 1, "{text}");
        assert_eq!(text.matches("\nswarm_part ").count(), 1, "{text}");
        assert_eq!(text.matches("# EOF").count(), 1, "{text}");
        metrics.forget("part");
        assert!(!metrics.text().contains("swarm_part"));
    }
}
