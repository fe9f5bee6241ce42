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
