//! What a person asks of a drive: sync, verify, evict, fetch, pin.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rdrivefs_remote::logs::Logs as _;

use crate::cache::LayerRef;
use crate::engine::Moved;
use crate::error::{Error, Result};
use crate::evict::{Evicted, Want};
use crate::index::layers::LayerNumber;
use crate::progress::Progress;
use crate::record::Kind;
use crate::remotes::Remote;
use crate::report::{
    Damaged, DrivePath, EvictReport, FetchReport, Kept, KeptReason, PinReport, RemoteOutcome,
    SyncReport, VerifyPlan, VerifyReport, VerifyTarget,
};
use crate::verify::{Failure, Found, unseen};

use super::parts::Drive;
use crate::walk::{Chunks, chunks_of, resolve, walk};

/// Rounds a sync takes at most: each tells remotes of what the last one learnt from others.
const ROUNDS_MAX: usize = 4;

/// How often a remote that asks to be left alone for a moment is asked again, and how long it is
/// left alone at most.
const BUSY_TRIES: u32 = 4;
const BUSY_PAUSE_MAX_MS: u64 = 10_000;

/// Which halves of a sync are wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Halves {
    Push,
    Pull,
    Both,
}

impl Drive {
    /// Pushes and pulls until this device and every reachable remote agree.
    ///
    /// # Errors
    /// [`Error::NoRemote`] when none could be reached; of the disk. What one remote does wrong is
    /// in the report.
    pub fn sync(&self, timeout: Option<Duration>, progress: &Progress) -> Result<SyncReport> {
        self.move_all(Halves::Both, timeout, progress)
    }

    /// Sends every reachable remote what it lacks.
    ///
    /// # Errors
    /// As [`Drive::sync`].
    pub fn push(&self, timeout: Option<Duration>, progress: &Progress) -> Result<SyncReport> {
        self.move_all(Halves::Push, timeout, progress)
    }

    /// Receives what every reachable remote has.
    ///
    /// # Errors
    /// As [`Drive::sync`].
    pub fn pull(&self, timeout: Option<Duration>, progress: &Progress) -> Result<SyncReport> {
        self.move_all(Halves::Pull, timeout, progress)
    }

    /// Challenges remotes, or checks the cache, as the plan says.
    ///
    /// # Errors
    /// [`Error::NoRemote`] when there is none; of the index. What is wrong is in the report.
    pub fn verify(&self, plan: &VerifyPlan, progress: &Progress) -> Result<VerifyReport> {
        let begun = self.parts.env.instant();
        let only = plan.path.as_ref().map(|path| self.layers_below(path)).transpose()?;
        let mut report = VerifyReport { loss: plan.loss, ..VerifyReport::default() };
        let mut failures = Vec::new();
        if plan.local {
            let found = self.verifier.check_local(only.as_ref(), progress)?;
            note(plan, None, found, &mut report, &mut failures);
        } else {
            for remote in self.chosen(plan.remote.as_deref())? {
                let audit = self.verifier.audit(&remote, plan.samples, only.as_ref(), progress);
                let found = self.parts.runtime.block_on(audit)?;
                note(plan, Some(&remote.name), found, &mut report, &mut failures);
            }
            self.parts.tree.flush()?;
            self.check_reached(&report)?;
        }
        report.damaged = self.name_damage(failures)?;
        report.elapsed_ms = self.since_ms(begun);
        Ok(report)
    }

    /// Drops local copies of what lies below these paths, as far as remotes have proven it.
    ///
    /// # Errors
    /// Of the index or the disk. What stays is in the report, with the reason.
    pub fn evict(
        &self,
        paths: &[DrivePath],
        dry_run: bool,
        progress: &Progress,
    ) -> Result<EvictReport> {
        self.parts.seal(true, progress)?;
        let mut report = EvictReport { dry_run, ..EvictReport::default() };
        let mut chunks = Chunks::new();
        let mut owners: HashMap<LayerNumber, DrivePath> = HashMap::new();
        for path in paths {
            walk(&self.parts.tree, path, &mut |found| {
                let mut own = Chunks::new();
                chunks_of(&found.row, &mut own);
                for (layer, numbers) in own {
                    owners.entry(layer).or_insert_with(|| found.path.clone());
                    chunks.entry(layer).or_default().extend(numbers);
                }
                let dirty = found.row.unsealed();
                let reason = if found.pinned { KeptReason::Pinned } else { KeptReason::Dirty };
                if dirty > 0 || (found.pinned && found.attr.kind == Kind::File) {
                    let bytes = if found.pinned { found.attr.size } else { dirty };
                    report.kept_bytes += bytes;
                    report.kept.push(Kept {
                        path: Some(found.path),
                        layer: None,
                        bytes,
                        reason,
                        detail: String::new(),
                    });
                }
                Ok(())
            })?;
        }
        for (layer, numbers) in &self.parts.room.pinned(progress)? {
            if let Some(asked) = chunks.get_mut(layer) {
                asked.retain(|number| !numbers.contains(number));
            }
        }
        let wants = self.wants(&chunks)?;
        self.carry_out_eviction(wants, dry_run, &owners, &mut report, progress)?;
        Ok(report)
    }

