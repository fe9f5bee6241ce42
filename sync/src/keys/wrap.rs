//! Wrapping: sealing a few keys to one recipient, by X25519 and ML-KEM-768 together.
//!
//! The key that seals is derived from both shared secrets, both messages and the recipient's whole
//! public key; drive, epoch and recipient are bound as associated data; a commitment stands before
//! the sealed keys, so that a wrap opens under one key at most. Whatever is wrong with a wrap, its
//! opener says the same one thing.
//!
//! The randomness is not drawn but derived from the epoch's key (see `epoch`): a wrap is a function
//! of what it holds and whom it is for, and whoever has the epoch key can make it again.
//!
//! Layout of a wrap (integers little-endian; man/rdrivefs-format.5, "wrap"):
//!
//! ```text
//!    0     8  magic RDRVWRAP
//!    8     2  version 1
//!   10     2  suite 1
//!   12    32  X25519 public key, used once
//!   44  1088  ML-KEM-768 ciphertext
//! 1132    32  key commitment
//! 1164     n  the keys, 32 bytes each, sealed under a zero nonce
//! 1164+n  16  tag
//! ```
//!
//! A public key is the X25519 key (32 bytes, canonical, not of small order) and the ML-KEM-768
//! encapsulation key (1,184 bytes, checked as FIPS 203 says). A secret key is a seed of 32 bytes.

use std::fmt;

use ml_kem::array::Array;
use ml_kem::{B32, Decapsulate as _, DecapsulationKey, EncapsulationKey, KeyExport as _, MlKem768};
use rdrivefs_remote::env::Env;
use rdrivefs_remote::member::WRAP_KEY_BYTES;
use x25519_dalek as x25519;
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::{Error, Result};
use crate::seal::{self, COMMITMENT_BYTES, Committed, KEY_BYTES, Key, NONCE_BYTES, TAG_BYTES};

/// What a wrap weighs beside the keys in it.
pub const WRAP_OVERHEAD_BYTES: usize = SEALED_AT + TAG_BYTES;

const MAGIC: &[u8; 8] = b"RDRVWRAP";
const VERSION: u16 = 1;
const SUITE: u16 = 1;
const _: () = assert!(VERSION == SUITE, "one comparison serves both");
const X_BYTES: usize = 32;
const CIPHERTEXT_BYTES: usize = 1088;
const X_AT: usize = 12;
const CIPHERTEXT_AT: usize = X_AT + X_BYTES;
const COMMITMENT_AT: usize = CIPHERTEXT_AT + CIPHERTEXT_BYTES;
const SEALED_AT: usize = COMMITMENT_AT + COMMITMENT_BYTES;
const CONTEXT: &str = "rdrivefs v1 wrap commitment";
/// 2²⁵⁵ − 19, little-endian: a canonical coordinate is below it.
const X_PRIME: [u8; X_BYTES] = {
    let mut prime = [0xff; X_BYTES];
    prime[0] = 0xed;
    prime[31] = 0x7f;
    prime
};

const _: () = assert!(WRAP_KEY_BYTES == X_BYTES + 1184 && SEALED_AT == 1164);

/// The secret half of a wrapping key.
#[derive(Clone, PartialEq, Eq)]
pub struct WrapSecret(Key);

/// The public half: whom a wrap is for.
#[derive(Clone, PartialEq, Eq)]
pub struct WrapPublic(Box<[u8; WRAP_KEY_BYTES]>);

impl WrapSecret {
    /// The key that grows from a seed.
    pub fn from_seed(seed: Key) -> Self {
        Self(seed)
    }

    /// The seed, for keeping it sealed.
    pub fn seed(&self) -> &Key {
        &self.0
    }

    /// The public half.
    pub fn public(&self) -> WrapPublic {
        let mut bytes = Box::new([0; WRAP_KEY_BYTES]);
        bytes[..X_BYTES].copy_from_slice(x25519::PublicKey::from(&self.x()).as_bytes());
        bytes[X_BYTES..].copy_from_slice(&self.kem().encapsulation_key().to_bytes());
        WrapPublic(bytes)
    }

