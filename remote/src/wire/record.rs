//! Records: the fixed and counted pieces that bodies are made of (layouts in `wire`'s header).
//!
//! Every reader takes the whole body, refuses one that does not divide evenly, and refuses more
//! records than the protocol allows.

use std::ops::Range;

use bytes::Bytes;

use crate::blob::BlobId;
use crate::cbor;
use crate::entry::{ENTRY_BYTES_MAX, Head, LOG_ID_BYTES, LogId};
use crate::error::{Error, Result};
use crate::store::{Held, Slice};
use crate::wire::fault::Fault;
use crate::wire::limits::{HEADS_MAX, IDS_MAX, LIST_MAX, WANTED_BYTES_MAX, WANTS_MAX};

/// Bytes of an id.
pub const ID_BYTES: usize = 32;
/// Bytes of a want.
pub const WANT_BYTES: usize = ID_BYTES + 16;
/// Bytes of a blob held.
pub const HELD_BYTES: usize = ID_BYTES + 8;
/// Bytes of a log's head.
pub const HEAD_BYTES: usize = LOG_ID_BYTES + 8 + 32;

/// The length that says "not held".
const NOT_HELD: u64 = u64::MAX;
/// First byte of an item that is a slice.
const ITEM_SLICE: u8 = 0;
/// First byte of an item that is a fault.
const ITEM_FAULT: u8 = 1;

/// A range of a blob somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The blob.
    pub id: BlobId,
    /// Bytes of it; the end may lie behind the blob's.
    pub range: Range<u64>,
}

/// Writes ids.
pub fn write_ids(ids: &[BlobId]) -> Bytes {
    ids.iter().flat_map(|id| id.0).collect::<Vec<u8>>().into()
}

/// Reads ids.
///
/// # Errors
/// [`Error::Malformed`].
pub fn read_ids(body: &[u8]) -> Result<Vec<BlobId>> {
    let ids = pieces::<ID_BYTES>("ids", body, IDS_MAX)?;
    Ok(ids.map(|id| BlobId(*id)).collect())
}

/// Writes what `Has` found.
pub fn write_lengths(lengths: &[Option<u64>]) -> Vec<u8> {
    lengths.iter().flat_map(|len| len.unwrap_or(NOT_HELD).to_le_bytes()).collect()
}

/// Reads what `Has` found for `count` ids.
///
/// # Errors
/// [`Error::Malformed`], also for another number of them.
pub fn read_lengths(body: &[u8], count: usize) -> Result<Vec<Option<u64>>> {
    let lengths = pieces::<8>("lengths", body, IDS_MAX)?.map(|len| u64::from_le_bytes(*len));
    let lengths: Vec<_> = lengths.map(|len| (len != NOT_HELD).then_some(len)).collect();
    if lengths.len() != count {
        return Err(Error::malformed("lengths", "not as many as ids were asked for"));
    }
    Ok(lengths)
}

/// Writes wants.
pub fn write_wants(wants: &[Want]) -> Bytes {
    let mut out = Vec::with_capacity(wants.len() * WANT_BYTES);
    for want in wants {
        out.extend_from_slice(&want.id.0);
        out.extend_from_slice(&want.range.start.to_le_bytes());
        out.extend_from_slice(&want.range.end.to_le_bytes());
    }
    out.into()
}

/// Reads wants, which together may not ask for more than an answer may hold.
///
/// # Errors
/// [`Error::Malformed`].
pub fn read_wants(body: &[u8]) -> Result<Vec<Want>> {
    let mut total = 0u64;
    let mut wants = Vec::with_capacity(body.len() / WANT_BYTES);
    for piece in pieces::<WANT_BYTES>("wants", body, WANTS_MAX)? {
        let (start, end) = (number(piece, 32), number(piece, 40));
        let len = end.checked_sub(start).ok_or(Error::malformed("wants", "a range ends early"))?;
        total = total.saturating_add(len);
        wants.push(Want { id: BlobId(array(piece, 0)), range: start..end });
    }
    if total > WANTED_BYTES_MAX {
        return Err(Error::malformed("wants", "more bytes than one answer may hold"));
    }
    Ok(wants)
}

/// Adds one answer to a `GetMany`.
pub fn write_item(out: &mut Vec<u8>, item: &Result<Slice>) {
    let fault;
    let (kind, bytes) = match item {
        Ok(slice) => (ITEM_SLICE, &slice.0[..]),
        Err(error) => {
            fault = cbor::encode(&Fault::from(error));
            (ITEM_FAULT, &fault[..])
        }
    };
    out.push(kind);
    out.extend_from_slice(&len_u32(bytes));
    out.extend_from_slice(bytes);
}

