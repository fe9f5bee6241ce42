//! Reader of layers.

use rdrivefs_sync::layer::LayerReader;
use rdrivefs_sync::seal::Key;

use super::case::Case;

/// `key`, `drive`, `epoch` of a layer and its bytes, `layer`: every chunk is opened.
pub(super) fn layer(case: &Case) -> Result<String, String> {
    let (key, bytes) = (Key::from(case.array("key")), case.bytes("layer"));
    let (drive, epoch) = (case.array("drive"), case.array("epoch"));
    let reader = LayerReader::parse(&bytes, &key, drive, epoch).map_err(|e| e.to_string())?;
    let mut chunks = Vec::new();
    for number in 0..reader.chunk_count() {
        let plain = open(&reader, &bytes, number).map_err(|e| e.to_string())?;
        chunks.push(format!("{}:{}", plain.len(), blake3::hash(&plain)));
    }
    Ok(format!("nonce={} chunks=[{}]", hex::encode(reader.nonce()), chunks.join(" ")))
}

fn open(reader: &LayerReader, bytes: &[u8], number: u32) -> rdrivefs_sync::Result<Vec<u8>> {
    let span = reader.span(number)?;
    let sealed = &bytes[span.start as usize..span.end as usize];
    reader.open(number, 0..reader.plain_len(number)?, sealed)
}
