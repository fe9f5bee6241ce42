//! The remotes of a drive: one link each, opened when it is first needed and kept.
//!
//! Here the drive's credentials meet the links of the floor below. A remote that shows another key
//! or wrong bytes is distrusted until a person says otherwise; one that does not answer is down and
//! asked again later. What to send or ask is decided above.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rdrivefs_remote::env::{Env, WallMs};
use rdrivefs_remote::link::{Credentials, Link, NodeUrl};
use rdrivefs_remote::proof::{self, Verified};
use rdrivefs_remote::store::{Slice, Store as _};
use rdrivefs_remote::wire::record::Want;
use rdrivefs_remote::wrap::Limits;
use tokio::runtime::Handle;

use crate::cache::{LayerRef, Source};
use crate::error::{Error, Result};
use crate::index::Index;
use crate::index::layers::RemoteNumber;
use crate::index::ledger::RemoteRow;

/// How a remote does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Health {
    /// Not spoken to since this process began.
    #[default]
    Unknown,
    /// It answered the last request.
    Up,
    /// It did not answer the last request.
    Down,
    /// It refuses this device or drive, or has no room.
    Refusing,
    /// It failed a challenge or changed its key.
    Distrusted,
}

/// What is known of a remote's health.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// The verdict on the last request.
    pub health: Health,
    /// The last failure in words, if the last request failed.
    pub error: Option<String>,
    /// When it last answered anything.
    pub seen: Option<WallMs>,
}

/// One remote of the drive.
pub struct Remote {
    /// Its number in the index.
    pub number: RemoteNumber,
    /// The name a person gave it.
    pub name: String,
    /// Where it is, with its pinned key.
    pub url: NodeUrl,
    /// Connects when it is first asked something, and again after a break.
    pub link: Arc<Link>,
    /// Held while layers and commits are sent there.
    pub turn: tokio::sync::Mutex<()>,
    /// Told when it answers after it had not.
    pub back: tokio::sync::Notify,
    condition: Mutex<Condition>,
}

/// All remotes of the drive. Lock: `all` is held only to look up, never over a request.
pub struct Remotes {
    env: Env,
    index: Arc<Index>,
    runtime: Handle,
    credentials: Credentials,
    /// What every link keeps to; the paces are shared by all.
    limits: Limits,
    all: RwLock<HashMap<RemoteNumber, Arc<Remote>>>,
}

impl Remotes {
    /// The remotes the index names; none is dialled yet.
    ///
    /// # Errors
    /// Of the index, or when a stored URL does not parse.
    pub fn open(
        env: Env,
        index: Arc<Index>,
        runtime: Handle,
        credentials: Credentials,
        limits: Limits,
    ) -> Result<Self> {
        let remotes = Self { env, index, runtime, credentials, limits, all: RwLock::default() };
        for (number, row) in remotes.index.remotes()? {
            let url: NodeUrl = row.url.parse()?;
            let link = remotes.link(&url, remotes.credentials.clone());
            remotes.insert(number, &row.name, url, link);
        }
        Ok(remotes)
    }

    /// Adds a remote after it has answered once, which uses up an invite in the URL.
    ///
    /// # Errors
    /// [`Error::Refused`] when the name is taken; of the link.
    pub fn add(&self, name: &str, url: &NodeUrl) -> Result<Arc<Remote>> {
        if self.by_name(name).is_some() {
            return Err(Error::Refused(format!("there is a remote named {name} already")));
        }
        let credentials = Credentials { invite: url.invite.clone(), ..self.credentials.clone() };
        let link = self.link(url, credentials);
        self.runtime.block_on(link.connect())?;
        let lasting = NodeUrl { invite: None, ..url.clone() };
        let row = RemoteRow {
            name: name.to_owned(),
            url: lasting.to_string(),
            added_ms: self.env.wall_ms().0,
        };
        let number = self.index.add_remote(&row)?;
        let remote = self.insert(number, name, lasting, link);
        remote.answered(self.env.wall_ms());
        Ok(remote)
    }

    /// Forgets a remote; what it holds stays there.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none of that name; of the index.
    pub fn remove(&self, name: &str) -> Result<()> {
        let remote = self.named(name)?;
        self.index.remove_remote(remote.number)?;
        self.all.write().unwrap_or_else(PoisonError::into_inner).remove(&remote.number);
        Ok(())
    }

