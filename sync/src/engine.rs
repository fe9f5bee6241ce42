//! The engine: the one loop that carries out what [`State`] decides.
//!
//! Sealing and writing behind run on the engine's own thread, one after the other; every remote has
//! a task at a time. Nothing is decided here but how to do what was asked. A person's `sync` runs
//! the same steps in the foreground, so there is one way for the data.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rdrivefs_remote::env::Env;
use rdrivefs_remote::logs::Logs as _;
use tokio::runtime::Handle;

use crate::cache::Cache;
use crate::error::Result;
use crate::index::Index;
use crate::index::layers::RemoteNumber;
use crate::log::{Exchanged, Log};
use crate::merge::Merger;
use crate::progress::Progress;
use crate::publish::Publisher;
use crate::push::{Pushed, Pusher};
use crate::remotes::{Remote, Remotes};
use crate::seals::{SealedSum, Sealer};
use crate::state::{Event, Facts, State, Work};
use crate::tree::Tree;

/// How often the parts are asked whether there is something to do.
const BEAT: Duration = Duration::from_millis(100);

/// How long a node may hold a watch before it answers that nothing is new.
const WATCH_MS: u64 = 50_000;

/// The pause after a watch that failed: the node is away, and the state tries it by itself.
const WATCH_PAUSE: Duration = Duration::from_secs(5);

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
    /// Makes layers.
    pub sealer: Sealer,
    /// Sends layers.
    pub pusher: Pusher,
    /// Makes commits.
    pub publisher: Publisher,
    /// Applies commits.
    pub merger: Merger,
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
        let sealed = self.sealer.round(all, progress)?;
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
        let pushed = self.pusher.push(remote, progress).await?;
        let theirs = self.remotes.noted(remote, remote.link.heads().await)?;
        self.log.note(&theirs)?;
        self.publisher.publish()?;
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
        self.merger.apply_all(progress)?;
        received
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
        let own =
            Loop { parts, stop: stop.clone(), events: events.clone(), state: State::default() };
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

    /// Stops the loop and waits for its present step; tasks with remotes end by themselves.
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
            let facts =
                Facts { dirty: self.parts.tree.is_dirty(), ripe: self.parts.tree.is_ripe() };
            for work in self.state.next(facts, self.parts.env.instant()) {
                self.carry_out(work);
            }
        }
        watched.values().for_each(|watch: &tokio::task::JoinHandle<()>| watch.abort());
    }

    fn handle(
        &mut self,
        event: Event,
        watched: &mut HashMap<RemoteNumber, tokio::task::JoinHandle<()>>,
    ) {
        match event {
            Event::Remote(number) => drop(watched.insert(number, self.watch(number))),
            Event::Gone(number) => drop(watched.remove(&number).map(|watch| watch.abort())),
            _ => {}
        }
        self.state.handle(event, self.parts.env.instant());
    }

    fn carry_out(&mut self, work: Work) {
        let done = match work {
            Work::Maintain => self.parts.maintain(),
            Work::Seal => self.seal(),
            Work::Sync(number) => {
                self.sync(number);
                Ok(())
            }
        };
        if let Err(e) = done {
            tracing::warn!(?work, error = %e, "left for later");
        }
    }

    fn seal(&mut self) -> Result<()> {
        let sealed = self.parts.seal(false, &Progress::silent())?;
        if sealed.files > 0 {
            self.state.handle(Event::Sealed, self.parts.env.instant());
        }
        Ok(())
    }

    fn sync(&self, number: RemoteNumber) {
        let (parts, events) = (self.parts.clone(), self.events.clone());
        let Some(remote) = parts.remotes.by_number(number) else { return };
        let runtime = parts.runtime.clone();
        runtime.spawn(async move {
            let event = match parts.sync(&remote, &Progress::silent()).await {
                Ok(_) => Event::Synced(number),
                Err(e) => {
                    tracing::info!(remote = remote.name, error = %e, "not in step");
                    Event::Failed(number)
                }
            };
            let _unheard = events.send(event);
        });
    }

    /// Waits at a remote for entries this device does not have.
    fn watch(&self, number: RemoteNumber) -> tokio::task::JoinHandle<()> {
        let (parts, events) = (self.parts.clone(), self.events.clone());
        self.parts.runtime.spawn(async move {
            let mut seen = Vec::new();
            while let Some(remote) = parts.remotes.by_number(number) {
                let Ok(heads) = remote.link.watch(seen.clone(), WATCH_MS).await else {
                    tokio::time::sleep(WATCH_PAUSE).await;
                    continue;
                };
                let ours = parts.index.heads().unwrap_or_default();
                if heads.iter().any(|head| is_news(head, &ours)) {
                    let _unheard = events.send(Event::News(number));
                }
                seen = heads;
            }
        })
    }
}

fn is_news(theirs: &rdrivefs_remote::entry::Head, seen: &[rdrivefs_remote::entry::Head]) -> bool {
    seen.iter().find(|head| head.log == theirs.log).is_none_or(|head| head.number < theirs.number)
}
