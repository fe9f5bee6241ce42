//! The spare: a second copy of the index, for the day on which the first is lost or damaged.
//!
//! What the index alone knows (keys of layers no commit names yet, what is still to be told, times,
//! marks, numbers given out) can be had from nowhere else, and the journal is freed behind it. So
//! before that, whatever was committed is carried over: SQLite's log is append-only between two
//! times that it is written back, and its frames are appended to a log of the spare's. When the
//! index begins its log anew, the spare's is written back too. So the spare is the index as of one
//! of its commits, page for page.
//!
//! It may fail at any time without harm: then there is none until it is copied anew. One that does
//! not follow any more is removed at once: it lacks what others were told since, and in the place
//! of the index it would say that again, otherwise. On a disk with little room there is none: what
//! it takes is worth more to those who write.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::home::DiskSpace;
use crate::index::wal::{
    APPLIED, KEY_CHECK, LAMPORT, TURN, frames, number, with_ending, write_back,
};

/// With less than this free beside what it is to take there is no spare.
const FREE_BYTES_MIN: u64 = 160 << 20;

/// How many asks for one pass until a spare is tried again that could not be made.
const TRIES_EVERY: u32 = 24;

/// SQLite's log: the header, and the header of a frame before its page.
const LOG_HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: u64 = 24;

/// The head of a database, which says how often it changed in some ways.
const HEAD_BYTES: usize = 100;

const PAGE_BYTES: u64 = 4096;
const STEP_BYTES: usize = 1 << 20;

/// Carries the index over.
pub(super) struct Spare {
    dir: PathBuf,
    /// The database. Held open: who closes any handle to it lets go of SQLite's locks on it.
    base: File,
    /// SQLite's log of it.
    log: PathBuf,
    /// The end of what was committed and not written back, in bytes of that log.
    committed: AtomicU64,
    /// How often that log was written back.
    log_number: AtomicU64,
    /// A spare is being made, which may take minutes: nobody waits for it.
    making: AtomicBool,
    /// SQLite's log was written back meanwhile, so what is made is not the index any more.
    overtaken: AtomicBool,
    /// Taken after the connection's lock, if both are; held while SQLite's log is written back.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The spare is the index as of an earlier commit; what came since is in SQLite's log.
    follows: bool,
    /// The header of the log that is being carried over.
    header: [u8; LOG_HEADER_BYTES],
    /// How far.
    carried: u64,
    /// All of that log was carried over and written back in the index.
    ended: bool,
    file: Option<File>,
    unsynced: bool,
    /// Passes until it is tried again.
    pause: u32,
}

impl Spare {
    /// The spare in `dir` of the index in `path`, whose log ends at that frame.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the spare is newer; when the index cannot be read.
    pub(super) fn open(dir: &Path, path: &Path, db: &Connection, frames: u64) -> Result<Self> {
        let base = File::open(path).map_err(Error::io(format!("open {}", path.display())))?;
        let spare = Self {
            dir: dir.to_owned(),
            base,
            log: with_ending(path, "-wal"),
            committed: AtomicU64::new(end_of(frames)),
            log_number: AtomicU64::new(0),
            making: AtomicBool::new(false),
            overtaken: AtomicBool::new(false),
            state: Mutex::default(),
        };
        let found = spare.find(db).unwrap_or_else(|error| {
            tracing::debug!(%error, "the spare of the index is not used");
            Some(State::default())
        });
        let why = "its spare is newer, so it went back in time";
        let what = || format!("the index {}", path.display());
        let state = found.ok_or_else(|| Error::corrupt(what(), why))?;
        if !state.follows {
            spare.discard();
        }
        *spare.lock() = state;
        Ok(spare)
    }

    /// What was committed ends at that frame; none when all of it was written back.
    pub(super) fn committed(&self, frames: u64) {
        self.committed.store(end_of(frames), Ordering::Release);
    }

    /// Where what was committed until now ends.
    pub(super) fn mark(&self) -> Mark {
        // In this order, so that the end is never that of an earlier log.
        let log_number = self.log_number.load(Ordering::Acquire);
        Mark { log_number, end: self.committed.load(Ordering::Acquire) }
    }

    /// Carries over, durably, what was committed up to there and is durable. Must: the spare is never
    /// ahead of what the index would be after a loss of power, nor behind what others were told.
    pub(super) fn carry(&self, mark: Mark) {
        let Some(mut state) = self.lock_unless_making() else { return };
        // Else all of that log was carried over and written back meanwhile.
        if mark.log_number == self.log_number.load(Ordering::Acquire) {
            self.carried(&mut state, mark.end);
        }
        self.sync(&mut state);
    }

