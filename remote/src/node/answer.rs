//! Answers: one request of a welcomed session, from its head to the end of the reply.
//!
//! Memory is bounded before it is used: puts stream to disk from a limited number of slots, answers
//! take room from a common budget until they are sent. Whatever a peer does not do in time ends
//! its request.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::OwnedSemaphorePermit;

use crate::blob::BlobId;
use crate::error::{Error, Result};
use crate::logs::{Logs, READ_BYTES_MAX, WATCH_MS_MAX};
use crate::node::keeper::{ANSWER_UNIT, Keeper};
use crate::node::pace::{Paced, patience};
use crate::node::session::Session;
use crate::store::{Body, Slice, Store};
use crate::wire::record::{self, Want};
use crate::wire::{
    Answer, Call, Fault, GET_BYTES_MAX, HEADS_MAX, LIST_MAX, Reply, Request, WANTED_BYTES_MAX,
    frame, slice_max,
};

/// Wants are proven in parts of this many, each a task, so that both disk and cores are used.
const WANTS_PER_TASK: usize = 64;

/// An answer with its body, and the room it takes.
struct Outcome {
    answer: Answer,
    body: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Outcome {
    fn done() -> Self {
        Self::body(Bytes::new(), None)
    }

    fn body(body: impl Into<Bytes>, room: Option<OwnedSemaphorePermit>) -> Self {
        Self { answer: Answer::Done, body: body.into(), _room: room }
    }
}

/// Serves one stream.
pub(super) async fn serve<R, W>(keeper: Arc<Keeper>, session: Arc<Session>, mut from: R, to: W)
where
    R: AsyncRead + Send + Unpin + 'static,
    W: AsyncWrite + Unpin,
{
    let wait = Duration::from_millis(keeper.config.limits.hello_ms);
    let head = tokio::time::timeout(wait, frame::read_head::<Request>(&mut from, "request")).await;
    let outcome = match head {
        Err(_) => return,
        Ok(Err(error @ Error::Unreachable(_))) => {
            tracing::debug!(%error, "a stream broke before it asked");
            return;
        }
        Ok(Err(error)) => Err(error),
        Ok(Ok(request)) => {
            session.requests.fetch_add(1, Ordering::Relaxed);
            keeper.metrics.request(request.call.name());
            tracing::trace!(device = %session.device, call = request.call.name(), "asked");
            carry_out(&keeper, &session, request, from).await
        }
    };
    let outcome = outcome.unwrap_or_else(|error| {
        keeper.metrics.failure(&error);
        log(&session, &error);
        Outcome { answer: Answer::Failed(Fault::from(&error)), body: Bytes::new(), _room: None }
    });
    keeper.metrics.bytes_out.fetch_add(outcome.body.len() as u64, Ordering::Relaxed);
    reply(to, outcome).await;
}

async fn reply<W: AsyncWrite + Unpin>(mut to: W, outcome: Outcome) {
    let head = Reply { answer: outcome.answer.clone(), body: outcome.body.len() as u64 };
    let sent = async {
        frame::send(&mut to, &head, &outcome.body).await?;
        to.shutdown().await.map_err(|e| Error::Unreachable(e.to_string()))
    };
    match tokio::time::timeout(patience(head.body), sent).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the reply did not arrive"),
        Err(_) => tracing::debug!("the reply was not taken in time"),
    }
}

async fn carry_out<R>(
    keeper: &Arc<Keeper>,
    session: &Arc<Session>,
    request: Request,
    mut from: R,
) -> Result<Outcome>
where
    R: AsyncRead + Send + Unpin + 'static,
{
    session.pace.take(1).await;
    let Request { call, body } = request;
    if body > call.body_max() {
        return Err(Error::malformed("request", "its body is longer than such a request may have"));
    }
    if let Call::Put { id } = call {
        return put(keeper, session, id, body, from).await;
    }
    let max = call.body_max();
    let bytes = tokio::time::timeout(patience(body), frame::read_body(&mut from, body, max, "body"));
    let bytes = bytes.await.map_err(|_| timed_out(body))??;
    let space = &session.space;
    match call {
        Call::Get { id, start, end } => get(keeper, session, id, start..end).await,
        Call::GetMany => get_many(keeper, session, record::read_wants(&bytes)?).await,
        Call::Has => {
            let found = space.blobs().has(&record::read_ids(&bytes)?).await?;
            Ok(Outcome::body(record::write_lengths(&found), None))
        }
        Call::List { after, limit } => {
            let limit = usize::try_from(limit).unwrap_or(LIST_MAX).min(LIST_MAX);
            Ok(Outcome::body(record::write_held(&space.blobs().list(after, limit).await?), None))
        }
        Call::Delete { id } => {
            space.delete(id, keeper.config.retain_ms).await?;
            tracing::info!(device = %session.device, drive = %space.drive(), %id, "deleted");
            Ok(Outcome::done())
        }
        Call::Space => {
            let used = space.used().await?;
            let answer = Answer::Space { used: used.used, quota: used.quota, blobs: used.blobs };
            Ok(Outcome { answer, body: Bytes::new(), _room: None })
        }
        Call::Append => append(keeper, session, bytes).await,
        Call::ReadLog { log, from, bytes_max } => {
            let room = room(keeper, READ_BYTES_MAX).await;
            let bytes_max = bytes_max.min(READ_BYTES_MAX);
            let entries = space.logs().read(log, from, bytes_max).await?;
            Ok(Outcome::body(record::write_entries(&entries), Some(room)))
        }
        Call::Heads => heads(space.logs().heads().await?),
        Call::Watch { timeout_ms } => {
            let seen = record::read_heads(&bytes)?;
            let timeout_ms = timeout_ms.min(WATCH_MS_MAX);
            tokio::select! {
                now = space.logs().watch(seen, timeout_ms) => heads(now?),
                () = keeper.stopped() => heads(space.logs().heads().await?),
            }
        }
        Call::Hello { .. } => Err(Error::malformed("request", "hello was said already")),
        Call::Put { .. } => unreachable!("handled above"),
    }
}

