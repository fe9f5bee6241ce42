//! What a tree looks like, to compare it with itself later.
//!
//! Names, kinds, modes, owners, links, sizes, times of modification, devices, targets of symbolic
//! links and contents; not access times or blocks, which may change without anybody's doing.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Bytes of a file that are looked at: a suite may leave a sparse file of terabytes.
const CONTENT_MAX: u64 = 64 << 20;

/// Differences told; more say nothing more.
const TOLD_MAX: usize = 5;

/// Path below the top, to what stands there.
#[derive(Debug)]
pub struct Picture(BTreeMap<PathBuf, String>);

impl Picture {
    /// Looks at everything below `top`.
    pub fn take(top: &Path) -> Result<Self, String> {
        let mut seen = BTreeMap::new();
        let mut folders = vec![top.to_owned()];
        while let Some(folder) = folders.pop() {
            let why = |what: &str, path: &Path, e: io::Error| format!("{what} {path:?}: {e}");
            let list = |e| why("list", &folder, e);
            for entry in fs::read_dir(&folder).map_err(list)? {
                let path = entry.map_err(list)?.path();
                let meta = fs::symlink_metadata(&path).map_err(|e| why("stat", &path, e))?;
                let content = content(&path, &meta).map_err(|e| why("read", &path, e))?;
                let name = path.strip_prefix(top).expect("it lies below").to_owned();
                let changed = (meta.mtime(), meta.mtime_nsec());
                let entry = format!("{} {changed:?} {content}", attributes(&meta));
                seen.insert(name, entry);
                if meta.is_dir() {
                    folders.push(path);
                }
            }
        }
        Ok(Self(seen))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What differs in `later`, a line each.
    pub fn differences(&self, later: &Self) -> Vec<String> {
        let names = self.0.keys().chain(later.0.keys().filter(|name| !self.0.contains_key(*name)));
        let differing = names.filter(|name| self.0.get(*name) != later.0.get(*name));
        let tell = |name: &PathBuf| {
            let [was, is] = [self.0.get(name), later.0.get(name)];
            format!("{}: {was:?} became {is:?}", name.display())
        };
        differing.take(TOLD_MAX).map(tell).collect()
    }
}

fn attributes(meta: &Metadata) -> String {
    // The size of a directory is the filesystem's own affair.
    let size = if meta.is_dir() { 0 } else { meta.len() };
    format!(
        "{:o} {}:{} links {} size {size} device {}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.nlink(),
        meta.rdev()
    )
}

fn content(path: &Path, meta: &Metadata) -> io::Result<String> {
    if meta.is_symlink() {
        return Ok(format!("-> {:?}", fs::read_link(path)?));
    }
    if !meta.is_file() {
        return Ok(String::new());
    }
    let mut hasher = blake3::Hasher::new();
    let mut from = File::open(path)?.take(CONTENT_MAX);
    let mut piece = vec![0; 1 << 20];
    loop {
        match from.read(&mut piece)? {
            0 => return Ok(hasher.finalize().to_hex().to_string()),
            read => hasher.update(&piece[..read]),
        };
    }
}

#[test]
fn a_changed_tree_is_another_picture() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path();
    fs::create_dir(top.join("d")).unwrap();
    fs::write(top.join("d/f"), b"one").unwrap();
    std::os::unix::fs::symlink("f", top.join("d/l")).unwrap();
    let before = Picture::take(top).unwrap();
    assert_eq!(before.len(), 3);
    assert!(before.differences(&Picture::take(top).unwrap()).is_empty());
    fs::write(top.join("d/f"), b"two").unwrap();
    let after = Picture::take(top).unwrap();
    assert_eq!(before.differences(&after).len(), 1, "a content changed, and nothing else");
    let file = File::options().write(true).open(top.join("d/f")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(after.differences(&Picture::take(top).unwrap()).len(), 1, "a time changed");
    fs::remove_file(top.join("d/l")).unwrap();
    assert!(after.differences(&Picture::take(top).unwrap()).len() >= 2);
}
