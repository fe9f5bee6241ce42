//! Layers: sealed blobs of chunks, up to 16 MiB, the unit of sending, keeping and placing.
//!
//! [`LayerBuilder`] takes chunks and closes into a [`Sealed`] blob; [`LayerReader`] opens single
//! blocks of one. A layer stands under a fresh random key drawn when it is begun, never used for
//! another; a chunk's key is derived from it and the chunk's number, so it can be handed out and
//! opens nothing beside it.
//!
//! ```text
//! header ‖ chunks in shuffled order ‖ sealed table of contents ‖ padding to a Padmé length
//!
//! header   0 magic "RDRVLAYR" ‖ 8 version u16 = 1 ‖ 10 suite u16 = 1 ‖ 12 nonce 24
//!          ‖ 36 key commitment 32 ‖ 68 sealed (offset u32 ‖ length u32) of the sealed table, 24
//! chunk    its sealed blocks one after the other; no header of its own: the table has it all
//! block    XChaCha20-Poly1305 of a piece of the chunk (16 KiB raw, or 64 KiB as a zstd frame)
//!            key   BLAKE3 derive_key("rdrivefs v1 chunk", layer key ‖ chunk number u32)
//!            nonce block number u64 ‖ 1 for the last block, else 0 ‖ 15 zeros
//!            aad   "rdrivefs/v1/chunk" ‖ suite u16 ‖ drive 32 ‖ epoch 32 ‖ layer nonce 24
//!                  ‖ chunk number u32 ‖ block count u32 ‖ plain length u32 ‖ method u8 ‖ block log u8
//! table    see `toc`; sealed, as is its place, under the key that goes with the commitment
//! padding  a stream derived from the layer key: nobody else can tell it from chunks
//! ```
//!
//! Integers are little-endian. Nothing in the clear tells how much of a layer is padding, how many
//! chunks it has or where they begin.
//!
//! Must: what a layer's id names opens to what was pushed. `close` computes the id, and after
//! that opens every chunk from the very bytes that were hashed and compares its keyed id; so a
//! compressor that lies and memory that forgets are caught before anything leaves the machine.
//!
//! Which chunks are worth storing, and where the bytes go, is not decided here.

mod builder;
mod reader;
mod header;
mod toc;
mod shape;

pub use builder::{LayerBuilder, Sealed};
pub use reader::LayerReader;
pub use shape::{CHUNKS_MAX, HEADER_BYTES, LAYER_BYTES_MAX, padme};
pub use toc::{TOC_BYTES_MAX, Toc, TocChunk};
