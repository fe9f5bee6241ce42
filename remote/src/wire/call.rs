//! Calls and answers: the heads of requests and replies (layouts in `wire`'s header).

use minicbor::{Decode, Encode};

use crate::blob::{BLOB_BYTES_MAX, BlobId};
use crate::cbor;
use crate::entry::{ENTRY_BYTES_MAX, LogId};
use crate::identity::{DriveId, PublicKey};
use crate::logs::READ_BYTES_MAX;
use crate::wire::fault::Fault;
use crate::wire::limits::{
    GET_BYTES_MAX, HEADS_MAX, IDS_MAX, INVITE_BYTES, LIST_MAX, MEMBERSHIP_BYTES_MAX,
    PAIR_ANSWER_BYTES_MAX, PAIR_REQUEST_BYTES_MAX, WANTED_BYTES_MAX, WANTS_MAX,
};
use crate::wire::record;

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Request {
    /// What is asked.
    #[n(0)]
    pub call: Call,
    /// How many bytes of body follow.
    #[n(1)]
    pub body: u64,
}

/// The secret of an invite.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct InviteSecret(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; INVITE_BYTES]);

impl std::fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InviteSecret(…)")
    }
}

/// The name of a mailbox: a hash of the secret of a pairing, which says nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MailboxId(pub [u8; 32]);

cbor::array!(MailboxId);

/// What a client can ask; bodies and replies are in the module's header.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub enum Call {
    /// Opens a connection: which drive, and the entries that certify the device.
    #[n(0)]
    Hello {
        /// Versions the client speaks.
        #[n(0)]
        versions: Vec<u16>,
        /// The drive.
        #[n(1)]
        drive: DriveId,
        /// The key whose hash the drive's id is.
        #[n(2)]
        root: PublicKey,
        /// A one-time invite, where the node does not know the drive yet.
        #[n(3)]
        invite: Option<InviteSecret>,
    },
    /// Stores the body.
    #[n(1)]
    Put {
        /// The hash the body must have.
        #[n(0)]
        id: BlobId,
    },
    /// Asks for one slice.
    #[n(2)]
    Get {
        /// The blob.
        #[n(0)]
        id: BlobId,
        /// First byte.
        #[n(1)]
        start: u64,
        /// The byte behind the last.
        #[n(2)]
        end: u64,
    },
    /// Asks for many small slices.
    #[n(3)]
    GetMany,
    /// Asks which blobs are held.
    #[n(4)]
    Has,
    /// Asks for blobs in ascending order.
    #[n(5)]
    List {
        /// Only ids above this one.
        #[n(0)]
        after: Option<BlobId>,
        /// At most so many.
        #[n(1)]
        limit: u32,
    },
    /// Removes a blob.
    #[n(6)]
    Delete {
        /// The blob.
        #[n(0)]
        id: BlobId,
    },
    /// Asks what is used and allowed.
    #[n(7)]
    Space,
    /// Appends an entry to its log.
    #[n(8)]
    Append,
    /// Reads entries.
    #[n(9)]
    ReadLog {
        /// The log.
        #[n(0)]
        log: LogId,
        /// The first number.
        #[n(1)]
        from: u64,
        /// At most so many bytes, but at least one entry where there is one.
        #[n(2)]
        bytes_max: u64,
    },
    /// Asks for the newest entry of each log.
    #[n(10)]
    Heads,
    /// Waits until the heads differ from those seen.
    #[n(11)]
    Watch {
        /// How long at most.
        #[n(0)]
        timeout_ms: u64,
    },
    /// Opens a mailbox for a device that is to join.
    #[n(12)]
    PairOpen {
        /// Its name.
        #[n(0)]
        mailbox: MailboxId,
        /// How long it is to be good for.
        #[n(1)]
        lifetime_ms: u64,
    },
    /// Waits for what a device puts into a mailbox.
    #[n(13)]
    PairWait {
        /// Which.
        #[n(0)]
        mailbox: MailboxId,
        /// How long at most; then the reply has no body.
        #[n(1)]
        timeout_ms: u64,
    },
    /// Leaves the answer in a mailbox.
    #[n(14)]
    PairAnswer {
        /// Which.
        #[n(0)]
        mailbox: MailboxId,
    },
    /// In place of a hello, and the only thing such a connection can ask: puts the body into a
    /// mailbox and waits for the answer.
    #[n(15)]
    PairJoin {
        /// Versions the client speaks.
        #[n(0)]
        versions: Vec<u16>,
        /// Which mailbox.
        #[n(1)]
        mailbox: MailboxId,
    },
}

/// The head of a reply.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Reply {
    /// What is answered.
    #[n(0)]
    pub answer: Answer,
    /// How many bytes of body follow.
    #[n(1)]
    pub body: u64,
}

/// What a node can answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub enum Answer {
    /// It is done, or the body says it.
    #[n(0)]
    Done,
    /// The connection is open.
    #[n(1)]
    Welcome {
        /// The version spoken from here on.
        #[n(0)]
        version: u16,
    },
    /// What is used and allowed.
    #[n(2)]
    Space {
        /// Bytes stored.
        #[n(0)]
        used: u64,
        /// Bytes allowed, if there is a limit.
        #[n(1)]
        quota: Option<u64>,
        /// Number of blobs.
        #[n(2)]
        blobs: u64,
    },
    /// It failed.
    #[n(3)]
    Failed(#[n(0)] Fault),
}

