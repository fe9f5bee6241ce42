//! What a node is told: where it listens, where it keeps things, and its bounds.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::env::Env;
use crate::link::url::DEFAULT_PORT;

/// How long blobs are held by default: thirty days, within which a theft or a ransom is noticed.
pub const RETAIN_MS: u64 = 30 * 86_400_000;

/// Everything a node needs to start.
#[derive(Debug, Clone)]
pub struct Config {
    /// The store directory; made if it is not there.
    pub store: PathBuf,
    /// UDP address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The name or address clients should use, where it is not the one listened on.
    pub advertise: Option<String>,
    /// TCP address of `/healthz` and `/metrics`.
    pub http: Option<SocketAddr>,
    /// Bytes of each drive whose authorisation names no quota; none is no limit.
    pub quota: Option<u64>,
    /// How long a blob is held against deletion, by the node's own clock. Only where the keeper
    /// chose less than [`RETAIN_MS`] is anything deleted at a device's word.
    pub retain_ms: u64,
    /// The bounds.
    pub limits: Limits,
    /// Clock and randomness.
    pub env: Env,
}

/// Bounds of a node; the configured bound is the bound. Of slots and memory one drive may have half
/// and one device a quarter, so that neither a device nor a drive that makes many of them stops
/// all others.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections that said hello, an eighth of them of one drive.
    pub connections: usize,
    /// Of them, by one device: an engine, a few commands, and what lingers after a break.
    pub connections_per_device: usize,
    /// Connections that have not said hello yet; the oldest gives way.
    pub pending: usize,
    /// How long a connection may take to say hello, and a stream to say what it wants.
    pub hello_ms: u64,
    /// Requests (and wanted slices) of one device in a second, over a burst of as many.
    pub requests_per_s: u32,
    /// Puts that are written at a time; the others wait with their bytes unread.
    pub puts: usize,
    /// Bytes of answers in memory.
    pub answer_bytes: u64,
    /// Bytes of requests in memory, puts not counted; a quarter is the longest there is.
    pub request_bytes: u64,
    /// How long requests may take to finish when the node stops.
    pub drain_ms: u64,
}

impl Config {
    /// A node over this directory, listening where nodes do by default.
    pub fn new(store: impl Into<PathBuf>) -> Self {
        Self {
            store: store.into(),
            listen: (Ipv6Addr::UNSPECIFIED, DEFAULT_PORT).into(),
            advertise: None,
            http: None,
            quota: None,
            retain_ms: RETAIN_MS,
            limits: Limits::default(),
            env: Env::real(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            connections_per_device: 16,
            pending: 256,
            hello_ms: 10_000,
            requests_per_s: 50_000,
            puts: 32,
            answer_bytes: 24 << 20,
            request_bytes: 16 << 20,
            drain_ms: 10_000,
        }
    }
}
