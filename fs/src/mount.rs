//! A mount, from the first look at the folder to the last request.
//!
//! [`mount`] returns when the folder is usable. The mount ends when somebody unmounts it, whoever
//! that is; [`Mounted::wait`] returns then. What the core still has to write is the caller's to
//! finish: no request comes any more.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use fuser::{Config, Session, SessionACL};
use rdrivefs_sync::remote::env::Env;
use tokio::signal::unix::{SignalKind, signal};

use crate::adapter::{Adapter, Core, Kernel};
use crate::mount::connection::Connection;

mod guard;
mod connection;
mod point;
mod attach;
mod options;
mod error;

pub use error::MountError;
pub use guard::{Guard, keep};
pub use options::{KNOWN as KNOWN_OPTIONS, Options};
pub use point::{clear_dead, is_dead_mount};

/// Threads of the request loop on a computer with few processors: reads may wait for a remote.
const THREADS_MIN: usize = 8;
/// And on one with many: each thread may hold a request of 1 MiB.
const THREADS_MAX: usize = 32;
/// How long open files may hold up an end asked for by a signal, and dirty pages before that.
const GRACE_MS: u64 = 10_000;

/// A mount that is served. Dropping it without [`Mounted::wait`] takes it away at once: whoever
/// serves it is about to go.
pub struct Mounted {
    unmounter: Unmounter,
    connection: Option<Arc<Connection>>,
    ended: Receiver<io::Result<()>>,
    over: bool,
}

/// The way to end a mount from another thread.
#[derive(Clone)]
pub struct Unmounter {
    point: PathBuf,
    end: Sender<io::Result<()>>,
}

/// Mounts `core` on the folder `dir`; `state` are the directories the drive lives in.
pub fn mount<C: Core>(
    dir: &Path,
    options: &Options,
    state: &[PathBuf],
    core: Arc<C>,
    env: Env,
) -> Result<Mounted, MountError> {
    let point = point::prepare(dir, options, state)?;
    let threads = options.threads.unwrap_or_else(|| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        (2 * processors).clamp(THREADS_MIN, THREADS_MAX)
    });
    let kernel = Arc::new(Kernel::default());
    let heard = kernel.listener().map_err(MountError::io("a thread for", &point))?;
    core.on_change(Box::new(heard));
    let adapter = Adapter::new(core, Arc::clone(&kernel), env, threads);
    let fuse = attach::attach(&point, options)?;
    let connection = Connection::of(&point).map(Arc::new);
    let (end, ended) = channel();
    let unmounter = Unmounter { point, end: end.clone() };
    let started = serve(adapter, fuse, threads, kernel, connection.clone(), end);
    match started.and_then(|()| unmounter.look()) {
        Ok(()) => Ok(Mounted { unmounter, connection, ended, over: false }),
        Err(source) => {
            let _gone = attach::detach(&unmounter.point, true);
            Err(MountError::io("serving", &unmounter.point)(source))
        }
    }
}

/// Greets the kernel and answers it until the mount ends.
fn serve<C: Core>(
    adapter: Adapter<C>,
    fuse: std::os::fd::OwnedFd,
    threads: usize,
    kernel: Arc<Kernel>,
    connection: Option<Arc<Connection>>,
    end: Sender<io::Result<()>>,
) -> io::Result<()> {
    let mut config = Config::default();
    config.n_threads = Some(threads);
    config.clone_fd = attach::can_clone();
    // The kernel itself turns away those who may not reach the mount.
    let session = Session::from_fd(adapter, fuse, SessionACL::All, config)?;
    kernel.connect(session.notifier());
    std::thread::Builder::new().name("fuse-session".into()).spawn(move || {
        let ended = session.run();
        kernel.disconnect();
        if let (Err(_), Some(connection)) = (&ended, connection) {
            // Who waits for a request would wait on: a thread of ours may keep the device open.
            connection.give_up();
        }
        // Whoever waited may have left by another way.
        drop(end.send(ended));
    })?;
    Ok(())
}

