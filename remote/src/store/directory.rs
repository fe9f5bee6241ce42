//! A store in a directory: one file per blob, its outboard beside it.
//!
//! ```text
//! DIR/ab/cd/abcd…        the blob, named by its id
//! DIR/ab/cd/abcd….obao4  its outboard
//! DIR/tmp/…              what is still arriving; emptied when the store is opened
//! ```
//!
//! Must: a blob's name appears only after its bytes and its outboard were checked and synced, and
//! `has` denies it until the directory is synced too; so what was admitted survives a power cut.
//! The outboard is renamed into place first and removed last: a blob that is there has one, and
//! one that was lost all the same is computed again. Putting what is there replaces it, which
//! heals a file that rotted. One process opens a directory at a time; the caller sees to that.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::Semaphore;

use crate::blob::{BLOB_BYTES_MAX, BlobId};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::foreground;
use crate::proof::{Hasher, Outboard, prove_encoded};
use crate::store::{Body, Held, Slice, Space, Store, too_long};
use crate::thread::on_a_thread;

/// What stands behind the name of a blob's outboard.
pub const OUTBOARD_SUFFIX: &str = ".obao4";
/// Directory of what is still arriving.
const ARRIVING: &str = "tmp";
/// Bytes of a body handed to the disk at once; two pieces are in memory per put.
const PIECE_BYTES: usize = 512 << 10;
/// Reading requests on the disk at once: enough for a deep queue, few enough threads.
const READS_MAX: usize = 32;

/// Keeps blobs in files.
pub struct DirectoryStore {
    disk: Arc<Disk>,
    env: Env,
    reads: Semaphore,
}

struct Disk {
    root: PathBuf,
    /// Held over the renames of a put and the unlinks of a delete, never over a sync.
    state: Mutex<State>,
    /// Held while a directory is made and synced, so that one that exists is durable.
    making: Mutex<()>,
}

#[derive(Default)]
struct State {
    used: u64,
    blobs: u64,
    /// Blobs whose names are there but not yet durable.
    settling: BTreeSet<BlobId>,
}

/// A blob on its way in; what it wrote goes when it is dropped.
struct Arriving {
    disk: Arc<Disk>,
    path: PathBuf,
    file: File,
    hasher: Hasher,
}

impl DirectoryStore {
    /// Opens the store in `dir`, making it if need be, and removes what never arrived whole.
    /// Blocks: it counts what is there.
    ///
    /// # Errors
    /// [`Error::Io`] when the directory cannot be read or written.
    pub fn open(dir: &Path, env: &Env) -> Result<Self> {
        let arriving = dir.join(ARRIVING);
        fs::create_dir_all(&arriving).map_err(at("making", &arriving))?;
        for leftover in entries(&arriving)? {
            fs::remove_file(&leftover).map_err(at("removing", &leftover))?;
        }
        // What an earlier process renamed but did not live to sync becomes durable here.
        let root = File::open(dir).map_err(at("opening", dir))?;
        rustix::fs::syncfs(&root).map_err(|e| at("syncing", dir)(e.into()))?;
        let state = Mutex::new(State::count(dir)?);
        let disk = Disk { root: dir.to_owned(), state, making: Mutex::new(()) };
        let reads = Semaphore::new(READS_MAX);
        Ok(Self { disk: Arc::new(disk), env: env.clone(), reads })
    }

    /// Where a blob lies if it is held.
    pub fn path(&self, id: &BlobId) -> PathBuf {
        self.disk.path(id)
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let _turn = self.reads.acquire().await.expect("the semaphore is never closed");
        let disk = self.disk.clone();
        on_a_thread(move || work(&disk)).await
    }
}

#[async_trait]
impl Store for DirectoryStore {
    async fn put(&self, id: BlobId, body: Body) -> Result<()> {
        let len = body.len;
        if len > BLOB_BYTES_MAX {
            return Err(too_long(len));
        }
        let (disk, name) = (self.disk.clone(), hex::encode(self.env.random::<16>()));
        let mut arriving = on_a_thread(move || Arriving::new(disk, &name, len)).await?;
        let mut reader = body.reader();
        let mut left = len;
        let mut piece = next_piece(&mut reader, &mut left).await?;
        while !piece.is_empty() {
            let write = on_a_thread(move || arriving.write(&piece));
            // The next piece comes in while this one is hashed and written.
            let (written, next) = tokio::join!(write, next_piece(&mut reader, &mut left));
            arriving = written?;
            piece = next?;
        }
        on_a_thread(move || arriving.settle(&id)).await
    }

