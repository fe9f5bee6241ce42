//! Real mounts of the adapter, on a filesystem in memory and on the tree of a drive.
//!
//! Needs /dev/fuse and the right to mount: run as root, or with `fusermount3` installed. Some tests
//! serve the mount from a process of their own (this program again, as `daemon`), which they kill.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "a test"
)]

#[path = "../../examples/null/memory.rs"]
mod memory;

mod daemon;
mod differential;
mod kernel;
mod lifecycle;
mod programs;
mod semantics;
mod tree;
