//! Trusting a remote's new key, on the word of its keeper.
//!
//! Must: a key is taken only if a person names it whole, by itself or by its fingerprint, and a
//! connection with it came about. What the remote held and proved under the old key is forgotten:
//! it is asked again for all of it.

use std::sync::Arc;

use rdrivefs_remote::identity::PublicKey;
use rdrivefs_remote::link::{Credentials, Link, NodeUrl};

use crate::error::{Error, Result};
use crate::index::ledger::RemoteRow;
use crate::remotes::{Health, Remote};
use crate::state::Event;

use super::parts::Drive;

/// A key as a person may name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// By all its digits.
    Key(PublicKey),
    /// By its fingerprint, as [`PublicKey::fingerprint`] writes it.
    Fingerprint(String),
}

impl Named {
    /// The key in `text`: 64 hexadecimal digits, or eight groups of four; none for anything less.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| !matches!(c, '-' | ':' | ' ')).collect();
        let digits = digits.trim().to_ascii_lowercase();
        let bytes = hex::decode(&digits).ok()?;
        match bytes.len() {
            32 => Some(Self::Key(PublicKey(bytes.try_into().ok()?))),
            16 => {
                let groups: Vec<&str> = (0..8).map(|i| &digits[i * 4..i * 4 + 4]).collect();
                Some(Self::Fingerprint(groups.join("-")))
            }
            _ => None,
        }
    }

    fn is(&self, key: &PublicKey) -> bool {
        match self {
            Self::Key(named) => named == key,
            Self::Fingerprint(print) => *print == key.fingerprint(),
        }
    }
}

impl Drive {
    /// Takes the key that the remote shows now, if it is the one named.
    ///
    /// # Errors
    /// [`Error::Refused`] when the remote shows another key, or there is none of that name; of the
    /// link. The old key stays pinned then.
    pub fn remote_trust(&self, name: &str, named: &Named) -> Result<Arc<Remote>> {
        let remote = self.parts.remotes.named(name)?;
        let credentials = self.credentials()?;
        let shown = self.shown_key(&remote, &credentials)?;
        if !named.is(&shown) {
            return Err(Error::Refused(format!(
                "{name} shows the key {}, which is not the one named",
                shown.fingerprint()
            )));
        }
        if shown == remote.url.key && remote.condition().health != Health::Distrusted {
            return Ok(remote);
        }
        let url = NodeUrl { key: shown, ..remote.url.clone() };
        let (runtime, env) = (&self.parts.runtime, &self.parts.env);
        let link = runtime.block_on(Link::dial(&url, credentials, env))?;
        runtime.block_on(link.close());
        self.exchange(&remote, &url)
    }

    fn shown_key(&self, remote: &Remote, credentials: &Credentials) -> Result<PublicKey> {
        let shown = Link::shown_key(&remote.url, credentials, &self.parts.env);
        let shown = self.parts.runtime.block_on(shown);
        Ok(shown?)
    }

    fn exchange(&self, old: &Remote, url: &NodeUrl) -> Result<Arc<Remote>> {
        self.parts.remotes.remove(&old.name)?;
        self.tell(Event::Gone(old.number));
        match self.remote_add(&old.name, url) {
            Ok(new) => Ok(new),
            Err(e) => {
                // It answered a moment ago. Nothing is lost: the old row is there at the next start.
                let added_ms = self.parts.env.wall_ms().0;
                let row = RemoteRow { name: old.name.clone(), url: old.url.to_string(), added_ms };
                self.parts.index.add_remote(&row)?;
                self.parts.tree.flush()?;
                Err(e)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_key_or_fingerprint_names_a_key() {
        let key = PublicKey([7; 32]);
        for text in [key.to_string(), key.fingerprint(), key.fingerprint().to_uppercase()] {
            assert!(Named::parse(&text).unwrap().is(&key), "{text}");
        }
        let whole = key.fingerprint();
        for text in ["", "07", &whole[..whole.len() - 1], &whole[..4], &format!("{whole}-0707")] {
            assert_eq!(Named::parse(text), None, "{text}");
        }
        assert!(!Named::parse(&PublicKey([8; 32]).fingerprint()).unwrap().is(&key));
    }
}
