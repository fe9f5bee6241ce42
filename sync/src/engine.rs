//! The engine: the one loop that carries out what [`State`] decides.
//!
//! Sealing and writing behind run on the engine's own thread, one after the other; every remote has
//! a task that moves and one that proves, and there is one that evicts. Nothing is decided here but how to do what was asked. A person's `sync` runs
//! the same steps in the foreground, so there is one way for the data.

mod watch;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdrivefs_remote::env::Env;
use rdrivefs_remote::foreground::Foreground;
use rdrivefs_remote::logs::Logs as _;
use tokio::runtime::Handle;

use crate::authority::Authority;
use crate::cache::Cache;
use crate::error::Result;
use crate::evict::{Evicted, Evictor};
use crate::home::DiskSpace;
use crate::index::Index;
use crate::index::layers::RemoteNumber;
use crate::index::ledger::Audit;
use crate::log::{Exchanged, Log};
use crate::merge::Merger;
use crate::progress::Progress;
use crate::publish::Publisher;
use crate::push::{Pushed, Pusher};
use crate::remotes::{Remote, Remotes};
use crate::report::{KeptReason, Samples};
use crate::room::Room;
use crate::seals::{SealedSum, Sealer};
use crate::state::{Event, Facts, Rules, Spot, State, Surplus, Tally, Use, Verdict, Work};
use crate::tree::Tree;
use crate::verify::Verifier;

use self::watch::Watch;

/// How often the parts are asked whether there is something to do.
const BEAT: Duration = Duration::from_millis(100);

/// What one sync with one remote moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Layers sent.
    pub pushed: Pushed,
    /// Entries sent and received.
    pub exchanged: Exchanged,
}

/// Everything the engine works with; all of it is shared with the drive.
pub struct Parts {
    /// The world.
    pub env: Env,
    /// Where tasks run.
    pub runtime: Handle,
    /// The tables.
    pub index: Arc<Index>,
    /// The layers here.
    pub cache: Arc<Cache>,
    /// The files.
    pub tree: Arc<Tree>,
    /// The remotes.
    pub remotes: Arc<Remotes>,
    /// The logs.
    pub log: Arc<Log>,
    /// Signs what concerns members and keys.
    pub authority: Authority,
    /// Makes layers.
    pub sealer: Sealer,
    /// Sends layers.
    pub pusher: Pusher,
    /// Makes commits.
    pub publisher: Publisher,
    /// Applies commits.
    pub merger: Merger,
    /// Challenges remotes.
    pub verifier: Arc<Verifier>,
    /// Drops local copies.
    pub evictor: Arc<Evictor>,
    /// Makes room in the cache.
    pub room: Room,
    /// Where the cache lies.
    pub cache_dir: PathBuf,
    /// What a person has set.
    pub rules: Rules,
    /// For which pushing makes room.
    pub foreground: Arc<Foreground>,
}

/// What an eviction left.
#[derive(Default)]
struct Kept {
    not_pushed: u64,
    not_proven: u64,
    why: String,
}

