//! The drive: what the floor above holds in its hands, and the library's front door.
//!
//! A drive is opened once, by one process, and then read, written, synced, verified and evicted
//! from any thread. Opening replays the journal; nothing runs in the background until
//! [`Drive::start`].

mod found;
mod jobs;
mod parts;
mod tell;
mod walk;

pub use parts::Drive;
