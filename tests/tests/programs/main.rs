//! Programs that people use, on a mounted drive: what works in a local folder works there.
//!
//! Each module is a theme, each test mounts a drive of its own with the real program and drives it
//! with the real tools. What Rust does only in unsafe code (shared mappings, locks of another
//! process) is done by `peer.c`, which also is the other process. A tool that is not on this
//! machine is named together with what is left out for want of it. Long tests are ignored ones, in
//! `long`: `tests/run --full` runs them.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test that cannot go on has failed")]

mod attributes;
mod build;
mod copy;
mod drive;
mod evicted;
mod execute;
mod git;
mod locks;
mod long;
mod mapped;
mod names;
mod open;
mod peer;
mod persist;
mod save;
mod space;
mod sqlite;
mod watch;
