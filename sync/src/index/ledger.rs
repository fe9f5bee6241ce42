//! The audit ledger: what each remote answered, and when, so that evicting can ask for it later;
//! and the layers a remote was caught without, which stay named until it holds them again.

use rusqlite::{OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use rdrivefs_remote::env::WallMs;

use crate::error::{Error, Result};
use crate::index::Index;
use crate::index::layers::{LayerNumber, RemoteNumber};

/// One audit of one remote.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// When it ended, by this computer's clock.
    pub at: u64,
    /// Challenges sent.
    pub samples: u64,
    /// Challenges answered wrongly, late or not at all.
    pub failures: u64,
    /// The bytes the samples were drawn from, uniformly.
    pub bytes: u64,
    /// Every group was asked for once, so no share of it can have been missed.
    pub whole: bool,
}

/// A layer that a remote should hold and does not, as a challenge showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Which.
    pub layer: LayerNumber,
    /// When it was found, by this computer's clock.
    pub at: WallMs,
    /// Where in the layer, in bytes; none when all of it is gone.
    pub offset: Option<u64>,
}

/// A remote of this drive as the index keeps it; the row is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteRow {
    /// The name a person gave it.
    pub name: String,
    /// Its URL, without an invite.
    pub url: String,
    /// When it was added, milliseconds since the epoch.
    pub added_ms: u64,
}

const ROW: &str = "remote";

impl Index {
    /// Adds a remote and returns its number.
    ///
    /// # Errors
    /// Of the database.
    pub fn add_remote(&self, remote: &RemoteRow) -> Result<RemoteNumber> {
        let plain = serde_json::to_vec(remote).expect("a remote is plain data");
        let row = self.seal_row(ROW, &[], &plain);
        self.with(|db| {
            db.execute("INSERT INTO remote (row) VALUES (?)", [row])?;
            Ok(RemoteNumber(db.last_insert_rowid()))
        })
    }

    /// Forgets a remote, what it holds and what it answered.
    ///
    /// # Errors
    /// Of the database.
    pub fn remove_remote(&self, remote: RemoteNumber) -> Result<()> {
        self.with(|db| {
            db.execute("DELETE FROM held WHERE remote = ?", [remote.0])?;
            db.execute("DELETE FROM audit WHERE remote = ?", [remote.0])?;
            db.execute("DELETE FROM damaged WHERE remote = ?", [remote.0])?;
            db.execute("DELETE FROM remote WHERE number = ?", [remote.0]).map(drop)
        })
    }

    /// All remotes, in the order they were added.
    ///
    /// # Errors
    /// Of the database, or when a row does not open.
    pub fn remotes(&self) -> Result<Vec<(RemoteNumber, RemoteRow)>> {
        let rows: Vec<(i64, Vec<u8>)> = self.with(|db| {
            db.prepare_cached("SELECT number, row FROM remote ORDER BY number")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        rows.into_iter()
            .map(|(number, row)| {
                let plain = self.open_row(ROW, &[], &row)?;
                let remote = serde_json::from_slice(&plain)
                    .map_err(|e| Error::corrupt(format!("index row of remote {number}"), e))?;
                Ok((RemoteNumber(number), remote))
            })
            .collect()
    }

    /// Writes an audit into the ledger.
    ///
    /// # Errors
    /// Of the database.
    pub fn add_audit(&self, remote: RemoteNumber, audit: &Audit) -> Result<()> {
        self.with(|db| {
            let Audit { at, samples, failures, bytes, whole } = audit;
            db.prepare_cached("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?)")?
                .execute(params![remote.0, at, samples, failures, bytes, whole])
                .map(drop)
        })
    }

    /// The newest audit of a remote that was whole, had at least `samples_min` samples, or any
    /// failure. The newest is the one written last, whatever a clock said then.
    ///
    /// # Errors
    /// Of the database.
    pub fn newest_audit(&self, remote: RemoteNumber, samples_min: u64) -> Result<Option<Audit>> {
        self.with(|db| {
            db.prepare_cached(
                "SELECT at_ms, samples, failures, bytes, whole FROM audit
                 WHERE remote = ? AND (samples >= ? OR failures > 0 OR whole)
                 ORDER BY rowid DESC LIMIT 1",
            )?
            .query_row(params![remote.0, samples_min], |row| {
                Ok(Audit {
                    at: row.get(0)?,
                    samples: row.get(1)?,
                    failures: row.get(2)?,
                    bytes: row.get(3)?,
                    whole: row.get(4)?,
                })
            })
            .optional()
        })
    }

    /// Notes that `remote` does not hold a layer after all: it is sent again, whatever the remote
    /// says to have, and named until that has succeeded.
    ///
    /// # Errors
    /// Of the database.
    pub fn add_damage(&self, remote: RemoteNumber, damage: &Damage) -> Result<()> {
        let Damage { layer, at, offset } = *damage;
        self.with(|db| {
            db.prepare_cached("DELETE FROM held WHERE remote = ? AND layer = ?")?
                .execute(params![remote.0, layer.0])?;
            db.prepare_cached("INSERT OR REPLACE INTO damaged VALUES (?, ?, ?, ?)")?
                .execute(params![remote.0, layer.0, at.0, offset])
                .map(drop)
        })
    }

    /// What a remote was caught without and has not been given again.
    ///
    /// # Errors
    /// Of the database.
    pub fn damages(&self, remote: RemoteNumber) -> Result<Vec<Damage>> {
        self.with(|db| {
            db.prepare_cached(
                "SELECT layer, at_ms, offset FROM damaged WHERE remote = ? ORDER BY layer",
            )?
            .query_map([remote.0], |row| {
                let at = WallMs(row.get(1)?);
                Ok(Damage { layer: LayerNumber(row.get(0)?), at, offset: row.get(2)? })
            })?
            .collect()
        })
    }
}

impl Audit {
    /// Whether it is clean and not older than `age_ms` at `now`; an audit from the future is not
    /// believed, since a clock was wrong then or is wrong now.
    pub fn is_fresh(&self, now: WallMs, age_ms: u64) -> bool {
        self.failures == 0 && self.at <= now.0 && now.0 - self.at <= age_ms
    }
}
