//! Sealed bytes elsewhere: what a remote is, how to reach one, and how to check what it says.
//!
//! The ground floor. It knows blobs, proofs, identities, logs of signed entries, links and stores;
//! it holds no key that opens a file and no code that could use one. The modules are listed from
//! roof to ground, and a module imports only modules below it.

pub mod node;
pub mod link;
pub mod wire;
pub mod wrap;
pub mod member;
pub mod logs;
pub mod store;
pub mod entry;
pub mod proof;
pub mod identity;
pub mod cbor;
mod thread;
pub mod error;
pub mod blob;
pub mod foreground;
pub mod env;

pub use error::{Error, Result};
