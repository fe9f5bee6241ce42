//! Files in the index: one sealed row each, their extended attributes, and what is still to be done
//! about them.

use rusqlite::{OptionalExtension as _, params};

use crate::error::Result;
use crate::id::Ino;
use crate::index::Index;

/// Something about a file or link that another device does not know yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pending {
    /// Attributes or content of a file.
    Node(Ino),
    /// An extended attribute, by file and the hash of its name.
    Xattr(Ino, [u8; 16]),
    /// The place of a link.
    Link(u64),
    /// A tombstone.
    Tomb(u64),
}

/// The number of files, as the tree counts them: SQLite would walk through the table.
pub const FILES: &str = "files";

const NODE: &str = "node";
const XATTR: &str = "xattr";
const TOMB: &str = "tomb";

/// A set of inodes with something in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// Files without a name, kept while the kernel holds them.
    Orphan,
    /// Files with content in the journal.
    Staged,
}

impl Marked {
    fn table(self) -> &'static str {
        match self {
            Self::Orphan => "orphan",
            Self::Staged => "staged",
        }
    }
}

impl Index {
    /// The row of a file.
    ///
    /// # Errors
    /// Of the database, or when it does not open.
    pub fn node(&self, ino: Ino) -> Result<Option<Vec<u8>>> {
        let row: Option<Vec<u8>> = self.with(|db| {
            db.prepare_cached("SELECT row FROM node WHERE ino = ?")?
                .query_row([key(ino)], |row| row.get(0))
                .optional()
        })?;
        row.map(|row| self.open_row(NODE, &ino.0.to_le_bytes(), &row)).transpose()
    }

    /// Writes the row of a file.
    ///
    /// # Errors
    /// Of the database.
    pub fn set_node(&self, ino: Ino, plain: &[u8]) -> Result<()> {
        let row = self.seal_row(NODE, &ino.0.to_le_bytes(), plain);
        self.with(|db| {
            db.prepare_cached("INSERT OR REPLACE INTO node VALUES (?, ?)")?
                .execute(params![key(ino), row])
                .map(drop)
        })
    }

    /// Removes a file with all that hangs on it; one that was not `stored` has no row yet, and
    /// perhaps attributes.
    ///
    /// # Errors
    /// Of the database.
    pub fn remove_node(&self, ino: Ino, stored: bool) -> Result<()> {
        const STORED: [&str; 4] = [
            "DELETE FROM node WHERE ino = ?",
            "DELETE FROM orphan WHERE ino = ?",
            "DELETE FROM staged WHERE ino = ?",
            "DELETE FROM pending WHERE kind = 0 AND id = ?",
        ];
        const ATTRIBUTES: [&str; 2] =
            ["DELETE FROM xattr WHERE ino = ?", "DELETE FROM pending WHERE kind = 1 AND id = ?"];
        let rows = if stored { &STORED[..] } else { &[] };
        self.with(|db| {
            rows.iter().chain(&ATTRIBUTES).try_for_each(|statement| {
                db.prepare_cached(statement)?.execute([key(ino)]).map(drop)
            })
        })
    }

    /// The incarnations of a file that have rows.
    ///
    /// # Errors
    /// Of the database.
    pub fn incarnations(&self, file: crate::id::FileId) -> Result<Vec<Ino>> {
        self.with(|db| {
            db.prepare_cached("SELECT ino FROM node WHERE ino BETWEEN ? AND ? ORDER BY ino")?
                .query_map([key(Ino(file.0)), key(Ino(file.0 | 0xff))], |row| {
                    Ok(Ino(row.get::<_, i64>(0)?.cast_unsigned()))
                })?
                .collect()
        })
    }

    /// Files whose numbers no device drew: what losing versions became.
    ///
    /// # Errors
    /// Of the database.
    pub fn derived_nodes(&self) -> Result<Vec<Ino>> {
        let derived = Ino(crate::id::draw(crate::id::DERIVED, 0));
        self.with(|db| {
            db.prepare_cached("SELECT ino FROM node WHERE ino >= ? ORDER BY ino")?
                .query_map([key(derived)], |row| Ok(Ino(row.get::<_, i64>(0)?.cast_unsigned())))?
                .collect()
        })
    }