    /// Carries over all of a log that is durable and about to be written back; nothing more is
    /// carried until that is done.
    pub(super) fn hold(&self) -> Held<'_> {
        let mut state = self.lock_unless_making();
        match &mut state {
            Some(state) => self.carried(state, self.committed.load(Ordering::Acquire)),
            None => self.overtaken.store(true, Ordering::SeqCst),
        }
        Held { spare: self, state }
    }

    /// Makes durable what was carried over, and makes a spare where there is none.
    pub(super) fn settle(&self) {
        let mut state = self.lock();
        self.notice(&mut state);
        if !state.follows {
            state.pause = state.pause.saturating_sub(1);
            if state.pause > 0 {
                return;
            }
            state.pause = TRIES_EVERY;
            self.making.store(true, Ordering::SeqCst);
            let made = self.renew(&mut state);
            self.making.store(false, Ordering::SeqCst);
            if let Err(error) = made {
                tracing::warn!(%error, "there is no spare of the index");
                drop(self.remove_new());
                return;
            }
            self.notice(&mut state);
        }
        self.sync(&mut state);
    }

    fn sync(&self, state: &mut State) {
        if std::mem::take(&mut state.unsynced) {
            let synced = state.file.as_ref().map_or(Ok(()), File::sync_data);
            synced.unwrap_or_else(|error| self.give_up(state, &Error::io("sync it")(error)));
        }
    }

    /// Gives up what the index went on without.
    fn notice(&self, state: &mut State) {
        if self.overtaken.swap(false, Ordering::SeqCst) && state.follows {
            self.give_up(state, &overtaken());
        }
    }

    fn carried(&self, state: &mut State, end: u64) {
        self.notice(state);
        if state.follows
            && end > 0
            && (state.ended || end > state.carried)
            && let Err(error) = self.try_carry(state, end)
        {
            self.give_up(state, &error);
        }
    }

    /// The room it takes is of use to others at once.
    fn give_up(&self, state: &mut State, error: &Error) {
        tracing::warn!(%error, "the spare of the index is given up for now");
        *state = State { pause: TRIES_EVERY, ..State::default() };
        self.discard();
    }

    /// Removes the spare. The database goes first: without its log it would be an older one.
    fn discard(&self) {
        drop(fs::remove_file(self.spare()));
        drop(File::open(&self.dir).and_then(|dir| dir.sync_all()));
        for ending in ["-wal", "-shm"] {
            drop(fs::remove_file(with_ending(&self.spare(), ending)));
        }
    }

    /// Removes what is left of one that was being made.
    fn remove_new(&self) -> Result<()> {
        let remove = |ending| crate::home::remove_file(&with_ending(&self.begun(), ending));
        ["", "-wal", "-shm"].into_iter().try_for_each(remove)
    }

    fn try_carry(&self, state: &mut State, end: u64) -> Result<()> {
        self.check_room(end)?;
        let io = |what: &'static str| Error::io(what);
        let log = File::open(&self.log).map_err(io("open the index's log"))?;
        let mut header = [0; LOG_HEADER_BYTES];
        log.read_exact_at(&mut header, 0).map_err(io("read the index's log"))?;
        if let Some(file) = state.file.as_ref().filter(|_| header == state.header) {
            copy(&log, file, state.carried..end)?;
        } else {
            self.fold(state)?;
            // All of it at once: a part would be older than what was written back already, where
            // the spare was made in the middle of this log.
            let begun = with_ending(&self.spare_log(), "~");
            let file = create(&begun)?;
            copy(&log, &file, 0..end)?;
            file.sync_data().map_err(io("sync the spare's log"))?;
            fs::rename(&begun, self.spare_log())
                .and_then(|()| File::open(&self.dir)?.sync_all())
                .map_err(io("name the spare's log"))?;
            (state.header, state.file, state.ended) = (header, Some(file), false);
        }
        (state.carried, state.unsynced) = (end, true);
        Ok(())
    }

    /// Writes the spare's log back.
    fn fold(&self, state: &mut State) -> Result<()> {
        let carried = std::mem::take(&mut state.carried);
        if state.file.take().is_none() {
            return Ok(());
        }
        let db = Connection::open(self.spare())?;
        let frames = frames(&db)?.0;
        if end_of(frames) != carried {
            return Err(Error::corrupt("the spare's log", "it ends too early"));
        }
        write_back(&db, "TRUNCATE")?;
        Ok(())
    }

    /// Whether what lies there is this index as of an earlier commit; none when it is newer.
    fn find(&self, db: &Connection) -> Result<Option<State>> {
        let mut state = State::default();
        if !self.spare().exists() {
            return Ok(Some(state));
        }
        if let Some(found) = self.find_log()? {
            return Ok(Some(found));
        }
        // Its log belongs to one that was written back.
        let spare = Connection::open(self.spare())?;
        write_back(&spare, "TRUNCATE")?;
        if number(&spare, KEY_CHECK)? != number(db, KEY_CHECK)? {
            return Ok(Some(state));
        }
        let same_turn = number(&spare, TURN)? == number(db, TURN)?;
        for counted in [APPLIED, LAMPORT] {
            if number(&spare, counted)? > number(db, counted)? {
                return Ok(None);
            }
        }
        drop(spare);
        let io = |what: &'static str| Error::io(what);
        let file = File::open(self.spare()).map_err(io("open the spare"))?;
        let mut heads = [[0; HEAD_BYTES]; 2];
        for (file, head) in [&file, &self.base].into_iter().zip(&mut heads) {
            file.read_exact_at(head, 0).map_err(io("read the head of an index"))?;
        }
        let bytes = |file: &File| file.metadata().map(|meta| meta.len());
        let same_length = bytes(&file).map_err(io("look at the spare"))?
            == bytes(&self.base).map_err(io("look at the index"))?;
        state.follows = same_turn && same_length && heads[0] == heads[1];
        Ok(Some(state))
    }

    /// Goes on with a log that is the beginning of the index's.
    fn find_log(&self) -> Result<Option<State>> {
        let io = |what: &'static str| Error::io(what);
        let (Ok(log), Ok(file)) = (
            File::open(&self.log),
            OpenOptions::new().read(true).write(true).open(self.spare_log()),
        ) else {
            return Ok(None);
        };
        let mut headers = [[0; LOG_HEADER_BYTES]; 2];
        for (file, header) in [&log, &file].into_iter().zip(&mut headers) {
            if file.read_exact_at(header, 0).is_err() {
                return Ok(None);
            }
        }
        if headers[0] != headers[1] {
            return Ok(None);
        }
        let len = file.metadata().map_err(io("look at the spare's log"))?.len();
        let frame = FRAME_HEADER_BYTES + PAGE_BYTES;
        let carried = end_of((len - LOG_HEADER_BYTES as u64) / frame);
        let mut state = State { follows: true, header: headers[0], ..State::default() };
        // Else one of them has what the other lost.
        let whole = carried > 0 && carried <= self.committed.load(Ordering::Acquire);
        if !whole || !same(&log, &file, carried).map_err(io("compare the logs"))? {
            return Ok(None);
        }
        (state.carried, state.file) = (carried, Some(file));
        Ok(Some(state))
    }

    /// Copies the index as it is. The caller keeps its log from being written back.
    fn renew(&self, state: &mut State) -> Result<()> {
        let io = |what: &'static str| Error::io(what);
        let len = self.base.metadata().map_err(io("look at the index"))?.len();
        let end = self.committed.load(Ordering::Acquire);
        crate::home::make_directory(&self.dir)?;
        self.remove_new()?;
        self.check_room(2 * (len + end))?;
        let new = self.begun();
        let new_log = with_ending(&new, "-wal");
        let file = create(&new)?;
        copy(&self.base, &file, 0..len)?;
        file.sync_data().map_err(io("sync the spare"))?;
        drop(file);
        if end > 0 {
            let log = File::open(&self.log).map_err(io("open the index's log"))?;
            log.sync_data().map_err(io("sync the index's log"))?;
            copy(&log, &create(&new_log)?, 0..end)?;
        }
        let db = Connection::open(&new)?;
        if end > 0 && end_of(frames(&db)?.0) != end {
            return Err(Error::corrupt("the index", "its log ends too early"));
        }
        write_back(&db, "TRUNCATE")?;
        let told: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if told != "ok" {
            return Err(Error::corrupt("the index", told));
        }
        db.close().map_err(|(_, e)| e)?;
        if self.overtaken.load(Ordering::SeqCst) {
            return Err(overtaken());
        }
        self.discard();
        fs::rename(&new, self.spare()).map_err(io("name the spare"))?;
        File::open(&self.dir)
            .and_then(|dir| dir.sync_all())
            .map_err(io("sync the spare's name"))?;
        *state = State { follows: true, carried: end, ..State::default() };
        Ok(())
    }

    fn check_room(&self, bytes: u64) -> Result<()> {
        match DiskSpace::under(&self.dir)?.free_bytes >= FREE_BYTES_MIN + bytes {
            true => Ok(()),
            false => Err(crate::error::Posix::NoSpace.into()),
        }
    }

    fn spare(&self) -> PathBuf {
        self.dir.join("index")
    }

    fn spare_log(&self) -> PathBuf {
        with_ending(&self.spare(), "-wal")
    }

    fn begun(&self) -> PathBuf {
        with_ending(&self.spare(), ".new")
    }

    fn lock_unless_making(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::WouldBlock) if self.making.load(Ordering::SeqCst) => None,
            Err(_) => Some(self.lock()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in SQLite's log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    /// How often the log was written back before.
    log_number: u64,
    end: u64,
}

