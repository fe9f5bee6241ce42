//! What this machine can do: the steps of sealing, one core, on bytes that do not compress.

use rdrivefs_remote::env::Env;
use rdrivefs_remote::proof::Outboard;
use serde::Serialize;

use crate::chunk::{ChunkId, Cutter};
use crate::seal::{self, Key};

/// Bytes of each measurement: long enough for a steady figure, short enough to wait for.
const BYTES: usize = 64 << 20;

/// The block that sealing works on.
const BLOCK_BYTES: usize = 4 << 10;

/// One figure.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Figure {
    /// The step.
    pub what: &'static str,
    /// Millions of bytes a second.
    pub mb_per_s: f64,
}

/// Measures every step once.
pub fn measure(env: &Env) -> Vec<Figure> {
    let key = Key::random(env);
    let mut data = vec![0; BYTES];
    blake3::Hasher::new_keyed(key.as_bytes()).finalize_xof().fill(&mut data);
    let cutter = Cutter::new(&key);
    let mut figures = Vec::new();
    let mut time = |what, work: &mut dyn FnMut()| {
        let begun = env.instant();
        work();
        let seconds = env.instant().since(begun).as_secs_f64();
        figures.push(Figure { what, mb_per_s: BYTES as f64 / 1e6 / seconds });
    };
    time("cut by content", &mut || {
        let mut rest = &data[..];
        while let Some(len) = cutter.cut(rest, true).filter(|len| *len > 0) {
            rest = &rest[len..];
            if rest.is_empty() {
                break;
            }
        }
    });
    time("name by content", &mut || {
        data.chunks(1 << 20).for_each(|chunk| {
            std::hint::black_box(ChunkId::of(&key, chunk));
        });
    });
    let mut sealed = Vec::with_capacity(BYTES + BYTES / BLOCK_BYTES * seal::TAG_BYTES);
    time("seal", &mut || {
        for block in data.chunks(BLOCK_BYTES) {
            seal::seal_into(&key, &[0; seal::NONCE_BYTES], b"", block, &mut sealed);
        }
    });
    time("open", &mut || {
        let mut plain = Vec::with_capacity(BLOCK_BYTES);
        for block in sealed.chunks(BLOCK_BYTES + seal::TAG_BYTES) {
            plain.clear();
            let opened = seal::open_into(&key, &[0; seal::NONCE_BYTES], b"", block, &mut plain);
            opened.expect("it was just sealed");
        }
    });
    time("hash and outboard", &mut || {
        std::hint::black_box(Outboard::of(&data));
    });
    figures
}
