//! How fast the journal takes records and streams, and how often it syncs.
//!
//! `cargo run --release -p rdrivefs-sync --example journal_bench [DIRECTORY]`; the directory's disk
//! is the one measured, the temporary one by default. "No disk" discards what is written.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rdrivefs_sync::journal::disk::{Directory, Disk, DiskFile};
use rdrivefs_sync::journal::{Journal, Position, Settings};
use rdrivefs_sync::remote::env::Env;
use rdrivefs_sync::seal::Key;

const RECORDS: u32 = 100_000;
const SYNCS: u32 = 300;
const STREAM_BYTES: usize = 512 << 20;

/// Takes everything and keeps nothing.
struct Nowhere;

impl Disk for Nowhere {
    fn create(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Self))
    }
    fn open(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(Self))
    }
    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }
    fn free_space(&self) -> io::Result<u64> {
        Ok(u64::MAX)
    }
}

impl DiskFile for Nowhere {
    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
    fn datasync(&self) -> io::Result<()> {
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }
    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let base = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.join(format!("journal_bench-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    let result = run(Arc::new(Nowhere), "no disk")
        .and_then(|()| run(Arc::new(Directory::new(&dir)?), "disk"));
    std::fs::remove_dir_all(&dir)?;
    result
}

fn run(disk: Arc<dyn Disk>, name: &str) -> Result<(), Box<dyn Error>> {
    let env = Env::real();
    let key = Key::random(&env);
    let (journal, _) = Journal::open_on(disk, &key, &env, Position(0), Settings::default())?;
    let timed = |what: &str, count: u32, run: &mut dyn FnMut() -> Result<(), Box<dyn Error>>| {
        let start = env.instant();
        run()?;
        let each = env.instant().since(start) / count;
        println!("{name:8} {what:44} {each:>12.2?}");
        Ok::<Duration, Box<dyn Error>>(each)
    };
    let record = [7; 200];
    timed("append 200 B", RECORDS, &mut || {
        (0..RECORDS).try_for_each(|_| Ok(journal.append(&record).map(drop)?))
    })?;
    timed("append 4 KiB", RECORDS / 10, &mut || {
        (0..RECORDS / 10).try_for_each(|_| Ok(journal.append(&[7; 4096]).map(drop)?))
    })?;
    timed("append 200 B and sync", SYNCS, &mut || {
        (0..SYNCS).try_for_each(|_| {
            let at = journal.append(&record)?.position;
            Ok(journal.sync(at, &[]).map(drop)?)
        })
    })?;
    timed("the same by 8 threads, each", SYNCS, &mut || {
        std::thread::scope(|scope| {
            let threads = (0..8).map(|_| {
                scope.spawn(|| {
                    (0..SYNCS).try_for_each(|_| {
                        let at = journal.append(&record)?.position;
                        journal.sync(at, &[]).map(drop)
                    })
                })
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().try_for_each(|one| one.join().expect("it does not panic"))
        })?;
        Ok(())
    })?;
    for threads in [1, 2] {
        let part = vec![7; 1 << 20];
        let parts = u32::try_from(STREAM_BYTES / part.len())?;
        let mut places = Vec::new();
        let each = timed(&format!("stage 1 MiB, {threads} threads"), parts, &mut || {
            let all = std::thread::scope(|scope| {
                let stage = || -> rdrivefs_sync::Result<Vec<_>> {
                    let parts = (0..parts / threads).map(|_| journal.stage(1, &part));
                    Ok(parts.collect::<rdrivefs_sync::Result<Vec<_>>>()?.concat())
                };
                let running: Vec<_> = (0..threads).map(|_| scope.spawn(stage)).collect();
                let joined = running.into_iter().map(|one| one.join().expect("no panic"));
                joined.collect::<rdrivefs_sync::Result<Vec<_>>>()
            })?;
            places = all.concat();
            Ok(())
        })?;
        println!("{:53} {:>8.0} MB/s", "", (1 << 20) as f64 / each.as_secs_f64() / 1e6);
        if name == "no disk" {
            continue;
        }
        let count = u32::try_from(places.len())?;
        let each = timed("read 64 KiB staged", count, &mut || {
            places.iter().try_for_each(|place| Ok(journal.read(*place, 0..place.len).map(drop)?))
        })?;
        println!("{:53} {:>8.0} MB/s", "", 65536.0 / each.as_secs_f64() / 1e6);
        let place = places[0];
        timed("read 4 KiB of an opened block", 100_000, &mut || {
            (0..100_000_u32).try_for_each(|n| {
                let start = n % 16 * 4096;
                Ok(journal.read(place, start..start + 4096).map(drop)?)
            })
        })?;
    }
    println!("{name:8} {} bytes used, confirmed {}", journal.bytes_used(), journal.confirmed().0);
    Ok(())
}
