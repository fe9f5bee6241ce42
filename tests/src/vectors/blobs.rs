//! Readers of the formats of blobs: slice.

use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::proof::{Slice, verify};

use super::case::Case;

/// `id` and `len` of a blob, `range` asked for (`from..to`), `slice` that came.
pub(super) fn slice(case: &Case) -> Result<String, String> {
    let (from, to) = case.text("range").split_once("..").expect("a range is from..to");
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let (id, len) = (BlobId(case.array("id")), number(case.text("len")));
    let slice = Slice(case.bytes("slice").into());
    let verified = verify(&id, len, number(from)..number(to), slice).map_err(|e| e.to_string())?;
    let (start, bytes) = (verified.start, verified.bytes);
    Ok(format!("start={start} len={} hash={}", bytes.len(), blake3::hash(&bytes)))
}