    /// Opens what [`WrapPublic::wrap`] made.
    ///
    /// # Errors
    /// [`Error::Corrupt`], whatever is wrong with it.
    pub fn unwrap(&self, aad: &[u8], wrap: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        unwrap(self, aad, wrap).map(Zeroizing::new)
    }

    fn x(&self) -> x25519::StaticSecret {
        let key = Key::derive("rdrivefs v1 wrap x25519", &[self.0.as_bytes()]);
        x25519::StaticSecret::from(*key.as_bytes())
    }

    fn kem(&self) -> DecapsulationKey<MlKem768> {
        let d = Key::derive("rdrivefs v1 wrap ml-kem d", &[self.0.as_bytes()]);
        let z = Key::derive("rdrivefs v1 wrap ml-kem z", &[self.0.as_bytes()]);
        let mut seed = Array::default();
        seed[..KEY_BYTES].copy_from_slice(d.as_bytes());
        seed[KEY_BYTES..].copy_from_slice(z.as_bytes());
        let key = DecapsulationKey::from_seed(seed);
        seed.0.zeroize();
        key
    }
}

impl WrapPublic {
    /// Reads a public key.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a wrong length or bytes that are no key of either kind.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let bad = |why: &str| Error::corrupt("a wrapping key", why);
        let bytes: [u8; WRAP_KEY_BYTES] = bytes.try_into().map_err(|_| bad("wrong length"))?;
        let key = Self(Box::new(bytes));
        if !is_point(key.x().as_bytes()) {
            return Err(bad("its X25519 half is no canonical key of large order"));
        }
        key.kem().ok_or_else(|| bad("its ML-KEM half is no key"))?;
        Ok(key)
    }

    /// The exact bytes.
    pub fn as_bytes(&self) -> &[u8; WRAP_KEY_BYTES] {
        &self.0
    }

    /// Seals `plain` to whoever holds the secret half, bound to `aad`, which must begin as no other
    /// use of wraps does.
    pub fn wrap(&self, env: &Env, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        wrap(self, &Key::random(env), aad, plain)
    }

    fn x(&self) -> x25519::PublicKey {
        let (x, _) = self.0.split_first_chunk::<X_BYTES>().expect("it is longer than that");
        x25519::PublicKey::from(*x)
    }

    fn kem(&self) -> Option<EncapsulationKey<MlKem768>> {
        EncapsulationKey::new(&Array::try_from(&self.0[X_BYTES..]).ok()?).ok()
    }
}

/// Whether these bytes are the one encoding of a coordinate that gives no zero secret.
fn is_point(x: &[u8; X_BYTES]) -> bool {
    let canonical = x.iter().rev().lt(X_PRIME.iter().rev());
    // Clamping makes every scalar a multiple of the cofactor, so any scalar tells.
    let probe = x25519::StaticSecret::from([1; X_BYTES]);
    canonical && probe.diffie_hellman(&x25519::PublicKey::from(*x)).was_contributory()
}

/// Seals `keys` to `to`; the same `randomness` must never serve two recipients or two contents.
pub(super) fn wrap(to: &WrapPublic, randomness: &Key, aad: &[u8], keys: &[u8]) -> Vec<u8> {
    let made = Encapsulated::of(to, randomness);
    let committed = made.committed(to, aad);
    let mut out = Vec::with_capacity(WRAP_OVERHEAD_BYTES + keys.len());
    out.extend_from_slice(&header());
    out.extend_from_slice(&made.x);
    out.extend_from_slice(&made.ciphertext);
    out.extend_from_slice(&committed.commitment);
    seal::seal_into(&committed.key, &[0; NONCE_BYTES], aad, keys, &mut out);
    out
}

/// Opens a wrap as its recipient.
pub(super) fn unwrap(secret: &WrapSecret, aad: &[u8], wrap: &[u8]) -> Result<Vec<u8>> {
    let parts = Parts::of(wrap)?;
    if !is_point(parts.x) {
        return Err(refused());
    }
    let x = secret.x().diffie_hellman(&x25519::PublicKey::from(*parts.x));
    let kem = secret.kem();
    let shared = kem.decapsulate(&Array::from(*parts.ciphertext));
    let public = secret.public();
    let key = combine([&shared.0, x.as_bytes()], parts.x, parts.ciphertext, &public);
    let mut shared = shared;
    shared.0.zeroize();
    parts.open(&key, aad)
}