    /// Drops local copies, least recently used layers first, until so many bytes are free.
    ///
    /// # Errors
    /// As [`Drive::evict`].
    pub fn evict_bytes(
        &self,
        bytes: u64,
        dry_run: bool,
        progress: &Progress,
    ) -> Result<EvictReport> {
        let mut report = EvictReport { dry_run, ..EvictReport::default() };
        let mut note = |evicted| self.note_eviction(evicted, &HashMap::new(), &mut report);
        let making = self.parts.room.make(bytes, dry_run, progress, &mut note);
        self.parts.runtime.block_on(making)?;
        Ok(report)
    }

    /// Gives back the room of files that died before anybody was told of them; returns the disk
    /// bytes freed. The engine does so when room is short.
    ///
    /// # Errors
    /// Of the index or the disk.
    pub fn collect(&self) -> Result<u64> {
        self.parts.sealer.collect()
    }

    /// Brings what lies below these paths.
    ///
    /// # Errors
    /// Of the remotes or the disk.
    pub fn fetch(&self, paths: &[DrivePath], progress: &Progress) -> Result<FetchReport> {
        let begun = self.parts.env.instant();
        let mut report = FetchReport::default();
        let mut chunks = Chunks::new();
        for path in paths {
            walk(&self.parts.tree, path, &mut |found| {
                report.files += u64::from(found.attr.kind == Kind::File);
                chunks_of(&found.row, &mut chunks);
                Ok(())
            })?;
        }
        progress.expect(crate::report::Phase::Fetch, 0, chunks.len() as u64);
        for (layer, numbers) in chunks {
            progress.check()?;
            let bytes = self.contents.fetch(layer, &numbers)?;
            report.fetched_bytes += bytes;
            progress.advance(crate::report::Phase::Fetch, bytes, 1);
        }
        self.parts.cache.flush()?;
        report.elapsed_ms = self.since_ms(begun);
        Ok(report)
    }

    /// Keeps what lies below these paths on this computer always, or no longer.
    ///
    /// # Errors
    /// Of the journal.
    pub fn pin(&self, paths: &[DrivePath], pinned: bool) -> Result<PinReport> {
        for path in paths {
            let ino = resolve(&self.parts.tree, path)?;
            self.parts.tree.pin(ino, pinned)?;
        }
        let mut report = PinReport::default();
        walk(&self.parts.tree, &DrivePath(b"/".to_vec()), &mut |found| {
            if found.row.pinned {
                report.pinned.push(found.path);
            }
            if found.pinned && found.attr.kind == Kind::File {
                report.bytes += found.attr.size;
            }
            Ok(())
        })?;
        Ok(report)
    }