/// The engine while it runs in the background.
pub struct Engine {
    stop: Arc<AtomicBool>,
    events: Sender<Event>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Parts {
    /// Seals what is ripe, or everything.
    ///
    /// # Errors
    /// Of the journal, the cache or the index.
    pub fn seal(&self, all: bool, progress: &Progress) -> Result<SealedSum> {
        let sealed = self.foreground.behind(|| self.sealer.round(all, progress))?;
        if sealed.files > 0 {
            self.tree.flush()?;
        }
        Ok(sealed)
    }

    /// Writes behind, frees the journal, and where room is short, layers that nobody needs.
    ///
    /// # Errors
    /// Of the index or the disk; what was not done is tried again.
    pub fn maintain(&self) -> Result<()> {
        self.tree.maintain()?;
        self.cache.flush()?;
        if self.tree.is_cramped()? {
            let freed = self.sealer.collect()?;
            tracing::debug!(freed, "room was short");
        }
        Ok(())
    }

    /// Sends `remote` what it lacks: layers, then the commits that name them.
    ///
    /// # Errors
    /// Of the remote or the parts below.
    pub async fn push(&self, remote: &Arc<Remote>, progress: &Progress) -> Result<Moved> {
        // What another is sending there is not sent twice.
        let _turn = remote.turn.lock().await;
        let pushed = self.pusher.push(remote, progress).await?;
        let theirs = self.remotes.noted(remote, remote.link.heads().await)?;
        self.log.note(&theirs)?;
        // It waits for the disk, and must not keep the links' threads from moving bytes.
        tokio::task::block_in_place(|| self.publisher.publish())?;
        let sent = self.log.send(&*remote.link, &theirs, progress).await?;
        Ok(Moved { pushed, exchanged: Exchanged { sent, ..Exchanged::default() } })
    }

    /// Receives what `remote` has and this device has not, and applies it.
    ///
    /// # Errors
    /// Of the remote or the parts below.
    pub async fn pull(&self, remote: &Arc<Remote>, progress: &Progress) -> Result<Exchanged> {
        let theirs = self.remotes.noted(remote, remote.link.heads().await)?;
        self.log.note(&theirs)?;
        let received = self.log.receive(&*remote.link, &theirs, progress).await;
        tokio::task::block_in_place(|| {
            let applied = match self.merger.apply_all(progress) {
                Err(e) if !e.is_refusal() => return Err(e),
                applied => applied,
            };
            // What one member does wrong keeps nobody from what is owed to the others.
            self.authority.attend()?;
            applied
        })?;
        received
    }

    /// What the cache takes of its disk. One that cannot be asked counts as free.
    fn space(&self) -> Use {
        let free = DiskSpace::under(&self.cache_dir).map_or(u64::MAX, |disk| disk.free_bytes);
        Use { cache_bytes: self.cache.bytes_used(), disk_free_bytes: free }
    }

    /// Makes room, and tells of remotes that lack an audit for it and, if asked, of what must stay.
    async fn evict(
        &self,
        surplus: Surplus,
        events: &Sender<Event>,
        progress: &Progress,
    ) -> Result<Event> {
        for remote in self.evictor.unaudited()? {
            let _unheard = events.send(Event::Unaudited(remote));
        }
        let mut kept = Kept::default();
        let mut note = |evicted| {
            kept.note(&evicted);
            Ok(())
        };
        let bytes = self.room.make(surplus.bytes, false, progress, &mut note).await?;
        tracing::info!(bytes, of = surplus.bytes, "evicted");
        let told = surplus.tell && bytes < surplus.bytes;
        if told {
            let (bytes, why) = (surplus.bytes - bytes, kept.why);
            let (not_pushed, not_proven) = (kept.not_pushed, kept.not_proven);
            tracing::warn!(bytes, not_pushed, not_proven, why, "more in the cache than may go");
        }
        Ok(Event::Evicted { bytes, told })
    }

    /// A whole audit, as an eviction demands it.
    async fn audit(&self, remote: &Remote) -> Result<Verdict> {
        let samples = Samples::Count(self.rules.audit_samples);
        let found = self.verifier.audit(remote, samples, None, &Progress::silent()).await?;
        self.tree.flush()?;
        Ok(match found.failures.is_empty() {
            false => Verdict::Failed,
            true if found.samples >= self.rules.audit_samples => Verdict::Clean,
            true => Verdict::Silent,
        })
    }

    async fn spot(&self, remote: &Remote, count: u64) -> Result<Spot> {
        let found = self.verifier.spot(remote, count).await?;
        let failures = found.failed();
        if failures > 0 {
            tracing::warn!(remote = remote.name, failures, "a remote lacks what it should hold");
            self.tree.flush()?;
        }
        let at = self.env.wall_ms();
        Ok(Spot { at, samples: found.samples, failures, bytes: found.bytes })
    }

    fn record(&self, remote: RemoteNumber, tally: Tally) -> Result<()> {
        let Tally { since, samples, bytes } = tally;
        // It is dated by its first answer, so that it never counts for longer than it should.
        let audit = Audit { at: since.0, samples, failures: 0, bytes, whole: false };
        self.index.add_audit(remote, &audit)?;
        self.tree.flush()
    }

    /// Both: what is refused of what came holds up nothing of what goes.
    ///
    /// # Errors
    /// Of the remote or the parts below, or at last the first refusal.
    pub async fn sync(&self, remote: &Arc<Remote>, progress: &Progress) -> Result<Moved> {
        let received = match self.pull(remote, progress).await {
            Err(e) if !e.is_refusal() => return Err(e),
            received => received,
        };
        let mut moved = self.push(remote, progress).await?;
        moved.exchanged = Exchanged { sent: moved.exchanged.sent, ..received? };
        Ok(moved)
    }
}

impl Engine {
    /// Starts the engine.
    pub fn start(parts: Arc<Parts>) -> Self {
        let (events, inbox) = channel();
        let stop = Arc::new(AtomicBool::new(false));
        let (state, stopping) = (State::new(parts.rules), Progress::silent());
        let own = Loop {
            parts,
            stop: stop.clone(),
            events: events.clone(),
            state,
            stopping,
            evicting: None,
        };
        let thread = std::thread::Builder::new()
            .name("engine".into())
            .spawn(move || own.run(&inbox))
            .expect("the system can start one more thread");
        Self { stop, events, thread: Mutex::new(Some(thread)) }
    }