/// Opens a wrap as its maker, or whoever can derive the maker's randomness.
pub(super) fn reopen(to: &WrapPublic, made_of: &Key, aad: &[u8], wrap: &[u8]) -> Result<Vec<u8>> {
    let (parts, made) = (Parts::of(wrap)?, Encapsulated::of(to, made_of));
    if *parts.x != made.x || *parts.ciphertext != made.ciphertext {
        return Err(refused());
    }
    parts.open(&made.key(to), aad)
}

/// The two messages to a recipient and the secrets they carry.
struct Encapsulated {
    x: [u8; X_BYTES],
    ciphertext: [u8; CIPHERTEXT_BYTES],
    shared_x: x25519::SharedSecret,
    shared_kem: Key,
}

impl Encapsulated {
    fn of(to: &WrapPublic, randomness: &Key) -> Self {
        let x = Key::derive("rdrivefs v1 wrap randomness x25519", &[randomness.as_bytes()]);
        let secret = x25519::StaticSecret::from(*x.as_bytes());
        let m = Key::derive("rdrivefs v1 wrap randomness ml-kem", &[randomness.as_bytes()]);
        let kem = to.kem().expect("a public key was checked when it was read");
        let mut m = B32::from(*m.as_bytes());
        let (ciphertext, mut shared) = kem.encapsulate_deterministic(&m);
        let shared_kem = Key::from(shared.0);
        m.0.zeroize();
        shared.0.zeroize();
        Self {
            x: x25519::PublicKey::from(&secret).to_bytes(),
            ciphertext: ciphertext.0,
            shared_x: secret.diffie_hellman(&to.x()),
            shared_kem,
        }
    }

    fn key(&self, to: &WrapPublic) -> Key {
        let shared = [self.shared_kem.as_bytes(), self.shared_x.as_bytes()];
        combine(shared, &self.x, &self.ciphertext, to)
    }

    fn committed(&self, to: &WrapPublic, aad: &[u8]) -> Committed {
        Committed::of(CONTEXT, &self.key(to), &[0; NONCE_BYTES], aad)
    }
}

/// One key from both secrets and everything that was public when they were made.
fn combine(
    [kem, x]: [&[u8; 32]; 2],
    sent_x: &[u8; X_BYTES],
    ciphertext: &[u8; CIPHERTEXT_BYTES],
    to: &WrapPublic,
) -> Key {
    Key::derive("rdrivefs v1 wrap", &[kem, x, sent_x, ciphertext, to.as_bytes()])
}

/// A wrap taken apart, nothing of it believed yet.
struct Parts<'a> {
    x: &'a [u8; X_BYTES],
    ciphertext: &'a [u8; CIPHERTEXT_BYTES],
    commitment: &'a [u8; COMMITMENT_BYTES],
    sealed: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(wrap: &'a [u8]) -> Result<Self> {
        if wrap.len() < WRAP_OVERHEAD_BYTES || wrap[..8] != *MAGIC {
            return Err(refused());
        }
        for at in [8, 10] {
            let version = u16::from_le_bytes([wrap[at], wrap[at + 1]]);
            if version != VERSION {
                let what = "a wrapped key".to_owned();
                return Err(Error::UnknownVersion { what, version: version.into() });
            }
        }
        let (x, rest) = wrap[X_AT..].split_first_chunk().ok_or_else(refused)?;
        let (ciphertext, rest) = rest.split_first_chunk().ok_or_else(refused)?;
        let (commitment, sealed) = rest.split_first_chunk().ok_or_else(refused)?;
        Ok(Self { x, ciphertext, commitment, sealed })
    }

    fn open(&self, key: &Key, aad: &[u8]) -> Result<Vec<u8>> {
        let committed = Committed::of(CONTEXT, key, &[0; NONCE_BYTES], aad);
        committed.check(self.commitment).map_err(|_| refused())?;
        let opened = seal::open(&committed.key, &[0; NONCE_BYTES], aad, self.sealed);
        opened.map_err(|_| refused())
    }
}