/// Reads the answers to a `GetMany` of `count` wants.
///
/// # Errors
/// [`Error::Malformed`], also for another number of them.
pub fn read_items(body: &Bytes, count: usize) -> Result<Vec<Result<Slice>>> {
    let mut items = Vec::with_capacity(count);
    let mut rest = body.clone();
    while !rest.is_empty() && items.len() < count {
        let kind = rest.split_to(1)[0];
        let bytes = counted("items", &mut rest, usize::MAX)?;
        items.push(match kind {
            ITEM_SLICE => Ok(Slice(bytes)),
            ITEM_FAULT => Err(cbor::decode::<Fault>("fault", &bytes)?.into()),
            _ => return Err(Error::malformed("items", "neither a slice nor a fault")),
        });
    }
    if items.len() != count || !rest.is_empty() {
        return Err(Error::malformed("items", "not as many as were wanted"));
    }
    Ok(items)
}

/// Writes blobs held.
pub fn write_held(held: &[Held]) -> Vec<u8> {
    let mut out = Vec::with_capacity(held.len() * HELD_BYTES);
    for blob in held {
        out.extend_from_slice(&blob.id.0);
        out.extend_from_slice(&blob.len.to_le_bytes());
    }
    out
}

/// Reads blobs held, which must ascend.
///
/// # Errors
/// [`Error::Malformed`].
pub fn read_held(body: &[u8]) -> Result<Vec<Held>> {
    let held = pieces::<HELD_BYTES>("list", body, LIST_MAX)?;
    let held: Vec<_> = held.map(|p| Held { id: BlobId(array(p, 0)), len: number(p, 32) }).collect();
    if !held.is_sorted_by(|a, b| a.id < b.id) {
        return Err(Error::malformed("list", "ids that do not ascend"));
    }
    Ok(held)
}

/// Writes entries, each with its length in front.
pub fn write_entries<'e>(entries: impl IntoIterator<Item = &'e Bytes>) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        out.extend_from_slice(&len_u32(entry));
        out.extend_from_slice(entry);
    }
    out
}

/// Reads entries; that they are entries is for `entry` to check.
///
/// # Errors
/// [`Error::Malformed`].
pub fn read_entries(body: &Bytes) -> Result<Vec<Bytes>> {
    let mut rest = body.clone();
    let mut entries = Vec::new();
    while !rest.is_empty() {
        entries.push(counted("entries", &mut rest, ENTRY_BYTES_MAX)?);
    }
    Ok(entries)
}

/// Writes the heads of logs.
pub fn write_heads(heads: &[Head]) -> Bytes {
    let mut out = Vec::with_capacity(heads.len() * HEAD_BYTES);
    for head in heads {
        out.extend_from_slice(&head.log.encode());
        out.extend_from_slice(&head.number.to_le_bytes());
        out.extend_from_slice(&head.hash);
    }
    out.into()
}

/// Reads the heads of logs.
///
/// # Errors
/// [`Error::Malformed`].
pub fn read_heads(body: &[u8]) -> Result<Vec<Head>> {
    let heads = pieces::<HEAD_BYTES>("heads", body, HEADS_MAX)?;
    heads
        .map(|piece| {
            let log = LogId::decode(&array(piece, 0))?;
            let number = number(piece, LOG_ID_BYTES);
            Ok(Head { log, number, hash: array(piece, LOG_ID_BYTES + 8) })
        })
        .collect()
}

/// The body in pieces of `N` bytes, at most `max` of them and nothing left over.
fn pieces<'b, const N: usize>(
    what: &'static str,
    body: &'b [u8],
    max: usize,
) -> Result<impl Iterator<Item = &'b [u8; N]> + use<'b, N>> {
    let (pieces, rest) = body.as_chunks::<N>();
    if !rest.is_empty() {
        return Err(Error::malformed(what, "a record cut short"));
    }
    if pieces.len() > max {
        return Err(Error::malformed(
            what,
            format_args!("{} records, {max} at most", pieces.len()),
        ));
    }
    Ok(pieces.iter())
}

