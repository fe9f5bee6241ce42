//! A drive's parts, put together and taken apart.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdrivefs_remote::entry::{LogId, LogKind};
use rdrivefs_remote::env::Env;
use rdrivefs_remote::foreground::Foreground;
use rdrivefs_remote::identity::PublicKey;
use rdrivefs_remote::link::{Credentials, NodeUrl};
use rdrivefs_remote::wrap::{Limits, Pace};
use tokio::runtime::Runtime;

use crate::authority::Authority;
use crate::cache::Cache;
use crate::content::Contents;
use crate::engine::{Engine, Parts};
use crate::error::{Error, Result};
use crate::evict::{Evictor, Rule};
use crate::home::{Config, DiskSpace, Home, Lock, Network, Size};
use crate::index::Index;
use crate::journal::disk::Directory;
use crate::journal::{Journal, Settings};
use crate::keybag::{Keybag, Secrets, Unlock};
use crate::keyring::Keyring;
use crate::keys::Phrase;
use crate::log::Log;
use crate::merge::Merger;
use crate::pairing::PairingCode;
use crate::progress::Progress;
use crate::publish::Publisher;
use crate::push::Pusher;
use crate::remotes::{Remote, Remotes};
use crate::room::Room;
use crate::seal::Key;
use crate::seals::Sealer;
use crate::state::{Bounds, Event, Rules};
use crate::tree::Tree;
use crate::verify::Verifier;

use super::found::{self, Place};
use super::known::Known;

/// Threads for links; sealing and the kernel's requests have their own.
const RUNTIME_THREADS: usize = 2;

/// How far above the reserve of the disk evicting begins: as much again, within these.
const MARGIN_BYTES_MIN: u64 = 64 << 20;
const MARGIN_BYTES_MAX: u64 = 256 << 20;

/// How long saying goodbye to remotes may take.
const CLOSING_MAX: Duration = Duration::from_secs(1);

/// How fast layers are sent while calls come in, to all remotes together. Sending takes both ends'
/// processor time, which on a small computer with a node of its own is all there is.
const BESIDE_BYTES_PER_S: u64 = 64 << 20;

const DAY_MS: u64 = 24 * 3_600_000;

/// A drive on this device, open. Dropping it makes everything durable here.
pub struct Drive {
    pub(super) home: Home,
    pub(super) config: Config,
    pub(super) keyring: Arc<Keyring>,
    pub(super) parts: Arc<Parts>,
    pub(super) contents: Arc<Contents>,
    pub(super) verifier: Arc<Verifier>,
    pub(super) evictor: Arc<Evictor>,
    engine: Mutex<Option<Engine>>,
    runtime: Option<Runtime>,
    _lock: Lock,
}

impl Drive {
    /// Founds a drive; returns it with its recovery phrase, which is kept nowhere.
    ///
    /// # Errors
    /// [`Error::DriveExists`], [`Error::InUse`]; of the disk.
    pub fn create(home: &Home, unlock: &Unlock<'_>, env: Env) -> Result<(Self, Phrase)> {
        let lock = lock(home)?;
        let phrase = found::create(home, unlock, &env)?;
        Ok((Self::open_locked(home, unlock, env, lock)?, phrase))
    }

    /// Comes back to a drive with its phrase and one remote that keeps it, as a new device. What the
    /// remote has and this device cannot take, such as a log that was damaged there, keeps nobody
    /// from the rest: the first such refusal comes beside the drive.
    ///
    /// # Errors
    /// [`Error::Phrase`] when the remote keeps no drive of this phrase; [`Error::DriveExists`],
    /// [`Error::InUse`]; of the link and the disk.
    pub fn recover(
        home: &Home,
        phrase: &Phrase,
        url: &NodeUrl,
        unlock: &Unlock<'_>,
        env: Env,
        progress: &Progress,
    ) -> Result<(Self, Option<Error>)> {
        let come = |at: &Place<'_>| found::recover(at, phrase, url, progress);
        let (drive, refused) = Self::come_in(home, unlock, env, come)?;
        drive.apply_received(refused, progress)
    }