async fn put<R>(
    keeper: &Keeper,
    session: &Session,
    id: BlobId,
    len: u64,
    from: R,
) -> Result<Outcome>
where
    R: AsyncRead + Send + Unpin + 'static,
{
    let _slot = keeper.puts.acquire().await.expect("the semaphore is never closed");
    let body = Body::stream(len, Box::new(Paced::new(from.take(len), len)));
    session.space.put(id, body).await?;
    keeper.metrics.bytes_in.fetch_add(len, Ordering::Relaxed);
    Ok(Outcome::done())
}

async fn get(
    keeper: &Keeper,
    session: &Session,
    id: BlobId,
    range: Range<u64>,
) -> Result<Outcome> {
    let width = range.end.checked_sub(range.start);
    let width = width.ok_or_else(|| Error::malformed("range", "it ends before it begins"))?;
    if width > GET_BYTES_MAX {
        return Err(Error::malformed("range", format_args!("wider than {GET_BYTES_MAX} bytes")));
    }
    let room = room(keeper, slice_max(width)).await;
    let slice = session.space.blobs().get(id, range).await?;
    keeper.metrics.slices.fetch_add(1, Ordering::Relaxed);
    Ok(Outcome::body(slice.0, Some(room)))
}

async fn get_many(keeper: &Keeper, session: &Arc<Session>, wants: Vec<Want>) -> Result<Outcome> {
    let count = u32::try_from(wants.len()).expect("wants are few");
    session.pace.take(count).await;
    let bytes = wants.iter().map(|w| slice_max(w.range.end - w.range.start)).sum::<u64>();
    let room = room(keeper, bytes.min(2 * WANTED_BYTES_MAX)).await;
    let tasks: Vec<_> = wants
        .chunks(WANTS_PER_TASK)
        .map(|part| tokio::spawn(prove_all(session.clone(), part.to_vec())))
        .collect();
    let mut body = Vec::new();
    for task in tasks {
        for item in task.await.expect("proving does not panic") {
            record::write_item(&mut body, &item);
        }
    }
    keeper.metrics.slices.fetch_add(count.into(), Ordering::Relaxed);
    Ok(Outcome::body(body, Some(room)))
}

async fn prove_all(session: Arc<Session>, wants: Vec<Want>) -> Vec<Result<Slice>> {
    let mut items = Vec::with_capacity(wants.len());
    for want in wants {
        items.push(session.space.blobs().get(want.id, want.range).await);
    }
    items
}

async fn append(keeper: &Keeper, session: &Session, entry: Bytes) -> Result<Outcome> {
    let len = entry.len() as u64;
    if session.space.append(entry).await? {
        keeper.sessions.cut_revoked(&session.space).await;
    }
    keeper.metrics.bytes_in.fetch_add(len, Ordering::Relaxed);
    Ok(Outcome::done())
}

fn heads(heads: Vec<crate::entry::Head>) -> Result<Outcome> {
    assert!(heads.len() <= HEADS_MAX, "a space takes no more logs");
    Ok(Outcome::body(record::write_heads(&heads), None))
}

/// Waits for room for an answer of so many bytes.
async fn room(keeper: &Keeper, bytes: u64) -> OwnedSemaphorePermit {
    let all = keeper.config.limits.answer_bytes as u64 / ANSWER_UNIT;
    let units = bytes.div_ceil(ANSWER_UNIT).min(all);
    let units = u32::try_from(units).expect("an answer is far below 4 TiB");
    let room = keeper.answers.clone().acquire_many_owned(units);
    room.await.expect("the semaphore is never closed")
}

fn timed_out(bytes: u64) -> Error {
    Error::TimedOut(u64::try_from(patience(bytes).as_millis()).unwrap_or(u64::MAX))
}

fn log(session: &Session, error: &Error) {
    let (device, drive) = (&session.device, session.space.drive());
    match error {
        Error::Missing(_) => {}
        Error::Refused(_) | Error::Forged(_) => tracing::warn!(%device, %drive, %error, "refused"),
        Error::Corrupt { .. } | Error::Io { .. } | Error::Full => {
            tracing::error!(%device, %drive, %error, "failed");
        }
        _ => tracing::info!(%device, %drive, %error, "not done"),
    }
}
