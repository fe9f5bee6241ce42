//! The only door to the clock and to randomness.
//!
//! Everything above asks an [`Env`], so that a test or a simulation can stand in for the world.
//! `clippy.toml` disallows the direct ways.

use std::sync::Arc;
use std::time::Duration;

/// Milliseconds since the Unix epoch, by the computer's clock, which may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallMs(pub u64);

/// Nanoseconds on a clock that never goes back; its zero means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The time since `earlier`, zero if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// What a world offers: time and randomness.
pub trait World: Send + Sync + 'static {
    /// Nanoseconds since the Unix epoch.
    fn wall_ns(&self) -> u64;
    /// The monotonic clock.
    fn instant(&self) -> Instant;
    /// Fills `out` with unpredictable bytes.
    fn fill(&self, out: &mut [u8]);
}

/// A handle on the world; cheap to clone.
#[derive(Clone)]
pub struct Env(Arc<dyn World>);

impl Env {
    /// The real world.
    pub fn real() -> Self {
        Self(Arc::new(Real))
    }

    /// A world of the caller's making.
    pub fn of(world: impl World) -> Self {
        Self(Arc::new(world))
    }

    /// Milliseconds since the Unix epoch.
    pub fn wall_ms(&self) -> WallMs {
        WallMs(self.0.wall_ns() / 1_000_000)
    }

    /// Nanoseconds since the Unix epoch.
    pub fn wall_ns(&self) -> u64 {
        self.0.wall_ns()
    }

    /// The monotonic clock.
    pub fn instant(&self) -> Instant {
        self.0.instant()
    }

    /// `N` unpredictable bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        self.0.fill(&mut out);
        out
    }

    /// A uniform number below `bound`, which must not be zero.
    pub fn random_below(&self, bound: u64) -> u64 {
        assert!(bound > 0, "a bound of zero leaves nothing to draw");
        let zone = u64::MAX - u64::MAX % bound;
        loop {
            let draw = u64::from_le_bytes(self.random());
            if draw < zone {
                return draw % bound;
            }
        }
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Env")
    }
}

struct Real;

#[allow(clippy::disallowed_methods, reason = "this is the one door")]
impl World for Real {
    fn wall_ns(&self) -> u64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
    }

    fn instant(&self) -> Instant {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Instant(t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs())
    }

    fn fill(&self, mut out: &mut [u8]) {
        while !out.is_empty() {
            match rustix::rand::getrandom(&mut *out, rustix::rand::GetRandomFlags::empty()) {
                Ok(n) => out = &mut out[n..],
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => panic!("the kernel must give randomness: {e}"),
            }
        }
    }
}
