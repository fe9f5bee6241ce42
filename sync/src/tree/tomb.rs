//! Tombstones as the index keeps them, and the registers of links.

use minicbor::{Decode, Encode};

use crate::error::{Error, Result};
use crate::id::{FileId, LinkId, VersionId};
use crate::index::Index;
use crate::index::entries::EntryRow;
use crate::record::Stamp;
use crate::tree::unsettled::{Place, Unsettled};

/// What the records say of a link: the latest wins.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Register {
    /// Where it stands.
    #[n(0)]
    pub(super) place: Place,
    /// The file it leads to.
    #[n(1)]
    pub(super) child: u64,
    /// When and by whom it was put there.
    #[n(2)]
    pub(super) stamp: Stamp,
}

/// What was seen when a link was removed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct TombRow {
    /// The link's place.
    #[n(0)]
    pub(super) saw: Stamp,
    /// The versions of its file.
    #[n(1)]
    pub(super) heads: Vec<u64>,
    /// The link that took its place, if one did: the two are told together.
    #[n(2)]
    pub(super) by: Option<u64>,
    /// What the link was, so that it can come back.
    #[n(3)]
    pub(super) was: Option<Register>,
    /// That place was never told: should the link come back, it is.
    #[n(4)]
    #[cbor(default)]
    pub(super) untold_place: bool,
}

impl Register {
    /// What the records say of a link that stands in the tree.
    pub(super) fn of(index: &Index, entry: &EntryRow) -> Result<Self> {
        let place = match Unsettled::of(index, entry.link)? {
            Some(row) => row.moved.unwrap_or(row.place),
            None => Place { parent: entry.parent.file().0, name: entry.name.clone() },
        };
        Ok(Self { place, child: entry.child.file().0, stamp: entry.stamp })
    }

    /// The directory.
    pub(super) fn parent(&self) -> FileId {
        FileId(self.place.parent)
    }
}

impl TombRow {
    /// The tombstone of a link.
    pub(super) fn of(index: &Index, link: LinkId) -> Result<Option<Self>> {
        index.tomb(link.0)?.map(|row| Self::decode(&row)).transpose()
    }

    /// Whether the link was never told of: others may only be waiting for what took its place.
    pub(super) fn is_untold(&self) -> bool {
        self.saw.lamport == 0
    }

    /// What two tombstones of one link say together.
    pub(super) fn joined(mut self, other: Self) -> Self {
        self.saw = self.saw.max(other.saw);
        self.heads.extend(other.heads);
        self.heads.sort_unstable();
        self.heads.dedup();
        self.untold_place = if self.was.is_some() { self.untold_place } else { other.untold_place };
        Self { by: self.by.or(other.by), was: self.was.or(other.was), ..self }
    }

    /// Whether whoever removed the link knew all of these versions.
    pub(super) fn has_seen(&self, heads: impl IntoIterator<Item = VersionId>) -> bool {
        heads.into_iter().all(|id| self.heads.contains(&id.0))
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("memory takes every write")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        minicbor::decode(bytes).map_err(|e| Error::corrupt("a row of the index table tomb", e))
    }
}