/// Takes a length and so many bytes off the front.
fn counted(what: &'static str, rest: &mut Bytes, max: usize) -> Result<Bytes> {
    let cut = || Error::malformed(what, "a record cut short");
    let len = rest.split_to_checked(4).ok_or_else(cut)?;
    let len = u32::from_le_bytes(array(&len, 0)) as usize;
    if len > max {
        return Err(Error::malformed(what, "a record too long"));
    }
    rest.split_to_checked(len).ok_or_else(cut)
}

/// `Bytes::split_to` without its panic.
trait SplitChecked: Sized {
    fn split_to_checked(&mut self, at: usize) -> Option<Self>;
}

impl SplitChecked for Bytes {
    fn split_to_checked(&mut self, at: usize) -> Option<Self> {
        (at <= self.len()).then(|| self.split_to(at))
    }
}

fn len_u32(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).expect("records are far below 4 GiB").to_le_bytes()
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// `N` bytes of `bytes` from `at`, which the caller knows to be there.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has this length")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::entry::LogKind;
    use crate::identity::PublicKey;

    #[test]
    fn records_come_back_as_they_went() {
        let (a, b) = (BlobId([1; 32]), BlobId([2; 32]));
        assert_eq!(read_ids(&write_ids(&[a, b])).unwrap(), [a, b]);
        let lengths = [Some(0), None, Some(9)];
        assert_eq!(read_lengths(&write_lengths(&lengths), 3).unwrap(), lengths);
        assert!(read_lengths(&write_lengths(&lengths), 2).is_err());
        let wants = [Want { id: a, range: 5..4101 }, Want { id: b, range: 0..0 }];
        assert_eq!(read_wants(&write_wants(&wants)).unwrap(), wants);
        let held = [Held { id: a, len: 7 }, Held { id: b, len: 0 }];
        assert_eq!(read_held(&write_held(&held)).unwrap(), held);
        assert!(read_held(&write_held(&[held[1], held[0]])).is_err(), "descending");
        assert!(read_held(&write_held(&[held[0], held[0]])).is_err(), "twice");
        let log = LogId { kind: LogKind::Commits, author: PublicKey([3; 32]), instance: 1 };
        let heads = [Head { log, number: 4, hash: [5; 32] }];
        assert_eq!(read_heads(&write_heads(&heads)).unwrap(), heads);
        let entries = [Bytes::from("one"), Bytes::new(), Bytes::from("three")];
        assert_eq!(read_entries(&write_entries(&entries).into()).unwrap(), entries);
    }

    #[test]
    fn items_keep_their_faults() {
        let mut body = Vec::new();
        write_item(&mut body, &Ok(Slice(Bytes::from("slice"))));
        write_item(&mut body, &Err(Error::Missing(BlobId([4; 32]))));
        let body = Bytes::from(body);
        let items = read_items(&body, 2).unwrap();
        assert_eq!(&items[0].as_ref().unwrap().0[..], b"slice");
        assert!(items[1].as_ref().unwrap_err().is_missing());
        assert!(read_items(&body, 1).is_err() && read_items(&body, 3).is_err());
    }

    #[test]
    fn greed_is_refused() {
        let want = |range| Want { id: BlobId([0; 32]), range };
        assert!(read_wants(&write_wants(&[want(0..WANTED_BYTES_MAX + 1)])).is_err());
        assert!(read_wants(&write_wants(&[want(0..u64::MAX), want(0..u64::MAX)])).is_err());
        assert!(read_wants(&write_wants(&vec![want(0..1); WANTS_MAX + 1])).is_err());
        #[allow(clippy::reversed_empty_ranges)]
        let backwards = want(5..4);
        assert!(read_wants(&write_wants(&[backwards])).is_err());
        assert!(read_ids(&vec![0; (IDS_MAX + 1) * ID_BYTES]).is_err());
        assert!(read_entries(&Bytes::from(u32::MAX.to_le_bytes().to_vec())).is_err());
    }

    proptest! {
        #[test]
        fn noise_is_an_error_or_a_value_never_a_panic(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
            let noise = Bytes::from(noise);
            if let Ok(ids) = read_ids(&noise) { prop_assert_eq!(&write_ids(&ids), &noise); }
            if let Ok(wants) = read_wants(&noise) { prop_assert_eq!(&write_wants(&wants), &noise); }
            if let Ok(heads) = read_heads(&noise) { prop_assert_eq!(&write_heads(&heads), &noise); }
            if let Ok(entries) = read_entries(&noise) { prop_assert_eq!(&write_entries(&entries), &noise); }
            let _ = read_items(&noise, 2);
        }
    }
}
