//! The journal: the write-ahead log of everything the kernel was promised.
//!
//! [`Journal::append`] adds a record to the log, [`Journal::stage`] writes a stream's bytes to data
//! segments, [`Journal::append_naming`] adds a record that names such bytes, [`Journal::sync`]
//! confirms. What is confirmed is a prefix of the log with all the data it names, so a record that
//! names data which is not durable holds up everybody behind it: let a big stream be durable first
//! ([`Journal::flush`]), then append the record that names it, then sync.
//!
//! After a crash [`Journal::open`] gives back the records after the position applied elsewhere: all
//! that were confirmed, and as many more as are whole. A bad block beyond what is known confirmed
//! is a torn tail and is cut; one before it is damage, named and never cut.
//!
//! Byte layout; integers are little-endian. A *segment* is an append-only address space, one file
//! `log-NNNNNNNN-0000` or `data-NNNNNNNN-0000` (number in hex, never reused). After a failed sync
//! it carries on in a further *piece*, `…-0001`, from the first offset that was not durable; an
//! offset belongs to the last piece whose base is not beyond it, and lies in the file at
//! `offset - base + 128`. Names ending in `.new` are unfinished and removed.
//!
//! Piece header (128): magic `RDRVJRNL` ‖ version u16 = 1 ‖ suite u16 = 1 ‖ role u16 (1 log,
//! 2 data) ‖ generation u16 ‖ segment u32 ‖ zero u32 ‖ base u64 ‖ first u64 ‖ confirmed u64 ‖
//! link 24 ‖ salt 24 ‖ commitment 32. *First* is the position of the piece's first record,
//! *confirmed* the last position known confirmed then, *link* the nonce of the block before: the
//! piece with the highest number that follows a block is where the log goes on behind it. All three
//! are zero in data. Segment key ‖ unused commitment = BLAKE3 derive-key stream ("rdrivefs v1
//! journal segment", journal key ‖ salt ‖ role u16 ‖ segment u32); the commitment is the second
//! half of the same under "rdrivefs v1 journal piece" of segment key ‖ salt ‖ the 96 bytes before.
//!
//! Block: header (72) = len u32 ‖ kind u8 (1 record, 2 marker, 3 data) ‖ zero u8 ‖ runs u16 ‖
//! position u64 ‖ confirmed u64 ‖ link 24 ‖ nonce 24, then cipher (len) ‖ tag 16, by
//! XChaCha20-Poly1305 under the segment key with AAD header ‖ offset u64. A record is at most 64 KiB
//! and is followed, inside the cipher, by its runs (segment u32 ‖ start u64 ‖ end u64); a marker is
//! empty and tells what the last sync confirmed; data is 1 byte to 64 KiB of a stream.
//!
//! What a record means, and when it is applied, is the tree's business.

#[cfg(test)]
mod tests;
mod open;
mod replay;
mod survey;
mod streams;
mod cache;
mod log;
mod durable;
mod write;
mod segment;
mod piece;
mod header;
mod block;
mod space;
mod place;
pub mod fault;
pub mod disk;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use rdrivefs_remote::env::Env;

use crate::error::{Error, Posix, Result};
use crate::seal::Key;

use block::Kind;
use cache::Cache;
use disk::{Directory, Disk};
use header::Role;
use log::Log;
use place::Run;
use segment::{Joint, Segment};
use space::{Ground, lock};
use streams::Streams;
use write::{Entry, Grant};

pub use block::RUNS_MAX;
pub use place::{BLOCK_BYTES_MAX, Place, Position};
pub use replay::{Replay, Replayed};
pub use space::{RESERVE_BYTES_MIN, Settings};

/// Most bytes that are staged in one write: what a writer seals while others wait for no lock.
const STAGE_BYTES_MAX: u64 = 4 << 20;
/// Files that reading may hold open; then all are closed, to be opened again at need.
const FILES_MAX: usize = 128;
/// Unconfirmed records that name data; beyond it an append syncs first.
const NAMING_MAX: usize = 64 << 10;

/// The write-ahead log and the staged bytes that its records name. Safe to share.
///
/// Locks, in the order they are taken: streams; the log; the table of segments; a segment; the
/// cache. No file is synced under any of them, save when a segment is begun or rebuilt.
pub struct Journal {
    key: Key,
    env: Env,
    ground: Arc<Ground>,
    log: Mutex<Log>,
    streams: Mutex<Streams>,
    segments: RwLock<BTreeMap<u32, Arc<Segment>>>,
    cache: Mutex<Cache>,
    number: AtomicU32,
}

/// A record that was appended: not yet confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its number.
    pub position: Position,
    /// Where it lies: staged bytes inside it are read from there.
    pub place: Place,
}

