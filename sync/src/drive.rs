//! The drive: what the floor above holds in its hands, and the library's front door.
//!
//! A drive is opened once, by one process, and then read, written, synced, verified and evicted
//! from any thread. Opening replays the journal; nothing runs in the background until
//! [`Drive::start`].
//!
//! ```
//! use rdrivefs_sync::{drive::Drive, home::Roots, id::Ino, keybag::Unlock, remote::env::Env};
//! use rdrivefs_sync::{report::DrivePath, tree::words::Caller};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let home = Roots::under(dir.path()).home("default")?;
//! let (drive, phrase) = Drive::create(&home, &Unlock::KeyFile, Env::real())?;
//! assert_eq!(phrase.words().count(), 24);
//!
//! let me = Caller { uid: 1000, gid: 1000, umask: 0o022 };
//! let file = drive.tree().create(&me, Ino::ROOT, b"hello", 0o644)?.ino;
//! drive.tree().write(file, 0, b"sealed")?;
//! drive.tree().sync(file)?;
//! drop(drive);
//!
//! let drive = Drive::open(&home, &Unlock::KeyFile, Env::real())?;
//! let listed = drive.list(&DrivePath(b"/".to_vec()), None)?;
//! assert!(listed.iter().any(|entry| entry.path.0 == b"/hello"));
//! let file = drive.tree().lookup(Ino::ROOT, b"hello")?;
//! assert_eq!(drive.tree().read(file.ino, 0, 4096)?, b"sealed");
//! # Ok(())
//! # }
//! ```
//!
//! With a remote come `remote_add`, `sync`, `verify` and `evict`: see `examples/embed.rs`.

mod authority;
mod conflicts;
mod doctor;
mod history;
mod jobs;
mod kept;
mod mend;
mod pairing;
mod parts;
mod rebuild;
mod found;
mod known;
mod news;
mod settle;
mod tell;
mod trust;
mod usage;

pub use history::Which;
pub use mend::{Fault, MendedIndex, Origin};
pub use parts::Drive;
pub use trust::Named;
