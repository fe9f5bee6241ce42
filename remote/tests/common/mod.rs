//! A small world for tests of links and nodes: a drive with devices, a node in this process.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "each test uses a part")]

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rdrivefs_remote::Result;
use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::entry::{Entry, Head, Header, LogId, LogKind};
use rdrivefs_remote::env::Env;
use rdrivefs_remote::identity::{DriveId, PublicKey, SecretKey};
use rdrivefs_remote::link::{Credentials, Link, NodeUrl};
use rdrivefs_remote::member::{Change, Membership, WRAP_KEY_BYTES};
use rdrivefs_remote::node::{Config, Node};
use rdrivefs_remote::store::Body;

/// A drive, as its owner knows it.
pub struct Drive {
    pub root: SecretKey,
    pub entries: Vec<Entry>,
}

impl Drive {
    pub fn new() -> Self {
        Self { root: SecretKey::generate(&Env::real()), entries: Vec::new() }
    }

    pub fn id(&self) -> DriveId {
        DriveId::of(&self.root.public())
    }

    pub fn membership(&self) -> Membership {
        Membership::replay(self.id(), &self.root.public(), &self.entries).unwrap()
    }

    /// The root signs a change.
    pub fn change(&mut self, change: Change) -> Entry {
        let entry = self.membership().sign(&self.root, 0, change).unwrap();
        self.entries.push(entry.clone());
        entry
    }

    /// A new device of the drive.
    pub fn add_device(&mut self) -> SecretKey {
        let device = SecretKey::generate(&Env::real());
        let number = u16::try_from(self.entries.len()).unwrap() + 1;
        let wrap_key = Bytes::from(vec![number as u8; WRAP_KEY_BYTES]);
        self.change(Change::Add { device: device.public(), number, admin: false, wrap_key });
        device
    }

    pub fn revoke(&mut self, device: &PublicKey) -> Entry {
        self.change(Change::Revoke { device: *device, last: Vec::new() })
    }

    pub fn credentials(&self, device: &SecretKey) -> Credentials {
        Credentials {
            drive: self.id(),
            root: self.root.public(),
            device: device.clone(),
            membership: self.entries.iter().map(Entry::encode).collect(),
            invite: None,
        }
    }

    pub async fn link(&self, url: &NodeUrl, device: &SecretKey) -> Result<Link> {
        Link::dial(url, self.credentials(device), &Env::real()).await
    }

    /// The next commit of a device after `head`.
    pub fn commit(&self, device: &SecretKey, head: Option<&Head>, body: &[u8]) -> Entry {
        let log = LogId { kind: LogKind::Commits, author: device.public(), instance: 0 };
        let empty = Head::empty(log);
        let header = Header::after(self.id(), head.unwrap_or(&empty), [9; 32]);
        Entry::sign(device, header, Bytes::copy_from_slice(body)).unwrap()
    }

    /// Authorises the drive by writing the file a person would write.
    pub fn allow(&self, store: &Path, text: &str) {
        let dir = store.join("authorized_keys");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join(self.root.public().to_string()), text).unwrap();
    }

    pub fn deny(&self, store: &Path) {
        let file = store.join("authorized_keys").join(self.root.public().to_string());
        std::fs::remove_file(file).unwrap();
    }
}

pub fn config(store: &Path) -> Config {
    Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::new(store) }
}

/// As [`config`], for a keeper who lets devices delete at once.
pub fn deleting(store: &Path) -> Config {
    Config { retain_ms: 0, ..config(store) }
}

pub async fn start(store: &Path) -> Node {
    Node::start(config(store)).await.unwrap()
}

/// A node, an authorised drive and one of its devices' links.
pub async fn world() -> (tempfile::TempDir, Node, Drive, Link) {
    world_of(config).await
}

/// As [`world`], of a node with this configuration.
pub async fn world_of(config: fn(&Path) -> Config) -> (tempfile::TempDir, Node, Drive, Link) {
    let dir = tempfile::tempdir().unwrap();
    let mut drive = Drive::new();
    drive.allow(dir.path(), "");
    let node = Node::start(config(dir.path())).await.unwrap();
    let device = drive.add_device();
    let link = drive.link(&node.url(), &device).await.unwrap();
    (dir, node, drive, link)
}

/// Bytes that look random, and differ for each seed.
pub fn noise(seed: u64, len: usize) -> Bytes {
    let mut out = vec![0; len];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out.into()
}

pub fn blob(seed: u64, len: usize) -> (BlobId, Bytes) {
    let bytes = noise(seed, len);
    (BlobId::of(&bytes), bytes)
}

pub fn body(bytes: &Bytes) -> Body {
    Body::bytes(bytes.clone())
}

/// Waits until `check` holds.
pub async fn eventually<F: AsyncFnMut() -> bool>(limit: Duration, mut check: F) {
    let waited = tokio::time::timeout(limit, async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    });
    waited.await.expect("it should have come about in time");
}
