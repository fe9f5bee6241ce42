//! From a layer to a proof: the tree beside it, slices, and their check.

use std::cell::LazyCell;
use std::hint::black_box;

use bao_tree::io::outboard::{EmptyOutboard, PreOrderMemOutboard};
use bao_tree::io::sync::{decode_ranges, encode_ranges_validated};
use bao_tree::{BlockSize, ChunkNum, ChunkRanges};
use criterion::{Criterion, Throughput};
use rdrivefs_remote::proof::{GROUP_BYTES, Outboard, prove, verify};

use crate::data::{NOISE, bytes};

/// The tree beside a blob, a slice cut with it, and the check of the slice.
pub(crate) fn bao(c: &mut Criterion) {
    const GROUP: BlockSize = BlockSize::from_chunk_log(2);
    let blob = &NOISE[..];
    let mut group = c.benchmark_group("bao outboard");
    group.throughput(bytes(blob.len())).sample_size(20);
    group.bench_function("drive", |b| b.iter(|| Outboard::of(black_box(blob))));
    group.bench_function("blake3", |b| b.iter(|| blake3::hash(black_box(blob))));
    group.bench_function("bao-tree", |b| {
        b.iter(|| PreOrderMemOutboard::create(black_box(blob), GROUP));
    });
    group.finish();

    let made = LazyCell::new(|| Outboard::of(blob));
    let bare = LazyCell::new(|| PreOrderMemOutboard::create(blob, GROUP));
    let at = blob.len() as u64 / 3 / GROUP_BYTES * GROUP_BYTES;
    let range = at..at + GROUP_BYTES;
    let chunks = ChunkRanges::from(ChunkNum(range.start / 1024)..ChunkNum(range.end / 1024));
    let bare_slice = || {
        let mut slice = Vec::new();
        encode_ranges_validated(blob, &*bare, &chunks, &mut slice).expect("it is all there");
        slice
    };
    let mut group = c.benchmark_group("bao slice");
    group.throughput(Throughput::Bytes(GROUP_BYTES));
    group.bench_function("drive", |b| {
        let (id, outboard) = &*made;
        b.iter(|| prove(outboard, id, blob, range.clone()).expect("it is all there"));
    });
    group.bench_function("bao-tree", |b| b.iter(bare_slice));
    group.finish();
    let mut group = c.benchmark_group("bao verify");
    group.throughput(Throughput::Bytes(GROUP_BYTES));
    group.bench_function("drive", |b| {
        let (id, outboard) = &*made;
        let slice = prove(outboard, id, blob, range.clone()).expect("it is all there");
        b.iter(|| verify(id, outboard.len, range.clone(), slice.clone()).expect("it is right"));
    });
    group.bench_function("bao-tree", |b| {
        let slice = bare_slice();
        let mut plain = vec![0; blob.len()];
        b.iter(|| {
            let nothing = EmptyOutboard { tree: bare.tree, root: bare.root };
            decode_ranges(&slice[..], &chunks, &mut plain[..], nothing).expect("it is right");
        });
    });
    group.finish();
}
