//! What lies around a drive: settings, keys, modes of files, left-overs, socket, mount and disk.
//!
//! None of it needs the drive to be opened. What is mended here touches no content.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use rdrivefs_sync::home::Home;
use rdrivefs_sync::index::with_ending;
use rdrivefs_sync::keybag::Keybag;
use rdrivefs_sync::report::{Check, CheckState};

use crate::cli::{ask, copy, places, units, unmount};
use crate::mount::{clear_dead, is_dead_mount};

const REPAIR: &str = "`rdrivefs doctor --repair` mends it";

/// A mount that does not answer within this time hangs.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Bits of a mode that let others in.
const OTHERS: u32 = 0o077;

/// Looks at everything around the drive; `served` when a daemon has it.
pub(super) fn look(home: &Home, repair: bool, served: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    checks.extend(config(home));
    checks.extend(keys(home));
    checks.push(modes(home, repair));
    checks.push(mount(home, repair, served));
    if !served {
        checks.extend(socket(home, repair));
        checks.extend(left_overs(home, repair));
    }
    checks.extend(copies(home));
    checks.push(disk(home));
    checks
}

/// The process that holds the drive's lock, as the kernel tells it.
pub(super) fn holder(home: &Home) -> Option<u32> {
    let inode = fs::metadata(home.state_dir().join("lock")).ok()?.ino();
    let table = fs::read_to_string("/proc/locks").ok()?;
    table.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (kind, pid) = (fields.next()?, fields.nth(2)?);
        let place = fields.next()?;
        let own = kind == "FLOCK" && place.ends_with(&format!(":{inode}"));
        own.then(|| pid.parse().ok()).flatten()
    })
}

fn config(home: &Home) -> Option<Check> {
    let error = home.config().err()?;
    let mend = "correct that line; rdrivefs.toml(5) lists every key";
    Some(check("config", CheckState::Damaged, error.to_string(), Some(mend)))
}

/// Keys that cannot be read close the drive for good; nothing else need be looked at then.
fn keys(home: &Home) -> Option<Check> {
    let keys = home.keys_file();
    let mend = "put back a copy of that file; without one come back from the phrase: \
                `rdrivefs init --recover FILE --remote URL` under another RDRIVEFS_HOME";
    let why = match fs::metadata(&keys) {
        Err(e) => format!("{}: {e}", keys.display()),
        Ok(_) => match Keybag::needs_passphrase(&keys) {
            Err(e) if e.is_corrupt() => e.to_string(),
            _ => return None,
        },
    };
    Some(check("keys", CheckState::Damaged, why, Some(mend)))
}

fn modes(home: &Home, repair: bool) -> Check {
    let mut open = Vec::new();
    for path in private(home) {
        let mode = fs::symlink_metadata(&path).map(|meta| meta.permissions().mode());
        if let Ok(mode) = mode.as_ref().map(|mode| mode & 0o777)
            && mode & OTHERS != 0
        {
            let closed = fs::Permissions::from_mode(mode & !OTHERS);
            let failed = repair.then(|| fs::set_permissions(&path, closed).err()).flatten();
            let why = failed.map(|e| format!(": {e}")).unwrap_or_default();
            open.push((format!("{} ({mode:03o}){why}", path.display()), why.is_empty()));
        }
    }
    let what: Vec<&str> = open.iter().map(|(what, _)| what.as_str()).collect();
    let what = format!("others may look into {}", what.join(", "));
    match (open.is_empty(), repair && open.iter().all(|(_, mended)| *mended)) {
        (true, _) => fine("modes", "only you can read what is kept here"),
        (false, true) => check("modes", CheckState::Mended, what, None),
        (false, false) => check("modes", CheckState::Warning, what, Some(REPAIR)),
    }
}

/// What nobody else may read: the drive's directories, and the files with keys or journal in them.
fn private(home: &Home) -> Vec<PathBuf> {
    let mut paths = places::own_directories(home);
    paths.extend([home.keys_file(), home.config_dir().join("device.key"), home.journal_dir()]);
    for dir in [home.state_dir(), home.journal_dir()] {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        paths.extend(entries.map(|entry| entry.path()).filter(|path| path.is_file()));
    }
    paths
}

