//! Logs: where a drive's signed entries lie, for all to fetch.
//!
//! Must: `append` takes only the next entry of its log, or the very one that is there already
//! (so that a lost answer can be asked for again), and returns after it is durable. Entries are
//! never changed or removed. A log store checks form, signature, drive and chain; who may write
//! is asked above it, for it needs the membership. Whether a head is fresh is not for this module.

use async_trait::async_trait;
use bytes::Bytes;

use crate::entry::LogId;
use crate::error::Result;

pub use crate::entry::Head;

/// Most bytes one `read` returns, whatever was asked for: an answer is held in memory.
pub const READ_BYTES_MAX: u64 = 8 << 20;
/// Longest wait of one `watch`: middleboxes and proxies forget what is silent for longer.
pub const WATCH_MS_MAX: u64 = 60_000;

/// Keeps the logs of one drive.
#[async_trait]
pub trait Logs: Send + Sync + 'static {
    /// Adds an entry at the end of its log; the same entry again is no error.
    async fn append(&self, entry: Bytes) -> Result<()>;
    /// Entries of `log` in order, beginning with number `from`: at least one if there is one, and
    /// as many more as fit into `bytes_max`.
    async fn read(&self, log: LogId, from: u64, bytes_max: u64) -> Result<Vec<Bytes>>;
    /// The heads of all logs that have entries, in order of the logs.
    async fn heads(&self) -> Result<Vec<Head>>;
    /// The heads as soon as they differ from `seen`, or as they are after `timeout_ms`.
    async fn watch(&self, seen: Vec<Head>, timeout_ms: u64) -> Result<Vec<Head>>;
}
