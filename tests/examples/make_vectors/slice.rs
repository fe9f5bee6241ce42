//! Cases of slices of blobs.

use std::ops::Range;

use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::proof::{Outboard, prove};

use crate::{Folder, Inputs, flipped, hexed};

/// Bytes that no compressor and no luck would make.
fn blob(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut hasher = blake3::Hasher::new_derive_key("rdrivefs vectors");
    hasher.update(b"blob").finalize_xof().fill(&mut bytes);
    bytes
}

fn slice(bytes: &[u8], range: Range<u64>) -> (BlobId, Vec<u8>) {
    let (id, outboard) = Outboard::of(bytes);
    let slice = prove(&outboard, &id, bytes, range).expect("memory can be read");
    (id, slice.0.to_vec())
}

fn inputs(id: BlobId, len: u64, range: Range<u64>, slice: &[u8]) -> Inputs {
    let range = format!("{}..{}", range.start, range.end);
    let (id, len) = (hexed(id.0), len.to_string());
    vec![("id", id), ("len", len), ("range", range), ("slice", hexed(slice))]
}

pub(crate) fn write(folder: &Folder) {
    valid(folder);
    refused_bytes(folder);
    refused_places(folder);
}

fn valid(folder: &Folder) {
    let put = |name: &str, comment: &str, len: usize, range: Range<u64>, means: &str| {
        let bytes = blob(len);
        let (id, slice) = slice(&bytes, range.clone());
        folder.valid(name, comment, inputs(id, len as u64, range, &slice), means);
    };
    put("empty_blob", "a blob of no bytes", 0, 0..1, "len=0 ");
    put("one_byte", "a blob of one byte", 1, 0..1, "len=1 ");
    put("one_chunk", "all of 1 KiB", 1024, 0..1024, "len=1024 ");
    put("one_group", "all of 4 KiB", 4096, 0..4096, "len=4096 ");
    put("past_group", "all of a byte more", 4097, 0..4097, "len=4097 ");
    put("first", "the first byte of 64 KiB", 64 << 10, 0..1, "start=0 len=4096 ");
    put("middle", "a byte in the middle", 64 << 10, 33_000..33_001, "start=32768 len=4096 ");
    put("across", "two bytes across groups", 64 << 10, 8191..8193, "start=4096 len=8192 ");
    put("last", "the last byte of an odd length", 50_001, 50_000..50_001, "start=49152 len=849 ");
    put("clamped", "past the end", 50_001, 49_999..90_000, "start=49152 len=849 ");
    put("challenge", "4 KiB of 1 MiB", 1 << 20, 409_600..413_696, "start=409600 len=4096 ");
    put("nothing", "an empty range", 50_001, 7..7, "len=0 ");
}

fn refused_bytes(folder: &Folder) {
    let len = 50_001;
    let (range, bytes) = (20_000..20_001, blob(len));
    let (id, good) = slice(&bytes, range.clone());
    let put = |name: &str, comment: &str, slice: &[u8], why: &str| {
        folder.refused(name, comment, inputs(id, len as u64, range.clone(), slice), why);
    };
    put("no_bytes", "nothing came", &[], "");
    put("length_alone", "the length alone came", &good[..8], "is damaged");
    put("cut", "the last byte is missing", &good[..good.len() - 1], "is damaged");
    put("cut_group", "half of the group is missing", &good[..good.len() - 2048], "is damaged");
    put("cut_path", "cut within the path", &good[..100], "is damaged");
    put("trailing", "a byte more", &[&good[..], &[0]].concat(), "is damaged");
    put("doubled", "the slice twice", &[&good[..], &good].concat(), "is damaged");
    put("bit_length", "another length", &flipped(&good, 0), "");
    put("bit_length_high", "a length of 2^56 and more", &flipped(&good, 7), "");
    let path = (good.len() - 8 - 4096) / 64;
    for step in 0..path {
        let (left, right) = (8 + step * 64, 8 + step * 64 + 32);
        let comment = format!("step {step} of the path: a bit of the left hash");
        put(&format!("path_{step}_left"), &comment, &flipped(&good, left), "is damaged");
        let comment = format!("step {step} of the path: a bit of the right hash");
        put(&format!("path_{step}_right"), &comment, &flipped(&good, right), "is damaged");
    }
    let group = good.len() - 4096;
    for at in [0, 1023, 1024, 4095] {
        let comment = format!("a bit of byte {at} of the group");
        put(&format!("group_{at}"), &comment, &flipped(&good, group + at), "is damaged");
    }
    let mut swapped = good.clone();
    swapped[8..72].rotate_left(32);
    put("path_swapped", "the first two hashes swapped", &swapped, "is damaged");
    let zeros = [&good[..8], &vec![0; good.len() - 8]].concat();
    put("s09_zeros", "zeros for bytes and path", &zeros, "is damaged");
    let zero_group = [&good[..group], &[0; 4096]].concat();
    put("s09_zero_group", "a true path, and zeros for the group", &zero_group, "is damaged");
}

fn refused_places(folder: &Folder) {
    let (len, bytes) = (50_001, blob(50_001));
    let (id, other) = slice(&bytes, 0..1);
    let put = |name: &str, comment: &str, id, len: u64, slice: &[u8], why: &str| {
        folder.refused(name, comment, inputs(id, len, 20_000..20_001, slice), why);
    };
    put("other_range", "the slice of another range", id, len, &other, "is damaged");
    let (_, whole) = slice(&bytes, 0..len);
    put("whole", "the whole blob, where a byte was asked for", id, len, &whole, "is damaged");
    let (_, good) = slice(&bytes, 20_000..20_001);
    put("other_id", "of another blob", BlobId([1; 32]), len, &good, "is damaged");
    put("longer", "of a blob believed to be longer", id, len + 1, &good, "");
    put("shorter", "of a blob believed to be shorter", id, 30_000, &good, "");
    let mut changed = bytes;
    changed[20_000] ^= 1;
    let (_, forged) = slice(&changed, 20_000..20_001);
    put("forged", "a true slice of a blob changed in that byte", id, len, &forged, "is damaged");
    let (_, empty) = slice(&[], 0..1);
    put("s09_empty", "the slice of an empty blob", id, len, &empty, "");
}
