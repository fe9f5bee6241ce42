//! Cases of layers: whole ones as the builder makes them, and others written by hand.

use std::num::NonZeroU32;

use rdrivefs_sync::chunk::ChunkId;
use rdrivefs_sync::compress::Method;
use rdrivefs_sync::layer::{HEADER_BYTES, LayerBuilder, Toc, TocChunk, padme};
use rdrivefs_sync::seal::{self, Committed, Key};

use crate::{Folder, Inputs, flipped, hexed, seeded};

const DRIVE: [u8; 32] = [7; 32];
const EPOCH: [u8; 32] = [8; 32];
const NONCE: [u8; 24] = [9; 24];

fn random(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
    bytes
}

fn text(len: usize) -> Vec<u8> {
    let line = |i: usize| format!("line {} of {i} is much like the others\n", i * i % 977);
    (0..).flat_map(|i| line(i).into_bytes()).take(len).collect()
}

fn inputs(key: &Key, layer: &[u8]) -> Inputs {
    vec![
        ("key", hexed(key.as_bytes())),
        ("drive", hexed(DRIVE)),
        ("epoch", hexed(EPOCH)),
        ("layer", hexed(layer)),
    ]
}

/// A layer as the builder makes it of one file.
fn built(chunks: &[Vec<u8>]) -> (Key, Vec<u8>) {
    let ids = Key::from([1; 32]);
    let mut builder = LayerBuilder::new(DRIVE, EPOCH, &ids, &seeded("layer"));
    let mut at = 0;
    for plain in chunks {
        builder.push(ChunkId::of(&ids, plain), at, plain);
        at += plain.len() as u64;
    }
    let sealed = builder.close().expect("nothing lies to it");
    (sealed.key, sealed.bytes.to_vec())
}

/// A layer written by hand: what lies between header and table, the table as it is encoded, and
/// where it is said to lie.
struct Hand {
    key: Key,
    bodies: Vec<u8>,
    toc: Vec<u8>,
    at: Option<u32>,
}

impl Hand {
    /// Chunks one behind the other.
    fn of(chunks: &[Blocks]) -> (Self, Toc) {
        let (key, mut bodies, mut toc) = (Key::from([5; 32]), Vec::new(), Toc::default());
        for (number, chunk) in (0_u32..).zip(chunks) {
            let Blocks { method, block_log, phase, plain_len, blocks } = chunk;
            let mut chunk = TocChunk {
                offset: (HEADER_BYTES + bodies.len()) as u32,
                plain_len: *plain_len as u32,
                method: *method,
                block_log: *block_log,
                blocks: Vec::new(),
                phase: NonZeroU32::new(*phase),
            };
            let sealing =
                Key::derive("rdrivefs v1 chunk", &[key.as_bytes(), &number.to_le_bytes()]);
            let aad = chunk_aad(number, &chunk, blocks.len() as u32);
            for (block, packed) in (0_u64..).zip(blocks) {
                let mut nonce = [0; 24];
                nonce[..8].copy_from_slice(&block.to_le_bytes());
                nonce[8] = u8::from(block as usize + 1 == blocks.len());
                seal::seal_into(&sealing, &nonce, &aad, packed, &mut bodies);
                if *method == Method::Zstd {
                    chunk.blocks.push((packed.len() + 16) as u32);
                }
            }
            toc.chunks.push(chunk);
        }
        (Self { key, bodies, toc: toc.encode(), at: None }, toc)
    }

