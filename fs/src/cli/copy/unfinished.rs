//! Temporary names of copies, and what a copy that was killed leaves under them.
//!
//! All such names of one copy have one random word in them. As long as a copy into the drive runs,
//! it holds a note, locked, among the drive's state on this computer: its name has the word, and in
//! it are the folders where the word was used. Must: what is removed has the word of a note that
//! nobody holds any more. So nothing goes that a running copy, another device or a person made.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};

use rdrivefs_sync::remote::env::Env;

use rdrivefs_sync::tree::words::Kind;

use super::side::Side;
use crate::failure::{Failure, Result};

/// What temporary names begin with, before the word and a number.
const NAME: &str = ".rdrivefs-";
/// What the names of notes begin with, before the word.
const NOTE: &str = "copy-";
/// Hexadecimal digits of a word: two copies never have the same.
const WORD_DIGITS: usize = 16;

/// The temporary names of one copy.
pub(super) struct Temporaries {
    word: String,
    given: u64,
    note: Option<Note>,
}

/// What there is to remove should this process be killed.
struct Note {
    file: File,
    path: PathBuf,
    /// Where the paths of the drive begin.
    root: PathBuf,
    /// The folder noted last.
    folder: Option<PathBuf>,
    /// Something could not be removed.
    kept: bool,
}

impl Temporaries {
    /// For a copy out of the drive, of which nothing is noted.
    pub(super) fn outside() -> Self {
        let word = format!("{:016x}", u64::from_le_bytes(Env::real().random()));
        Self { word, given: 0, note: None }
    }

    /// For a copy into the drive, whose paths begin with `root`; noted in the directory `state`.
    pub(super) fn inside(state: &Path, root: &Path) -> Result<Self> {
        let mut temporaries = Self::outside();
        let path = state.join(format!("{NOTE}{}", temporaries.word));
        let what = || Failure::io(format!("write {}", path.display()));
        let file = loop {
            let mut new = File::options();
            let new = new.write(true).create(true).truncate(false).mode(0o600);
            let file = new.open(&path).map_err(what())?;
            file.lock().map_err(what())?;
            // Whoever sweeps may have taken it for one that nobody holds.
            if file.metadata().map_err(what())?.nlink() > 0 {
                break file;
            }
        };
        let root = root.to_owned();
        temporaries.note = Some(Note { file, path, root, folder: None, kept: false });
        Ok(temporaries)
    }

    /// A name for what is to become `path` once it is whole.
    pub(super) fn beside(&mut self, path: &Path) -> Result<PathBuf> {
        if let (Some(note), Some(folder)) = (&mut self.note, path.parent()) {
            note.add(folder)?;
        }
        self.given += 1;
        Ok(path.with_file_name(format!("{NAME}{}-{}", self.word, self.given)))
    }

    /// What has such a name could not be removed: the next copy is to try again.
    pub(super) fn keep_note(&mut self) {
        if let Some(note) = &mut self.note {
            note.kept = true;
        }
    }
}

