//! The keeper: all that the parts of a running node share.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{Mutex, Semaphore, watch};

use crate::error::Result;
use crate::identity::{DriveId, PublicKey};
use crate::node::allow::Allow;
use crate::node::config::Config;
use crate::node::invite::Invites;
use crate::node::metrics::{Gauges, Metrics};
use crate::node::pace::Budget;
use crate::node::place::Place;
use crate::node::session::Sessions;
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
    /// Slots for writing blobs.
    pub(super) puts: Semaphore,
    /// Room for answers.
    pub(super) answers: Budget,
    pub(super) hellos: Semaphore,
    /// True once the node is to stop.
    pub(super) stopping: watch::Sender<bool>,
    /// The spaces in use; the lock is held while one is opened, so that each is opened once.
    spaces: Mutex<HashMap<DriveId, Arc<Space>>>,
}

impl Keeper {
    pub(super) fn new(config: Config, key: PublicKey, place: Place, allow: Allow) -> Arc<Self> {
        Arc::new(Self {
            invites: Invites::new(&place),
            sessions: Sessions::new(config.limits),
            metrics: Metrics::default(),
            puts: Semaphore::new(config.limits.puts),
            answers: Budget::new(config.limits.answer_bytes),
            hellos: Semaphore::new(HELLOS),
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
        let mut spaces = self.spaces.lock().await;
        let space = match spaces.get(&drive) {
            Some(space) => space.clone(),
            None => {
                let space = Space::open(self.place.space(&drive), *root, &self.config.env).await?;
                spaces.insert(drive, space.clone());
                space
            }
        };
        space.set_quota(quota.or(self.config.quota));
        Ok(space)
    }

    /// The spaces in use.
    pub(super) async fn spaces(&self) -> Vec<Arc<Space>> {
        let mut spaces: Vec<_> = self.spaces.lock().await.values().cloned().collect();
        spaces.sort_by_key(|space| space.drive());
        spaces
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
        for space in self.spaces().await {
            let used = space.used().await?;
            gauges.blobs += used.blobs;
            gauges.bytes += used.used;
            gauges.reserved += space.reserved();
        }
        Ok(gauges)
    }
}
