//! Keeping to a rate: bytes per second each way, and requests at once.

use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::Sleep;

use crate::blob::BlobId;
use crate::env::{Env, Instant};
use crate::error::Result;
use crate::store::{Body, Held, Slice, Space, Store};

/// What passes at once before waiting begins, in time: short enough for a video call beside it.
const BURST: Duration = Duration::from_millis(100);
/// Most bytes of a body between two looks at the clock.
const STEP_BYTES: usize = 64 << 10;

/// What a limited store keeps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Bytes of blobs sent per second; none is no limit.
    pub sent_per_s: Option<u64>,
    /// Bytes of slices received per second; none is no limit.
    pub received_per_s: Option<u64>,
    /// Requests at once; none is no limit.
    pub requests_max: Option<u32>,
}

/// A store that is used no faster than its limits allow.
pub struct Limit<S> {
    inner: Arc<S>,
    sent: Option<Arc<Pace>>,
    received: Option<Arc<Pace>>,
    requests: Semaphore,
}

/// A rate, and until when it is used up. Requests queue in the order in which they asked.
struct Pace {
    bytes_per_s: u64,
    env: Env,
    until: Mutex<Instant>,
}

impl<S: Store> Limit<S> {
    /// Wraps a store.
    pub fn new(inner: Arc<S>, limits: Limits, env: Env) -> Self {
        let pace = |rate: Option<u64>| rate.map(|rate| Arc::new(Pace::new(rate, env.clone())));
        let requests =
            limits.requests_max.map_or(Semaphore::MAX_PERMITS, |max| max.max(1) as usize);
        Self {
            inner,
            sent: pace(limits.sent_per_s),
            received: pace(limits.received_per_s),
            requests: Semaphore::new(requests),
        }
    }

    async fn turn(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.requests.acquire().await.expect("the semaphore is never closed")
    }
}

#[async_trait]
impl<S: Store> Store for Limit<S> {
    async fn put(&self, id: BlobId, body: Body) -> Result<()> {
        let _turn = self.turn().await;
        let body = match &self.sent {
            Some(pace) => Body::stream(body.len, Box::new(Paced::new(body.reader(), pace.clone()))),
            None => body,
        };
        self.inner.put(id, body).await
    }

    async fn get(&self, id: BlobId, range: Range<u64>) -> Result<Slice> {
        let _turn = self.turn().await;
        let slice = self.inner.get(id, range).await?;
        if let Some(pace) = &self.received {
            // It is here already; what waits is the next one, and so the rate holds.
            tokio::time::sleep(pace.take(slice.0.len())).await;
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

impl Pace {
    fn new(bytes_per_s: u64, env: Env) -> Self {
        let until = Mutex::new(env.instant());
        Self { bytes_per_s: bytes_per_s.max(1), env, until }
    }

    /// Books `bytes` and says how long to wait before going on.
    fn take(&self, bytes: usize) -> Duration {
        let now = self.env.instant();
        let cost = u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.bytes_per_s);
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let mut until = self.until.lock().expect("no panic while the lock is held");
        *until = Instant(until.0.max(now.0).saturating_add(cost));
        until.since(now).saturating_sub(BURST)
    }
}

/// A body that comes no faster than its pace.
struct Paced {
    inner: Box<dyn AsyncRead + Send + Unpin>,
    pace: Arc<Pace>,
    wait: Option<Pin<Box<Sleep>>>,
}

impl Paced {
    fn new(inner: Box<dyn AsyncRead + Send + Unpin>, pace: Arc<Pace>) -> Self {
        Self { inner, pace, wait: None }
    }
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if let Some(wait) = &mut self.wait {
            std::task::ready!(wait.as_mut().poll(context));
            self.wait = None;
        }
        let room = out.remaining().min(STEP_BYTES);
        let mut step = ReadBuf::new(out.initialize_unfilled_to(room));
        std::task::ready!(Pin::new(&mut self.inner).poll_read(context, &mut step))?;
        let got = step.filled().len();
        out.advance(got);
        let wait = self.pace.take(got);
        self.wait = (!wait.is_zero()).then(|| Box::pin(tokio::time::sleep(wait)));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::store::conformance::{self, sample};
    use crate::store::memory::MemoryStore;
    use crate::wrap::{Fault, Injury, Op};

    fn limited(limits: Limits) -> Limit<MemoryStore> {
        Limit::new(Arc::new(MemoryStore::new()), limits, Env::real())
    }

    #[tokio::test]
    async fn conforms_without_and_with_limits() {
        conformance::run(&limited(Limits::default())).await;
        let wide = Limits {
            sent_per_s: Some(1 << 30),
            received_per_s: Some(1 << 30),
            requests_max: Some(2),
        };
        conformance::run(&limited(wide)).await;
    }

    #[tokio::test]
    async fn bytes_pass_at_the_rate_each_way() {
        let rate = Some(1_000_000);
        let store = limited(Limits { sent_per_s: rate, received_per_s: rate, ..Limits::default() });
        let bytes = sample(1, 300_000);
        let (id, env) = (BlobId::of(&bytes), Env::real());
        let began = env.instant();
        store.put(id, Body::bytes(bytes.clone())).await.unwrap();
        let took = env.instant().since(began);
        assert!((120..2_000).contains(&took.as_millis()), "300 KB at 1 MB/s took {took:?}");
        let began = env.instant();
        store.get(id, 0..150_000).await.unwrap();
        store.get(id, 0..150_000).await.unwrap();
        let took = env.instant().since(began);
        assert!((120..2_000).contains(&took.as_millis()), "300 KB at 1 MB/s took {took:?}");
    }

    #[test]
    fn a_pace_books_ahead_and_forgets_idle_time() {
        struct Still(AtomicU32);
        impl crate::env::World for Arc<Still> {
            fn wall_ns(&self) -> u64 {
                0
            }
            fn instant(&self) -> Instant {
                Instant(u64::from(self.0.load(Ordering::SeqCst)) * 1_000_000)
            }
            fn fill(&self, _: &mut [u8]) {}
        }
        let clock_ms = Arc::new(Still(AtomicU32::new(0)));
        let pace = Pace::new(1_000, Env::of(clock_ms.clone()));
        assert_eq!(pace.take(100), Duration::ZERO, "a burst passes");
        assert_eq!(pace.take(500), Duration::from_millis(500));
        assert_eq!(pace.take(500), Duration::from_millis(1_000));
        clock_ms.0.store(60_000, Ordering::SeqCst);
        assert_eq!(pace.take(200), Duration::from_millis(100), "a minute's silence saves nothing");
    }

    #[tokio::test]
    async fn no_more_requests_at_once_than_allowed() {
        let fault = Arc::new(Fault::new(Arc::new(MemoryStore::new())));
        (1..=6).for_each(|nth| fault.at(Op::Space, nth, Injury::DelayMs(20)));
        let limits = Limits { requests_max: Some(2), ..Limits::default() };
        let store = Limit::new(fault.clone(), limits, Env::real());
        let six: [_; 6] = std::array::from_fn(|_| store.space());
        let [a, b, c, d, e, f] = six;
        let (a, b, c, d, e, f) = tokio::join!(a, b, c, d, e, f);
        assert!([a, b, c, d, e, f].iter().all(Result::is_ok));
        assert_eq!(fault.most_at_once(), 2);
        store.put(BlobId::of(b""), Body::bytes(Bytes::new())).await.unwrap();
    }
}
