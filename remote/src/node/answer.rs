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
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;

use crate::blob::BlobId;
use crate::entry::ENTRY_BYTES_MAX;
use crate::error::{Error, Result};
use crate::logs::{Logs, READ_BYTES_MAX, WATCH_MS_MAX};
use crate::node::keeper::Keeper;
use crate::node::pace::{Paced, patience};
use crate::node::pieces::{Part, parts};
use crate::node::session::Session;
use crate::proof::slice_len;
use crate::store::{Body, Slice, Store};
use crate::wire::record::{self, Want};
use crate::wire::{
    Answer, Call, Fault, GET_BYTES_MAX, HEADS_MAX, LIST_MAX, Reply, Request, WANTED_BYTES_MAX,
    frame, slice_max,
};

/// Wants are proven in parts of this many, each a task, so that both disk and cores are used.
const WANTS_PER_TASK: usize = 64;

/// What is to be said.
enum Outcome {
    /// An answer with its body, and the room it takes.
    Whole { answer: Answer, body: Bytes, _room: Option<Room> },
    /// A slice that is made while it is sent.
    Slice { id: BlobId, bytes: u64, parts: Vec<Part> },
}

/// Memory granted for a part of an answer: first out of the device's share, then out of all.
type Room = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Outcome {
    fn done() -> Self {
        Self::body(Bytes::new(), None)
    }

    fn answer(answer: Answer) -> Self {
        Self::Whole { answer, body: Bytes::new(), _room: None }
    }

    fn body(body: impl Into<Bytes>, room: Option<Room>) -> Self {
        Self::Whole { answer: Answer::Done, body: body.into(), _room: room }
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
        Outcome::answer(Answer::Failed(Fault::from(&error)))
    });
    if let Err(error) = reply(&keeper, &session, to, outcome).await {
        tracing::debug!(%error, "the reply did not arrive");
    }
}

async fn reply<W: AsyncWrite + Unpin>(
    keeper: &Keeper,
    session: &Session,
    mut to: W,
    outcome: Outcome,
) -> Result<()> {
    match outcome {
        Outcome::Whole { answer, body, _room } => {
            let head = Reply { answer, body: body.len() as u64 };
            send(keeper, head.body, frame::send(&mut to, &head, &body)).await?;
        }
        Outcome::Slice { id, bytes, parts } => {
            let head = Reply { answer: Answer::Done, body: bytes };
            send(keeper, 0, frame::send(&mut to, &head, &[])).await?;
            let mut next = prove(keeper, session, id, parts.first()).await?;
            for at in 1.. {
                let Some((part, room)) = next else { break };
                let sent = async {
                    send(keeper, part.len() as u64, frame::send_bytes(&mut to, &part)).await?;
                    drop(room);
                    Ok::<_, Error>(())
                };
                // The next part is proven while this one travels.
                let (sent, proven) = tokio::join!(sent, prove(keeper, session, id, parts.get(at)));
                sent?;
                next = proven?;
            }
        }
    }
    send(keeper, 0, frame::end(&mut to)).await
}

/// Sends so many bytes in the time they may take.
async fn send(
    keeper: &Keeper,
    bytes: u64,
    sending: impl Future<Output = Result<()>>,
) -> Result<()> {
    let sent = tokio::time::timeout(patience(bytes), sending).await;
    sent.unwrap_or_else(|_| Err(timed_out(bytes)))?;
    keeper.metrics.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    Ok(())
}

/// The slice of one part, less what was said before.
async fn prove(
    keeper: &Keeper,
    session: &Session,
    id: BlobId,
    part: Option<&Part>,
) -> Result<Option<(Bytes, Room)>> {
    let Some(part) = part else { return Ok(None) };
    let room = room(keeper, session, slice_max(part.range.end - part.range.start)).await;
    let slice = session.space.blobs().get(id, part.range.clone()).await?;
    Ok(Some((slice.0.slice(part.skip..), room)))
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
    session.share.pace.take(1).await;
    let Request { call, body } = request;
    if body > call.body_max() {
        return Err(Error::malformed("request", "its body is longer than such a request may have"));
    }
    if let Call::Put { id } = call {
        return put(keeper, session, id, body, from).await;
    }
    let max = call.body_max();
    let bytes =
        tokio::time::timeout(patience(body), frame::read_body(&mut from, body, max, "body"));
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
            let (used, quota, blobs) = (used.used, used.quota, used.blobs);
            Ok(Outcome::answer(Answer::Space { used, quota, blobs }))
        }
        Call::Append => append(keeper, session, bytes).await,
        Call::ReadLog { log, from, bytes_max } => {
            let bytes_max = bytes_max.min(READ_BYTES_MAX);
            let room = room(keeper, session, bytes_max.max(ENTRY_BYTES_MAX as u64)).await;
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
    let _own = session.share.puts.acquire().await.expect("the semaphore is never closed");
    let _slot = keeper.puts.acquire().await.expect("the semaphore is never closed");
    let body = Body::stream(len, Box::new(Paced::new(from.take(len), len)));
    session.space.put(id, body).await?;
    keeper.metrics.bytes_in.fetch_add(len, Ordering::Relaxed);
    Ok(Outcome::done())
}

async fn get(keeper: &Keeper, session: &Session, id: BlobId, range: Range<u64>) -> Result<Outcome> {
    let width = range.end.checked_sub(range.start);
    let width = width.ok_or_else(|| Error::malformed("range", "it ends before it begins"))?;
    if width > GET_BYTES_MAX {
        return Err(Error::malformed("range", format_args!("wider than {GET_BYTES_MAX} bytes")));
    }
    let found = session.space.blobs().has(&[id]).await?;
    let len = found.first().copied().flatten().ok_or(Error::Missing(id))?;
    keeper.metrics.slices.fetch_add(1, Ordering::Relaxed);
    let bytes = slice_len(len, &range);
    Ok(Outcome::Slice { id, bytes, parts: parts(len, range) })
}

async fn get_many(keeper: &Keeper, session: &Arc<Session>, wants: Vec<Want>) -> Result<Outcome> {
    let count = u32::try_from(wants.len()).expect("wants are few");
    session.share.pace.take(count).await;
    let bytes = wants.iter().map(|w| slice_max(w.range.end - w.range.start)).sum::<u64>();
    let room = room(keeper, session, bytes.min(2 * WANTED_BYTES_MAX)).await;
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

/// Waits for room for so many bytes.
async fn room(keeper: &Keeper, session: &Session, bytes: u64) -> Room {
    // The device's share comes first: who waits for it holds nothing of what others need.
    let own = session.share.answers.take(bytes).await;
    (own, keeper.answers.take(bytes).await)
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
