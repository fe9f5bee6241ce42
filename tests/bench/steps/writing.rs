//! From a call to the journal: records, staged bytes, and what makes them durable.

use std::fs::File;
use std::hint::black_box;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::aead::Aad;
use criterion::{Criterion, Throughput};
use rdrivefs_remote::env::Env;
use rdrivefs_sync::journal::disk::{Disk, DiskFile};
use rdrivefs_sync::journal::{Journal, Position, Settings};

use crate::data::{NOISE, bare_key, bare_nonce, bytes, key};

/// A journal record of a create or a rename, about.
const RECORD_BYTES: usize = 200;
/// Writers that sync at once.
const WRITERS: u64 = 8;

/// Appending a record, a stream's bytes, and a record that is made durable. The crate below the
/// first two is the cipher, below the last one the disk.
pub(crate) fn journal(c: &mut Criterion) {
    let bare = bare_key();
    let record = [7; RECORD_BYTES];
    for (name, len) in [("journal append", RECORD_BYTES), ("journal stage", 1 << 20)] {
        let data = &NOISE[..len];
        let mut group = c.benchmark_group(name);
        group.throughput(bytes(len));
        group.bench_function("drive", |b| {
            let journal = nowhere();
            b.iter(|| match len {
                RECORD_BYTES => _ = black_box(journal.append(data).expect("there is room")),
                _ => _ = black_box(journal.stage(1, data).expect("there is room")),
            });
        });
        group.bench_function("aws-lc", |b| {
            let mut block = data.to_vec();
            b.iter(|| {
                let sealed =
                    bare.seal_in_place_separate_tag(bare_nonce(), Aad::empty(), &mut block);
                black_box(sealed.expect("it fits"))
            });
        });
        group.finish();
    }
    let mut group = c.benchmark_group("journal append and sync");
    group.throughput(Throughput::Elements(1)).sample_size(20);
    group.bench_function("drive", |b| {
        let (journal, _dir) = somewhere();
        b.iter(|| {
            let at = journal.append(&record).expect("there is room").position;
            black_box(journal.sync(at, &[]).expect("it is durable"))
        });
    });
    group.throughput(Throughput::Elements(WRITERS)).bench_function("drive, 8 writers", |b| {
        b.iter_custom(|times| sync_together(&record, times));
    });
    group.throughput(Throughput::Elements(1)).bench_function("fdatasync", |b| {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let file = File::create(dir.path().join("bare")).expect("a file can be made");
        file.write_all_at(&vec![0; 1 << 20], 0).expect("it can be written");
        file.sync_all().expect("it is durable");
        let mut at = 0;
        b.iter(|| {
            file.write_all_at(&record, at).expect("it can be written");
            file.sync_data().expect("it is durable");
            at = (at + RECORD_BYTES as u64) % (1 << 19);
        });
    });
    group.finish();
}

/// How long it takes that each of the writers has made a record durable that many times: they
/// share what they wait for.
fn sync_together(record: &[u8], times: u64) -> Duration {
    let env = Env::real();
    let (journal, _dir) = somewhere();
    let begun = env.instant();
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                for _ in 0..times {
                    let at = journal.append(record).expect("there is room").position;
                    _ = black_box(journal.sync(at, &[]).expect("it is durable"));
                }
            });
        }
    });
    env.instant().since(begun)
}

/// A new journal on the temporary disk, and its folder.
fn somewhere() -> (Journal, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let opened = Journal::open(dir.path(), &key(), &Env::real(), Position(0));
    (opened.expect("a new one begins").0, dir)
}

/// Takes everything and keeps nothing, so that only the work before the disk is seen.
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

fn nowhere() -> Journal {
    let (disk, settings) = (Arc::new(Nowhere), Settings::default());
    let opened = Journal::open_on(disk, &key(), &Env::real(), Position(0), settings);
    opened.expect("nothing lies there").0
}
