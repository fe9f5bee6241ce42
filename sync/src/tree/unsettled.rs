//! Links that do not stand plainly where their records put them.
//!
//! Such a link is *displaced* (its name was won by another, or its directory cannot hold it), it
//! leads to a *copy* (the losing side of a concurrent edit, which no record tells of), or it is
//! *kept* against a tombstone. Every device finds the same, so nobody publishes it, until somebody
//! touches it: then it is told as what it is by then.

use minicbor::{Decode, Encode};

use crate::error::{Error, Result};
use crate::id::{FileId, LinkId};
use crate::index::Index;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub(super) struct Place {
    /// The directory's file.
    #[n(0)]
    pub(super) parent: u64,
    /// The name.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) name: Vec<u8>,
}

/// How a link is unsettled.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Unsettled {
    /// The place it would have if it were won.
    #[n(0)]
    pub(super) place: Place,
    /// Where its record puts it, if it cannot be there.
    #[n(1)]
    pub(super) moved: Option<Place>,
    /// There is a tombstone that does not count.
    #[n(2)]
    pub(super) kept: bool,
    /// The file and the version that it leads to a copy of.
    #[n(3)]
    pub(super) copy: Option<CopyOf>,
}

/// What a copy is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct CopyOf {
    /// The file.
    #[n(0)]
    pub(super) file: u64,
    /// Its version.
    #[n(1)]
    pub(super) version: u64,
}

impl Unsettled {
    pub(super) fn of(index: &Index, link: LinkId) -> Result<Option<Self>> {
        let Some(row) = index.unsettled(link)? else { return Ok(None) };
        let row = minicbor::decode(&row)
            .map_err(|e| Error::corrupt("a row of the index table unsettled", e))?;
        Ok(Some(row))
    }

    pub(super) fn keep(&self, index: &Index, link: LinkId) -> Result<()> {
        let row = minicbor::to_vec(self).expect("memory takes every write");
        index.set_unsettled(link, (FileId(self.place.parent), &self.place.name), &row)
    }
}