    fn layer(&self) -> Vec<u8> {
        let versions = [1_u16.to_le_bytes(), 1_u16.to_le_bytes()].concat();
        let aad = [&versions[..], &DRIVE, &EPOCH, &NONCE].concat();
        let committed = Committed::of("rdrivefs v1 layer", &self.key, &NONCE, &aad);
        let (mut first, mut second) = ([0; 24], [0; 24]);
        (first[0], second[0]) = (0, 1);
        let toc = seal::seal(&committed.key, &second, b"rdrivefs/v1/layer/toc", &self.toc);
        let at = self.at.unwrap_or((HEADER_BYTES + self.bodies.len()) as u32);
        let place = [at.to_le_bytes(), (toc.len() as u32).to_le_bytes()].concat();
        let place = seal::seal(&committed.key, &first, b"rdrivefs/v1/layer/place", &place);
        let head = [&b"RDRVLAYR"[..], &versions, &NONCE, &committed.commitment, &place].concat();
        let mut bytes = [&head[..], &self.bodies, &toc].concat();
        let end = bytes.len();
        bytes.resize(padme(end as u64) as usize, 0);
        let key = Key::derive("rdrivefs v1 layer padding", &[self.key.as_bytes()]);
        blake3::Hasher::new_keyed(key.as_bytes()).finalize_xof().fill(&mut bytes[end..]);
        bytes
    }

    fn inputs(&self) -> Inputs {
        inputs(&self.key, &self.layer())
    }
}

fn chunk_aad(number: u32, chunk: &TocChunk, blocks: u32) -> Vec<u8> {
    [
        &b"rdrivefs/v1/chunk"[..],
        &1_u16.to_le_bytes(),
        &DRIVE,
        &EPOCH,
        &NONCE,
        &number.to_le_bytes(),
        &blocks.to_le_bytes(),
        &chunk.plain_len.to_le_bytes(),
        &[chunk.method as u8, chunk.block_log],
        &chunk.phase.map_or(Vec::new(), |phase| phase.get().to_le_bytes().to_vec()),
    ]
    .concat()
}

/// A chunk as its blocks are packed, before they are sealed.
struct Blocks {
    method: Method,
    block_log: u8,
    phase: u32,
    plain_len: usize,
    blocks: Vec<Vec<u8>>,
}

fn raw(plain: &[u8], block_log: u8) -> Blocks {
    raw_at(plain, block_log, 0)
}

fn raw_at(plain: &[u8], block_log: u8, phase: u32) -> Blocks {
    let (first, rest) = plain.split_at(plain.len().min((1 << block_log) - phase as usize));
    let rest = rest.chunks(1 << block_log).map(<[u8]>::to_vec);
    let blocks = std::iter::once(first.to_vec()).chain(rest).collect();
    Blocks { method: Method::Raw, block_log, phase, plain_len: plain.len(), blocks }
}

fn packed(plain: &[u8], block_log: u8) -> Blocks {
    let frame = |piece: &[u8]| zstd::bulk::compress(piece, 3).expect("memory takes every write");
    let blocks = plain.chunks(1 << block_log).map(frame).collect();
    Blocks { method: Method::Zstd, block_log, phase: 0, plain_len: plain.len(), blocks }
}

pub(crate) fn write(folder: &Folder) {
    valid(folder);
    refused_bytes(folder);
    refused_chunks(folder);
    refused_tables(folder);
    refused_frames(folder);
}

