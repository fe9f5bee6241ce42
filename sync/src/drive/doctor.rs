//! The doctor's look from inside: index, files, journal, cache, remotes and clock of an open drive.
//!
//! Every check is bounded. With `repair` only what is safe is mended: a cached layer that is wrong
//! goes only after a remote has proven to hold it, and a file in the cache that nobody knows only
//! when it has lain there for long.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::store::Store as _;

use crate::cache::LayerRef;
use crate::error::Result;
use crate::evict::FRESH_CHALLENGES;
use crate::id::Ino;
use crate::index::layers::LayerNumber;
use crate::progress::Progress;
use crate::remotes::{Health, Remote};
use crate::report::{Check, CheckState, DoctorReport, DrivePath, Phase};
use crate::tree::extents::Source;

use super::kept::{Kept, kept};
use super::mend::is_any_aside;
use super::parts::Drive;
use crate::walk::{Chunks, chunks_of, walk};

/// Bytes of the cache whose hashes are checked: some seconds of work. `verify --local` checks all.
const CACHE_BYTES_MAX: u64 = 1 << 30;

/// Bytes of the journal that are read back.
const JOURNAL_BYTES_MAX: u64 = 256 << 20;

/// Bytes read in one go.
const STEP_BYTES: u32 = 1 << 20;

/// A file in the cache that no row names may belong to a layer that is just being made.
const STRAY_SECS_MIN: i64 = 3_600;

/// How long a remote may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// How far ahead of this clock another device's commit may be dated.
const AHEAD_MS_MAX: u64 = 3_600_000;

const ANEW: &str = "unmount the drive if it is mounted; `rdrivefs doctor --repair` then puts another index \
                    in its place";

/// Files named in one line.
const NAMES_MAX: usize = 100;

/// What the walk over all files found.
#[derive(Default)]
struct Files {
    count: u64,
    bad: Option<String>,
    /// Files with bytes in the journal, and the runs they lie in.
    unsealed: Vec<(DrivePath, Ino, Vec<std::ops::Range<u64>>)>,
}

/// A cached layer that is not what its name says.
struct Wrong {
    id: BlobId,
    number: LayerNumber,
    layer: LayerRef,
}

impl Drive {
    /// Checks everything about an open drive, and mends what can safely be mended.
    ///
    /// # Errors
    /// When it was cancelled. What is wrong is in the report.
    pub fn doctor(&self, repair: bool, progress: &Progress) -> Result<DoctorReport> {
        let files = self.look_at_files();
        let mut checks = vec![self.check_index(), files_check(&files), self.check_journal(&files)];
        progress.check()?;
        // First, so that nobody who is away is asked twice.
        let remotes = self.check_remotes();
        checks.extend(self.check_cache(repair, progress));
        checks.extend(remotes);
        checks.push(self.check_clock());
        Ok(DoctorReport { checks })
    }

    fn check_index(&self) -> Check {
        match self.parts.index.check_whole() {
            Ok(()) => fine("index", "its pages and rows are whole"),
            Err(e) if e.is_corrupt() => damaged("index", e.to_string(), ANEW),
            Err(e) => warning("index", e.to_string(), "it could not be looked at: ask once more"),
        }
    }

    /// Opens every row, and looks whether every layer that files name is known.
    fn look_at_files(&self) -> Files {
        let mut files = Files::default();
        let walked = walk(&self.parts.tree, &DrivePath(b"/".to_vec()), &mut |found| {
            files.count += 1;
            for (_, extent) in found.row.extents.iter() {
                if let Source::Chunk { layer, .. } = extent.source
                    && let Err(e) = self.parts.index.layer(LayerNumber(layer))
                {
                    files.bad.get_or_insert(format!("{}: {e}", found.path));
                }
            }
            if found.row.unsealed() > 0 {
                let runs = found.row.extents.unsealed_runs();
                files.unsealed.push((found.path, found.attr.ino, runs));
            }
            Ok(())
        });
        files.bad = files.bad.or(walked.err().map(|e| e.to_string()));
        files
    }

    /// Reads back what lies in the journal alone, as far as the bound goes.
    fn check_journal(&self, files: &Files) -> Check {
        const LOST: &str = "what that file held since it was last sealed is lost here; \
                            save what can be read, and write it anew";
        if let Err(e) = self.parts.tree.sync_all() {
            return damaged("journal", e.to_string(), "free some space, then unmount and mount");
        }
        let mut read = 0;
        for (path, ino, runs) in &files.unsealed {
            for run in runs {
                let mut at = run.start;
                while at < run.end && read < JOURNAL_BYTES_MAX {
                    match self.parts.tree.read(*ino, at, STEP_BYTES) {
                        Ok(bytes) if bytes.is_empty() => break,
                        Ok(bytes) => {
                            (at, read) = (at + bytes.len() as u64, read + bytes.len() as u64)
                        }
                        Err(e) => return damaged("journal", format!("{path}: {e}"), LOST),
                    }
                }
            }
        }
        let held = files.unsealed.len();
        fine("journal", format!("{held} files are not sealed yet; {read} bytes were read back"))
    }