/// The only thing an opener ever says: an adversary learns nothing from trying.
fn refused() -> Error {
    Error::corrupt("a wrapped key", "it does not open")
}

fn header() -> [u8; X_AT] {
    let mut header = [0; X_AT];
    header[..8].copy_from_slice(MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10..].copy_from_slice(&SUITE.to_le_bytes());
    header
}

impl fmt::Debug for WrapSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WrapSecret(…)")
    }
}

impl fmt::Debug for WrapPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrapPublic({}…)", hex::encode(&self.0[..8]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> WrapSecret {
        WrapSecret::from_seed(Key::from([byte; 32]))
    }

    #[test]
    fn the_recipient_and_the_maker_open_it() {
        let (to, randomness) = (secret(1), Key::from([9; 32]));
        let made = wrap(&to.public(), &randomness, b"aad", b"the keys");
        assert_eq!(made.len(), WRAP_OVERHEAD_BYTES + 8);
        assert_eq!(made, wrap(&to.public(), &randomness, b"aad", b"the keys"));
        assert_eq!(unwrap(&to, b"aad", &made).unwrap(), b"the keys");
        assert_eq!(reopen(&to.public(), &randomness, b"aad", &made).unwrap(), b"the keys");
        assert!(reopen(&to.public(), &Key::from([8; 32]), b"aad", &made).is_err());
        assert!(unwrap(&secret(2), b"aad", &made).is_err());
        assert!(unwrap(&to, b"aae", &made).is_err());
    }

    #[test]
    fn s10_every_refusal_says_the_same() {
        let (to, randomness) = (secret(1), Key::from([9; 32]));
        let made = wrap(&to.public(), &randomness, b"aad", b"the keys");
        let said = refused().to_string();
        for at in (12..made.len()).step_by(7).chain([made.len() - 1, 43]) {
            let mut bad = made.clone();
            bad[at] ^= 0x40;
            assert_eq!(unwrap(&to, b"aad", &bad).unwrap_err().to_string(), said, "byte {at}");
            assert_eq!(unwrap(&to, b"aad", &made[..at]).unwrap_err().to_string(), said);
        }
        let mut longer = made;
        longer.push(0);
        assert_eq!(unwrap(&to, b"aad", &longer).unwrap_err().to_string(), said);
    }

    #[test]
    fn s59_weak_and_misspelt_public_keys_are_refused() {
        let good = *secret(1).public().as_bytes();
        assert!(WrapPublic::decode(&good).is_ok());
        let with_x = |x: [u8; 32]| {
            let mut bytes = good;
            bytes[..32].copy_from_slice(&x);
            WrapPublic::decode(&bytes)
        };
        let mut one = [0; 32];
        one[0] = 1;
        let mut nine_again = X_PRIME;
        nine_again[0] += 9;
        let mut high_bit = [0; 32];
        (high_bit[0], high_bit[31]) = (9, 0x80);
        for weak in [[0; 32], one, X_PRIME, nine_again, high_bit, [0xff; 32]] {
            assert!(with_x(weak).is_err(), "{weak:?}");
        }
        let mut modulus = good;
        modulus[32..35].copy_from_slice(&[0xff; 3]);
        assert!(WrapPublic::decode(&modulus).is_err());
        assert!(WrapPublic::decode(&good[1..]).is_err());
    }

    /// The X25519 half alone, or the ML-KEM half alone, does not open a wrap.
    #[test]
    fn both_halves_count() {
        let (a, b) = (secret(1).public(), secret(2).public());
        for at in [0..32, 32..WRAP_KEY_BYTES] {
            let mut mixed = *a.as_bytes();
            mixed[at.clone()].copy_from_slice(&b.as_bytes()[at]);
            let mixed = WrapPublic::decode(&mixed).unwrap();
            let made = wrap(&mixed, &Key::from([9; 32]), b"", b"k");
            assert!(unwrap(&secret(1), b"", &made).is_err());
            assert!(unwrap(&secret(2), b"", &made).is_err());
        }
    }
}
