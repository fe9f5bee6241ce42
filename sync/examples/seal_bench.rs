//! What each step of the seal pipeline costs on one core, and the whole of it.
//!
//!     cargo run --release -p rdrivefs-sync --example seal_bench [FOLDER [MIB]]
//!
//! Takes incompressible bytes and the files of FOLDER (by default the sources of cargo's registry),
//! MIB of each, 256 by default. Times are of the processor, so that a busy machine disturbs little.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use rdrivefs_remote::env::Env;
use rdrivefs_remote::proof::Outboard;
use rdrivefs_sync::chunk::{ChunkId, Cutter};
use rdrivefs_sync::compress::{Packed, Packer, Zstd, unpack};
use rdrivefs_sync::layer::{LayerBuilder, Sealed};
use rdrivefs_sync::seal::{self, Key};

/// Rounds over the data; the fastest counts.
const ROUNDS: usize = 3;

fn main() {
    let mut args = std::env::args().skip(1);
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let folder = args.next().map_or(home.join(".cargo/registry/src"), PathBuf::from);
    let mib: usize = args.next().map_or(256, |text| text.parse().expect("MIB is a number"));
    let mut random = vec![0; mib << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut random);
    let mut text = Vec::new();
    gather(&folder, mib << 20, &mut text);
    for (name, data) in [("incompressible", &random), ("source text", &text)] {
        if !data.is_empty() {
            report(name, data);
        }
    }
}

/// Concatenates files until there are enough bytes.
fn gather(folder: &Path, enough: usize, out: &mut Vec<u8>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if out.len() >= enough {
            out.truncate(enough);
        } else if path.is_dir() {
            gather(&path, enough, out);
        } else if path.extension().is_some_and(|e| ["rs", "c", "h", "md"].iter().any(|x| e == *x)) {
            out.extend(std::fs::read(&path).unwrap_or_default());
        }
    }
}

fn report(name: &str, data: &[u8]) {
    let cutter = Cutter::new(&Key::from([1; 32]));
    let ids = Key::from([2; 32]);
    let chunks = cut(&cutter, data);
    println!("\n{name}: {} MiB in {} chunks", data.len() >> 20, chunks.len());
    let line = |step: &str, run: &mut dyn FnMut()| {
        let seconds = (0..ROUNDS).map(|_| time(run)).fold(f64::MAX, f64::min);
        let (speed, cost) = (data.len() as f64 / 1e6 / seconds, seconds * 1e9 / data.len() as f64);
        println!("  {step:<34} {speed:>8.0} MB/s {cost:>7.2} ns/byte");
    };
    line("cut", &mut || drop(cut(&cutter, data)));
    line("keyed id", &mut || {
        chunks.iter().for_each(|chunk| _ = black_box(ChunkId::of(&ids, chunk)));
    });
    let mut packer = Packer::new(Box::new(Zstd::default()));
    line("probe and compress", &mut || {
        chunks.iter().for_each(|chunk| _ = black_box(packer.pack(chunk)));
    });
    let (packed, lengths) = pack(&chunks);
    let nonce = [0; seal::NONCE_BYTES];
    let mut sealed = Vec::new();
    line("seal", &mut || {
        sealed.clear();
        blocks(&packed, &lengths, |block| seal::seal_into(&ids, &nonce, b"", block, &mut sealed));
    });
    line("open", &mut || {
        let mut rest = &sealed[..];
        let mut out = Vec::with_capacity(1 << 20);
        for (len, _) in &lengths {
            let (block, after) = rest.split_at(len + seal::TAG_BYTES);
            rest = after;
            out.clear();
            seal::open_into(&ids, &nonce, b"", block, &mut out).expect("it was just sealed");
        }
    });
    line("decompress", &mut || {
        let mut out = Vec::with_capacity(1 << 20);
        let mut plain = lengths.iter();
        blocks(&packed, &lengths, |block| {
            let (_, len) = plain.next().expect("as many as blocks");
            out.clear();
            if block.len() != *len {
                unpack(block, *len, &mut out).expect("it was just compressed");
            }
        });
    });
    line("id and outboard of the blob", &mut || {
        packed.chunks(16 << 20).for_each(|layer| drop(Outboard::of(layer)));
    });
    let mut stored = 0;
    line("the whole pipeline", &mut || {
        let layers = pipeline(&cutter, &ids, data);
        stored = layers.iter().map(|(blob, outboard)| blob + outboard).sum();
    });
    println!("  stored with outboards: {:.4} of plain", stored as f64 / data.len() as f64);
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

/// All chunks packed one after the other, with the packed and plain length of each block.
fn pack(chunks: &[&[u8]]) -> (Vec<u8>, Vec<(usize, usize)>) {
    let mut packer = Packer::new(Box::new(Zstd::default()));
    let (mut out, mut lengths) = (Vec::new(), Vec::new());
    for chunk in chunks {
        match packer.pack(chunk) {
            Packed::Raw => {
                out.extend_from_slice(chunk);
                lengths.extend(chunk.chunks(16 << 10).map(|block| (block.len(), block.len())));
            }
            Packed::Zstd(packed, lens) => {
                out.extend_from_slice(packed);
                let blocks = chunk.chunks(64 << 10).zip(lens);
                lengths.extend(blocks.map(|(block, len)| (*len as usize, block.len())));
            }
        }
    }
    (out, lengths)
}

fn blocks(mut packed: &[u8], lengths: &[(usize, usize)], mut run: impl FnMut(&[u8])) {
    for (len, _) in lengths {
        let (block, rest) = packed.split_at(*len);
        packed = rest;
        run(block);
    }
}

fn pipeline(cutter: &Cutter, ids: &Key, mut data: &[u8]) -> Vec<(usize, usize)> {
    let env = Env::real();
    let new = || LayerBuilder::new([1; 32], [2; 32], ids, &env);
    let lengths = |layer: Sealed| (layer.bytes.len(), layer.outboard.tree.len() + 8);
    let mut layers = Vec::new();
    let mut builder = new();
    while let Some(len) = cutter.cut(data, true) {
        let (chunk, rest) = data.split_at(len);
        data = rest;
        builder.push(ChunkId::of(ids, chunk), chunk);
        if builder.is_full() || data.is_empty() {
            let full = std::mem::replace(&mut builder, new());
            layers.push(lengths(full.close().expect("nothing lies here")));
        }
    }
    layers
}

fn time(run: &mut dyn FnMut()) -> f64 {
    let now = || {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
    };
    let start = now();
    run();
    now() - start
}
