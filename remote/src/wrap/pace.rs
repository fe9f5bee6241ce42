//! A pace: so many bytes a second, kept by everybody who shares it.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

use crate::env::{Env, Instant};
use crate::foreground::Foreground;
use crate::store::Body;

/// What passes at once before waiting begins, in time: a small save leaves without any.
const BURST: Duration = Duration::from_secs(1);
/// The same beside the foreground, for which each burst is a wait: what a timer is exact to.
const BURST_BESIDE: Duration = Duration::from_millis(2);
/// Most bytes of a body between two looks at the clock.
const STEP_BYTES: usize = 64 << 10;

/// A rate, and until when it is used up. Who shares it queues in the order of asking.
pub struct Pace {
    bytes_per_s: u64,
    burst: Duration,
    /// It is kept only while this is busy.
    beside: Option<Arc<Foreground>>,
    env: Env,
    until: Mutex<Instant>,
}

impl Pace {
    /// A pace of so many bytes a second, none of it used.
    pub fn new(bytes_per_s: u64, env: Env) -> Self {
        let until = Mutex::new(env.instant());
        Self { bytes_per_s: bytes_per_s.max(1), burst: BURST, beside: None, env, until }
    }

    /// A pace that is kept in small steps, and only while calls come in.
    pub fn beside(foreground: Arc<Foreground>, bytes_per_s: u64, env: Env) -> Self {
        Self { burst: BURST_BESIDE, beside: Some(foreground), ..Self::new(bytes_per_s, env) }
    }

    /// Bytes a second.
    pub fn bytes_per_s(&self) -> u64 {
        self.bytes_per_s
    }

    /// The body, read no faster than this.
    pub fn over(self: &Arc<Self>, body: Body) -> Body {
        let (len, inner, pace) = (body.len, body.reader(), self.clone());
        Body::stream(len, Box::new(Paced { inner, pace, wait: None }))
    }

    /// Books bytes that have passed and waits until others may.
    pub async fn passed(&self, bytes: usize) {
        tokio::time::sleep(self.take(bytes)).await;
    }

    /// Books `bytes` and says how long to wait before going on.
    fn take(&self, bytes: usize) -> Duration {
        if self.beside.as_ref().is_some_and(|foreground| !foreground.is_busy()) {
            return Duration::ZERO;
        }
        let now = self.env.instant();
        let cost = u128::from(bytes as u64) * 1_000_000_000 / u128::from(self.bytes_per_s);
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let mut until = self.until.lock().expect("no panic while the lock is held");
        *until = Instant(until.0.max(now.0).saturating_add(cost));
        until.since(now).saturating_sub(self.burst)
    }
}

impl std::fmt::Debug for Pace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pace({} bytes/s)", self.bytes_per_s)
    }
}

/// A body that comes no faster than its pace.
struct Paced {
    inner: Box<dyn AsyncRead + Send + Unpin>,
    pace: Arc<Pace>,
    wait: Option<Pin<Box<Sleep>>>,
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

    use super::*;

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
        assert_eq!(pace.take(1_000), Duration::ZERO, "a second's worth passes");
        assert_eq!(pace.take(500), Duration::from_millis(500));
        assert_eq!(pace.take(500), Duration::from_millis(1_000));
        clock_ms.0.store(60_000, Ordering::SeqCst);
        assert_eq!(pace.take(1_100), Duration::from_millis(100), "a minute's silence saves little");
    }

    #[test]
    fn a_pace_beside_the_foreground_is_none_while_nobody_calls() {
        let env = Env::real();
        let foreground = Arc::new(Foreground::new(env.clone()));
        let pace = Pace::beside(foreground.clone(), 1_000, env);
        assert_eq!(pace.take(1_000_000), Duration::ZERO);
        // A machine that is busy may forget a call before the pace is taken.
        let taken = (0..50).map(|_| {
            foreground.called();
            pace.take(1_000)
        });
        let wait = taken.into_iter().find(|wait| !wait.is_zero()).expect("calls came in");
        assert!(wait > Duration::from_millis(900), "{wait:?}");
        assert!(wait < Duration::from_secs(1), "{wait:?}: what passed before is not booked");
    }
}
