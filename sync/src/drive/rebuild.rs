//! An index from what remotes have, where this computer has none any more.
//!
//! What was drawn and signed under the old number is not known to the last, so the device goes on
//! under a new identity and a new number, which the old one vouches for: no number is used twice, no
//! log is forked.

use std::path::Path;
use std::sync::Arc;

use rdrivefs_remote::env::Env;
use rdrivefs_remote::link::{Credentials, Link};
use rdrivefs_remote::logs::Logs as _;
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::home::Home;
use crate::id::DeviceNumber;
use crate::index::Index;
use crate::keybag::Secrets;
use crate::keyring;
use crate::log::Log;
use crate::progress::Progress;

use super::found::Newcomer;
use super::known::Known;

/// What came of asking the remotes.
pub(super) struct Rebuilt {
    /// The identity to go on under.
    pub(super) secrets: Secrets,
    /// The number before.
    pub(super) before: DeviceNumber,
    /// Remotes that answered, by name.
    pub(super) from: Vec<String>,
    /// Remotes that did not, with why.
    pub(super) silent: Vec<String>,
    /// The first log that was refused, in words.
    pub(super) refused: Option<String>,
}

/// Makes an index in `new` of the logs that remotes have; nothing else is changed here.
///
/// # Errors
/// [`Error::IndexLost`] when no remote is known; [`Error::NoRemote`] when none answers; of the disk.
pub(super) fn from_remotes(
    home: &Home,
    new: &Path,
    old: &Secrets,
    env: &Env,
    runtime: &Handle,
    progress: &Progress,
) -> Result<Rebuilt> {
    let known = Known::read(home, old).filter(|known| !known.remotes.is_empty());
    let known = known.ok_or_else(|| Error::IndexLost(home.index_file().display().to_string()))?;
    let device = Newcomer::new(env);
    let index = Arc::new(Index::open(new, &old.local, env.clone())?);
    for entry in known.membership()? {
        index.add_entry(&entry.head(), true, &entry.encode())?;
    }
    let log = Log::open(old.drive(), old.root, device.log(), index.clone())?;
    let (mut links, mut silent, mut refused) = (Vec::new(), Vec::new(), None);
    for row in &known.remotes {
        match runtime.block_on(ask(&log, old, &row.url, env, progress)) {
            Ok((link, first)) => {
                refused = refused.or(first);
                links.push((row.name.clone(), link));
            }
            Err(e) if matches!(e, Error::Remote(_)) => silent.push(format!("{}: {e}", row.name)),
            Err(e) => return Err(e),
        }
        index.add_remote(row)?;
    }
    if links.is_empty() {
        return Err(Error::NoRemote(silent.join("; ")));
    }
    // Only the old identity can open what was handed to it while this device was away.
    let membership = log.membership();
    let mut old = old.clone();
    old.add_epochs(keyring::unknown(&old, &membership), &membership);
    let (added, number) = device.addition(&membership, &old.device)?;
    log.accept(added.encode())?;
    for (name, link) in &links {
        let sent = runtime.block_on(async {
            let heads = link.heads().await?;
            log.send(link, &heads, progress).await
        });
        runtime.block_on(link.close());
        // It is sent again like everything else that a remote lacks.
        if let Err(error) = sent {
            tracing::warn!(remote = name, %error, "the new identity was not sent");
        }
    }
    index.checkpoint()?;
    let secrets = device.instead_of(&old, number);
    Known::try_keep(home, &secrets, &index, &log, env)?;
    let from = links.into_iter().map(|(name, _)| name).collect();
    Ok(Rebuilt { secrets, before: old.number, from, silent, refused })
}

/// Receives all logs of one remote; the first refusal is part of the result.
async fn ask(
    log: &Log,
    old: &Secrets,
    url: &str,
    env: &Env,
    progress: &Progress,
) -> Result<(Link, Option<String>)> {
    let credentials = Credentials {
        drive: old.drive(),
        root: old.root,
        device: old.device.clone(),
        membership: log.certificate()?,
        invite: None,
    };
    let link = Link::dial(&url.parse()?, credentials, env).await?;
    let heads = link.heads().await?;
    match log.receive(&link, &heads, progress).await {
        Err(e) if e.is_refusal() => Ok((link, Some(e.to_string()))),
        received => received.map(|_| (link, None)),
    }
}
