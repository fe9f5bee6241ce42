//! Answers: one request of a welcomed session, from its head to the end of the reply.
//!
//! Memory is bounded before it is used: puts stream to disk from a limited number of slots, what is
//! asked and what is answered take room, first out of the device's share, then out of the drive's,
//! then out of all, until the answer is sent. Whatever a peer does not do in time ends its request.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::AsyncReadExt;
use tokio::sync::OwnedSemaphorePermit;

use crate::blob::BlobId;
use crate::entry::{ENTRY_BYTES_MAX, Head};
use crate::error::{Error, Result};
use crate::logs::{Logs, READ_BYTES_MAX, WATCH_MS_MAX};
use crate::node::keeper::Keeper;
use crate::node::pace::{Budget, Paced, patience};
use crate::node::pieces::{Part, parts};
use crate::node::session::{Session, Share};
use crate::proof::slice_len;
use crate::store::{Body, Slice, Store};
use crate::wire::record::{self, Want};
use crate::wire::{
    Answer, Call, Fault, GET_BYTES_MAX, HEADS_MAX, LIST_MAX, PAIR_REQUEST_BYTES_MAX, Reply,
    Request, frame, reset, slice_max,
};

/// Wants are proven in parts of this many, each a task, so that both disk and cores are used.
const WANTS_PER_TASK: usize = 64;

/// What is to be said.
enum Outcome {
    /// An answer with its body, and the room it takes.
    Whole { answer: Answer, body: Bytes, _room: Option<Room> },
    /// A slice of which the rest is made while the first part is sent.
    Slice { id: BlobId, bytes: u64, parts: Vec<Part>, first: Proven },
}

/// What was granted: out of the device's share, out of its drive's, and out of all.
type Room = [OwnedSemaphorePermit; 3];

/// The slice of one part, and the room it takes; none behind the last.
type Proven = Option<(Bytes, Room)>;

/// Where a reply broke off.
enum Broken {
    /// On its way.
    Link(Error),
    /// While the rest of it was made.
    Disk(Error),
}

impl Outcome {
    fn done() -> Self {
        Self::answer(Answer::Done)
    }

    fn answer(answer: Answer) -> Self {
        Self::Whole { answer, body: Bytes::new(), _room: None }
    }

    fn body(body: impl Into<Bytes>, room: Room) -> Self {
        Self::Whole { answer: Answer::Done, body: body.into(), _room: Some(room) }
    }
}

/// Serves one stream.
pub(super) async fn serve(
    keeper: Arc<Keeper>,
    session: Arc<Session>,
    mut from: RecvStream,
    mut to: SendStream,
) {
    let wait = Duration::from_millis(keeper.config.limits.hello_ms);
    let head = tokio::time::timeout(wait, frame::read_head::<Request>(&mut from, "request")).await;
    let mut asking = None;
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
            carry_out(&keeper, &session, request, from, &mut asking).await
        }
    };
    let outcome = outcome.unwrap_or_else(|error| {
        keeper.metrics.failure(&error);
        log(&session, &error);
        Outcome::answer(Answer::Failed(Fault::from(&error)))
    });
    match reply(&keeper, &session, &mut to, outcome).await {
        Ok(()) => {}
        Err(Broken::Link(error)) => tracing::debug!(%error, "the reply did not arrive"),
        Err(Broken::Disk(error)) => {
            keeper.metrics.failure(&error);
            log(&session, &error);
            let code = if error.is_corrupt() { reset::CORRUPT } else { reset::FAILED };
            // It ended by itself if this fails.
            let _ = to.reset(VarInt::from_u32(code));
        }
    }
    drop(asking);
}

