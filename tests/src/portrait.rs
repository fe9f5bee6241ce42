//! A tree as it stands, to the last attribute, so that two can be held against each other.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Longest list of names of attributes, and longest attribute.
const BYTES_MAX: usize = 64 << 10;

/// What is told of each path.
pub type Portrait = BTreeMap<PathBuf, String>;

/// Everything that `stat` and `read` tell but when it was last read: names, kinds, modes, owners,
/// sizes, times, links, numbers of inodes, extended attributes, content.
///
/// # Panics
/// When something cannot be read.
pub fn exact(root: &Path) -> Portrait {
    of(root, |meta| {
        let (ino, nlink) = (meta.ino(), meta.nlink());
        let (mtime, mtime_ns) = (meta.mtime(), meta.mtime_nsec());
        format!("{ino} {nlink} {mtime}.{mtime_ns} {}.{}", meta.ctime(), meta.ctime_nsec())
    })
}

/// The same without what no record tells other devices: numbers of inodes, times of change, times
/// of folders.
///
/// # Panics
/// When something cannot be read.
pub fn told(root: &Path) -> Portrait {
    of(root, |meta| match meta.is_dir() {
        true => String::new(),
        false => format!("{} {}.{}", meta.nlink(), meta.mtime(), meta.mtime_nsec()),
    })
}

fn of(root: &Path, numbers: impl Fn(&fs::Metadata) -> String) -> Portrait {
    let mut portrait = Portrait::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let shown = path.display();
        let meta = fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{shown}: {e}"));
        let content = if meta.is_dir() {
            let entries = fs::read_dir(&path).unwrap_or_else(|e| panic!("{shown}: {e}"));
            left.extend(entries.map(|entry| entry.expect("it can be listed").path()));
            String::new()
        } else if meta.is_symlink() {
            fs::read_link(&path).unwrap_or_else(|e| panic!("{shown}: {e}")).display().to_string()
        } else {
            let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{shown}: {e}"));
            format!("{} bytes {}", bytes.len(), blake3::hash(&bytes).to_hex())
        };
        let (mode, uid, gid) = (meta.mode(), meta.uid(), meta.gid());
        let attributes = attributes(&path);
        let words = format!("{mode:o} {uid} {gid} {} {content} {attributes:?}", numbers(&meta));
        let name = path.strip_prefix(root).expect("it lies below the root").to_owned();
        portrait.insert(name, words);
    }
    portrait
}

/// Extended attributes, by name.
fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; BYTES_MAX];
    let n = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..n].split(|b| *b == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; BYTES_MAX];
        let n = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value[..]);
        value.truncate(n.expect("what is listed can be read"));
        (String::from_utf8_lossy(name).into_owned(), value)
    };
    names.map(value).collect()
}

/// Holds two portraits against each other.
///
/// # Panics
/// With the first paths that differ.
pub fn assert_same(before: &Portrait, after: &Portrait, when: &str) {
    let of_both: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let differing: Vec<_> = of_both
        .into_iter()
        .filter(|path| before.get(*path) != after.get(*path))
        .map(|path| format!("{path:?}\n  {:?}\n  {:?}", before.get(path), after.get(path)))
        .take(6)
        .collect();
    assert!(differing.is_empty(), "{when}:\n{}", differing.join("\n"));
}
