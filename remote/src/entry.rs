//! Entries: the one signed envelope of every log.
//!
//! An entry has a clear header (which drive, which log, which number, what came before) and a
//! body that this module does not read. Numbers count from 1 and each entry names the hash of the
//! one before, so a log is a chain, and two entries with one number are evidence of a fork. The
//! signature covers the exact bytes in front of it, and an [`Entry`] exists only once it held.
//! What a body means belongs to `member` and to the floor above; where entries lie, to `logs`.
//!
//! Layout (integers little-endian; man/rdrivefs-format.5, "entry"):
//!
//! ```text
//!   0   8  magic RDRVENTR      45  32  author        121  32  epoch
//!   8   2  version 1           77   4  instance      153   4  body length n
//!  10   2  suite 1             81   8  number        157   n  body
//!  12  32  drive               89  32  previous      157+n 64 signature
//!  44   1  kind of log
//! ```

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::error::{Error, Result};
use crate::identity::{DriveId, PublicKey, SecretKey, Signature};

/// Longest entry, all included: a commit is flushed long before; a node holds one in memory.
pub const ENTRY_BYTES_MAX: usize = 4 << 20;
/// What an entry weighs beside its body.
pub const ENTRY_BYTES_MIN: usize = HEADER_BYTES + BODY_LEN_BYTES + SIGNATURE_BYTES;
/// Length of an encoded [`LogId`].
pub const LOG_ID_BYTES: usize = 37;
/// Length of an encoded [`Header`].
pub const HEADER_BYTES: usize = 153;

const MAGIC: &[u8; 8] = b"RDRVENTR";
const VERSION: u16 = 1;
const SUITE: u16 = 1;
const BODY_LEN_BYTES: usize = 4;
const SIGNATURE_BYTES: usize = 64;
/// Binds signatures to this use, so that none can be carried over from another.
const CONTEXT: &str = "rdrivefs/v1/log";
const WHAT: &str = "entry";

/// What a log is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LogKind {
    /// Who belongs to the drive; bodies in the clear, read by nodes too.
    Membership = 0,
    /// What changed in the tree; bodies sealed.
    Commits = 1,
}

/// The name of a log: one author writes it, in one life of their device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// What it is about.
    pub kind: LogKind,
    /// Who signs its entries.
    pub author: PublicKey,
    /// Which life of the author's device; a restored device begins a new one.
    pub instance: u32,
}

/// The newest entry of a log; number 0 and a zero hash stand for the empty log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct Head {
    /// The log.
    #[n(0)]
    pub log: LogId,
    /// The newest number, counted from 1.
    #[n(1)]
    pub number: u64,
    /// The hash of that entry's exact bytes.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub hash: [u8; 32],
}

/// Everything of an entry but its body and signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The drive the log belongs to.
    pub drive: DriveId,
    /// The log the entry stands in.
    pub log: LogId,
    /// Its place in the log, from 1.
    pub number: u64,
    /// The hash of the entry before; zeros at number 1.
    pub previous: [u8; 32],
    /// The epoch whose key seals the body; zeros where the body is clear.
    pub epoch: [u8; 32],
}

/// An entry whose signature holds. Its header's fields are read through it.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    header: Header,
    body: Bytes,
    bytes: Bytes,
    hash: [u8; 32],
}

impl LogKind {
    fn from_byte(byte: u8) -> Result<Self> {
        match byte {
            0 => Ok(Self::Membership),
            1 => Ok(Self::Commits),
            _ => Err(Error::malformed(WHAT, format_args!("unknown kind of log {byte}"))),
        }
    }
}

impl LogId {
    /// The fixed encoding: kind, author, instance.
    pub fn encode(&self) -> [u8; LOG_ID_BYTES] {
        let mut out = [0; LOG_ID_BYTES];
        out[0] = self.kind as u8;
        out[1..33].copy_from_slice(&self.author.0);
        out[33..].copy_from_slice(&self.instance.to_le_bytes());
        out
    }

    /// Reads the fixed encoding.
    ///
    /// # Errors
    /// [`Error::Malformed`] for an unknown kind.
    pub fn decode(bytes: &[u8; LOG_ID_BYTES]) -> Result<Self> {
        Ok(Self {
            kind: LogKind::from_byte(bytes[0])?,
            author: PublicKey(array(bytes, 1)),
            instance: u32::from_le_bytes(array(bytes, 33)),
        })
    }
}

impl<C> Encode<C> for LogId {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&LogId::encode(self))?.ok()
    }
}

impl<'b, C> Decode<'b, C> for LogId {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bytes = <[u8; LOG_ID_BYTES]>::try_from(d.bytes()?);
        let bytes = bytes.map_err(|_| minicbor::decode::Error::message("wrong length"))?;
        LogId::decode(&bytes).map_err(minicbor::decode::Error::message)
    }
}