fn mount(home: &Home, repair: bool, served: bool) -> Check {
    if served {
        return match ask::mounted_on(home) {
            Some(point) if answers(&point) => fine("mount", format!("{} answers", point.display())),
            Some(point) => check(
                "mount",
                CheckState::Damaged,
                format!("{} does not answer", point.display()),
                Some(
                    "`rdrivefs unmount --now`, then mount again; see the log in the state directory",
                ),
            ),
            None => check(
                "mount",
                CheckState::Damaged,
                "the process that has the drive does not answer".into(),
                Some("end that process, then mount again; its log is in the state directory"),
            ),
        };
    }
    let left = unmount::left_on(home).into_iter().chain(places::configured(home));
    let Some(point) = left.into_iter().find(|point| is_dead_mount(point)) else {
        return fine("mount", "not mounted");
    };
    let what = format!("a dead mount lies on {}", point.display());
    if !repair {
        return check("mount", CheckState::Warning, what, Some(REPAIR));
    }
    match clear_dead(&point) {
        Ok(()) => {
            unmount::forget(home);
            check("mount", CheckState::Mended, what, None)
        }
        Err(e) => {
            let mend = format!("`umount -l {}` as root", point.display());
            check("mount", CheckState::Warning, format!("{what}: {e}"), Some(&mend))
        }
    }
}

fn answers(point: &Path) -> bool {
    let (done, waiting) = channel();
    let point = point.to_owned();
    let looking = std::thread::Builder::new().spawn(move || {
        // Nobody may be waiting any more.
        let _gone = done.send(point.is_dir());
    });
    looking.is_ok() && waiting.recv_timeout(ANSWER_WITHIN) == Ok(true)
}

fn socket(home: &Home, repair: bool) -> Option<Check> {
    let socket = home.socket();
    if !socket.exists() {
        return None;
    }
    Some(remove(&[socket], "socket", "a socket nobody listens on is left", repair))
}

/// Files that were half made when a process died. While another process has the drive they may be
/// in the making.
fn left_overs(home: &Home, repair: bool) -> Option<Check> {
    let _lock = home.lock().ok()?;
    let config = home.config_dir();
    let mut left: Vec<PathBuf> = ["keys~", "device.key~"].map(|name| config.join(name)).into();
    let (index, spare) = (home.index_file(), home.spare_dir().join("index"));
    let endings = [".new", ".new-wal", ".new-shm", "-wal~"];
    left.extend([index, spare].iter().flat_map(|of| endings.map(|end| with_ending(of, end))));
    left.retain(|path| path.exists());
    for folder in fs::read_dir(home.cache_dir()).into_iter().flatten().flatten() {
        let files = fs::read_dir(folder.path()).into_iter().flatten().flatten();
        let new = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "new");
        left.extend(files.map(|file| file.path()).filter(new));
    }
    if left.is_empty() {
        return None;
    }
    Some(remove(&left, "left-overs", "files that were never finished are left", repair))
}

fn copies(home: &Home) -> Option<Check> {
    let what = "a put that ended before its time may have left unfinished files in the drive";
    let mend = "the next `rdrivefs put`, `get` or `rm` on this computer removes them";
    copy::any_killed(&home.state_dir())
        .then(|| check("left-overs", CheckState::Warning, what.into(), Some(mend)))
}

fn remove(paths: &[PathBuf], name: &str, what: &str, repair: bool) -> Check {
    let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    let what = format!("{what}: {}", shown.join(", "));
    if !repair {
        return check(name, CheckState::Warning, what, Some(REPAIR));
    }
    match paths.iter().try_for_each(fs::remove_file) {
        Ok(()) => check(name, CheckState::Mended, what, None),
        Err(e) => check(name, CheckState::Warning, format!("{what}: {e}"), Some("remove them")),
    }
}

fn disk(home: &Home) -> Check {
    let reserve = home.config().map_or(0, |config| config.disk_reserve.0);
    let dir = home.state_dir();
    let free = match rustix::fs::statvfs(&dir) {
        Ok(disk) => disk.f_bavail * disk.f_frsize,
        Err(e) => {
            let what = format!("{}: {e}", dir.display());
            return check("disk", CheckState::Warning, what, Some("see that it is there"));
        }
    };
    let what = format!("{} free on the disk of {}", units::bytes(free), dir.display());
    if free >= reserve {
        return fine("disk", what);
    }
    let what = format!("{what}, less than the {} kept free", units::bytes(reserve));
    let mend = "free some space, or `rdrivefs evict --free SIZE`";
    check("disk", CheckState::Warning, what, Some(mend))
}

fn fine(name: &str, detail: impl Into<String>) -> Check {
    check(name, CheckState::Fine, detail.into(), None)
}

fn check(name: &str, state: CheckState, detail: String, mend: Option<&str>) -> Check {
    Check { name: name.into(), state, detail, mend: mend.map(str::to_owned) }
}
