//! The kernel's side of a mount: the connection that requests wait in, and the way to break it off.
//!
//! Who waits for a mount that nobody serves any more waits for good, and cannot be killed, as long
//! as the connection stands: a thread that dies while the kernel has it wait for its own mount keeps
//! the device open. Broken off, everything that waits gets an error, and so does what comes later.
//!
//! Must: never break off another mount that came later and got the same number. So the kernel's
//! switch is opened while the mount lives; it belongs to that connection alone. Where it cannot be
//! opened, the folder is forced off, if the table of mounts still says that it is this mount.

use std::ffi::CStr;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags};

use super::attach::{KIND, detach};
use super::point;

/// Where the kernel has its switches, once it is asked to show them.
const SWITCHES: &str = "/sys/fs/fuse/connections";

/// The connection of one mount.
pub(super) struct Connection {
    point: PathBuf,
    minor: u32,
    switch: Option<File>,
}

impl Connection {
    /// That of the mount which lies on `point` now.
    pub(super) fn of(point: &Path) -> Option<Self> {
        let (kind, minor) = point::mounted_as(point).ok()??;
        (kind == KIND).then(|| Self::numbered(minor, point))
    }

    /// That of a mount that lives and whose device number is known.
    pub(super) fn numbered(minor: u32, point: &Path) -> Self {
        let path = Path::new(SWITCHES).join(minor.to_string()).join("abort");
        if !path.exists() {
            // Only root may, and only root has to: elsewhere the system has done it.
            let (kind, flags) = ("fusectl", MountFlags::empty());
            let _shown = rustix::mount::mount(kind, SWITCHES, kind, flags, None::<&CStr>);
        }
        let switch = File::options().write(true).open(&path);
        if let Err(error) = &switch {
            tracing::debug!(%error, path = %path.display(), "no switch for this mount");
        }
        Self { point: point.to_owned(), minor, switch: switch.ok() }
    }

    /// The device number of the mount, by which others find it.
    pub(super) fn minor(&self) -> u32 {
        self.minor
    }

    /// Breaks it off. Nothing happens if it has ended by itself.
    pub(super) fn give_up(&self) {
        let Some(mut switch) = self.switch.as_ref() else { return self.force() };
        if let Err(error) = switch.write_all(b"1") {
            tracing::warn!(%error, "the kernel's switch does not work");
            self.force();
        }
    }

    fn force(&self) {
        let here = point::mounted_as(&self.point).ok().flatten();
        if here != Some((KIND.to_owned(), self.minor)) {
            return;
        }
        let flags = UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
        if rustix::mount::unmount(&self.point, flags).is_err()
            && let Err(error) = detach(&self.point, true)
        {
            tracing::warn!(%error, "a mount that nobody serves stays");
        }
    }
}
