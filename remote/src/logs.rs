//! Logs: where a drive's signed entries lie, for all to fetch.
//!
//! Must: `append` takes only the next entry of its log, or the very one that is there already
//! (so that a lost answer can be asked for again), and returns after it is durable; nobody is
//! shown an entry before. Entries are never changed or removed. Form, signature, drive and chain
//! are checked here; who may write is asked above, for it needs the membership. Whether a head is
//! fresh is not for this module.

pub mod conformance;
pub mod directory;
pub mod memory;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::entry::{Entry, LogId};
use crate::error::{Error, Result};
use crate::identity::DriveId;

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

/// The entry of these bytes, if it belongs to `drive`.
fn checked(drive: &DriveId, bytes: Bytes) -> Result<Entry> {
    let entry = Entry::from_bytes(bytes)?;
    if entry.drive != *drive {
        return Err(Error::malformed("entry", "of another drive"));
    }
    Ok(entry)
}

/// Waits until `heads` gives something else than `seen`; `changed` is notified of every append.
async fn watched(
    changed: &Notify,
    heads: impl Fn() -> Vec<Head>,
    mut seen: Vec<Head>,
    timeout_ms: u64,
) -> Vec<Head> {
    seen.sort_unstable();
    let different = async {
        loop {
            let mut next = std::pin::pin!(changed.notified());
            next.as_mut().enable(); // so that an append between the look and the wait wakes us
            let now = heads();
            if now != seen {
                return now;
            }
            next.await;
        }
    };
    let wait = Duration::from_millis(timeout_ms.min(WATCH_MS_MAX));
    match tokio::time::timeout(wait, different).await {
        Ok(now) => now,
        Err(_) => heads(),
    }
}