fn valid(folder: &Folder) {
    let put = |name: &str, comment: &str, chunks: &[Vec<u8>], means: &str| {
        let (key, layer) = built(chunks);
        folder.valid(name, comment, inputs(&key, &layer), means);
    };
    put("byte", "one chunk of one byte", &[vec![0]], "chunks=[1:");
    put("small", "a chunk that does not shrink", &[random(1, 40)], "chunks=[40:");
    put("text", "a chunk that shrinks", &[text(3000)], "chunks=[3000:");
    let mixed = [random(1, 40), text(700), random(2, 17), text(2000)];
    put("mixed", "four chunks, shuffled", &mixed, " 2000:");
    let many: Vec<Vec<u8>> = (0..40).map(|seed| random(seed, 60)).collect();
    put("many", "forty chunks", &many, "chunks=[60:");
    put("block", "exactly one block of 4 KiB", &[random(3, 1 << 12)], "chunks=[4096:");
    put("two_blocks", "a byte more", &[random(3, (1 << 12) + 1)], "chunks=[4097:");
    put("phase", "cut within blocks", &[random(3, 5000), random(4, 5000)], "chunks=[5000:");
    put("packed_block", "exactly one block of 64 KiB", &[text(1 << 16)], "chunks=[65536:");
    put("packed_blocks", "three blocks that shrink", &[text(150_000)], "chunks=[150000:");
    put("zeros", "the longest chunk, of zeros", &[vec![0; 4 << 20]], "chunks=[4194304:");
    let chunks = [raw(&random(1, 9000), 12), packed(&text(9000), 13), raw(b"x", 20)];
    let comment = "other lengths of blocks, written by hand";
    folder.valid("hand", comment, Hand::of(&chunks).0.inputs(), "chunks=[9000:");
    let chunks = [raw(&random(1, 1 << 14), 14), raw(&random(2, (1 << 14) + 1), 14)];
    let comment = "blocks of 16 KiB, as they were at first";
    folder.valid("blocks_16_kib", comment, Hand::of(&chunks).0.inputs(), "chunks=[16384:");
    let plain = random(1, 9000);
    let phases = [1, 1000, 4095].map(|phase| raw_at(&plain, 12, phase));
    let comment = "first blocks shorter by a phase";
    folder.valid("phases", comment, Hand::of(&phases).0.inputs(), "chunks=[9000:");
    let short = [raw_at(b"x", 12, 4095), raw_at(b"xy", 12, 4095), raw_at(b"xy", 12, 1)];
    let comment = "phases in chunks of a byte or two";
    folder.valid("phases_short", comment, Hand::of(&short).0.inputs(), "chunks=[1:");
}

fn refused_bytes(folder: &Folder) {
    let (key, good) = built(&[random(1, 40), text(700), random(2, 40)]);
    let put = |name: &str, comment: &str, layer: &[u8], why: &str| {
        folder.refused(name, comment, inputs(&key, layer), why);
    };
    put("empty", "no bytes", &[], "cut short");
    put("header_cut", "cut within the header", &good[..91], "cut short");
    put("header_alone", "the header alone", &good[..92], "cut off");
    put("magic", "another magic", &flipped(&good, 0), "not one");
    put("version", "a version that is not known", &flipped(&good, 8), "format version");
    put("suite", "a suite that is not known", &flipped(&good, 10), "format version");
    let parts = [
        ("nonce", 12, "bound to another key"),
        ("commitment", 36, "bound to another key"),
        ("place", 68, "place of its table"),
        ("place_tag", 91, "place of its table"),
        ("chunk", 92, "of a layer is damaged"),
        ("padding", good.len() - 1, "padding"),
    ];
    for (name, at, why) in parts {
        put(&format!("bit_{name}"), &format!("a bit changed: {name}"), &flipped(&good, at), why);
    }
    put("cut", "the last byte is missing", &good[..good.len() - 1], "padding");
    put("longer", "a byte more", &[&good[..], &[0]].concat(), "padding");
    let next = padme(good.len() as u64 + 1) as usize;
    let longer = [&good[..], &vec![0; next - good.len()]].concat();
    put("longer_zeros", "zeros up to the next length there is", &longer, "padding");
    let mut zeros = good.clone();
    let end = zeros.len();
    zeros[end - 8..].fill(0);
    put("padding_zeros", "zeros at the end of the padding", &zeros, "padding");
    folder.refused("key", "another key", inputs(&Key::from([1; 32]), &good), "bound to another");
    for (name, at) in [("drive", 1), ("epoch", 2)] {
        let mut inputs = inputs(&key, &good);
        inputs[at].1 = hexed([1; 32]);
        folder.refused(name, &format!("in another {name}"), inputs, "bound to another");
    }
    let aad = [&[1, 0, 1, 0][..], &DRIVE, &EPOCH, &good[12..36]].concat();
    let nonce = good[12..36].try_into().expect("24 bytes");
    let other = Committed::of("rdrivefs v1 layer", &Key::from([1; 32]), nonce, &aad);
    let mut salamander = good.clone();
    salamander[36..68].copy_from_slice(&other.commitment);
    let comment = "sealed under one key, committed to another";
    put("s34_commitment", comment, &salamander, "bound to another");
    let inputs = inputs(&Key::from([1; 32]), &salamander);
    folder.refused("s34_other", "the same, opened with the other", inputs, "place of its table");
}

