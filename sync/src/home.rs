//! Where a device keeps what: directories, the lock on a drive, and replacing a file durably.
//!
//! ```text
//! CONFIG/NAME/   rdrivefs.toml  keys  device.key      what makes the drive this device's
//! STATE/NAME/    lock  index…  spare/  journal/        what must not be lost
//! CACHE/NAME/    layers                               what can be fetched again
//! RUN/NAME/      socket                               what dies with the process
//! ```
//!
//! The four roots are the platform's, found by the floor above, or `config`, `state`, `cache` and
//! `run` under `RDRIVEFS_HOME`. All directories are 0700, all files 0600. One process at a time
//! holds a drive: a lock of the kernel's, gone with the process, so no stale lock is ever left.
//!
//! What stands inside the files belongs to the modules that write them.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, Result};

mod config;
mod disk;

pub use config::{Confidence, Config, Mount, Network, Size, Verify};
pub use disk::DiskSpace;

/// Longest name of a drive: a part of paths, the socket's among them, which may have 107 bytes.
pub const DRIVE_NAME_BYTES_MAX: usize = 32;

const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The four directories under which every drive of this device has one of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// Configuration and keys.
    pub config: PathBuf,
    /// Index and journal.
    pub state: PathBuf,
    /// Layers kept locally.
    pub cache: PathBuf,
    /// Sockets.
    pub run: PathBuf,
}

/// The directories of one drive on this device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    name: String,
    roots: Roots,
}

/// Proof that no other process works on the drive, for as long as it lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Roots {
    /// The roots when `RDRIVEFS_HOME` says where everything goes.
    pub fn under(home: &Path) -> Self {
        let [config, state, cache, run] =
            ["config", "state", "cache", "run"].map(|part| home.join(part));
        Self { config, state, cache, run }
    }

    /// The names of the drives this device has, in order.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn drives(&self) -> Result<Vec<String>> {
        let what = || format!("listing {}", self.config.display());
        let entries = match fs::read_dir(&self.config) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(Error::io(what()))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::io(what()))?.file_name().into_string();
            let home = name.ok().and_then(|name| self.home(&name).ok());
            names.extend(home.filter(Home::has_drive).map(|home| home.name));
        }
        names.sort();
        Ok(names)
    }

    /// The home of a drive, there or not.
    ///
    /// # Errors
    /// [`Error::Refused`] for a name that is none: 1 to 32 letters, digits, `-`, `_` or `.`, not
    /// beginning with `.`.
    pub fn home(&self, name: &str) -> Result<Home> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        let fits = !name.is_empty() && name.len() <= DRIVE_NAME_BYTES_MAX;
        if !fits || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(Error::Refused(format!("\"{name}\" cannot be the name of a drive")));
        }
        Ok(Home { name: name.to_owned(), roots: self.clone() })
    }
}

impl Home {
    /// What the drive is called on this device.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where configuration and keys lie.
    pub fn config_dir(&self) -> PathBuf {
        self.roots.config.join(&self.name)
    }

    /// Where index and journal lie.
    pub fn state_dir(&self) -> PathBuf {
        self.roots.state.join(&self.name)
    }

    /// Where layers lie.
    pub fn cache_dir(&self) -> PathBuf {
        self.roots.cache.join(&self.name)
    }

    /// Where the socket lies.
    pub fn run_dir(&self) -> PathBuf {
        self.roots.run.join(&self.name)
    }

    /// The keybag.
    pub fn keys_file(&self) -> PathBuf {
        self.config_dir().join("keys")
    }

    /// The journal's directory.
    pub fn journal_dir(&self) -> PathBuf {
        self.state_dir().join("journal")
    }

    /// The index database.
    pub fn index_file(&self) -> PathBuf {
        self.state_dir().join("index")
    }

    /// Where the spare of the index lies.
    pub fn spare_dir(&self) -> PathBuf {
        self.state_dir().join("spare")
    }

    /// What it takes to ask the remotes without an index.
    pub fn remotes_file(&self) -> PathBuf {
        self.spare_dir().join("remotes")
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.run_dir().join("socket")
    }

    /// The configuration.
    pub fn config_file(&self) -> PathBuf {
        self.config_dir().join("rdrivefs.toml")
    }

    /// Whether there is a drive here.
    pub fn has_drive(&self) -> bool {
        self.keys_file().exists()
    }

    /// Makes the directories that are missing, and none of them readable to others.
    ///
    /// # Errors
    /// [`Error::Io`] naming the directory.
    pub fn make(&self) -> Result<()> {
        let dirs = [self.config_dir(), self.state_dir(), self.cache_dir(), self.run_dir()];
        dirs.iter().try_for_each(|dir| make_directory(dir))
    }