/// Nothing is carried over while this lives.
pub(super) struct Held<'a> {
    spare: &'a Spare,
    state: Option<MutexGuard<'a, State>>,
}

impl Held<'_> {
    /// SQLite's log was written back.
    pub(super) fn written_back(mut self) {
        if let Some(state) = &mut self.state {
            state.ended = true;
        }
        self.spare.committed(0);
        self.spare.log_number.fetch_add(1, Ordering::Release);
    }
}

fn end_of(frames: u64) -> u64 {
    match frames {
        0 => 0,
        n => LOG_HEADER_BYTES as u64 + n * (FRAME_HEADER_BYTES + PAGE_BYTES),
    }
}

fn overtaken() -> Error {
    Error::corrupt("the spare of the index", "the index's log was written back while it was made")
}

fn create(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true).mode(0o600);
    options.open(path).map_err(Error::io(format!("make {}", path.display())))
}

fn copy(from: &File, to: &File, range: std::ops::Range<u64>) -> Result<()> {
    let mut bytes = vec![0; STEP_BYTES.min((range.end - range.start) as usize)];
    let mut at = range.start;
    while at < range.end {
        let n = bytes.len().min((range.end - at) as usize);
        from.read_exact_at(&mut bytes[..n], at)
            .and_then(|()| to.write_all_at(&bytes[..n], at))
            .map_err(Error::io("copy the index"))?;
        at += n as u64;
    }
    Ok(())
}

