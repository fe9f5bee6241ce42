//! The index: the tables behind the tree, the layers and the logs, in one SQLite database.
//!
//! Rows hold ids in the clear and one sealed blob each; names are looked up by a keyed hash, so no
//! name, size, key or content can be read from the file. All changes gather in one transaction that
//! [`Index::commit`] ends; [`Index::make_durable`] syncs what was committed, and nothing else. The
//! index always stands at an exact position of the journal, written in the same transaction, so
//! only those may commit who hold the tree still.
//!
//! One connection under one lock; no statement is run under any lock of a caller's that a reader
//! of the index would need. After a statement that made SQLite roll back, nothing is taken any
//! more: the journal has what was lost, and the next start applies it.

pub mod devices;
pub mod entries;
pub mod layers;
pub mod ledger;
pub mod logs;
pub mod nodes;
mod whole;
mod unsettled;
mod schema;
mod spare;
mod wal;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension as _, params};

use rdrivefs_remote::env::Env;

use crate::error::{Error, Result};
use crate::index::schema::{SCHEMA, VERSION};
use crate::index::spare::Spare;
use crate::index::wal::{KEY_CHECK, frames, set_turn, write_back};
use crate::seal::{self, Key};

pub use crate::index::wal::{APPLIED, LAMPORT, with_ending};

const VERSION_KEY: &str = "version";

/// Pages SQLite keeps in memory, in KiB: enough for the inner nodes of millions of rows.
const PAGES_KIB: i64 = 16 << 10;

/// A write-ahead log of SQLite of more pages than this, 16 MiB, is written back into the database
/// at the next commit: it is read through by every lookup, and replayed at every start.
const WAL_PAGES_MAX: u64 = 4 << 10;

/// Bytes of that log's file that are kept once they were written back.
const WAL_BYTES_KEPT: i64 = 32 << 20;

/// Prepared statements kept.
const STATEMENTS: usize = 128;

/// The tables of a drive on this device.
pub struct Index {
    db: Mutex<Connection>,
    path: PathBuf,
    /// SQLite's write-ahead log, which holds what was committed.
    wal: PathBuf,
    /// Where it is copied to, if it is.
    spare: Option<Spare>,
    /// The open transaction was lost.
    lost: AtomicBool,
    /// Changes on the connection up to the last commit.
    changes: AtomicU64,
    rows: Key,
    names: Key,
    env: Env,
}

impl Index {
    /// Opens the index in `path`, or begins one.
    ///
    /// # Errors
    /// [`Error::UnknownVersion`]; [`Error::Corrupt`] when it is no index or not one of `key`'s.
    pub fn open(path: &Path, key: &Key, env: Env) -> Result<Self> {
        Self::connect(path, key, env, false)
    }

    /// Opens the index of a drive that has one: what is not there any more is not begun anew, since
    /// that would be an empty drive whose journal and remotes say otherwise.
    ///
    /// # Errors
    /// [`Error::IndexLost`], and then nothing was written; else as [`Index::open`].
    pub fn reopen(path: &Path, key: &Key, env: Env) -> Result<Self> {
        // SQLite would make the file, and beside an empty one remove the log with what is left.
        if std::fs::metadata(path).map_or(0, |meta| meta.len()) == 0 {
            return Err(Error::IndexLost(path.display().to_string()));
        }
        Self::connect(path, key, env, true)
    }