    async fn get(&self, id: BlobId, range: Range<u64>) -> Result<Slice> {
        self.read(move |disk| disk.get(&id, range)).await
    }

    async fn has(&self, ids: &[BlobId]) -> Result<Vec<Option<u64>>> {
        let ids = ids.to_vec();
        self.read(move |disk| ids.iter().map(|id| disk.len(id)).collect()).await
    }

    async fn list(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<Held>> {
        self.read(move |disk| disk.list(after, limit)).await
    }

    async fn delete(&self, id: BlobId) -> Result<()> {
        let disk = self.disk.clone();
        on_a_thread(move || disk.delete(&id)).await
    }

    async fn space(&self) -> Result<Space> {
        let state = self.disk.state();
        Ok(Space { used: state.used, quota: None, blobs: state.blobs })
    }
}

impl State {
    /// Counts what lies in `root`; outboards of blobs that are gone are removed on the way.
    fn count(root: &Path) -> Result<Self> {
        let mut state = Self::default();
        for dir in leaf_dirs(root, None)? {
            let files = entries(&dir)?;
            for path in &files {
                if blob_name(path).is_some() {
                    state.add(fs::metadata(path).map_err(at("reading", path))?.len());
                } else if name(path).ends_with(OUTBOARD_SUFFIX)
                    && !files.contains(&path.with_extension(""))
                {
                    fs::remove_file(path).map_err(at("removing", path))?;
                }
            }
        }
        Ok(state)
    }

    fn add(&mut self, len: u64) {
        self.used += len + Outboard::encoded_len(len);
        self.blobs += 1;
    }

    fn subtract(&mut self, len: u64) {
        self.used = self.used.saturating_sub(len + Outboard::encoded_len(len));
        self.blobs = self.blobs.saturating_sub(1);
    }
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while the lock is held")
    }

    fn path(&self, id: &BlobId) -> PathBuf {
        let name = id.to_string();
        self.root.join(&name[..2]).join(&name[2..4]).join(name)
    }

    fn len(&self, id: &BlobId) -> Result<Option<u64>> {
        if self.state().settling.contains(id) {
            return Ok(None);
        }
        stat(&self.path(id))
    }

