//! The foreground: calls that somebody waits for, and the work that makes room for them.
//!
//! A scheduler that lets each thread have its slice makes a call wait for milliseconds once every
//! processor has something to do, whatever the priorities. So long work pauses by itself, for a
//! moment and often, but only while calls come in. It says where with [`breathe`], however deep it
//! is, and whoever starts it says for whom with [`Foreground::behind`]; anywhere else it is nothing.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::env::{Env, Instant};

/// How long after a call the next is expected: programs that work through a folder pause for less.
const LATELY: Duration = Duration::from_millis(20);

/// How long work goes on between two pauses.
const WORK: Duration = Duration::from_micros(500);

/// How long it pauses, the timer's own slack aside: so that whoever waits is run at all.
const PAUSE: Duration = Duration::from_micros(60);

/// Bytes that take about as long as work goes on: what long work does in one piece.
pub const PIECE_BYTES: usize = 256 << 10;

/// Bytes that one call of the system moves: a kernel that does not interrupt itself runs nobody else
/// before it is over, and one write of a whole layer takes 50 ms on a busy disk.
pub const CALL_BYTES: usize = 64 << 10;

thread_local! {
    static BEHIND: RefCell<Option<Behind>> = const { RefCell::new(None) };
}

/// Whether calls come in.
pub struct Foreground {
    env: Env,
    called: AtomicU64,
}

/// What a thread makes room for, and since when it has been at work.
struct Behind {
    foreground: Arc<Foreground>,
    since: Instant,
}

impl Foreground {
    /// A foreground in which nothing was called yet.
    pub fn new(env: Env) -> Self {
        Self { env, called: AtomicU64::new(0) }
    }

    /// A call came in.
    pub fn called(&self) {
        self.called.store(self.env.instant().0, Ordering::Relaxed);
    }

    /// Whether one did a moment ago.
    pub fn is_busy(&self) -> bool {
        let called = self.called.load(Ordering::Relaxed);
        called > 0 && self.env.instant().since(Instant(called)) <= LATELY
    }

    /// Does `work`, which makes room wherever it breathes.
    pub fn behind<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        let behind = Behind { foreground: self.clone(), since: self.env.instant() };
        let _before = Before(BEHIND.replace(Some(behind)));
        work()
    }
}

/// Puts back what a thread made room for before, also when its work panics.
struct Before(Option<Behind>);

impl Drop for Before {
    fn drop(&mut self) {
        BEHIND.set(self.0.take());
    }
}

/// As `to.write_all`, in calls that end soon.
///
/// # Errors
/// Those of `to`.
pub fn write_all(to: &mut impl std::io::Write, bytes: &[u8]) -> std::io::Result<()> {
    for piece in bytes.chunks(CALL_BYTES) {
        to.write_all(piece)?;
        breathe();
    }
    Ok(())
}

/// Makes room, where the work of this thread is behind a foreground and it is time to.
pub fn breathe() {
    BEHIND.with_borrow_mut(|behind| {
        let Some(Behind { foreground, since }) = behind else { return };
        if foreground.env.instant().since(*since) < WORK {
            return;
        }
        if foreground.is_busy() {
            std::thread::sleep(PAUSE);
        }
        *since = foreground.env.instant();
    });
}

impl std::fmt::Debug for Foreground {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Foreground(busy: {})", self.is_busy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long it takes to breathe once after work of this length.
    fn breath(work: Duration) -> Duration {
        std::thread::sleep(work);
        let env = Env::real();
        let before = env.instant();
        breathe();
        env.instant().since(before)
    }

    fn foreground() -> Arc<Foreground> {
        Arc::new(Foreground::new(Env::real()))
    }

    /// How long the breaths of work are while calls come in, and while none does. A machine that is
    /// busy makes any of them longer, and may forget any call: so there are many.
    fn breaths(foreground: &Foreground, called: bool) -> Vec<Duration> {
        let once = || {
            if called {
                foreground.called();
            }
            breath(WORK)
        };
        (0..50).map(|_| once()).collect()
    }

    #[test]
    fn work_pauses_for_who_calls_and_for_nobody_else() {
        let foreground = foreground();
        let pauses = |breaths: Vec<Duration>| breaths.iter().filter(|took| **took >= PAUSE).count();
        assert!(!foreground.is_busy());
        assert!(pauses(foreground.behind(|| breaths(&foreground, false))) < 25);
        assert!(pauses(breaths(&foreground, true)) < 25, "this thread is behind nobody");
        assert!(pauses(foreground.behind(|| breaths(&foreground, true))) > 25);
        assert!(pauses(breaths(&foreground, true)) < 25, "nor any more");
    }

    #[test]
    fn all_is_written_in_calls_that_end_soon() {
        struct Calls(Vec<Vec<u8>>);
        impl std::io::Write for Calls {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.push(bytes.to_vec());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let bytes: Vec<u8> = (0..3 * CALL_BYTES as u32 + 5).map(|n| n as u8).collect();
        let mut calls = Calls(Vec::new());
        write_all(&mut calls, &bytes).unwrap();
        assert_eq!(calls.0.iter().map(Vec::len).max(), Some(CALL_BYTES));
        assert!(calls.0.concat() == bytes);
    }

    #[test]
    fn a_call_is_soon_forgotten() {
        let foreground = foreground();
        let is_heard = || {
            foreground.called();
            foreground.is_busy()
        };
        assert!((0..50).any(|_| is_heard()));
        std::thread::sleep(LATELY + Duration::from_millis(1));
        assert!(!foreground.is_busy());
    }
}
