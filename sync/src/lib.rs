//! Meaning and secrecy: the middle floor, and an embeddable library.
//!
//! What a drive is lives here: keys, chunks, layers, records, the index, the journal, the cache and
//! the engine that pushes, proves, evicts and pulls. It knows nothing of the kernel or a terminal.
//! The modules are listed from roof to ground, and a module imports only modules below it.

pub mod seal;
pub mod record;
pub mod id;
pub mod error;

pub use error::{Error, Result};
pub use rdrivefs_remote as remote;
