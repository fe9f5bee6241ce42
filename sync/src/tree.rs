//! The tree: the filesystem itself, free of the kernel.
//!
//! Every change is first a record of the journal, then applied: names and attributes of links in
//! the index's open transaction, files as nodes in memory. [`Tree::flush`] writes the nodes that
//! changed and the journal's position in one transaction, so that the index stands at an exact
//! position and a crash is mended by applying the records behind it. `fsync` is the journal's
//! alone.
//!
//! Locks, in the order they are taken: the gate (shared by every change, alone for a flush), the
//! names (one change of names at a time), a node, the index.

pub mod acl;
mod apply;
mod conflicts;
mod copies;
mod core;
pub mod extents;
mod files;
mod hearing;
mod merging;
mod names;
mod naming;
mod news;
pub mod node;
mod op;
mod open;
mod publishing;
mod rings;
mod salvage;
mod restoring;
mod sealing;
mod settling;
mod still;
mod tomb;
mod touching;
mod unsettled;
mod upkeep;
mod upkeep_state;
pub mod words;
mod xattrs;

pub use self::core::{Chunks, Tree};
pub use conflicts::{Conflict, Dispute};
pub use merging::{Attributes, Merging, Version};
pub use news::NewsSince;
pub use publishing::{Draft, LinkDraft, NodeDraft, Publishing, TombDraft, XattrDraft};
pub use restoring::Restored;
pub use sealing::{NewContent, SealJob};
pub use still::Still;
pub use upkeep::Unsealed;