/// The receipt for a sync: every record up to here, and all data they name, survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[must_use]
pub struct Confirmed(Position);

impl Confirmed {
    /// The last position it covers.
    pub fn position(self) -> Position {
        self.0
    }
}

/// Segments that nobody needs, and whose files are still there.
#[must_use = "their files take room until they are removed"]
pub struct Retired(Vec<Arc<Segment>>);

impl Journal {
    /// Opens the journal in a directory that exists, or begins one, and returns the records after
    /// `applied`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if something that was confirmed and is not applied cannot be read, naming
    /// segment and offset. Nothing was changed then.
    pub fn open(dir: &Path, key: &Key, env: &Env, applied: Position) -> Result<(Self, Replay)> {
        let disk = Directory::new(dir).map_err(Error::io("the journal's directory"))?;
        Self::open_on(Arc::new(disk), key, env, applied, Settings::default())
    }

    /// As [`Journal::open`], on a given disk with given bounds.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub fn open_on(
        disk: Arc<dyn Disk>,
        key: &Key,
        env: &Env,
        applied: Position,
        settings: Settings,
    ) -> Result<(Self, Replay)> {
        let block = block::SEALED_BYTES_MAX as u64 + header::FIRST;
        let least = settings.log_segment_bytes.min(settings.data_segment_bytes);
        assert!(least >= block, "a segment must have room for the largest block");
        let ground = Arc::new(Ground::new(disk, settings)?);
        let begun = open::begin(&ground, key, env, applied.0)?;
        ground.refill();
        let number = AtomicU32::new(begun.tail.number);
        let journal = Self {
            key: key.clone(),
            env: env.clone(),
            ground,
            log: Mutex::new(Log::new(begun.tail, begun.next)),
            streams: Mutex::default(),
            segments: RwLock::new(begun.segments),
            cache: Mutex::default(),
            number,
        };
        Ok((journal, Replay { records: begun.records.into_iter() }))
    }

    /// Appends a record of at most [`BLOCK_BYTES_MAX`] bytes that names no staged data.
    ///
    /// # Errors
    /// [`Posix::NoSpace`] when only the reserve is left; [`Posix::TooBig`]; [`Error::Io`]. Nothing
    /// was appended then, though after a crash a record whose write failed may be the last one.
    pub fn append(&self, record: &[u8]) -> Result<Appended> {
        self.append_with(record, &[], Grant::Common)
    }

    /// As [`Journal::append`], for a record that names staged data: it survives with that data or
    /// not at all. Neighbouring places should stand side by side; they make at most [`RUNS_MAX`]
    /// runs.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn append_naming(&self, record: &[u8], data: &[Place]) -> Result<Appended> {
        self.append_with(record, data, Grant::Common)
    }

    /// As [`Journal::append_naming`], for what makes room: deletes, seals, checkpoints. It may use
    /// the reserve.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn append_reserved(&self, record: &[u8], data: &[Place]) -> Result<Appended> {
        self.append_with(record, data, Grant::Reserve)
    }

    fn append_with(&self, record: &[u8], data: &[Place], grant: Grant) -> Result<Appended> {
        let runs = Run::join(data);
        if record.len() > BLOCK_BYTES_MAX || runs.len() > RUNS_MAX {
            return Err(Posix::TooBig.into());
        }
        let joined;
        let plain = if runs.is_empty() {
            record
        } else {
            joined = block::join(record, &runs);
            &joined
        };
        let nonce = self.env.random();
        let mut log = self.bounded_log()?;
        let kind = Kind::Record;
        let runs_len = u16::try_from(runs.len()).expect("at most 1024");
        let (position, confirmed) = (log.next, log.confirmed);
        let entry = Entry { kind, runs: runs_len, position, confirmed, nonce, plain };
        let place = loop {
            match log.segment.append(&entry, grant)? {
                Some(place) => break place,
                None => self.roll(&mut log, grant)?,
            }
        };
        for run in &runs {
            if let Some(segment) = self.segment(run.segment) {
                segment.named_at(position);
            }
        }
        let position = Position(log.appended(place.end(), runs));
        Ok(Appended { position, place })
    }

    /// The log, with what it has not confirmed within bounds.
    fn bounded_log(&self) -> Result<MutexGuard<'_, Log>> {
        let max = self.ground.settings.unsynced_bytes_max;
        let log = lock(&self.log);
        if log.segment.unsynced_bytes() < max && log.naming_len() < NAMING_MAX {
            return Ok(log);
        }
        let last = Position(log.last());
        drop(log);
        let _ = self.sync(last, &[])?;
        Ok(lock(&self.log))
    }

    /// Begins the next log segment. All of this one is durable before.
    fn roll(&self, log: &mut Log, grant: Grant) -> Result<()> {
        if grant == Grant::Common {
            self.ground.take(self.ground.settings.ahead_bytes)?;
        }
        // The next segment follows the end of this one: whatever becomes of this attempt, nothing
        // more may be appended here.
        log.segment.close();
        log.segment.flush(u64::MAX)?;
        let joint = log.segment.state().settled;
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let joint = Joint { confirmed: log.confirmed, ..joint };
        let next = Segment::create_log(&self.ground, &self.key, &self.env, number, joint)?;
        let next = Arc::new(next);
        self.table_mut().insert(number, next.clone());
        log.segment.let_files_go();
        log.roll(next);
        Ok(())
    }

    /// Writes a stream's bytes to data segments, in blocks of [`BLOCK_BYTES_MAX`] but for the last.
    /// `stream` is any number that stands for one writer's stream, such as the file's. The places
    /// must count as live from now on, and be named by a record.
    ///
    /// # Errors
    /// [`Posix::NoSpace`] when only the reserve is left; [`Error::Io`].
    pub fn stage(&self, stream: u64, data: &[u8]) -> Result<Vec<Place>> {
        let room = self.ground.settings.data_segment_bytes - header::FIRST;
        let blocks = (room.min(STAGE_BYTES_MAX) / (BLOCK_BYTES_MAX as u64 * 2)).max(1);
        let part = usize::try_from(blocks).expect("a part is small") * BLOCK_BYTES_MAX;
        let mut places = Vec::with_capacity(data.len().div_ceil(BLOCK_BYTES_MAX));
        for part in data.chunks(part) {
            let (mut bytes, mut full) = (part.len() as u64, None);
            loop {
                let segment = self.stream_segment((stream, bytes), full.as_ref())?;
                if let Some(mut staged) = segment.stage(&self.env, part)? {
                    places.append(&mut staged);
                    break;
                }
                bytes = 0;
                full = Some(segment);
                self.flush_behind();
            }
        }
        Ok(places)
    }

    /// Syncs the oldest of too many segments that nobody stages into any more. If it fails, the
    /// next one to need it tries again.
    fn flush_behind(&self) {
        let behind = lock(&self.streams).behind();
        if let Some(Err(error)) = behind.map(|segment| segment.flush(u64::MAX)) {
            tracing::warn!(%error, "a full data segment was not made durable");
        }
    }

    fn stream_segment(&self, of: (u64, u64), full: Option<&Arc<Segment>>) -> Result<Arc<Segment>> {
        let shared_bytes_max = self.ground.settings.shared_bytes_max;
        lock(&self.streams).segment(of, shared_bytes_max, full, || {
            let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
            let made = Segment::create_data(&self.ground, &self.key, &self.env, number)?;
            let made = Arc::new(made);
            self.table_mut().insert(number, made.clone());
            Ok(made)
        })
    }

    /// The stream has ended; its next bytes begin a new one.
    pub fn end_stream(&self, stream: u64) {
        lock(&self.streams).end(stream);
        self.flush_behind();
    }

    /// Nobody wants what came from the stream any more: only a record that names it makes it durable.
    pub fn drop_stream(&self, stream: u64) {
        lock(&self.streams).forget(stream);
    }

    /// Makes all that was staged in these segments durable, and nothing else.
    ///
    /// # Errors
    /// [`Error::Io`] if it is not, and could not be written anew.
    pub fn flush(&self, data: &[u32]) -> Result<()> {
        let segments = data.iter().filter_map(|number| self.segment(*number));
        segments.filter(|of| of.role == Role::Data).try_for_each(|segment| {
            segment.flush(u64::MAX)?;
            Ok(())
        })
    }

    /// Confirms every record up to `upto`, all data they name, and all that was staged in `data`.
    /// One sync of the log, and one of each data segment, serves all who wait.
    ///
    /// # Errors
    /// [`Error::Io`] if anything of it is not durable, and could not be written anew. It is not
    /// confirmed then, and will be only by a later sync that has written it anew.
    pub fn sync(&self, upto: Position, data: &[u32]) -> Result<Confirmed> {
        let (upto, runs) = {
            let log = lock(&self.log);
            let upto = upto.0.min(log.last());
            if log.confirmed >= upto && data.is_empty() {
                return Ok(Confirmed(Position(log.confirmed)));
            }
            (upto, log.named(upto))
        };
        self.flush(data)?;
        for run in runs {
            if let Some(segment) = self.segment(run.segment) {
                segment.flush(run.end)?;
            }
        }
        let (segment, end, durable) = {
            let log = lock(&self.log);
            let end = log.segment.state().end;
            (log.segment.clone(), end, log.durable)
        };
        let reached = if durable < upto { segment.flush(end)? } else { 0 };
        let mut log = lock(&self.log);
        log.reached(&segment, reached);
        let news = log.confirm(|run| {
            self.segment(run.segment).is_none_or(|segment| segment.durable() >= run.end)
        });
        assert!(log.confirmed >= upto, "what was synced is confirmed");
        if news {
            self.mark(&mut log);
        }
        Ok(Confirmed(Position(log.confirmed)))
    }

    /// Lets the log say what is confirmed. It is only news for a replay: a later record says it too.
    fn mark(&self, log: &mut Log) {
        let (position, confirmed) = (log.last(), log.confirmed);
        let nonce = self.env.random();
        let entry = Entry { kind: Kind::Marker, runs: 0, position, confirmed, nonce, plain: &[] };
        if let Err(error) = log.segment.append(&entry, Grant::Ahead) {
            tracing::warn!(%error, "a marker was not written");
        }
    }

    /// Bytes `range` of the block at `place`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if they are not the ones that were staged; [`Posix::Invalid`] for a range
    /// beyond the block.
    pub fn read(&self, place: Place, range: Range<u32>) -> Result<Vec<u8>> {
        let take = |plain: &[u8]| -> Result<Vec<u8>> {
            let bytes = plain.get(range.start as usize..range.end as usize);
            Ok(bytes.ok_or(Posix::Invalid)?.to_vec())
        };
        let cached = lock(&self.cache).get(place);
        if let Some(plain) = cached {
            return take(&plain);
        }
        let segment = self.segment(place.segment).ok_or_else(|| {
            Error::corrupt(header::place(place.segment, place.at), "the segment is gone")
        })?;
        let plain = Arc::new(segment.read(place)?.plain);
        lock(&self.cache).put(place, plain.clone());
        if self.ground.opened_files.load(Ordering::Relaxed) > FILES_MAX {
            self.ground.opened_files.store(0, Ordering::Relaxed);
            self.table().values().for_each(|segment| segment.let_files_go());
        }
        take(&plain)
    }

    /// Removes segments that nobody needs any more: no record after `applied` is in them or names
    /// them, `live` knows of no place in them, and nothing was staged there since the last call.
    /// Returns how many.
    ///
    /// # Errors
    /// [`Error::Io`] if a file could not be removed; it is no part of the journal any more.
    pub fn free(&self, applied: Position, live: impl Fn(u32) -> bool) -> Result<usize> {
        self.remove(self.retire(applied, live))
    }

    /// The first half of [`Journal::free`]: they are no part of the journal any more, and nothing
    /// was asked of the disk.
    pub fn retire(&self, applied: Position, live: impl Fn(u32) -> bool) -> Retired {
        let current = lock(&self.log).segment.number;
        let mut gone: Vec<_> = self.table().values().cloned().collect();
        gone.retain(|segment| {
            segment.number != current && !live(segment.number) && segment.retire(applied.0)
        });
        lock(&self.streams).forget_segments(&gone);
        for segment in &gone {
            self.table_mut().remove(&segment.number);
            lock(&self.cache).forget(segment.number);
        }
        Retired(gone)
    }

    /// The second half: removes their files.
    ///
    /// # Errors
    /// As [`Journal::free`].
    pub fn remove(&self, retired: Retired) -> Result<usize> {
        retired.0.iter().try_for_each(|segment| segment.remove())?;
        self.ground.refill();
        Ok(retired.0.len())
    }

    /// Sees to it that `bytes` are free on the disk, for what will make room; the reserve gives way
    /// to it, if `keep` bytes are left of it then.
    ///
    /// # Errors
    /// [`Posix::NoSpace`] when that is not enough; [`Error::Io`].
    pub fn ensure_free(&self, bytes: u64, keep: u64) -> Result<()> {
        self.ground.ensure_free(bytes, keep)
    }

    /// The last confirmed position.
    pub fn confirmed(&self) -> Position {
        Position(lock(&self.log).confirmed)
    }

    /// The last position that was given out.
    pub fn last(&self) -> Position {
        Position(lock(&self.log).last())
    }

    /// Bytes on disk.
    pub fn bytes_used(&self) -> u64 {
        self.table().values().map(|segment| segment.bytes_used()).sum()
    }

    /// Bytes that can still be written without the reserve: what a filesystem should show as free.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn available(&self) -> Result<u64> {
        self.ground.usable()
    }

    fn segment(&self, number: u32) -> Option<Arc<Segment>> {
        self.table().get(&number).cloned()
    }

    fn table(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<u32, Arc<Segment>>> {
        self.segments.read().expect("no thread may panic while it changes the journal")
    }

    fn table_mut(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<u32, Arc<Segment>>> {
        self.segments.write().expect("no thread may panic while it changes the journal")
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Journal(confirmed {})", lock(&self.log).confirmed)
    }
}
