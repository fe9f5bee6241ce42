//! The other process of these tests: `peer.c`, compiled for a test.

use std::path::{Path, PathBuf};
use std::process::Command;

use rdrivefs_tests::peer::Peer;

use crate::drive::{Drive, sh};

/// Compiles the peer beside the drive.
pub fn compile(drive: &Drive) -> PathBuf {
    let dir = drive.outside("peer");
    std::fs::write(dir.join("peer.c"), include_str!("peer.c")).unwrap();
    sh(&dir, "cc -O1 -Wall -Werror -o peer peer.c");
    dir.join("peer")
}

/// Starts the program that [`compile`] made.
pub fn start_peer(program: &Path, args: &[&str], path: &Path) -> Peer {
    Peer::of(Command::new(program).args(args).arg(path))
}
