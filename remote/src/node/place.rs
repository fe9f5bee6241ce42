//! The store directory: its layout, its lock, the node's key, and how files in it are replaced.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use zeroize::Zeroizing;

use crate::env::Env;
use crate::error::{Error, Result};
use crate::identity::{DriveId, SecretKey};

/// The version of the directory's layout.
const FORMAT: u64 = 1;
/// What the format file begins with.
const FORMAT_WORDS: &str = "rdrivefs-node store ";

/// A store directory that exists and has a layout we know.
#[derive(Debug, Clone)]
pub struct Place {
    root: PathBuf,
}

/// Held while a node runs on the directory.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Place {
    /// The directory at `root`, made if it is not there.
    ///
    /// # Errors
    /// [`Error::UnknownVersion`] for a layout of another version; [`Error::Io`].
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let place = Self { root: root.into() };
        let fresh = !place.root.join("format").exists();
        for dir in [place.root.clone(), place.spaces(), place.authorized(), place.invites()] {
            if dir.is_dir() {
                continue;
            }
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
            made.map_err(Error::io(format!("making {}", dir.display())))?;
            place.hand_over(&File::open(&dir).map_err(Error::io("opening the store"))?)?;
        }
        if fresh {
            place.write("format", format!("{FORMAT_WORDS}{FORMAT}\n").as_bytes())?;
        }
        place.check_format()?;
        Ok(place)
    }

    /// Takes the directory for one node.
    ///
    /// # Errors
    /// [`Error::Io`] with `ResourceBusy` when another node has it.
    pub fn lock(&self) -> Result<Lock> {
        let path = self.root.join("lock");
        let what = || format!("locking the store {}", self.root.display());
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(&path).map_err(Error::io(what()))?;
        self.hand_over(&file)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(Error::io(what())(std::io::ErrorKind::ResourceBusy.into()))
            }
            Err(errno) => Err(Error::io(what())(errno.into())),
        }
    }

    /// Whether a node runs on the directory now.
    pub fn is_locked(&self) -> bool {
        matches!(self.lock(), Err(Error::Io { source, .. })
            if source.kind() == std::io::ErrorKind::ResourceBusy)
    }

    /// The node's key, made the first time.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the file is not a key or others may read it.
    pub fn key(&self, env: &Env) -> Result<SecretKey> {
        let path = self.root.join("node.key");
        if !path.exists() {
            let fresh = SecretKey::generate(env);
            let text = Zeroizing::new(format!("{}\n", hex::encode(fresh.seed())));
            self.write_new("node.key", text.as_bytes())?;
        }
        let io = || Error::io(format!("reading {}", path.display()));
        let mode = fs::metadata(&path).map_err(io())?.permissions().mode();
        if mode & 0o077 != 0 {
            let why = format!("{} must be mode 0600, it is {:04o}", path.display(), mode & 0o7777);
            return Err(Error::malformed("node key", why));
        }
        let text = Zeroizing::new(fs::read(&path).map_err(io())?);
        let mut seed = Zeroizing::new([0; 32]);
        let digits = text.strip_suffix(b"\n").unwrap_or(&text);
        hex::decode_to_slice(digits, &mut *seed)
            .map_err(|_| Error::malformed("node key", "not 64 hexadecimal digits"))?;
        Ok(SecretKey::from_seed(*seed))
    }

    /// Replaces a file whole, durably.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.root.join(name);
        let temp = self.temp(&path, bytes)?;
        let io = || Error::io(format!("replacing {}", path.display()));
        fs::rename(&temp, &path).map_err(io())?;
        sync_parent(&path)
    }

    /// Removes a file, durably; tells whether it was there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(&self, name: &str) -> Result<bool> {
        let path = self.root.join(name);
        match fs::remove_file(&path) {
            Ok(()) => sync_parent(&path).map(|()| true),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io(format!("removing {}", path.display()))(e)),
        }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where drives lie.
    pub fn spaces(&self) -> PathBuf {
        self.root.join("spaces")
    }

    /// Where one drive lies.
    pub fn space(&self, drive: &DriveId) -> PathBuf {
        self.spaces().join(drive.to_string())
    }

    /// Where authorisations lie.
    pub fn authorized(&self) -> PathBuf {
        self.root.join("authorized_keys")
    }

    /// Where invites lie.
    pub fn invites(&self) -> PathBuf {
        self.root.join("invites")
    }

    /// Where the node answers questions about itself.
    pub fn socket(&self) -> PathBuf {
        self.root.join("node.sock")
    }

    /// The URL of the node that runs or ran last.
    pub fn url(&self) -> Option<String> {
        let url = fs::read_to_string(self.root.join("listen")).ok()?;
        Some(url.trim().to_owned())
    }

    fn check_format(&self) -> Result<()> {
        let path = self.root.join("format");
        let text = fs::read_to_string(&path);
        let text = text.map_err(Error::io(format!("reading {}", path.display())))?;
        let number = text.strip_prefix(FORMAT_WORDS).and_then(|n| n.trim_end().parse().ok());
        match number {
            Some(FORMAT) => Ok(()),
            Some(version) => Err(Error::UnknownVersion { what: "the store's layout", version }),
            None => Err(Error::malformed("store", format!("{} is not ours", path.display()))),
        }
    }

    /// Writes a file unless it is there already; of several writers at a time one wins.
    fn write_new(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.root.join(name);
        let temp = self.temp(&path, bytes)?;
        let linked = fs::hard_link(&temp, &path);
        fs::remove_file(&temp).map_err(Error::io(format!("removing {}", temp.display())))?;
        match linked {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(Error::io(format!("making {}", path.display()))(e))
            }
            _ => sync_parent(&path),
        }
    }

    /// A durable file beside `path`, of a name nobody takes for an entry.
    fn temp(&self, path: &Path, bytes: &[u8]) -> Result<PathBuf> {
        let name = path.file_name().expect("files have names").to_string_lossy();
        let temp = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
        let io = || Error::io(format!("writing {}", temp.display()));
        let mut options = OpenOptions::new();
        let mut file =
            options.create(true).write(true).truncate(true).mode(0o600).open(&temp).map_err(io())?;
        self.hand_over(&file)?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        if written.is_err() {
            // It may be room that is missing.
            drop(fs::remove_file(&temp));
        }
        written.map_err(io())?;
        Ok(temp)
    }

    /// Gives what root made to the owner of the store: a node that runs as a user of its own could
    /// not read it.
    fn hand_over(&self, made: &File) -> Result<()> {
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        let io = || Error::io(format!("giving files to the owner of {}", self.root.display()));
        let owner = fs::metadata(&self.root).map_err(io())?;
        std::os::unix::fs::fchown(made, Some(owner.uid()), Some(owner.gid())).map_err(io())
    }
}

