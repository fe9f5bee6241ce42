//! The recovery phrase: 24 words of the BIP-39 English list, 256 bits and a checksum.
//!
//! The words carry all their strength themselves, so keys are derived without stretching:
//! BLAKE3 in key derivation mode over the 32 bytes, one context string per key.

use std::fmt;

use bip39::{Language, Mnemonic};
use rdrivefs_remote::env::Env;
use rdrivefs_remote::identity::{DriveId, PublicKey, SecretKey, Signature};
use zeroize::Zeroizing;

use super::wrap::{WrapPublic, WrapSecret};
use crate::error::{Error, Result};
use crate::seal::Key;

/// How many words a phrase has.
pub const PHRASE_WORDS: usize = 24;
/// A text this long is no phrase, however it is spaced.
const TEXT_BYTES_MAX: usize = 4096;
const ENTROPY_BYTES: usize = 32;
const RECOVERY_CONTEXT: &str = "rdrivefs/v1/recovery";

/// The words that are the root of a drive; wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Phrase(Mnemonic);

/// What grows from a phrase.
pub struct Root {
    /// The identity that founds the drive and may change its membership.
    pub secret: SecretKey,
    /// What epochs are wrapped to for recovery.
    pub recovery: WrapSecret,
}

/// The public half of recovery's wrapping key, vouched for by the root, so that every member can
/// tell whether an epoch is really open to the phrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryKey {
    /// What to wrap to.
    pub key: WrapPublic,
    /// The root's signature over it.
    pub signature: Signature,
}

impl Phrase {
    /// A fresh phrase.
    pub fn generate(env: &Env) -> Self {
        let entropy = Zeroizing::new(env.random::<ENTROPY_BYTES>());
        Self::from_entropy(&entropy)
    }

    /// The phrase that says these bytes.
    pub fn from_entropy(entropy: &[u8; ENTROPY_BYTES]) -> Self {
        let mnemonic = Mnemonic::from_entropy_in(Language::English, entropy);
        Self(mnemonic.expect("32 bytes make 24 words"))
    }

    /// Reads a phrase as a person types it: any case, any white space between the words.
    ///
    /// # Errors
    /// [`Error::Phrase`] naming the word that is not in the list, the count, or the checksum.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(Error::Phrase("too long".to_owned()));
        }
        let lower = Zeroizing::new(text.to_lowercase());
        let words: Vec<&str> = lower.split_whitespace().collect();
        if words.len() != PHRASE_WORDS {
            let count = words.len();
            return Err(Error::Phrase(format!("{count} words, where there must be 24")));
        }
        let list = Language::English.word_list();
        if let Some(at) = words.iter().position(|word| list.binary_search(word).is_err()) {
            let (number, word) = (at + 1, words[at]);
            return Err(Error::Phrase(format!("word {number}, \"{word}\", is not in the list")));
        }
        let joined = Zeroizing::new(words.join(" "));
        let mnemonic = Mnemonic::parse_in_normalized(Language::English, &joined);
        mnemonic.map(Self).map_err(|_| {
            Error::Phrase("the checksum does not hold: a word is wrong or out of place".to_owned())
        })
    }

    /// The words in order, to be shown once.
    pub fn words(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.words()
    }

    fn entropy(&self) -> Zeroizing<[u8; ENTROPY_BYTES]> {
        let (array, len) = self.0.to_entropy_array();
        let array = Zeroizing::new(array);
        assert_eq!(len, ENTROPY_BYTES, "24 words say 32 bytes");
        let mut entropy = Zeroizing::new([0; ENTROPY_BYTES]);
        entropy.copy_from_slice(&array[..ENTROPY_BYTES]);
        entropy
    }
}

impl From<&Phrase> for Root {
    fn from(phrase: &Phrase) -> Self {
        let entropy = phrase.entropy();
        let identity = Key::derive("rdrivefs v1 root identity", &[&entropy[..]]);
        let recovery = Key::derive("rdrivefs v1 recovery wrapping", &[&entropy[..]]);
        Self {
            secret: SecretKey::from_seed(*identity.as_bytes()),
            recovery: WrapSecret::from_seed(recovery),
        }
    }
}

impl Root {
    /// The drive that this is the root of.
    pub fn drive(&self) -> DriveId {
        DriveId::of(&self.secret.public())
    }

    /// Recovery's public key, signed.
    pub fn recovery_key(&self) -> RecoveryKey {
        let key = self.recovery.public();
        let signature = self.secret.sign(RECOVERY_CONTEXT, key.as_bytes());
        RecoveryKey { key, signature }
    }
}

impl RecoveryKey {
    /// Checks that the root vouches for the key.
    ///
    /// # Errors
    /// [`rdrivefs_remote::Error::Forged`] when it does not.
    pub fn verify(&self, root: &PublicKey) -> Result<()> {
        Ok(root.verify(RECOVERY_CONTEXT, self.key.as_bytes(), &self.signature)?)
    }
}

impl fmt::Debug for Phrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phrase(…)")
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({})", self.secret.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(phrase: &Phrase) -> String {
        phrase.words().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_phrase_survives_paper() {
        let phrase = Phrase::generate(&Env::real());
        let text = words(&phrase);
        let sloppy = format!("\n  {}\t\n", text.to_uppercase().replace(' ', " \n "));
        assert_eq!(Phrase::parse(&sloppy).unwrap(), phrase);
        let (a, b) = (Root::from(&phrase), Root::from(&Phrase::parse(&text).unwrap()));
        assert_eq!(a.drive(), b.drive());
        assert_eq!(a.recovery.public(), b.recovery.public());
        assert_ne!(a.drive(), Root::from(&Phrase::generate(&Env::real())).drive());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let text = words(&Phrase::from_entropy(&[7; 32]));
        let mut list: Vec<&str> = text.split(' ').collect();
        let said = |words: &[&str]| Phrase::parse(&words.join(" ")).unwrap_err().to_string();
        assert!(said(&list[1..]).contains("23 words"));
        list[4] = "abandom";
        assert!(said(&list).contains("word 5, \"abandom\""));
        list[4] = "zoo";
        assert!(said(&list).contains("checksum"));
        assert!(Phrase::parse(&"a".repeat(5000)).is_err());
    }

    /// The first test vector of the BIP, for 256 bits.
    #[test]
    fn the_words_are_those_of_the_standard() {
        let text = words(&Phrase::from_entropy(&[0; 32]));
        assert_eq!(text, ["abandon"; 23].join(" ") + " art");
    }

    #[test]
    fn recovery_is_vouched_for_by_the_root_alone() {
        let root = Root::from(&Phrase::from_entropy(&[1; 32]));
        let other = Root::from(&Phrase::from_entropy(&[2; 32]));
        let mut key = root.recovery_key();
        assert!(key.verify(&root.secret.public()).is_ok());
        assert!(key.verify(&other.secret.public()).is_err());
        key.key = other.recovery.public();
        assert!(key.verify(&root.secret.public()).is_err());
    }

    #[test]
    fn nothing_shows() {
        let phrase = Phrase::from_entropy(&[0; 32]);
        let shown = format!("{phrase:?} {:?}", Root::from(&phrase));
        assert!(!shown.contains("abandon"));
    }
}
