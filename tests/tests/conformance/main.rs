//! Suites that others wrote, each driven against a drive of its own: a node, a daemon, a mount.
//!
//! pjdfstest, fsx, stress-ng, fio, dbench, fs_mark and the sqlite3 shell judge the mount; nothing
//! here does but by what they say. A suite passes when nothing failed that `conformance/allow.txt`
//! does not list, no line of that list is stale, at least as many cases ran as its floor says, and
//! the drive came through: the same daemon lives, unmounting ends well, and what the suite left
//! behind is the same after mounting again.
//!
//! Quick variants run in every run; those that take minutes are ignored and run by
//! `tests/run --full`. They need root; pjdfstest and fsx are installed by `tests/tools`, the rest by
//! `packaging/needs`. A suite that is missing fails.

#![allow(clippy::unwrap_used, unreachable_pub, reason = "a test")]

mod allow;
mod bed;
mod child;
mod database;
mod exerciser;
mod load;
mod notice;
mod picture;
mod posix;
mod stress;
mod tools;
mod verdict;
mod verify;
