//! What the calls of a filesystem cost without a kernel: `cargo run --release -p rdrivefs-sync
//! --example tree_bench [FILES]`.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdrivefs_sync::Result;
use rdrivefs_sync::id::{DeviceNumber, Ino};
use rdrivefs_sync::index::Index;
use rdrivefs_sync::remote::env::Env;
use rdrivefs_sync::seal::Key;
use rdrivefs_sync::tree::words::Caller;
use rdrivefs_sync::tree::{Chunks, Tree};

const PER_DIRECTORY: u64 = 10_000;
const ROUNDS: u64 = 50_000;

struct NoChunks;

impl Chunks for NoChunks {
    fn read(&self, _: i64, _: u32, _: Range<u32>) -> Result<Vec<u8>> {
        unreachable!("nothing is sealed here")
    }
}

fn open(dir: &Path, env: &Env) -> Tree {
    let key = Key::from([7; 32]);
    let index = Arc::new(Index::open(&dir.join("index"), &key, env.clone()).expect("an index"));
    let journal = dir.join("journal");
    std::fs::create_dir_all(&journal).expect("a directory");
    let chunks = Arc::new(NoChunks);
    Tree::open(env.clone(), DeviceNumber(1), index, dir, &journal, &key, chunks).expect("a tree")
}

fn timed(env: &Env, what: &str, times: u64, work: impl FnOnce()) {
    let before = env.instant();
    work();
    let took = env.instant().since(before);
    let each = took.as_secs_f64() * 1e6 / times as f64;
    println!(
        "{what:<34} {each:>9.2} us each   {:>9.1} ms   {} MiB",
        took.as_secs_f64() * 1e3,
        resident()
    );
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    pages * 4096 >> 20
}

fn name(n: u64) -> Vec<u8> {
    format!("file number {n}.txt").into_bytes()
}

fn main() {
    let files: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let env = Env::real();
    let home = tempfile::tempdir_in(".").expect("a directory");
    let dir = home.path();
    let caller = Caller { uid: 0, gid: 0, umask: 0o022 };
    let stop = Arc::new(AtomicBool::new(false));
    let mut tree = Arc::new(open(dir, &env));
    let upkeep = |tree: &Arc<Tree>| {
        let (tree, stop) = (tree.clone(), stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
                tree.maintain().expect("upkeep");
            }
        })
    };
    let thread = upkeep(&tree);
    let mut dirs = Vec::new();
    timed(&env, "create", files, || {
        for n in 0..files {
            if n % PER_DIRECTORY == 0 {
                let name = format!("directory {n}");
                dirs.push(
                    tree.make_directory(&caller, Ino::ROOT, name.as_bytes(), 0o755)
                        .expect("made")
                        .ino,
                );
            }
            tree.create(&caller, *dirs.last().expect("one"), &name(n), 0o644).expect("made");
        }
    });
    timed(&env, "lookup, warm", ROUNDS, || {
        for n in 0..ROUNDS {
            let n = n * 7919 % files;
            tree.lookup(dirs[(n / PER_DIRECTORY) as usize], &name(n)).expect("there");
        }
    });
    let listed = |tree: &Tree, dir: Ino| {
        let (mut after, mut count) = (0, 0);
        loop {
            let page = tree.list(dir, after, 512).expect("listed");
            let Some(last) = page.last() else { break count };
            after = last.cookie;
            count += page.len() as u64;
        }
    };
    timed(&env, "list a directory, warm", PER_DIRECTORY, || assert!(listed(&tree, dirs[0]) > 0));
    let file = tree.create(&caller, Ino::ROOT, b"written", 0o644).expect("made").ino;
    let block = vec![5; 4096];
    timed(&env, "write 4 KiB", ROUNDS, || {
        for n in 0..ROUNDS {
            tree.write(file, n * 4096, &block).expect("written");
        }
    });
    timed(&env, "write 4 KiB again, at random", ROUNDS, || {
        for n in 0..ROUNDS {
            tree.write(file, n * 7919 % ROUNDS * 4096, &block).expect("written");
        }
    });
    timed(&env, "read 4 KiB", ROUNDS, || {
        for n in 0..ROUNDS {
            tree.read(file, n * 7919 % ROUNDS * 4096, 4096).expect("read");
        }
    });
    let big = vec![5; 1 << 20];
    let stream = tree.create(&caller, Ino::ROOT, b"stream", 0o644).expect("made").ino;
    timed(&env, "write 1 MiB, streaming", 512, || {
        for n in 0..512 {
            tree.write(stream, n << 20, &big).expect("written");
        }
    });
    timed(&env, "fsync after 4 KiB", 200, || {
        for n in 0..200 {
            tree.write(file, n * 4096, &block).expect("written");
            tree.sync(file).expect("durable");
        }
    });
    timed(&env, "flush and checkpoint", 1, || {
        tree.flush().expect("flushed");
        tree.checkpoint().expect("durable");
    });
    stop.store(true, Ordering::Relaxed);
    thread.join().expect("no panic");
    drop(Arc::try_unwrap(tree).map_err(drop).expect("the last"));
    println!("opened again:");
    let mut opened = None;
    timed(&env, "open", 1, || opened = Some(open(dir, &env)));
    tree = Arc::new(opened.expect("it was opened"));
    timed(&env, "list a directory, cold", PER_DIRECTORY, || assert!(listed(&tree, dirs[0]) > 0));
    timed(&env, "list everything", files, || dirs.iter().for_each(|dir| drop(listed(&tree, *dir))));
    timed(&env, "lookup after that", ROUNDS, || {
        for n in 0..ROUNDS {
            let n = n * 7919 % files;
            tree.lookup(dirs[(n / PER_DIRECTORY) as usize], &name(n)).expect("there");
        }
    });
    timed(&env, "unlink", files, || {
        for n in 0..files {
            tree.unlink(dirs[(n / PER_DIRECTORY) as usize], &name(n)).expect("gone");
        }
    });
}