async fn reply(
    keeper: &Keeper,
    session: &Session,
    to: &mut SendStream,
    outcome: Outcome,
) -> Result<(), Broken> {
    match outcome {
        Outcome::Whole { answer, body, _room } => {
            let head = Reply { answer, body: body.len() as u64 };
            send(keeper, head.body, frame::send(to, &head, &body)).await?;
        }
        Outcome::Slice { id, bytes, parts, first } => {
            let head = Reply { answer: Answer::Done, body: bytes };
            send(keeper, 0, frame::send(to, &head, &[])).await?;
            let mut next = first;
            for at in 1.. {
                let Some((part, room)) = next else { break };
                let sent = async {
                    send(keeper, part.len() as u64, frame::send_bytes(to, &part)).await?;
                    drop(room);
                    Ok::<_, Broken>(())
                };
                // The next part is proven while this one travels.
                let (sent, proven) = tokio::join!(sent, prove(keeper, session, id, parts.get(at)));
                sent?;
                next = proven.map_err(Broken::Disk)?;
            }
        }
    }
    send(keeper, 0, frame::end(to)).await
}

/// Sends so many bytes in the time they may take.
async fn send(
    keeper: &Keeper,
    bytes: u64,
    sending: impl Future<Output = Result<()>>,
) -> Result<(), Broken> {
    let sent = tokio::time::timeout(patience(bytes), sending).await;
    sent.unwrap_or_else(|_| Err(timed_out(bytes))).map_err(Broken::Link)?;
    keeper.metrics.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    Ok(())
}

/// The slice of one part, less what was said before.
async fn prove(
    keeper: &Keeper,
    session: &Session,
    id: BlobId,
    part: Option<&Part>,
) -> Result<Proven> {
    let Some(part) = part else { return Ok(None) };
    let room = room(keeper, session, slice_max(part.range.end - part.range.start)).await;
    let mut slice = session.space.blobs().get(id, part.range.clone()).await?.0;
    // The length written beside a blob can rot, too; then its slice is another than was announced.
    let corrupt = Error::Corrupt { id, offset: part.range.start };
    let len = slice_len(part.of, &part.range);
    if slice.len() as u64 != len || !slice.starts_with(&part.of.to_le_bytes()) {
        return Err(corrupt);
    }
    Ok(Some((slice.split_off(part.skip), room)))
}

/// Does what is asked; the room that the request takes is left with the caller until it is answered.
async fn carry_out(
    keeper: &Arc<Keeper>,
    session: &Arc<Session>,
    request: Request,
    mut from: RecvStream,
    asking: &mut Option<Room>,
) -> Result<Outcome> {
    session.own.pace.take(1).await;
    let Request { call, body } = request;
    if body > call.body_max() {
        return Err(Error::malformed("request", "its body is longer than such a request may have"));
    }
    if let Call::Put { id } = call {
        return put(keeper, session, id, body, from).await;
    }
    if body > 0 {
        *asking = Some(granted(keeper, session, body, |share| &share.requests).await);
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
            let ids = record::read_ids(&bytes)?;
            let room = room(keeper, session, ids.len() as u64 * 8).await;
            let found = space.blobs().has(&ids).await?;
            Ok(Outcome::body(record::write_lengths(&found), room))
        }
        Call::List { after, limit } => {
            let limit = usize::try_from(limit).unwrap_or(LIST_MAX).min(LIST_MAX);
            let room = room(keeper, session, (limit * record::HELD_BYTES) as u64).await;
            Ok(Outcome::body(record::write_held(&space.blobs().list(after, limit).await?), room))
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
            Ok(Outcome::body(record::write_entries(&entries), room))
        }
        Call::Heads => heads(keeper, session).await,
        Call::Watch { timeout_ms } => {
            watch(keeper, session, record::read_heads(&bytes)?, timeout_ms).await
        }
        Call::PairOpen { .. } | Call::PairWait { .. } | Call::PairAnswer { .. } => {
            pair(keeper, session, call, bytes).await
        }
        Call::Hello { .. } | Call::PairJoin { .. } => {
            Err(Error::malformed("request", "hello was said already"))
        }
        Call::Put { .. } => unreachable!("handled above"),
    }
}

async fn put(
    keeper: &Keeper,
    session: &Session,
    id: BlobId,
    len: u64,
    from: RecvStream,
) -> Result<Outcome> {
    let _slot = granted(keeper, session, 1, |share| &share.puts).await;
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
    let parts = parts(len, range);
    // Before the head is sent, so that what is wrong with it can still be said.
    let first = prove(keeper, session, id, parts.first()).await?;
    Ok(Outcome::Slice { id, bytes, parts, first })
}

