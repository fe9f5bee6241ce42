//! A link to a node is a store and keeps logs, and is held to the suites of both.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use async_trait::async_trait;
use bytes::Bytes;
use common::{Drive, deleting, start, world_of};
use rdrivefs_remote::Result;
use rdrivefs_remote::entry::{Head, LogId};
use rdrivefs_remote::identity::PublicKey;
use rdrivefs_remote::link::Link;
use rdrivefs_remote::logs::{self, Logs};
use rdrivefs_remote::member::{Change, WRAP_KEY_BYTES};
use rdrivefs_remote::store;

#[tokio::test(flavor = "multi_thread")]
async fn a_link_is_a_store() {
    let (_dir, _node, _drive, link) = world_of(deleting).await;
    store::conformance::run(&link).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_keeps_logs() {
    let dir = tempfile::tempdir().unwrap();
    let mut drive = Drive { root: logs::conformance::author(0), entries: Vec::new() };
    assert_eq!(drive.id(), logs::conformance::drive());
    drive.allow(dir.path(), "");
    let node = start(dir.path()).await;
    for seed in 1..10 {
        let device = logs::conformance::author(seed).public();
        let wrap_key = Bytes::from(vec![seed; WRAP_KEY_BYTES]);
        drive.change(Change::Add { device, number: seed.into(), admin: true, wrap_key });
    }
    let link = drive.link(&node.url(), &drive.root).await.unwrap();
    logs::conformance::run(&WithoutRoot { link, root: drive.root.public() }).await;
}

/// Logs as the suite expects them, empty at first: the root's log, without which a node takes
/// nobody's entries, is left out.
struct WithoutRoot {
    link: Link,
    root: PublicKey,
}

impl WithoutRoot {
    fn hide(&self, mut heads: Vec<Head>) -> Vec<Head> {
        heads.retain(|head| head.log.author != self.root);
        heads
    }
}

#[async_trait]
impl Logs for WithoutRoot {
    async fn append(&self, entry: Bytes) -> Result<()> {
        self.link.append(entry).await
    }

    async fn read(&self, log: LogId, from: u64, bytes_max: u64) -> Result<Vec<Bytes>> {
        self.link.read(log, from, bytes_max).await
    }

    async fn heads(&self) -> Result<Vec<Head>> {
        self.link.heads().await.map(|heads| self.hide(heads))
    }

    async fn watch(&self, mut seen: Vec<Head>, timeout_ms: u64) -> Result<Vec<Head>> {
        let all = self.link.heads().await?;
        seen.extend(all.iter().filter(|head| head.log.author == self.root));
        self.link.watch(seen, timeout_ms).await.map(|heads| self.hide(heads))
    }
}
