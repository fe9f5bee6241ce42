//! A store: six methods over the blobs of one drive. Everything else is a wrapper around them.

pub mod conformance;
pub mod directory;
pub mod memory;

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::blob::{BLOB_BYTES_MAX, BlobId};
use crate::error::{Error, Result};

pub use crate::proof::Slice;

/// Bytes a drive has and may have on one remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Bytes stored, outboards included.
    pub used: u64,
    /// Bytes allowed, if there is a limit.
    pub quota: Option<u64>,
    /// Number of blobs.
    pub blobs: u64,
}

/// A blob a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub id: BlobId,
    /// Its length in bytes, outboard not counted.
    pub len: u64,
}

/// The bytes of a blob on their way into a store.
pub struct Body {
    /// How many bytes there are.
    pub len: u64,
    source: Source,
}

enum Source {
    Bytes(Bytes),
    Stream(Box<dyn AsyncRead + Send + Unpin>),
}

impl Body {
    /// Bytes in memory; can be sent again after a failure.
    pub fn bytes(bytes: Bytes) -> Self {
        Self { len: bytes.len() as u64, source: Source::Bytes(bytes) }
    }

    /// `len` bytes from a stream; can be read once.
    pub fn stream(len: u64, stream: Box<dyn AsyncRead + Send + Unpin>) -> Self {
        Self { len, source: Source::Stream(stream) }
    }

    /// The same bytes once more, if they are in memory.
    pub fn again(&self) -> Option<Self> {
        self.in_memory().map(Self::bytes)
    }

    /// The bytes, if they are in memory.
    pub fn in_memory(&self) -> Option<Bytes> {
        match &self.source {
            Source::Bytes(bytes) => Some(bytes.clone()),
            Source::Stream(_) => None,
        }
    }

    /// A reader over the bytes.
    pub fn reader(self) -> Box<dyn AsyncRead + Send + Unpin> {
        match self.source {
            Source::Bytes(bytes) => Box::new(std::io::Cursor::new(bytes)),
            Source::Stream(stream) => stream,
        }
    }
}

/// Keeps the sealed blobs of one drive.
///
/// Must: `put` returns only after the blob is durable and its hash was checked; a blob is visible
/// whole or not at all; putting what is there already succeeds.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Stores the bytes of `body` under `id`, which must be their hash.
    async fn put(&self, id: BlobId, body: Body) -> Result<()>;
    /// The slice of `range` (bytes of the blob; clamped to its end) with its proof.
    async fn get(&self, id: BlobId, range: Range<u64>) -> Result<Slice>;
    /// For each id, the blob's length if it is held.
    async fn has(&self, ids: &[BlobId]) -> Result<Vec<Option<u64>>>;
    /// Up to `limit` blobs with ids above `after`, in ascending order.
    async fn list(&self, after: Option<BlobId>, limit: usize) -> Result<Vec<Held>>;
    /// Removes a blob; succeeds when it is not there.
    async fn delete(&self, id: BlobId) -> Result<()>;
    /// What is used and allowed.
    async fn space(&self) -> Result<Space>;
}

/// The refusal of a body that no blob can be.
fn too_long(len: u64) -> Error {
    Error::malformed("blob", format_args!("{len} bytes, more than {BLOB_BYTES_MAX}"))
}
