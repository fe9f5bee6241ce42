//! Logs in a directory: one file per entry, so that a crash leaves an entry whole or not at all.
//!
//! ```text
//! DIR/m-AUTHOR-INSTANCE/0000000000000001   an entry of a membership log, its number in hex
//! DIR/c-AUTHOR-INSTANCE/…                  of a commit log
//! DIR/tmp/…                                what is still arriving; emptied at open
//! ```
//!
//! Must: an entry's name appears only after its bytes are synced, and its head is told to others
//! only after the directory is synced too. The files are the truth; memory holds the heads alone.
//! One process opens a directory at a time; the caller sees to that.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use crate::entry::{ENTRY_BYTES_MAX, Entry, LogId, LogKind};
use crate::error::{Error, Result};
use crate::identity::{DriveId, PublicKey};
use crate::logs::{Head, Logs, READ_BYTES_MAX, checked, watched};
use crate::thread::on_a_thread;

/// Directory of what is still arriving.
const ARRIVING: &str = "tmp";

/// Keeps logs in files.
pub struct DirectoryLogs {
    drive: DriveId,
    disk: Arc<Disk>,
}

struct Disk {
    root: PathBuf,
    /// Durable heads; held for moments, and taken after `writing` where both are.
    heads: Mutex<BTreeMap<LogId, Head>>,
    /// Held over the whole of an append, its syncs included.
    writing: Mutex<()>,
    changed: Notify,
}

impl DirectoryLogs {
    /// Opens the logs of `drive` in `dir`, making it if need be. Blocks: it reads every head.
    ///
    /// # Errors
    /// [`Error::Io`] when the directory cannot be read or written, and for a log whose newest
    /// entry is damaged, with the file's name.
    pub fn open(dir: &Path, drive: DriveId) -> Result<Self> {
        let arriving = dir.join(ARRIVING);
        fs::create_dir_all(&arriving).map_err(at("making", &arriving))?;
        for leftover in entries(&arriving)? {
            fs::remove_file(&leftover).map_err(at("removing", &leftover))?;
        }
        // What an earlier process renamed but did not live to sync becomes durable here.
        let root = File::open(dir).map_err(at("opening", dir))?;
        rustix::fs::syncfs(&root).map_err(|e| at("syncing", dir)(e.into()))?;
        let mut heads = BTreeMap::new();
        let newest: BTreeMap<LogId, u64> = stored(dir)?.into_iter().collect();
        for (log, number) in newest {
            heads.insert(log, read_entry(dir, &drive, &log, number)?.head());
        }
        let disk = Disk {
            root: dir.to_owned(),
            heads: Mutex::new(heads),
            writing: Mutex::new(()),
            changed: Notify::new(),
        };
        Ok(Self { drive, disk: Arc::new(disk) })
    }

    /// How many logs have entries.
    pub fn count(&self) -> usize {
        self.disk.heads().len()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let disk = self.disk.clone();
        on_a_thread(move || work(&disk)).await
    }
}

#[async_trait]
impl Logs for DirectoryLogs {
    async fn append(&self, entry: Bytes) -> Result<()> {
        let drive = self.drive;
        self.blocking(move |disk| disk.append(&drive, &checked(&drive, entry)?)).await
    }

    async fn read(&self, log: LogId, from: u64, bytes_max: u64) -> Result<Vec<Bytes>> {
        let drive = self.drive;
        self.blocking(move |disk| disk.read(&drive, &log, from, bytes_max)).await
    }

    async fn heads(&self) -> Result<Vec<Head>> {
        Ok(self.disk.all_heads())
    }

    async fn watch(&self, seen: Vec<Head>, timeout_ms: u64) -> Result<Vec<Head>> {
        Ok(watched(&self.disk.changed, || self.disk.all_heads(), seen, timeout_ms).await)
    }
}

