//! Blobs: immutable sealed bytes, named by their BLAKE3 hash, which is also their Bao root.

use std::fmt;
use std::str::FromStr;

use crate::foreground::{PIECE_BYTES, breathe};

/// Longest blob: four of the largest layers, so that a store's memory and a put's time are bounded.
pub const BLOB_BYTES_MAX: u64 = 64 << 20;

/// The name of a blob: the BLAKE3 hash of its bytes, equal to the root of its Bao tree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub [u8; 32]);

/// Text that is not a blob's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotABlobId;

impl BlobId {
    /// The id of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for piece in bytes.chunks(PIECE_BYTES) {
            hasher.update(piece);
            breathe();
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// The raw hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

impl fmt::Display for NotABlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not 64 lower-case hexadecimal digits")
    }
}

impl std::error::Error for NotABlobId {}

impl FromStr for BlobId {
    type Err = NotABlobId;

    /// Takes exactly 64 lower-case hexadecimal digits, the only spelling there is.
    fn from_str(text: &str) -> Result<Self, NotABlobId> {
        let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let mut id = [0; 32];
        if !lower || hex::decode_to_slice(text, &mut id).is_err() {
            return Err(NotABlobId);
        }
        Ok(Self(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let id = BlobId::of(b"");
        let text = id.to_string();
        assert_eq!(text, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
        assert_eq!(text.parse(), Ok(id));
        for bad in [&text[1..], &text.to_uppercase(), &format!("{text}0"), &text.replace('a', "g")]
        {
            assert_eq!(bad.parse::<BlobId>(), Err(NotABlobId), "{bad}");
        }
        assert_eq!("../".repeat(22)[..64].parse::<BlobId>(), Err(NotABlobId));
    }
}
