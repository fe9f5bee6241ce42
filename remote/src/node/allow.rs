//! Who may keep bytes here: one file for each authorised drive, read again when the directory
//! changes, so that a person, a script or a config tool can grant and withdraw without a restart.

use std::collections::HashMap;
use std::fs;
use std::sync::{PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::identity::{DriveId, PublicKey};
use crate::node::place::Place;

/// The longest file that is read: a real one has about a hundred bytes.
const FILE_BYTES_MAX: u64 = 4096;

/// What one drive is granted. An empty file grants the node's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Bytes it may use; without it the node's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quota: Option<u64>,
    /// When it was granted, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub added_ms: Option<u64>,
    /// The hash of the invite it came by: that invite is used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invite: Option<String>,
}

/// The authorised drives, by root key.
#[derive(Debug)]
pub struct Allow {
    place: Place,
    grants: RwLock<HashMap<PublicKey, Grant>>,
}

impl Allow {
    /// Reads the directory.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be listed.
    pub fn open(place: &Place) -> Result<Self> {
        let allow = Self { place: place.clone(), grants: RwLock::default() };
        allow.reload()?;
        Ok(allow)
    }

    /// Reads the directory again; gives the drives that are authorised no longer.
    ///
    /// A file that does not parse, perhaps because it is being written, changes nothing.
    ///
    /// # Errors
    /// [`Error::Io`] when the directory cannot be listed.
    pub fn reload(&self) -> Result<Vec<DriveId>> {
        let io = || Error::io("reading authorized_keys");
        let mut now = HashMap::new();
        for entry in fs::read_dir(self.place.authorized()).map_err(io())? {
            let name = entry.map_err(io())?.file_name();
            let Some(root) = name.to_str().and_then(|n| parse_key(n).ok()) else { continue };
            match self.read(&root) {
                Ok(grant) => drop(now.insert(root, grant)),
                Err(error) => {
                    tracing::warn!(%root, %error, "an authorisation does not parse");
                    if let Some(before) = self.get(&root) {
                        now.insert(root, before);
                    }
                }
            }
        }
        let mut grants = self.grants.write().unwrap_or_else(PoisonError::into_inner);
        let gone = grants.keys().filter(|root| !now.contains_key(root)).map(DriveId::of).collect();
        *grants = now;
        Ok(gone)
    }

    /// What the drive of this root is granted.
    pub fn get(&self, root: &PublicKey) -> Option<Grant> {
        self.grants.read().unwrap_or_else(PoisonError::into_inner).get(root).cloned()
    }

    /// All grants, in order of their keys.
    pub fn all(&self) -> Vec<(PublicKey, Grant)> {
        let grants = self.grants.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = grants.iter().map(|(k, g)| (*k, g.clone())).collect();
        all.sort_by_key(|(root, _)| *root);
        all
    }

    /// Authorises a drive, or changes what it is granted.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add(&self, root: &PublicKey, grant: Grant) -> Result<()> {
        let text = toml::to_string(&grant).expect("a grant is plain data");
        self.place.write(&file(root), text.as_bytes())?;
        let mut grants = self.grants.write().unwrap_or_else(PoisonError::into_inner);
        grants.insert(*root, grant);
        Ok(())
    }

    /// Withdraws an authorisation; its bytes stay. Tells whether there was one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(&self, root: &PublicKey) -> Result<bool> {
        let was = self.place.remove(&file(root))?;
        self.grants.write().unwrap_or_else(PoisonError::into_inner).remove(root);
        Ok(was)
    }

    fn read(&self, root: &PublicKey) -> Result<Grant> {
        let path = self.place.root().join(file(root));
        let io = || Error::io(format!("reading {}", path.display()));
        if fs::metadata(&path).map_err(io())?.len() > FILE_BYTES_MAX {
            return Err(Error::malformed("authorisation", "the file is too long"));
        }
        let text = fs::read_to_string(&path).map_err(io())?;
        toml::from_str(&text).map_err(|e| Error::malformed("authorisation", e.message()))
    }
}

/// Reads a drive's root key: 64 lower-case hexadecimal digits.
///
/// # Errors
/// [`Error::Malformed`].
pub fn parse_key(text: &str) -> Result<PublicKey> {
    let mut key = [0; 32];
    let lower = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !lower || hex::decode_to_slice(text, &mut key).is_err() {
        return Err(Error::malformed("key", "not 64 lower-case hexadecimal digits"));
    }
    Ok(PublicKey(key))
}

fn file(root: &PublicKey) -> String {
    format!("authorized_keys/{root}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let allow = Allow::open(&Place::open(dir.path()).unwrap()).unwrap();
        let root = PublicKey([7; 32]);
        let path = dir.path().join(file(&root));
        fs::write(&path, "").unwrap();
        fs::write(dir.path().join("authorized_keys/README"), "?").unwrap();
        assert!(allow.reload().unwrap().is_empty());
        assert_eq!(allow.get(&root), Some(Grant::default()));
        fs::write(&path, "quota = 5\n").unwrap();
        allow.reload().unwrap();
        assert_eq!(allow.get(&root).unwrap().quota, Some(5));
        fs::write(&path, "quota = ").unwrap();
        allow.reload().unwrap();
        assert_eq!(allow.get(&root).unwrap().quota, Some(5), "half a file changes nothing");
        fs::remove_file(&path).unwrap();
        assert_eq!(allow.reload().unwrap(), [DriveId::of(&root)]);
        assert_eq!(allow.get(&root), None);
    }

    #[test]
    fn words_nobody_knows_are_refused() {
        assert!(toml::from_str::<Grant>("quotta = 5").is_err());
        assert!(toml::from_str::<Grant>("quota = -5").is_err());
    }
}