/// Whether two files begin with the same bytes.
fn same(one: &File, other: &File, len: u64) -> std::io::Result<bool> {
    let mut bytes = [vec![0; STEP_BYTES], vec![0; STEP_BYTES]];
    for at in (0..len).step_by(STEP_BYTES) {
        let n = STEP_BYTES.min((len - at) as usize);
        let [first, second] = &mut bytes;
        one.read_exact_at(&mut first[..n], at)?;
        other.read_exact_at(&mut second[..n], at)?;
        if first[..n] != second[..n] {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use rdrivefs_remote::env::Env;
    use tempfile::TempDir;

    use super::*;
    use crate::id::Ino;
    use crate::index::Index;
    use crate::seal::Key;

    fn open(dir: &TempDir) -> Index {
        let path = dir.path().join("index");
        let mut index = Index::open(&path, &Key::from([7; 32]), Env::real()).unwrap();
        index.keep_spare(&dir.path().join("spare")).unwrap();
        index
    }

    fn follows(index: &Index) -> bool {
        index.spare.as_ref().unwrap().lock().follows
    }

    /// All files as a kill of the process would leave them.
    fn killed(dir: &TempDir) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        fs::create_dir(copy.path().join("spare")).unwrap();
        for name in ["index", "index-wal", "spare/index", "spare/index-wal"] {
            let from = dir.path().join(name);
            if from.exists() {
                fs::copy(from, copy.path().join(name)).unwrap();
            }
        }
        copy
    }

    /// What an index holds.
    fn content(path: &Path) -> (Option<i64>, Vec<u8>) {
        let db = Connection::open(path).unwrap();
        let whole: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok");
        let mut hasher = blake3::Hasher::new();
        let mut query = db.prepare("SELECT ino, row FROM node ORDER BY ino").unwrap();
        let mut rows = query.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            hasher.update(&row.get::<_, i64>(0).unwrap().to_le_bytes());
            hasher.update(&row.get::<_, Vec<u8>>(1).unwrap());
        }
        (number(&db, TURN).unwrap(), hasher.finalize().as_bytes().to_vec())
    }

    fn assert_same(dir: &TempDir, when: &str) {
        let copy = killed(dir);
        let [index, spare] = ["index", "spare/index"].map(|name| content(&copy.path().join(name)));
        assert!(index == spare, "{when}: the spare is the index");
    }

    fn write(index: &Index, round: u64) {
        for n in 0..10 {
            let row = vec![u8::try_from(round).unwrap(); 100_000];
            index.set_node(Ino((round % 30 * 10 + n) << 8), &row).unwrap();
        }
        index.commit().unwrap();
    }

    #[test]
    fn a_spare_is_the_index_however_its_log_is_written_back_and_it_ends() {
        let mut dir = tempfile::tempdir().unwrap();
        let mut index = open(&dir);
        write(&index, 0);
        index.settle_spare();
        assert_same(&dir, "just made");
        let made = |dir: &TempDir| {
            fs::metadata(dir.path().join("spare/index")).map_or(0, |meta| meta.ino())
        };
        let mut first = made(&dir);
        for round in 1..75 {
            write(&index, round);
            // Sometimes nothing is carried over between two times that the log is written back.
            let carried_late = (40..60).contains(&round);
            if !carried_late {
                index.make_durable().unwrap();
                assert_same(&dir, &format!("round {round}"));
            }
            if round % 9 == 4 {
                index.settle_spare();
            }
            if round % 11 == 7 {
                let copy = killed(&dir);
                drop(index);
                (dir, first) = (copy, 0);
                index = open(&dir);
                // With a log begun of which nothing was carried over it is made anew.
                assert!(follows(&index) || carried_late, "killed in round {round}");
                first = first.max(made(&dir));
            } else if round % 11 == 2 {
                drop(index);
                index = open(&dir);
                assert!(follows(&index) || carried_late, "closed in round {round}");
            }
            if carried_late {
                first = made(&dir);
            }
            assert_eq!(made(&dir), first, "it is not copied anew");
        }
    }

    #[test]
    fn an_index_that_went_back_in_time_is_told_by_its_spare_and_leaves_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let index = open(&dir);
        let stand = |index: &Index, at: i64| {
            index.set_number(APPLIED, at).unwrap();
            write(index, at.cast_unsigned());
        };
        stand(&index, 1);
        index.checkpoint().unwrap();
        index.settle_spare();
        stand(&index, 2);
        index.make_durable().unwrap();
        let copy = killed(&dir);
        let newest = content(&copy.path().join("spare/index"));
        let copy = killed(&dir);
        fs::remove_file(copy.path().join("index-wal")).unwrap();
        let path = copy.path().join("index");
        let mut index = Index::open(&path, &Key::from([7; 32]), Env::real()).unwrap();
        let told = index.keep_spare(&copy.path().join("spare")).unwrap_err();
        assert!(told.is_corrupt(), "{told}");
        drop(index);
        assert!(content(&copy.path().join("spare/index")) == newest);
    }

    #[test]
    fn nobody_waits_for_a_spare_being_made_and_an_overtaken_one_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let index = open(&dir);
        write(&index, 0);
        index.settle_spare();
        assert!(follows(&index));
        let spare = index.spare.as_ref().unwrap();
        let state = spare.lock();
        spare.making.store(true, Ordering::SeqCst);
        // More than SQLite's log may grow to.
        (1..30).for_each(|round| write(&index, round));
        index.make_durable().unwrap();
        spare.making.store(false, Ordering::SeqCst);
        drop(state);
        index.make_durable().unwrap();
        assert!(!follows(&index) && !spare.spare().exists() && !spare.spare_log().exists());
    }

    #[test]
    fn a_spare_that_lost_some_of_its_log_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let index = open(&dir);
        write(&index, 0);
        index.settle_spare();
        (1..5).for_each(|round| write(&index, round));
        index.make_durable().unwrap();
        let copy = killed(&dir);
        let log = copy.path().join("spare/index-wal");
        let file = OpenOptions::new().write(true).open(&log).unwrap();
        file.write_all_at(&[0; 4096], fs::metadata(&log).unwrap().len() / 2).unwrap();
        assert!(!follows(&open(&copy)));
        assert!(follows(&open(&killed(&dir))), "as it was");
    }

    #[test]
    fn a_spare_of_something_else_is_replaced_by_one_of_this_index() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let index = open(&other);
        (0..3).for_each(|round| write(&index, round));
        index.settle_spare();
        drop(index);
        drop(open(&dir));
        fs::create_dir(dir.path().join("spare")).unwrap();
        fs::copy(other.path().join("spare/index"), dir.path().join("spare/index")).unwrap();
        let index = open(&dir);
        assert!(!follows(&index) && !dir.path().join("spare/index").exists());
        write(&index, 9);
        index.make_durable().unwrap();
        index.settle_spare();
        assert!(follows(&index));
        assert_same(&dir, "made anew");
    }
}
