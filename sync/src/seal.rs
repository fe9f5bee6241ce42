//! Sealing: one key type and one cipher for everything that is kept secret.
//!
//! XChaCha20-Poly1305 throughout, composed of HChaCha20 and the ChaCha20-Poly1305 of aws-lc, which
//! gives the same bytes as the `chacha20poly1305` crate (the oracle of the tests) at up to twice
//! its speed. Three shapes are built from it:
//!
//! - [`seal`] / [`open`]: `cipher ‖ tag`, the nonce chosen by the caller, who must never use one
//!   twice under a key;
//! - [`seal_box`] / [`open_box`]: `nonce ‖ cipher ‖ tag` under a random nonce, for rows and records;
//! - [`seal_committed`] / [`open_committed`]: `nonce ‖ commitment ‖ cipher ‖ tag`, for headers and
//!   whatever else an adversary could try many keys on: it opens under one key only, and a wrong
//!   key is refused before the cipher runs.
//!
//! What is bound as associated data, and which label a key is derived under, is the business of the
//! container that calls. Formats and file layouts do not belong here.

use std::fmt;

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use rdrivefs_remote::env::Env;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

/// Length of a key in bytes.
pub const KEY_BYTES: usize = 32;
/// Length of a nonce: long enough to be drawn at random for every record ever written.
pub const NONCE_BYTES: usize = 24;
/// What sealing adds.
pub const TAG_BYTES: usize = 16;
/// What [`seal_box`] adds.
pub const BOX_BYTES: usize = NONCE_BYTES + TAG_BYTES;
/// Length of a key commitment: finding two keys with one costs 2¹²⁸.
pub const COMMITMENT_BYTES: usize = 32;
/// What [`seal_committed`] adds.
pub const COMMITTED_BYTES: usize = NONCE_BYTES + COMMITMENT_BYTES + TAG_BYTES;

/// A secret key, wiped when dropped.
#[derive(Clone)]
pub struct Key(Zeroizing<[u8; KEY_BYTES]>);

/// Sealed bytes did not open: changed, cut short, moved from elsewhere, or under another key.
/// Which of these it was cannot be told, and must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the bytes were changed, moved from their place, or sealed under another key")]
pub struct Tampered;

impl Key {
    /// A fresh key.
    pub fn random(env: &Env) -> Self {
        Self::from(env.random())
    }

    /// The key for one purpose: BLAKE3 in its key derivation mode. `context` names the purpose and
    /// is used nowhere else; the pieces of `material` are joined, so their lengths must be fixed.
    pub fn derive(context: &'static str, material: &[&[u8]]) -> Self {
        let mut key = Self::from([0; KEY_BYTES]);
        derive_xof(context, material, &mut key.0[..]);
        key
    }

