//! R11: a drive that an earlier build left with a dirty journal is read by this one; one of a later
//! build is refused, and nothing of it is changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rdrivefs_tests::world::{Device, World, run};

/// Homes that builds of these commits left when they were killed; `tests/golden/README.md` says how.
const GOLDEN: [&str; 1] = ["00d32ec"];

/// Where a format says its version, by the beginning of its files' names.
const VERSIONS: [(&str, &str, usize); 3] =
    [("journal", "log-", 8), ("journal", "data-", 8), ("keys", "keys", 8)];

fn unpacked(name: &str) -> (World, Device, String) {
    let world = World::new();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("golden/{name}.tar.gz"));
    let mut tar = Command::new("tar");
    let said = run(tar.arg("-xzf").arg(archive).arg("-C").arg(world.path("")));
    assert_eq!(said.code, Some(0), "{said:?}");
    let passphrase = world.path("passphrase").to_str().unwrap().to_owned();
    let device = world.device("home");
    (world, device, passphrase)
}

fn mount(a: &Device, passphrase: &str) -> rdrivefs_tests::world::Said {
    a.run(&["mount", a.dir_str(), "--passphrase-file", passphrase])
}

fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|k| ((k * k / 7 + seed * 37 + k) % 251) as u8).collect()
}

/// Compares every file with what was written.
fn holds(dir: &Path, name: &str) {
    let is = |path: &str, want: &[u8]| {
        let got = fs::read(dir.join(path)).unwrap_or_else(|e| panic!("{name}: {path}: {e}"));
        assert!(got == want, "{name}: {path} has other bytes, {} of {}", got.len(), want.len());
    };
    for n in [1, 2, 5] {
        is(&format!("old/f{n}"), &bytes(n, n * 7_000 + 1));
    }
    is("new/was f0", &bytes(0, 1));
    let mut patched = bytes(3, 3 * 7_000 + 1);
    patched[100..107].copy_from_slice(b"patched");
    is("old/f3", &patched);
    is("old/f4", &bytes(4, 4 * 7_000 + 1)[..1_000]);
    let mut sparse = vec![0; 5 << 20];
    sparse[4 << 20..][..6].copy_from_slice(b"island");
    is("old/sparse", &sparse);
    for n in 0..6 {
        is(&format!("new/g{n}"), &bytes(10 + n, n * 1_500 + 3));
    }
    is("new/long", &bytes(20, 70_000));
    let meta = |path: &str| fs::symlink_metadata(dir.join(path)).unwrap();
    assert_eq!(fs::read_link(dir.join("old/link")).unwrap(), Path::new("f1"));
    assert_eq!(meta("old/f2").nlink(), 1, "{name}: its other name was removed");
    assert_eq!((meta("old/f4").mode() & 0o777, meta("old/f5").mtime()), (0o640, 1_700_000_001));
    for (path, attribute, value) in
        [("old/f3", "user.colour", &b"blue"[..]), ("new/g1", "user.note", b"dirty")]
    {
        let mut got = [0; 16];
        let n = rustix::fs::getxattr(dir.join(path), attribute, &mut got[..]).unwrap();
        assert_eq!(&got[..n], value, "{name}: {path}");
    }
    let count = |path: &str| fs::read_dir(dir.join(path)).unwrap().count();
    assert_eq!(
        [count("old"), count("new"), count("old/deeper")],
        [8, 8, 0],
        "{name}: nothing else"
    );
}

#[test]
fn r11_a_drive_of_an_earlier_build_with_a_dirty_journal_is_read() {
    for name in GOLDEN {
        let (_world, a, passphrase) = unpacked(name);
        let said = mount(&a, &passphrase);
        assert_eq!(said.code, Some(0), "{name}: {said:?}");
        holds(&a.dir, name);
        fs::write(a.dir.join("after"), b"it goes on").unwrap();
        a.unmount();
        let said = mount(&a, &passphrase);
        assert_eq!(said.code, Some(0), "{name}: {said:?}");
        assert_eq!(fs::read(a.dir.join("after")).unwrap(), b"it goes on");
        holds(&a.dir, name);
        a.unmount();
        // From now on it has a spare like any other.
        fs::remove_file(a.home.join("state/default/index")).unwrap();
        a.ok(&["doctor", "--repair", "--passphrase-file", &passphrase]);
        assert_eq!(mount(&a, &passphrase).code, Some(0));
        holds(&a.dir, name);
    }
}

/// All files of a home that mean something, with their bytes.
fn files(home: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut all, mut left) = (BTreeMap::new(), vec![home.to_owned()]);
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        // What is no format of ours: room held, the lock, what was said, SQLite's shared memory.
        let ours = !["reserve", "lock", "log", "index-shm", "socket", "mounted"].contains(&&*name);
        let bytes = fs::read(&path).unwrap();
        // SQLite may begin a log, and put nothing into it.
        if ours && !(bytes.is_empty() && name == "index-wal") {
            all.insert(path, bytes);
        }
    }
    all
}

fn refused(a: &Device, passphrase: &str, what: &str) {
    let before = files(&a.home);
    for words in [&["mount", a.dir_str()][..], &["ls"], &["doctor", "--repair"]] {
        let said = a.run(&[words, &["--passphrase-file", passphrase]].concat());
        assert_eq!(said.code, Some(1), "{what}, {words:?}: {said:?}");
        let told = format!("{}{}", said.out, said.err);
        assert!(told.contains("version 9"), "{what}: {told}");
        assert!(told.contains("newer rdrivefs"), "{what}: the next step: {told}");
    }
    let after = files(&a.home);
    let changed: Vec<_> = before
        .keys()
        .chain(after.keys())
        .filter(|path| before.get(*path) != after.get(*path))
        .collect();
    assert!(changed.is_empty(), "{what}: {changed:?} changed");
}

#[test]
fn r11_a_drive_of_a_later_build_is_refused_and_left_alone() {
    let name = GOLDEN[GOLDEN.len() - 1];
    for (format, beginning, at) in VERSIONS {
        let (_world, a, passphrase) = unpacked(name);
        let mut bumped = 0;
        for (path, mut bytes) in files(&a.home) {
            if path.file_name().unwrap().to_string_lossy().starts_with(beginning) {
                bytes[at] = 9;
                fs::write(path, bytes).unwrap();
                bumped += 1;
            }
        }
        assert!(bumped > 0, "{format} has {beginning}");
        refused(&a, &passphrase, &format!("{format}, {beginning}"));
    }
    let (_world, a, passphrase) = unpacked(name);
    let db = rusqlite::Connection::open(a.home.join("state/default/index")).unwrap();
    db.execute("UPDATE meta SET value = 9 WHERE key = 'version'", []).unwrap();
    drop(db);
    refused(&a, &passphrase, "index");
}
