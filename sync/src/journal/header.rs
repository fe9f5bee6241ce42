//! The header of a piece, the file names, and the key of a segment.
//!
//! Each segment has a key of its own, drawn from the journal's key and a random salt, so a block
//! cannot be moved to another segment, nor an old segment pass for a new one of its number. The
//! commitment names that key and authenticates every field before it.

use crate::error::{Error, Result};
use crate::seal::{COMMITMENT_BYTES, Committed, Key};

use super::block::{Nonce, field};

/// The header of a piece.
pub(super) const HEADER_BYTES: usize = 128;
/// The offset of a segment's first block.
pub(super) const FIRST: u64 = HEADER_BYTES as u64;
/// The ending of a file that is not finished yet.
pub(super) const UNFINISHED: &str = ".new";

const MAGIC: &[u8; 8] = b"RDRVJRNL";
const VERSION: u16 = 1;
const SUITE: u16 = 1;
const SIGNED_BYTES: usize = HEADER_BYTES - COMMITMENT_BYTES;
const KEY_CONTEXT: &str = "rdrivefs v1 journal segment";
const PIECE_CONTEXT: &str = "rdrivefs v1 journal piece";

/// What a segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Records in their order.
    Log = 1,
    /// Staged bytes that records name.
    Data = 2,
}

/// Which file of the journal: a segment, and which of its pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PieceId {
    pub(super) segment: u32,
    pub(super) generation: u16,
}

/// What a piece says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) role: Role,
    pub(super) id: PieceId,
    /// The offset in the segment of the piece's first block.
    pub(super) base: u64,
    /// Log: the position of the piece's first record.
    pub(super) first: u64,
    /// Log: the last position known confirmed when the piece was made.
    pub(super) confirmed: u64,
    /// Log: the nonce of the block before the piece's first.
    pub(super) link: Nonce,
    pub(super) salt: Nonce,
}

impl Header {
    /// The key of the segment.
    pub(super) fn key(&self, journal: &Key) -> Key {
        let mut aad = [0; 6];
        aad[..2].copy_from_slice(&(self.role as u16).to_le_bytes());
        aad[2..].copy_from_slice(&self.id.segment.to_le_bytes());
        Committed::of(KEY_CONTEXT, journal, &self.salt, &aad).key
    }

    pub(super) fn encode(&self, segment: &Key) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..8].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10..12].copy_from_slice(&SUITE.to_le_bytes());
        out[12..14].copy_from_slice(&(self.role as u16).to_le_bytes());
        out[14..16].copy_from_slice(&self.id.generation.to_le_bytes());
        out[16..20].copy_from_slice(&self.id.segment.to_le_bytes());
        out[24..32].copy_from_slice(&self.base.to_le_bytes());
        out[32..40].copy_from_slice(&self.first.to_le_bytes());
        out[40..48].copy_from_slice(&self.confirmed.to_le_bytes());
        out[48..72].copy_from_slice(&self.link);
        out[72..96].copy_from_slice(&self.salt);
        let piece = Committed::of(PIECE_CONTEXT, segment, &self.salt, &out[..SIGNED_BYTES]);
        out[SIGNED_BYTES..].copy_from_slice(&piece.commitment);
        out
    }

    /// Reads the header of the file that goes by `role` and `id`, and its segment's key.
    ///
    /// # Errors
    /// [`Error::UnknownVersion`] for a format of another build, else [`Error::Corrupt`].
    pub(super) fn decode(
        journal: &Key,
        role: Role,
        id: PieceId,
        bytes: &[u8],
    ) -> Result<(Self, Key)> {
        let corrupt = |why: &str| Error::corrupt(place(id.segment, 0), why);
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(corrupt("the header is cut short"));
        };
        if &bytes[..8] != MAGIC {
            return Err(corrupt("not a journal segment"));
        }
        let header = Self {
            role,
            id,
            base: u64::from_le_bytes(field(bytes, 24)),
            first: u64::from_le_bytes(field(bytes, 32)),
            confirmed: u64::from_le_bytes(field(bytes, 40)),
            link: field(bytes, 48),
            salt: field(bytes, 72),
        };
        let key = header.key(journal);
        let (version, suite): ([u8; 2], [u8; 2]) = (field(bytes, 8), field(bytes, 10));
        let (version, suite) = (u16::from_le_bytes(version), u16::from_le_bytes(suite));
        if version != VERSION {
            let (what, version) = (place(id.segment, 0), version.into());
            return Err(Error::UnknownVersion { what, version });
        }
        if suite != SUITE {
            let (what, version) = (format!("{}, its suite,", place(id.segment, 0)), suite.into());
            return Err(Error::UnknownVersion { what, version });
        }
        let piece = Committed::of(PIECE_CONTEXT, &key, &header.salt, &bytes[..SIGNED_BYTES]);
        let checked = piece.check(&field(bytes, SIGNED_BYTES));
        checked.map_err(|_| corrupt("the header does not open under this key"))?;
        if header.encode(&key) != *bytes || header.base < FIRST {
            return Err(corrupt("the header is another file's"));
        }
        Ok((header, key))
    }
}

