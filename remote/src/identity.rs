//! Who signs: ed25519 identities of drives, devices and nodes.

use std::fmt;

use ed25519_dalek::Signer as _;
use zeroize::Zeroizing;

use crate::cbor;
use crate::env::Env;
use crate::error::{Error, Result};

/// An ed25519 public key in its canonical encoding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// An ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

/// The name of a drive: the BLAKE3 hash of its root's public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriveId(pub [u8; 32]);

/// The secret half of an identity, wiped when dropped.
#[derive(Clone)]
pub struct SecretKey(Zeroizing<[u8; 32]>);

impl DriveId {
    /// The drive whose root has this key.
    pub fn of(root: &PublicKey) -> Self {
        Self(*blake3::hash(&root.0).as_bytes())
    }
}

impl SecretKey {
    /// The key that grows from this seed.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Zeroizing::new(seed))
    }

    /// A fresh key.
    pub fn generate(env: &Env) -> Self {
        Self::from_seed(env.random())
    }

    /// The seed, for keeping it sealed.
    pub fn seed(&self) -> &[u8; 32] {
        &self.0
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.signing().verifying_key().to_bytes())
    }

    /// Signs `context ‖ 0 ‖ BLAKE3(message)`, so that no signature means something elsewhere.
    pub fn sign(&self, context: &str, message: &[u8]) -> Signature {
        Signature(self.signing().sign(&framed(context, message)).to_bytes())
    }

    fn signing(&self) -> ed25519_dalek::SigningKey {
        ed25519_dalek::SigningKey::from_bytes(&self.0)
    }
}

impl PublicKey {
    /// Checks a signature; refuses small-order keys and non-canonical encodings.
    ///
    /// # Errors
    /// [`Error::Forged`] when it does not hold.
    pub fn verify(&self, context: &str, message: &[u8], signature: &Signature) -> Result<()> {
        let key = self.verifying()?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        key.verify_strict(&framed(context, message), &signature)
            .map_err(|_| Error::Forged("the signature does not hold"))
    }

    /// Checks that this is a key somebody can hold: a point in its canonical encoding, not of
    /// small order.
    ///
    /// # Errors
    /// [`Error::Forged`] when it is not.
    pub fn check(&self) -> Result<()> {
        self.verifying().map(drop)
    }

    fn verifying(&self) -> Result<ed25519_dalek::VerifyingKey> {
        let key = ed25519_dalek::VerifyingKey::from_bytes(&self.0)
            .map_err(|_| Error::Forged("not an ed25519 key"))?;
        if key.is_weak() {
            return Err(Error::Forged("an ed25519 key of small order"));
        }
        // Decompression takes coordinates beyond the field's prime; one key has one spelling.
        if key.to_edwards().compress().to_bytes() != self.0 {
            return Err(Error::Forged("an ed25519 key in a non-canonical encoding"));
        }
        Ok(key)
    }

    /// Eight groups of four digits for people to compare: the first 16 bytes of the key's hash.
    pub fn fingerprint(&self) -> String {
        let hash = hex::encode(&blake3::hash(&self.0).as_bytes()[..16]);
        let groups: Vec<&str> = (0..8).map(|i| &hash[i * 4..i * 4 + 4]).collect();
        groups.join("-")
    }
}

fn framed(context: &str, message: &[u8]) -> Vec<u8> {
    let mut framed = Vec::with_capacity(context.len() + 33);
    framed.extend_from_slice(context.as_bytes());
    framed.push(0);
    framed.extend_from_slice(blake3::hash(message).as_bytes());
    framed
}

macro_rules! hex_display {
    ($type:ty) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($type))
            }
        }
    };
}

cbor::array!(PublicKey);
cbor::array!(DriveId);
cbor::array!(Signature);

hex_display!(PublicKey);
hex_display!(DriveId);
hex_display!(Signature);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}
