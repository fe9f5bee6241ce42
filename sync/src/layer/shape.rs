//! How large layers are: limits, padding, and when one is full.

use crate::chunk;
use crate::compress::Method;
use crate::seal::TAG_BYTES;

/// Length of the header.
pub const HEADER_BYTES: usize = 92;
/// No layer is longer, padding included.
pub const LAYER_BYTES_MAX: usize = 16 << 20;
/// Most chunks in a layer: keeps its table below half a MiB, where small ones average 512 bytes.
pub const CHUNKS_MAX: usize = 32 << 10;

/// From here on a layer is closed as soon as its length lies well.
const GOOD_BYTES_MIN: u64 = 8 << 20;
/// It lies well with at most this many thousandths of padding. Lengths of half a layer are padded
/// to multiples of 256 KiB, so one chunk in four or so ends well, and half a layer takes several.
const PADDING_PER_MILLE_MAX: u64 = 7;
/// Longest head of the table's CBOR array.
const TOC_HEAD_BYTES: u64 = 5;
/// What an entry of the table takes besides its list of blocks.
const TOC_CHUNK_BYTES_MAX: u64 = 19;

/// The Padmé length: the smallest that is not below `len` and has no more bits set in its leading
/// half than its magnitude needs. Adds 12 % at most, 3 % from 1 MiB on, and hides all but
/// O(log log) bits of the length. (Nikitin et al., "Reducing metadata leakage", PETS 2019.)
pub fn padme(len: u64) -> u64 {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let low_bits = exponent - (exponent.ilog2() + 1).min(exponent);
    len.next_multiple_of(1 << low_bits)
}

/// What a layer holds so far, by length.
#[derive(Debug, Clone, Default)]
pub(super) struct Fill {
    sealed: u64,
    toc: u64,
    chunks: usize,
}

impl Fill {
    /// Counts a chunk: its sealed bytes and the entries of its list of blocks.
    pub(super) fn add(&mut self, sealed_len: u64, blocks: &[u32]) {
        let entries: usize = blocks.iter().map(minicbor::len).sum();
        self.sealed += sealed_len;
        self.toc += TOC_CHUNK_BYTES_MAX + entries as u64;
        self.chunks += 1;
    }

    /// The length the layer would close with, before padding; at most some bytes too long.
    pub(super) fn len(&self) -> u64 {
        HEADER_BYTES as u64 + self.sealed + TOC_HEAD_BYTES + self.toc + TAG_BYTES as u64
    }

    /// Whether a chunk of this length finds room even if it does not shrink.
    pub(super) fn fits(&self, plain_len: usize) -> bool {
        let blocks = plain_len.div_ceil(1 << Method::Raw.block_log()) + 1;
        let sealed = (plain_len + blocks * TAG_BYTES) as u64;
        self.chunks < CHUNKS_MAX
            && self.len() + sealed + TOC_CHUNK_BYTES_MAX <= LAYER_BYTES_MAX as u64
    }

    /// Whether the layer had better be closed now.
    pub(super) fn is_full(&self) -> bool {
        let len = self.len();
        let padding = padme(len) - len;
        let lies_well = padding * 1000 <= len * PADDING_PER_MILLE_MAX;
        len >= GOOD_BYTES_MIN && lies_well || !self.fits(chunk::MAX_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn padme_of_known_lengths() {
        let known = [(0, 0), (1, 1), (2, 2), (3, 3), (8, 8), (9, 10), (100, 104), (1000, 1024)];
        known.iter().for_each(|&(len, padded)| assert_eq!(padme(len), padded, "{len}"));
        assert_eq!(padme((8 << 20) + 1), (8 << 20) + (256 << 10));
        assert_eq!(padme(16 << 20), 16 << 20);
    }

    proptest! {
        #[test]
        fn padme_grows_little_and_is_stable(len in 1u64..1 << 40) {
            let padded = padme(len);
            prop_assert!(padded >= len);
            prop_assert_eq!(padme(padded), padded);
            prop_assert!((padded - len) * 8 <= len);
            prop_assert!(len < 1 << 20 || (padded - len) * 32 <= len);
            prop_assert!(padme(len + 1) >= padded);
            // The leading half of the bits says it all.
            let exponent = padded.ilog2();
            prop_assert!(padded.trailing_zeros() + exponent.ilog2() + 1 >= exponent);
        }
    }

    /// The stored bytes of 200 layers of random data with real chunk lengths, outboards included.
    #[test]
    fn layers_close_with_little_waste() {
        let mut draws = blake3::Hasher::new().finalize_xof();
        let mut draw = move || {
            let mut bytes = [0; 8];
            draws.fill(&mut bytes);
            u64::from_le_bytes(bytes) as f64 / u64::MAX as f64
        };
        let mut sum = 0.0;
        for _ in 0..200 {
            let (mut fill, mut plain) = (Fill::default(), 0);
            while !fill.is_full() {
                let beyond = (-(1.0 - draw()).ln() * f64::from(1 << 20)) as usize;
                let len = (chunk::MIN_BYTES + beyond).min(chunk::MAX_BYTES);
                assert!(fill.fits(len));
                let blocks = len.div_ceil(1 << Method::Raw.block_log()) + 1;
                fill.add((len + blocks * TAG_BYTES) as u64, &[]);
                plain += len as u64;
            }
            let padded = padme(fill.len());
            assert!(padded <= LAYER_BYTES_MAX as u64);
            sum += padded as f64 * (1.0 + 64.0 / 4096.0) / plain as f64;
        }
        let mean = sum / 200.0;
        println!("stored / plain: {mean:.4}");
        assert!(mean <= 1.035, "{mean}");
    }

    #[test]
    fn small_chunks_fill_a_layer_by_number() {
        let mut fill = Fill::default();
        (0..CHUNKS_MAX).for_each(|_| fill.add(30, &[]));
        assert!(fill.is_full() && !fill.fits(1));
    }
}
