//! Sealing: from the journal's plain promises to closed layers.
//!
//! The changed stretches of a file are cut, looked up in the drive's dedup table, and what is new
//! is pushed into the open layer, which seals, opens and compares. A file's content counts as
//! sealed when every layer it lies in is closed.
//!
//! Must: a layer is durable in the cache, then in the index, and only then do files refer to it
//! and journal segments go. A crash in between leaves a layer nobody refers to, never a reference
//! to nothing.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdrivefs_remote::env::{Env, Instant};
use rdrivefs_remote::foreground::{PIECE_BYTES, breathe};
use rdrivefs_remote::identity::DriveId;
use rdrivefs_remote::member::EpochId;
use rdrivefs_remote::proof::Outboard;

use crate::cache::Cache;
use crate::chunk::{self, ChunkId, Cutter};
use crate::content::Contents;
use crate::error::Result;
use crate::gc;
use crate::id::Ino;
use crate::index::Index;
use crate::index::layers::{ChunkPlace, LayerNumber, LayerSecret};
use crate::keyring::Keyring;
use crate::keys::Epoch;
use crate::layer::{LayerBuilder, Sealed};
use crate::progress::Progress;
use crate::report::Phase;
use crate::seal::Key;
use crate::tree::{NewContent, SealJob, Tree};

/// A run of changed bytes shorter than this inside a file becomes one small chunk of its own.
const RUN_BYTES_CUT: u64 = chunk::MIN_BYTES as u64;

/// Bytes of a run in memory at once: two of the longest chunks, so that little is moved twice.
const WINDOW_BYTES: u64 = 2 * chunk::MAX_BYTES as u64;

/// What names in folders may take beside a layer.
const FOLDER_BYTES: u64 = 64 << 10;

/// The least pause between two collections, each of which reads every file's row.
const COLLECT_EVERY: Duration = Duration::from_secs(3);

/// How many times as long as a collection took nobody is held up by the next.
const COLLECT_REST: u32 = 20;

/// How long a file that could not be read is left alone.
const UNREAD_REST: Duration = Duration::from_secs(60);

/// What a sealing round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SealedSum {
    /// Files sealed.
    pub files: u64,
    /// Plain bytes looked at.
    pub bytes: u64,
    /// Of these, bytes the drive had already.
    pub known_bytes: u64,
    /// Layers closed.
    pub layers: u64,
    /// Files that could not be sealed, since their bytes in the journal are damaged.
    pub unread: u64,
}

/// Seals files into layers. Lock: `open` is held for a whole round, so there is one sealer.
pub struct Sealer {
    env: Env,
    drive: DriveId,
    keyring: Arc<Keyring>,
    cutter: Cutter,
    index: Arc<Index>,
    cache: Arc<Cache>,
    contents: Arc<Contents>,
    tree: Arc<Tree>,
    /// The cache lies on another disk than the journal.
    elsewhere: bool,
    open: Mutex<Assembly>,
}

/// The open layer and what waits for it.
struct Assembly {
    /// The epoch this round seals in.
    epoch: EpochId,
    /// What names chunks in it.
    dedup: Key,
    builder: Option<LayerBuilder>,
    ids: Vec<ChunkId>,
    numbers: HashMap<ChunkId, u32>,
    /// Files sealed but for the closing of the open layer, and their pieces in it.
    waiting: Vec<(SealJob, Vec<Piece>)>,
    sum: SealedSum,
    /// Files that could not be read, and when that was.
    resting: HashMap<Ino, Instant>,
    /// When layers may be collected again.
    collect_due: Option<Instant>,
}

/// A stretch of a file and the chunk that holds it.
struct Piece {
    range: Range<u64>,
    place: Place,
}

#[derive(Clone, Copy)]
enum Place {
    Open(u32),
    Closed(ChunkPlace),
}

impl Sealer {
    /// A sealer over these parts.
    pub fn new(
        env: Env,
        keyring: Arc<Keyring>,
        index: Arc<Index>,
        contents: Arc<Contents>,
        tree: Arc<Tree>,
        elsewhere: bool,
    ) -> Self {
        let (secrets, open) = (keyring.secrets(), Mutex::new(Assembly::begun(&keyring)));
        Self {
            env,
            drive: secrets.drive(),
            keyring,
            cutter: Cutter::new(&secrets.chunker),
            index,
            cache: contents.cache().clone(),
            contents,
            tree,
            elsewhere,
            open,
        }
    }