    fn get(&self, id: &BlobId, range: Range<u64>) -> Result<Slice> {
        let path = self.path(id);
        if self.state().settling.contains(id) {
            return Err(Error::Missing(*id));
        }
        let blob = match File::open(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Err(Error::Missing(*id)),
            other => other.map_err(at("opening", &path))?,
        };
        let beside = outboard_path(&path);
        match File::open(&beside) {
            Ok(tree) => prove_encoded(&tree, id, &blob, range),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let tree = self.outboard_again(id, &path, blob)?;
                prove_encoded(
                    &tree[..],
                    id,
                    &File::open(&path).map_err(at("opening", &path))?,
                    range,
                )
            }
            Err(e) => Err(at("opening", &beside)(e)),
        }
    }

    /// The outboard of a blob whose own was lost, or went with it a moment ago.
    fn outboard_again(&self, id: &BlobId, path: &Path, mut blob: File) -> Result<Vec<u8>> {
        let len = blob.metadata().map_err(at("reading", path))?.len();
        if stat(path)?.is_none() {
            return Err(Error::Missing(*id));
        }
        if len > BLOB_BYTES_MAX {
            return Err(Error::Corrupt { id: *id, offset: 0 });
        }
        let mut hasher = Hasher::new(len);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match blob.read(&mut piece).map_err(at("reading", path))? {
                0 => break,
                n => hasher.update(&piece[..n]),
            }
        }
        match hasher.finish() {
            Ok((found, outboard)) if found == *id => Ok(outboard.encode()),
            _ => Err(Error::Corrupt { id: *id, offset: 0 }),
        }
    }

    fn list(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<Held>> {
        let mut held = Vec::new();
        for dir in leaf_dirs(&self.root, after.as_ref())? {
            let mut ids: Vec<BlobId> = entries(&dir)?.iter().filter_map(|p| blob_name(p)).collect();
            ids.sort_unstable();
            for id in ids.into_iter().filter(|id| after.is_none_or(|after| *id > after)) {
                if held.len() >= limit {
                    return Ok(held);
                }
                // One that went away meanwhile is not listed.
                held.extend(self.len(&id)?.map(|len| Held { id, len }));
            }
        }
        Ok(held)
    }

    fn delete(&self, id: &BlobId) -> Result<()> {
        let path = self.path(id);
        let mut state = self.state();
        let Some(len) = stat(&path)? else { return Ok(()) };
        fs::remove_file(&path).map_err(at("removing", &path))?;
        state.subtract(len);
        state.settling.remove(id);
        match fs::remove_file(outboard_path(&path)) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(at("removing", &path)(e)),
            _ => drop(state),
        }
        sync_dir(parent(&path))
    }

    /// Makes the two levels of directories above a blob, each durable before it is used.
    fn make_dirs(&self, path: &Path) -> Result<()> {
        let second = parent(path);
        if second.is_dir() {
            // It may be one that another put is still making durable.
            drop(self.making.lock().expect("no panic while the lock is held"));
            return Ok(());
        }
        let _turn = self.making.lock().expect("no panic while the lock is held");
        for dir in [parent(second), second] {
            match fs::create_dir(dir) {
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                other => other.map_err(at("making", dir))?,
            }
            sync_dir(parent(dir))?;
        }
        Ok(())
    }
}

impl Arriving {
    fn new(disk: Arc<Disk>, name: &str, len: u64) -> Result<Self> {
        let path = disk.root.join(ARRIVING).join(name);
        let file = File::create_new(&path).map_err(at("making", &path))?;
        Ok(Self { disk, path, file, hasher: Hasher::new(len) })
    }

    fn write(mut self, piece: &[u8]) -> Result<Self> {
        self.hasher.update(piece);
        foreground::write_all(&mut self.file, piece).map_err(at("writing", &self.path))?;
        Ok(self)
    }

    /// Checks the hash, makes everything durable, and gives the blob its name.
    fn settle(mut self, id: &BlobId) -> Result<()> {
        let (found, outboard) = std::mem::replace(&mut self.hasher, Hasher::new(0)).finish()?;
        if found != *id {
            return Err(Error::Corrupt { id: *id, offset: 0 });
        }
        self.file.sync_data().map_err(at("syncing", &self.path))?;
        let tree = outboard_path(&self.path);
        write_synced(&tree, &outboard.encode()).map_err(at("writing", &tree))?;
        let path = self.disk.path(id);
        self.disk.make_dirs(&path)?;
        {
            let mut state = self.disk.state();
            let before = stat(&path)?;
            rename(&tree, &outboard_path(&path))?;
            rename(&self.path, &path)?;
            if let Some(len) = before {
                state.subtract(len); // replaced; a rotten file may have had another length
            } else {
                state.settling.insert(*id);
            }
            state.add(outboard.len);
        }
        sync_dir(parent(&path))?;
        self.disk.state().settling.remove(id);
        Ok(())
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        // Renamed away when all went well; else nothing more can be done here, and `open` cleans.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(outboard_path(&self.path));
    }
}

