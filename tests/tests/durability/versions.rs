//! R11: another version wrote the formats of this home, and the journal holds what is not applied.
//! It is read, or refused with nothing changed.

use std::fs;
use std::path::{Path, PathBuf};

use rdrivefs_tests::world::Device;

use crate::founder;

/// Where each format says its version: the header of a piece of the journal.
const JOURNAL_VERSION_AT: usize = 8;

fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    all.sort();
    all
}

/// Refuses in a sentence that names the version, and leaves the journal as it is.
fn refused(a: &Device, what: &str) {
    let journal = a.home.join("state/default/journal");
    let before = files(&journal);
    let said = a.run(&["mount", a.dir_str()]);
    assert_eq!(said.code, Some(1), "{what}: {said:?}");
    assert!(said.err.contains("version"), "{what}: {said:?}");
    assert!(files(&journal) == before, "{what}: the journal is as it was");
}

/// A home with a journal that holds more than the index.
fn dirty() -> (rdrivefs_tests::world::World, rdrivefs_tests::world::Node, Device) {
    let (world, node, a) = founder();
    a.mount();
    for n in 0..30 {
        fs::write(a.dir.join(format!("f{n}")), vec![n; 50_000]).unwrap();
    }
    fs::File::open(&a.dir).unwrap().sync_all().unwrap();
    a.kill_daemon();
    (world, node, a)
}

fn whole(a: &Device) {
    a.mount();
    for n in 0..30 {
        assert!(fs::read(a.dir.join(format!("f{n}"))).unwrap() == vec![n; 50_000], "f{n}");
    }
}

#[test]
fn r11_a_journal_of_another_version_is_refused_and_kept() {
    let (_world, _node, a) = dirty();
    let good = files(&a.home.join("state/default/journal"));
    assert!(good.len() > 1, "log and data");
    for version in [0, 2, 99] {
        for (path, bytes) in &good {
            let mut other = bytes.clone();
            other[JOURNAL_VERSION_AT] = version;
            fs::write(path, other).unwrap();
        }
        refused(&a, &format!("journal version {version}"));
    }
    for (path, bytes) in &good {
        fs::write(path, bytes).unwrap();
    }
    whole(&a);
}

#[test]
fn r11_an_index_of_another_version_with_a_dirty_journal_is_refused_and_kept() {
    let (_world, _node, a) = dirty();
    let index = a.home.join("state/default/index");
    let set = |version: i64| {
        let db = rusqlite::Connection::open(&index).unwrap();
        let version_is = "SELECT value FROM meta WHERE key = 'version'";
        let old: i64 = db.query_row(version_is, [], |row| row.get(0)).unwrap();
        db.execute("UPDATE meta SET value = ? WHERE key = 'version'", [version]).unwrap();
        old
    };
    let known = set(99);
    refused(&a, "a newer index");
    set(known - 1);
    refused(&a, "an older index");
    set(known);
    whole(&a);
}