    /// How many files there were at the last commit.
    ///
    /// # Errors
    /// Of the database.
    pub fn node_count(&self) -> Result<u64> {
        Ok(self.number(FILES)?.map_or(0, i64::cast_unsigned))
    }

    /// All files after one, in the order of their numbers.
    ///
    /// # Errors
    /// Of the database.
    pub fn nodes_after(&self, after: Ino, limit: usize) -> Result<Vec<Ino>> {
        self.with(|db| {
            db.prepare_cached("SELECT ino FROM node WHERE ino > ? ORDER BY ino LIMIT ?")?
                .query_map(params![key(after), limit], |row| {
                    Ok(Ino(row.get::<_, i64>(0)?.cast_unsigned()))
                })?
                .collect()
        })
    }

    /// Marks a file, or takes the mark back.
    ///
    /// # Errors
    /// Of the database.
    pub fn mark(&self, mark: Marked, ino: Ino, set: bool) -> Result<()> {
        let table = mark.table();
        let statement = match set {
            true => format!("INSERT OR IGNORE INTO {table} VALUES (?)"),
            false => format!("DELETE FROM {table} WHERE ino = ?"),
        };
        self.with(|db| db.prepare_cached(&statement)?.execute([key(ino)]).map(drop))
    }

    /// All files with a mark.
    ///
    /// # Errors
    /// Of the database.
    pub fn marked(&self, mark: Marked) -> Result<Vec<Ino>> {
        self.with(|db| {
            db.prepare_cached(&format!("SELECT ino FROM {} ORDER BY ino", mark.table()))?
                .query_map([], |row| Ok(Ino(row.get::<_, i64>(0)?.cast_unsigned())))?
                .collect()
        })
    }

    /// An extended attribute's row.
    ///
    /// # Errors
    /// Of the database, or when it does not open.
    pub fn xattr(&self, ino: Ino, hash: &[u8; 16]) -> Result<Option<Vec<u8>>> {
        let row: Option<Vec<u8>> = self.with(|db| {
            db.prepare_cached("SELECT row FROM xattr WHERE ino = ? AND hash = ?")?
                .query_row(params![key(ino), hash], |row| row.get(0))
                .optional()
        })?;
        row.map(|row| self.open_row(XATTR, &xattr_key(ino, hash), &row)).transpose()
    }

    /// The hash under which an extended attribute of a file is kept.
    pub fn xattr_hash(&self, ino: Ino, name: &[u8]) -> [u8; 16] {
        self.name_hash(ino.file().0 | 1, name)
    }

    /// Writes an extended attribute's row, or removes it.
    ///
    /// # Errors
    /// Of the database.
    pub fn set_xattr(&self, ino: Ino, hash: &[u8; 16], plain: Option<&[u8]>) -> Result<()> {
        let row = plain.map(|plain| self.seal_row(XATTR, &xattr_key(ino, hash), plain));
        self.with(|db| match row {
            Some(row) => db
                .prepare_cached("INSERT OR REPLACE INTO xattr VALUES (?, ?, ?)")?
                .execute(params![key(ino), hash, row])
                .map(drop),
            None => db
                .prepare_cached("DELETE FROM xattr WHERE ino = ? AND hash = ?")?
                .execute(params![key(ino), hash])
                .map(drop),
        })
    }

