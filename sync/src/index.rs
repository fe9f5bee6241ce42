//! The index: the tables behind the tree, the layers and the logs, in one SQLite database.
//!
//! Rows hold ids in the clear and one sealed blob each; names are looked up by a keyed hash, so no
//! name, size, key or content can be read from the file. All changes gather in one transaction that
//! [`Index::commit`] ends; [`Index::checkpoint`] makes what was committed durable. The index always
//! stands at an exact position of the journal, written in the same transaction.
//!
//! One connection under one lock; no statement is run under any lock of a caller's that a reader
//! of the index would need.

pub mod entries;
pub mod layers;
pub mod ledger;
pub mod logs;
pub mod nodes;
mod schema;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, params};

use rdrivefs_remote::env::Env;

use crate::error::{Error, Result};
use crate::index::schema::SCHEMA;
use crate::seal::{self, Key};

/// The version of the schema; another one is refused.
const VERSION: i64 = 1;

/// Pages SQLite keeps in memory, in KiB: enough for the inner nodes of millions of rows.
const PAGES_KIB: i64 = 16 << 10;

/// Prepared statements kept.
const STATEMENTS: usize = 128;

/// The tables of a drive on this device.
pub struct Index {
    db: Mutex<Connection>,
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
        prepare(&db).map_err(damaged)?;
        let index = Self {
            db: Mutex::new(db),
            rows: Key::derive("rdrivefs v1 index rows", &[key.as_bytes()]),
            names: Key::derive("rdrivefs v1 index names", &[key.as_bytes()]),
            env,
        };
        match index.number("version")? {
            None => index.set_number("version", VERSION)?,
            Some(VERSION) => {}
            Some(other) => {
                let version = u64::try_from(other).unwrap_or(u64::MAX);
                return Err(Error::UnknownVersion { what: "the index".into(), version });
            }
        }
        Ok(index)
    }

    /// Runs statements on the connection, inside the open transaction.
    ///
    /// # Errors
    /// Of the database.
    pub fn with<T>(&self, f: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        f(&self.lock()).map_err(|e| match e.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => crate::error::Posix::NoSpace.into(),
            Some(rusqlite::ErrorCode::DatabaseCorrupt) => Error::corrupt("the index", e),
            _ => e.into(),
        })
    }

    /// Ends the transaction, so that a crash of this process keeps what was done, and opens the
    /// next.
    ///
    /// # Errors
    /// Of the database; the transaction stays open then.
    pub fn commit(&self) -> Result<()> {
        self.with(|db| db.execute_batch("COMMIT; BEGIN IMMEDIATE"))
    }

    /// Makes everything committed durable, after ending the transaction.
    ///
    /// # Errors
    /// Of the database.
    pub fn checkpoint(&self) -> Result<()> {
        self.with(|db| {
            db.execute_batch("COMMIT")?;
            let done = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            db.execute_batch("BEGIN IMMEDIATE")?;
            done
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
        // What was not committed on purpose is in the journal still.
        drop(self.lock().execute_batch("ROLLBACK"));
    }
}

fn prepare(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "NORMAL")?;
    db.pragma_update(None, "cache_size", -PAGES_KIB)?;
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    db.execute_batch(SCHEMA)?;
    db.execute_batch("BEGIN IMMEDIATE")
}

fn place(table: &str, key: &[u8]) -> Vec<u8> {
    [b"rdrivefs/v1/index/", table.as_bytes(), b"/", key].concat()
}