    pub(super) fn since_ms(&self, begun: rdrivefs_remote::env::Instant) -> u64 {
        let elapsed = self.parts.env.instant().since(begun);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn chosen(&self, name: Option<&str>) -> Result<Vec<Arc<Remote>>> {
        let remotes = match name {
            Some(name) => vec![self.parts.remotes.named(name)?],
            None => self.parts.remotes.all(),
        };
        match remotes.is_empty() {
            true => Err(Error::NoRemote("this drive has no remote yet".into())),
            false => Ok(remotes),
        }
    }

    /// What kept every remote from answering, asked once more to be told as what it is.
    fn check_reached(&self, report: &VerifyReport) -> Result<()> {
        if report.targets.iter().any(|target| target.reached) {
            return Ok(());
        }
        for target in &report.targets {
            let remote = self.parts.remotes.named(target.remote.as_deref().unwrap_or_default())?;
            let heads = self.parts.runtime.block_on(remote.link.heads());
            self.parts.remotes.noted(&remote, heads)?;
        }
        Ok(())
    }

    fn move_all(
        &self,
        halves: Halves,
        timeout: Option<Duration>,
        progress: &Progress,
    ) -> Result<SyncReport> {
        let begun = self.parts.env.instant();
        let mut report = SyncReport::default();
        let remotes = self.chosen(None)?;
        if halves != Halves::Pull {
            report.unread_files = self.parts.seal(true, progress)?.unread;
            self.parts.tree.sync_all()?;
        }
        let mut refused = None;
        for _ in 0..ROUNDS_MAX {
            let mut quiet = true;
            report.remotes.clear();
            refused = None;
            for remote in &remotes {
                let moving = self.move_when_free(remote, halves, progress);
                let moved = match timeout {
                    None => self.parts.runtime.block_on(moving),
                    Some(limit) => {
                        let left = limit.saturating_sub(self.parts.env.instant().since(begun));
                        let timed = async { tokio::time::timeout(left, moving).await };
                        let late = || Error::NoRemote("the time is up".into());
                        self.parts.runtime.block_on(timed).unwrap_or_else(|_| Err(late()))
                    }
                };
                quiet &= settle(remote, moved, &mut report, &mut refused)?;
            }
            if quiet {
                break;
            }
        }
        report.agreed =
            report.unread_files == 0 && report.remotes.iter().all(|remote| remote.agreed);
        report.elapsed_ms = self.since_ms(begun);
        if let Some(why) = refused
            && report.remotes.iter().all(|remote| remote.error.is_some())
        {
            return Err(why);
        }
        if let Some(down) = report.remotes.iter().find(|remote| !remote.reached)
            && report.remotes.iter().all(|remote| !remote.reached)
        {
            let why = down.error.clone().unwrap_or_default();
            return Err(Error::NoRemote(format!("{}: {why}", down.name)));
        }
        Ok(report)
    }

    /// Waits a little for a remote that is busy: it said itself that it will not be for long.
    async fn move_when_free(
        &self,
        remote: &Arc<Remote>,
        halves: Halves,
        progress: &Progress,
    ) -> Result<Moved> {
        for _ in 0..BUSY_TRIES {
            match self.move_one(remote, halves, progress).await {
                Err(Error::Remote(rdrivefs_remote::Error::Busy { retry_ms })) => {
                    progress.check()?;
                    let pause = Duration::from_millis(retry_ms.min(BUSY_PAUSE_MAX_MS));
                    tokio::time::sleep(pause).await;
                }
                moved => return moved,
            }
        }
        self.move_one(remote, halves, progress).await
    }

    async fn move_one(
        &self,
        remote: &Arc<Remote>,
        halves: Halves,
        progress: &Progress,
    ) -> Result<Moved> {
        match halves {
            Halves::Both => self.parts.sync(remote, progress).await,
            Halves::Push => self.parts.push(remote, progress).await,
            Halves::Pull => {
                let exchanged = self.parts.pull(remote, progress).await?;
                Ok(Moved { exchanged, ..Moved::default() })
            }
        }
    }

    fn layers_below(&self, path: &DrivePath) -> Result<HashSet<LayerNumber>> {
        let mut chunks = Chunks::new();
        walk(&self.parts.tree, path, &mut |found| {
            chunks_of(&found.row, &mut chunks);
            Ok(())
        })?;
        Ok(chunks.into_keys().collect())
    }

    fn wants(&self, chunks: &Chunks) -> Result<Vec<Want>> {
        let mut wants = Vec::new();
        for (number, chunks) in chunks {
            let row = self.parts.index.layer(*number)?;
            let layer = LayerRef { id: row.id, len: row.len };
            let ranges = self.contents.spans(*number, chunks)?;
            wants.push(Want { number: *number, layer, ranges });
        }
        Ok(wants)
    }

    fn carry_out_eviction(
        &self,
        wants: Vec<Want>,
        dry_run: bool,
        owners: &HashMap<LayerNumber, DrivePath>,
        report: &mut EvictReport,
        progress: &Progress,
    ) -> Result<()> {
        let evicting = self.evictor.evict(wants, dry_run, progress);
        let evicted = self.parts.runtime.block_on(evicting)?;
        self.note_eviction(evicted, owners, report)
    }

    /// Adds what an eviction did to the report.
    fn note_eviction(
        &self,
        evicted: Evicted,
        owners: &HashMap<LayerNumber, DrivePath>,
        report: &mut EvictReport,
    ) -> Result<()> {
        report.evicted_bytes += evicted.bytes;
        report.evicted_layers += evicted.layers;
        report.challenges += evicted.challenges;
        for stays in evicted.stays {
            let bytes = self.parts.cache.present(&stays.layer)?;
            report.kept_bytes += bytes;
            report.kept.push(Kept {
                path: owners.get(&stays.number).cloned(),
                layer: Some(stays.layer.id.to_string()),
                bytes,
                reason: stays.reason,
                detail: stays.detail,
            });
        }
        Ok(())
    }

    /// The files that damaged layers belong to.
    fn name_damage(&self, failures: Vec<(Option<String>, Failure)>) -> Result<Vec<Damaged>> {
        if failures.is_empty() {
            return Ok(Vec::new());
        }
        let mut files: BTreeMap<LayerNumber, Vec<DrivePath>> = BTreeMap::new();
        for (_, failure) in &failures {
            files.entry(failure.layer).or_default();
        }
        walk(&self.parts.tree, &DrivePath(b"/".to_vec()), &mut |found| {
            let mut chunks = Chunks::new();
            chunks_of(&found.row, &mut chunks);
            for layer in chunks.keys() {
                if let Some(files) = files.get_mut(layer) {
                    files.push(found.path.clone());
                }
            }
            Ok(())
        })?;
        Ok(failures
            .into_iter()
            .map(|(remote, failure)| Damaged {
                object: failure.id.to_string(),
                remote,
                offset: failure.offset,
                failures: failure.count,
                why: failure.why,
                files: files.get(&failure.layer).cloned().unwrap_or_default(),
            })
            .collect())
    }
}

/// Adds what one remote did to the report; whether nothing moved.
fn settle(
    remote: &Remote,
    moved: Result<Moved>,
    report: &mut SyncReport,
    refused: &mut Option<Error>,
) -> Result<bool> {
    let mut outcome = RemoteOutcome { name: remote.name.clone(), ..RemoteOutcome::default() };
    let quiet = match moved {
        Ok(moved) => {
            report.pushed_bytes += moved.pushed.bytes;
            report.pushed_layers += moved.pushed.layers;
            report.pushed_commits += moved.exchanged.sent;
            report.pulled_commits += moved.exchanged.received;
            report.pulled_bytes += moved.exchanged.received_bytes;
            outcome.reached = true;
            let damaged = moved.pushed.damaged;
            outcome.agreed = damaged == 0;
            outcome.error = (damaged > 0).then(|| {
                format!("layers that are damaged or gone here and nowhere else: {damaged}")
            });
            moved == Moved::default() || damaged > 0
        }
        Err(e) if e.is_refusal() || e.is_transient() => {
            outcome.reached = !e.is_transient();
            outcome.error = Some(e.to_string());
            if e.is_refusal() {
                *refused = Some(e);
            }
            true
        }
        Err(e) => return Err(e),
    };
    report.remotes.push(outcome);
    Ok(quiet)
}

fn note(
    plan: &VerifyPlan,
    remote: Option<&str>,
    found: Found,
    report: &mut VerifyReport,
    failures: &mut Vec<(Option<String>, Failure)>,
) {
    let whole = matches!(plan.samples, crate::report::Samples::All) || plan.local;
    let complete = found.silent.is_none();
    let chance = if whole && complete { 0.0 } else { unseen(plan.loss, found.samples) };
    report.samples += found.samples;
    report.failures += found.failed();
    report.unseen = report.unseen.max(if found.bytes == 0 { 0.0 } else { chance });
    report.targets.push(VerifyTarget {
        remote: remote.map(str::to_owned),
        reached: complete || found.samples > 0,
        bytes: found.bytes,
        layers: found.layers,
        samples: found.samples,
        failures: found.failed(),
        unseen: if found.bytes == 0 { 0.0 } else { chance },
        error: found.silent,
    });
    failures.extend(found.failures.into_values().map(|f| (remote.map(str::to_owned), f)));
}
