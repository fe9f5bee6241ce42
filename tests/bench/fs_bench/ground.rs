//! The grounds that rows are measured on: a drive, the ceiling above it, any folder beside it.
//!
//! A drive is mounted by ourselves in a temporary folder, with a node if that is asked for. The
//! ceiling is the in-memory filesystem of `fs/examples/null` behind the same adapter and kernel:
//! nothing that is mounted the same way can be faster. A folder is whatever path was given; we
//! work in a folder of our own in it. All of it is ended, unmounted and removed when dropped.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rdrivefs_tests::world::{Device, Node, World, program, run};

use crate::measure::{now, patiently, peak_mib};

/// How long the ceiling may take to go when it is told to.
const NULL_END_MAX: Duration = Duration::from_secs(20);

/// A mounted directory with a name.
pub(crate) struct Ground {
    /// What reports call it.
    pub(crate) name: String,
    /// Where to work.
    pub(crate) dir: PathBuf,
    kind: Kind,
    /// The most memory of daemons that served it before.
    peak_mib: f64,
}

enum Kind {
    Drive(Drive),
    /// Kept for what happens when it is dropped.
    Null(#[expect(dead_code, reason = "it is unmounted when dropped")] Null),
    /// A folder of our own in somebody's.
    Folder(#[expect(dead_code, reason = "it is removed when dropped")] tempfile::TempDir),
}

/// A drive of our own. Fields are dropped in this order: what is mounted goes first.
pub(crate) struct Drive {
    /// Its device.
    pub(crate) device: Device,
    /// Its node, if it has one.
    pub(crate) node: Option<Node>,
    _world: World,
}

struct Null {
    child: Child,
    dir: tempfile::TempDir,
    /// Held open, so that it may say something.
    _out: BufReader<ChildStdout>,
}

impl Drive {
    /// A new one, mounted.
    pub(crate) fn new(with_node: bool) -> Self {
        let world = World::new();
        let node = with_node.then(|| world.node("node"));
        let device = match &node {
            Some(node) => world.founder("drive", node),
            None => alone(&world),
        };
        device.mount();
        Self { device, node, _world: world }
    }

    /// The process that serves it.
    pub(crate) fn pid(&self) -> u32 {
        self.device.daemon().expect("it is mounted")
    }

    /// Unmounts it and mounts it again, so that the daemon remembers nothing.
    pub(crate) fn remount(&self) {
        patiently(&self.device, &["unmount", self.device.dir_str()]);
        self.device.mount();
    }
}

/// A device whose drive is known to nobody else.
fn alone(world: &World) -> Device {
    let device = world.device("drive");
    let phrase = world.path("phrase");
    let phrase = phrase.to_str().expect("temporary paths are text");
    device.ok(&["init", "--no-passphrase", "--recovery-file", phrase]);
    device
}

impl Ground {
    /// A drive of our own.
    pub(crate) fn drive(with_node: bool) -> Self {
        let drive = Drive::new(with_node);
        let dir = drive.device.dir.clone();
        Self { name: "rdrivefs".to_owned(), dir, kind: Kind::Drive(drive), peak_mib: 0.0 }
    }

    /// The ceiling; none, with a word why, where its program was not built.
    pub(crate) fn null() -> Option<Self> {
        let built = program("rdrivefs").with_file_name("examples").join("null");
        if !built.exists() {
            eprintln!("skipped: the ceiling: build it by `cargo build -p rdrivefs --example null`");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let mut command = Command::new(built);
        command.arg(dir.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        let null_dir = dir.path().to_owned();
        let mut line = String::new();
        let said = out.read_line(&mut line);
        let null = Null { child, dir, _out: out };
        said.expect("it says when it is mounted");
        assert!(line.starts_with("mounted"), "the ceiling was not mounted: {line:?}");
        let kind = Kind::Null(null);
        Some(Self { name: "null".to_owned(), dir: null_dir, kind, peak_mib: 0.0 })
    }

    /// A folder of our own below `path`.
    pub(crate) fn folder(name: &str, path: &Path) -> Result<Self, String> {
        let made = tempfile::Builder::new().prefix("fs_bench-").tempdir_in(path);
        let made = made.map_err(|e| format!("--dir {name}={}: {e}", path.display()))?;
        let dir = made.path().to_owned();
        Ok(Self { name: name.to_owned(), dir, kind: Kind::Folder(made), peak_mib: 0.0 })
    }

    /// Lets everything be forgotten that may have been remembered of reading: by the daemon, which
    /// a drive is remounted for, and by the kernel, where we may tell it so.
    pub(crate) fn cool(&mut self) {
        if let Kind::Drive(drive) = &self.kind {
            self.peak_mib = self.peak_mib.max(peak_mib(drive.pid()));
            drive.remount();
        }
        // Only clean pages are dropped.
        let synced = File::open(&self.dir).and_then(|dir| Ok(rustix::fs::syncfs(dir)?));
        synced.expect("it can be synced");
        drop_caches();
    }

    /// The most memory of whoever served a drive, in MiB.
    pub(crate) fn peak_mib(&self) -> Option<f64> {
        let Kind::Drive(drive) = &self.kind else { return None };
        Some(self.peak_mib.max(peak_mib(drive.pid())))
    }

    /// The drive, if it is one.
    pub(crate) fn as_drive(&self) -> Option<&Drive> {
        match &self.kind {
            Kind::Drive(drive) => Some(drive),
            _ => None,
        }
    }
}

/// Says so where "cold" is less cold than it sounds.
pub(crate) fn say_how_cold() {
    if !can_drop_caches() {
        eprintln!("note: only root can empty the kernel's caches: cold rows are not quite cold");
    }
}

fn can_drop_caches() -> bool {
    File::options().write(true).open("/proc/sys/vm/drop_caches").is_ok()
}

fn drop_caches() {
    // The caches are everybody's, and tests run beside others.
    if !cfg!(test) && can_drop_caches() {
        // In some containers it is there, can be opened, and cannot be written.
        drop(fs::write("/proc/sys/vm/drop_caches", "3"));
    }
}

impl Drop for Null {
    fn drop(&mut self) {
        drop(run(Command::new("kill").arg(self.child.id().to_string())));
        let end = now() + NULL_END_MAX;
        while now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(run(Command::new("umount").arg("-l").arg(self.dir.path())));
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
