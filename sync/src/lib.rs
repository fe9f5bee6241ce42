//! Meaning and secrecy: the middle floor, and an embeddable library.
//!
//! What a drive is lives here: keys, chunks, layers, records, the index, the journal, the cache and
//! the engine that pushes, proves, evicts and pulls. It knows nothing of the kernel or a terminal.
//! The modules are listed from roof to ground, and a module imports only modules below it.

pub mod drive;
pub mod bench;
pub mod engine;
pub mod state;
pub mod room;
pub mod evict;
pub mod verify;
pub mod rewind;
pub mod history;
pub mod publish;
pub mod merge;
pub mod push;
pub mod seals;
mod gc;
pub mod authority;
pub mod log;
pub mod content;
pub mod remotes;
pub(crate) mod walk;
pub mod tree;
pub mod cache;
pub mod index;
pub mod journal;
pub mod progress;
pub mod report;
pub mod layer;
pub mod compress;
pub mod chunk;
pub mod pairing;
pub mod view;
pub mod record;
pub mod keyring;
pub mod keybag;
pub mod keys;
pub mod seal;
pub mod home;
pub mod id;
pub mod error;

pub use error::{Error, Result};
pub use rdrivefs_remote as remote;
