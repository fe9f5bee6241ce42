//! Pace: how fast someone may ask, and how slow someone may answer.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;

use crate::env::{Env, Instant};

/// What any transfer may take beside the time its bytes need.
const GRACE_MS: u64 = 30_000;
/// The slowest peer that is waited for, in bytes per millisecond (128 kbit/s): slower ones hold a
/// slot and a reservation that others need.
const BYTES_PER_MS_MIN: u64 = 16;

/// Memory is counted in units of so many bytes.
const BUDGET_UNIT: u64 = 1024;

/// How long a peer may take for so many bytes.
pub(super) fn patience(bytes: u64) -> Duration {
    Duration::from_millis(GRACE_MS + bytes / BYTES_PER_MS_MIN)
}

/// A token bucket: so many units a second, and as many at once after a quiet second.
#[derive(Debug)]
pub(super) struct Bucket {
    per_s: u32,
    env: Env,
    state: Mutex<(f64, Instant)>,
}

impl Bucket {
    pub(super) fn new(per_s: u32, env: &Env) -> Self {
        let state = Mutex::new((f64::from(per_s), env.instant()));
        Self { per_s, env: env.clone(), state }
    }

    /// Takes `units` and waits until they are due; in a queue everyone waits for those before.
    pub(super) async fn take(&self, units: u32) {
        let debt = self.charge(units);
        if debt > 0.0 {
            tokio::time::sleep(Duration::from_secs_f64(debt / f64::from(self.per_s))).await;
        }
    }

    /// Takes `units` and gives what is owed then.
    fn charge(&self, units: u32) -> f64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.env.instant();
        let earned = now.since(state.1).as_secs_f64() * f64::from(self.per_s);
        let tokens = (state.0 + earned).min(f64::from(self.per_s)) - f64::from(units);
        *state = (tokens, now);
        -tokens
    }
}

/// Memory, or slots, granted before they are used.
#[derive(Debug)]
pub(super) struct Budget {
    units: u32,
    unit: u64,
    free: Arc<Semaphore>,
}

impl Budget {
    /// So many bytes.
    pub(super) fn bytes(bytes: u64) -> Self {
        Self::new(bytes, BUDGET_UNIT)
    }

    /// So many slots.
    pub(super) fn slots(slots: usize) -> Self {
        Self::new(slots as u64, 1)
    }

    fn new(size: u64, unit: u64) -> Self {
        let units = u32::try_from(size.div_ceil(unit)).unwrap_or(u32::MAX);
        Self { units, unit, free: Arc::new(Semaphore::new(units as usize)) }
    }

    /// Waits until so much is free; whoever wants more than there is waits for all.
    pub(super) async fn take(&self, size: u64) -> OwnedSemaphorePermit {
        let units = u32::try_from(size.div_ceil(self.unit)).unwrap_or(u32::MAX);
        let granted = self.free.clone().acquire_many_owned(units.min(self.units)).await;
        granted.expect("the semaphore is never closed")
    }
}

/// A reader that fails once its bytes are overdue, so that what waits for them lets go.
pub(super) struct Paced<R> {
    from: R,
    deadline: Pin<Box<Sleep>>,
}

impl<R> Paced<R> {
    /// `from`, expected to bring `bytes` in time.
    pub(super) fn new(from: R, bytes: u64) -> Self {
        Self { from, deadline: Box::pin(tokio::time::sleep(patience(bytes))) }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Paced<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(std::io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.from).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::env::World;

    struct Clock(Arc<AtomicU64>);

    impl World for Clock {
        fn wall_ns(&self) -> u64 {
            0
        }
        fn instant(&self) -> Instant {
            Instant(self.0.load(Ordering::Relaxed))
        }
        fn fill(&self, _: &mut [u8]) {}
    }

    #[test]
    fn a_burst_is_free_and_the_rest_waits_its_time() {
        let now = Arc::new(AtomicU64::new(0));
        let bucket = Bucket::new(10, &Env::of(Clock(now.clone())));
        assert!(bucket.charge(10) <= 0.0);
        assert!((bucket.charge(5) - 5.0).abs() < 1e-9, "half a second of debt");
        now.store(3_600_000_000_000, Ordering::Relaxed);
        assert!(bucket.charge(10) <= 0.0, "an hour earns no more than a second's worth");
        assert!(bucket.charge(1) > 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_without_bytes_fails_in_time() {
        use tokio::io::AsyncReadExt as _;
        let (ours, _theirs) = tokio::io::duplex(1);
        let mut paced = Paced::new(ours, 16_000);
        let error = paced.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    }
}
