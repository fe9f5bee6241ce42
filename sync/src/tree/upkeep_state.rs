//! What upkeep remembers from one time to the next.

use rdrivefs_remote::env::Instant;

use crate::journal::Position;

/// The next number to draw.
pub(super) const COUNTER: &str = "counter";

/// When what was last done.
pub(super) struct Upkeep {
    /// The position the index stands at.
    pub(super) applied: Position,
    /// The position the index stands at durably.
    pub(super) durable: Position,
    /// When the index was last made durable.
    pub(super) checkpointed: Instant,
    /// A file was forgotten since, of which no record tells.
    pub(super) purged: bool,
    /// The position up to which it was settled what was touched here.
    pub(super) settled: Option<Position>,
}

impl Upkeep {
    pub(super) fn new(applied: Position, now: Instant) -> Self {
        Self { applied, durable: applied, checkpointed: now, purged: false, settled: None }
    }
}
