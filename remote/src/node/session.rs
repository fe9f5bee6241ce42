//! Sessions: the connections that were welcomed, and how they are cut.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use quinn::VarInt;
use tokio::sync::watch;

use crate::env::{Env, WallMs};
use crate::error::{Error, Result};
use crate::identity::PublicKey;
use crate::link::quic;
use crate::node::config::Limits;
use crate::node::pace::{Bucket, Budget};
use crate::node::space::Space;
use crate::wire::close;

/// When a device with too many connections should try again.
const RETRY_MS: u64 = 2_000;

/// What the first connections of a drive may have under way in either direction: those after them
/// get ever less, for what lies unread or unacknowledged is in no other budget.
const DRIVE_WINDOW: u64 = 32 << 20;
const WINDOW_MAX: u64 = quic::CONNECTION_WINDOW as u64;
const WINDOW_MIN: u64 = 2 << 20;
/// What a stream may bring ahead of the reader: little beside a connection's window, since requests
/// that wait for their slot hold it while those that have one still need room to come in.
pub(super) const STREAM_WINDOW: u32 = 512 << 10;

/// One welcomed connection.
pub(super) struct Session {
    id: u64,
    pub(super) device: PublicKey,
    pub(super) space: Arc<Space>,
    pub(super) address: SocketAddr,
    pub(super) since: WallMs,
    pub(super) requests: AtomicU64,
    /// What the device has, and what its drive has.
    pub(super) own: Arc<Own>,
    pub(super) drive: Arc<Share>,
    /// Counts watches: a newer one ends the one before it.
    pub(super) watches: watch::Sender<u64>,
    connection: quinn::Connection,
    all: Weak<Sessions>,
}

/// What all connections of one device have together, so that a slow or greedy device slows only
/// itself.
pub(super) struct Own {
    /// How fast it may ask.
    pub(super) pace: Bucket,
    pub(super) share: Share,
}

/// Slots and memory: a device's, its drive's, or all there are.
pub(super) struct Share {
    /// Room for what is asked.
    pub(super) requests: Budget,
    /// Room for answers.
    pub(super) answers: Budget,
    /// Slots for puts.
    pub(super) puts: Budget,
}

/// All welcomed connections.
pub(super) struct Sessions {
    limits: Limits,
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Session>>>,
}

/// Takes its session off the list when dropped.
pub(super) struct Ticket(pub(super) Arc<Session>);

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(all) = self.0.all.upgrade() {
            all.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.0.id);
        }
    }
}

impl Session {
    /// Waits until the connection has ended.
    pub(super) async fn ended(&self) {
        drop(self.connection.closed().await);
    }

    /// Ends the connection.
    pub(super) fn close(&self, code: u32, why: &str) {
        self.connection.close(VarInt::from_u32(code), why.as_bytes());
    }
}

impl Share {
    /// One part in `parts` of all there is.
    pub(super) fn new(limits: &Limits, parts: usize) -> Self {
        Self {
            requests: Budget::bytes(limits.request_bytes / parts as u64),
            answers: Budget::bytes(limits.answer_bytes / parts as u64),
            puts: Budget::slots(limits.puts.div_ceil(parts)),
        }
    }
}

impl Sessions {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, next: AtomicU64::new(0), open: Mutex::default() })
    }

    /// Takes a connection in, if there is room for it.
    pub(super) fn enter(
        self: &Arc<Self>,
        connection: quinn::Connection,
        device: PublicKey,
        space: Arc<Space>,
        env: &Env,
    ) -> Result<Ticket> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_drive = || open.values().filter(|s| s.space.drive() == space.drive());
        let of_device = || of_drive().filter(|s| s.device == device);
        let Limits { connections, connections_per_device, requests_per_s, .. } = self.limits;
        let siblings = of_drive().count();
        if open.len() >= connections
            || siblings >= connections.div_ceil(8)
            || of_device().count() >= connections_per_device
        {
            return Err(Error::Busy { retry_ms: RETRY_MS });
        }
        let fresh_own = || {
            let (pace, share) = (Bucket::new(requests_per_s, env), Share::new(&self.limits, 4));
            Arc::new(Own { pace, share })
        };
        let own = of_device().next().map_or_else(fresh_own, |session| session.own.clone());
        let fresh = || Arc::new(Share::new(&self.limits, 2));
        let drive = of_drive().next().map_or_else(fresh, |session| session.drive.clone());
        let window = (DRIVE_WINDOW / (siblings as u64 + 1)).clamp(WINDOW_MIN, WINDOW_MAX);
        connection.set_receive_window(VarInt::from_u32(window as u32));
        connection.set_send_window(window);
        let session = Arc::new(Session {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            device,
            space,
            address: connection.remote_address(),
            since: env.wall_ms(),
            requests: AtomicU64::new(0),
            own,
            drive,
            watches: watch::Sender::new(0),
            connection,
            all: Arc::downgrade(self),
        });
        open.insert(session.id, session.clone());
        Ok(Ticket(session))
    }

    /// The open sessions.
    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Cuts the sessions of devices that a space no longer admits.
    pub(super) async fn cut_revoked(&self, space: &Space) {
        for session in self.all() {
            let here = session.space.drive() == space.drive();
            if here && !space.admits(&session.device).await {
                tracing::info!(device = %session.device, "cut a revoked device");
                session.close(close::REFUSED, "this device is not a member of the drive");
            }
        }
    }
}
