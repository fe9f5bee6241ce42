//! Settling: what is here goes to the remotes that answer, before the drive is put away.
//!
//! Nobody is waited for who does not answer: a remote that is away gets its share another time.

use std::sync::Arc;
use std::time::Duration;

use rdrivefs_remote::store::Store as _;

use crate::engine::{Moved, Parts};
use crate::error::{Error, Result};
use crate::index::layers::LayerNumber;
use crate::progress::Progress;
use crate::remotes::{Health, Remote};
use crate::report::{Phase, RemoteOutcome, SyncReport};

use super::parts::Drive;

/// How long a remote may take to say that it is there.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// And one that did not answer when it was last asked.
const DOWN_ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A push during which nothing moved for so long is given up.
const SILENCE: Duration = Duration::from_secs(15);

/// Less than this in that time is nothing.
const SILENCE_BYTES: u64 = 16 << 10;

/// Layers looked at in one step.
const STEP: usize = 4_096;

impl Drive {
    /// Seals everything and sends it to all remotes that answer, side by side.
    ///
    /// # Errors
    /// Of the disk. A remote that is away or breaks off is only named in the report.
    pub fn settle(&self, progress: &Progress) -> Result<SyncReport> {
        let begun = self.parts.env.instant();
        let mut report = SyncReport { agreed: true, ..SyncReport::default() };
        let remotes = self.parts.remotes.all();
        if remotes.is_empty() {
            return Ok(report);
        }
        self.parts.seal(true, progress)?;
        self.parts.tree.sync_all()?;
        let tasks: Vec<_> = remotes
            .into_iter()
            .map(|remote| {
                let one = settle_one(self.parts.clone(), remote.clone(), progress.clone());
                (remote, self.parts.runtime.spawn(one))
            })
            .collect();
        for (remote, task) in tasks {
            let gone = |e| Err(Error::NoRemote(format!("the push was broken off: {e}")));
            note(&remote, self.parts.runtime.block_on(task).unwrap_or_else(gone), &mut report)?;
        }
        self.parts.tree.flush()?;
        report.elapsed_ms = self.since_ms(begun);
        Ok(report)
    }
}

async fn settle_one(parts: Arc<Parts>, remote: Arc<Remote>, progress: Progress) -> Result<Moved> {
    let within = match remote.condition().health {
        Health::Down => DOWN_ANSWER_WITHIN,
        _ => ANSWER_WITHIN,
    };
    let asked = tokio::time::timeout(within, remote.link.space()).await;
    let late = |_| Err(rdrivefs_remote::Error::TimedOut(within.as_millis() as u64));
    let asked = asked.unwrap_or_else(late);
    parts.remotes.noted(&remote, asked)?;
    let (bytes, layers) = lacking(&parts, &remote)?;
    progress.expect(Phase::Push, bytes, layers);
    let mut push = Box::pin(parts.push(&remote, &progress));
    loop {
        let before = moved_bytes(&remote);
        match tokio::time::timeout(SILENCE, &mut push).await {
            Ok(pushed) => return pushed,
            // What keeps a connection alive is no answer.
            Err(_) if moved_bytes(&remote) < before + SILENCE_BYTES => {
                return Err(Error::NoRemote(format!("{} fell silent", remote.name)));
            }
            Err(_) => {}
        }
    }
}

fn moved_bytes(remote: &Remote) -> u64 {
    remote.link.bytes_sent() + remote.link.bytes_received()
}

/// Bytes and layers a remote lacks, by the index.
fn lacking(parts: &Parts, remote: &Remote) -> Result<(u64, u64)> {
    let (mut bytes, mut layers, mut after) = (0, 0, LayerNumber(0));
    loop {
        let step = parts.index.layers_to_push(remote.number, after, STEP)?;
        let Some(last) = step.last() else { return Ok((bytes, layers)) };
        after = last.0;
        layers += step.len() as u64;
        bytes += step.iter().map(|(_, _, len)| len).sum::<u64>();
    }
}

fn note(remote: &Remote, moved: Result<Moved>, report: &mut SyncReport) -> Result<()> {
    let mut outcome = RemoteOutcome { name: remote.name.clone(), ..RemoteOutcome::default() };
    match moved {
        Ok(moved) => {
            report.pushed_bytes += moved.pushed.bytes;
            report.pushed_layers += moved.pushed.layers;
            report.pushed_commits += moved.exchanged.sent;
            (outcome.reached, outcome.agreed) = (true, true);
        }
        Err(e @ (Error::Remote(_) | Error::NoRemote(_) | Error::Refused(_))) => {
            outcome.reached = !e.is_transient();
            outcome.error = Some(e.to_string());
        }
        Err(e) => return Err(e),
    }
    report.agreed &= outcome.agreed;
    report.remotes.push(outcome);
    Ok(())
}
