//! What the steps work on: the same bytes and keys at every run.

use std::path::Path;
use std::sync::LazyLock;

use aws_lc_rs::aead::{CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use criterion::Throughput;
use rdrivefs_sync::seal::Key;
use rdrivefs_tests::tidy;

/// What a layer holds at most, and enough for a steady figure; a debug build only shows it runs.
pub(crate) const LAYER_BYTES: usize = if cfg!(debug_assertions) { 2 << 20 } else { 16 << 20 };
/// Bytes that nobody can compress.
pub(crate) static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut bytes = vec![0; LAYER_BYTES];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
});

/// Sources, one after the other until there are enough bytes.
pub(crate) static TEXT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the workspace");
    let sources: String =
        ["sync", "fs", "remote"].iter().flat_map(|floor| all(&top.join(floor))).collect();
    sources.into_bytes().into_iter().cycle().take(LAYER_BYTES).collect()
});

fn all(floor: &Path) -> Vec<String> {
    tidy::sources(&floor.join("src")).into_values().collect()
}

/// The key of everything here.
pub(crate) fn key() -> Key {
    Key::from([7; 32])
}

/// Throughput in plain bytes.
pub(crate) fn bytes(len: usize) -> Throughput {
    Throughput::Bytes(len as u64)
}

/// The cipher alone, its key made ready before.
pub(crate) fn bare_key() -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key().as_bytes()).expect("it has 32 bytes");
    LessSafeKey::new(key)
}

/// The nonce of all that is sealed with it and thrown away.
pub(crate) fn bare_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}
