//! The header of a layer, what every part of the layer is bound to, and the sealed table's shell.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::seal::{self, COMMITMENT_BYTES, Committed, Key, NONCE_BYTES, TAG_BYTES, Tampered};

use super::shape::{HEADER_BYTES, LAYER_BYTES_MAX};
use super::toc::{Toc, TocChunk};

const MAGIC: &[u8; 8] = b"RDRVLAYR";
const VERSION: u16 = 1;
const SUITE: u16 = 1;
const CONTEXT: &str = "rdrivefs v1 layer";

/// The two seals under the committed key, which is fresh with every layer.
const NONCE_PLACE: [u8; NONCE_BYTES] = numbered(0);
const NONCE_TOC: [u8; NONCE_BYTES] = numbered(1);

const PLACE_BYTES: usize = 8;
const CLEAR_BYTES: usize = 8 + 2 + 2 + NONCE_BYTES + COMMITMENT_BYTES;
const _: () = assert!(CLEAR_BYTES + PLACE_BYTES + TAG_BYTES == HEADER_BYTES);

/// What everything in a layer is sealed to: moved into another, nothing opens.
#[derive(Debug, Clone, Copy)]
pub(super) struct Binding {
    pub(super) drive: [u8; 32],
    pub(super) epoch: [u8; 32],
    /// The layer's own nonce, drawn with its key.
    pub(super) nonce: [u8; NONCE_BYTES],
}

impl Binding {
    /// The associated data of the blocks of a chunk.
    pub(super) fn chunk_aad(&self, number: u32, chunk: &TocChunk) -> Vec<u8> {
        let phase = chunk.phase.map(|phase| phase.get().to_le_bytes());
        let phase = phase.as_ref().map_or(&[][..], |phase| phase);
        [
            &b"rdrivefs/v1/chunk"[..],
            &self.bytes(),
            &number.to_le_bytes(),
            &chunk.block_count().to_le_bytes(),
            &chunk.plain_len.to_le_bytes(),
            &[chunk.method as u8, chunk.block_log],
            phase,
        ]
        .concat()
    }

    fn bytes(&self) -> Vec<u8> {
        [&SUITE.to_le_bytes()[..], &self.drive, &self.epoch, &self.nonce].concat()
    }

    fn committed(&self, key: &Key) -> Committed {
        let aad = [&VERSION.to_le_bytes()[..], &self.bytes()].concat();
        Committed::of(CONTEXT, key, &self.nonce, &aad)
    }
}

/// The header for a layer whose sealed table lies at `place`.
pub(super) fn write(key: &Key, binding: &Binding, place: &Range<u32>) -> Vec<u8> {
    let committed = binding.committed(key);
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&SUITE.to_le_bytes());
    out.extend_from_slice(&binding.nonce);
    out.extend_from_slice(&committed.commitment);
    let plain = [place.start.to_le_bytes(), (place.end - place.start).to_le_bytes()].concat();
    seal::seal_into(&committed.key, &NONCE_PLACE, b"rdrivefs/v1/layer/place", &plain, &mut out);
    out
}

/// Seals the table of contents.
pub(super) fn seal_toc(key: &Key, binding: &Binding, toc: &Toc) -> Vec<u8> {
    let committed = binding.committed(key);
    seal::seal(&committed.key, &NONCE_TOC, b"rdrivefs/v1/layer/toc", &toc.encode())
}

/// Opens header and table of a whole layer; returns what it is bound to, its table and where the
/// padding begins.
pub(super) fn open(
    bytes: &[u8],
    key: &Key,
    drive: [u8; 32],
    epoch: [u8; 32],
) -> Result<(Binding, Toc, usize)> {
    let bad = |why| Error::corrupt("the header of a layer", why);
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or_else(|| bad("it is cut short"))?;
    let (magic, rest) = header.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(bad("it is not one"));
    }
    let known = [VERSION.to_le_bytes(), SUITE.to_le_bytes()].concat();
    let (versions, rest) = rest.split_at(known.len());
    if versions != known {
        let version = versions.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        return Err(Error::UnknownVersion { what: "a layer (version, suite)".into(), version });
    }
    let (nonce, rest) = rest.split_first_chunk().expect("the header is longer");
    let (commitment, place) = rest.split_first_chunk().expect("the header is longer");
    let binding = Binding { drive, epoch, nonce: *nonce };
    let committed = binding.committed(key);
    committed.check(commitment).map_err(|_| bad("it is bound to another key, drive or epoch"))?;
    let aad = b"rdrivefs/v1/layer/place";
    let place = seal::open(&committed.key, &NONCE_PLACE, aad, place)
        .map_err(|Tampered| bad("the place of its table was changed"))?;
    let place = place_of(&place).ok_or_else(|| bad("its table lies beyond the longest layer"))?;
    let bad = |why| Error::corrupt("the table of contents of a layer", why);
    let sealed = bytes.get(place.clone()).ok_or_else(|| bad("it is cut off"))?;
    let toc = seal::open(&committed.key, &NONCE_TOC, b"rdrivefs/v1/layer/toc", sealed)
        .map_err(|Tampered| bad("it was changed"))?;
    let toc = Toc::decode(&toc)?;
    if toc.end() != Ok(place.start as u64) {
        return Err(bad("it does not begin where the chunks end"));
    }
    Ok((binding, toc, place.end))
}

fn place_of(plain: &[u8]) -> Option<Range<usize>> {
    let (at, rest) = plain.split_first_chunk()?;
    let (len, _) = rest.split_first_chunk()?;
    let (at, len) = (u32::from_le_bytes(*at) as usize, u32::from_le_bytes(*len) as usize);
    let end = at.checked_add(len).filter(|end| *end <= LAYER_BYTES_MAX)?;
    (at >= HEADER_BYTES).then_some(at..end)
}

const fn numbered(number: u8) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    nonce[0] = number;
    nonce
}
