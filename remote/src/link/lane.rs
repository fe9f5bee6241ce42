//! A lane: how much of a remote one link uses at a time, and how fast.
//!
//! Bytes of blobs and entries keep to a pace that links share; what the protocol adds is not
//! counted. A read never waits for a layer that is being sent: puts leave one request to others,
//! and both ways have a pace of their own.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::store::Body;
use crate::wire::Call;
use crate::wrap::{Limits, Pace};

/// What each of several puts should have of a slow pace: four times what a node waits for, since
/// four remotes may share it.
const PUT_BYTES_PER_S: u64 = 64 << 10;

/// The smallest piece worth asking for by itself.
const PIECE_BYTES_MIN: u64 = 64 << 10;

/// What one link may do at a time.
pub(super) struct Lane {
    limits: Limits,
    requests: Semaphore,
    puts: Semaphore,
}

/// The right to make one request, for as long as it is kept.
pub(super) struct Turn<'a> {
    received: Option<&'a Pace>,
    _permits: [Option<SemaphorePermit<'a>>; 2],
}

impl Lane {
    pub(super) fn new(limits: Limits) -> Self {
        let requests = limits.requests();
        let slow = limits.sent.as_ref().map_or(u64::MAX, |pace| pace.bytes_per_s());
        let slow = usize::try_from(slow / PUT_BYTES_PER_S).unwrap_or(usize::MAX);
        let puts = slow.min(requests - 1).max(1);
        Self { limits, requests: Semaphore::new(requests), puts: Semaphore::new(puts) }
    }

    /// Waits until `call` may be made. A watch is no request under way: the node sleeps over it.
    pub(super) async fn turn(&self, call: &Call) -> Turn<'_> {
        let put = match call {
            Call::Put { .. } => Some(permit(&self.puts).await),
            _ => None,
        };
        let request = match call {
            Call::Watch { .. } | Call::PairWait { .. } => None,
            _ => Some(permit(&self.requests).await),
        };
        let counts = matches!(call, Call::Get { .. } | Call::GetMany | Call::ReadLog { .. });
        let received = self.limits.received.as_deref().filter(|_| counts);
        Turn { received, _permits: [put, request] }
    }

    /// The body of `call` as it may leave.
    pub(super) fn outgoing(&self, call: &Call, body: Body) -> Body {
        let (sent, beside) = match call {
            Call::Put { .. } => (&self.limits.sent, &self.limits.beside),
            Call::Append => (&self.limits.sent, &None),
            _ => return body,
        };
        let paces = sent.iter().chain(beside);
        paces.fold(body, |body, pace| pace.over(body))
    }

    /// How many of `bytes` to ask for at once, so that a pace is kept from second to second.
    pub(super) fn at_once(&self, bytes: u64) -> u64 {
        match &self.limits.received {
            Some(pace) => bytes.min(pace.bytes_per_s().max(PIECE_BYTES_MIN)),
            None => bytes,
        }
    }
}

impl Turn<'_> {
    /// The answer is here, and what waits for its bytes is the next request.
    pub(super) async fn received(self, bytes: usize) {
        if let Some(pace) = self.received {
            pace.passed(bytes).await;
        }
    }
}

async fn permit(of: &Semaphore) -> SemaphorePermit<'_> {
    of.acquire().await.expect("the semaphore is never closed")
}