/// How an error names a place.
pub(super) fn place(segment: u32, at: u64) -> String {
    format!("journal segment {segment} at offset {at}")
}

/// The name of a piece's file.
pub(super) fn name(role: Role, id: PieceId) -> String {
    let role = match role {
        Role::Log => "log",
        Role::Data => "data",
    };
    format!("{role}-{:08x}-{:04x}", id.segment, id.generation)
}

/// What a file name stands for; `None` if it is none of ours.
pub(super) fn parse_name(file: &str) -> Option<(Role, PieceId)> {
    let mut parts = file.split('-');
    let role = match parts.next()? {
        "log" => Role::Log,
        "data" => Role::Data,
        _ => return None,
    };
    let segment = u32::from_str_radix(parts.next()?, 16).ok()?;
    let generation = u16::from_str_radix(parts.next()?, 16).ok()?;
    let id = PieceId { segment, generation };
    (name(role, id) == file).then_some((role, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        let id = PieceId { segment: 7, generation: 1 };
        let (link, salt) = ([3; 24], [4; 24]);
        Header { role: Role::Log, id, base: 500, first: 9, confirmed: 8, link, salt }
    }

    #[test]
    fn a_header_is_read_back_by_its_own_key_and_name_only() {
        let journal = Key::from([1; 32]);
        let header = header();
        let bytes = header.encode(&header.key(&journal));
        let decode = |key: &Key, role, id| Header::decode(key, role, id, &bytes);
        assert_eq!(decode(&journal, Role::Log, header.id).unwrap().0, header);
        assert!(decode(&Key::from([2; 32]), Role::Log, header.id).unwrap_err().is_corrupt());
        assert!(decode(&journal, Role::Data, header.id).unwrap_err().is_corrupt());
        let other = PieceId { segment: 7, generation: 0 };
        assert!(decode(&journal, Role::Log, other).unwrap_err().is_corrupt());
        for at in 0..bytes.len() {
            let mut bent = bytes;
            bent[at] ^= 1;
            let refused = Header::decode(&journal, Role::Log, header.id, &bent).unwrap_err();
            let unknown = matches!(refused, Error::UnknownVersion { .. });
            assert_eq!(unknown, (8..12).contains(&at), "byte {at}: {refused}");
        }
    }

    #[test]
    fn names_are_read_back_and_others_refused() {
        let id = PieceId { segment: 0x1f, generation: 2 };
        for role in [Role::Log, Role::Data] {
            assert_eq!(parse_name(&name(role, id)), Some((role, id)));
        }
        for bad in ["log-1f-0002", "log-0000001F-0002", "log-0000001f-0002.new", "log", "x-1-1"] {
            assert_eq!(parse_name(bad), None, "{bad}");
        }
    }
}