    /// Joins a drive by a pairing code, as a device called `name`, and waits until the other device
    /// lets it in. `tell` is given this device's new key while that is awaited; the other's comes
    /// back. As with [`Drive::recover`] a first refusal comes beside the drive.
    ///
    /// # Errors
    /// [`Error::Code`], [`Error::Declined`]; [`Error::DriveExists`], [`Error::InUse`]; of the link,
    /// which says of a code that it is unknown, expired or used; of the disk.
    pub fn join(
        home: &Home,
        code: &PairingCode,
        name: &str,
        unlock: &Unlock<'_>,
        env: Env,
        progress: &Progress,
        tell: &dyn Fn(&PublicKey),
    ) -> Result<(Self, PublicKey, Option<Error>)> {
        let come = |at: &Place<'_>| found::join(at, code, name, progress, tell);
        let (drive, (enroller, refused)) = Self::come_in(home, unlock, env, come)?;
        let (drive, refused) = drive.apply_received(refused, progress)?;
        Ok((drive, enroller, refused))
    }

    /// Opens the drive that `come` brings here.
    fn come_in<T>(
        home: &Home,
        unlock: &Unlock<'_>,
        env: Env,
        come: impl FnOnce(&Place<'_>) -> Result<T>,
    ) -> Result<(Self, T)> {
        let lock = lock(home)?;
        let runtime = runtime()?;
        let came = come(&Place { home, unlock, env: &env, runtime: runtime.handle() })?;
        drop(runtime);
        Ok((Self::open_locked(home, unlock, env, lock)?, came))
    }

    fn apply_received(
        self,
        refused: Option<Error>,
        progress: &Progress,
    ) -> Result<(Self, Option<Error>)> {
        match self.parts.merger.apply_all(progress) {
            Err(e) if e.is_refusal() => Ok((self, refused.or(Some(e)))),
            applied => applied.map(|_| (self, refused)),
        }
    }

    /// Opens a drive: what the journal holds beyond the index is applied first.
    ///
    /// # Errors
    /// [`Error::NoDrive`], [`Error::Locked`], [`Error::InUse`]; [`Error::Corrupt`] naming what is
    /// damaged.
    pub fn open(home: &Home, unlock: &Unlock<'_>, env: Env) -> Result<Self> {
        if !home.has_drive() {
            return Err(Error::NoDrive(home.config_dir().display().to_string()));
        }
        let lock = lock(home)?;
        Self::open_locked(home, unlock, env, lock)
    }

    /// The files.
    pub fn tree(&self) -> &Arc<Tree> {
        &self.parts.tree
    }

    /// For what pushing makes room: whoever serves calls says when one came in.
    pub fn foreground(&self) -> &Foreground {
        &self.parts.foreground
    }

    /// Where everything of this drive lies on this device.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Begins sealing, pushing and pulling in the background.
    pub fn start(&self) {
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        engine.get_or_insert_with(|| Engine::start(self.parts.clone()));
    }

    /// Stops the background and makes everything durable on this computer.
    ///
    /// # Errors
    /// When it is not durable.
    pub fn shutdown(&self) -> Result<()> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.parts.tree.sync_all()?;
        self.parts.tree.flush()?;
        self.parts.cache.flush()?;
        let done = self.parts.tree.checkpoint();
        // A node counts connections, and forgets one that says nothing only after a while.
        let (closed, waiting) = std::sync::mpsc::channel();
        let remotes = self.parts.remotes.clone();
        self.parts.runtime.spawn(async move {
            remotes.close().await;
            // Whoever waited may have gone on.
            let _unheard = closed.send(());
        });
        let _late = waiting.recv_timeout(CLOSING_MAX);
        done
    }

    /// Adds a remote after it has answered once; an invite in the URL is used up by it.
    ///
    /// # Errors
    /// [`Error::Refused`] when the name is taken; of the link.
    pub fn remote_add(&self, name: &str, url: &NodeUrl) -> Result<Arc<Remote>> {
        let remote = self.parts.remotes.add(name, url)?;
        self.parts.tree.flush()?;
        self.parts.tree.checkpoint()?;
        self.keep_known();
        self.tell(Event::Remote(remote.number));
        Ok(remote)
    }

    /// Forgets a remote; what it holds stays there.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is none of that name.
    pub fn remote_remove(&self, name: &str) -> Result<()> {
        let remote = self.parts.remotes.named(name)?;
        self.parts.remotes.remove(name)?;
        self.tell(Event::Gone(remote.number));
        self.parts.tree.flush()?;
        self.keep_known();
        Ok(())
    }

    pub(super) fn keep_known(&self) {
        let Parts { index, log, env, .. } = &*self.parts;
        Known::keep(&self.home, &self.secrets(), index, log, env);
    }

    pub(super) fn secrets(&self) -> Arc<Secrets> {
        self.keyring.secrets()
    }

    /// What this device shows to nodes.
    pub(super) fn credentials(&self) -> Result<Credentials> {
        credentials(&self.secrets(), &self.parts.log)
    }

