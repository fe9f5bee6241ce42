//! From bytes to a layer: cut, named, compressed, sealed; opened and unpacked again.

use std::cell::LazyCell;
use std::hint::black_box;

use aes::cipher::{BlockCipherEncrypt as _, KeyInit as _};
use aws_lc_rs::aead::Aad;
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{Aead as _, Payload};
use criterion::Criterion;
use rdrivefs_remote::env::Env;
use rdrivefs_sync::chunk::{ChunkId, Cutter};
use rdrivefs_sync::compress::{Packed, Packer, Zstd, unpack};
use rdrivefs_sync::layer::LayerBuilder;
use rdrivefs_sync::seal;

use crate::data::{LAYER_BYTES, NOISE, TEXT, bare_key, bare_nonce, bytes, key};

/// A block as it is sealed when it does not compress.
const RAW_BLOCK_BYTES: usize = 16 << 10;
/// A block as it is compressed.
const ZSTD_BLOCK_BYTES: usize = 64 << 10;

/// Cutting by content. One AES block a position is what the secrecy of the cuts costs at least.
pub(crate) fn chunk(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk");
    group.throughput(bytes(LAYER_BYTES)).sample_size(20);
    let cutter = Cutter::new(&key());
    group.bench_function("drive", |b| b.iter(|| black_box(cut(&cutter, &NOISE)).len()));
    let cipher = aes::Aes128Enc::new(&[7; 16].into());
    group.bench_function("aes", |b| {
        let mut batch = [aes::Block::default(); 64];
        b.iter(|| (0..LAYER_BYTES / batch.len()).for_each(|_| cipher.encrypt_blocks(&mut batch)));
    });
    group.finish();
    let mut group = c.benchmark_group("name");
    group.throughput(bytes(LAYER_BYTES)).sample_size(20);
    let chunks = LazyCell::new(|| cut(&cutter, &NOISE));
    group.bench_function("drive", |b| {
        b.iter(|| chunks.iter().for_each(|chunk| _ = black_box(ChunkId::of(&key(), chunk))));
    });
    group.bench_function("blake3", |b| {
        b.iter(|| {
            chunks.iter().for_each(|chunk| _ = black_box(blake3::keyed_hash(&[7; 32], chunk)));
        });
    });
    group.finish();
}

fn cut<'a>(cutter: &Cutter, mut data: &'a [u8]) -> Vec<&'a [u8]> {
    let mut chunks = Vec::new();
    while let Some(len) = cutter.cut(data, true) {
        let (chunk, rest) = data.split_at(len);
        chunks.push(chunk);
        data = rest;
    }
    chunks
}

/// Deciding and compressing, of what gains and of what does not; and back.
pub(crate) fn compress(c: &mut Criterion) {
    for (name, data) in [("compress text", &TEXT), ("compress noise", &NOISE)] {
        let mut group = c.benchmark_group(name);
        group.throughput(bytes(LAYER_BYTES)).sample_size(20);
        group.bench_function("drive", |b| {
            let mut packer = Packer::new(Box::new(Zstd::default()));
            b.iter(|| data.chunks(1 << 20).for_each(|chunk| _ = black_box(packer.pack(chunk))));
        });
        group.bench_function("zstd", |b| {
            let mut codec = zstd::bulk::Compressor::new(1).expect("zstd has a level 1");
            let mut out = vec![0; zstd::zstd_safe::compress_bound(ZSTD_BLOCK_BYTES)];
            b.iter(|| {
                for block in data.chunks(ZSTD_BLOCK_BYTES) {
                    black_box(codec.compress_to_buffer(block, &mut out).expect("it fits"));
                }
            });
        });
        group.finish();
    }
    let mut group = c.benchmark_group("decompress text");
    group.throughput(bytes(LAYER_BYTES)).sample_size(20);
    let packed = LazyCell::new(|| packed_blocks(&TEXT));
    let mut out = Vec::with_capacity(ZSTD_BLOCK_BYTES);
    group.bench_function("drive", |b| {
        b.iter(|| {
            for (block, plain) in packed.iter() {
                out.clear();
                unpack(block, *plain, &mut out).expect("it was just compressed");
            }
        });
    });
    let mut out = vec![0; ZSTD_BLOCK_BYTES];
    group.bench_function("zstd", |b| {
        let mut codec = zstd::bulk::Decompressor::new().expect("zstd has a context");
        b.iter(|| {
            for (block, plain) in packed.iter() {
                let len = codec.decompress_to_buffer(block, &mut out).expect("it was compressed");
                assert_eq!(len, *plain);
            }
        });
    });
    group.finish();
}

