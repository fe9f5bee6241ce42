//! A tree of small files, and what is done to all of them: the small-file rows.
//!
//! Files lie in folders of [`PER_FOLDER`], so that a bigger tree has more folders and not longer
//! ones. No two files have the same content; half of each compresses away, as in text.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::measure::{noise, timed};

/// Files of one folder.
pub(crate) const PER_FOLDER: usize = 250;
/// Bytes of a small file.
pub(crate) const SMALL_BYTES: usize = 1024;

/// Folders of small files; every method returns the seconds it took.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    folders: Vec<PathBuf>,
    prefix: &'static str,
    text: Vec<u8>,
}

impl Tree {
    /// A tree of at least `files` files below `root`, to be made by [`Tree::create`].
    pub(crate) fn new(root: &Path, files: usize) -> Self {
        Self::between(root, 0, files)
    }

    /// The part of a tree that comes after its first `from` files.
    pub(crate) fn between(root: &Path, from: usize, to: usize) -> Self {
        let numbers = from.div_ceil(PER_FOLDER)..to.div_ceil(PER_FOLDER);
        let folders = numbers.map(|n| root.join(format!("folder-{n:06}"))).collect();
        let text = hex::encode(noise(11, 64 << 10)).into_bytes();
        Self { folders, prefix: "file", text }
    }

    /// Some whole folders of it, evenly spread.
    pub(crate) fn some(&self, folders: usize) -> Self {
        let count = folders.min(self.folders.len());
        let picked = (0..count).map(|n| self.folders[n * self.folders.len() / count].clone());
        Self { folders: picked.collect(), ..self.clone() }
    }

    /// How many files there are.
    pub(crate) fn files(&self) -> usize {
        self.folders.len() * PER_FOLDER
    }

    fn paths(&self) -> Vec<PathBuf> {
        let folder = |folder: &PathBuf| -> Vec<PathBuf> {
            (0..PER_FOLDER).map(|n| folder.join(format!("{}-{n:03}.txt", self.prefix))).collect()
        };
        self.folders.iter().flat_map(folder).collect()
    }

    fn each(&self, mut work: impl FnMut(usize, &Path)) -> f64 {
        let paths = self.paths();
        timed(|| paths.iter().enumerate().for_each(|(n, path)| work(n, path))).1
    }

    /// Makes folders and files.
    pub(crate) fn create(&self) -> f64 {
        let mut folders = self.folders.iter();
        self.each(|n, path| {
            if n % PER_FOLDER == 0 {
                let folder = folders.next().expect("as many as there are");
                fs::create_dir_all(folder).expect("a folder can be made");
            }
            let mut file = File::create_new(path).expect("a file can be made");
            file.write_all(&self.body(n, path)).expect("it can be written");
        })
    }

    fn body(&self, n: usize, path: &Path) -> Vec<u8> {
        let name = path.to_string_lossy();
        let from = n * 37 % (self.text.len() - SMALL_BYTES);
        let mut body = name.as_bytes().to_vec();
        body.extend_from_slice(&self.text[from..from + SMALL_BYTES]);
        body.truncate(SMALL_BYTES);
        body
    }

    /// Lists every folder.
    pub(crate) fn list(&self) -> f64 {
        let (found, seconds) = timed(|| {
            let count = |folder: &PathBuf| fs::read_dir(folder).expect("it can be listed").count();
            self.folders.iter().map(count).sum::<usize>()
        });
        assert_eq!(found, self.files(), "nothing is missing");
        seconds
    }

    /// Asks for the length of every file.
    pub(crate) fn stat(&self) -> f64 {
        self.each(|_, path| {
            let meta = fs::symlink_metadata(path).expect("it is there");
            assert!(meta.len() >= SMALL_BYTES as u64, "nothing is cut");
        })
    }

    /// Reads every file.
    pub(crate) fn read(&self) -> f64 {
        let mut bytes = Vec::with_capacity(2 * SMALL_BYTES);
        self.each(|_, path| {
            bytes.clear();
            let read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
            assert!(read.expect("it can be read") >= SMALL_BYTES, "nothing is cut");
            black_box(&bytes);
        })
    }

    /// Opens every file to add a line, and closes it.
    pub(crate) fn append(&self) -> f64 {
        self.each(|_, path| {
            let mut file = File::options().append(true).open(path).expect("it is there");
            file.write_all(b"one more line\n").expect("it can be written");
        })
    }

    /// Saves every file as an editor does: beside it, made durable, renamed over it.
    pub(crate) fn save(&self) -> f64 {
        self.each(|n, path| {
            let beside = path.with_extension("tmp");
            let mut file = File::create(&beside).expect("a file can be made");
            file.write_all(&self.body(n + 1, path)).expect("it can be written");
            file.sync_all().expect("it is durable");
            drop(file);
            fs::rename(&beside, path).expect("it can be renamed");
        })
    }

    /// The tree as it is after [`Tree::rename`].
    pub(crate) fn renamed(&self) -> Self {
        Self { prefix: "renamed", ..self.clone() }
    }

    /// Gives every file another name: it is [`Tree::renamed`] then.
    pub(crate) fn rename(&self) -> f64 {
        let new = self.renamed().paths();
        self.each(|n, path| fs::rename(path, &new[n]).expect("it can be renamed"))
    }

    /// Removes every file and folder.
    pub(crate) fn delete(&self) -> f64 {
        let paths = self.paths();
        let remove = |folder: &PathBuf| fs::remove_dir(folder).expect("it is empty");
        timed(|| {
            paths.iter().for_each(|path| fs::remove_file(path).expect("it can be removed"));
            self.folders.iter().for_each(remove);
        })
        .1
    }
}
