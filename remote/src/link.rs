//! Links: a drive's store and logs on a node, over the network.
//!
//! A [`Link`] keeps at most one connection, made when it is first needed and again after a break;
//! a request that a break interrupted is sent once more where its body is still at hand (all
//! requests may be repeated). Everything has a deadline. What comes back is as the node said it:
//! slices still have to be verified, entries decoded. How long to go on trying is for `wrap`, and
//! the limits it keeps to are those of `wrap`, kept here because entries and batches count too.

mod session;
mod batch;
mod lane;
pub(crate) mod quic;
pub(crate) mod tls;
pub mod credentials;
pub mod url;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::blob::BlobId;
use crate::entry::LogId;
use crate::env::{Env, Instant};
use crate::error::{Error, Result};
use crate::identity::{PublicKey, SecretKey};
use crate::link::batch::Batches;
use crate::link::lane::Lane;
use crate::link::session::Session;
use crate::logs::{Head, Logs, WATCH_MS_MAX};
use crate::store::{Body, Held, Slice, Space, Store};
use crate::wire::record::{self, Want};
use crate::wire::{
    Answer, Call, GET_BYTES_MAX, IDS_MAX, LIST_MAX, MailboxId, PAIR_MS_MAX, VERSION,
};
use crate::wrap::Limits;

pub use credentials::Credentials;
pub use url::NodeUrl;

/// What an answer may take beside the time its bytes need.
const ANSWER_MS: u64 = 30_000;
/// The slowest link that is still worth waiting for, in bytes per millisecond (128 kbit/s).
const BYTES_PER_MS_MIN: u64 = 16;

/// The connection, and how the last dial failed.
#[derive(Default)]
struct Slot {
    session: Option<Arc<Session>>,
    failed: Option<(Instant, Error)>,
}

/// A drive's store and logs on one node.
pub struct Link {
    inner: Arc<Inner>,
    batches: Batches,
}

struct Inner {
    url: NodeUrl,
    who: Credentials,
    env: Env,
    lane: Lane,
    /// The connection; the lock is held while dialling, so that many requests make one dial.
    slot: tokio::sync::Mutex<Slot>,
    /// The same connection, for those who only want to look.
    live: Mutex<Weak<Session>>,
    /// Bytes of connections that are gone.
    sent_before: AtomicU64,
    received_before: AtomicU64,
}

impl Link {
    /// Connects to a node and proves both sides' keys.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::NodeKeyChanged`], [`Error::Refused`] when the node does
    /// not know the drive or the device, [`Error::UnknownVersion`].
    pub async fn dial(url: &NodeUrl, who: Credentials, env: &Env) -> Result<Self> {
        let link = Self::lazy(url, who, env, Limits::default());
        link.connect().await?;
        Ok(link)
    }

    /// The key that the node at this address shows, whatever key the URL has: for a person to
    /// compare with what its keeper says. It is not proven before a connection that pins it.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::UnknownVersion`], [`Error::Forged`] when it shows none.
    pub async fn shown_key(url: &NodeUrl, who: &Credentials, env: &Env) -> Result<PublicKey> {
        Session::shown_key(url, who, env).await
    }

    /// A link that connects when it is first asked something, and keeps to `limits`. Needs a tokio
    /// runtime around it.
    pub fn lazy(url: &NodeUrl, who: Credentials, env: &Env, limits: Limits) -> Self {
        let inner = Arc::new(Inner {
            url: url.clone(),
            who,
            env: env.clone(),
            lane: Lane::new(limits),
            slot: tokio::sync::Mutex::default(),
            live: Mutex::default(),
            sent_before: AtomicU64::new(0),
            received_before: AtomicU64::new(0),
        });
        let weak = Arc::downgrade(&inner);
        let batches = Batches::start(move |wants| {
            let inner = weak.upgrade();
            async move {
                let gone = || Error::Unreachable("the link is closed".to_owned());
                inner.ok_or_else(gone)?.get_many(wants).await
            }
        });
        Self { inner, batches }
    }

    /// Connects now, unless it is connected.
    ///
    /// # Errors
    /// As [`Link::dial`].
    pub async fn connect(&self) -> Result<()> {
        self.inner.session().await.map(drop)
    }

    /// Many small slices in one request: at most `WANTS_MAX` of them, `WANTED_BYTES_MAX` bytes in
    /// all (see `wire`). Concurrent calls of `get` are gathered into such requests by themselves.
    ///
    /// # Errors
    /// Of the request as a whole; each slice has its own result.
    pub async fn get_many(&self, wants: Vec<Want>) -> Result<Vec<Result<Slice>>> {
        self.inner.get_many(wants).await
    }

    /// Opens a mailbox for a device that is to join the drive.
    ///
    /// # Errors
    /// [`Error::Busy`] and [`Error::Refused`] when there are too many; of the link.
    pub async fn pair_open(&self, mailbox: MailboxId, lifetime_ms: u64) -> Result<()> {
        let call = Call::PairOpen { mailbox, lifetime_ms };
        self.inner.fetch(call, Bytes::new(), 0).await.map(drop)
    }

