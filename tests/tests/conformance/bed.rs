//! What a suite lies on: a drive with a node, mounted by its daemon for everybody.
//!
//! Each suite has a bed of its own, so that no suite meets what another left. When it has ended,
//! the bed is settled: the daemon must be the one that began, unmounting must end well, and after
//! mounting again everything must be there as it was and the drive be in health. Whatever is wrong
//! with the bed is a fault of the run, which cannot be allowed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rdrivefs_tests::world::{Device, Node, World, wait_until};

use crate::picture::Picture;
use crate::verdict::Verdict;

/// Others may enter: suites act as several users.
const OPTIONS: &str = "allow_other,default_permissions";

/// A mounted drive for one suite. Dropped in this order: unmounted, the node ended, all removed.
pub struct Bed {
    device: Device,
    _node: Node,
    world: World,
    short: tempfile::TempDir,
    daemon: u32,
}

impl Bed {
    /// A new drive, mounted.
    pub fn new() -> Self {
        let world = World::new();
        let node = world.node("node");
        let device = world.founder("a", &node);
        open_to_all(world.path("").as_path());
        device.ok(&["mount", "-o", OPTIONS, device.dir_str()]);
        open_to_all(&device.dir);
        let short = tempfile::Builder::new().prefix("s").tempdir_in("/tmp").unwrap();
        open_to_all(short.path());
        // Not to the mount itself: pjdfstest looks for the mount point along the path.
        std::os::unix::fs::symlink(world.path(""), short.path().join("w")).unwrap();
        let daemon = device.daemon().expect("a daemon serves the mount");
        Self { device, _node: node, world, short, daemon }
    }

    /// A new folder of that name on the drive, which everybody may enter.
    pub fn folder(&self, name: &str) -> PathBuf {
        let dir = self.device.dir.join(name);
        fs::create_dir(&dir).unwrap();
        open_to_all(&dir);
        dir
    }

    /// As [`Bed::folder`], by a path of less than 40 bytes: sockets and some suites want that.
    pub fn short_folder(&self, name: &str) -> PathBuf {
        let folder = self.folder(name);
        let below = folder.strip_prefix(self.world.path("")).unwrap();
        let short = self.short.path().join("w").join(below);
        assert!(short.as_os_str().len() < 40, "{} is too long", short.display());
        short
    }

    /// A new folder that does not lie on the drive, which everybody may enter.
    pub fn aside(&self, name: &str) -> PathBuf {
        let dir = self.world.path(name);
        fs::create_dir(&dir).unwrap();
        open_to_all(&dir);
        dir
    }

    /// The device whose drive this is.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Adds the faults of this bed to a verdict.
    pub fn settle(&self, verdict: &mut Verdict) {
        if let Err((name, why)) = self.settled() {
            verdict.fail(name, why);
        }
    }

    fn settled(&self) -> Result<(), (&'static str, String)> {
        let now = self.device.daemon();
        if now != Some(self.daemon) {
            return Err(("(daemon died)", format!("it was {}, now it is {now:?}", self.daemon)));
        }
        let before = self.picture().map_err(|why| ("(unreadable)", why))?;
        let said = self.device.run(&["unmount", self.device.dir_str()]);
        if said.code != Some(0) {
            return Err(("(unmount)", format!("{said:?}")));
        }
        let said = self.device.run(&["mount", "-o", OPTIONS, self.device.dir_str()]);
        if said.code != Some(0) {
            return Err(("(mount)", format!("{said:?}")));
        }
        let after = self.picture().map_err(|why| ("(unreadable)", why))?;
        let differences = before.differences(&after);
        if !differences.is_empty() {
            return Err(("(changed by mounting again)", differences.join("; ")));
        }
        println!("{} entries are the same after mounting again", before.len());
        self.healthy().map_err(|why| ("(not healthy)", why))
    }

    fn picture(&self) -> Result<Picture, String> {
        // What is still dirty in the kernel gets its times when it is written.
        let top = fs::File::open(&self.device.dir).map_err(|e| e.to_string())?;
        let sync = || match rustix::fs::syncfs(&top) {
            // Left by a process that was killed while it waited for its pages to be written: the
            // kernel tells the next who syncs, once. The daemon never answers so.
            Err(rustix::io::Errno::INTR) => rustix::fs::syncfs(&top),
            synced => synced,
        };
        sync().map_err(|e| format!("syncfs: {e}"))?;
        Picture::take(&self.device.dir)
    }

    fn healthy(&self) -> Result<(), String> {
        let status = self.device.json(&["status"]);
        let mounted = status["mount"]["dir"].as_str() == Some(self.device.dir_str());
        if !mounted || status["conflicts"] != 0 {
            return Err(status.to_string());
        }
        wait_until("the node is up", || {
            self.device.json(&["status"])["remotes"][0]["health"] == "up"
        });
        let said = self.device.run(&["doctor"]);
        if said.code == Some(0) { Ok(()) } else { Err(format!("{said:?}")) }
    }
}

/// Everybody may enter and read.
pub fn open_to_all(path: &Path) {
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}