    /// The rows of all extended attributes of a file, with their hashes.
    ///
    /// # Errors
    /// Of the database, or when one does not open.
    pub fn xattrs(&self, ino: Ino) -> Result<Vec<([u8; 16], Vec<u8>)>> {
        let rows: Vec<([u8; 16], Vec<u8>)> = self.with(|db| {
            db.prepare_cached("SELECT hash, row FROM xattr WHERE ino = ?")?
                .query_map([key(ino)], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        rows.into_iter()
            .map(|(hash, row)| Ok((hash, self.open_row(XATTR, &xattr_key(ino, &hash), &row)?)))
            .collect()
    }

    /// Notes something to be published, or that it was.
    ///
    /// # Errors
    /// Of the database.
    pub fn set_pending(&self, pending: Pending, set: bool) -> Result<()> {
        let (kind, id, hash) = split(pending);
        let statement = match set {
            true => "INSERT OR IGNORE INTO pending VALUES (?, ?, ?)",
            false => "DELETE FROM pending WHERE kind = ? AND id = ? AND hash = ?",
        };
        self.with(|db| db.prepare_cached(statement)?.execute(params![kind, id, hash]).map(drop))
    }

    /// What is to be published, after one of them, in a fixed order.
    ///
    /// # Errors
    /// Of the database.
    pub fn pending(&self, after: Option<Pending>, limit: usize) -> Result<Vec<Pending>> {
        let (kind, id, hash) = after.map_or((-1, 0, Vec::new()), split);
        self.with(|db| {
            db.prepare_cached(
                "SELECT kind, id, hash FROM pending WHERE (kind, id, hash) > (?, ?, ?)
                 ORDER BY kind, id, hash LIMIT ?",
            )?
            .query_map(params![kind, id, hash, limit], |row| {
                Ok(join(row.get(0)?, row.get(1)?, &row.get::<_, Vec<u8>>(2)?))
            })?
            .collect()
        })
    }

    /// Whether something is still to be published.
    ///
    /// # Errors
    /// Of the database.
    pub fn is_pending(&self, pending: Pending) -> Result<bool> {
        let (kind, id, hash) = split(pending);
        self.with(|db| {
            db.prepare_cached("SELECT 1 FROM pending WHERE kind = ? AND id = ? AND hash = ?")?
                .exists(params![kind, id, hash])
        })
    }

    /// Whether anything is to be published.
    ///
    /// # Errors
    /// Of the database.
    pub fn has_pending(&self) -> Result<bool> {
        self.with(|db| db.prepare_cached("SELECT 1 FROM pending LIMIT 1")?.exists([]))
    }

    /// How much is to be published.
    ///
    /// # Errors
    /// Of the database.
    pub fn pending_count(&self) -> Result<u64> {
        self.with(|db| {
            let count = db.query_row("SELECT count(*) FROM pending", [], |row| row.get(0));
            count.map(i64::cast_unsigned)
        })
    }

    /// A tombstone's row.
    ///
    /// # Errors
    /// Of the database, or when it does not open.
    pub fn tomb(&self, link: u64) -> Result<Option<Vec<u8>>> {
        let row: Option<Vec<u8>> = self.with(|db| {
            db.prepare_cached("SELECT row FROM tomb WHERE link = ?")?
                .query_row([link.cast_signed()], |row| row.get(0))
                .optional()
        })?;
        row.map(|row| self.open_row(TOMB, &link.to_le_bytes(), &row)).transpose()
    }

    /// Writes a tombstone's row.
    ///
    /// # Errors
    /// Of the database.
    pub fn set_tomb(&self, link: u64, plain: &[u8]) -> Result<()> {
        let row = self.seal_row(TOMB, &link.to_le_bytes(), plain);
        self.with(|db| {
            db.prepare_cached("INSERT OR REPLACE INTO tomb VALUES (?, ?)")?
                .execute(params![link.cast_signed(), row])
                .map(drop)
        })
    }
}

fn key(ino: Ino) -> i64 {
    ino.0.cast_signed()
}

fn xattr_key(ino: Ino, hash: &[u8; 16]) -> Vec<u8> {
    [&ino.0.to_le_bytes()[..], hash].concat()
}

fn split(pending: Pending) -> (i64, i64, Vec<u8>) {
    match pending {
        Pending::Node(ino) => (0, key(ino), Vec::new()),
        Pending::Xattr(ino, hash) => (1, key(ino), hash.to_vec()),
        Pending::Link(link) => (2, link.cast_signed(), Vec::new()),
        Pending::Tomb(link) => (3, link.cast_signed(), Vec::new()),
    }
}

fn join(kind: i64, id: i64, hash: &[u8]) -> Pending {
    let ino = Ino(id.cast_unsigned());
    match kind {
        0 => Pending::Node(ino),
        1 => Pending::Xattr(ino, hash.try_into().unwrap_or_default()),
        2 => Pending::Link(id.cast_unsigned()),
        _ => Pending::Tomb(id.cast_unsigned()),
    }
}
