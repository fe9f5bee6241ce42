//! The drive: what the floor above holds in its hands, and the library's front door.
//!
//! A drive is opened once, by one process, and then read, written, synced, verified and evicted
//! from any thread. Opening replays the journal; nothing runs in the background until
//! [`Drive::start`].

mod doctor;
mod found;
mod jobs;
mod kept;
mod parts;
mod settle;
mod tell;
mod trust;
mod usage;

pub use parts::Drive;
pub use trust::Named;