impl Mounted {
    /// Whether the folder answers.
    pub fn ready(&self) -> bool {
        self.unmounter.look().is_ok()
    }

    /// The folder, as an absolute path.
    pub fn point(&self) -> &Path {
        &self.unmounter.point
    }

    /// The way to end this mount from elsewhere.
    pub fn unmounter(&self) -> Unmounter {
        self.unmounter.clone()
    }

    /// Has a process of its own, `program __guard …`, break off this mount should this process die.
    /// Must be called by the main thread.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn guard(&self, program: &Path) -> io::Result<Guard> {
        let gone = || io::Error::other("the mount is not in the table of mounts");
        let connection = self.connection.as_ref().ok_or_else(gone)?;
        Guard::start(program, &self.unmounter.point, connection)
    }

    /// Ends the mount, unless it is in use.
    pub fn unmount(&self) -> Result<(), MountError> {
        self.unmounter.unmount()
    }

    /// Returns when the mount has ended, leaving no dead mount behind.
    pub fn wait(mut self) -> Result<(), MountError> {
        self.over = true;
        let point = &self.unmounter.point;
        let ended = self.ended.recv().expect("a sender lives in this mount");
        if self.unmounter.look().is_err_and(|e| point::is_dead(&e))
            && point::mounted(point)?.as_deref() == Some(attach::KIND)
        {
            attach::detach(point, true)?;
        }
        ended.map_err(MountError::io("serving", point))
    }

    /// From now on SIGTERM, SIGINT and SIGHUP end the mount: at once if nobody uses it, else it is
    /// taken out of sight, and open files get ten seconds more.
    pub fn unmount_on_signals(&self) -> io::Result<()> {
        let unmounter = self.unmounter();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let _entered = runtime.enter();
        let mut kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()]
            .map(signal)
            .into_iter()
            .collect::<io::Result<Vec<_>>>()?;
        drop(_entered);
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                let [term, int, hup] = &mut kinds[..] else { return };
                tokio::select! { _ = term.recv() => {}, _ = int.recv() => {}, _ = hup.recv() => {} }
            });
            unmounter.leave();
        })?;
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !self.over
            && let Err(error) = attach::detach(&self.unmounter.point, true)
        {
            tracing::warn!(%error, "not unmounted");
        }
    }
}

impl Unmounter {
    /// Ends the mount, unless it is in use.
    pub fn unmount(&self) -> Result<(), MountError> {
        attach::detach(&self.point, false)
    }

    /// Ends the mount whether it is in use or not: what is dirty is written back, the folder is
    /// taken out of sight, and who still has files open gets a while to close them.
    pub fn leave(&self) {
        let Err(error) = self.unmount() else { return };
        tracing::warn!(%error, "still in use; taken out of sight");
        let point = self.point.clone();
        within_grace(move || {
            let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
            let synced = rustix::fs::open(&point, flags, rustix::fs::Mode::empty())
                .and_then(rustix::fs::syncfs);
            if let Err(error) = synced {
                tracing::warn!(%error, "what is dirty may not all be written back");
            }
        });
        if let Err(error) = attach::detach(&self.point, true) {
            tracing::warn!(%error, "not unmounted");
        }
        std::thread::sleep(Duration::from_millis(GRACE_MS));
        drop(self.end.send(Ok(())));
    }

    fn look(&self) -> io::Result<()> {
        point::probe(&self.point)
    }
}

/// Runs `job` on a thread of its own, and goes on without it when it takes too long.
fn within_grace(job: impl FnOnce() + Send + 'static) {
    let (done, waiting) = channel();
    let spawned = std::thread::Builder::new().name("leaving".into()).spawn(move || {
        job();
        let _gone_on = done.send(());
    });
    if spawned.is_ok() {
        let _late = waiting.recv_timeout(Duration::from_millis(GRACE_MS));
    }
}
