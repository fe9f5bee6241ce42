//! Logs in the index: every signed entry this device made or accepted, byte for byte.
//!
//! Entries are sealed and signed already, so they lie here as they are, and any member can carry
//! them on to any remote. `applied` says that the entry's records are in the tables; it is set in
//! the transaction that applied them.

use bytes::Bytes;
use rusqlite::{OptionalExtension as _, params};

use rdrivefs_remote::entry::{Head, LogId};

use crate::error::Result;
use crate::index::Index;

impl Index {
    /// Keeps an entry; the caller has checked its signature and that it follows the head.
    ///
    /// # Errors
    /// Of the database.
    pub fn add_entry(&self, head: &Head, applied: bool, entry: &[u8]) -> Result<()> {
        self.with(|db| {
            db.prepare_cached("INSERT OR IGNORE INTO log VALUES (?, ?, ?, ?, 0, ?)")?
                .execute(params![head.log.encode(), head.number, head.hash, applied, entry])
                .map(drop)
        })
    }

    /// Notes that an entry's records are in the tables.
    ///
    /// # Errors
    /// Of the database.
    pub fn set_applied(&self, log: &LogId, number: u64) -> Result<()> {
        self.with(|db| {
            db.prepare_cached("UPDATE log SET applied = 1 WHERE log = ? AND number = ?")?
                .execute(params![log.encode(), number])
                .map(drop)
        })
    }

    /// The head of one log.
    ///
    /// # Errors
    /// Of the database.
    pub fn head(&self, log: &LogId) -> Result<Option<Head>> {
        self.with(|db| {
            db.prepare_cached(
                "SELECT number, hash FROM log WHERE log = ? ORDER BY number DESC LIMIT 1",
            )?
            .query_row([log.encode()], |row| {
                Ok(Head { log: *log, number: row.get(0)?, hash: row.get(1)? })
            })
            .optional()
        })
    }

    /// The head of every log.
    ///
    /// # Errors
    /// Of the database, or when a log's name does not parse.
    pub fn heads(&self) -> Result<Vec<Head>> {
        let logs: Vec<[u8; 37]> = self.with(|db| {
            db.prepare_cached("SELECT DISTINCT log FROM log")?
                .query_map([], |row| row.get(0))?
                .collect()
        })?;
        let mut heads = Vec::with_capacity(logs.len());
        for log in logs {
            heads.extend(self.head(&LogId::decode(&log)?)?);
        }
        Ok(heads)
    }

    /// The newest applied entry of every log.
    ///
    /// # Errors
    /// Of the database, or when a log's name does not parse.
    pub fn heads_applied(&self) -> Result<Vec<Head>> {
        let rows: Vec<([u8; 37], u64, [u8; 32])> = self.with(|db| {
            db.prepare_cached(
                "SELECT log, max(number), hash FROM log WHERE applied = 1 GROUP BY log ORDER BY log",
            )?
            .query_map([], |row| {
                Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned(), row.get(2)?))
            })?
            .collect()
        })?;
        rows.into_iter()
            .map(|(log, number, hash)| Ok(Head { log: LogId::decode(&log)?, number, hash }))
            .collect()
    }

    /// Keeps the Lamport time of an entry.
    ///
    /// # Errors
    /// Of the database.
    pub fn set_lamport(&self, log: &LogId, number: u64, lamport: u64) -> Result<()> {
        self.with(|db| {
            db.prepare_cached("UPDATE log SET lamport = ? WHERE log = ? AND number = ?")?
                .execute(params![lamport.cast_signed(), log.encode(), number.cast_signed()])
                .map(drop)
        })
    }

    /// The Lamport time and hash of an applied entry.
    ///
    /// # Errors
    /// Of the database.
    pub fn applied_entry(&self, log: &LogId, number: u64) -> Result<Option<(u64, [u8; 32])>> {
        self.with(|db| {
            db.prepare_cached(
                "SELECT lamport, hash FROM log WHERE log = ? AND number = ? AND applied = 1",
            )?
            .query_row(params![log.encode(), number.cast_signed()], |row| {
                Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?))
            })
            .optional()
        })
    }

    /// Entries of a log from a number on, with whether each is applied, up to `bytes_max`.
    ///
    /// # Errors
    /// Of the database.
    pub fn entries(&self, log: &LogId, from: u64, bytes_max: usize) -> Result<Vec<(Bytes, bool)>> {
        self.with(|db| {
            let mut query = db.prepare_cached(
                "SELECT entry, applied FROM log WHERE log = ? AND number >= ? ORDER BY number",
            )?;
            let mut rows = query.query(params![log.encode(), from])?;
            let mut entries = Vec::new();
            let mut bytes = 0;
            while let Some(row) = rows.next()? {
                let entry: Vec<u8> = row.get(0)?;
                bytes += entry.len();
                if bytes > bytes_max && !entries.is_empty() {
                    break;
                }
                entries.push((Bytes::from(entry), row.get(1)?));
            }
            Ok(entries)
        })
    }

    /// Logs with entries whose records are not in the tables yet.
    ///
    /// # Errors
    /// Of the database, or when a log's name does not parse.
    pub fn logs_unapplied(&self) -> Result<Vec<LogId>> {
        let logs: Vec<[u8; 37]> = self.with(|db| {
            db.prepare_cached("SELECT DISTINCT log FROM log WHERE applied = 0 ORDER BY log")?
                .query_map([], |row| row.get(0))?
                .collect()
        })?;
        logs.iter().map(|log| Ok(LogId::decode(log)?)).collect()
    }

    /// The first entry of a log whose records are not in the tables yet.
    ///
    /// # Errors
    /// Of the database.
    pub fn entry_unapplied(&self, log: &LogId) -> Result<Option<Bytes>> {
        self.with(|db| {
            db.prepare_cached(
                "SELECT entry FROM log WHERE log = ? AND applied = 0 ORDER BY number LIMIT 1",
            )?
            .query_row([log.encode()], |row| Ok(Bytes::from(row.get::<_, Vec<u8>>(0)?)))
            .optional()
        })
    }

    /// The hash of one entry.
    ///
    /// # Errors
    /// Of the database.
    pub fn entry_hash(&self, log: &LogId, number: u64) -> Result<Option<[u8; 32]>> {
        self.with(|db| {
            db.prepare_cached("SELECT hash FROM log WHERE log = ? AND number = ?")?
                .query_row(params![log.encode(), number.cast_signed()], |row| row.get(0))
                .optional()
        })
    }
}