    fn check_cache(&self, repair: bool, progress: &Progress) -> Vec<Check> {
        let kept = match kept(&self.home.cache_dir()) {
            Ok(kept) => kept,
            Err(e) => return vec![damaged("cache", e.to_string(), "look at that directory")],
        };
        let (looked, wrong, strays) = self.look_at_cache(&kept, progress);
        let mut checks = Vec::new();
        if wrong.is_empty() {
            let bytes = self.parts.cache.bytes_used();
            let detail = format!("{bytes} bytes, of which {looked} were checked");
            checks.push(fine("cache", detail));
        }
        for wrong in wrong {
            checks.push(self.mend_layer(&wrong, &kept[&wrong.id], repair));
        }
        if !strays.is_empty() {
            let aside = is_any_aside(&self.home);
            checks.push(mend_strays(&strays, repair, aside));
        }
        checks.extend(self.check_unsent());
        checks
    }

    /// Layers that are nowhere: not here, and never sent. What lay in them is lost.
    fn check_unsent(&self) -> Option<Check> {
        let gone = |number: &LayerNumber| {
            let row = self.parts.index.layer(*number).ok()?;
            let layer = LayerRef { id: row.id, len: row.len };
            let nowhere = self.parts.index.holders(*number).is_ok_and(|all| all.is_empty())
                && self.parts.cache.present(&layer).is_ok_and(|bytes| bytes < layer.len);
            nowhere.then_some(*number)
        };
        let unpublished = self.parts.index.layers_unpublished(usize::MAX >> 1).ok()?;
        let lost: BTreeSet<_> = unpublished.iter().filter_map(gone).collect();
        let names = if lost.is_empty() { Vec::new() } else { self.names_in(&lost) };
        let (first, more) = names.split_at(names.len().min(NAMES_MAX));
        let more =
            if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        let what = format!(
            "{} layers were not sent yet and are gone; they held {}{more}",
            lost.len(),
            first.join(", ")
        );
        (!names.is_empty()).then(|| damaged("cache", what, "write those files anew from a copy"))
    }

