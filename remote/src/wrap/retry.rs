//! Asking again, after a while, what failed for a reason that may pass.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::blob::BlobId;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::store::{Body, Held, Slice, Space, Store};

/// How long to go on asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Most times one request is made, the first included.
    pub attempts_max: u32,
    /// The wait after the first failure; it doubles with each further one.
    pub first_ms: u64,
    /// The longest wait between two attempts.
    pub wait_ms_max: u64,
}

impl Default for Patience {
    /// Gives up after about half a minute: longer outages are for the engine to plan around.
    fn default() -> Self {
        Self { attempts_max: 8, first_ms: 200, wait_ms_max: 10_000 }
    }
}

/// A store that is asked again after transient errors. A put whose body can be read only once is
/// tried once.
pub struct Retry<S> {
    inner: Arc<S>,
    patience: Patience,
    env: Env,
}

impl<S: Store> Retry<S> {
    /// Wraps a store.
    pub fn new(inner: Arc<S>, patience: Patience, env: Env) -> Self {
        Self { inner, patience, env }
    }

    async fn persist<T, F>(&self, mut ask: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let mut attempt = 1;
        loop {
            match ask().await {
                Err(e) if e.is_transient() && attempt < self.patience.attempts_max => {
                    tracing::debug!(attempt, error = %e, "asking again");
                    tokio::time::sleep(self.wait(attempt, &e)).await;
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    /// Between half of the doubled wait and all of it, so that many clients do not come back at
    /// once; not before a busy remote wants to be asked.
    fn wait(&self, attempt: u32, error: &Error) -> Duration {
        let factor = 1u64.checked_shl(attempt - 1).unwrap_or(u64::MAX);
        let full = self.patience.first_ms.saturating_mul(factor).min(self.patience.wait_ms_max);
        let half = full / 2;
        let own = half + self.env.random_below(full - half + 1);
        let asked = match error {
            Error::Busy { retry_ms } => (*retry_ms).min(self.patience.wait_ms_max),
            _ => 0,
        };
        Duration::from_millis(own.max(asked))
    }
}

#[async_trait]
impl<S: Store> Store for Retry<S> {
    async fn put(&self, id: BlobId, body: Body) -> Result<()> {
        match body.in_memory() {
            Some(bytes) => self.persist(|| self.inner.put(id, Body::bytes(bytes.clone()))).await,
            None => self.inner.put(id, body).await,
        }
    }

    async fn get(&self, id: BlobId, range: Range<u64>) -> Result<Slice> {
        self.persist(|| self.inner.get(id, range.clone())).await
    }

    async fn has(&self, ids: &[BlobId]) -> Result<Vec<Option<u64>>> {
        self.persist(|| self.inner.has(ids)).await
    }

    async fn list(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<Held>> {
        self.persist(|| self.inner.list(after, limit)).await
    }

    async fn delete(&self, id: BlobId) -> Result<()> {
        self.persist(|| self.inner.delete(id)).await
    }

    async fn space(&self) -> Result<Space> {
        self.persist(|| self.inner.space()).await
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::store::conformance;
    use crate::store::memory::MemoryStore;
    use crate::wrap::{Fault, Injury, Op};

    const QUICK: Patience = Patience { attempts_max: 4, first_ms: 1, wait_ms_max: 4 };

    fn faulty() -> (Arc<Fault<MemoryStore>>, Retry<Fault<MemoryStore>>) {
        let fault = Arc::new(Fault::new(Arc::new(MemoryStore::new())));
        let retry = Retry::new(fault.clone(), QUICK, Env::real());
        (fault, retry)
    }

    #[tokio::test]
    async fn conforms() {
        conformance::run(&faulty().1).await;
    }

    #[tokio::test]
    async fn conforms_while_every_third_call_fails() {
        let (fault, retry) = faulty();
        fault.every(3, Injury::Unreachable);
        conformance::run(&retry).await;
    }

    #[tokio::test]
    async fn it_gives_up_in_the_end() {
        let (fault, retry) = faulty();
        (1..=4).for_each(|nth| fault.at(Op::Space, nth, Injury::Unreachable));
        assert!(retry.space().await.unwrap_err().is_transient());
        assert_eq!(fault.calls(Op::Space), 4);
        retry.space().await.unwrap();
    }

    #[tokio::test]
    async fn only_what_may_pass_is_asked_again() {
        let (fault, retry) = faulty();
        let id = BlobId::of(b"x");
        assert!(retry.get(id, 0..1).await.unwrap_err().is_missing());
        assert_eq!(fault.calls(Op::Get), 1);
        fault.at(Op::Put, 1, Injury::Full);
        let body = || Body::bytes(Bytes::from_static(b"x"));
        assert!(matches!(retry.put(id, body()).await, Err(Error::Full)));
        assert_eq!(fault.calls(Op::Put), 1);
        fault.at(Op::Put, 2, Injury::Unreachable);
        let stream = Body::stream(1, Box::new(&b"x"[..]));
        assert!(retry.put(id, stream).await.unwrap_err().is_transient(), "read once");
        assert_eq!(fault.calls(Op::Put), 2);
        fault.at(Op::Put, 3, Injury::Unreachable);
        retry.put(id, body()).await.unwrap();
        assert_eq!(fault.calls(Op::Put), 4);
    }

    #[test]
    fn waits_double_up_to_their_bound_and_heed_a_busy_remote() {
        let patience = Patience { attempts_max: 99, first_ms: 100, wait_ms_max: 1_000 };
        let retry = Retry::new(Arc::new(MemoryStore::new()), patience, Env::real());
        let lost = Error::Unreachable(String::new());
        for (attempt, full) in [(1, 100), (2, 200), (4, 800), (5, 1_000), (98, 1_000)] {
            for _ in 0..20 {
                let wait = retry.wait(attempt, &lost).as_millis();
                assert!((full / 2..=full).contains(&wait), "{wait} after {attempt}");
            }
        }
        let busy = |retry_ms| retry.wait(1, &Error::Busy { retry_ms }).as_millis();
        assert_eq!(busy(700), 700);
        assert_eq!(busy(1 << 40), 1_000, "no remote makes us wait for ever");
    }
}
