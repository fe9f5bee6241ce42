//! The keeper: all that the parts of a running node share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OnceCell, Semaphore, watch};

use crate::error::{Error, Result};
use crate::identity::{DriveId, PublicKey};
use crate::node::allow::Allow;
use crate::node::config::Config;
use crate::node::invite::Invites;
use crate::node::ledger::Turns;
use crate::node::mailbox::Mailboxes;
use crate::node::metrics::{Gauges, Metrics};
use crate::node::place::Place;
use crate::node::session::{Sessions, Share};
use crate::node::space::Space;

/// Hellos whose certificates are in memory at a time.
const HELLOS: usize = 16;

/// What every request can reach.
pub(super) struct Keeper {
    pub(super) config: Config,
    pub(super) key: PublicKey,
    pub(super) place: Place,
    pub(super) allow: Allow,
    pub(super) invites: Invites,
    pub(super) sessions: Arc<Sessions>,
    pub(super) metrics: Metrics,
    pub(super) mailboxes: Mailboxes,
    /// Slots and memory for all drives together.
    pub(super) share: Share,
    pub(super) hellos: Semaphore,
    /// Of one drive at a time one member says hello, and one who is not known as a member: so
    /// strangers keep no member waiting, and no drive another.
    pub(super) lanes: Turns<(DriveId, bool)>,
    /// True once the node is to stop.
    pub(super) stopping: watch::Sender<bool>,
    /// The spaces in use. Each is opened once, and one that takes long or does not open keeps only
    /// its own drive waiting.
    spaces: Mutex<HashMap<DriveId, Arc<OnceCell<Arc<Space>>>>>,
}

impl Keeper {
    pub(super) fn new(config: Config, key: PublicKey, place: Place, allow: Allow) -> Arc<Self> {
        Arc::new(Self {
            invites: Invites::new(&place),
            sessions: Sessions::new(config.limits),
            metrics: Metrics::default(),
            mailboxes: Mailboxes::new(&config.env),
            share: Share::new(&config.limits, 1),
            hellos: Semaphore::new(HELLOS),
            lanes: Turns::default(),
            stopping: watch::Sender::new(false),
            spaces: Mutex::default(),
            config,
            key,
            place,
            allow,
        })
    }

    /// The space of an authorised drive, opened if need be, with its quota as of now.
    pub(super) async fn space(&self, root: &PublicKey, quota: Option<u64>) -> Result<Arc<Space>> {
        let drive = DriveId::of(root);
        let cell = self.cells().entry(drive).or_default().clone();
        let open = || Space::open(self.place.space(&drive), *root, &self.config.env);
        let space = cell.get_or_try_init(open).await?;
        space.set_quota(quota.or(self.config.quota));
        Ok(space.clone())
    }

    /// Whether this device is known as a member already.
    pub(super) async fn knows(&self, drive: &DriveId, device: &PublicKey) -> bool {
        let cell = self.cells().get(drive).cloned();
        match cell.as_ref().and_then(|cell| cell.get()) {
            Some(space) => space.admits(device).await,
            None => false,
        }
    }

    /// Carries a change of a drive's membership through, even if who asked for it goes away in
    /// the meantime: what was stored must count, and who was revoked must be cut.
    pub(super) async fn carry(
        self: &Arc<Self>,
        space: &Arc<Space>,
        change: impl Future<Output = Result<bool>> + Send + 'static,
    ) -> Result<()> {
        let (keeper, space) = (self.clone(), space.clone());
        let carried = tokio::spawn(async move {
            if change.await? {
                keeper.sessions.cut_revoked(&space).await;
            }
            Ok(())
        });
        carried.await.unwrap_or_else(|_| Err(Error::Unreachable("the node failed".to_owned())))
    }

    /// The spaces in use.
    pub(super) fn spaces(&self) -> Vec<Arc<Space>> {
        let mut spaces: Vec<_> =
            self.cells().values().filter_map(|cell| cell.get().cloned()).collect();
        spaces.sort_by_key(|space| space.drive());
        spaces
    }

    fn cells(&self) -> MutexGuard<'_, HashMap<DriveId, Arc<OnceCell<Arc<Space>>>>> {
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the node is to stop.
    pub(super) async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // The sender lives as long as the keeper.
        let _ = stopping.wait_for(|stop| *stop).await;
    }

    /// What is so now.
    pub(super) async fn gauges(&self) -> Result<Gauges> {
        let mut gauges = Gauges {
            connections: self.sessions.count() as u64,
            drives: self.allow.all().len() as u64,
            ..Gauges::default()
        };
        for space in self.spaces() {
            let used = space.used().await?;
            gauges.blobs += used.blobs;
            gauges.bytes += used.used;
            gauges.reserved += space.reserved();
        }
        Ok(gauges)
    }
}