impl Head {
    /// The head of a log that has no entry yet.
    pub fn empty(log: LogId) -> Self {
        Self { log, number: 0, hash: [0; 32] }
    }
}

impl Header {
    /// The header of the entry that comes after `head`.
    pub fn after(drive: DriveId, head: &Head, epoch: [u8; 32]) -> Self {
        Self { drive, log: head.log, number: head.number + 1, previous: head.hash, epoch }
    }

    /// The exact bytes an entry with this header begins with; sealed bodies are bound to them.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[10..12].copy_from_slice(&SUITE.to_le_bytes());
        out[12..44].copy_from_slice(&self.drive.0);
        out[44..81].copy_from_slice(&self.log.encode());
        out[81..89].copy_from_slice(&self.number.to_le_bytes());
        out[89..121].copy_from_slice(&self.previous);
        out[121..].copy_from_slice(&self.epoch);
        out
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self> {
        if &bytes[..8] != MAGIC {
            return Err(Error::malformed(WHAT, "wrong magic"));
        }
        for at in [8, 10] {
            let version = u16::from_le_bytes(array(bytes, at));
            if version != VERSION {
                return Err(Error::UnknownVersion { what: WHAT, version: version.into() });
            }
        }
        let header = Self {
            drive: DriveId(array(bytes, 12)),
            log: LogId::decode(&array(bytes, 44))?,
            number: u64::from_le_bytes(array(bytes, 81)),
            previous: array(bytes, 89),
            epoch: array(bytes, 121),
        };
        match (header.number, header.previous == [0; 32]) {
            (0, _) => Err(Error::malformed(WHAT, "numbers count from 1")),
            (1, false) => Err(Error::malformed(WHAT, "the first entry follows another")),
            (2.., true) => Err(Error::malformed(WHAT, "a later entry follows none")),
            _ => Ok(header),
        }
    }
}

impl Entry {
    /// Signs `body` under `header`, whose author must be `secret`'s public half.
    ///
    /// # Errors
    /// [`Error::Malformed`] when the body is too long or the header is not one that decodes.
    pub fn sign(secret: &SecretKey, header: Header, body: Bytes) -> Result<Self> {
        assert_eq!(header.log.author, secret.public(), "a log is signed by its author");
        if body.len() > ENTRY_BYTES_MAX - ENTRY_BYTES_MIN {
            return Err(Error::malformed(WHAT, "too long"));
        }
        Header::decode(&header.encode())?;
        let mut bytes = Vec::with_capacity(ENTRY_BYTES_MIN + body.len());
        bytes.extend_from_slice(&header.encode());
        let len = u32::try_from(body.len()).expect("bounded above");
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&body);
        let signature = secret.sign(CONTEXT, &bytes);
        bytes.extend_from_slice(&signature.0);
        Ok(Self::of_parts(header, body, bytes.into()))
    }

    /// Reads an entry and checks its form and its signature.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::UnknownVersion`], or [`Error::Forged`].
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::from_bytes(Bytes::copy_from_slice(bytes))
    }

    /// As [`Entry::decode`], keeping the bytes instead of copying them.
    ///
    /// # Errors
    /// As [`Entry::decode`].
    pub fn from_bytes(bytes: Bytes) -> Result<Self> {
        if bytes.len() < ENTRY_BYTES_MIN {
            return Err(Error::malformed(WHAT, "too short"));
        }
        if bytes.len() > ENTRY_BYTES_MAX {
            return Err(Error::malformed(WHAT, "too long"));
        }
        let header = Header::decode(&array(&bytes, 0))?;
        let body_at = HEADER_BYTES + BODY_LEN_BYTES;
        let signature_at = bytes.len() - SIGNATURE_BYTES;
        let len = u32::from_le_bytes(array(&bytes, HEADER_BYTES));
        if (signature_at - body_at) as u64 != u64::from(len) {
            return Err(Error::malformed(WHAT, "the length of its body is not what it says"));
        }
        let signature = Signature(array(&bytes, signature_at));
        header.log.author.verify(CONTEXT, &bytes[..signature_at], &signature)?;
        Ok(Self::of_parts(header, bytes.slice(body_at..signature_at), bytes))
    }

    /// The exact bytes.
    pub fn encode(&self) -> Bytes {
        self.bytes.clone()
    }

    /// The hash that the next entry names: BLAKE3 of the exact bytes.
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// What the author signed, sealed or clear.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The header, whose fields can also be read from the entry itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The head of the log once this entry is its newest.
    pub fn head(&self) -> Head {
        Head { log: self.log, number: self.number, hash: self.hash }
    }

    /// Checks that this entry is the next after `head`.
    ///
    /// # Errors
    /// [`Error::LogConflict`] for another number or another entry before it; [`Error::Malformed`]
    /// when it belongs to another log.
    pub fn follows(&self, head: &Head) -> Result<()> {
        if self.log != head.log {
            return Err(Error::malformed(WHAT, "of another log"));
        }
        let expected = head.number.saturating_add(1);
        if self.number != expected || self.previous != head.hash {
            return Err(Error::LogConflict { expected, got: self.number });
        }
        Ok(())
    }

    fn of_parts(header: Header, body: Bytes, bytes: Bytes) -> Self {
        let hash = *blake3::hash(&bytes).as_bytes();
        Self { header, body, bytes, hash }
    }
}