    /// Seals every file that is ripe, or with `all` every file with unsealed content, and closes
    /// the open layer at the end. A file that cannot be read holds up no other.
    ///
    /// # Errors
    /// Of the journal, the cache or the index; what was not finished stays in the journal.
    pub fn round(&self, all: bool, progress: &Progress) -> Result<SealedSum> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.sum = SealedSum::default();
        // Every round closes its layers, so none is of two epochs.
        open.enter(self.keyring.secrets().epoch());
        let result = self.seal_ripe(&mut open, all, progress);
        let closed = self.close(&mut open);
        result.and(closed)?;
        Ok(open.sum)
    }

    /// Removes layers of files that died before anybody was told of them; returns the disk bytes
    /// freed. For when room is short.
    ///
    /// # Errors
    /// Of the index or the disk; nothing is removed then.
    pub fn collect(&self) -> Result<u64> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.env.instant();
        if open.collect_due.is_some_and(|due| now < due) {
            return Ok(0);
        }
        let freed = gc::collect(&self.index, &self.cache, &self.tree);
        let end = self.env.instant();
        let rest = COLLECT_EVERY.max(end.since(now) * COLLECT_REST);
        let rest = u64::try_from(rest.as_nanos()).unwrap_or(u64::MAX);
        open.collect_due = Some(Instant(end.0.saturating_add(rest)));
        freed
    }

    fn seal_ripe(&self, open: &mut Assembly, all: bool, progress: &Progress) -> Result<()> {
        let ripe = self.tree.ripe(self.env.instant(), all, usize::MAX);
        progress.expect(Phase::Seal, 0, ripe.len() as u64);
        for ino in ripe {
            progress.check()?;
            let now = self.env.instant();
            if !all && open.resting.get(&ino).is_some_and(|since| now.since(*since) < UNREAD_REST) {
                continue;
            }
            let Some(mut job) = self.tree.sealable(ino)? else { continue };
            job.streaming &= !all;
            let bytes = job.bytes();
            match self.seal_file(job, open) {
                // What of it is elsewhere may be damaged, or out of reach.
                Err(e) if e.is_corrupt() || e.is_transient() => {
                    tracing::error!(?ino, error = %e, "a file cannot be sealed");
                    open.sum.unread += 1;
                    open.resting.insert(ino, now);
                }
                sealed => {
                    sealed?;
                    open.resting.remove(&ino);
                }
            }
            if open.builder.as_ref().is_some_and(LayerBuilder::is_full) {
                self.close(open)?;
            }
            progress.advance(Phase::Seal, bytes, 1);
        }
        Ok(())
    }

    fn seal_file(&self, mut job: SealJob, open: &mut Assembly) -> Result<()> {
        open.sum.files += 1;
        if job.fits_inline() {
            let bytes = self.tree.read_sealing(&job, 0..job.size)?;
            self.tree.seal_done(&mut job, NewContent::Inline(bytes));
            return Ok(());
        }
        let mut pieces = Vec::new();
        for run in job.runs.clone() {
            // What comes between is still on its way, and a cut in the middle would be nobody's.
            if job.streaming && run.start > 0 && job.is_hole(run.start - 1) {
                continue;
            }
            self.seal_run(&mut job, run, open, &mut pieces)?;
        }
        if open.builder.as_ref().is_none_or(LayerBuilder::is_empty) {
            self.done(&mut job, &mut pieces, None);
        } else {
            open.waiting.push((job, pieces));
        }
        Ok(())
    }

    /// Reads a run through a window and cuts as it goes.
    fn seal_run(
        &self,
        job: &mut SealJob,
        run: Range<u64>,
        open: &mut Assembly,
        pieces: &mut Vec<Piece>,
    ) -> Result<()> {
        let mut window = Vec::new();
        let mut skip = 0;
        let mut at = run.start;
        while at < run.end {
            let read = at + (window.len() - skip) as u64;
            if window.len() - skip < chunk::MAX_BYTES && read < run.end {
                window.drain(..skip);
                skip = 0;
                let end = (at + WINDOW_BYTES).min(run.end);
                window.reserve((end - read) as usize);
                for start in (read..end).step_by(PIECE_BYTES) {
                    let piece = start..end.min(start + PIECE_BYTES as u64);
                    window.extend_from_slice(&self.tree.read_sealing(job, piece)?);
                    breathe();
                }
            }
            let rest = &window[skip..];
            let last = at + rest.len() as u64 == run.end;
            let tail = last && job.streaming && job.is_hole(run.end);
            let Some(len) = self.next_cut(rest, last && !tail) else { break };
            if !open.fits(len) {
                self.close_early(job, open, pieces)?;
            }
            let place = self.place(at, &rest[..len], open)?;
            pieces.push(Piece { range: at..at + len as u64, place });
            skip += len;
            at += len as u64;
            if open.builder.as_ref().is_some_and(LayerBuilder::is_full) {
                self.close_early(job, open, pieces)?;
            }
        }
        Ok(())
    }

    /// The length of the first chunk of `rest`; none when that depends on what is to come.
    fn next_cut(&self, rest: &[u8], last: bool) -> Option<usize> {
        if last && (rest.len() as u64) < RUN_BYTES_CUT {
            return Some(rest.len());
        }
        self.cutter.cut(rest, last)
    }

    /// The chunk with these bytes, which the file has at `at`: one the drive has, or a new one in the
    /// open layer.
    fn place(&self, at: u64, plain: &[u8], open: &mut Assembly) -> Result<Place> {
        let id = ChunkId::of(&open.dedup, plain);
        open.sum.bytes += plain.len() as u64;
        if let Some(number) = open.numbers.get(&id) {
            open.sum.known_bytes += plain.len() as u64;
            return Ok(Place::Open(*number));
        }
        // What the table says is looked at before the journal's copy goes on its word.
        if let Some(place) = self.index.chunk(&id)?
            && self.contents.has(place, plain)?
        {
            open.sum.known_bytes += plain.len() as u64;
            return Ok(Place::Closed(place));
        }
        let Assembly { epoch, dedup, builder, ids, numbers, .. } = open;
        let new = || LayerBuilder::new(self.drive.0, epoch.0, dedup, &self.env);
        let number = builder.get_or_insert_with(new).push(id, at, plain);
        ids.push(id);
        numbers.insert(id, number);
        Ok(Place::Open(number))
    }

    /// Closes the open layer in the middle of a file, whose pieces so far lie in it or in earlier
    /// ones, so that the journal is rid of them.
    fn close_early(
        &self,
        job: &mut SealJob,
        open: &mut Assembly,
        pieces: &mut Vec<Piece>,
    ) -> Result<()> {
        let layer = self.close(open)?;
        self.done(job, pieces, layer);
        Ok(())
    }

    /// Closes the open layer: the cache, then the index, then the files that waited for it.
    fn close(&self, open: &mut Assembly) -> Result<Option<LayerNumber>> {
        let Some(builder) = open.builder.take().filter(|b| !b.is_empty()) else {
            return Ok(None);
        };
        let ids = std::mem::take(&mut open.ids);
        open.numbers.clear();
        // Whatever fails below, no file may wait for a layer that is not to be.
        let waiting = std::mem::take(&mut open.waiting);
        let sealed = builder.close()?;
        self.keep(&sealed)?;
        let secret = LayerSecret::of(&sealed, open.epoch.0);
        let layer =
            self.index.add_layer(sealed.id, sealed.bytes.len() as u64, &secret, &ids, false)?;
        open.sum.layers += 1;
        for (mut job, mut pieces) in waiting {
            self.done(&mut job, &mut pieces, Some(layer));
        }
        Ok(Some(layer))
    }

    /// Keeps a layer. On a full disk the reserve makes way for it, and if that is not enough, the
    /// journal of what was sealed before.
    fn keep(&self, sealed: &Sealed) -> Result<()> {
        let outboard = Outboard::encoded_len(sealed.bytes.len() as u64);
        let bytes = sealed.bytes.len() as u64 + outboard + FOLDER_BYTES;
        // Another disk is filled for itself, and the cache says when.
        if self.elsewhere {
            return self.cache.keep(sealed.id, &sealed.bytes, &sealed.outboard);
        }
        if self.tree.ensure_room(bytes).is_err() {
            self.tree.checkpoint()?;
            self.tree.ensure_room(bytes)?;
        }
        self.cache.keep(sealed.id, &sealed.bytes, &sealed.outboard)
    }

    fn done(&self, job: &mut SealJob, pieces: &mut Vec<Piece>, layer: Option<LayerNumber>) {
        let chunks = pieces.drain(..).map(|piece| (piece.range, piece.place.closed(layer)));
        self.tree.seal_done(job, NewContent::Chunks(chunks.collect()));
    }
}

impl Assembly {
    fn begun(keyring: &Keyring) -> Self {
        let secrets = keyring.secrets();
        Self {
            epoch: secrets.epoch().id(),
            dedup: secrets.epoch().dedup_key(),
            builder: None,
            ids: Vec::new(),
            numbers: HashMap::new(),
            waiting: Vec::new(),
            sum: SealedSum::default(),
            resting: HashMap::new(),
            collect_due: None,
        }
    }

    /// Seals in this epoch from now on; no layer is open.
    fn enter(&mut self, epoch: &Epoch) {
        if self.epoch != epoch.id() {
            (self.epoch, self.dedup) = (epoch.id(), epoch.dedup_key());
        }
    }

    /// Whether a chunk of this length has room in the open layer.
    fn fits(&self, len: usize) -> bool {
        self.builder.as_ref().is_none_or(|builder| builder.fits(len))
    }
}

impl Place {
    fn closed(self, layer: Option<LayerNumber>) -> ChunkPlace {
        match self {
            Self::Closed(place) => place,
            Self::Open(number) => {
                let layer = layer.expect("a chunk in the open layer means there is one to close");
                ChunkPlace { layer, number }
            }
        }
    }
}
