//! Records: the smallest facts about the tree that merge alone, and the commits that carry them.
//!
//! A drive's tree is a view over a set of records (DESIGN, "records, not merges of trees"). A
//! record is CBOR: an array whose first element says what it is, the others are its fields in the
//! order below. One encoding only: what does not come out the same when encoded again is refused.
//! An extent names its layer by a number in a table that stands before the records, since many
//! extents share few layers.
//!
//! Registers ([`Record::Attr`] field by field, [`Record::Xattr`], [`Record::Link`]) are won by the
//! later [`Stamp`]; of one stamp, by the greater value. A file's mtime is that of its head version
//! or of the latest `Attr` that sets one, whichever is stamped later.
//!
//! What the records mean together (who wins, what conflicts look like) does not belong here.

use minicbor::{Decode, Encode};
use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::identity::PublicKey;

use crate::id::{DeviceNumber, FileId, LinkId, VersionId};
use crate::seal::Key;

mod commit;
mod check;
mod cbor;

pub use cbor::{LayerTable, pack, unpack};
pub use check::{
    BASES_MAX, CHUNK_BYTES_MAX, DEVICE_NAME_BYTES_MAX, EXTENTS_MAX, INLINE_BYTES_MAX,
    NAME_BYTES_MAX, SIZE_MAX, TARGET_BYTES_MAX, TEXT_BYTES_MAX, TOC_BYTES_MAX,
    XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX, check_device_name,
};
pub use commit::{COMMIT_BYTES_MAX, Commit, LAMPORT_MAX, SEEN_MAX, lamport_after};

/// A moment, as files carry it; before 1970 the seconds are negative, the nanoseconds never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TimeNs {
    /// Seconds since the Unix epoch.
    pub secs: i64,
    /// Nanoseconds after that second, below 10⁹.
    pub nanos: u32,
}

/// What a file is; it never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
#[allow(missing_docs, reason = "each variant is the POSIX file type of that name")]
pub enum Kind {
    #[n(0)]
    File,
    #[n(1)]
    Directory,
    #[n(2)]
    Symlink,
    #[n(3)]
    Fifo,
    #[n(4)]
    Socket,
    #[n(5)]
    CharDevice,
    #[n(6)]
    BlockDevice,
}

/// When and by whom a record was made, in the order in which registers are won.
///
/// Every record of a commit has that commit's stamp. A device instance, which has a number of its
/// own, never makes two commits with one Lamport time, nor sets one register twice in a commit; if
/// one does (a fork), the greater value counts, so that the order is total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct Stamp {
    /// One more than the largest its maker had seen.
    #[n(0)]
    pub lamport: u64,
    /// The device instance that made it.
    #[n(1)]
    pub device: DeviceNumber,
}

/// A stretch of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// How many bytes of the file it covers; never zero.
    pub len: u64,
    /// Where they come from.
    pub source: Source,
}

/// Where the bytes of an extent come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Zeros nobody wrote.
    Hole,
    /// A stretch of a chunk.
    Chunk {
        /// The layer the chunk was born in; where it lies now is the layer table's business.
        layer: BlobId,
        /// The number of the chunk in that layer.
        number: u32,
        /// Where in the chunk the stretch begins, in plain bytes.
        skip: u32,
    },
}