/// Up to [`PIECE_BYTES`] of what is `left`; empty when nothing is.
async fn next_piece(reader: &mut (impl AsyncRead + Unpin), left: &mut u64) -> Result<Bytes> {
    let want = usize::try_from(*left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
    let mut piece = BytesMut::with_capacity(want);
    let mut reader = reader.take(want as u64);
    while piece.len() < want {
        match reader.read_buf(&mut piece).await {
            Ok(0) => return Err(Error::malformed("blob", "ended before its announced length")),
            Ok(_) => {}
            // Whoever sends it is elsewhere: what breaks here is the way to them.
            Err(e) => return Err(Error::Unreachable(format!("receiving a blob: {e}"))),
        }
    }
    *left -= want as u64;
    Ok(piece.freeze())
}

/// The directories that hold blobs, in order, from the one of `after` on.
fn leaf_dirs(root: &Path, after: Option<&BlobId>) -> Result<Vec<PathBuf>> {
    let from = after.map(|id| id.to_string());
    let from = from.as_deref().map_or(("", ""), |name| (&name[..2], &name[2..4]));
    let mut leaves = Vec::new();
    for first in hex_dirs(root)?.into_iter().filter(|dir| name(dir) >= from.0) {
        let here = name(&first) == from.0;
        leaves.extend(hex_dirs(&first)?.into_iter().filter(|dir| !here || name(dir) >= from.1));
    }
    Ok(leaves)
}

/// Subdirectories named by two lower-case hexadecimal digits, in order.
fn hex_dirs(dir: &Path) -> Result<Vec<PathBuf>> {
    let is_hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    let mut dirs = entries(dir)?;
    dirs.retain(|path| name(path).len() == 2 && name(path).bytes().all(is_hex));
    dirs.sort_unstable();
    Ok(dirs)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let listed = fs::read_dir(dir).and_then(|all| all.map(|e| e.map(|e| e.path())).collect());
    listed.map_err(at("listing", dir))
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn blob_name(path: &Path) -> Option<BlobId> {
    name(path).parse().ok()
}

fn outboard_path(path: &Path) -> PathBuf {
    path.with_file_name(format!("{}{OUTBOARD_SUFFIX}", name(path)))
}

fn parent(path: &Path) -> &Path {
    path.parent().expect("everything in a store lies below its root")
}

fn stat(path: &Path) -> Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some(meta.len())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(at("reading", path)(e)),
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_data()
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(at("renaming", from))
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at("syncing", dir))
}