    /// What a device has put into a mailbox; none when none did in time.
    ///
    /// # Errors
    /// [`Error::Pairing`] when it is not there or its time is over; of the link.
    pub async fn pair_wait(&self, mailbox: MailboxId, timeout_ms: u64) -> Result<Option<Bytes>> {
        let timeout_ms = timeout_ms.min(WATCH_MS_MAX);
        let call = Call::PairWait { mailbox, timeout_ms };
        let body = self.inner.fetch(call, Bytes::new(), timeout_ms).await?;
        Ok((!body.is_empty()).then_some(body))
    }

    /// Leaves the answer for the device that came to a mailbox.
    ///
    /// # Errors
    /// As [`Link::pair_wait`].
    pub async fn pair_answer(&self, mailbox: MailboxId, answer: Bytes) -> Result<()> {
        self.inner.fetch(Call::PairAnswer { mailbox }, answer, 0).await.map(drop)
    }

    /// Puts a request into a mailbox, as one who belongs to no drive yet, and waits for the answer
    /// for as long as a mailbox can be open.
    ///
    /// # Errors
    /// [`Error::Pairing`] when the mailbox is not there, its time is over or another came first; of
    /// the link.
    pub async fn pair_join(
        url: &NodeUrl,
        device: &SecretKey,
        mailbox: MailboxId,
        request: Bytes,
        env: &Env,
    ) -> Result<Bytes> {
        let session = Session::reach(url, device, None, env).await?;
        let call = Call::PairJoin { versions: vec![VERSION], mailbox };
        let deadline_ms = ANSWER_MS + PAIR_MS_MAX;
        let asked = session.exchange(call, Body::bytes(request));
        let asked = tokio::time::timeout(Duration::from_millis(deadline_ms), asked).await;
        let answered = asked.unwrap_or(Err(Error::TimedOut(deadline_ms)));
        session.close().await;
        match answered? {
            (Answer::Done, answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }

    /// Ends the connection politely; the next request would make a new one.
    pub async fn close(&self) {
        let session = self.inner.slot.lock().await.session.take();
        if let Some(session) = session {
            session.close().await;
            self.inner.retire(&session);
        }
    }

    /// The smoothed round trip of the connection, if there is one.
    pub fn rtt_ms(&self) -> Option<f64> {
        self.inner.live().map(|s| s.connection.rtt().as_secs_f64() * 1000.0)
    }

    /// Whether a connection is open now.
    pub fn is_connected(&self) -> bool {
        self.inner.live().is_some_and(|s| s.is_open())
    }

    /// Bytes sent in all, every header counted.
    pub fn bytes_sent(&self) -> u64 {
        let now = self.inner.live().map_or(0, |s| s.connection.stats().udp_tx.bytes);
        self.inner.sent_before.load(Ordering::Relaxed) + now
    }

    /// Bytes received in all, every header counted.
    pub fn bytes_received(&self) -> u64 {
        let now = self.inner.live().map_or(0, |s| s.connection.stats().udp_rx.bytes);
        self.inner.received_before.load(Ordering::Relaxed) + now
    }

    /// How many of `bytes` to ask for at once, so that a limit is kept from second to second.
    pub fn at_once(&self, bytes: u64) -> u64 {
        self.inner.lane.at_once(bytes)
    }

    /// The node at the other end.
    pub fn url(&self) -> &NodeUrl {
        &self.inner.url
    }
}

impl Inner {
    async fn session(&self) -> Result<Arc<Session>> {
        let asked = self.env.instant();
        let mut slot = self.slot.lock().await;
        if let Some(session) = &slot.session {
            if session.is_open() {
                return Ok(session.clone());
            }
            self.retire(session);
            slot.session = None;
        }
        match &slot.failed {
            // Who waited while a dial failed need not wait for another to fail.
            Some((when, error)) if *when > asked => return Err(batch::again(error)),
            _ => slot.failed = None,
        }
        match Session::open(&self.url, &self.who, &self.env).await {
            Ok(session) => {
                let session = Arc::new(session);
                *self.live.lock().unwrap_or_else(PoisonError::into_inner) =
                    Arc::downgrade(&session);
                slot.session = Some(session.clone());
                Ok(session)
            }
            Err(error) => {
                slot.failed = Some((self.env.instant(), batch::again(&error)));
                Err(error)
            }
        }
    }

    /// Remembers what a connection has moved before it is dropped.
    fn retire(&self, session: &Session) {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let stats = session.connection.stats();
        self.sent_before.fetch_add(stats.udp_tx.bytes, Ordering::Relaxed);
        self.received_before.fetch_add(stats.udp_rx.bytes, Ordering::Relaxed);
        *live = Weak::new();
    }

    fn live(&self) -> Option<Arc<Session>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    /// An exchange with its deadline, repeated once if the connection turns out to be dead.
    async fn ask(&self, call: Call, body: Body, wait_ms: u64) -> Result<(Answer, Bytes)> {
        // Waiting for a turn, or for the pace of what came, is not the node's slowness.
        let turn = self.lane.turn(&call).await;
        let answered = self.ask_now(call, body, wait_ms).await?;
        turn.received(answered.1.len()).await;
        Ok(answered)
    }

    async fn ask_now(&self, call: Call, body: Body, wait_ms: u64) -> Result<(Answer, Bytes)> {
        let bytes = body.len + call.reply_max();
        let deadline_ms = ANSWER_MS + wait_ms + bytes / BYTES_PER_MS_MIN;
        let asked = async {
            let again = body.again();
            let session = self.session().await?;
            let body = self.lane.outgoing(&call, body);
            match (session.exchange(call.clone(), body).await, again) {
                (Err(Error::Unreachable(_)), Some(body)) if !session.is_open() => {
                    let body = self.lane.outgoing(&call, body);
                    self.session().await?.exchange(call, body).await
                }
                (other, _) => other,
            }
        };
        let timed = tokio::time::timeout(Duration::from_millis(deadline_ms), asked).await;
        timed.unwrap_or(Err(Error::TimedOut(deadline_ms)))
    }

    /// An exchange without a body whose answer's body is what counts.
    async fn fetch(&self, call: Call, body: Bytes, wait_ms: u64) -> Result<Bytes> {
        match self.ask(call, Body::bytes(body), wait_ms).await? {
            (Answer::Done, body) => Ok(body),
            _ => Err(unexpected()),
        }
    }

    async fn get_many(&self, wants: Vec<Want>) -> Result<Vec<Result<Slice>>> {
        let body = self.fetch(Call::GetMany, record::write_wants(&wants), 0).await?;
        record::read_items(&body, wants.len())
    }
}

fn unexpected() -> Error {
    Error::malformed("reply", "an answer to something else")
}

#[async_trait]
impl Store for Link {
    async fn put(&self, id: BlobId, body: Body) -> Result<()> {
        match self.inner.ask(Call::Put { id }, body, 0).await? {
            (Answer::Done, _) => Ok(()),
            _ => Err(unexpected()),
        }
    }

    async fn get(&self, id: BlobId, range: Range<u64>) -> Result<Slice> {
        let Range { start, end } = range;
        // `u64::MAX` and the like mean "to the end"; the node clamps, and bounds what it makes.
        let end = end.min(start.saturating_add(GET_BYTES_MAX)).max(start);
        if end - start <= batch::SMALL_BYTES {
            return self.batches.get(id, start..end).await;
        }
        self.inner.fetch(Call::Get { id, start, end }, Bytes::new(), 0).await.map(Slice)
    }

    async fn has(&self, ids: &[BlobId]) -> Result<Vec<Option<u64>>> {
        let mut all = Vec::with_capacity(ids.len());
        for some in ids.chunks(IDS_MAX) {
            let body = self.inner.fetch(Call::Has, record::write_ids(some), 0).await?;
            all.extend(record::read_lengths(&body, some.len())?);
        }
        Ok(all)
    }

    async fn list(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<Held>> {
        let mut all: Vec<Held> = Vec::new();
        let mut after = after;
        while all.len() < limit {
            let limit =
                u32::try_from((limit - all.len()).min(LIST_MAX)).expect("LIST_MAX is small");
            let call = Call::List { after, limit };
            let held = record::read_held(&self.inner.fetch(call, Bytes::new(), 0).await?)?;
            if held.len() > limit as usize || held.first().is_some_and(|h| Some(h.id) <= after) {
                return Err(Error::malformed("list", "not what was asked for"));
            }
            let Some(last) = held.last() else { break };
            after = Some(last.id);
            let whole = held.len() < limit as usize;
            all.extend(held);
            if whole {
                break;
            }
        }
        Ok(all)
    }

    async fn delete(&self, id: BlobId) -> Result<()> {
        self.inner.fetch(Call::Delete { id }, Bytes::new(), 0).await.map(drop)
    }

    async fn space(&self) -> Result<Space> {
        match self.inner.ask(Call::Space, Body::bytes(Bytes::new()), 0).await?.0 {
            Answer::Space { used, quota, blobs } => Ok(Space { used, quota, blobs }),
            _ => Err(unexpected()),
        }
    }
}

#[async_trait]
impl Logs for Link {
    async fn append(&self, entry: Bytes) -> Result<()> {
        self.inner.fetch(Call::Append, entry, 0).await.map(drop)
    }

    async fn read(&self, log: LogId, from: u64, bytes_max: u64) -> Result<Vec<Bytes>> {
        let bytes_max = self.inner.lane.at_once(bytes_max);
        let call = Call::ReadLog { log, from, bytes_max };
        record::read_entries(&self.inner.fetch(call, Bytes::new(), 0).await?)
    }

    async fn heads(&self) -> Result<Vec<Head>> {
        record::read_heads(&self.inner.fetch(Call::Heads, Bytes::new(), 0).await?)
    }

    async fn watch(&self, seen: Vec<Head>, timeout_ms: u64) -> Result<Vec<Head>> {
        let timeout_ms = timeout_ms.min(WATCH_MS_MAX);
        let call = Call::Watch { timeout_ms };
        let body = self.inner.fetch(call, record::write_heads(&seen), timeout_ms).await?;
        record::read_heads(&body)
    }
}