    /// Tells the engine what happened.
    pub fn tell(&self, event: Event) {
        // An engine that has stopped needs to know nothing any more.
        let _unheard = self.events.send(event);
    }

    /// Stops the loop and waits for its present step and for the end of an eviction; tasks with
    /// remotes end by themselves.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            drop(thread.join());
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Loop {
    parts: Arc<Parts>,
    stop: Arc<AtomicBool>,
    events: Sender<Event>,
    state: State,
    /// Ends an eviction.
    stopping: Progress,
    evicting: Option<tokio::task::JoinHandle<()>>,
}

impl Loop {
    fn run(mut self, inbox: &Receiver<Event>) {
        let mut watched = HashMap::new();
        for remote in self.parts.remotes.all() {
            self.handle(Event::Remote(remote.number), &mut watched);
        }
        while !self.stop.load(Ordering::Relaxed) {
            match inbox.recv_timeout(BEAT) {
                Ok(event) => self.handle(event, &mut watched),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let sealed = self.carry_out_next();
            if sealed {
                // What there is to send by that does not wait for the next beat.
                self.carry_out_next();
            }
        }
        watched.values().for_each(|watch: &tokio::task::JoinHandle<()>| watch.abort());
        self.stopping.cancel();
        if let Some(evicting) = self.evicting.take() {
            // Must: nothing is dropped any more once another process may have the drive.
            evicting.abort();
            drop(self.parts.runtime.block_on(evicting));
        }
    }

    /// Carries out what is to be done now; whether something was sealed by it.
    fn carry_out_next(&mut self) -> bool {
        let facts = Facts {
            dirty: self.parts.tree.is_dirty(),
            ripe: self.parts.tree.is_ripe(),
            changes: self.parts.tree.changes(),
            space: self.parts.space(),
        };
        let next = self.state.next(facts, self.parts.env.instant());
        let sealed = next.contains(&Work::Seal);
        next.into_iter().for_each(|work| self.carry_out(work));
        sealed
    }

    fn handle(
        &mut self,
        event: Event,
        watched: &mut HashMap<RemoteNumber, tokio::task::JoinHandle<()>>,
    ) {
        match event {
            Event::Remote(number) => {
                let (remotes, index) = (self.parts.remotes.clone(), self.parts.index.clone());
                let watch = Watch { remotes, index, events: self.events.clone() };
                drop(watched.insert(number, watch.begin(number, &self.parts.runtime)));
            }
            Event::Gone(number) => drop(watched.remove(&number).map(|watch| watch.abort())),
            _ => {}
        }
        self.state.handle(event, self.parts.env.instant());
    }

    fn carry_out(&mut self, work: Work) {
        let done = match work {
            Work::Maintain => self.parts.maintain(),
            Work::Seal => self.seal(),
            Work::Record(number, tally) => self.parts.record(number, tally),
            Work::Sync(number) => {
                self.sync(number);
                Ok(())
            }
            Work::Evict(surplus) => {
                self.evict(surplus);
                Ok(())
            }
            Work::Audit(number) => {
                self.audit(number);
                Ok(())
            }
            Work::Challenge(number, count) => {
                self.challenge(number, count);
                Ok(())
            }
        };
        if let Err(e) = done {
            tracing::warn!(?work, error = %e, "left for later");
        }
    }

    fn seal(&mut self) -> Result<()> {
        let sealed = self.parts.seal(false, &Progress::silent());
        let now = self.parts.env.instant();
        match &sealed {
            Ok(sum) if sum.files > sum.unread => self.state.handle(Event::Sealed, now),
            Ok(_) => {}
            Err(_) => self.state.handle(Event::SealFailed, now),
        }
        sealed.map(drop)
    }

    fn sync(&self, number: RemoteNumber) {
        let (parts, events) = (self.parts.clone(), self.events.clone());
        let Some(remote) = parts.remotes.by_number(number) else { return };
        let runtime = parts.runtime.clone();
        runtime.spawn(async move {
            let name = remote.name.clone();
            let syncing = async move { parts.sync(&remote, &Progress::silent()).await };
            // One that panics must not be waited for for ever.
            let event = match tokio::spawn(syncing).await {
                Ok(Ok(_)) => Event::Synced(number),
                Ok(Err(e)) => {
                    tracing::info!(remote = name, error = %e, "not in step");
                    Event::Failed(number)
                }
                Err(e) => {
                    tracing::error!(remote = name, error = %e, "a sync broke off");
                    Event::Failed(number)
                }
            };
            let _unheard = events.send(event);
        });
    }

    fn evict(&mut self, surplus: Surplus) {
        let (parts, events) = (self.parts.clone(), self.events.clone());
        let progress = self.stopping.clone();
        let task = self.parts.runtime.spawn(async move {
            let event = parts.evict(surplus, &events, &progress).await.unwrap_or_else(|e| {
                tracing::info!(error = %e, "the cache stays as large as it is");
                Event::Evicted { bytes: 0, told: false }
            });
            let _unheard = events.send(event);
        });
        self.evicting = Some(task);
    }

    fn audit(&self, number: RemoteNumber) {
        let (parts, events) = (self.parts.clone(), self.events.clone());
        let Some(remote) = parts.remotes.by_number(number) else { return };
        self.parts.runtime.spawn(async move {
            let verdict = parts.audit(&remote).await.unwrap_or_else(|e| {
                tracing::info!(remote = remote.name, error = %e, "not audited");
                Verdict::Silent
            });
            let _unheard = events.send(Event::Audited(number, verdict));
        });
    }

    fn challenge(&self, number: RemoteNumber, count: u64) {
        let (parts, events) = (self.parts.clone(), self.events.clone());
        let Some(remote) = parts.remotes.by_number(number) else { return };
        self.parts.runtime.spawn(async move {
            let spot = parts.spot(&remote, count).await.unwrap_or_else(|e| {
                tracing::info!(remote = remote.name, error = %e, "not challenged");
                Spot { at: parts.env.wall_ms(), samples: 0, failures: 0, bytes: 0 }
            });
            let _unheard = events.send(Event::Challenged(number, spot));
        });
    }
}

impl Kept {
    fn note(&mut self, evicted: &Evicted) {
        for stays in &evicted.stays {
            match stays.reason {
                KeptReason::NotPushed => self.not_pushed += 1,
                _ => self.not_proven += 1,
            }
            self.why.clone_from(&stays.detail);
        }
    }
}