    /// Checks layers from a random one on; returns the bytes checked, what is wrong, and the files
    /// that no row of the index names.
    fn look_at_cache<'a>(
        &self,
        kept: &'a BTreeMap<BlobId, Kept>,
        progress: &Progress,
    ) -> (u64, Vec<Wrong>, Vec<&'a Kept>) {
        let (mut looked, mut wrong, mut strays) = (0, Vec::new(), Vec::new());
        let now = i64::try_from(self.parts.env.wall_ms().0 / 1_000).unwrap_or(i64::MAX);
        let start = self.parts.env.random_below(kept.len().max(1) as u64) as usize;
        progress.expect(Phase::Check, 0, kept.len() as u64);
        for (id, files) in kept.iter().cycle().skip(start).take(kept.len()) {
            progress.advance(Phase::Check, 0, 1);
            let Ok(number) = self.parts.index.layer_number(id) else { continue };
            let Some(number) = number else {
                strays.extend((now - files.newest_secs > STRAY_SECS_MIN).then_some(files));
                continue;
            };
            let (Some(whole), Ok(row)) = (files.whole_bytes, self.parts.index.layer(number)) else {
                continue;
            };
            let layer = LayerRef { id: *id, len: row.len };
            let cut = whole != row.len;
            if !cut && looked >= CACHE_BYTES_MAX {
                continue;
            }
            if cut || self.parts.cache.check(&layer).is_err() {
                wrong.push(Wrong { id: *id, number, layer });
            } else {
                looked += row.len;
            }
        }
        (looked, wrong, strays)
    }

    /// A wrong layer is dropped once a remote has proven to hold the right one.
    fn mend_layer(&self, wrong: &Wrong, files: &Kept, repair: bool) -> Check {
        let named = self.files_of(wrong.number);
        let what = format!("layer {} is not what its name says ({named})", wrong.id);
        if !self.is_proven_elsewhere(wrong) {
            let mend =
                "no remote proves to hold it: connect one that may, or write those files anew";
            return damaged("cache", what, mend);
        }
        if !repair {
            return damaged(
                "cache",
                what,
                "a remote holds it: `rdrivefs doctor --repair` drops it",
            );
        }
        let dropped = self.parts.cache.evict(&wrong.layer, &[0..wrong.layer.len]);
        match dropped.and_then(|_| files.remove()) {
            Ok(()) => mended("cache", format!("{what}; dropped, a remote has it")),
            Err(e) => damaged("cache", format!("{what}: {e}"), "look at that file"),
        }
    }

    fn is_proven_elsewhere(&self, wrong: &Wrong) -> bool {
        let holders = self.parts.index.holders(wrong.number).unwrap_or_default();
        let asked = [(wrong.number, wrong.layer)];
        let proves = |remote: &Arc<Remote>| {
            let proving = self.verifier.prove(remote, &asked, FRESH_CHALLENGES);
            holders.contains(&remote.number)
                && remote.condition().health == Health::Up
                && self.parts.runtime.block_on(proving).is_ok_and(|unproven| unproven.is_empty())
        };
        self.parts.remotes.all().iter().any(proves)
    }

    /// The files a layer belongs to, in words.
    fn files_of(&self, layer: LayerNumber) -> String {
        match self.names_in(&BTreeSet::from([layer])).as_slice() {
            [] => "no file's".into(),
            [one] => one.clone(),
            [first, rest @ ..] => format!("{first} and {} more", rest.len()),
        }
    }

    /// The files with bytes in some of these layers.
    fn names_in(&self, layers: &BTreeSet<LayerNumber>) -> Vec<String> {
        let mut names = Vec::new();
        // What cannot be walked is told by another check.
        drop(walk(&self.parts.tree, &DrivePath(b"/".to_vec()), &mut |found| {
            let mut chunks = Chunks::new();
            chunks_of(&found.row, &mut chunks);
            let within = chunks.keys().any(|layer| layers.contains(layer));
            names.extend(within.then(|| found.path.to_string()));
            Ok(())
        }));
        names
    }

    fn check_remotes(&self) -> Vec<Check> {
        let remotes = self.parts.remotes.all();
        if remotes.is_empty() {
            let mend = "add one: `rdrivefs remote add NAME URL`";
            return vec![warning("remotes", "there is none: this is the only copy", mend)];
        }
        let ask = |remote: &Arc<Remote>| {
            let asked = self
                .parts
                .runtime
                .block_on(async { tokio::time::timeout(ANSWER_WITHIN, remote.link.space()).await });
            let late = rdrivefs_remote::Error::TimedOut(ANSWER_WITHIN.as_millis() as u64);
            let space = self.parts.remotes.noted(remote, asked.unwrap_or(Err(late)));
            let name = format!("remote {}", remote.name);
            match space {
                Ok(space) => {
                    fine(&name, format!("answers: {} blobs, {} bytes", space.blobs, space.used))
                }
                Err(e) if e.is_transient() => {
                    warning(&name, e.to_string(), "see that the node runs and can be reached")
                }
                Err(e) => warning(&name, e.to_string(), "ask the node's keeper what changed there"),
            }
        };
        remotes.iter().map(ask).collect()
    }

    fn check_clock(&self) -> Check {
        const YEAR_2026_MS: u64 = 1_767_225_600_000;
        const MEND: &str = "set the clock: audits count only while times make sense";
        let now = self.parts.env.wall_ms().0;
        let newest = self.devices().unwrap_or_default().into_iter().filter_map(|d| d.head_ms).max();
        if now < YEAR_2026_MS {
            return warning("clock", "this computer's clock is years behind", MEND);
        }
        match newest {
            Some(newest) if newest > now + AHEAD_MS_MAX => {
                let minutes = (newest - now) / 60_000;
                let detail = format!("the newest commit is dated {minutes} minutes from now");
                warning("clock", detail, MEND)
            }
            _ => fine("clock", "plausible"),
        }
    }
}

impl Kept {
    fn remove(&self) -> Result<()> {
        self.files.iter().try_for_each(|file| crate::home::remove_file(file))
    }
}

fn files_check(files: &Files) -> Check {
    match &files.bad {
        None => fine("files", format!("{} are whole", files.count)),
        Some(why) => damaged("files", why.clone(), ANEW),
    }
}

fn mend_strays(strays: &[&Kept], repair: bool, aside: bool) -> Check {
    let bytes: u64 = strays.iter().map(|kept| kept.disk_bytes).sum();
    let what = format!("{} layers that no file needs take {bytes} bytes", strays.len());
    if aside {
        let mend = "the index that was set aside may need them: they stay as long as it does";
        return warning("cache", what, mend);
    }
    if !repair {
        return warning("cache", what, "`rdrivefs doctor --repair` removes them");
    }
    match strays.iter().try_for_each(|kept| kept.remove()) {
        Ok(()) => mended("cache", format!("{what}; removed")),
        Err(e) => warning("cache", format!("{what}: {e}"), "look at that directory"),
    }
}

fn fine(name: &str, detail: impl Into<String>) -> Check {
    check(name, CheckState::Fine, detail.into(), None)
}

fn mended(name: &str, detail: impl Into<String>) -> Check {
    check(name, CheckState::Mended, detail.into(), None)
}

fn warning(name: &str, detail: impl Into<String>, mend: &str) -> Check {
    check(name, CheckState::Warning, detail.into(), Some(mend))
}

fn damaged(name: &str, detail: impl Into<String>, mend: &str) -> Check {
    check(name, CheckState::Damaged, detail.into(), Some(mend))
}

fn check(name: &str, state: CheckState, detail: String, mend: Option<&str>) -> Check {
    Check { name: name.to_owned(), state, detail, mend: mend.map(str::to_owned) }
}
