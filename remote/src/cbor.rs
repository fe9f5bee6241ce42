//! CBOR from outside: one way to decode it, and the spellings of the floor's own types.
//!
//! [`decode`] accepts only what [`encode`] would have written: it decodes, demands that nothing is
//! left over, encodes again and compares. So a value has one encoding, and a hash or a signature
//! over bytes is one over the value. minicbor grows lists as their items arrive, so a lie about a
//! length allocates nothing. The schemas themselves belong to the modules that own the types.

use minicbor::{Decode, Encode};

use crate::blob::BlobId;
use crate::error::{Error, Result};

/// The bytes of a value.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory does not fail")
}

/// The value of these bytes; `what` names it in errors.
///
/// # Errors
/// [`Error::Malformed`] for anything but the exact encoding of a value.
pub fn decode<'b, T>(what: &'static str, bytes: &'b [u8]) -> Result<T>
where
    T: Decode<'b, ()> + Encode<()>,
{
    let mut decoder = minicbor::Decoder::new(bytes);
    let value: T = decoder.decode().map_err(|e| Error::malformed(what, e))?;
    if decoder.position() != bytes.len() {
        return Err(Error::malformed(what, "bytes follow its end"));
    }
    if encode(&value) != bytes {
        return Err(Error::malformed(what, "not in its one canonical form"));
    }
    Ok(value)
}

/// For `#[cbor(with = "crate::cbor::bytes")]`: `bytes::Bytes` as a byte string.
pub mod bytes {
    use ::bytes::Bytes;
    use minicbor::decode::{Decoder, Error as DecodeError};
    use minicbor::encode::{Encoder, Error as EncodeError, Write};

    /// Writes a byte string.
    #[allow(clippy::missing_errors_doc, reason = "the derive of minicbor fixes the shape")]
    pub fn encode<C, W: Write>(
        bytes: &Bytes,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.bytes(bytes)?.ok()
    }

    /// Reads a byte string.
    #[allow(clippy::missing_errors_doc, reason = "the derive of minicbor fixes the shape")]
    pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Bytes, DecodeError> {
        Ok(Bytes::copy_from_slice(d.bytes()?))
    }
}

/// Makes a newtype over a byte array a byte string of exactly that length.
macro_rules! array {
    ($type:ident) => {
        impl<C> minicbor::Encode<C> for $type {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $type {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                let array = <[u8; size_of::<Self>()]>::try_from(d.bytes()?);
                array.map(Self).map_err(|_| minicbor::decode::Error::message("wrong length"))
            }
        }
    };
}
pub(crate) use array;

array!(BlobId);

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Id([u8; 32]);

    #[derive(Debug)]
    struct Long([u8; 64]);

    array!(Id);
    array!(Long);

    #[test]
    fn arrays_are_byte_strings_of_one_length() {
        let bytes = encode(&Id([7; 32]));
        assert_eq!(bytes.len(), 34);
        assert_eq!(decode::<Id>("id", &bytes).unwrap(), Id([7; 32]));
        assert!(decode::<Id>("id", &encode(&Long([7; 64]))).is_err());
    }

    #[test]
    fn other_spellings_are_refused() {
        assert_eq!(decode::<u64>("n", &[0x17]).unwrap(), 23);
        assert!(decode::<u64>("n", &[0x18, 0x17]).is_err(), "23 in two bytes");
        assert!(decode::<u64>("n", &[0x17, 0]).is_err(), "trailing byte");
        assert!(decode::<u64>("n", &[]).is_err());
        assert!(decode::<Vec<u64>>("n", &[0x9f, 1, 0xff]).is_err(), "indefinite length");
        let lie = [0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(decode::<Vec<u64>>("n", &lie).is_err(), "a length nobody can hold");
    }
}