/// Compressed blocks with their plain lengths.
fn packed_blocks(data: &[u8]) -> Vec<(Vec<u8>, usize)> {
    let mut packer = Packer::new(Box::new(Zstd::default()));
    let mut out = Vec::new();
    for chunk in data.chunks(1 << 20) {
        let Packed::Zstd(mut packed, lengths) = packer.pack(chunk) else { continue };
        for (plain, len) in chunk.chunks(ZSTD_BLOCK_BYTES).zip(lengths) {
            let (block, rest) = packed.split_at(*len as usize);
            packed = rest;
            out.push((block.to_vec(), plain.len()));
        }
    }
    assert!(!out.is_empty(), "sources compress");
    out
}

/// Sealing and opening block by block.
pub(crate) fn seal_and_open(c: &mut Criterion) {
    let nonce = [0; seal::NONCE_BYTES];
    let mut group = c.benchmark_group("seal");
    group.throughput(bytes(RAW_BLOCK_BYTES));
    let block = &NOISE[..RAW_BLOCK_BYTES];
    let mut out = Vec::with_capacity(RAW_BLOCK_BYTES + seal::TAG_BYTES);
    group.bench_function("drive", |b| {
        b.iter(|| {
            out.clear();
            seal::seal_into(&key(), &nonce, b"", black_box(block), &mut out);
        });
    });
    let bare = bare_key();
    let mut tagged = vec![0; RAW_BLOCK_BYTES + seal::TAG_BYTES];
    group.bench_function("aws-lc", |b| {
        let (cipher, tag) = tagged.split_at_mut(RAW_BLOCK_BYTES);
        b.iter(|| {
            let (nonce, aad) = (bare_nonce(), Aad::empty());
            let sealed =
                bare.seal_out_of_place_scatter(nonce, aad, black_box(block), cipher, &[], tag);
            sealed.expect("lengths match");
        });
    });
    let rust = ChaCha20Poly1305::new(key().as_bytes().into());
    group.bench_function("chacha20poly1305", |b| {
        let payload = || Payload { msg: black_box(block), aad: b"" };
        b.iter(|| rust.encrypt(&[0; 12].into(), payload()).expect("it fits"));
    });
    group.finish();
    let mut group = c.benchmark_group("open");
    group.throughput(bytes(RAW_BLOCK_BYTES));
    let sealed = seal::seal(&key(), &nonce, b"", block);
    group.bench_function("drive", |b| {
        b.iter(|| {
            out.clear();
            seal::open_into(&key(), &nonce, b"", black_box(&sealed), &mut out).expect("sealed");
        });
    });
    let payload = Payload { msg: block, aad: b"" };
    let sealed = rust.encrypt(&[0; 12].into(), payload).expect("it fits");
    let (cipher, tag) = sealed.split_at(RAW_BLOCK_BYTES);
    group.bench_function("aws-lc", |b| {
        b.iter(|| {
            let (nonce, aad) = (bare_nonce(), Aad::empty());
            let plain = &mut tagged[..RAW_BLOCK_BYTES];
            bare.open_separate_gather(nonce, aad, black_box(cipher), tag, plain).expect("sealed");
        });
    });
    group.bench_function("chacha20poly1305", |b| {
        let payload = || Payload { msg: black_box(&sealed), aad: b"" };
        b.iter(|| rust.decrypt(&[0; 12].into(), payload()).expect("it was sealed"));
    });
    group.finish();
}

/// The whole way of a layer: cut, name, compress, seal, hash, open again and compare.
pub(crate) fn layer(c: &mut Criterion) {
    let env = Env::real();
    for (name, data) in [("layer of text", &TEXT), ("layer of noise", &NOISE)] {
        let mut group = c.benchmark_group(name);
        group.throughput(bytes(LAYER_BYTES)).sample_size(10);
        let cutter = Cutter::new(&key());
        group.bench_function("drive", |b| {
            b.iter(|| {
                let new = || LayerBuilder::new([1; 32], [2; 32], &key(), &env);
                let mut builder = new();
                for chunk in cut(&cutter, data) {
                    if builder.is_full() {
                        let full = std::mem::replace(&mut builder, new());
                        black_box(full.close().expect("nothing lies here"));
                    }
                    builder.push(ChunkId::of(&key(), chunk), 0, chunk);
                }
                black_box(builder.close().expect("nothing lies here"));
            });
        });
        group.finish();
    }
}
