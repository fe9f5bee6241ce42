//! Keeping to a rate: bytes per second each way, and requests at once.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::blob::BlobId;
use crate::error::Result;
use crate::store::{Body, Held, Slice, Space, Store};
use crate::wrap::pace::Pace;

/// What a store or a link keeps to. Clones share their paces, not their requests.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// How fast bytes of blobs and entries are sent; none is no limit.
    pub sent: Option<Arc<Pace>>,
    /// How fast blobs are sent while somebody waits for calls; none is no limit.
    pub beside: Option<Arc<Pace>>,
    /// How fast they are received; none is no limit.
    pub received: Option<Arc<Pace>>,
    /// Requests at once; none is no limit.
    pub requests_max: Option<u32>,
}

/// A store that is used no faster than its limits allow.
pub struct Limit<S> {
    inner: Arc<S>,
    limits: Limits,
    requests: Semaphore,
}

impl Limits {
    /// How many requests a semaphore for them admits.
    pub fn requests(&self) -> usize {
        self.requests_max.map_or(Semaphore::MAX_PERMITS, |max| max.max(1) as usize)
    }
}

impl<S: Store> Limit<S> {
    /// Wraps a store.
    pub fn new(inner: Arc<S>, limits: Limits) -> Self {
        let requests = Semaphore::new(limits.requests());
        Self { inner, limits, requests }
    }

    async fn turn(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.requests.acquire().await.expect("the semaphore is never closed")
    }
}

#[async_trait]
impl<S: Store> Store for Limit<S> {
    async fn put(&self, id: BlobId, body: Body) -> Result<()> {
        let _turn = self.turn().await;
        let body = match &self.limits.sent {
            Some(pace) => pace.over(body),
            None => body,
        };
        self.inner.put(id, body).await
    }

    async fn get(&self, id: BlobId, range: Range<u64>) -> Result<Slice> {
        let _turn = self.turn().await;
        let slice = self.inner.get(id, range).await?;
        if let Some(pace) = &self.limits.received {
            // It is here already; what waits is the next one, and so the rate holds.
            pace.passed(slice.0.len()).await;
        }
        Ok(slice)
    }

    async fn has(&self, ids: &[BlobId]) -> Result<Vec<Option<u64>>> {
        let _turn = self.turn().await;
        self.inner.has(ids).await
    }

    async fn list(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<Held>> {
        let _turn = self.turn().await;
        self.inner.list(after, limit).await
    }

    async fn delete(&self, id: BlobId) -> Result<()> {
        let _turn = self.turn().await;
        self.inner.delete(id).await
    }

    async fn space(&self) -> Result<Space> {
        let _turn = self.turn().await;
        self.inner.space().await
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::env::Env;
    use crate::store::conformance::{self, sample};
    use crate::store::memory::MemoryStore;
    use crate::wrap::{Fault, Injury, Op};

    fn pace(bytes_per_s: u64) -> Option<Arc<Pace>> {
        Some(Arc::new(Pace::new(bytes_per_s, Env::real())))
    }

    fn limited(limits: Limits) -> Limit<MemoryStore> {
        Limit::new(Arc::new(MemoryStore::new()), limits)
    }

    #[tokio::test]
    async fn conforms_without_and_with_limits() {
        conformance::run(&limited(Limits::default())).await;
        let wide = Limits {
            sent: pace(1 << 30),
            received: pace(1 << 30),
            requests_max: Some(2),
            beside: None,
        };
        conformance::run(&limited(wide)).await;
    }

    #[tokio::test]
    async fn bytes_pass_at_the_rate_each_way() {
        let rate = 200_000;
        let store = limited(Limits { sent: pace(rate), received: pace(rate), ..Limits::default() });
        let bytes = sample(1, 300_000);
        let (id, env) = (BlobId::of(&bytes), Env::real());
        let began = env.instant();
        store.put(id, Body::bytes(bytes.clone())).await.unwrap();
        let took = env.instant().since(began);
        assert!((250..2_000).contains(&took.as_millis()), "300 KB at 200 KB/s took {took:?}");
        let began = env.instant();
        store.get(id, 0..150_000).await.unwrap();
        store.get(id, 0..150_000).await.unwrap();
        let took = env.instant().since(began);
        assert!((250..2_000).contains(&took.as_millis()), "300 KB at 200 KB/s took {took:?}");
    }

    #[tokio::test]
    async fn no_more_requests_at_once_than_allowed() {
        let fault = Arc::new(Fault::new(Arc::new(MemoryStore::new())));
        (1..=6).for_each(|nth| fault.at(Op::Space, nth, Injury::DelayMs(20)));
        let limits = Limits { requests_max: Some(2), ..Limits::default() };
        let store = Limit::new(fault.clone(), limits);
        let six: [_; 6] = std::array::from_fn(|_| store.space());
        let [a, b, c, d, e, f] = six;
        let (a, b, c, d, e, f) = tokio::join!(a, b, c, d, e, f);
        assert!([a, b, c, d, e, f].iter().all(Result::is_ok));
        assert_eq!(fault.most_at_once(), 2);
        store.put(BlobId::of(b""), Body::bytes(Bytes::new())).await.unwrap();
    }
}
