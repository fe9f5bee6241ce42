//! A store in memory: for tests and simulations, and the plainest telling of what a store is.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncReadExt as _;

use crate::blob::{BLOB_BYTES_MAX, BlobId};
use crate::error::{Error, Result};
use crate::proof::{self, Outboard};
use crate::store::{Body, Held, Slice, Space, Store, too_long};

/// Keeps blobs as long as it lives.
#[derive(Default)]
pub struct MemoryStore {
    blobs: Mutex<BTreeMap<BlobId, Kept>>,
    quota: Option<u64>,
}

#[derive(Clone)]
struct Kept {
    bytes: Bytes,
    outboard: Outboard,
}

impl MemoryStore {
    /// An empty store without a limit.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that takes so many bytes, outboards included.
    pub fn with_quota(quota: u64) -> Self {
        Self { quota: Some(quota), ..Self::default() }
    }

    fn blobs(&self) -> MutexGuard<'_, BTreeMap<BlobId, Kept>> {
        self.blobs.lock().expect("no panic while the lock is held")
    }

    fn used(blobs: &BTreeMap<BlobId, Kept>) -> u64 {
        blobs.values().map(Kept::weight).sum()
    }
}

impl Kept {
    fn weight(&self) -> u64 {
        self.outboard.len + Outboard::encoded_len(self.outboard.len)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn put(&self, id: BlobId, body: Body) -> Result<()> {
        let len = body.len;
        if len > BLOB_BYTES_MAX {
            return Err(too_long(len));
        }
        let mut bytes = Vec::new();
        let mut reader = body.reader().take(len);
        reader.read_to_end(&mut bytes).await.map_err(Error::io("receiving a blob"))?;
        if bytes.len() as u64 != len {
            return Err(Error::malformed("blob", "ended before its announced length"));
        }
        let (found, outboard) = Outboard::of(&bytes);
        if found != id {
            return Err(Error::Corrupt { id, offset: 0 });
        }
        let kept = Kept { bytes: bytes.into(), outboard };
        let mut blobs = self.blobs();
        let used = Self::used(&blobs);
        match self.quota {
            Some(quota) if !blobs.contains_key(&id) && used + kept.weight() > quota => {
                Err(Error::Quota { used, quota })
            }
            _ => {
                blobs.insert(id, kept);
                Ok(())
            }
        }
    }

    async fn get(&self, id: BlobId, range: Range<u64>) -> Result<Slice> {
        let kept = self.blobs().get(&id).cloned().ok_or(Error::Missing(id))?;
        proof::prove(&kept.outboard, &id, &kept.bytes[..], range)
    }

    async fn has(&self, ids: &[BlobId]) -> Result<Vec<Option<u64>>> {
        let blobs = self.blobs();
        Ok(ids.iter().map(|id| blobs.get(id).map(|kept| kept.outboard.len)).collect())
    }

    async fn list(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<Held>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let blobs = self.blobs();
        let above = blobs.range((from, Bound::Unbounded)).take(limit);
        Ok(above.map(|(id, kept)| Held { id: *id, len: kept.outboard.len }).collect())
    }

    async fn delete(&self, id: BlobId) -> Result<()> {
        self.blobs().remove(&id);
        Ok(())
    }

    async fn space(&self) -> Result<Space> {
        let blobs = self.blobs();
        let used = Self::used(&blobs);
        Ok(Space { used, quota: self.quota, blobs: blobs.len() as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[tokio::test]
    async fn conforms() {
        conformance::run(&MemoryStore::new()).await;
    }

    #[tokio::test]
    async fn a_full_quota_refuses_and_keeps_what_is_there() {
        let store = MemoryStore::with_quota(1_000);
        let (small, large) = (Bytes::from(vec![1; 900]), Bytes::from(vec![2; 200]));
        store.put(BlobId::of(&small), Body::bytes(small.clone())).await.unwrap();
        let refused = store.put(BlobId::of(&large), Body::bytes(large)).await.unwrap_err();
        assert!(matches!(refused, Error::Quota { used: 908, quota: 1_000 }), "{refused}");
        store.put(BlobId::of(&small), Body::bytes(small)).await.unwrap();
        assert_eq!(store.space().await.unwrap().blobs, 1);
    }
}
