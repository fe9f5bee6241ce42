//! Batches: many small gets that wait at the same time travel as one request.
//!
//! While fewer than [`IN_FLIGHT`] batches are under way a get leaves at once; behind that, what
//! comes in the meantime gathers. So one get costs one round trip, and a thousand cost a few.

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::blob::BlobId;
use crate::error::{Error, Result};
use crate::store::Slice;
use crate::wire::record::Want;
use crate::wire::{WANTED_BYTES_MAX, WANTS_MAX};

/// Gets up to this width are gathered; wider ones gain nothing.
pub(super) const SMALL_BYTES: u64 = 64 << 10;
/// Batches under way at a time: two to be served while two travel.
const IN_FLIGHT: usize = 4;
/// Gets waiting to leave; whoever comes later waits to wait.
const QUEUE: usize = 4096;

type Answer = oneshot::Sender<Result<Slice>>;

/// The queue of small gets.
pub(super) struct Batches {
    queue: mpsc::Sender<(Want, Answer)>,
}

impl Batches {
    /// A queue whose batches `send` carries; it ends with the queue.
    pub(super) fn start<F, Fut>(send: F) -> Self
    where
        F: Fn(Vec<Want>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<Result<Slice>>>> + Send + 'static,
    {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(run(waiting, Arc::new(send)));
        Self { queue }
    }

    /// Gets one small range in company.
    pub(super) async fn get(&self, id: BlobId, range: Range<u64>) -> Result<Slice> {
        let closed = || Error::Unreachable("the link is closed".to_owned());
        let (answer, answered) = oneshot::channel();
        let want = Want { id, range };
        self.queue.send((want, answer)).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?
    }
}

async fn run<F, Fut>(mut waiting: mpsc::Receiver<(Want, Answer)>, send: Arc<F>)
where
    F: Fn(Vec<Want>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<Result<Slice>>>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut first = None;
    loop {
        let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
        let Some(one) = (match first.take() {
            Some(one) => Some(one),
            None => waiting.recv().await,
        }) else {
            return;
        };
        let mut bytes = width(&one.0);
        let mut batch = vec![one];
        while batch.len() < WANTS_MAX {
            let Ok(next) = waiting.try_recv() else { break };
            bytes += width(&next.0);
            if bytes > WANTED_BYTES_MAX {
                first = Some(next);
                break;
            }
            batch.push(next);
        }
        let send = send.clone();
        tokio::spawn(async move {
            carry(batch, &*send).await;
            drop(slot);
        });
    }
}

async fn carry<F, Fut>(batch: Vec<(Want, Answer)>, send: &F)
where
    F: Fn(Vec<Want>) -> Fut,
    Fut: Future<Output = Result<Vec<Result<Slice>>>>,
{
    let (wants, answers): (Vec<_>, Vec<_>) =
        batch.into_iter().filter(|(_, answer)| !answer.is_closed()).unzip();
    if wants.is_empty() {
        return;
    }
    match send(wants).await {
        Ok(items) => {
            for (answer, item) in answers.into_iter().zip(items) {
                // A caller that went away needs no answer.
                let _ = answer.send(item);
            }
        }
        Err(error) => {
            for answer in answers {
                let _ = answer.send(Err(again(&error)));
            }
        }
    }
}

/// The same failure for each who waited for it.
pub(super) fn again(error: &Error) -> Error {
    match error {
        Error::TimedOut(ms) => Error::TimedOut(*ms),
        Error::Busy { retry_ms } => Error::Busy { retry_ms: *retry_ms },
        Error::Refused(why) => Error::Refused(why.clone()),
        Error::NodeKeyChanged { pinned, shown } => {
            Error::NodeKeyChanged { pinned: pinned.clone(), shown: shown.clone() }
        }
        Error::Malformed { what, why } => Error::malformed(what, why),
        Error::UnknownVersion { what, version } => {
            Error::UnknownVersion { what, version: *version }
        }
        other => Error::Unreachable(other.to_string()),
    }
}

fn width(want: &Want) -> u64 {
    want.range.end - want.range.start
}