impl Call {
    /// The longest body such a request may have.
    pub fn body_max(&self) -> u64 {
        match self {
            Self::Hello { .. } => MEMBERSHIP_BYTES_MAX,
            Self::Put { .. } => BLOB_BYTES_MAX,
            Self::GetMany => (WANTS_MAX * record::WANT_BYTES) as u64,
            Self::Has => (IDS_MAX * record::ID_BYTES) as u64,
            Self::Append => ENTRY_BYTES_MAX as u64,
            Self::Watch { .. } => (HEADS_MAX * record::HEAD_BYTES) as u64,
            Self::PairAnswer { .. } => PAIR_ANSWER_BYTES_MAX as u64,
            Self::PairJoin { .. } => PAIR_REQUEST_BYTES_MAX as u64,
            Self::Get { .. }
            | Self::List { .. }
            | Self::Delete { .. }
            | Self::Space
            | Self::ReadLog { .. }
            | Self::Heads
            | Self::PairOpen { .. }
            | Self::PairWait { .. } => 0,
        }
    }

    /// The longest body an honest reply can have.
    pub fn reply_max(&self) -> u64 {
        match self {
            Self::Get { start, end, .. } => slice_max(end.saturating_sub(*start)),
            Self::GetMany => slice_max(WANTED_BYTES_MAX) + WANTS_MAX as u64 * slice_max(0),
            Self::Has => (IDS_MAX * 8) as u64,
            Self::List { .. } => (LIST_MAX * record::HELD_BYTES) as u64,
            // The shortest entry is fifty times the length that stands before each.
            Self::ReadLog { .. } => READ_BYTES_MAX + READ_BYTES_MAX / 50,
            Self::Heads | Self::Watch { .. } => (HEADS_MAX * record::HEAD_BYTES) as u64,
            Self::PairWait { .. } => PAIR_REQUEST_BYTES_MAX as u64,
            Self::PairJoin { .. } => PAIR_ANSWER_BYTES_MAX as u64,
            _ => 0,
        }
    }

    /// One word for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Put { .. } => "put",
            Self::Get { .. } => "get",
            Self::GetMany => "get_many",
            Self::Has => "has",
            Self::List { .. } => "list",
            Self::Delete { .. } => "delete",
            Self::Space => "space",
            Self::Append => "append",
            Self::ReadLog { .. } => "read_log",
            Self::Heads => "heads",
            Self::Watch { .. } => "watch",
            Self::PairOpen { .. } => "pair_open",
            Self::PairWait { .. } => "pair_wait",
            Self::PairAnswer { .. } => "pair_answer",
            Self::PairJoin { .. } => "pair_join",
        }
    }
}

/// A bound on the slice of `range` bytes: the groups it touches, a pair of hashes for each inner
/// node among them, and the two paths down from the root of the largest blob.
pub fn slice_max(range: u64) -> u64 {
    let bytes = range.min(GET_BYTES_MAX) + 2 * 4096;
    bytes + bytes.div_ceil(4096) * 64 + 2 * 40 * 64 + 8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor::{decode, encode};
    use crate::wire::limits::HEAD_BYTES_MAX;

    #[test]
    fn heads_have_one_spelling_and_fit() {
        let hello = Call::Hello {
            versions: (0..16).collect(),
            drive: DriveId([1; 32]),
            root: PublicKey([2; 32]),
            invite: Some(InviteSecret([3; 16])),
        };
        let request = Request { call: hello, body: u64::MAX };
        let bytes = encode(&request);
        assert!(bytes.len() < HEAD_BYTES_MAX as usize);
        assert_eq!(decode::<Request>("request", &bytes).unwrap(), request);
        let put = Request { call: Call::Put { id: BlobId([7; 32]) }, body: 5 };
        let bytes = encode(&put);
        assert_eq!(hex::encode(&bytes[..6]), "828201815820", "the layout of the header");
        assert_eq!(bytes[bytes.len() - 1], 5);
        assert!(decode::<Request>("request", &bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn heads_of_a_pairing_are_those_of_the_manual() {
        let mailbox = MailboxId([7; 32]);
        let (id, said) = ("07".repeat(32), |call: Call| hex::encode(encode(&call)));
        let open = Call::PairOpen { mailbox, lifetime_ms: 600_000 };
        assert_eq!(said(open), format!("820c825820{id}1a000927c0"));
        let wait = Call::PairWait { mailbox, timeout_ms: 0 };
        assert_eq!(said(wait), format!("820d825820{id}00"));
        assert_eq!(said(Call::PairAnswer { mailbox }), format!("820e815820{id}"));
        let join = Call::PairJoin { versions: vec![1], mailbox };
        assert_eq!(said(join.clone()), format!("820f8281015820{id}"));
        let back = decode::<Call>("call", &encode(&join)).unwrap();
        assert_eq!(back, join);
        let short = format!("820e81581f{}", "07".repeat(31));
        assert!(decode::<Call>("call", &hex::decode(short).unwrap()).is_err());
    }
}
