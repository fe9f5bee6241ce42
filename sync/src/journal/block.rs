//! One sealed block: its header in the clear, its bytes under an AEAD, its place bound to it.
//!
//! The header is authenticated together with the offset it stands at; the segment is bound through
//! the key, which is the segment's own. The link is the nonce of the block before: a nonce is drawn
//! at random and used once, so it names one block for good and binds the whole chain behind it,
//! and it is known before the block is sealed, so that writers can seal at the same time.

use crate::seal::{self, Key, NONCE_BYTES, TAG_BYTES};

use super::place::{BLOCK_BYTES_MAX, OVERHEAD_BYTES, Run};

/// The header in front of each block.
pub(super) const HEADER_BYTES: usize = 72;
const _: () = assert!(OVERHEAD_BYTES == HEADER_BYTES + TAG_BYTES);
/// Most runs of data one record may name; they ride behind the record in its block.
pub const RUNS_MAX: usize = 1024;
/// Most bytes of a block on disk: a full record and the runs behind it.
pub(super) const SEALED_BYTES_MAX: usize = BLOCK_BYTES_MAX + RUNS_MAX * RUN_BYTES + OVERHEAD_BYTES;
/// A run in a block: segment u32, start u64, end u64.
const RUN_BYTES: usize = 20;

/// A nonce; also the name of the block it sealed.
pub(super) type Nonce = [u8; NONCE_BYTES];

/// What a block carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A record of the log.
    Record = 1,
    /// No bytes: only the news of what has been confirmed.
    Marker = 2,
    /// Staged bytes of a stream.
    Data = 3,
}

/// The clear part of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) len: u32,
    pub(super) kind: Kind,
    pub(super) runs: u16,
    /// A record's own position; of a marker the last record's; 0 of data.
    pub(super) position: u64,
    /// The last position known confirmed when the block was sealed; 0 of data.
    pub(super) confirmed: u64,
    pub(super) link: Nonce,
    pub(super) nonce: Nonce,
}

impl Head {
    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[0..4].copy_from_slice(&self.len.to_le_bytes());
        out[4] = self.kind as u8;
        out[6..8].copy_from_slice(&self.runs.to_le_bytes());
        out[8..16].copy_from_slice(&self.position.to_le_bytes());
        out[16..24].copy_from_slice(&self.confirmed.to_le_bytes());
        out[24..48].copy_from_slice(&self.link);
        out[48..72].copy_from_slice(&self.nonce);
        out
    }

    /// The header these bytes can be, if any: lengths in bounds, fields that fit the kind.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        let kind = match bytes[4] {
            1 => Kind::Record,
            2 => Kind::Marker,
            3 => Kind::Data,
            _ => return None,
        };
        let head = Self {
            len: u32::from_le_bytes(field(bytes, 0)),
            kind,
            runs: u16::from_le_bytes(field(bytes, 6)),
            position: u64::from_le_bytes(field(bytes, 8)),
            confirmed: u64::from_le_bytes(field(bytes, 16)),
            link: field(bytes, 24),
            nonce: field(bytes, 48),
        };
        (bytes[5] == 0 && head.fits()).then_some(head)
    }

    fn fits(&self) -> bool {
        let len = self.len as usize;
        let runs = usize::from(self.runs);
        match self.kind {
            Kind::Record => {
                runs <= RUNS_MAX
                    && (runs * RUN_BYTES..=BLOCK_BYTES_MAX + runs * RUN_BYTES).contains(&len)
                    && self.confirmed < self.position
            }
            Kind::Marker => len == 0 && runs == 0 && self.confirmed <= self.position,
            Kind::Data => {
                (1..=BLOCK_BYTES_MAX).contains(&len)
                    && runs == 0
                    && self.position == 0
                    && self.confirmed == 0
            }
        }
    }

    /// Bytes of the whole block on disk.
    pub(super) fn block_bytes(&self) -> u64 {
        u64::from(self.len) + OVERHEAD_BYTES as u64
    }

    fn aad(&self, at: u64) -> [u8; HEADER_BYTES + 8] {
        let mut aad = [0; HEADER_BYTES + 8];
        aad[..HEADER_BYTES].copy_from_slice(&self.encode());
        aad[HEADER_BYTES..].copy_from_slice(&at.to_le_bytes());
        aad
    }
}

/// A block that opened at its place.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) head: Head,
    pub(super) plain: Vec<u8>,
}

impl Opened {
    /// The record and the runs it names; `None` if the runs are no runs.
    pub(super) fn split(mut self) -> Option<(Vec<u8>, Vec<Run>)> {
        let record = self.plain.len().checked_sub(usize::from(self.head.runs) * RUN_BYTES)?;
        let runs = self.plain[record..].chunks_exact(RUN_BYTES).map(decode_run);
        let runs: Option<Vec<Run>> = runs.collect();
        self.plain.truncate(record);
        Some((self.plain, runs?))
    }
}

