//! Pushing: sealed layers from the cache to the remotes that should hold them.
//!
//! Must: a layer counts as held only after the remote acknowledged it as durable. A push can stop
//! anywhere and is taken up again from the index; what a remote turns out to have is not sent twice.
//! A layer that rotted here is not sent, and holds up no other.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::env::Env;
use rdrivefs_remote::foreground::Foreground;
use rdrivefs_remote::store::{Body, Store as _};
use tokio::task::JoinSet;

use crate::cache::{Cache, LayerRef};
use crate::error::{Error, Result};
use crate::index::Index;
use crate::index::layers::LayerNumber;
use crate::progress::Progress;
use crate::remotes::{Answer, CHALLENGE_BYTES, Remote, Remotes};
use crate::report::Phase;

/// Layers looked at in one step.
const STEP_LAYERS: usize = 64;

/// Bytes of layers in memory on their way at once: a full one, and the beginning of another.
const FLIGHT_BYTES_MAX: u64 = 20 << 20;

/// Small layers on their way at once, each waiting for the remote's disk.
const FLIGHT_LAYERS_MAX: usize = 16;

/// Random challenges, beside the one it failed, after which a remote is believed to have a layer
/// again.
const CAME_BACK_CHALLENGES: u64 = 32;

/// What a push moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Bytes of layers sent.
    pub bytes: u64,
    /// Layers sent.
    pub layers: u64,
    /// Layers that should be sent and are damaged here.
    pub damaged: u64,
}

/// Sends layers to remotes.
pub struct Pusher {
    env: Env,
    index: Arc<Index>,
    cache: Arc<Cache>,
    remotes: Arc<Remotes>,
    foreground: Arc<Foreground>,
}

type Candidate = (LayerNumber, LayerRef);

impl Pusher {
    /// A pusher over these parts, which makes room for the foreground.
    pub fn new(
        env: Env,
        index: Arc<Index>,
        cache: Arc<Cache>,
        remotes: Arc<Remotes>,
        foreground: Arc<Foreground>,
    ) -> Self {
        Self { env, index, cache, remotes, foreground }
    }

    /// Sends `remote` every layer it does not hold and this device has.
    ///
    /// # Errors
    /// Of the link, the cache or the index; what was acknowledged before stays so.
    pub async fn push(&self, remote: &Arc<Remote>, progress: &Progress) -> Result<Pushed> {
        let mut pushed = Pushed::default();
        let mut after = LayerNumber(0);
        loop {
            let step = self.index.layers_to_push(remote.number, after, STEP_LAYERS)?;
            let Some(last) = step.last() else { return Ok(pushed) };
            after = last.0;
            let step = step.into_iter().map(|(n, id, len)| (n, LayerRef { id, len })).collect();
            let missing = self.settle_held(remote, step).await?;
            self.send(remote, missing, &mut pushed, progress).await?;
        }
    }

    /// Notes what the remote has already; returns the rest. What it was caught without is sent
    /// whatever it says, since a damaged blob has its name and length still; where that cannot be,
    /// since it is not here, the remote may answer the challenge that it failed.
    async fn settle_held(&self, remote: &Remote, step: Vec<Candidate>) -> Result<Vec<Candidate>> {
        let damages = self.index.damages(remote.number)?;
        let damaged: HashMap<_, _> =
            damages.into_iter().map(|damage| (damage.layer, damage.offset)).collect();
        let ids: Vec<_> = step.iter().map(|(_, layer)| layer.id).collect();
        let held = self.remotes.noted(remote, remote.link.has(&ids).await)?;
        let mut missing = Vec::new();
        for ((number, layer), held) in step.into_iter().zip(held) {
            let kept = held == Some(layer.len)
                && match damaged.get(&number) {
                    None => true,
                    Some(offset) => self.came_back(remote, &layer, offset.unwrap_or(0)).await?,
                };
            if kept {
                self.index.set_held(remote.number, number, self.env.wall_ms())?;
            } else {
                missing.push((number, layer));
            }
        }
        Ok(missing)
    }

    /// Whether what a remote was caught without, and this device does not have, is there again.
    async fn came_back(&self, remote: &Remote, layer: &LayerRef, offset: u64) -> Result<bool> {
        if self.cache.present(layer)? == layer.len {
            return Ok(false);
        }
        let groups = layer.len.div_ceil(CHALLENGE_BYTES);
        let draws = (0..CAME_BACK_CHALLENGES).map(|_| self.env.random_below(groups));
        let draws = draws.map(|group| (*layer, group * CHALLENGE_BYTES));
        let asked: Vec<_> = draws.chain([(*layer, offset)]).collect();
        let answers = self.remotes.challenge(remote, &asked).await;
        Ok(answers.iter().all(|answer| matches!(answer, Answer::Right)))
    }

    async fn send(
        &self,
        remote: &Arc<Remote>,
        layers: Vec<Candidate>,
        pushed: &mut Pushed,
        progress: &Progress,
    ) -> Result<()> {
        let mut flight = JoinSet::new();
        let mut flight_bytes = 0;
        for (number, layer) in layers {
            while flight.len() >= FLIGHT_LAYERS_MAX
                || (flight_bytes + layer.len > FLIGHT_BYTES_MAX && !flight.is_empty())
            {
                flight_bytes -= self.landed(remote, &mut flight, pushed, progress).await?;
            }
            progress.check()?;
            let intact = || self.foreground.behind(|| self.intact(number, &layer, pushed));
            let whole = tokio::task::block_in_place(intact)?;
            let Some(bytes) = whole else { continue };
            let link = remote.link.clone();
            flight_bytes += layer.len;
            flight.spawn(
                async move { (number, layer, link.put(layer.id, Body::bytes(bytes)).await) },
            );
        }
        while !flight.is_empty() {
            self.landed(remote, &mut flight, pushed, progress).await?;
        }
        Ok(())
    }

    /// The bytes of a layer, if all of them are here and are what its name says.
    fn intact(
        &self,
        number: LayerNumber,
        layer: &LayerRef,
        pushed: &mut Pushed,
    ) -> Result<Option<Bytes>> {
        let bytes = match self.cache.whole(layer) {
            Err(Error::Io { what, source }) => {
                tracing::error!(layer = %layer.id, what, error = %source, "not to be read");
                None
            }
            whole => match whole? {
                // It was evicted, since another remote holds it; else something is lost here.
                None if !self.index.holders(number)?.is_empty() => return Ok(None),
                None if self.index.layer_if_any(number)?.is_none() => return Ok(None),
                whole => whole.filter(|bytes| BlobId::of(bytes) == layer.id),
            },
        };
        if bytes.is_none() {
            tracing::error!(layer = %layer.id, "a layer is damaged here and cannot be sent");
            pushed.damaged += 1;
        }
        Ok(bytes)
    }

    async fn landed(
        &self,
        remote: &Remote,
        flight: &mut JoinSet<(LayerNumber, LayerRef, rdrivefs_remote::Result<()>)>,
        pushed: &mut Pushed,
        progress: &Progress,
    ) -> Result<u64> {
        let landed = flight.join_next().await.expect("something is on its way");
        let (number, layer, result) =
            landed.map_err(|e| Error::NoRemote(format!("the push was broken off: {e}")))?;
        self.remotes.noted(remote, result)?;
        self.index.set_held(remote.number, number, self.env.wall_ms())?;
        pushed.bytes += layer.len;
        pushed.layers += 1;
        progress.advance(Phase::Push, layer.len, 1);
        Ok(layer.len)
    }
}
