//! Sessions: the connections that were welcomed, and how they are cut.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use quinn::VarInt;
use tokio::sync::Semaphore;

use crate::env::{Env, WallMs};
use crate::error::{Error, Result};
use crate::identity::PublicKey;
use crate::node::config::Limits;
use crate::node::pace::{Bucket, Budget};
use crate::node::space::Space;
use crate::wire::close;

/// When a device with too many connections should try again.
const RETRY_MS: u64 = 2_000;

/// One welcomed connection.
pub(super) struct Session {
    id: u64,
    pub(super) device: PublicKey,
    pub(super) space: Arc<Space>,
    pub(super) address: SocketAddr,
    pub(super) since: WallMs,
    pub(super) requests: AtomicU64,
    pub(super) share: Arc<Share>,
    connection: quinn::Connection,
    all: Weak<Sessions>,
}

/// What all connections of one device have together, so that a slow or greedy device slows only
/// itself.
pub(super) struct Share {
    /// Requests.
    pub(super) pace: Bucket,
    /// Room for answers: a quarter of all.
    pub(super) answers: Budget,
    /// Slots for puts: half of all.
    pub(super) puts: Semaphore,
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
    /// Ends the connection.
    pub(super) fn close(&self, code: u32, why: &str) {
        self.connection.close(VarInt::from_u32(code), why.as_bytes());
    }
}

impl Share {
    fn new(limits: &Limits, env: &Env) -> Self {
        Self {
            pace: Bucket::new(limits.requests_per_s, env),
            answers: Budget::new(limits.answer_bytes / 4),
            puts: Semaphore::new(limits.puts.div_ceil(2)),
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
        let own: Vec<_> = open.values().filter(|s| s.device == device).collect();
        let (many, full) = (own.len(), open.len() >= self.limits.connections);
        if full || many >= self.limits.connections_per_device {
            return Err(Error::Busy { retry_ms: RETRY_MS });
        }
        let fresh = || Arc::new(Share::new(&self.limits, env));
        let share = own.first().map_or_else(fresh, |session| session.share.clone());
        let session = Arc::new(Session {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            device,
            space,
            address: connection.remote_address(),
            since: env.wall_ms(),
            requests: AtomicU64::new(0),
            share,
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
