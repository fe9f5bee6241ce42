//! SQLite's write-ahead log: how long it is, and writing it back into the database.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _};

/// The name of a random number that every commit draws anew: databases with the same number are the
/// same.
const TURN: &str = "turn";

/// Frames in SQLite's log, and how many of them were written back.
pub(super) fn frames(db: &Connection) -> rusqlite::Result<(u64, u64)> {
    db.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?.query_row([], |row| {
        let count = |at| row.get::<_, i64>(at).map(|n| n.max(0).cast_unsigned());
        Ok((count(1)?, count(2)?))
    })
}

/// What the last commit drew.
pub(super) fn turn(db: &Connection) -> rusqlite::Result<i64> {
    let turn = "SELECT value FROM meta WHERE key = ?";
    Ok(db.query_row(turn, [TURN], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Gives the state that is about to be committed a name of its own.
pub(super) fn set_turn(db: &Connection, turn: i64) -> rusqlite::Result<()> {
    let set = "INSERT OR REPLACE INTO meta VALUES (?, ?)";
    db.prepare_cached(set)?.execute(rusqlite::params![TURN, turn]).map(drop)
}

pub(super) fn write_back(db: &Connection, how: &str) -> rusqlite::Result<()> {
    db.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(()))
}

/// The path of a file that belongs to a database, such as its log: `-wal`.
pub fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}