    fn connect(path: &Path, key: &Key, env: Env, begun: bool) -> Result<Self> {
        let damaged = |e: rusqlite::Error| match e {
            rusqlite::Error::SqliteFailure(e, _)
                if e.code == rusqlite::ErrorCode::NotADatabase
                    || e.code == rusqlite::ErrorCode::DatabaseCorrupt =>
            {
                Error::corrupt(format!("the index {}", path.display()), e)
            }
            e => e.into(),
        };
        let db = Connection::open(path)?;
        // Whoever is refused leaves everything as it is.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        if !check_version(&db).map_err(damaged)?? && begun {
            return Err(Error::IndexLost(path.display().to_string()));
        }
        prepare(&db).map_err(damaged)?;
        let wal = with_ending(path, "-wal");
        // SQLite syncs neither name before it syncs the file itself for the first time.
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or_else(|| Path::new("."));
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(Error::io(format!("sync {}", dir.display())))?;
        let index = Self {
            db: Mutex::new(db),
            path: path.to_owned(),
            wal,
            spare: None,
            lost: AtomicBool::new(false),
            changes: AtomicU64::new(0),
            rows: Key::derive("rdrivefs v1 index rows", &[key.as_bytes()]),
            names: Key::derive("rdrivefs v1 index names", &[key.as_bytes()]),
            env,
        };
        if index.number(VERSION_KEY)?.is_none() {
            index.set_number(VERSION_KEY, VERSION)?;
        }
        // A hash under the key of names says whether the key is this index's before a row is read.
        let check = i64::from_le_bytes(index.name_hash(u64::MAX, b"")[..8].try_into().expect("8"));
        match index.number(KEY_CHECK)? {
            None => index.set_number(KEY_CHECK, check)?,
            Some(known) if known == check => {}
            Some(_) => {
                return Err(Error::corrupt(format!("the index {}", path.display()), "another key"));
            }
        }
        Ok(index)
    }

    /// Runs statements on the connection, inside the open transaction.
    ///
    /// # Errors
    /// Of the database.
    pub fn with<T>(&self, f: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.run(&self.lock(), f)
    }

    fn run<T>(
        &self,
        db: &Connection,
        f: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        if self.lost.load(Ordering::Relaxed) {
            return Err(self.gone());
        }
        f(db).map_err(|e| {
            // Outside a transaction each statement would stand for itself, at no position at all.
            if db.is_autocommit() {
                self.lost.store(true, Ordering::Relaxed);
            }
            match e.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DiskFull) => crate::error::Posix::NoSpace.into(),
                Some(rusqlite::ErrorCode::DatabaseCorrupt) => Error::corrupt("the index", e),
                _ => e.into(),
            }
        })
    }

    /// Ends the transaction; what it makes of the index is told from any other state by its turn.
    fn end(&self, db: &Connection) -> rusqlite::Result<()> {
        let changes = db.total_changes();
        if self.changes.swap(changes, Ordering::Relaxed) != changes {
            db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
            set_turn(db, i64::from_le_bytes(self.env.random()))?;
            self.changes.store(db.total_changes(), Ordering::Relaxed);
        }
        db.execute_batch("COMMIT")
    }

    /// Frames in SQLite's log that are in use.
    fn count_frames(&self, db: &Connection) -> rusqlite::Result<u64> {
        let (all, back) = frames(db)?;
        if let Some(spare) = &self.spare {
            spare.committed(if back == all { 0 } else { all });
        }
        Ok(all)
    }

    /// Writes SQLite's log back, no transaction being open, once the spare has all of it.
    fn write_back(&self, db: &Connection, how: &str) -> rusqlite::Result<()> {
        let Some(spare) = &self.spare else { return write_back(db, how) };
        self.count_frames(db)?;
        if let Err(error) = self.sync_log() {
            tracing::warn!(%error, "the index's log was not synced, so it is not written back");
            return Ok(());
        }
        let held = spare.hold();
        write_back(db, how)?;
        held.written_back();
        Ok(())
    }

    fn gone(&self) -> Error {
        let lost = std::io::Error::other("a change failed, start again to replay the journal");
        Error::io(format!("the index {}", self.wal.display()))(lost)
    }

    /// Ends the transaction, so that a crash of this process keeps what was done, and opens the
    /// next.
    ///
    /// # Errors
    /// Of the database; the transaction stays open then.
    pub fn commit(&self) -> Result<()> {
        let db = self.lock();
        self.run(&db, |db| {
            self.end(db)?;
            // The file keeps its length: growing it anew would cost each sync a change of metadata.
            let done = match self.count_frames(db) {
                Ok(pages) if pages > WAL_PAGES_MAX => self.write_back(db, "RESTART"),
                counted => counted.map(drop),
            };
            db.execute_batch("BEGIN IMMEDIATE").and(done)
        })
    }

    /// Makes everything committed durable; what is in the open transaction is left alone.
    ///
    /// # Errors
    /// Of the disk.
    pub fn make_durable(&self) -> Result<()> {
        let mark = self.spare.as_ref().map(Spare::mark);
        // With a log that is synced the database is at every commit what it would be with
        // `synchronous = FULL`. No lock is held, so nobody waits for the disk.
        self.sync_log().map_err(Error::io(format!("sync {}", self.wal.display())))?;
        if let (Some(spare), Some(mark)) = (&self.spare, mark) {
            spare.carry(mark);
        }
        Ok(())
    }

    /// The kernel tells of what it could not write once: what was lost then is in the journal, and
    /// must stay there.
    fn sync_log(&self) -> std::io::Result<()> {
        let synced = File::open(&self.wal)?.sync_data();
        if synced.is_err() {
            self.lost.store(true, Ordering::Relaxed);
        }
        synced
    }

    /// Keeps a second copy of the index in `dir`, as of now the one that is there if it is this
    /// index's.
    ///
    /// # Errors
    /// Of the database; what is wrong with the copy is no error.
    pub fn keep_spare(&mut self, dir: &Path) -> Result<()> {
        let db = self.lock();
        let opened = self.run(&db, |db| {
            // Nothing was done yet but to add tables that an earlier build had not. They wait for the
            // first commit: until then all may turn out to be of a later build, and is left alone.
            db.execute_batch("ROLLBACK")?;
            let counted = frames(db);
            begin(db).and(counted)
        });
        let spare = Spare::open(dir, &self.path, &db, opened?.0)?;
        drop(db);
        self.spare = Some(spare);
        Ok(())
    }

    /// Makes the second copy durable as far as this one is: after that the journal may go.
    pub fn settle_spare(&self) {
        self.spare.iter().for_each(Spare::settle);
    }

    /// Ends the transaction, makes everything durable and shortens SQLite's log: for those who are
    /// alone.
    ///
    /// # Errors
    /// Of the database.
    pub fn checkpoint(&self) -> Result<()> {
        let db = self.lock();
        self.run(&db, |db| {
            self.end(db)?;
            let done = self.write_back(db, "TRUNCATE");
            db.execute_batch("BEGIN IMMEDIATE").and(done)
        })
    }

    /// A number kept by name.
    ///
    /// # Errors
    /// Of the database.
    pub fn number(&self, key: &str) -> Result<Option<i64>> {
        self.with(|db| {
            db.prepare_cached("SELECT value FROM meta WHERE key = ?")?
                .query_row([key], |row| row.get(0))
                .optional()
        })
    }

    /// Keeps a number by name.
    ///
    /// # Errors
    /// Of the database.
    pub fn set_number(&self, key: &str, value: i64) -> Result<()> {
        self.with(|db| {
            db.prepare_cached("INSERT OR REPLACE INTO meta VALUES (?, ?)")?
                .execute(params![key, value])
                .map(drop)
        })
    }

    /// Seals a row to its place: the table and the row's key in it.
    pub fn seal_row(&self, table: &str, key: &[u8], plain: &[u8]) -> Vec<u8> {
        seal::seal_box(&self.rows, &self.env, &place(table, key), plain)
    }

    /// Opens a row.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming the table.
    pub fn open_row(&self, table: &str, key: &[u8], row: &[u8]) -> Result<Vec<u8>> {
        seal::open_box(&self.rows, &place(table, key), row)
            .map_err(|e| Error::corrupt(format!("a row of the index table {table}"), e))
    }

    /// The keyed hash by which a name in a directory, or of an attribute of a file, is found.
    fn name_hash(&self, of: u64, name: &[u8]) -> [u8; 16] {
        let mut hasher = blake3::Hasher::new_keyed(self.names.as_bytes());
        hasher.update(&of.to_le_bytes()).update(name);
        let mut hash = [0; 16];
        hasher.finalize_xof().fill(&mut hash);
        hash
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        let db = self.lock();
        // What was not committed on purpose is in the journal still.
        drop(db.execute_batch("ROLLBACK"));
        // SQLite writes its log back when it is closed.
        let left = frames(&db).is_ok_and(|(all, back)| back < all);
        if self.spare.is_some() && left && self.changes.load(Ordering::Relaxed) > 0 {
            drop(self.write_back(&db, "TRUNCATE"));
        }
    }
}

