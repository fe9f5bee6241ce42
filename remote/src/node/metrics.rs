//! Metrics: what a node counts, and its text for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::Error;

/// Counters since the node started.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Connections that said hello and were welcomed.
    pub(super) welcomed: AtomicU64,
    /// Connections that were turned away.
    pub(super) turned_away: AtomicU64,
    /// Bytes of blobs and entries that came in.
    pub(super) bytes_in: AtomicU64,
    /// Bytes of slices and entries that went out.
    pub(super) bytes_out: AtomicU64,
    /// Slices proven.
    pub(super) slices: AtomicU64,
    requests: Mutex<BTreeMap<&'static str, u64>>,
    failures: Mutex<BTreeMap<&'static str, u64>>,
}

/// What is so at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gauges {
    pub(super) connections: u64,
    pub(super) drives: u64,
    pub(super) blobs: u64,
    pub(super) bytes: u64,
    pub(super) reserved: u64,
}

impl Metrics {
    /// Counts a request by its word.
    pub(super) fn request(&self, name: &'static str) {
        bump(&self.requests, name);
    }

    /// Counts a failure by its kind.
    pub(super) fn failure(&self, error: &Error) {
        bump(&self.failures, kind(error));
    }

    /// Requests by word.
    pub(super) fn requests(&self) -> BTreeMap<&'static str, u64> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Failures by kind.
    pub(super) fn failures(&self) -> BTreeMap<&'static str, u64> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The text format of Prometheus, version 0.0.4.
    pub(super) fn text(&self, gauges: &Gauges) -> String {
        let mut out = String::new();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        for (name, kind, help, value) in [
            ("connections", "gauge", "Open connections.", gauges.connections),
            ("drives", "gauge", "Authorised drives.", gauges.drives),
            ("blobs", "gauge", "Blobs stored.", gauges.blobs),
            ("stored_bytes", "gauge", "Bytes stored, proofs and logs included.", gauges.bytes),
            ("reserved_bytes", "gauge", "Bytes reserved for puts under way.", gauges.reserved),
            ("welcomed_total", "counter", "Connections welcomed.", count(&self.welcomed)),
            ("refused_total", "counter", "Connections refused.", count(&self.turned_away)),
            ("in_bytes_total", "counter", "Bytes of blobs and entries in.", count(&self.bytes_in)),
            (
                "out_bytes_total",
                "counter",
                "Bytes of slices and entries out.",
                count(&self.bytes_out),
            ),
            ("slices_total", "counter", "Slices proven.", count(&self.slices)),
        ] {
            let _ = writeln!(out, "# HELP rdrivefs_node_{name} {help}");
            let _ = writeln!(out, "# TYPE rdrivefs_node_{name} {kind}");
            let _ = writeln!(out, "rdrivefs_node_{name} {value}");
        }
        family(&mut out, "requests_total", "Requests by kind.", "call", &self.requests());
        family(&mut out, "failures_total", "Failed requests by kind.", "kind", &self.failures());
        out
    }
}

fn family(
    out: &mut String,
    name: &str,
    help: &str,
    label: &str,
    counts: &BTreeMap<&'static str, u64>,
) {
    let _ = writeln!(out, "# HELP rdrivefs_node_{name} {help}");
    let _ = writeln!(out, "# TYPE rdrivefs_node_{name} counter");
    for (value, count) in counts {
        let _ = writeln!(out, "rdrivefs_node_{name}{{{label}=\"{value}\"}} {count}");
    }
}

fn bump(counts: &Mutex<BTreeMap<&'static str, u64>>, name: &'static str) {
    *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
}

fn kind(error: &Error) -> &'static str {
    match error {
        Error::Missing(_) => "missing",
        Error::Corrupt { .. } => "corrupt",
        Error::Forged(_) => "forged",
        Error::Refused(_) => "refused",
        Error::Quota { .. } => "quota",
        Error::Full => "full",
        Error::LogConflict { .. } => "log_conflict",
        Error::Malformed { .. } => "malformed",
        Error::UnknownVersion { .. } => "unknown_version",
        Error::Unreachable(_) => "broken",
        Error::TimedOut(_) => "timed_out",
        Error::Busy { .. } => "busy",
        Error::Pairing(_) => "pairing",
        Error::Io { .. } => "io",
        Error::NodeKeyChanged { .. } => "node_key_changed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_what_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.request("put");
        metrics.request("put");
        metrics.failure(&Error::Full);
        let text = metrics.text(&Gauges { blobs: 3, ..Gauges::default() });
        assert!(text.contains("\nrdrivefs_node_blobs 3\n"));
        assert!(text.contains("rdrivefs_node_requests_total{call=\"put\"} 2\n"));
        assert!(text.contains("rdrivefs_node_failures_total{kind=\"full\"} 1\n"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("rdrivefs_node_") && value.parse::<u64>().is_ok(), "{line}");
        }
    }
}
