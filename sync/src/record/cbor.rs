//! How the words of this floor are written in CBOR.
//!
//! Ids are unsigned integers, hashes and keys byte strings of their exact length, a time is
//! `[secs, nanos]`, an extent `[len]` (a hole) or `[len, layer, number, skip]` with `layer` an
//! index into the [`LayerTable`] that stands before it.

use std::collections::HashMap;

use minicbor::decode::{Decoder, Error as DecodeError};
use minicbor::encode::{Encoder, Error as EncodeError, Write};
use minicbor::{Decode, Encode};
use rdrivefs_remote::blob::BlobId;

use super::{Extent, Source, TimeNs};
use crate::error::{Error, Result};
use crate::id::{DeviceNumber, FileId, LinkId, VersionId};
use crate::seal::Key;

/// The layers that extents name, in the order of their first use.
#[derive(Debug, Default, Clone)]
pub struct LayerTable {
    ids: Vec<BlobId>,
    numbers: HashMap<BlobId, u32>,
}

impl LayerTable {
    fn number_of(&mut self, id: BlobId) -> u32 {
        let next = u32::try_from(self.ids.len()).expect("a commit is far below 2^32 extents");
        *self.numbers.entry(id).or_insert_with(|| {
            self.ids.push(id);
            next
        })
    }

    fn id(&self, number: u32) -> Option<BlobId> {
        self.ids.get(number as usize).copied()
    }
}

impl AsMut<Self> for LayerTable {
    fn as_mut(&mut self) -> &mut Self {
        self
    }
}

impl<C> Encode<C> for LayerTable {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.array(self.ids.len() as u64)?;
        self.ids.iter().try_for_each(|id| e.bytes(&id.0).map(drop))
    }
}

impl<'b, C> Decode<'b, C> for LayerTable {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        let len = d.array()?.ok_or_else(|| DecodeError::message("a table of no given length"))?;
        let mut ids = Vec::new();
        for _ in 0..len {
            ids.push(BlobId::decode(d, ctx)?);
        }
        Ok(Self { ids, numbers: HashMap::new() })
    }
}

/// One value with its layer table before it: `[table, value]`.
pub fn pack<T: Encode<LayerTable>>(value: &T) -> Vec<u8> {
    let (table, body) = encode_body(value);
    let mut out = vec![0x82];
    minicbor::encode(&table, &mut out).expect("memory takes every write");
    out.extend_from_slice(&body);
    out
}

/// The reverse of [`pack`].
///
/// # Errors
/// [`Error::Corrupt`] for anything but the one encoding of a value.
pub fn unpack<T>(what: &str, bytes: &[u8]) -> Result<T>
where
    T: Encode<LayerTable> + for<'b> Decode<'b, LayerTable>,
{
    let value =
        decode_packed(bytes).map_err(|_| Error::corrupt(what, "its CBOR does not parse"))?;
    if pack(&value) != bytes {
        return Err(Error::corrupt(what, "not in its one encoding"));
    }
    Ok(value)
}

fn decode_packed<T: for<'b> Decode<'b, LayerTable>>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut d = Decoder::new(bytes);
    if d.array()? != Some(2) {
        return Err(DecodeError::message("not a table and a value"));
    }
    let mut table: LayerTable = d.decode()?;
    d.decode_with(&mut table)
}

/// The value's bytes, and the table they refer to.
pub(super) fn encode_body<T: Encode<LayerTable>>(value: &T) -> (LayerTable, Vec<u8>) {
    let mut table = LayerTable::default();
    let mut body = Vec::new();
    minicbor::encode_with(value, &mut body, &mut table).expect("memory takes every write");
    (table, body)
}

impl<C: AsMut<LayerTable>> Encode<C> for Extent {
    fn encode<W: Write>(
        &self,
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        match self.source {
            Source::Hole => e.array(1)?.u64(self.len)?,
            Source::Chunk { layer, number, skip } => {
                let layer = ctx.as_mut().number_of(layer);
                e.array(4)?.u64(self.len)?.u32(layer)?.u32(number)?.u32(skip)?
            }
        };
        Ok(())
    }
}

impl<'b, C: AsMut<LayerTable>> Decode<'b, C> for Extent {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        let fields = d.array()?;
        let len = d.u64()?;
        let source = match fields {
            Some(1) => Source::Hole,
            Some(4) => {
                let layer = ctx.as_mut().id(d.u32()?);
                let layer = layer.ok_or_else(|| DecodeError::message("no such layer"))?;
                Source::Chunk { layer, number: d.u32()?, skip: d.u32()? }
            }
            _ => return Err(DecodeError::message("not an extent")),
        };
        Ok(Self { len, source })
    }
}

impl<C> Encode<C> for TimeNs {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.array(2)?.i64(self.secs)?.u32(self.nanos)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for TimeNs {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        if d.array()? != Some(2) {
            return Err(DecodeError::message("not a time"));
        }
        Ok(Self { secs: d.i64()?, nanos: d.u32()? })
    }
}

impl<C> Encode<C> for Key {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        e.bytes(self.as_bytes())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Key {
    fn decode(d: &mut Decoder<'b>, ctx: &mut C) -> Result<Self, DecodeError> {
        minicbor::bytes::decode::<C, [u8; 32]>(d, ctx).map(Self::from)
    }
}

macro_rules! integer_id {
    ($($type:ident: $int:ident),*) => {$(
        impl<C> Encode<C> for $type {
            fn encode<W: Write>(
                &self,
                e: &mut Encoder<W>,
                _: &mut C,
            ) -> Result<(), EncodeError<W::Error>> {
                e.$int(self.0)?.ok()
            }
        }

        impl<'b, C> Decode<'b, C> for $type {
            fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
                d.$int().map(Self)
            }
        }
    )*};
}

integer_id!(FileId: u64, LinkId: u64, VersionId: u64, DeviceNumber: u16);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Content, Record};

    fn version() -> Record {
        let chunk = |layer: u8, number| Extent {
            len: 4096,
            source: Source::Chunk { layer: BlobId([layer; 32]), number, skip: 1 },
        };
        let hole = Extent { len: 1 << 40, source: Source::Hole };
        Record::Version {
            file: FileId(256),
            id: VersionId(512),
            bases: vec![VersionId(1024)],
            size: (1 << 40) + 3 * 4096,
            mtime: TimeNs { secs: -1, nanos: 999_999_999 },
            content: Content::Extents(vec![chunk(9, 1), hole, chunk(3, 7), chunk(9, 2)]),
        }
    }

    #[test]
    fn a_record_comes_back_and_names_each_layer_once() {
        let bytes = pack(&version());
        assert_eq!(unpack::<Record>("a record", &bytes).unwrap(), version());
        assert_eq!(bytes.windows(32).filter(|w| **w == [9; 32]).count(), 1);
    }

    #[test]
    fn other_spellings_are_refused() {
        let bytes = pack(&version());
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(unpack::<Record>("a record", &longer).is_err());
        assert!(unpack::<Record>("a record", &bytes[..bytes.len() - 1]).is_err());
        // A table with an entry nobody names.
        let mut idle = vec![0x82, 0x83];
        idle.extend_from_slice(&bytes[2..2 + 2 * 34]);
        idle.extend_from_slice(&[0x58, 32]);
        idle.extend_from_slice(&[7; 32]);
        idle.extend_from_slice(&bytes[2 + 2 * 34..]);
        assert!(unpack::<Record>("a record", &idle).is_err());
    }
}
