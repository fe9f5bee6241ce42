//! Links that do not stand plainly where their records put them: found by link, and by the place
//! they want.

use rusqlite::{OptionalExtension as _, params};

use crate::error::Result;
use crate::id::{FileId, LinkId};
use crate::index::Index;

const UNSETTLED: &str = "unsettled";

impl Index {
    /// The row of an unsettled link.
    ///
    /// # Errors
    /// Of the database, or when it does not open.
    pub fn unsettled(&self, link: LinkId) -> Result<Option<Vec<u8>>> {
        let row: Option<Vec<u8>> = self.with(|db| {
            db.prepare_cached("SELECT row FROM unsettled WHERE link = ?")?
                .query_row([key(link)], |row| row.get(0))
                .optional()
        })?;
        row.map(|row| self.open_row(UNSETTLED, &link.0.to_le_bytes(), &row)).transpose()
    }

    /// Unsettled links that want a place.
    ///
    /// # Errors
    /// Of the database.
    pub fn unsettled_at(&self, parent: FileId, name: &[u8]) -> Result<Vec<LinkId>> {
        let hash = self.name_hash(parent.0, name);
        self.with(|db| {
            db.prepare_cached("SELECT link FROM unsettled WHERE parent = ? AND hash = ?")?
                .query_map(params![parent.0.cast_signed(), hash], link)?
                .collect()
        })
    }

    /// Unsettled links that want a place in a directory.
    ///
    /// # Errors
    /// Of the database.
    pub fn unsettled_in(&self, parent: FileId) -> Result<Vec<LinkId>> {
        self.with(|db| {
            db.prepare_cached("SELECT link FROM unsettled WHERE parent = ? ORDER BY link")?
                .query_map([parent.0.cast_signed()], link)?
                .collect()
        })
    }

    /// All unsettled links.
    ///
    /// # Errors
    /// Of the database.
    pub fn unsettled_links(&self) -> Result<Vec<LinkId>> {
        self.with(|db| {
            db.prepare_cached("SELECT link FROM unsettled ORDER BY link")?
                .query_map([], link)?
                .collect()
        })
    }

    /// Writes the row of an unsettled link.
    ///
    /// # Errors
    /// Of the database.
    pub fn set_unsettled(&self, link: LinkId, at: (FileId, &[u8]), plain: &[u8]) -> Result<()> {
        let hash = self.name_hash(at.0.0, at.1);
        let row = self.seal_row(UNSETTLED, &link.0.to_le_bytes(), plain);
        self.with(|db| {
            db.prepare_cached("INSERT OR REPLACE INTO unsettled VALUES (?, ?, ?, ?)")?
                .execute(params![key(link), at.0.0.cast_signed(), hash, row])
                .map(drop)
        })
    }

    /// Notes that a link is settled, or gone.
    ///
    /// # Errors
    /// Of the database.
    pub fn remove_unsettled(&self, link: LinkId) -> Result<()> {
        self.with(|db| {
            db.prepare_cached("DELETE FROM unsettled WHERE link = ?")?
                .execute([key(link)])
                .map(drop)
        })
    }

    /// Removes a tombstone that was only waiting for another.
    ///
    /// # Errors
    /// Of the database.
    pub fn remove_tomb(&self, link: LinkId) -> Result<()> {
        self.with(|db| {
            db.prepare_cached("DELETE FROM tomb WHERE link = ?")?.execute([key(link)]).map(drop)
        })
    }
}

fn key(link: LinkId) -> i64 {
    link.0.cast_signed()
}

fn link(row: &rusqlite::Row<'_>) -> rusqlite::Result<LinkId> {
    Ok(LinkId(row.get::<_, i64>(0)?.cast_unsigned()))
}
