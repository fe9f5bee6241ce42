//! What a layer is to the cache, and where what is not here comes from.

use std::ops::Range;

use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::proof::Verified;

use crate::error::Result;

/// A layer as the cache knows it: a name and a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerRef {
    /// The blob's name.
    pub id: BlobId,
    /// Its length in bytes.
    pub len: u64,
}

/// Where what is not here comes from.
pub trait Source: Send + Sync {
    /// At least the bytes of `range`, verified.
    ///
    /// # Errors
    /// When no remote could give them.
    fn fetch(&self, layer: &LayerRef, range: Range<u64>) -> Result<Verified>;
}