    /// Takes the drive for this process.
    ///
    /// # Errors
    /// [`Error::InUse`] while another process, or another part of this one, has it.
    pub fn lock(&self) -> Result<Lock> {
        make_directory(&self.state_dir())?;
        let path = self.state_dir().join("lock");
        let what = format!("locking {}", path.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let file = options.open(&path).map_err(Error::io(&what))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(Error::InUse(self.state_dir().display().to_string()))
            }
            Err(e) => Err(Error::io(what)(e.into())),
        }
    }

    /// Reads the configuration; every default where there is none.
    ///
    /// # Errors
    /// [`Error::Config`] naming the line.
    pub fn config(&self) -> Result<Config> {
        let path = self.config_file();
        match fs::read_to_string(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Config::default()),
            text => {
                let text = text.map_err(Error::io(format!("reading {}", path.display())))?;
                Config::parse(&path.display().to_string(), &text)
            }
        }
    }
}

/// Makes a directory and those above it, its own mode 0700 whatever it was.
pub(crate) fn make_directory(dir: &Path) -> Result<()> {
    let what = format!("making {}", dir.display());
    let made = DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(dir);
    made.map_err(Error::io(&what))?;
    let mode = fs::metadata(dir).map_err(Error::io(&what))?.permissions().mode();
    if mode & 0o777 != DIRECTORY_MODE {
        let private = Permissions::from_mode(DIRECTORY_MODE);
        fs::set_permissions(dir, private).map_err(Error::io(what))?;
    }
    Ok(())
}

/// Puts `bytes` into the file at `path`: after a crash it holds the old bytes or the new, and once
/// this returns the new. One process at a time.
///
/// # Errors
/// [`Error::Io`] naming the file; it is as it was then.
pub fn replace_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let what = format!("writing {}", path.display());
    let mut name = path.file_name().expect("a file of ours has a name").to_owned();
    name.push("~");
    let temp = path.with_file_name(name);
    let written = write_new(&temp, bytes).and_then(|()| fs::rename(&temp, path));
    if written.is_err() {
        // The temporary file is worthless; that it may stay behind changes nothing.
        let _ = fs::remove_file(&temp);
    }
    written.and_then(|()| sync_parent(path)).map_err(Error::io(what))
}

/// Removes a file so that it stays removed; one that is not there is no error.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn remove_file(path: &Path) -> Result<()> {
    let what = format!("removing {}", path.display());
    match fs::remove_file(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| sync_parent(path)).map_err(Error::io(what)),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Err(e) = fs::remove_file(path)
        && e.kind() != ErrorKind::NotFound
    {
        return Err(e);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    File::open(path.parent().expect("a file of ours lies in a directory"))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn directories_are_private_even_if_they_were_not() {
        let dir = tempfile::tempdir().unwrap();
        let home = Roots::under(dir.path()).home("work").unwrap();
        fs::create_dir_all(home.cache_dir()).unwrap();
        fs::set_permissions(home.cache_dir(), Permissions::from_mode(0o755)).unwrap();
        home.make().unwrap();
        for dir in [home.config_dir(), home.state_dir(), home.cache_dir(), home.run_dir()] {
            assert_eq!(mode(&dir), 0o700, "{}", dir.display());
        }
    }

    #[test]
    fn names_stay_inside_their_root() {
        let roots = Roots::under(Path::new("/nowhere"));
        assert!(roots.home("default").is_ok());
        for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ä", &"x".repeat(33)] {
            assert!(roots.home(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn drives_are_those_with_keys() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::under(dir.path());
        assert_eq!(roots.drives().unwrap(), Vec::<String>::new());
        for name in ["b", "a", "empty"] {
            roots.home(name).unwrap().make().unwrap();
        }
        for name in ["b", "a"] {
            replace_file(&roots.home(name).unwrap().keys_file(), b"x").unwrap();
        }
        assert_eq!(roots.drives().unwrap(), ["a", "b"]);
    }

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::under(dir.path());
        let (home, other) = (roots.home("a").unwrap(), roots.home("b").unwrap());
        let lock = home.lock().unwrap();
        assert!(matches!(home.lock(), Err(Error::InUse(_))));
        let _other = other.lock().unwrap();
        drop(lock);
        let _again = home.lock().unwrap();
    }

    /// The lock is the kernel's: another process meets it, and killing its holder frees it.
    #[test]
    fn a_killed_holder_leaves_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let home = Roots::under(dir.path()).home("a").unwrap();
        home.make().unwrap();
        let path = home.state_dir().join("lock");
        let script = "exec 9>\"$0\" && flock -n 9 && echo held && exec sleep 60 9>&9";
        let mut holder = Command::new("sh")
            .args(["-c", script])
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = std::io::BufReader::new(holder.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        assert_eq!(line, "held\n", "flock(1) of util-linux takes the lock");
        assert!(matches!(home.lock(), Err(Error::InUse(_))));
        holder.kill().unwrap();
        holder.wait().unwrap();
        home.lock().unwrap();
    }

    #[test]
    fn a_file_is_replaced_whole_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        fs::write(dir.path().join("keys~"), b"left by a crash").unwrap();
        replace_file(&path, b"one").unwrap();
        replace_file(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        remove_file(&path).unwrap();
        remove_file(&path).unwrap();
        assert!(replace_file(&dir.path().join("no/keys"), b"x").is_err());
    }
}
