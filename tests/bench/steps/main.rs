//! What each step between a write and a proof costs on one core, beside the limit that the bare
//! crate below it sets:
//!
//! ```text
//! cargo bench -p rdrivefs-tests --bench steps [FILTER]             # measured
//! cargo bench -p rdrivefs-tests --bench steps -- --test            # each once, to see that it runs
//! ```
//!
//! In a group, `drive` is what the product calls and every other line does the same work with the
//! crate alone, so that the distance between the two is ours to answer for. Throughput counts the
//! plain bytes, or the records and rows. Data is the same at every run: bytes that nobody can
//! compress, and this workspace's sources. `cargo test` runs every step once and small.

#![allow(missing_docs, reason = "criterion's macros make public functions without a word")]

mod sealing;
mod proving;
mod writing;
mod looking;
mod data;

use criterion::{criterion_group, criterion_main};

criterion_group!(
    steps,
    sealing::chunk,
    sealing::compress,
    sealing::seal_and_open,
    sealing::layer,
    proving::bao,
    writing::journal,
    looking::index,
);
criterion_main!(steps);