fn refused_chunks(folder: &Folder) {
    let chunks = [raw(&random(1, 9000), 12), raw(&random(2, 9000), 12)];
    let (good, toc) = Hand::of(&chunks);
    let (block, len) = (4096 + 16, 9000 + 3 * 16);
    let put = |name: &str, comment: &str, change: &dyn Fn(&mut Vec<u8>), why: &str| {
        let mut bodies = good.bodies.clone();
        change(&mut bodies);
        let hand = Hand { bodies, key: good.key.clone(), toc: good.toc.clone(), at: None };
        folder.refused(name, comment, hand.inputs(), why);
    };
    let damaged = "block 0 of chunk 0 of a layer is damaged";
    put("chunks_swapped", "two chunks of one length swapped", &|b| b.rotate_left(len), damaged);
    let blocks = |b: &mut Vec<u8>| b[..2 * block].rotate_left(block);
    put("blocks_swapped", "two blocks of a chunk swapped", &blocks, damaged);
    let again = |b: &mut Vec<u8>| b.copy_within(..block, block);
    put("block_twice", "a block in the place of the next", &again, "block 1 of chunk 0");
    put("s09_zeros", "zeros for a chunk", &|b| b[..len].fill(0), damaged);
    put("block_bit", "a bit of the last block", &|b| b[len - 1] ^= 1, "block 2 of chunk 0");

    let relabelled = |name: &str, comment: &str, change: &dyn Fn(&mut Toc), why: &str| {
        let mut toc = toc.clone();
        change(&mut toc);
        let (key, bodies) = (good.key.clone(), good.bodies.clone());
        let hand = Hand { key, bodies, toc: toc.encode(), at: None };
        folder.refused(name, comment, hand.inputs(), why);
    };
    let exchanged = |toc: &mut Toc| {
        let (a, b) = (toc.chunks[0].offset, toc.chunks[1].offset);
        (toc.chunks[0].offset, toc.chunks[1].offset) = (b, a);
    };
    relabelled("places_exchanged", "a table that exchanges two chunks", &exchanged, damaged);
    let method = |toc: &mut Toc| {
        toc.chunks[0].method = Method::Zstd;
        toc.chunks[0].blocks = vec![4112, 4112, 824];
    };
    relabelled("method", "a raw chunk said to be compressed", &method, damaged);
    let shorter = |toc: &mut Toc| {
        toc.chunks[0].plain_len = 8192;
        toc.chunks[1].plain_len = 9000 + 808 + 16;
        toc.chunks[1].offset -= 808 + 16;
    };
    let moved = |toc: &mut Toc| toc.chunks[0].phase = NonZeroU32::new(1);
    relabelled("phase_moved", "a phase where there was none", &moved, damaged);
    relabelled("shortened", "a chunk said to end a block earlier", &shorter, damaged);
}