fn sync_parent(path: &Path) -> Result<()> {
    let parent = path.parent().expect("files lie in directories");
    let synced = File::open(parent).and_then(|dir| dir.sync_all());
    synced.map_err(Error::io(format!("making {} durable", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path()).unwrap();
        let key = place.key(&Env::real()).unwrap().public();
        assert_eq!(place.key(&Env::real()).unwrap().public(), key);
        let path = dir.path().join("node.key");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(place.key(&Env::real()).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "zz").unwrap();
        assert!(place.key(&Env::real()).is_err());
    }

    #[test]
    fn what_root_makes_belongs_to_the_owner_of_the_store() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root makes files for others");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(4711), Some(4712)).unwrap();
        let place = Place::open(dir.path()).unwrap();
        place.key(&Env::real()).unwrap();
        assert!(!place.is_locked());
        place.write("invites/x.toml", b"").unwrap();
        for name in ["format", "node.key", "lock", "invites", "invites/x.toml", "spaces"] {
            let meta = fs::metadata(dir.path().join(name)).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (4711, 4712), "{name}");
        }
    }

    #[test]
    fn one_node_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path()).unwrap();
        assert!(!place.is_locked());
        let lock = place.lock().unwrap();
        assert!(place.is_locked());
        assert!(Place::open(dir.path()).unwrap().lock().is_err());
        drop(lock);
        place.lock().unwrap();
    }

    #[test]
    fn a_layout_of_another_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path()).unwrap();
        place.write("format", b"rdrivefs-node store 2\n").unwrap();
        let error = Place::open(dir.path()).unwrap_err();
        assert!(matches!(error, Error::UnknownVersion { version: 2, .. }));
        place.write("format", b"something else\n").unwrap();
        assert!(Place::open(dir.path()).is_err());
    }
}
