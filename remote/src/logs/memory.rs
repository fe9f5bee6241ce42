//! Logs in memory: for tests and simulations.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::entry::{Entry, LogId};
use crate::error::{Error, Result};
use crate::identity::DriveId;
use crate::logs::{Head, Logs, READ_BYTES_MAX, checked, watched};

/// Keeps logs as long as it lives.
pub struct MemoryLogs {
    drive: DriveId,
    logs: Mutex<BTreeMap<LogId, Vec<Entry>>>,
    changed: Notify,
}

impl MemoryLogs {
    /// Empty logs of one drive.
    pub fn new(drive: DriveId) -> Self {
        Self { drive, logs: Mutex::default(), changed: Notify::new() }
    }

    fn logs(&self) -> MutexGuard<'_, BTreeMap<LogId, Vec<Entry>>> {
        self.logs.lock().expect("no panic while the lock is held")
    }

    fn heads_now(&self) -> Vec<Head> {
        self.logs().values().filter_map(|log| log.last()).map(Entry::head).collect()
    }
}

#[async_trait]
impl Logs for MemoryLogs {
    async fn append(&self, entry: Bytes) -> Result<()> {
        let entry = checked(&self.drive, entry)?;
        let mut logs = self.logs();
        let log = logs.get(&entry.log).map_or(&[][..], |log| log);
        let head = log.last().map_or(Head::empty(entry.log), Entry::head);
        let there = log.iter().find(|there| there.number == entry.number);
        if let Some(there) = there {
            let (expected, got) = (head.number + 1, entry.number);
            return if *there == entry {
                Ok(())
            } else {
                Err(Error::LogConflict { expected, got })
            };
        }
        entry.follows(&head)?;
        logs.entry(entry.log).or_default().push(entry);
        drop(logs);
        self.changed.notify_waiters();
        Ok(())
    }

    async fn read(&self, log: LogId, from: u64, bytes_max: u64) -> Result<Vec<Bytes>> {
        let mut left = bytes_max.min(READ_BYTES_MAX);
        let mut out = Vec::new();
        let logs = self.logs();
        for entry in logs.get(&log).into_iter().flatten().filter(|entry| entry.number >= from) {
            let bytes = entry.encode();
            if !out.is_empty() && bytes.len() as u64 > left {
                break;
            }
            left = left.saturating_sub(bytes.len() as u64);
            out.push(bytes);
        }
        Ok(out)
    }

    async fn heads(&self) -> Result<Vec<Head>> {
        Ok(self.heads_now())
    }

    async fn watch(&self, seen: Vec<Head>, timeout_ms: u64) -> Result<Vec<Head>> {
        Ok(watched(&self.changed, || self.heads_now(), seen, timeout_ms).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::conformance;

    #[tokio::test]
    async fn conforms() {
        conformance::run(&MemoryLogs::new(conformance::drive())).await;
    }
}
