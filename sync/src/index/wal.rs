//! The database as such: numbers kept by name, and SQLite's write-ahead log, how long it is and
//! how it is written back.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OptionalExtension as _};

/// The name of a random number that every commit draws anew: databases with the same number are the
/// same.
pub(super) const TURN: &str = "turn";

/// The name under which the journal's position is kept that the index stands at.
pub const APPLIED: &str = "applied";

/// The name under which the largest Lamport time seen is kept.
pub const LAMPORT: &str = "lamport";

/// The name under which is kept what tells the index's key.
pub(super) const KEY_CHECK: &str = "key";

/// Frames in SQLite's log, and how many of them were written back.
pub(super) fn frames(db: &Connection) -> rusqlite::Result<(u64, u64)> {
    db.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?.query_row([], |row| {
        let count = |at| row.get::<_, i64>(at).map(|n| n.max(0).cast_unsigned());
        Ok((count(1)?, count(2)?))
    })
}

/// A number that is kept by name.
pub(super) fn number(db: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    let number = "SELECT value FROM meta WHERE key = ?";
    db.query_row(number, [name], |row| row.get(0)).optional()
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
