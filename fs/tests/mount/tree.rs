//! A tree by itself, without keys, remotes or engine: index and journal in a directory.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdrivefs_sync::Result;
use rdrivefs_sync::id::DeviceNumber;
use rdrivefs_sync::index::Index;
use rdrivefs_sync::remote::env::Env;
use rdrivefs_sync::seal::Key;
use rdrivefs_sync::tree::{Chunks, Tree};

/// Nothing is sealed here, so no chunk is ever asked for.
struct NoChunks;

impl Chunks for NoChunks {
    fn read(&self, _: i64, _: u32, _: Range<u32>) -> Result<Vec<u8>> {
        unreachable!("nothing is sealed")
    }
}

/// Writes behind, as the engine does, until it is dropped.
struct Upkeep {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().expect("taken here only").join().expect("upkeep goes well");
    }
}

/// An empty tree, and what must live as long.
pub fn open() -> (Arc<Tree>, Box<dyn Any>) {
    let dir = tempfile::tempdir().unwrap();
    let (env, key) = (Env::real(), Key::from([7; 32]));
    let index = Arc::new(Index::open(&dir.path().join("index"), &key, env.clone()).unwrap());
    let journal = dir.path().join("journal");
    std::fs::create_dir(&journal).unwrap();
    let chunks = Arc::new(NoChunks);
    let tree = Tree::open(env, DeviceNumber(1), index, dir.path(), &journal, &key, chunks);
    let tree = Arc::new(tree.unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let (working, stopped) = (Arc::clone(&tree), Arc::clone(&stop));
    let thread = std::thread::spawn(move || {
        while !stopped.load(Ordering::SeqCst) {
            working.maintain().unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    (tree, Box::new(Upkeep { stop, thread: Some(thread), _dir: dir }))
}
