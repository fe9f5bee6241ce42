//! What the journal remembers of a change to the tree.
//!
//! ```text
//! 0   CBOR of an Op
//! 1   u64 inode ‖ u64 offset ‖ i64 seconds ‖ u32 nanoseconds ‖ the bytes written there
//! ```
//!
//! The second form keeps the written bytes at a fixed place in the record, from where they are
//! read until they are sealed.

use minicbor::{Decode, Encode};

use crate::error::{Error, Result};
use crate::journal::Place;
use crate::record::{Kind, TimeNs};

/// Where the bytes of a small write begin in its record.
pub(super) const WRITE_HEADER_BYTES: u32 = 29;

/// The longest write that goes into its record; longer ones are staged beside the log.
pub(super) const WRITE_BYTES_MAX: usize = 60 << 10;

/// A change, by numbers, with everything that was decided when it was made.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) enum Op {
    /// A new file under a new name.
    #[n(0)]
    Make(#[n(0)] Box<Made>),
    /// Another name of a file.
    #[n(1)]
    Link {
        #[n(0)]
        ino: u64,
        #[n(1)]
        link: u64,
        #[n(2)]
        parent: u64,
        #[cbor(n(3), with = "minicbor::bytes")]
        name: Vec<u8>,
        #[n(4)]
        now: TimeNs,
    },
    /// A name goes.
    #[n(2)]
    Unlink {
        #[n(0)]
        link: u64,
        #[n(1)]
        now: TimeNs,
    },
    /// A name moves; one that stood there goes.
    #[n(3)]
    Move {
        #[n(0)]
        link: u64,
        #[n(1)]
        parent: u64,
        #[cbor(n(2), with = "minicbor::bytes")]
        name: Vec<u8>,
        #[n(3)]
        replaced: Option<u64>,
        #[n(4)]
        now: TimeNs,
    },
    /// Two names change places.
    #[n(4)]
    Exchange {
        #[n(0)]
        one: u64,
        #[n(1)]
        other: u64,
        #[n(2)]
        now: TimeNs,
    },
    /// Attributes change; a new size cuts off what lies behind it.
    #[n(5)]
    Attr(#[n(0)] Box<Attrs>),
    /// An extended attribute is set, or removed.
    #[n(6)]
    Xattr {
        #[n(0)]
        ino: u64,
        #[cbor(n(1), with = "minicbor::bytes")]
        name: Vec<u8>,
        #[cbor(n(2), with = "minicbor::bytes")]
        value: Option<Vec<u8>>,
        #[n(3)]
        now: TimeNs,
    },
    /// A long write, staged in these blocks.
    #[n(7)]
    Staged {
        #[n(0)]
        ino: u64,
        #[n(1)]
        offset: u64,
        #[n(2)]
        places: Vec<Place>,
        #[n(3)]
        now: TimeNs,
    },
    /// A hole is made, and the file has this size afterwards.
    #[n(8)]
    Cut {
        #[n(0)]
        ino: u64,
        #[n(1)]
        start: u64,
        #[n(2)]
        end: u64,
        #[n(3)]
        size: u64,
        #[n(4)]
        now: TimeNs,
    },
    /// An extended attribute is set to a value too long for a record, staged in these blocks.
    #[n(10)]
    LongXattr {
        #[n(0)]
        ino: u64,
        #[cbor(n(1), with = "minicbor::bytes")]
        name: Vec<u8>,
        #[n(2)]
        places: Vec<Place>,
        #[n(3)]
        now: TimeNs,
    },
    /// A range of a file has the bytes that another range had then.
    #[n(11)]
    Share(#[n(0)] Shared),
    /// What was written after a pulled version took the names becomes a file of its own.
    #[n(12)]
    Salvage {
        #[n(0)]
        ino: u64,
        #[n(1)]
        made: u64,
        #[n(2)]
        link: u64,
        #[n(3)]
        parent: u64,
        #[cbor(n(4), with = "minicbor::bytes")]
        name: Vec<u8>,
        #[n(5)]
        now: TimeNs,
    },
    /// Content stays on this computer, or may go again.
    #[n(9)]
    Pin {
        #[n(0)]
        ino: u64,
        #[n(1)]
        pinned: bool,
    },
}

/// Bytes that two ranges share from now on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Shared {
    #[n(0)]
    pub(super) from: u64,
    #[n(1)]
    pub(super) start: u64,
    #[n(2)]
    pub(super) to: u64,
    #[n(3)]
    pub(super) at: u64,
    #[n(4)]
    pub(super) len: u64,
    #[n(5)]
    pub(super) now: TimeNs,
}

/// A new file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Made {
    #[n(0)]
    pub(super) ino: u64,
    #[n(1)]
    pub(super) kind: Kind,
    #[n(2)]
    pub(super) mode: u32,
    #[n(3)]
    pub(super) uid: u32,
    #[n(4)]
    pub(super) gid: u32,
    #[n(5)]
    pub(super) rdev: u32,
    #[cbor(n(6), with = "minicbor::bytes")]
    pub(super) target: Vec<u8>,
    #[n(7)]
    pub(super) link: u64,
    #[n(8)]
    pub(super) parent: u64,
    #[cbor(n(9), with = "minicbor::bytes")]
    pub(super) name: Vec<u8>,
    #[n(10)]
    pub(super) now: TimeNs,
    #[cbor(n(11), with = "minicbor::bytes")]
    pub(super) access: Option<Vec<u8>>,
    #[cbor(n(12), with = "minicbor::bytes")]
    pub(super) default: Option<Vec<u8>>,
}

