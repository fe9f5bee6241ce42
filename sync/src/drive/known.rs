//! What it takes to ask the remotes when the index is gone: their addresses, and the signed entries
//! by which they know this device. A small sealed file beside the spare, but no part of it.

use bytes::Bytes;
use rdrivefs_remote::entry::Entry;
use rdrivefs_remote::env::Env;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::home::{Home, make_directory, replace_file};
use crate::index::Index;
use crate::index::ledger::RemoteRow;
use crate::keybag::Secrets;
use crate::log::Log;
use crate::seal::{self, Key};

const PLACE: &[u8] = b"rdrivefs/v1/remotes";

/// What is kept; JSON, sealed.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Known {
    /// The remotes, in the order they were added.
    pub(super) remotes: Vec<RemoteRow>,
    /// Membership entries in hex.
    membership: Vec<String>,
}

impl Known {
    /// What the file says; none when there is none or it does not open.
    pub(super) fn read(home: &Home, secrets: &Secrets) -> Option<Self> {
        let sealed = std::fs::read(home.remotes_file()).ok()?;
        let plain = seal::open_box(&key(secrets), PLACE, &sealed).ok()?;
        serde_json::from_slice(&plain).ok()
    }

    /// The membership entries.
    ///
    /// # Errors
    /// When one does not parse.
    pub(super) fn membership(&self) -> Result<Vec<Entry>> {
        let entry = |text: &String| {
            let bytes = hex::decode(text).map_err(|e| Error::corrupt("the list of remotes", e))?;
            Ok(Entry::from_bytes(Bytes::from(bytes))?)
        };
        self.membership.iter().map(entry).collect()
    }

    /// Writes down what the index says, if that is news. That it cannot be keeps nobody from
    /// anything.
    pub(super) fn keep(home: &Home, secrets: &Secrets, index: &Index, log: &Log, env: &Env) {
        if let Err(error) = Self::try_keep(home, secrets, index, log, env) {
            tracing::warn!(%error, "the list of remotes is not kept beside the index");
        }
    }

    /// As [`Known::keep`].
    ///
    /// # Errors
    /// Of the index and the disk.
    pub(super) fn try_keep(
        home: &Home,
        secrets: &Secrets,
        index: &Index,
        log: &Log,
        env: &Env,
    ) -> Result<()> {
        let known = Self {
            remotes: index.remotes()?.into_iter().map(|(_, row)| row).collect(),
            membership: log.certificate()?.iter().map(hex::encode).collect(),
        };
        if Self::read(home, secrets).is_some_and(|was| was == known) {
            return Ok(());
        }
        let plain = serde_json::to_vec(&known).expect("it is plain data");
        make_directory(&home.spare_dir())?;
        replace_file(&home.remotes_file(), &seal::seal_box(&key(secrets), env, PLACE, &plain))
    }
}

fn key(secrets: &Secrets) -> Key {
    Key::derive("rdrivefs v1 remotes", &[secrets.local.as_bytes()])
}