    /// The raw key.
    pub fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl From<[u8; KEY_BYTES]> for Key {
    fn from(mut bytes: [u8; KEY_BYTES]) -> Self {
        let key = Self(Zeroizing::new(bytes));
        bytes.zeroize();
        key
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Seals `plain` as `cipher ‖ tag`. The nonce must be new under this key.
pub fn seal(key: &Key, nonce: &[u8; NONCE_BYTES], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(plain.len() + TAG_BYTES);
    seal_into(key, nonce, aad, plain, &mut out);
    out
}

/// As [`seal`], appended to `out`.
pub fn seal_into(
    key: &Key,
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    plain: &[u8],
    out: &mut Vec<u8>,
) {
    let start = out.len();
    out.resize(start + plain.len() + TAG_BYTES, 0);
    let (cipher, tag) = out[start..].split_at_mut(plain.len());
    let (key, nonce) = inner(key, nonce);
    key.seal_out_of_place_scatter(nonce, Aad::from(aad), plain, cipher, &[], tag)
        .expect("lengths match and stay far below the cipher's 256 GiB");
}

/// Opens what [`seal`] made.
///
/// # Errors
/// [`Tampered`] when any of key, nonce, associated data and bytes is not the one sealed with.
pub fn open(
    key: &Key,
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, Tampered> {
    let mut out = Vec::with_capacity(sealed.len().saturating_sub(TAG_BYTES));
    open_into(key, nonce, aad, sealed, &mut out)?;
    Ok(out)
}

/// As [`open`], appended to `out`, which is left as it was when opening fails.
///
/// # Errors
/// As [`open`].
pub fn open_into(
    key: &Key,
    nonce: &[u8; NONCE_BYTES],
    aad: &[u8],
    sealed: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Tampered> {
    let plain_len = sealed.len().checked_sub(TAG_BYTES).ok_or(Tampered)?;
    let (cipher, tag) = sealed.split_at(plain_len);
    let start = out.len();
    out.resize(start + plain_len, 0);
    let (key, nonce) = inner(key, nonce);
    let opened = key.open_separate_gather(nonce, Aad::from(aad), cipher, tag, &mut out[start..]);
    if opened.is_err() {
        // Nothing unauthenticated may be left where a caller could find it.
        out[start..].zeroize();
        out.truncate(start);
        return Err(Tampered);
    }
    Ok(())
}

/// Seals `plain` under a random nonce as `nonce ‖ cipher ‖ tag`.
pub fn seal_box(key: &Key, env: &Env, aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let nonce: [u8; NONCE_BYTES] = env.random();
    let mut out = Vec::with_capacity(plain.len() + BOX_BYTES);
    out.extend_from_slice(&nonce);
    seal_into(key, &nonce, aad, plain, &mut out);
    out
}

/// Opens what [`seal_box`] made.
///
/// # Errors
/// As [`open`].
pub fn open_box(key: &Key, aad: &[u8], boxed: &[u8]) -> Result<Vec<u8>, Tampered> {
    let (nonce, sealed) = boxed.split_first_chunk().ok_or(Tampered)?;
    open(key, nonce, aad, sealed)
}

/// An encryption key and the public commitment to the key, nonce and associated data it came from.
pub struct Committed {
    /// What to seal with.
    pub key: Key,
    /// What to publish, and to compare before opening.
    pub commitment: [u8; COMMITMENT_BYTES],
}

impl Committed {
    /// Derives both from one stream of BLAKE3: `key ‖ nonce ‖ aad` under `context`.
    pub fn of(context: &'static str, key: &Key, nonce: &[u8; NONCE_BYTES], aad: &[u8]) -> Self {
        let mut stream = Zeroizing::new([0; KEY_BYTES + COMMITMENT_BYTES]);
        derive_xof(context, &[key.as_bytes(), nonce, aad], &mut stream[..]);
        let mut made = Self { key: Key::from([0; KEY_BYTES]), commitment: [0; COMMITMENT_BYTES] };
        made.key.0.copy_from_slice(&stream[..KEY_BYTES]);
        made.commitment.copy_from_slice(&stream[KEY_BYTES..]);
        made
    }

    /// Compares a commitment that was read, in constant time.
    ///
    /// # Errors
    /// [`Tampered`] when it is another.
    pub fn check(&self, read: &[u8; COMMITMENT_BYTES]) -> Result<(), Tampered> {
        if self.commitment.ct_eq(read).into() { Ok(()) } else { Err(Tampered) }
    }
}

/// Seals `plain` as `nonce ‖ commitment ‖ cipher ‖ tag`, so that no second key opens it. `context`
/// names the container and is used nowhere else.
pub fn seal_committed(
    context: &'static str,
    key: &Key,
    env: &Env,
    aad: &[u8],
    plain: &[u8],
) -> Vec<u8> {
    let nonce: [u8; NONCE_BYTES] = env.random();
    let committed = Committed::of(context, key, &nonce, aad);
    let mut out = Vec::with_capacity(plain.len() + COMMITTED_BYTES);
    out.extend_from_slice(&nonce);
    out.extend_from_slice(&committed.commitment);
    seal_into(&committed.key, &nonce, aad, plain, &mut out);
    out
}

/// Opens what [`seal_committed`] made; a wrong key is refused before the cipher runs.
///
/// # Errors
/// As [`open`].
pub fn open_committed(
    context: &'static str,
    key: &Key,
    aad: &[u8],
    boxed: &[u8],
) -> Result<Vec<u8>, Tampered> {
    let (nonce, rest) = boxed.split_first_chunk().ok_or(Tampered)?;
    let (commitment, sealed) = rest.split_first_chunk().ok_or(Tampered)?;
    let committed = Committed::of(context, key, nonce, aad);
    committed.check(commitment)?;
    open(&committed.key, nonce, aad, sealed)
}

/// The ChaCha20-Poly1305 key and nonce that XChaCha20-Poly1305 comes down to.
fn inner(key: &Key, nonce: &[u8; NONCE_BYTES]) -> (LessSafeKey, Nonce) {
    let (head, tail) = nonce.split_first_chunk::<16>().expect("a nonce has 24 bytes");
    let mut subkey = chacha20::hchacha::<chacha20::R20>(key.as_bytes().into(), head.into());
    let unbound = UnboundKey::new(&CHACHA20_POLY1305, &subkey).expect("the subkey has 32 bytes");
    subkey.0.zeroize();
    let mut short = [0; 12];
    short[4..].copy_from_slice(tail);
    (LessSafeKey::new(unbound), Nonce::assume_unique_for_key(short))
}

fn derive_xof(context: &'static str, material: &[&[u8]], out: &mut [u8]) {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for piece in material {
        hasher.update(piece);
    }
    let mut reader = hasher.finalize_xof();
    reader.fill(out);
    reader.zeroize();
    hasher.zeroize();
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
    use chacha20poly1305::{XChaCha20Poly1305, XNonce};

    const CONTEXT: &str = "rdrivefs v1 seal test";

    fn key(byte: u8) -> Key {
        Key::from([byte; KEY_BYTES])
    }

    #[test]
    fn the_bytes_are_those_of_the_oracle() {
        let env = Env::real();
        for len in [0, 1, 15, 16, 63, 64, 65, 255, 4096, 16384, 65537] {
            let key = Key::random(&env);
            let nonce: [u8; NONCE_BYTES] = env.random();
            let plain: Vec<u8> = (0..len).map(|i| (i * 7 + len) as u8).collect();
            let aad = &plain[..len.min(40)];
            let oracle = XChaCha20Poly1305::new(key.as_bytes().into());
            let payload = Payload { msg: &plain, aad };
            let expected = oracle.encrypt(&XNonce::from(nonce), payload).unwrap();
            let sealed = seal(&key, &nonce, aad, &plain);
            assert_eq!(sealed, expected, "length {len}");
            assert_eq!(open(&key, &nonce, aad, &expected).unwrap(), plain);
        }
    }

    /// The vector of draft-irtf-cfrg-xchacha-03, A.3.1.
    #[test]
    fn the_draft_vector_holds() {
        let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
            for the future, sunscreen would be it.";
        let mut raw = [0; KEY_BYTES];
        (0x80..).zip(raw.iter_mut()).for_each(|(value, byte)| *byte = value);
        let mut nonce = [0; NONCE_BYTES];
        (0x40..).zip(nonce.iter_mut()).for_each(|(value, byte)| *byte = value);
        let aad = hex::decode("50515253c0c1c2c3c4c5c6c7").unwrap();
        let sealed = seal(&Key::from(raw), &nonce, &aad, plain);
        assert_eq!(hex::encode(&sealed[..16]), "bd6d179d3e83d43b9576579493c0e939");
        assert_eq!(hex::encode(&sealed[plain.len()..]), "c0875924c1c7987947deafd8780acf49");
    }

    #[test]
    fn every_changed_bit_is_refused_and_leaves_nothing() {
        let (key, nonce, plain) =
            (key(1), [2; NONCE_BYTES], b"forty-two bytes of something secret");
        let sealed = seal(&key, &nonce, b"place", plain);
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let mut out = vec![9];
            assert_eq!(open_into(&key, &nonce, b"place", &bad, &mut out), Err(Tampered));
            assert_eq!(out, [9]);
        }
        for len in 0..sealed.len() {
            assert_eq!(open(&key, &nonce, b"place", &sealed[..len]), Err(Tampered));
        }
        assert_eq!(open(&key, &nonce, b"elsewhere", &sealed), Err(Tampered));
        assert_eq!(open(&key, &[3; NONCE_BYTES], b"place", &sealed), Err(Tampered));
        assert_eq!(open(&Key::from([2; 32]), &nonce, b"place", &sealed), Err(Tampered));
    }

    #[test]
    fn boxes_round_trip_and_differ_every_time() {
        let env = Env::real();
        let (one, two) = (seal_box(&key(1), &env, b"a", b"x"), seal_box(&key(1), &env, b"a", b"x"));
        assert_ne!(one, two);
        assert_eq!(one.len(), 1 + BOX_BYTES);
        assert_eq!(open_box(&key(1), b"a", &one).unwrap(), b"x");
        assert_eq!(open_box(&key(1), b"b", &one), Err(Tampered));
        for len in 0..one.len() {
            assert_eq!(open_box(&key(1), b"a", &one[..len]), Err(Tampered));
        }
    }

    #[test]
    fn every_part_of_a_committed_box_counts() {
        let env = Env::real();
        let sealed = seal_committed(CONTEXT, &key(1), &env, b"aad", b"plain");
        assert_eq!(sealed.len(), 5 + COMMITTED_BYTES);
        assert_eq!(open_committed(CONTEXT, &key(1), b"aad", &sealed).unwrap(), b"plain");
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 0x80;
            assert_eq!(open_committed(CONTEXT, &key(1), b"aad", &bad), Err(Tampered));
            assert_eq!(open_committed(CONTEXT, &key(1), b"aad", &sealed[..at]), Err(Tampered));
        }
        assert_eq!(open_committed(CONTEXT, &key(2), b"aad", &sealed), Err(Tampered));
        assert_eq!(open_committed(CONTEXT, &key(1), b"aae", &sealed), Err(Tampered));
        assert_eq!(open_committed("other", &key(1), b"aad", &sealed), Err(Tampered));
    }

    /// A salamander opens under two keys. Poly1305 is linear in its last block, so whoever holds
    /// both keys can build one for the plain box; the committed one must refuse it all the same.
    #[test]
    fn s34_a_salamander_opens_under_one_committed_key_at_most() {
        let (one, two) = (key(1), key(2));
        let nonce = [5; NONCE_BYTES];
        let sealed = salamander::forge([&one, &two], &nonce);
        let plain_one =
            open(&one, &nonce, b"", &sealed).expect("the forgery opens under the first");
        let plain_two = open(&two, &nonce, b"", &sealed).expect("and under the second");
        assert_ne!(plain_one, plain_two);

        let (first, second) =
            (Committed::of(CONTEXT, &one, &nonce, b""), Committed::of(CONTEXT, &two, &nonce, b""));
        let sealed = salamander::forge([&first.key, &second.key], &nonce);
        let mut accepted = 0;
        for commitment in [first.commitment, second.commitment] {
            let boxed = [&nonce[..], &commitment, &sealed].concat();
            accepted += [&one, &two]
                .iter()
                .filter(|key| open_committed(CONTEXT, key, b"", &boxed).is_ok())
                .count();
            // Control: the cipher alone would have taken it under either.
            assert!(open(&first.key, &nonce, b"", &sealed).is_ok());
            assert!(open(&second.key, &nonce, b"", &sealed).is_ok());
        }
        assert_eq!(accepted, 2, "each commitment admits exactly the key it names");
    }

    #[test]
    fn derivation_separates_purposes_and_material() {
        let base = Key::derive("rdrivefs v1 one", &[b"ab", b"c"]);
        assert_eq!(base, Key::derive("rdrivefs v1 one", &[b"abc"]));
        assert_ne!(base, Key::derive("rdrivefs v1 two", &[b"abc"]));
        assert_ne!(base, Key::derive("rdrivefs v1 one", &[b"abd"]));
        assert_eq!(*base.as_bytes(), blake3::derive_key("rdrivefs v1 one", b"abc"));
        assert_eq!(format!("{base:?}"), "Key(…)");
    }

    /// Builds ciphertexts that authenticate under two keys at once, by solving the two linear
    /// equations that Poly1305 is.
    mod salamander {
        use super::*;
        use chacha20::cipher::{KeyIvInit as _, StreamCipher as _};

        /// A number modulo 2¹³⁰ − 5: what is above 128 bits, and the rest.
        #[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
        struct Number(u64, u128);

        const P: Number = Number(3, u128::MAX - 4);
        const ZERO: Number = Number(0, 0);

        fn add(a: Number, b: Number) -> Number {
            let (low, carry) = a.1.overflowing_add(b.1);
            let sum = Number(a.0 + b.0 + u64::from(carry), low);
            if sum >= P { raw_sub(sum, P) } else { sum }
        }

        fn raw_sub(a: Number, b: Number) -> Number {
            let (low, borrow) = a.1.overflowing_sub(b.1);
            Number(a.0 - b.0 - u64::from(borrow), low)
        }

        fn sub(a: Number, b: Number) -> Number {
            add(a, raw_sub(P, b))
        }

        fn bits(n: Number) -> impl Iterator<Item = bool> {
            (0..130).rev().map(move |i| match i {
                128.. => n.0 >> (i - 128) & 1 == 1,
                _ => n.1 >> i & 1 == 1,
            })
        }

        fn mul(a: Number, b: Number) -> Number {
            bits(b).fold(ZERO, |sum, bit| add(add(sum, sum), if bit { a } else { ZERO }))
        }

        fn invert(a: Number) -> Number {
            let one = Number(0, 1);
            bits(raw_sub(P, Number(0, 2)))
                .fold(one, |power, bit| mul(mul(power, power), if bit { a } else { one }))
        }

        /// 32 bytes of ciphertext and a tag that open under both keys without associated data.
        pub(super) fn forge(keys: [&Key; 2], nonce: &[u8; NONCE_BYTES]) -> Vec<u8> {
            let halves = keys.map(|key| {
                let mut stream = [0; 32];
                chacha20::XChaCha20::new(key.as_bytes().into(), nonce.into())
                    .apply_keystream(&mut stream);
                let (r, s) = stream.split_at(16);
                let clamp = 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;
                let r = u128::from_le_bytes(r.try_into().unwrap()) & clamp;
                (Number(0, r), u128::from_le_bytes(s.try_into().unwrap()))
            });
            let one_block = Number(1, 0);
            let lengths = Number(1, 32 << 64);
            // (c1 + 2^128)·r^3 + (c2 + 2^128)·r^2 + lengths·r = tag − s, for both keys.
            for tag in 0..10_000_u128 {
                let rows = halves.map(|(r, s)| {
                    let square = mul(r, r);
                    let cube = mul(square, r);
                    let known = add(mul(one_block, add(cube, square)), mul(lengths, r));
                    (cube, square, sub(Number(0, tag.wrapping_sub(s)), known))
                });
                let [(a, b, e), (c, d, f)] = rows;
                let determinant = invert(sub(mul(a, d), mul(b, c)));
                let first = mul(sub(mul(e, d), mul(b, f)), determinant);
                let second = mul(sub(mul(a, f), mul(e, c)), determinant);
                if first.0 == 0 && second.0 == 0 {
                    let parts = [first.1, second.1, tag].map(u128::to_le_bytes);
                    return parts.concat();
                }
            }
            panic!("one try in sixteen succeeds");
        }
    }
}