    /// All remotes, in the order they were added.
    pub fn all(&self) -> Vec<Arc<Remote>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = all.values().cloned().collect();
        all.sort_by_key(|remote| remote.number);
        all
    }

    /// The remote with that number, if the drive still has it.
    pub fn by_number(&self, number: RemoteNumber) -> Option<Arc<Remote>> {
        self.all.read().unwrap_or_else(PoisonError::into_inner).get(&number).cloned()
    }

    /// The remote of that name.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none.
    pub fn named(&self, name: &str) -> Result<Arc<Remote>> {
        self.by_name(name).ok_or_else(|| Error::Refused(format!("there is no remote named {name}")))
    }

    /// Notes how a request to `remote` went, and passes the result on.
    ///
    /// # Errors
    /// The result's.
    pub fn noted<T>(&self, remote: &Remote, result: rdrivefs_remote::Result<T>) -> Result<T> {
        match result {
            Ok(value) => {
                remote.answered(self.env.wall_ms());
                Ok(value)
            }
            Err(e) => {
                let e = Error::from(e);
                self.note(remote, &e);
                Err(e)
            }
        }
    }

    /// Closes all links.
    pub async fn close(&self) {
        for remote in self.all() {
            remote.link.close().await;
        }
    }

    fn note(&self, remote: &Remote, e: &Error) {
        tracing::debug!(remote = remote.name, error = %e, "a request failed");
        remote.failed(e);
    }

    fn link(&self, url: &NodeUrl, credentials: Credentials) -> Link {
        let _inside = self.runtime.enter();
        Link::lazy(url, credentials, &self.env, self.limits.clone())
    }

    fn insert(&self, number: RemoteNumber, name: &str, url: NodeUrl, link: Link) -> Arc<Remote> {
        let remote = Arc::new(Remote {
            number,
            name: name.to_owned(),
            url,
            link: Arc::new(link),
            turn: tokio::sync::Mutex::default(),
            back: tokio::sync::Notify::new(),
            condition: Mutex::default(),
        });
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(number, remote.clone());
        remote
    }

    fn by_name(&self, name: &str) -> Option<Arc<Remote>> {
        self.all().into_iter().find(|remote| remote.name == name)
    }

    /// The remotes to ask for a layer: those known to hold it first, those caught lying last.
    fn likely_holders(&self, layer: &LayerRef) -> Result<Vec<Arc<Remote>>> {
        let holders = match self.index.layer_number(&layer.id)? {
            Some(number) => self.index.holders(number)?,
            None => Vec::new(),
        };
        let mut all = self.all();
        // Whatever comes is checked, so even one that was caught is asked before giving up.
        let distrusted = |remote: &Remote| remote.condition().health == Health::Distrusted;
        all.sort_by_key(|remote| (distrusted(remote), !holders.contains(&remote.number)));
        Ok(all)
    }

    async fn fetch_from(
        &self,
        remote: &Remote,
        layer: &LayerRef,
        range: Range<u64>,
    ) -> Result<Verified> {
        let mut all = self.piece(remote, layer, range.clone()).await?;
        while all.start + (all.bytes.len() as u64) < range.end {
            let got = all.start + all.bytes.len() as u64;
            let more = self.piece(remote, layer, got..range.end).await?;
            all.bytes = [all.bytes, more.bytes].concat().into();
        }
        Ok(all)
    }

    /// The first bytes of `range`: all, unless the link takes no more at once.
    async fn piece(
        &self,
        remote: &Remote,
        layer: &LayerRef,
        range: Range<u64>,
    ) -> Result<Verified> {
        let some = range.start..range.start + remote.link.at_once(range.end - range.start);
        let slice = remote.link.get(layer.id, some.clone()).await;
        let verified = slice.and_then(|slice| proof::verify(&layer.id, layer.len, some, slice));
        self.noted(remote, verified)
    }
}

impl Source for Remotes {
    fn fetch(&self, layer: &LayerRef, range: Range<u64>) -> Result<Verified> {
        let mut last = Error::NoRemote("this drive has none; add one with `remote add`".into());
        for remote in self.likely_holders(layer)? {
            match self.runtime.block_on(self.fetch_from(&remote, layer, range.clone())) {
                Ok(verified) => return Ok(verified),
                Err(e) => last = e,
            }
        }
        Err(last)
    }
}

impl Remote {
    /// What is known of its health.
    pub fn condition(&self) -> Condition {
        self.lock().clone()
    }

    fn answered(&self, now: WallMs) {
        let mut condition = self.lock();
        let health = match condition.health {
            Health::Distrusted => Health::Distrusted,
            _ => Health::Up,
        };
        if condition.health == Health::Down {
            self.back.notify_one();
        }
        *condition = Condition { health, error: None, seen: Some(now) };
    }

    fn failed(&self, e: &Error) {
        let mut condition = self.lock();
        condition.error = Some(e.to_string());
        condition.health = match e {
            Error::Remote(rdrivefs_remote::Error::NodeKeyChanged { .. }) => Health::Distrusted,
            Error::Remote(e) if e.is_missing() => Health::Up,
            Error::Remote(e) if e.is_corrupt() => Health::Distrusted,
            e if e.is_transient() => Health::Down,
            _ => Health::Refusing,
        };
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer to a challenge, to be counted.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The right bytes.
    Right,
    /// Wrong or refused; why.
    Wrong(String),
    /// The remote says that it has nothing of the layer.
    Missing(String),
    /// No answer came, so nothing is known: the remote may be away.
    None(String),
}

impl Remotes {
    /// Asks `remote` for one group of each layer named, and checks each answer.
    pub async fn challenge(&self, remote: &Remote, targets: &[(LayerRef, u64)]) -> Vec<Answer> {
        let asked: Vec<_> = targets
            .iter()
            .map(|(layer, at)| Want {
                id: layer.id,
                range: *at..(at + CHALLENGE_BYTES).min(layer.len),
            })
            .collect();
        let slices = match remote.link.get_many(asked.clone()).await {
            Ok(slices) => slices,
            Err(e) => {
                let e = Error::from(e);
                self.note(remote, &e);
                return vec![Answer::None(e.to_string()); targets.len()];
            }
        };
        let check = |((layer, _), (want, slice)): (&(LayerRef, u64), (Want, _))| {
            let slice: rdrivefs_remote::Result<Slice> = slice;
            match slice.and_then(|slice| proof::verify(&want.id, layer.len, want.range, slice)) {
                Ok(_) => Answer::Right,
                Err(e) if e.is_transient() => Answer::None(e.to_string()),
                Err(e) if e.is_missing() => Answer::Missing(e.to_string()),
                Err(e) => Answer::Wrong(e.to_string()),
            }
        };
        targets.iter().zip(asked.into_iter().zip(slices)).map(check).collect()
    }
}

/// What one challenge asks for: one group of the Bao tree.
pub const CHALLENGE_BYTES: u64 = 4 << 10;
