//! From a name to its row: the index, and the same table in bare SQLite.

use std::cell::LazyCell;
use std::path::Path;

use criterion::{Criterion, Throughput};
use rdrivefs_remote::env::Env;
use rdrivefs_sync::id::{DeviceNumber, Ino, LinkId};
use rdrivefs_sync::index::Index;
use rdrivefs_sync::index::entries::EntryRow;
use rdrivefs_sync::record::{Kind, Stamp};
use rdrivefs_sync::seal;
use rusqlite::{Connection, params};

use crate::data::key;

/// Rows of the index that is looked up in.
const ROWS: u64 = if cfg!(debug_assertions) { 2_000 } else { 200_000 };

/// Looking up a name among many, sealed row and all; the crate below is SQLite, asked the same.
pub(crate) fn index(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let drive = LazyCell::new(|| filled_index(&dir.path().join("index")));
    let bare = LazyCell::new(|| filled_table(&dir.path().join("bare")));
    let names = (0..ROWS).map(name).collect::<Vec<_>>();
    let nth = |turn: &mut usize| {
        *turn = (*turn + 7919) % names.len();
        &names[*turn][..]
    };
    let mut group = c.benchmark_group("index lookup");
    group.throughput(Throughput::Elements(1));
    group.bench_function("drive", |b| {
        let mut turn = 0;
        let index = &*drive;
        b.iter(|| index.entry(Ino::ROOT, nth(&mut turn)).expect("it opens").expect("it is there"));
    });
    group.bench_function("sqlite", |b| {
        let mut turn = 0;
        let db = &*bare;
        b.iter(|| {
            let mut asked =
                db.prepare_cached("SELECT link, row FROM entry WHERE parent = ? AND hash = ?");
            let asked = asked.as_mut().expect("it is SQL");
            let hash = blake3::hash(nth(&mut turn));
            let hash = &hash.as_bytes()[..16];
            let row = asked.query_row(params![1, hash], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
            });
            row.expect("it is there")
        });
    });
    group.finish();
}

fn name(n: u64) -> Vec<u8> {
    format!("file number {n}.txt").into_bytes()
}

fn filled_index(path: &Path) -> Index {
    let index = Index::open(path, &key(), Env::real()).expect("a new one begins");
    let kind = Some(Kind::File);
    let stamp = Stamp { lamport: 1, device: DeviceNumber(1) };
    for n in 0..ROWS {
        let (link, child) = (LinkId(n + 2), Ino(n + 2));
        let entry = EntryRow { link, parent: Ino::ROOT, name: name(n), child, kind, stamp };
        index.set_entry(&entry).expect("it can be written");
    }
    index.commit().expect("it can be committed");
    index
}

/// The same table with rows of the same length, neither hashed under a key nor sealed.
fn filled_table(path: &Path) -> Connection {
    let db = Connection::open(path).expect("a new one begins");
    let made = db.execute_batch(
        "PRAGMA journal_mode = WAL; BEGIN;
        CREATE TABLE entry (
            link INTEGER PRIMARY KEY, parent INTEGER NOT NULL, hash BLOB NOT NULL, row BLOB NOT NULL);
        CREATE UNIQUE INDEX entry_name ON entry (parent, hash);
        CREATE INDEX entry_order ON entry (parent, link);",
    );
    made.expect("it is SQL");
    let mut insert = db.prepare("INSERT INTO entry VALUES (?, 1, ?, ?)").expect("it is SQL");
    for n in 0..ROWS {
        let name = name(n);
        let row = vec![7_u8; name.len() + 12 + seal::BOX_BYTES];
        let hash = blake3::hash(&name);
        let hash = &hash.as_bytes()[..16];
        insert.execute(params![n.cast_signed(), hash, row]).expect("it can be written");
    }
    drop(insert);
    db.execute_batch("COMMIT").expect("it can be committed");
    db
}