impl Disk {
    fn heads(&self) -> MutexGuard<'_, BTreeMap<LogId, Head>> {
        self.heads.lock().expect("no panic while the lock is held")
    }

    fn all_heads(&self) -> Vec<Head> {
        self.heads().values().copied().collect()
    }

    fn head(&self, log: &LogId) -> Head {
        self.heads().get(log).copied().unwrap_or(Head::empty(*log))
    }

    fn append(&self, drive: &DriveId, entry: &Entry) -> Result<()> {
        let _turn = self.writing.lock().expect("no panic while the lock is held");
        let head = self.head(&entry.log);
        if entry.number <= head.number {
            let there = read_entry(&self.root, drive, &entry.log, entry.number)?;
            let (expected, got) = (head.number + 1, entry.number);
            return if there == *entry {
                Ok(())
            } else {
                Err(Error::LogConflict { expected, got })
            };
        }
        entry.follows(&head)?;
        self.write(entry)?;
        self.heads().insert(entry.log, entry.head());
        self.changed.notify_waiters();
        Ok(())
    }

    /// Makes the entry durable; the caller holds `writing`.
    fn write(&self, entry: &Entry) -> Result<()> {
        let path = entry_path(&self.root, &entry.log, entry.number);
        let dir = parent(&path);
        let arriving = self.root.join(ARRIVING).join("entry");
        let written = File::create(&arriving).and_then(|mut file| {
            file.write_all(&entry.encode())?;
            file.sync_data()
        });
        written.map_err(at("writing", &arriving))?;
        if !dir.is_dir() {
            fs::create_dir(dir).map_err(at("making", dir))?;
            sync_dir(&self.root)?;
        }
        fs::rename(&arriving, &path).map_err(at("renaming", &arriving))?;
        sync_dir(dir)
    }

    fn read(&self, drive: &DriveId, log: &LogId, from: u64, bytes_max: u64) -> Result<Vec<Bytes>> {
        let mut left = bytes_max.min(READ_BYTES_MAX);
        let mut out = Vec::new();
        for number in from.max(1)..=self.head(log).number {
            if !out.is_empty() && self.entry_len(log, number)? > left {
                break;
            }
            let bytes = read_entry(&self.root, drive, log, number)?.encode();
            left = left.saturating_sub(bytes.len() as u64);
            out.push(bytes);
        }
        Ok(out)
    }

    fn entry_len(&self, log: &LogId, number: u64) -> Result<u64> {
        let path = entry_path(&self.root, log, number);
        fs::metadata(&path).map(|meta| meta.len()).map_err(at("reading", &path))
    }
}

/// Every entry that lies in `dir`, by log and number, in order.
pub(crate) fn stored(dir: &Path) -> Result<Vec<(LogId, u64)>> {
    let mut found = Vec::new();
    for path in entries(dir)? {
        let Some(log) = log_of(&path) else { continue };
        found.extend(entries(&path)?.iter().filter_map(|p| number_of(p)).map(|n| (log, n)));
    }
    found.sort_unstable();
    Ok(found)
}

/// An entry as it was appended; anything else in its place is damage, told with the file's name.
pub(crate) fn read_entry(root: &Path, drive: &DriveId, log: &LogId, number: u64) -> Result<Entry> {
    let path = entry_path(root, log, number);
    let len = fs::metadata(&path).map_err(at("reading", &path))?.len();
    let damaged = |why: String| at("reading", &path)(io::Error::new(ErrorKind::InvalidData, why));
    if len > ENTRY_BYTES_MAX as u64 {
        return Err(damaged("longer than an entry".to_owned()));
    }
    let bytes = fs::read(&path).map_err(at("reading", &path))?;
    let entry = checked(drive, bytes.into()).map_err(|e| damaged(e.to_string()))?;
    if entry.log != *log || entry.number != number {
        return Err(damaged("an entry of another place".to_owned()));
    }
    Ok(entry)
}

pub(crate) fn entry_path(root: &Path, log: &LogId, number: u64) -> PathBuf {
    let kind = match log.kind {
        LogKind::Membership => 'm',
        LogKind::Commits => 'c',
    };
    let name = format!("{kind}-{}-{}", log.author, log.instance);
    root.join(name).join(format!("{number:016x}"))
}

/// The log a directory holds; none for a name that this module would not give.
fn log_of(path: &Path) -> Option<LogId> {
    let name = path.file_name()?.to_str()?;
    let mut parts = name.split('-');
    let kind = match parts.next()? {
        "m" => LogKind::Membership,
        "c" => LogKind::Commits,
        _ => return None,
    };
    let mut author = [0; 32];
    hex::decode_to_slice(parts.next()?, &mut author).ok()?;
    let log = LogId { kind, author: PublicKey(author), instance: parts.next()?.parse().ok()? };
    (parent(&entry_path(Path::new(""), &log, 1)) == Path::new(name)).then_some(log)
}

