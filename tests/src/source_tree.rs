//! A tree of real source files to copy into a drive: this workspace's own and its dependencies'.

use std::fs;
use std::path::{Path, PathBuf};

/// Copies real source files into `to` until there are `files` of them; returns how many bytes.
///
/// They come from the registry folder that cargo built this workspace from.
///
/// # Panics
/// When there are no sources to copy.
pub fn copy_sources(to: &Path, files: usize) -> u64 {
    let mut left = files;
    let mut bytes = 0;
    for package in packages() {
        let name = package.file_name().expect("a package folder has a name");
        copy(&package, &to.join(name), &mut left, &mut bytes);
        if left == 0 {
            return bytes;
        }
    }
    panic!("there are only {} source files to copy", files - left);
}

fn packages() -> Vec<PathBuf> {
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo"));
    let registry = cargo.or(home).expect("cargo has a home").join("registry/src");
    let mut packages: Vec<_> =
        children(&registry).iter().flat_map(|index| children(index)).collect();
    packages.sort();
    packages
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn copy(from: &Path, to: &Path, left: &mut usize, bytes: &mut u64) {
    fs::create_dir_all(to).expect("a folder can be made");
    let mut entries = children(from);
    entries.sort();
    for entry in entries {
        let target = to.join(entry.file_name().expect("an entry has a name"));
        if *left == 0 {
            return;
        }
        if entry.is_dir() {
            copy(&entry, &target, left, bytes);
        } else if entry.is_file() {
            *bytes += fs::copy(&entry, &target).expect("a source file can be copied");
            *left -= 1;
        }
    }
}
