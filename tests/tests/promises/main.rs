//! What rdrivefs promises of reliability, each promise a test that carries its number.
//!
//! Real mounts served by real daemons, which are killed, frozen and cut off from their node. The
//! tests here take seconds each; the long counts of the same are ignored tests.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod away;
mod durable;
mod ending;
mod files;
mod flips;
mod frozen;
mod handles;
mod programs;
mod standing;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rdrivefs_tests::world::{Device, World, run};

/// Bytes that no compressor makes smaller, the same for the same seed.
fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A device with a drive and no remote.
fn alone(world: &World) -> Device {
    let a = world.device("a");
    a.ok(&["init", "--no-passphrase", "--recovery-file", text(&world.path("phrase"))]);
    a
}

/// The program that `user.c` is.
fn user(world: &World) -> PathBuf {
    let (source, program) = (world.path("user.c"), world.path("user"));
    fs::write(&source, include_str!("user.c")).unwrap();
    let said = run(Command::new("cc").args(["-O1", "-Wall", "-o"]).arg(&program).arg(&source));
    assert_eq!((said.code, &*said.err), (Some(0), ""), "{said:?}");
    program
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[track_caller]
fn holds(dir: &Path, name: &str, bytes: &[u8]) {
    let read = fs::read(dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(read.len(), bytes.len(), "{name} is not whole");
    assert!(read == bytes, "{name} is not what was written");
}
