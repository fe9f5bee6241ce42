//! Tombstones as the index keeps them.

use minicbor::{Decode, Encode};

use crate::error::{Error, Result};
use crate::record::Stamp;

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
}

impl TombRow {
    pub(super) fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("memory takes every write")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        minicbor::decode(bytes).map_err(|e| Error::corrupt("a row of the index table tomb", e))
    }
}