fn at(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    Error::disk(format!("{doing} {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;
    use crate::proof::verify;
    use crate::store::conformance::{self, sample};

    fn opened() -> (tempfile::TempDir, DirectoryStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(dir.path(), &Env::real()).unwrap();
        (dir, store)
    }

    fn files(dir: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for path in entries(dir).unwrap() {
            if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
        }
        found
    }

    async fn put(store: &DirectoryStore, bytes: &Bytes) -> BlobId {
        let id = BlobId::of(bytes);
        store.put(id, Body::bytes(bytes.clone())).await.unwrap();
        id
    }

    #[tokio::test]
    async fn conforms() {
        let (dir, store) = opened();
        conformance::run(&store).await;
        assert_eq!(files(dir.path()), Vec::<PathBuf>::new(), "no file is left behind");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn conforms_on_several_threads() {
        conformance::run(&opened().1).await;
    }

    #[tokio::test]
    async fn what_was_put_is_there_and_counted_after_reopening() {
        let (dir, store) = opened();
        let bytes = sample(1, 10_000);
        let id = put(&store, &bytes).await;
        let space = store.space().await.unwrap();
        drop(store);
        let store = DirectoryStore::open(dir.path(), &Env::real()).unwrap();
        assert_eq!(store.space().await.unwrap(), space);
        assert_eq!(store.has(&[id]).await.unwrap(), [Some(10_000)]);
        let slice = store.get(id, 0..10_000).await.unwrap();
        assert_eq!(verify(&id, 10_000, 0..10_000, slice).unwrap().bytes, bytes);
    }

    #[tokio::test]
    async fn what_never_arrived_whole_is_removed_at_open() {
        let (dir, store) = opened();
        let id = put(&store, &sample(1, 100)).await;
        let orphan = store.disk.path(&BlobId::of(b"gone")).with_extension("obao4");
        fs::create_dir_all(orphan.parent().unwrap()).unwrap();
        fs::write(&orphan, b"12345678").unwrap();
        fs::write(dir.path().join(ARRIVING).join("half"), b"half a blob").unwrap();
        let store = DirectoryStore::open(dir.path(), &Env::real()).unwrap();
        let left: BTreeSet<PathBuf> = files(dir.path()).into_iter().collect();
        let path = store.disk.path(&id);
        assert_eq!(left, BTreeSet::from([outboard_path(&path), path]));
    }

    #[tokio::test]
    async fn an_abandoned_put_leaves_nothing() {
        let (dir, store) = opened();
        let (mut sender, receiver) = tokio::io::duplex(1 << 20);
        let body = Body::stream(1 << 20, Box::new(receiver));
        {
            let mut put = store.put(BlobId::of(b"x"), body);
            tokio::io::AsyncWriteExt::write_all(&mut sender, &[7; 600_000]).await.unwrap();
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..50 {
                assert!(put.as_mut().poll(&mut context).is_pending());
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            assert_eq!(files(dir.path()).len(), 1, "it was under way");
        }
        for _ in 0..2_000 {
            if files(dir.path()).is_empty() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
        assert_eq!(store.space().await.unwrap(), Space::default());
    }

    #[tokio::test]
    async fn a_broken_stream_is_transient_and_leaves_nothing() {
        let (dir, store) = opened();
        let broken = tokio_test_reader();
        let refused = store.put(BlobId::of(b"x"), Body::stream(100, broken)).await.unwrap_err();
        assert!(refused.is_transient(), "{refused}");
        assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
    }

    fn tokio_test_reader() -> Box<dyn AsyncRead + Send + Unpin> {
        struct Broken;
        impl AsyncRead for Broken {
            fn poll_read(
                self: std::pin::Pin<&mut Self>,
                _: &mut Context<'_>,
                _: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<io::Result<()>> {
                std::task::Poll::Ready(Err(ErrorKind::ConnectionReset.into()))
            }
        }
        Box::new(Broken)
    }

    #[tokio::test]
    async fn rot_is_served_as_it_is_caught_by_the_proof_and_healed_by_a_put() {
        let (_dir, store) = opened();
        let bytes = sample(1, 50_000);
        let id = put(&store, &bytes).await;
        let path = store.disk.path(&id);
        for rotten in [[&bytes[..49_999], &[!bytes[49_999]]].concat(), bytes[..40_000].to_vec()] {
            fs::write(&path, rotten).unwrap();
            let outcome = store.get(id, 49_000..50_000).await;
            let caught = outcome.and_then(|slice| verify(&id, 50_000, 49_000..50_000, slice));
            assert!(caught.unwrap_err().is_corrupt());
            put(&store, &bytes).await;
            let slice = store.get(id, 49_000..50_000).await.unwrap();
            assert!(verify(&id, 50_000, 49_000..50_000, slice).is_ok());
        }
    }

    #[tokio::test]
    async fn a_lost_outboard_is_computed_again() {
        let (_dir, store) = opened();
        let bytes = sample(1, 50_000);
        let id = put(&store, &bytes).await;
        fs::remove_file(outboard_path(&store.disk.path(&id))).unwrap();
        let slice = store.get(id, 20_000..20_001).await.unwrap();
        assert!(verify(&id, 50_000, 20_000..20_001, slice).is_ok());
        fs::write(store.disk.path(&id), b"rot").unwrap();
        assert!(store.get(id, 0..1).await.unwrap_err().is_corrupt());
    }

    #[test]
    fn a_full_disk_says_so() {
        let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let disk = Arc::new(Disk {
            root: PathBuf::from("/nowhere"),
            state: Mutex::default(),
            making: Mutex::default(),
        });
        let path = PathBuf::from("/nowhere/tmp/x");
        let arriving = Arriving { disk, path, file: full, hasher: Hasher::new(1) };
        assert!(matches!(arriving.write(b"1").err(), Some(Error::Full)));
    }

    #[tokio::test]
    async fn a_blob_is_denied_until_its_name_is_durable() {
        let (_dir, store) = opened();
        let id = put(&store, &sample(1, 100)).await;
        store.disk.state().settling.insert(id);
        assert_eq!(store.has(&[id]).await.unwrap(), [None]);
        assert_eq!(store.list(None, 9).await.unwrap(), []);
        put(&store, &sample(1, 100)).await;
        assert_eq!(store.has(&[id]).await.unwrap(), [Some(100)]);
    }
}
