//! Readers of the formats of blobs, and of where files are cut: slice, cut.

use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::proof::{Slice, verify};

use rdrivefs_sync::chunk::{ChunkId, Cutter};
use rdrivefs_sync::seal::Key;

use super::case::{Case, unhex};

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

/// `key` the chunker's keys grow from; `dedup` names the chunks; the data is `len` bytes of BLAKE3's
/// stream in the mode of key derivation, context "rdrivefs vectors", of `seed`, or `len` times
/// `byte`; if `inserted`, that stands before it.
pub(super) fn cut(case: &Case) -> Result<String, String> {
    let cutter = Cutter::new(&Key::from(case.array("key")));
    let dedup = Key::from(case.array("dedup"));
    let mut data = case.find("inserted").map(unhex).unwrap_or_default();
    let start = data.len();
    data.resize(start + case.text("len").parse::<usize>().expect("a length"), 0);
    match case.find("byte") {
        Some(byte) => data[start..].fill(unhex(byte)[0]),
        None => {
            let mut hasher = blake3::Hasher::new_derive_key("rdrivefs vectors");
            hasher.update(&case.bytes("seed")).finalize_xof().fill(&mut data[start..]);
        }
    }
    let (mut rest, mut chunks) = (&data[..], Vec::new());
    while let Some(len) = cutter.cut(rest, true) {
        let (chunk, more) = rest.split_at(len);
        chunks.push(format!("{len}:{}", hex::encode(ChunkId::of(&dedup, chunk).0)));
        rest = more;
    }
    Ok(format!("chunks={}", chunks.join(" ")))
}