fn refused_tables(folder: &Folder) {
    let (good, toc) = Hand::of(&[raw(&random(1, 50), 14), packed(&text(500), 16)]);
    let put_bytes = |name: &str, comment: &str, toc: Vec<u8>, at: Option<u32>, why: &str| {
        let hand = Hand { key: good.key.clone(), bodies: good.bodies.clone(), toc, at };
        folder.refused(name, comment, hand.inputs(), why);
    };
    let put = |name: &str, comment: &str, change: &dyn Fn(&mut Toc), why: &str| {
        let mut toc = toc.clone();
        change(&mut toc);
        put_bytes(name, comment, toc.encode(), None, why);
    };
    put("no_chunks", "a table of nothing", &|t| t.chunks.clear(), "number of chunks");
    put("gap", "a byte between chunks", &|t| t.chunks[1].offset += 1, "overlap or leave a gap");
    put("overlap", "chunks that overlap", &|t| t.chunks[1].offset -= 1, "overlap or leave a gap");
    put("in_header", "a chunk within the header", &|t| t.chunks[0].offset = 0, "overlap or leave");
    put("chunk_empty", "a chunk of no bytes", &|t| t.chunks[0].plain_len = 0, "no chunk has this");
    let long = |t: &mut Toc| t.chunks[0].plain_len = (4 << 20) + 1;
    put("chunk_long", "a chunk longer than there are", &long, "no chunk has this length");
    for log in [11, 21, 255] {
        let change = |t: &mut Toc| t.chunks[0].block_log = log;
        let comment = format!("blocks of 2^{log} bytes");
        put(&format!("block_log_{log}"), &comment, &change, "no block has this length");
    }
    for (name, chunk, phase) in [("block", 0, 1 << 14), ("huge", 0, u32::MAX), ("packed", 1, 1)] {
        let change = |t: &mut Toc| t.chunks[chunk].phase = NonZeroU32::new(phase);
        let comment = format!("a phase of {phase} in chunk {chunk}");
        put(&format!("phase_{name}"), &comment, &change, "no chunk has this phase");
    }
    let more = |t: &mut Toc| t.chunks[1].blocks.push(40);
    put("blocks_more", "a block more than the length asks for", &more, "another number of blocks");
    let none = |t: &mut Toc| t.chunks[1].blocks.clear();
    put("blocks_none", "a compressed chunk without blocks", &none, "another number of blocks");
    let listed = |t: &mut Toc| t.chunks[0].blocks.push(66);
    put("blocks_raw", "lengths where they follow by themselves", &listed, "another number of");
    put("block_tiny", "a block of a tag alone", &|t| t.chunks[1].blocks[0] = 16, "cannot have");
    put("block_huge", "a block of 4 GiB", &|t| t.chunks[1].blocks[0] = u32::MAX, "cannot have");
    put(
        "short",
        "a table that ends before the chunks",
        &|t| drop(t.chunks.pop()),
        "does not begin",
    );
    let trailing = [&good.toc[..], &[0]].concat();
    put_bytes("table_trailing", "a byte behind the table", trailing, None, "canonical");
    let wide = [&[0x98, 2][..], &good.toc[1..]].concat();
    put_bytes("table_wide", "a length in two bytes", wide, None, "canonical");
    let same = || good.toc.clone();
    put_bytes("place_header", "a table in the header", same(), Some(91), "beyond");
    put_bytes("place_beyond", "a table beyond 16 MiB", same(), Some(16 << 20), "beyond");
    put_bytes("place_huge", "a table beyond everything", same(), Some(u32::MAX), "beyond");
    put_bytes("place_chunk", "a table where a chunk lies", same(), Some(92), "was changed");
}

fn refused_frames(folder: &Folder) {
    let frame = |plain: &[u8]| zstd::bulk::compress(plain, 3).expect("memory takes every write");
    let put = |name: &str, comment: &str, len: usize, block: Vec<u8>| {
        let blocks = vec![block];
        let chunk =
            Blocks { method: Method::Zstd, block_log: 16, phase: 0, plain_len: len, blocks };
        let (hand, _) = Hand::of(&[chunk]);
        folder.refused(name, comment, hand.inputs(), "block 0 of chunk 0 of a layer is damaged");
    };
    let plain = text(500);
    put("frame_garbage", "a block that is no frame", 500, random(1, 60));
    put("frame_longer", "a frame that opens to more than the table says", 499, frame(&plain));
    put("frame_shorter", "one that opens to less", 501, frame(&plain));
    put("frame_cut", "a frame cut short", 500, frame(&plain)[..40].to_vec());
    put("frame_trailing", "a byte behind it", 500, [&frame(&plain)[..], &[0]].concat());
    put("bomb", "64 MiB of zeros in a block of 64 KiB", 1 << 16, frame(&vec![0; 64 << 20]));
}
