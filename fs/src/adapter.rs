//! The kernel's view of a drive: each FUSE request decoded, handed to the core, answered.
//!
//! Nothing about files is decided here; what is decided here is what the kernel may remember and
//! which thread may wait:
//!
//! - The kernel caches names, attributes and pages for an hour, since every change either comes
//!   through it or is announced by [`Core::on_change`] and then invalidated by a thread of its own.
//! - Dirty pages that must reach the core before a RENAME or an LSEEK are called in by the handler,
//!   which waits for the kernel. Two of the loop's threads never carry what may wait long, and one
//!   of them not even a short write, so that one is left for the WRITE and for looking up.
//! - What may wait long (a read from a remote, a write against a full journal, an fsync) leaves
//!   the loop for another pool once too few of its threads are free.
//! - A panic costs its request an EIO and a line in the log, never the mount.
//!
//! The kernel checks permissions (`default_permissions`), keeps locks, and sends no OPEN, RELEASE or
//! FLUSH.

mod filesystem;
mod state;
mod listing;
mod kernel;
mod reply;
mod standing;
mod loans;
mod pool;
mod convert;
mod errno;
mod tree;
mod core;

pub use self::core::Core;
pub use self::core::words;
pub use self::filesystem::Adapter;
pub use self::kernel::Kernel;
pub use self::tree::Rooted;