fn number_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let number = u64::from_str_radix(name, 16).ok()?;
    (number > 0 && name == format!("{number:016x}")).then_some(number)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(dir).and_then(|all| all.map(|e| e.map(|e| e.path())).collect());
    listed.map_err(at("listing", dir))
}

fn parent(path: &Path) -> &Path {
    path.parent().expect("every entry lies in its log's directory")
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at("syncing", dir))
}

fn at(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    Error::disk(format!("{doing} {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::conformance::{self, author, chain, drive};

    fn opened() -> (tempfile::TempDir, DirectoryLogs) {
        let dir = tempfile::tempdir().unwrap();
        let logs = DirectoryLogs::open(dir.path(), drive()).unwrap();
        (dir, logs)
    }

    #[tokio::test]
    async fn conforms() {
        conformance::run(&opened().1).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn conforms_on_several_threads() {
        conformance::run(&opened().1).await;
    }

    #[tokio::test]
    async fn what_was_appended_is_there_after_reopening() {
        let (dir, logs) = opened();
        let chain = chain(&author(1), LogKind::Commits, 3);
        for entry in &chain[..2] {
            logs.append(entry.encode()).await.unwrap();
        }
        drop(logs);
        let logs = DirectoryLogs::open(dir.path(), drive()).unwrap();
        assert_eq!(logs.heads().await.unwrap(), [chain[1].head()]);
        logs.append(chain[1].encode()).await.unwrap();
        logs.append(chain[2].encode()).await.unwrap();
        assert_eq!(logs.read(chain[0].log, 1, 1 << 20).await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn what_never_arrived_whole_is_forgotten() {
        let (dir, logs) = opened();
        let chain = chain(&author(1), LogKind::Commits, 2);
        logs.append(chain[0].encode()).await.unwrap();
        let half = &chain[1].encode()[..100];
        fs::write(dir.path().join(ARRIVING).join("entry"), half).unwrap();
        let logs = DirectoryLogs::open(dir.path(), drive()).unwrap();
        assert_eq!(logs.heads().await.unwrap(), [chain[0].head()]);
        assert_eq!(fs::read_dir(dir.path().join(ARRIVING)).unwrap().count(), 0);
        logs.append(chain[1].encode()).await.unwrap();
    }

    #[tokio::test]
    async fn damage_is_named_and_never_shown() {
        let (dir, logs) = opened();
        let chain = chain(&author(1), LogKind::Commits, 3);
        for entry in &chain {
            logs.append(entry.encode()).await.unwrap();
        }
        let path = entry_path(dir.path(), &chain[1].log, 2);
        let good = fs::read(&path).unwrap();
        let (mut flipped, mut long) = (good.clone(), good.clone());
        flipped[200] ^= 1;
        long.push(0);
        let other = chain[0].encode().to_vec();
        let huge = vec![0; ENTRY_BYTES_MAX + 1];
        for bad in [flipped, long, good[..90].to_vec(), other, huge] {
            fs::write(&path, bad).unwrap();
            let said = logs.read(chain[1].log, 2, 1 << 20).await.unwrap_err().to_string();
            assert!(said.contains("0000000000000002"), "{said}");
        }
        fs::remove_file(&path).unwrap();
        assert!(logs.read(chain[1].log, 1, 1 << 20).await.is_err(), "a gap is damage");
        fs::remove_file(entry_path(dir.path(), &chain[1].log, 3)).unwrap();
        fs::write(&path, b"rot").unwrap();
        let said = DirectoryLogs::open(dir.path(), drive()).err().unwrap().to_string();
        assert!(said.contains("0000000000000002"), "{said}");
    }

    #[test]
    fn only_names_of_its_own_making_are_read() {
        let log = chain(&author(1), LogKind::Membership, 1)[0].log;
        let path = entry_path(Path::new("/x"), &log, 255);
        assert_eq!(log_of(path.parent().unwrap()), Some(log));
        assert_eq!(number_of(&path), Some(255));
        let name = path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        for bad in [name.to_uppercase(), name.replace("-0", "-00"), format!("{name}-1")] {
            assert_eq!(log_of(Path::new(&bad)), None, "{bad}");
        }
        for bad in ["ff", "00000000000000FF", "0000000000000000", "+0000000000000ff", "x"] {
            assert_eq!(number_of(Path::new(bad)), None, "{bad}");
        }
    }
}