    pub(super) fn tell(&self, event: Event) {
        if let Some(engine) = &*self.engine.lock().unwrap_or_else(PoisonError::into_inner) {
            engine.tell(event);
        }
    }

    pub(super) fn open_locked(
        home: &Home,
        unlock: &Unlock<'_>,
        env: Env,
        lock: Lock,
    ) -> Result<Self> {
        let config = home.config()?;
        let keybag = Keybag::open(&home.keys_file(), unlock)?;
        let runtime = runtime()?;
        let keyring = Arc::new(Keyring::new(keybag, env.clone()));
        let (parts, contents) = assemble(home, &config, &keyring, &env, &runtime)?;
        let parts = Arc::new(parts);
        let verifier = parts.verifier.clone();
        let evictor = parts.evictor.clone();
        let drive = Self {
            home: home.clone(),
            config,
            keyring,
            parts,
            contents,
            verifier,
            evictor,
            engine: Mutex::default(),
            runtime: Some(runtime),
            _lock: lock,
        };
        drive.keep_known();
        Ok(drive)
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        if let Err(e) = self.shutdown() {
            tracing::error!(error = %e, "the drive was not closed cleanly; its journal has the rest");
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn assemble(
    home: &Home,
    config: &Config,
    keyring: &Arc<Keyring>,
    env: &Env,
    runtime: &Runtime,
) -> Result<(Parts, Arc<Contents>)> {
    let secrets = &*keyring.secrets();
    let mut index = Index::reopen(&home.index_file(), &secrets.local, env.clone())?;
    index.keep_spare(&home.spare_dir())?;
    let index = Arc::new(index);
    let cache = Arc::new(Cache::open(&home.cache_dir())?);
    let own = own_log(secrets);
    let log = Arc::new(Log::open(secrets.drive(), secrets.root, own, index.clone())?);
    let credentials = credentials(secrets, &log)?;
    let handle = runtime.handle().clone();
    let foreground = Arc::new(Foreground::new(env.clone()));
    let limits = limits(&config.network, &foreground, env);
    let remotes = Remotes::open(env.clone(), index.clone(), handle.clone(), credentials, limits)?;
    let remotes = Arc::new(remotes);
    let contents =
        Arc::new(Contents::new(secrets.drive(), index.clone(), cache.clone(), remotes.clone()));
    let tree = open_tree(home, config, secrets, env, &index, &contents)?;
    let sealer = sealer(home, keyring, env, &index, &contents, &tree)?;
    let pusher =
        Pusher::new(env.clone(), index.clone(), cache.clone(), remotes.clone(), foreground.clone());
    let publisher =
        Publisher::new(env.clone(), keyring.clone(), index.clone(), tree.clone(), log.clone());
    let merger = Merger::new(keyring.clone(), index.clone(), tree.clone(), log.clone());
    let authority =
        Authority::new(env.clone(), keyring.clone(), index.clone(), tree.clone(), log.clone());
    let (rules, rule) = (rules(home, config)?, rule(config));
    let (env, cache_dir) = (env.clone(), home.cache_dir());
    let verifier = Verifier::new(env.clone(), index.clone(), cache.clone(), remotes.clone());
    let verifier = Arc::new(verifier);
    let evictor = Evictor::new(
        env.clone(),
        index.clone(),
        cache.clone(),
        remotes.clone(),
        verifier.clone(),
        rule,
    );
    let evictor = Arc::new(evictor);
    let room = Room::new(index.clone(), cache.clone(), tree.clone(), evictor.clone());
    let parts = Parts {
        env,
        runtime: handle,
        index,
        cache,
        tree,
        remotes,
        log,
        authority,
        sealer,
        pusher,
        publisher,
        merger,
        verifier,
        evictor,
        room,
        cache_dir,
        rules,
        foreground,
    };
    Ok((parts, contents))
}

/// The sealer, which must know where a layer takes room from the journal.
fn sealer(
    home: &Home,
    keyring: &Arc<Keyring>,
    env: &Env,
    index: &Arc<Index>,
    contents: &Arc<Contents>,
    tree: &Arc<Tree>,
) -> Result<Sealer> {
    let elsewhere = device_of(&home.cache_dir())? != device_of(&home.journal_dir())?;
    let (index, contents, tree) = (index.clone(), contents.clone(), tree.clone());
    Ok(Sealer::new(env.clone(), keyring.clone(), index, contents, tree, elsewhere))
}

/// The tree over the index and the journal, which leaves free what a person wants to stay free.
fn open_tree(
    home: &Home,
    config: &Config,
    secrets: &Secrets,
    env: &Env,
    index: &Arc<Index>,
    contents: &Arc<Contents>,
) -> Result<Arc<Tree>> {
    let dir = home.journal_dir();
    std::fs::create_dir_all(&dir).map_err(Error::io("make the journal's directory"))?;
    std::fs::File::open(home.state_dir())
        .and_then(|above| above.sync_all())
        .map_err(Error::io("make the journal's directory durable"))?;
    let reserve_bytes = DiskSpace::under(&dir)?.reserve(config.disk_reserve.0);
    let settings = Settings { reserve_bytes, ..Settings::default() };
    let disk = Directory::new(&dir).map_err(Error::io("open the journal's directory"))?;
    let key = Key::derive("rdrivefs v1 journal", &[secrets.local.as_bytes()]);
    let journal = |at| Journal::open_on(Arc::new(disk), &key, env, at, settings);
    let (number, state, chunks) = (secrets.number, home.state_dir(), contents.clone());
    let tree = Tree::open_with(env.clone(), number, index.clone(), &state, journal, chunks)?;
    Ok(Arc::new(tree))
}

/// The disk a directory lies on.
fn device_of(dir: &std::path::Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::metadata(dir).map_err(Error::io(format!("look at {}", dir.display())))?;
    Ok(meta.dev())
}

/// What must be behind a layer before it may go.
pub(super) fn rule(config: &Config) -> Rule {
    Rule {
        copies: 1,
        audit_age_ms: u64::from(config.verify.age_days) * DAY_MS,
        confidence: config.verify.confidence.0,
        loss: config.verify.loss.0,
    }
}

/// What the background keeps to.
fn rules(home: &Home, config: &Config) -> Result<Rules> {
    let disk = DiskSpace::under(&home.cache_dir())?;
    // Writers are refused at the reserve, so room is made before.
    let margin = config.disk_reserve.0.clamp(MARGIN_BYTES_MIN, MARGIN_BYTES_MAX);
    let disk_reserve_bytes = disk.reserve(config.disk_reserve.0) + disk.reserve(margin);
    let bounds = Bounds { cache_bytes_max: config.cache_size.0, disk_reserve_bytes };
    let challenges_per_day = u64::from(config.verify.challenges_per_day);
    Ok(Rules { bounds, challenges_per_day, audit_samples: rule(config).audit_samples() })
}

/// What all links keep to together, and each of them.
fn limits(network: &Network, foreground: &Arc<Foreground>, env: &Env) -> Limits {
    let pace = |limit: Size| (limit.0 > 0).then(|| Arc::new(Pace::new(limit.0, env.clone())));
    Limits {
        sent: pace(network.upload_limit),
        beside: Some(Arc::new(Pace::beside(foreground.clone(), BESIDE_BYTES_PER_S, env.clone()))),
        received: pace(network.download_limit),
        requests_max: Some(network.requests),
    }
}

/// The log this device writes.
fn own_log(secrets: &Secrets) -> LogId {
    let (author, instance) = (secrets.device.public(), secrets.instance);
    LogId { kind: LogKind::Commits, author, instance }
}

/// What this device shows to nodes.
fn credentials(secrets: &Secrets, log: &Log) -> Result<Credentials> {
    Ok(Credentials {
        drive: secrets.drive(),
        root: secrets.root,
        device: secrets.device.clone(),
        membership: log.certificate()?,
        invite: None,
    })
}

fn lock(home: &Home) -> Result<Lock> {
    home.make()?;
    home.lock()
}

pub(super) fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .thread_name("links")
        .enable_all()
        .build()
        .map_err(Error::io("start the threads for links"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_of_the_network_become_limits() {
        let quiet = Arc::new(Foreground::new(Env::real()));
        let free = limits(&Network::default(), &quiet, &Env::real());
        assert!(free.sent.is_none() && free.received.is_none());
        assert_eq!(free.requests(), 16);
        let (upload_limit, download_limit) = (Size(1 << 20), Size(2 << 20));
        let set = Network { upload_limit, download_limit, requests: 3 };
        let set = limits(&set, &quiet, &Env::real());
        assert_eq!(set.sent.as_ref().map(|pace| pace.bytes_per_s()), Some(1 << 20));
        assert_eq!(set.received.as_ref().map(|pace| pace.bytes_per_s()), Some(2 << 20));
        assert_eq!(set.requests(), 3);
    }
}
