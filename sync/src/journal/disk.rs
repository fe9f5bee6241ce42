//! The file operations the journal is made of, and the real ones.
//!
//! Narrow on purpose: a test or the simulation stands in for it with a disk that dies, loses what
//! was not synced, or refuses. Names are flat; there is one directory.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory of files.
pub trait Disk: Send + Sync {
    /// Makes a new, empty file; fails if there is one of that name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file that exists.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name, replacing what stood there.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Takes a name away.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names there are, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes names durable: what was created, renamed, removed before.
    fn sync_dir(&self) -> io::Result<()>;
    /// Bytes that can still be written.
    fn free_space(&self) -> io::Result<u64>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Writes all of `bytes`, growing the file as needed.
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// Reads up to the length of `out`; less only at the end of the file.
    fn read_at(&self, at: u64, out: &mut [u8]) -> io::Result<usize>;
    /// Makes what was written durable. After an error nothing is known, and asking again proves
    /// nothing.
    fn datasync(&self) -> io::Result<()>;
    /// The file's length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Gives the file exactly this length, with room on the disk for all of it.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A directory of the operating system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    handle: File,
}

impl Directory {
    /// The directory at `path`, which must exist.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), handle: File::open(path)? })
    }

    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        options
    }
}

impl Disk for Directory {
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Self::options().create_new(true).open(self.path.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Self::options().open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.file_name()));
        let names: io::Result<Vec<_>> = names.collect();
        // A name that is not UTF-8 is none of ours.
        Ok(names?.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn free_space(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.handle)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

impl DiskFile for File {
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn read_at(&self, mut at: u64, mut out: &mut [u8]) -> io::Result<usize> {
        let mut total = 0;
        while !out.is_empty() {
            match FileExt::read_at(self, out, at) {
                Ok(0) => break,
                Ok(n) => {
                    total += n;
                    at += n as u64;
                    out = &mut out[n..];
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(total)
    }

    fn datasync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)?;
        if len > 0 {
            rustix::fs::fallocate(self, rustix::fs::FallocateFlags::empty(), 0, len)?;
        }
        Ok(())
    }
}