/// The bytes of one version of a file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(flat, context_bound = "AsMut<LayerTable>")]
pub enum Content {
    /// The bytes themselves, at most [`INLINE_BYTES_MAX`].
    #[n(0)]
    Inline(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// The stretches in order.
    #[n(1)]
    Extents(#[n(0)] Vec<Extent>),
    /// A list of stretches so long that it is stored as chunks of its own.
    #[n(2)]
    Listed {
        /// Where the list's bytes lie: [`pack`] of a `Vec<Extent>`.
        #[n(0)]
        list: Vec<Extent>,
        /// How many stretches it has.
        #[n(1)]
        count: u64,
    },
}

/// One mergeable fact.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(flat, context_bound = "AsMut<LayerTable>")]
pub enum Record {
    /// A file exists.
    #[n(0)]
    File {
        /// Its id, drawn by its maker.
        #[n(0)]
        file: FileId,
        /// What it is.
        #[n(1)]
        kind: Kind,
        /// The device number of a character or block device, else zero.
        #[n(2)]
        rdev: u32,
        /// The target of a symlink, else empty.
        #[cbor(n(3), with = "minicbor::bytes")]
        target: Vec<u8>,
        /// When it was made.
        #[n(4)]
        born: TimeNs,
    },
    /// Attributes set; each is a register of its own.
    #[n(1)]
    Attr {
        /// Whose.
        #[n(0)]
        file: FileId,
        /// Permission bits, `0o7777` at most.
        #[n(1)]
        mode: Option<u32>,
        /// Owner.
        #[n(2)]
        uid: Option<u32>,
        /// Group.
        #[n(3)]
        gid: Option<u32>,
        /// Last change of content.
        #[n(4)]
        mtime: Option<TimeNs>,
        /// Last reading, where somebody set it.
        #[n(5)]
        atime: Option<TimeNs>,
        /// Last change of attributes.
        #[n(6)]
        ctime: Option<TimeNs>,
        /// Another moment of making, where somebody set it.
        #[n(7)]
        crtime: Option<TimeNs>,
    },
    /// An extended attribute set, or removed when there is no value. POSIX ACLs are these too.
    #[n(2)]
    Xattr {
        /// Whose.
        #[n(0)]
        file: FileId,
        /// Its full name, with the namespace.
        #[cbor(n(1), with = "minicbor::bytes")]
        name: Vec<u8>,
        /// Its value.
        #[cbor(n(2), with = "minicbor::bytes")]
        value: Option<Vec<u8>>,
    },
    /// A name stands in a directory: makes the link, or moves it.
    #[n(3)]
    Link {
        /// The link's id.
        #[n(0)]
        link: LinkId,
        /// The directory it is in.
        #[n(1)]
        parent: FileId,
        /// The name, 1 to 255 bytes.
        #[cbor(n(2), with = "minicbor::bytes")]
        name: Vec<u8>,
        /// What the name leads to.
        #[n(3)]
        file: FileId,
    },
    /// A tombstone: the link is gone, as far as its maker had seen.
    #[n(4)]
    Unlink {
        /// Which link.
        #[n(0)]
        link: LinkId,
        /// The stamp of the link's place that was seen.
        #[n(1)]
        saw: Stamp,
        /// The heads of the file that were seen.
        #[n(2)]
        heads: Vec<VersionId>,
    },
    /// One version of a file's content.
    #[n(5)]
    Version {
        /// Of which file.
        #[n(0)]
        file: FileId,
        /// Its id, drawn by its maker.
        #[n(1)]
        id: VersionId,
        /// The versions it replaces; fixed at the first dirty write.
        #[n(2)]
        bases: Vec<VersionId>,
        /// Its length in bytes.
        #[n(3)]
        size: u64,
        /// When its content last changed.
        #[n(4)]
        mtime: TimeNs,
        /// Its bytes.
        #[n(5)]
        content: Content,
    },
    /// A layer exists, and this opens it.
    #[n(6)]
    Layer {
        /// Its name on every remote.
        #[n(0)]
        id: BlobId,
        /// Its length in bytes, as stored.
        #[n(1)]
        len: u64,
        /// Its key.
        #[n(2)]
        key: Key,
        /// The epoch bound into its seals.
        #[cbor(n(3), with = "minicbor::bytes")]
        epoch: [u8; 32],
        /// The nonce in its header, bound into its seals.
        #[cbor(n(4), with = "minicbor::bytes")]
        nonce: [u8; 24],
        /// Its encoded table of contents, so that reading needs no extra round trip.
        #[cbor(n(5), with = "minicbor::bytes")]
        toc: Vec<u8>,
    },
    /// The chunks of one layer lie in another now, under the same numbers.
    #[n(7)]
    Moved {
        /// The layer that extents name.
        #[n(0)]
        from: BlobId,
        /// The layer to look in.
        #[n(1)]
        to: BlobId,
    },
    /// A remote said stored.
    #[n(8)]
    Held {
        /// The layer.
        #[n(0)]
        layer: BlobId,
        /// Which shard of it; `0xffff` is a whole copy.
        #[n(1)]
        shard: u16,
        /// The remote.
        #[cbor(n(2), with = "minicbor::bytes")]
        remote: [u8; 16],
    },
    /// A remote of this drive.
    #[n(9)]
    Remote {
        /// Its id, drawn when it was added.
        #[cbor(n(0), with = "minicbor::bytes")]
        id: [u8; 16],
        /// What the person calls it.
        #[n(1)]
        name: String,
        /// How it is reached, without invite; empty when it was removed.
        #[n(2)]
        url: String,
        /// Its pinned key.
        #[n(3)]
        key: PublicKey,
    },
    /// What a person calls a device.
    #[n(10)]
    Device {
        /// Its identity.
        #[n(0)]
        device: PublicKey,
        /// The number of its present instance.
        #[n(1)]
        number: DeviceNumber,
        /// Its name.
        #[n(2)]
        name: String,
    },
    /// Where a folder's layers are to be kept.
    #[n(11)]
    Policy {
        /// The folder, with everything below it that has no rule of its own.
        #[n(0)]
        folder: FileId,
        /// The rule, as in `rdrivefs.toml`; empty takes it back.
        #[n(1)]
        rule: String,
    },
}

impl Record {
    /// How many bytes it takes in a commit, before compression.
    pub fn encoded_len(&self) -> usize {
        pack(self).len()
    }
}

impl Content {
    /// The content of an empty file.
    pub const EMPTY: Self = Self::Inline(Vec::new());

    /// The stretches that say where the bytes, or the list of stretches, lie.
    pub fn extents(&self) -> &[Extent] {
        match self {
            Self::Inline(_) => &[],
            Self::Extents(extents) | Self::Listed { list: extents, .. } => extents,
        }
    }
}

impl std::fmt::Debug for Content {
    /// Says how much there is, never what: content does not belong in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
            Self::Extents(extents) => write!(f, "Extents({})", extents.len()),
            Self::Listed { count, .. } => write!(f, "Listed({count})"),
        }
    }
}

impl std::fmt::Debug for Record {
    /// Says what kind and about what, never names or values: they do not belong in a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File { file, kind, .. } => write!(f, "File({file:?}, {kind:?})"),
            Self::Attr { file, .. } => write!(f, "Attr({file:?})"),
            Self::Xattr { file, .. } => write!(f, "Xattr({file:?})"),
            Self::Link { link, parent, file, .. } => {
                write!(f, "Link({link:?}, {parent:?}, {file:?})")
            }
            Self::Unlink { link, .. } => write!(f, "Unlink({link:?})"),
            Self::Version { file, id, size, content, .. } => {
                write!(f, "Version({file:?}, {id:?}, {size}, {content:?})")
            }
            Self::Layer { id, .. } => write!(f, "Layer({id})"),
            Self::Moved { from, to } => write!(f, "Moved({from}, {to})"),
            Self::Held { layer, shard, .. } => write!(f, "Held({layer}, {shard})"),
            Self::Remote { .. } => f.write_str("Remote"),
            Self::Device { number, .. } => write!(f, "Device({})", number.0),
            Self::Policy { folder, .. } => write!(f, "Policy({folder:?})"),
        }
    }
}