impl Deref for Entry {
    type Target = Header;

    fn deref(&self) -> &Header {
        &self.header
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("log", &self.log)
            .field("number", &self.number)
            .field("hash", &hex::encode(self.hash))
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// `N` bytes of `bytes` from `at`, which the caller knows to be there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has this length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_seed([seed; 32])
    }

    fn log(seed: u8) -> LogId {
        LogId { kind: LogKind::Commits, author: key(seed).public(), instance: 3 }
    }

    fn drive() -> DriveId {
        DriveId::of(&key(0).public())
    }

    fn entry(body: &'static [u8]) -> Entry {
        let header = Header::after(drive(), &Head::empty(log(1)), [5; 32]);
        Entry::sign(&key(1), header, body.into()).unwrap()
    }

    /// The bytes of `entry` with `edit` made and the signature renewed by `key`.
    fn resigned(entry: &Entry, secret: &SecretKey, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = entry.encode().to_vec();
        bytes.truncate(bytes.len() - SIGNATURE_BYTES);
        edit(&mut bytes);
        let signature = secret.sign(CONTEXT, &bytes);
        bytes.extend_from_slice(&signature.0);
        bytes
    }

    #[test]
    fn an_entry_comes_back_as_it_was_signed() {
        let entry = entry(b"body");
        let bytes = entry.encode();
        assert_eq!(bytes.len(), ENTRY_BYTES_MIN + 4);
        let back = Entry::decode(&bytes).unwrap();
        assert_eq!(back, entry);
        assert_eq!(&back.body()[..], b"body");
        assert_eq!((back.number, back.log, back.drive), (1, log(1), drive()));
        assert_eq!(back.hash(), *blake3::hash(&bytes).as_bytes());
        assert_eq!(resigned(&entry, &key(1), |_| {}), bytes, "ed25519 signs deterministically");
        assert_eq!(LogId::decode(&log(1).encode()).unwrap(), log(1));
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let bytes = entry(b"body").encode();
        assert_eq!(&bytes[..12], b"RDRVENTR\x01\0\x01\0");
        assert_eq!(&bytes[12..44], drive().0);
        assert_eq!(bytes[44], 1);
        assert_eq!(&bytes[45..77], key(1).public().0);
        assert_eq!(&bytes[77..89], [3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[89..121], [0; 32]);
        assert_eq!(&bytes[121..153], [5; 32]);
        assert_eq!(&bytes[153..161], b"\x04\0\0\0body");
    }

    #[test]
    fn refused_every_flipped_bit() {
        let bytes = entry(b"body").encode();
        for at in 0..bytes.len() * 8 {
            let mut evil = bytes.to_vec();
            evil[at / 8] ^= 1 << (at % 8);
            assert!(Entry::decode(&evil).is_err(), "bit {at}");
        }
    }

    #[test]
    fn refused_every_truncation_and_extension() {
        let bytes = entry(b"body").encode();
        for len in 0..bytes.len() {
            assert!(Entry::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        for more in [1, 64, 1000] {
            assert!(Entry::decode(&[&bytes[..], &vec![0; more]].concat()).is_err(), "{more} more");
        }
    }

    #[test]
    fn refused_forms_even_with_a_good_signature() {
        let good = entry(b"body");
        let cases: [(&str, Vec<u8>); 11] = [
            ("magic", resigned(&good, &key(1), |b| b[0] = b'X')),
            ("version 2", resigned(&good, &key(1), |b| b[8] = 2)),
            ("version 257", resigned(&good, &key(1), |b| b[9] = 1)),
            ("suite 0", resigned(&good, &key(1), |b| b[10] = 0)),
            ("kind 2", resigned(&good, &key(1), |b| b[44] = 2)),
            ("number 0", resigned(&good, &key(1), |b| b[81] = 0)),
            ("number 1 after another", resigned(&good, &key(1), |b| b[100] = 1)),
            ("number 2 after none", resigned(&good, &key(1), |b| b[81] = 2)),
            ("length too small", resigned(&good, &key(1), |b| b[153] = 3)),
            ("length too large", resigned(&good, &key(1), |b| b[153] = 5)),
            ("length with a body beside it", resigned(&good, &key(1), |b| b.push(0))),
        ];
        for (name, bytes) in cases {
            assert!(Entry::decode(&bytes).is_err(), "{name}");
        }
        for at in [8, 10] {
            let unknown = resigned(&good, &key(1), |b| b[at] = 7);
            let error = Entry::decode(&unknown).unwrap_err();
            assert!(matches!(error, Error::UnknownVersion { version: 7, .. }), "{error}");
        }
    }

    #[test]
    fn refused_signatures() {
        let good = entry(b"body");
        let by_another = resigned(&good, &key(2), |_| {});
        let of_nobody = resigned(&good, &key(1), |b| b[45..77].fill(0xff));
        let body = |context| {
            let bytes = good.encode();
            let signed = &bytes[..bytes.len() - SIGNATURE_BYTES];
            [signed, &key(1).sign(context, signed).0].concat()
        };
        for bad in [by_another, of_nobody, body("rdrivefs/v1/other"), body("rdrivefs/v1/log\0")] {
            assert!(matches!(Entry::decode(&bad), Err(Error::Forged(_))));
        }
        let zeros = {
            let mut bytes = good.encode().to_vec();
            let at = bytes.len() - SIGNATURE_BYTES;
            bytes[at..].fill(0);
            bytes
        };
        assert!(matches!(Entry::decode(&zeros), Err(Error::Forged(_))));
    }

    /// The eight points of small order, two of them also in encodings beyond the prime: under
    /// such a key the signature (R = key, S = 0) would hold for many messages.
    #[test]
    fn refused_keys_of_small_order_and_in_other_spellings() {
        let keys = [
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000080",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
            "0100000000000000000000000000000000000000000000000000000000000080",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        ];
        let good = entry(b"body").encode();
        for text in keys {
            let key = PublicKey(hex::decode(text).unwrap().try_into().unwrap());
            assert!(key.check().is_err(), "{text}");
            let mut bytes = good.to_vec();
            bytes[45..77].copy_from_slice(&key.0);
            let at = bytes.len() - SIGNATURE_BYTES;
            bytes[at..].fill(0);
            bytes[at..at + 32].copy_from_slice(&key.0);
            assert!(matches!(Entry::decode(&bytes), Err(Error::Forged(_))), "{text}");
        }
        // A key of full order in an encoding beyond the prime: y = p + 3 for y = 3.
        let beyond = (0..19u8).filter_map(|low| {
            let (mut plain, mut other) = ([0; 32], [0xff; 32]);
            plain[0] = low;
            other[0] = 0xed + low;
            other[31] = 0x7f;
            PublicKey(plain).check().is_ok().then_some(PublicKey(other))
        });
        let beyond: Vec<PublicKey> = beyond.collect();
        assert!(!beyond.is_empty());
        for key in beyond {
            assert!(matches!(key.check(), Err(Error::Forged(why)) if why.contains("canonical")));
        }
    }

    #[test]
    fn a_chain_is_followed_and_nothing_else() {
        let first = entry(b"1");
        first.follows(&Head::empty(log(1))).unwrap();
        let next = |head: &Head| {
            Entry::sign(&key(1), Header::after(drive(), head, [5; 32]), Bytes::new()).unwrap()
        };
        let second = next(&first.head());
        second.follows(&first.head()).unwrap();
        let conflict = |result: Result<()>| matches!(result, Err(Error::LogConflict { .. }));
        assert!(conflict(second.follows(&Head::empty(log(1)))), "a gap");
        assert!(conflict(first.follows(&first.head())), "the same number again");
        assert!(conflict(second.follows(&entry(b"2").head())), "another entry before it");
        assert!(second.follows(&Head { log: log(2), ..first.head() }).is_err(), "another log");
        let last = Head { number: u64::MAX, ..first.head() };
        assert!(first.follows(&last).is_err(), "numbers do not wrap");
    }

    #[test]
    fn the_bound_on_length_is_exact() {
        let sign = |len| {
            let header = Header::after(drive(), &Head::empty(log(1)), [5; 32]);
            Entry::sign(&key(1), header, vec![0; len].into())
        };
        let longest = sign(ENTRY_BYTES_MAX - ENTRY_BYTES_MIN).unwrap().encode();
        assert_eq!(longest.len(), ENTRY_BYTES_MAX);
        Entry::from_bytes(longest.clone()).unwrap();
        assert!(sign(ENTRY_BYTES_MAX - ENTRY_BYTES_MIN + 1).is_err());
        assert!(Entry::decode(&[&longest[..], &[0]].concat()).is_err());
    }

    #[test]
    #[should_panic(expected = "a log is signed by its author")]
    fn nobody_signs_for_another() {
        let header = Header::after(drive(), &Head::empty(log(1)), [5; 32]);
        let _ = Entry::sign(&key(2), header, Bytes::new());
    }
}
