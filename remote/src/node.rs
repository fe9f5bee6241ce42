//! The node: a program that keeps sealed bytes for others.
//!
//! It serves the protocol of `wire` over QUIC. Each authorised drive has a space of its own: a
//! store, logs and a quota that share nothing with any other drive's, so a question about a foreign
//! blob and one about a blob that never was are the same question. What a node believes is a TLS
//! key, a signed membership log and files in its store directory; it holds no key that opens a
//! file. No name from the wire ever touches a path: only parsed 32-byte arrays do.
//!
//! Store directory (everything 0700/0600, atomically replaced, durable before it counts):
//! ```text
//! format               one line: the version of this layout
//! lock                 held while a node runs
//! node.key             the node's ed25519 seed, 64 hexadecimal digits
//! listen               the URL of the node that runs or ran last
//! node.sock            answers `status` while a node runs
//! touched              empty; written to see whether the disk takes it
//! authorized_keys/K    TOML, K = a drive's root key in hexadecimal: quota, added_ms, invite
//! invites/H.toml       TOML, H = hash of an invite's secret: quota, expires_ms
//! spaces/D/            D = a drive's id: blobs/ and logs/
//! ```

pub mod cli;
pub mod running;
mod http;
mod listen;
mod answer;
mod gate;
mod keeper;
pub mod status;
mod session;
mod space;
mod roll;
mod ledger;
pub mod invite;
pub mod allow;
mod mailbox;
mod pace;
mod pieces;
mod metrics;
pub mod scrub;
pub mod place;
pub mod config;

pub use config::{Config, Limits, RETAIN_MS};
pub use running::Node;