impl Note {
    /// Notes a folder before there is anything in it that may have to go.
    fn add(&mut self, folder: &Path) -> Result<()> {
        if self.folder.as_deref() == Some(folder) {
            return Ok(());
        }
        let below = folder.strip_prefix(&self.root).expect("what is copied into lies in the drive");
        let line = [below.as_os_str().as_bytes(), b"\0"].concat();
        self.file
            .write_all(&line)
            .map_err(Failure::io(format!("write {}", self.path.display())))?;
        self.folder = Some(folder.to_owned());
        Ok(())
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if !self.kept {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Whether a name is that of a file which is not whole yet.
pub(super) fn is_temporary(name: &OsStr) -> bool {
    let after = name.as_bytes().strip_prefix(NAME.as_bytes());
    let Some((word, number)) = after.and_then(|after| after.split_at_checked(WORD_DIGITS)) else {
        return false;
    };
    let digits = |bytes: &[u8]| !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    is_word(word) && number.strip_prefix(b"-").is_some_and(digits)
}

fn is_word(bytes: &[u8]) -> bool {
    let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    bytes.len() == WORD_DIGITS && bytes.iter().all(digit)
}

/// The notes of copies that were killed: where each lies, its word, and itself, locked.
fn killed(state: &Path) -> impl Iterator<Item = (PathBuf, Vec<u8>, File)> {
    fs::read_dir(state).into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name();
        let word = name.as_bytes().strip_prefix(NOTE.as_bytes()).filter(|word| is_word(word))?;
        let note = File::open(entry.path()).ok()?;
        note.try_lock().ok()?;
        Some((entry.path(), word.to_vec(), note))
    })
}

/// Whether a copy into the drive was killed and may have left something in it.
pub(in crate::cli) fn any_killed(state: &Path) -> bool {
    killed(state).next().is_some()
}

/// Removes from the drive what killed copies left; what does not go is tried again next time.
pub(super) fn sweep(state: &Path, root: &Path, side: &dyn Side) {
    for (path, word, mut note) in killed(state) {
        let mut folders = Vec::new();
        if note.read_to_end(&mut folders).is_err() {
            continue;
        }
        let start = [NAME.as_bytes(), &word, b"-"].concat();
        // What follows the last end of a name was not used any more.
        let mut folders: Vec<&[u8]> = folders.split(|byte| *byte == 0).collect();
        folders.pop();
        folders.sort_unstable();
        folders.dedup();
        let mut all = true;
        for below in folders {
            let below = Path::new(OsStr::from_bytes(below));
            let inside = below.components().all(|part| matches!(part, Component::Normal(_)));
            all &= !inside || clear(side, &root.join(below), &start);
        }
        if all {
            drop(fs::remove_file(path));
        }
    }
}

/// Removes what begins with `start` from a folder; whether nothing of it is left.
fn clear(side: &dyn Side, folder: &Path, start: &[u8]) -> bool {
    let names = match side.meta(folder) {
        Ok(None) => return true,
        Ok(Some(_)) if side.is_folder(folder) => side.names(folder),
        // It may lead to where something is left, and leads nowhere without a mount.
        Ok(Some(meta)) => return meta.kind != Kind::Symlink,
        Err(failure) => Err(failure),
    };
    let is_file = |above: &Path| {
        side.meta(above).is_ok_and(|meta| meta.is_some_and(|meta| meta.kind == Kind::File))
    };
    if names.is_err() && folder.ancestors().skip(1).any(is_file) {
        return true;
    }
    let Ok(names) = names else { return false };
    let left = names.iter().filter(|name| name.as_bytes().starts_with(start) && is_temporary(name));
    left.filter(|name| side.remove(&folder.join(name), false).is_err()).count() == 0
}

#[cfg(test)]
mod tests {
    use super::super::disk::Disk;
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_copy_left_goes_and_nothing_else() {
        let (state, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (state, root) = (state.path(), root.path());
        fs::create_dir(root.join("sub")).unwrap();
        let person = [".rdrivefs-1-1", ".rdrivefs-0123456789abcdef-1", "file"];
        person.iter().for_each(|name| fs::write(root.join(name), "").unwrap());
        let mut running = Temporaries::inside(state, root).unwrap();
        let kept = running.beside(&root.join("a")).unwrap();
        fs::write(&kept, "").unwrap();
        let mut killed = Temporaries::inside(state, root).unwrap();
        for path in ["a", "sub/b", "c", "gone/d"] {
            drop(fs::write(killed.beside(&root.join(path)).unwrap(), ""));
        }
        assert_eq!((names(root).len(), names(&root.join("sub")).len()), (7, 1));
        sweep(state, root, &Disk);
        assert_eq!((names(root).len(), names(state).len()), (7, 2), "both run");
        assert!(!any_killed(state));
        killed.keep_note();
        drop(killed);
        assert!(any_killed(state));
        sweep(state, root, &Disk);
        let mut left = vec!["file", "sub", person[0], person[1]];
        left.push(kept.file_name().unwrap().to_str().unwrap());
        left.sort_unstable();
        assert_eq!(names(root), left);
        assert_eq!((names(&root.join("sub")).len(), names(state).len()), (0, 1));
        drop(running);
        assert_eq!(names(state).len(), 0, "a copy that ends well takes its note away");
    }

    #[test]
    fn names_that_persons_give_are_not_temporary() {
        let made = Temporaries::outside().beside(Path::new("/d/f")).unwrap();
        assert!(is_temporary(made.file_name().unwrap()), "{made:?}");
        for name in [".rdrivefs-1-1", ".rdrivefs-0123456789abcdef-", ".rdrivefs-0123456789ABCDEF-1"]
        {
            assert!(!is_temporary(OsStr::new(name)), "{name}");
        }
    }
}