/// Looks at the version of what is there before anything is written; whether there is anything.
fn check_version(db: &Connection) -> rusqlite::Result<Result<bool>> {
    let begun = "SELECT 1 FROM sqlite_master WHERE name = 'meta'";
    if db.query_row(begun, [], |_| Ok(())).optional()?.is_none() {
        return Ok(Ok(false));
    }
    let version: Option<i64> = db
        .query_row("SELECT value FROM meta WHERE key = ?", [VERSION_KEY], |row| row.get(0))
        .optional()?;
    Ok(match version {
        // The version and the key are written together with all the rest of the beginning.
        None => Ok(false),
        Some(VERSION) => Ok(true),
        Some(other) => {
            let version = u64::try_from(other).unwrap_or(u64::MAX);
            Err(Error::UnknownVersion { what: "the index".into(), version })
        }
    })
}

fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "cache_size", -PAGES_KIB)?;
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    // One big merge must not leave a big file for good.
    db.query_row(&format!("PRAGMA journal_size_limit = {WAL_BYTES_KEPT}"), [], |_| Ok(()))?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    // Statements are planned once, not anew for each value bound to them.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    begin(db)
}

/// Opens a transaction in which all tables are there.
fn begin(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch("BEGIN IMMEDIATE")?;
    db.execute_batch(SCHEMA)
}