async fn get_many(keeper: &Keeper, session: &Arc<Session>, wants: Vec<Want>) -> Result<Outcome> {
    let count = u32::try_from(wants.len()).expect("wants are few");
    session.own.pace.take(count).await;
    let bytes = wants.iter().map(|w| slice_max(w.range.end - w.range.start)).sum::<u64>();
    let room = room(keeper, session, bytes).await;
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
    Ok(Outcome::body(body, room))
}

async fn prove_all(session: Arc<Session>, wants: Vec<Want>) -> Vec<Result<Slice>> {
    let mut items = Vec::with_capacity(wants.len());
    for want in wants {
        items.push(session.space.blobs().get(want.id, want.range).await);
    }
    items
}

async fn append(keeper: &Arc<Keeper>, session: &Session, entry: Bytes) -> Result<Outcome> {
    let len = entry.len() as u64;
    let space = session.space.clone();
    keeper.carry(&session.space, async move { space.append(entry).await }).await?;
    keeper.metrics.bytes_in.fetch_add(len, Ordering::Relaxed);
    Ok(Outcome::done())
}

async fn heads(keeper: &Keeper, session: &Session) -> Result<Outcome> {
    let logs = session.space.logs();
    let room = room(keeper, session, (logs.count() * record::HEAD_BYTES) as u64).await;
    let heads = logs.heads().await?;
    assert!(heads.len() <= HEADS_MAX, "a space takes no more logs");
    Ok(Outcome::body(record::write_heads(&heads), room))
}

/// Waits for other heads than those seen, or for the next watch of the same connection: one that
/// nobody waits for any longer holds no memory.
async fn watch(
    keeper: &Keeper,
    session: &Session,
    seen: Vec<Head>,
    timeout_ms: u64,
) -> Result<Outcome> {
    session.watches.send_modify(|count| *count += 1);
    let mut newer = session.watches.subscribe();
    tokio::select! {
        changed = session.space.logs().watch(seen, timeout_ms.min(WATCH_MS_MAX)) => drop(changed?),
        _ = newer.changed() => {}
        () = keeper.stopped() => {}
        // Nobody is there to be answered, and a place is to be had.
        () = session.ended() => {}
    }
    heads(keeper, session).await
}

/// Lets a member open a mailbox, see what came into it, and leave the answer.
async fn pair(keeper: &Keeper, session: &Session, call: Call, answer: Bytes) -> Result<Outcome> {
    let (owner, boxes) = ((session.space.drive(), session.device), &keeper.mailboxes);
    match call {
        Call::PairOpen { mailbox, lifetime_ms } => boxes.open(mailbox, owner, lifetime_ms)?,
        Call::PairAnswer { mailbox } => boxes.answer(mailbox, owner, answer)?,
        Call::PairWait { mailbox, timeout_ms } => {
            let room = room(keeper, session, PAIR_REQUEST_BYTES_MAX as u64).await;
            let waiting = boxes.request(mailbox, owner);
            let limit = Duration::from_millis(timeout_ms.min(WATCH_MS_MAX));
            let request = tokio::select! {
                came = tokio::time::timeout(limit, waiting) => came.ok().transpose()?,
                () = keeper.stopped() => None,
                () = session.ended() => None,
            };
            return Ok(Outcome::body(request.unwrap_or_default(), room));
        }
        _ => unreachable!("the caller has looked"),
    }
    Ok(Outcome::done())
}

/// Waits for room for so many bytes of an answer.
async fn room(keeper: &Keeper, session: &Session, bytes: u64) -> Room {
    granted(keeper, session, bytes, |share| &share.answers).await
}

/// Waits for a part of some budget.
async fn granted(
    keeper: &Keeper,
    session: &Session,
    size: u64,
    budget: fn(&Share) -> &Budget,
) -> Room {
    // The device's share comes first: who waits for it holds nothing of what others need.
    let own = budget(&session.own.share).take(size).await;
    let drive = budget(&session.drive).take(size).await;
    [own, drive, budget(&keeper.share).take(size).await]
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