/// Attributes that change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Attrs {
    #[n(0)]
    pub(super) ino: u64,
    #[n(1)]
    pub(super) mode: Option<u32>,
    #[n(2)]
    pub(super) uid: Option<u32>,
    #[n(3)]
    pub(super) gid: Option<u32>,
    #[n(4)]
    pub(super) size: Option<u64>,
    #[n(5)]
    pub(super) atime: Option<TimeNs>,
    #[n(6)]
    pub(super) mtime: Option<TimeNs>,
    #[n(7)]
    pub(super) ctime: Option<TimeNs>,
    #[n(8)]
    pub(super) crtime: Option<TimeNs>,
    /// The access list that goes with the mode; an empty one is none.
    #[cbor(n(9), with = "minicbor::bytes")]
    pub(super) access: Option<Vec<u8>>,
}

/// A record as it is read back.
pub(super) enum Record<'a> {
    /// Any change but a short write.
    Op(Op),
    /// A short write.
    Write(Write<'a>),
}

/// A short write.
pub(super) struct Write<'a> {
    pub(super) ino: u64,
    pub(super) offset: u64,
    pub(super) now: TimeNs,
    pub(super) data: &'a [u8],
}

impl Shared {
    /// Where the bytes come from.
    pub(super) fn range(&self) -> std::ops::Range<u64> {
        self.start..self.start + self.len
    }
}

impl Op {
    /// Whether it changes one file and no name, so that without the file it means nothing.
    pub(super) fn is_of_one_file(&self) -> bool {
        match self {
            Self::Attr(_)
            | Self::Xattr { .. }
            | Self::LongXattr { .. }
            | Self::Share(_)
            | Self::Staged { .. }
            | Self::Cut { .. }
            | Self::Pin { .. } => true,
            Self::Make(_)
            | Self::Link { .. }
            | Self::Unlink { .. }
            | Self::Move { .. }
            | Self::Exchange { .. }
            | Self::Salvage { .. } => false,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0];
        minicbor::encode(self, &mut out).expect("memory takes every write");
        out
    }
}

impl Write<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(WRITE_HEADER_BYTES as usize + self.data.len());
        out.push(1);
        out.extend_from_slice(&self.ino.to_le_bytes());
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.now.secs.to_le_bytes());
        out.extend_from_slice(&self.now.nanos.to_le_bytes());
        out.extend_from_slice(self.data);
        out
    }
}

impl<'a> Record<'a> {
    /// Reads a record of this journal; it was sealed by this program, so what does not parse is
    /// damage or a newer program's.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<Self> {
        let bad = |why: &dyn std::fmt::Display| Error::corrupt("a journal record", why);
        match bytes.split_first() {
            Some((0, rest)) => Ok(Self::Op(minicbor::decode(rest).map_err(|e| bad(&e))?)),
            Some((1, rest)) if bytes.len() >= WRITE_HEADER_BYTES as usize => {
                let u64_at =
                    |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().expect("8 bytes"));
                let nanos = u32::from_le_bytes(rest[24..28].try_into().expect("4 bytes"));
                let now = TimeNs { secs: u64_at(16).cast_signed(), nanos };
                let data = &rest[28..];
                Ok(Self::Write(Write { ino: u64_at(0), offset: u64_at(8), now, data }))
            }
            _ => Err(bad(&"of an unknown form")),
        }
    }
}
