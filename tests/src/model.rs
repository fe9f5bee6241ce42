//! A filesystem as slow and obvious as can be, to hold the real ones against.
//!
//! [`FsOp`] is one call of a filesystem by paths, or by one of a few open files. A [`Target`] is
//! anything that can carry such calls out and tell what it then holds; [`Model`] is the one that is
//! right by looking at it. Whoever compares gives both the same calls and expects the same answers
//! and the same [`Seen`]. Times are those of the caller's clock, for targets that keep to one.
//!
//! Permissions are the kernel's business and no part of this.

mod memory;
mod ops;
mod tree;

pub use memory::Model;
pub use ops::{Caller, FsOp, NAMES, Path, Rng, random_op};
pub use tree::{Clock, MemoryChunks, TreeTarget};

use std::collections::BTreeMap;

use rdrivefs_sync::error::Posix;
use rdrivefs_sync::record::{Kind, TimeNs};

/// What a call answers.
pub type Answer = Result<Told, Posix>;

/// What a call that succeeded tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// That it is done.
    Done,
    /// Bytes.
    Bytes(Vec<u8>),
    /// A number: an offset, a count.
    Number(u64),
}

/// Everything that can be seen of a filesystem, by path.
pub type Seen = BTreeMap<Vec<Vec<u8>>, SeenFile>;

/// What can be seen of one file.
#[derive(Clone, PartialEq, Eq)]
pub struct SeenFile {
    /// The smallest path of the same file, in the order of paths: says which names are one file.
    pub same_as: Vec<Vec<u8>>,
    /// Its kind.
    pub kind: Kind,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner and group.
    pub owner: (u32, u32),
    /// Names it has.
    pub nlink: u32,
    /// Its device number.
    pub rdev: u32,
    /// Its length.
    pub size: u64,
    /// Last reading, last change of content, last change, birth.
    pub times: [TimeNs; 4],
    /// Its bytes, or where a symlink leads.
    pub bytes: Vec<u8>,
    /// Where it has data, as runs.
    pub data: Vec<(u64, u64)>,
    /// Its extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl std::fmt::Debug for SeenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hash = blake3::hash(&self.bytes).to_hex();
        write!(
            f,
            "{:?} {:o} {:?} nlink {} size {} ",
            self.kind, self.mode, self.owner, self.nlink, self.size
        )?;
        write!(f, "times {:?} bytes {} data {:?} ", self.times, &hash[..8], self.data)?;
        write!(f, "xattrs {:?} same as {}", self.xattrs.keys(), self.same_as.len())
    }
}

/// Something that carries out the calls of a filesystem.
pub trait Target {
    /// Carries one out.
    fn apply(&mut self, op: &FsOp) -> Answer;
    /// Everything it holds.
    fn seen(&mut self) -> Seen;
}

/// The first difference of two sights, for a person to read.
pub fn difference(left: &Seen, right: &Seen) -> Option<String> {
    let show = |path: &Vec<Vec<u8>>| {
        let parts = path.iter().map(|part| {
            let end = part.len().min(12);
            String::from_utf8_lossy(&part[..end]).into_owned()
        });
        parts.collect::<Vec<_>>().join("/")
    };
    for (path, file) in left {
        match right.get(path) {
            None => return Some(format!("/{}: only the first has it: {file:?}", show(path))),
            Some(other) if other != file => {
                let at = file.bytes.iter().zip(&other.bytes).position(|(a, b)| a != b);
                return Some(format!(
                    "/{} differs (first byte {at:?}):\n  {file:?}\n  {other:?}",
                    show(path)
                ));
            }
            Some(_) => {}
        }
    }
    let more = right.iter().find(|(path, _)| !left.contains_key(*path))?;
    Some(format!("/{}: only the second has it: {:?}", show(more.0), more.1))
}
