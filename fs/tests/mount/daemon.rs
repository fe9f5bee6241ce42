//! A mount to test on, in this process or one of its own, that cannot outlive or hang its test.

use std::any::Any;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use rdrivefs::adapter::Core;
use rdrivefs::mount::{Mounted, Options, mount};
use rdrivefs_sync::remote::env::Env;

use crate::memory::Memory;

const POINT: &str = "RDRIVEFS_TEST_POINT";
const OPTIONS: &str = "RDRIVEFS_TEST_OPTIONS";
const CORE: &str = "RDRIVEFS_TEST_CORE";
const READY: &str = "READY";
/// How long a test may take before it is taken to hang.
const LIMIT: Duration = Duration::from_secs(60);

/// Ends the process if it is not dropped in time. The mount is forced first: a thread that waits in
/// the kernel for a mount that its own process no longer answers cannot even be killed.
pub struct Watchdog(#[allow(dead_code)] Sender<()>);

impl Watchdog {
    pub fn new(dir: &Path) -> Self {
        let dir = dir.to_owned();
        let (alive, dropped) = channel::<()>();
        std::thread::spawn(move || {
            use std::sync::mpsc::RecvTimeoutError::Timeout;
            if dropped.recv_timeout(LIMIT) == Err(Timeout) {
                eprintln!("the test hangs");
                use rustix::mount::UnmountFlags;
                for flags in [UnmountFlags::FORCE, UnmountFlags::DETACH] {
                    let _gone = rustix::mount::unmount(&dir, flags | UnmountFlags::NOFOLLOW);
                }
                std::process::abort();
            }
        });
        Self(alive)
    }
}

/// A mount served by this process.
pub struct Local {
    pub core: Arc<dyn Core>,
    pub dir: PathBuf,
    memory: Option<Arc<Memory>>,
    mounted: Option<Mounted>,
    /// What the core needs to be there, dropped after the mount.
    _keep: Box<dyn Any>,
    _root: tempfile::TempDir,
    _watchdog: Watchdog,
}

/// How a test gets its mount: given options, on the core it is run on.
pub type Mount = fn(&str) -> Local;

impl Local {
    /// On the filesystem in memory, without options.
    pub fn new() -> Self {
        Self::with("")
    }

    /// On the filesystem in memory.
    pub fn with(options: &str) -> Self {
        let memory = Arc::new(Memory::new(Env::real()));
        let mut local = Self::on(Arc::clone(&memory), Box::new(()), options);
        local.memory = Some(memory);
        local
    }

    /// On the tree of a drive.
    pub fn on_tree(options: &str) -> Self {
        let (tree, keep) = crate::tree::open();
        Self::on(tree, keep, options)
    }

    fn on<C: Core>(core: Arc<C>, keep: Box<dyn Any>, options: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().canonicalize().unwrap().join("mnt");
        let watchdog = Watchdog::new(&dir);
        let options = Options::default().parse(options).unwrap();
        let mounted = mount(&dir, &options, &[], Arc::clone(&core), Env::real()).unwrap();
        assert!(mounted.ready());
        let mounted = Some(mounted);
        Self { core, dir, memory: None, mounted, _keep: keep, _root: root, _watchdog: watchdog }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub fn memory(&self) -> &Arc<Memory> {
        self.memory.as_ref().expect("a mount on the filesystem in memory")
    }
}

/// Makes each test of a list one on the filesystem in memory and one on the tree.
macro_rules! on_each_core {
    ($($name:ident),* $(,)?) => {
        mod on_memory {
            $(#[test]
            fn $name() {
                super::$name(crate::daemon::Local::with);
            })*
        }

        mod on_tree {
            $(#[test]
            fn $name() {
                super::$name(crate::daemon::Local::on_tree);
            })*
        }
    };
}

pub(crate) use on_each_core;

impl Drop for Local {
    fn drop(&mut self) {
        let mounted = self.mounted.take().expect("taken here only");
        if mounted.unmount().is_err() {
            // The test failed with files open; they are closed when its process ends.
            let _gone = Command::new("umount").arg("-l").arg(&self.dir).status();
            return;
        }
        mounted.wait().expect("the session ends well");
    }
}

/// A mount served by a process of its own.
pub struct Remote {
    pub dir: PathBuf,
    child: Child,
    stdin: Option<ChildStdin>,
    _watchdog: Watchdog,
}

impl Remote {
    pub fn new(dir: &Path, options: &str) -> Result<Self, String> {
        Self::run(Command::new(std::env::current_exe().unwrap()), dir, options)
    }

    /// Serves a mount by `command`, which is this program, perhaps under another.
    pub fn run(mut command: Command, dir: &Path, options: &str) -> Result<Self, String> {
        let mut child = command
            .args(["daemon::daemon", "--exact", "--ignored", "--nocapture"])
            .env(POINT, dir)
            .env(OPTIONS, options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let said = lines.find(|line| line.contains(READY) || line.contains("REFUSED"));
        let watchdog = Watchdog::new(dir);
        std::thread::spawn(move || lines.for_each(drop));
        match said {
            Some(line) if line.contains(READY) => {
                // By way of the parent: only its owner may look at the folder itself.
                let parent = dir.parent().unwrap().canonicalize().unwrap();
                let dir = parent.join(dir.file_name().unwrap());
                Ok(Self { dir, child, stdin, _watchdog: watchdog })
            }
            said => {
                child.wait().unwrap();
                Err(said.unwrap_or_else(|| "the daemon died".into()))
            }
        }
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        self.signal(rustix::process::Signal::KILL);
        assert!(self.child.wait().unwrap().signal().is_some());
    }

    /// The exit status, if there is one in time.
    pub fn ended_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        drop(self.stdin.take());
        if self.ended_within(Duration::from_secs(3)).is_none() {
            let _gone = self.child.kill();
            let _status = self.child.wait();
        }
        while is_mounted(&self.dir) {
            assert!(Command::new("umount").arg("-l").arg(&self.dir).status().unwrap().success());
        }
    }
}

pub fn is_mounted(dir: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == dir.to_str())
}

/// Not a test: what [`Remote`] runs. It goes when its standard input is closed. To try other
/// people's suites on it, give it a folder, and `tree` as the core, by hand:
///
///     RDRIVEFS_TEST_POINT=DIR RDRIVEFS_TEST_CORE=tree cargo test -p rdrivefs --test mount -- \
///         daemon::daemon --exact --ignored --nocapture
#[test]
#[ignore = "the daemon of other tests"]
fn daemon() {
    let Some(dir) = std::env::var_os(POINT).map(PathBuf::from) else { return };
    let options = std::env::var(OPTIONS).unwrap_or_default();
    let options = Options::default().parse(&options).unwrap();
    if std::env::var_os(CORE).is_some_and(|core| core == "tree") {
        let (tree, _keep) = crate::tree::open();
        return serve(tree, &dir, &options);
    }
    serve(Arc::new(Memory::new(Env::real())), &dir, &options);
}

fn serve<C: Core>(core: Arc<C>, dir: &Path, options: &Options) {
    let mounted = match mount(dir, options, &[], core, Env::real()) {
        Ok(mounted) => mounted,
        Err(error) => return println!("REFUSED {error}"),
    };
    mounted.unmount_on_signals().unwrap();
    let unmounter = mounted.unmounter();
    std::thread::spawn(move || {
        let _end = std::io::stdin().read_to_end(&mut Vec::new());
        unmounter.leave();
    });
    println!("{READY}");
    mounted.wait().unwrap();
}
