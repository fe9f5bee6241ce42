//! This computer's files as a side of a copy, the mounted drive among them.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rdrivefs_sync::tree::words::{Kind, TimeNs};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

use super::side::{Meta, STEP_BYTES, Side, Sink, Taking, is_kept};
use crate::failure::{Failure, Result};

/// Longest list of the names of a file's extended attributes, as Linux has it.
const XATTR_LIST_BYTES_MAX: usize = 64 << 10;

/// This computer's files.
pub(super) struct Disk;

struct Open {
    file: File,
    path: PathBuf,
}

fn io<E: Into<std::io::Error>>(verb: &str, path: &Path) -> impl FnOnce(E) -> Failure {
    let what = format!("{verb} {}", path.display());
    move |e| Failure::io(what)(e.into())
}

impl Sink for Open {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(io("write", &self.path))
    }

    fn skip(&mut self, len: u64) -> Result<()> {
        let by = i64::try_from(len).expect("a step is small");
        self.file.seek(SeekFrom::Current(by)).map(drop).map_err(io("write", &self.path))
    }

    fn finish(&mut self, durable: bool) -> Result<()> {
        let end = self.file.stream_position().map_err(io("write", &self.path))?;
        self.file.set_len(end).map_err(io("write", &self.path))?;
        match durable {
            true => self.file.sync_all().map_err(io("sync", &self.path)),
            false => Ok(()),
        }
    }
}

impl Side for Disk {
    fn meta(&self, path: &Path) -> Result<Option<Meta>> {
        let meta = match fs::symlink_metadata(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            meta => meta.map_err(io("read", path))?,
        };
        let kind = kind_of(meta.file_type());
        Ok(Some(Meta {
            kind,
            mode: meta.mode() & 0o7777,
            size: meta.len(),
            mtime: TimeNs { secs: meta.mtime(), nanos: meta.mtime_nsec() as u32 },
            uid: meta.uid(),
            gid: meta.gid(),
            links: (meta.nlink() > 1 && kind == Kind::File).then(|| (meta.dev(), meta.ino())),
            xattrs: xattrs(path),
        }))
    }

    fn is_folder(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn names(&self, folder: &Path) -> Result<Vec<OsString>> {
        let entries = fs::read_dir(folder).map_err(io("list", folder))?;
        entries.map(|entry| Ok(entry.map_err(io("list", folder))?.file_name())).collect()
    }

    fn target(&self, link: &Path) -> Result<OsString> {
        Ok(fs::read_link(link).map_err(io("read", link))?.into_os_string())
    }

    fn read(&self, path: &Path, take: Taking<'_>) -> Result<()> {
        let mut file = File::open(path).map_err(io("read", path))?;
        let mut buffer = vec![0; STEP_BYTES];
        loop {
            match file.read(&mut buffer).map_err(io("read", path))? {
                0 => return Ok(()),
                n => take(&buffer[..n])?,
            }
        }
    }

    fn create(&self, path: &Path) -> Result<Box<dyn Sink + '_>> {
        let file = File::create_new(path).map_err(io("write", path))?;
        Ok(Box::new(Open { file, path: path.to_owned() }))
    }

    fn make_folder(&self, path: &Path) -> Result<()> {
        fs::create_dir(path).map_err(io("make", path))
    }

    fn make_symlink(&self, target: &OsString, path: &Path) -> Result<()> {
        std::os::unix::fs::symlink(target, path).map_err(io("make", path))
    }

    fn link(&self, file: &Path, path: &Path) -> Result<()> {
        fs::hard_link(file, path).map_err(io("make", path))
    }

    fn dress(&self, path: &Path, meta: &Meta) -> Result<()> {
        let what = "set the attributes of";
        if rustix::process::geteuid().is_root() {
            let owner = (Some(meta.uid), Some(meta.gid));
            std::os::unix::fs::lchown(path, owner.0, owner.1).map_err(io(what, path))?;
        }
        if meta.kind != Kind::Symlink {
            // Before the mode, which may forbid it; an access list sets what is the mode's too.
            for (name, value) in &meta.xattrs {
                match rustix::fs::lsetxattr(path, name.as_slice(), value, XattrFlags::empty()) {
                    // A filesystem without them still takes the file.
                    Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                    Err(e) => return Err(io(what, path)(e)),
                }
            }
            let mode = Permissions::from_mode(meta.mode);
            fs::set_permissions(path, mode).map_err(io(what, path))?;
        }
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let mtime = Timespec { tv_sec: meta.mtime.secs, tv_nsec: i64::from(meta.mtime.nanos) };
        let times = Timestamps { last_access: omit, last_modification: mtime };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(io(what, path))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(io("write", to))
    }

    fn remove(&self, path: &Path, folder: bool) -> Result<()> {
        let removed = if folder { fs::remove_dir(path) } else { fs::remove_file(path) };
        removed.map_err(io("remove", path))
    }
}

fn kind_of(kind: fs::FileType) -> Kind {
    match kind {
        kind if kind.is_dir() => Kind::Directory,
        kind if kind.is_symlink() => Kind::Symlink,
        kind if kind.is_fifo() => Kind::Fifo,
        kind if kind.is_socket() => Kind::Socket,
        kind if kind.is_char_device() => Kind::CharDevice,
        kind if kind.is_block_device() => Kind::BlockDevice,
        _ => Kind::File,
    }
}

/// The attributes worth keeping; what cannot be read is not there.
fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; XATTR_LIST_BYTES_MAX];
    let Ok(len) = rustix::fs::llistxattr(path, &mut names) else { return Vec::new() };
    let names = names[..len].split(|b| *b == 0).filter(|name| is_kept(name));
    let mut buffer = vec![0; XATTR_LIST_BYTES_MAX];
    let mut kept = Vec::new();
    for name in names {
        if let Ok(len) = rustix::fs::lgetxattr(path, name, &mut buffer) {
            kept.push((name.to_vec(), buffer[..len].to_vec()));
        }
    }
    kept
}