/// Appends the sealed block to `out`.
pub(super) fn seal(key: &Key, at: u64, head: &Head, plain: &[u8], out: &mut Vec<u8>) {
    debug_assert_eq!(plain.len(), head.len as usize);
    out.extend_from_slice(&head.encode());
    seal::seal_into(key, &head.nonce, &head.aad(at), plain, out);
}

/// Opens the block at the start of `bytes`, which stand at offset `at`; `None` if there is none.
pub(super) fn open(key: &Key, at: u64, bytes: &[u8]) -> Option<Opened> {
    let head = Head::decode(bytes)?;
    let sealed = bytes.get(HEADER_BYTES..usize::try_from(head.block_bytes()).ok()?)?;
    let plain = seal::open(key, &head.nonce, &head.aad(at), sealed).ok()?;
    Some(Opened { head, plain })
}

/// A record with the runs it names behind it, as its block holds them.
pub(super) fn join(record: &[u8], runs: &[Run]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(record.len() + runs.len() * RUN_BYTES);
    plain.extend_from_slice(record);
    for run in runs {
        plain.extend_from_slice(&run.segment.to_le_bytes());
        plain.extend_from_slice(&run.at.to_le_bytes());
        plain.extend_from_slice(&run.end.to_le_bytes());
    }
    plain
}

fn decode_run(bytes: &[u8]) -> Option<Run> {
    let run = Run {
        segment: u32::from_le_bytes(field(bytes, 0)),
        at: u64::from_le_bytes(field(bytes, 4)),
        end: u64::from_le_bytes(field(bytes, 12)),
    };
    (run.at < run.end).then_some(run)
}

/// `N` bytes from `at` on, within bytes whose length was checked.
pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the length was checked")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(len: u32) -> Head {
        let (link, nonce) = ([1; 24], [2; 24]);
        Head { len, kind: Kind::Record, runs: 0, position: 7, confirmed: 5, link, nonce }
    }

    #[test]
    fn a_block_opens_at_its_place_under_its_key_and_nowhere_else() {
        let key = Key::from([9; 32]);
        let mut sealed = Vec::new();
        seal(&key, 128, &head(5), b"hello", &mut sealed);
        assert_eq!(sealed.len(), 5 + OVERHEAD_BYTES);
        let opened = open(&key, 128, &sealed).unwrap();
        assert_eq!((&opened.head, &opened.plain[..]), (&head(5), &b"hello"[..]));
        assert!(open(&key, 129, &sealed).is_none());
        assert!(open(&Key::from([8; 32]), 128, &sealed).is_none());
        assert!(open(&key, 128, &sealed[..sealed.len() - 1]).is_none());
        for at in 0..sealed.len() {
            let mut bent = sealed.clone();
            bent[at] ^= 0x40;
            assert!(open(&key, 128, &bent).is_none(), "byte {at}");
        }
    }

    #[test]
    fn a_header_that_does_not_fit_its_kind_is_none() {
        let fits = head(5);
        assert!(Head::decode(&fits.encode()).is_some());
        let bad = [
            Head { len: BLOCK_BYTES_MAX as u32 + 1, ..fits.clone() },
            Head { runs: 1, ..fits.clone() },
            Head { runs: RUNS_MAX as u16 + 1, len: 60_000, ..fits.clone() },
            Head { confirmed: 7, ..fits.clone() },
            Head { kind: Kind::Marker, ..fits.clone() },
            Head { kind: Kind::Data, ..fits.clone() },
            Head { kind: Kind::Data, position: 0, confirmed: 0, len: 0, ..fits.clone() },
        ];
        for head in bad {
            assert!(Head::decode(&head.encode()).is_none(), "{head:?}");
        }
        assert!(Head::decode(&[0; HEADER_BYTES]).is_none());
    }

    #[test]
    fn runs_ride_behind_the_record() {
        let runs = vec![Run { segment: 3, at: 128, end: 900 }, Run { segment: 4, at: 1, end: 2 }];
        let plain = join(b"record", &runs);
        let head = Head { runs: 2, ..head(plain.len() as u32) };
        let opened = Opened { head: head.clone(), plain: plain.clone() };
        assert_eq!(opened.split().unwrap(), (b"record".to_vec(), runs));
        let backwards = join(b"", &[Run { segment: 3, at: 9, end: 9 }, Run { at: 1, ..RUN }]);
        assert!(Opened { head, plain: backwards }.split().is_none());
    }

    const RUN: Run = Run { segment: 1, at: 0, end: 2 };
}