fn place(table: &str, key: &[u8]) -> Vec<u8> {
    [b"rdrivefs/v1/index/", table.as_bytes(), b"/", key].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_written_back_and_its_file_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let index = Index::open(&path, &Key::from([7; 32]), Env::real()).unwrap();
        let wal = || std::fs::metadata(dir.path().join("index-wal")).unwrap().len();
        let (row, mut longest) = (vec![1; 100_000], 0);
        for round in 0..60 {
            for n in 0..10 {
                index.set_node(crate::id::Ino((round * 10 + n) << 8), &row).unwrap();
            }
            index.commit().unwrap();
            assert!(wal() >= longest, "it keeps its length");
            longest = wal();
        }
        let bound = (WAL_PAGES_MAX + 1_000) * 4_200;
        assert!((WAL_PAGES_MAX * 4_096..bound).contains(&longest), "{longest} of {bound}");
        assert!(std::fs::metadata(&path).unwrap().len() > 30_000_000, "the rest is in its place");
        index.checkpoint().unwrap();
        assert_eq!(wal(), 0, "who is alone makes it short");
    }

    #[test]
    fn an_index_that_is_gone_is_not_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let key = Key::from([7; 32]);
        let reopen = || Index::reopen(&path, &key, Env::real());
        let lost = || assert!(matches!(reopen(), Err(Error::IndexLost(_))));
        lost();
        assert!(!path.exists(), "nor is anything made");
        Index::open(&path, &key, Env::real()).unwrap().checkpoint().unwrap();
        drop(reopen().unwrap());
        std::fs::write(&path, b"").unwrap();
        std::fs::write(dir.path().join("index-wal"), b"what is left").unwrap();
        lost();
        assert_eq!(std::fs::read(dir.path().join("index-wal")).unwrap(), b"what is left");
        std::fs::remove_file(dir.path().join("index-wal")).unwrap();
        // A database of SQLite with nothing in it.
        Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 1").unwrap();
        lost();
    }
}
