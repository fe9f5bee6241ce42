//! Names in the index: one row a link, found by the keyed hash of directory and name.
//!
//! A link's number is also the cookie by which a listing continues, so listings are stable however
//! a directory changes meanwhile.

use minicbor::{Decode, Encode};
use rusqlite::{OptionalExtension as _, params};

use crate::error::{Error, Result};
use crate::id::{Ino, LinkId};
use crate::index::Index;
use crate::record::{Kind, Stamp};

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryRow {
    /// The link.
    pub link: LinkId,
    /// The directory.
    pub parent: Ino,
    /// The name.
    pub name: Vec<u8>,
    /// What it leads to.
    pub child: Ino,
    /// What that is, for listings; none in rows of old.
    pub kind: Option<Kind>,
    /// When and by whom it was put there, as far as it was published.
    pub stamp: Stamp,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct Plain {
    #[cbor(n(0), with = "minicbor::bytes")]
    name: Vec<u8>,
    #[n(1)]
    child: u64,
    #[n(2)]
    stamp: Stamp,
    #[n(3)]
    kind: Option<Kind>,
}

const ENTRY: &str = "entry";

impl Index {
    /// The link of that name.
    ///
    /// # Errors
    /// Of the database, or when its row does not open.
    pub fn entry(&self, parent: Ino, name: &[u8]) -> Result<Option<EntryRow>> {
        let hash = self.name_hash(parent.file().0, name);
        let row = self.with(|db| {
            db.prepare_cached("SELECT link, row FROM entry WHERE parent = ? AND hash = ?")?
                .query_row(params![key(parent), hash], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })?;
        let entry = row.map(|(link, row)| self.opened(link, parent, row)).transpose()?;
        if entry.as_ref().is_some_and(|entry| entry.name != name) {
            return Err(Error::corrupt("a row of the index table entry", "it has another's hash"));
        }
        Ok(entry)
    }

    /// A link by its number.
    ///
    /// # Errors
    /// Of the database, or when its row does not open.
    pub fn link(&self, link: LinkId) -> Result<Option<EntryRow>> {
        let row = self.with(|db| {
            db.prepare_cached("SELECT parent, row FROM entry WHERE link = ?")?
                .query_row([link.0.cast_signed()], |row| {
                    Ok((Ino(row.get::<_, i64>(0)?.cast_unsigned()), row.get(1)?))
                })
                .optional()
        })?;
        row.map(|(parent, row)| self.opened(link.0.cast_signed(), parent, row)).transpose()
    }

    /// Puts a link in its place, which must be free or its own.
    ///
    /// # Errors
    /// Of the database.
    pub fn set_entry(&self, entry: &EntryRow) -> Result<()> {
        let hash = self.name_hash(entry.parent.file().0, &entry.name);
        let EntryRow { ref name, child, stamp, kind, .. } = *entry;
        let plain = Plain { name: name.clone(), child: child.0, stamp, kind };
        let plain = minicbor::to_vec(plain).expect("memory takes every write");
        let row = self.seal_row(ENTRY, &place(entry.link, entry.parent), &plain);
        self.with(|db| {
            db.prepare_cached("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?)")?
                .execute(params![entry.link.0.cast_signed(), key(entry.parent), hash, row])
                .map(drop)
        })
    }

    /// Removes a link.
    ///
    /// # Errors
    /// Of the database.
    pub fn remove_entry(&self, link: LinkId) -> Result<()> {
        self.with(|db| {
            db.prepare_cached("DELETE FROM entry WHERE link = ?")?
                .execute([link.0.cast_signed()])
                .map(drop)
        })
    }

    /// Links of a directory after a cookie, in the order of their numbers.
    ///
    /// # Errors
    /// Of the database, or when a row does not open.
    pub fn entries_after(&self, parent: Ino, after: u64, limit: usize) -> Result<Vec<EntryRow>> {
        let rows: Vec<(i64, Vec<u8>)> = self.with(|db| {
            db.prepare_cached(
                "SELECT link, row FROM entry WHERE parent = ? AND link > ?
                 ORDER BY link LIMIT ?",
            )?
            .query_map(params![key(parent), after.cast_signed(), limit], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect()
        })?;
        rows.into_iter().map(|(link, row)| self.opened(link, parent, row)).collect()
    }

    /// Whether a directory has at most `count` entries.
    ///
    /// # Errors
    /// Of the database.
    pub fn has_at_most(&self, parent: Ino, count: usize) -> Result<bool> {
        self.with(|db| {
            db.prepare_cached("SELECT 1 FROM entry WHERE parent = ? LIMIT 1 OFFSET ?")?
                .exists(params![key(parent), count])
                .map(|more| !more)
        })
    }

    /// Whether a directory has any entry.
    ///
    /// # Errors
    /// Of the database.
    pub fn has_entries(&self, parent: Ino) -> Result<bool> {
        self.with(|db| {
            db.prepare_cached("SELECT 1 FROM entry WHERE parent = ? LIMIT 1")?.exists([key(parent)])
        })
    }

    fn opened(&self, link: i64, parent: Ino, row: Vec<u8>) -> Result<EntryRow> {
        let link = LinkId(link.cast_unsigned());
        let plain = self.open_row(ENTRY, &place(link, parent), &row)?;
        let plain: Plain = minicbor::decode(&plain)
            .map_err(|e| Error::corrupt("a row of the index table entry", e))?;
        let Plain { name, child, stamp, kind } = plain;
        Ok(EntryRow { link, parent, name, child: Ino(child), kind, stamp })
    }
}

/// What a row is bound to: a name moves to no other directory by itself.
fn place(link: LinkId, parent: Ino) -> [u8; 16] {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&link.0.to_le_bytes());
    place[8..].copy_from_slice(&parent.0.to_le_bytes());
    place
}

fn key(ino: Ino) -> i64 {
    ino.0.cast_signed()
}

#[cfg(test)]
mod tests {
    use rdrivefs_remote::env::Env;

    use super::*;
    use crate::id::DeviceNumber;
    use crate::seal::Key;

    #[test]
    fn a_row_from_before_kinds_were_kept_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let index = Index::open(&path, &Key::from([7; 32]), Env::real()).unwrap();
        let stamp = Stamp { lamport: 3, device: DeviceNumber(1) };
        let (link, parent, child) = (LinkId(5), Ino::ROOT, Ino(0x900));
        let entry =
            EntryRow { link, parent, name: b"n".to_vec(), child, kind: Some(Kind::File), stamp };
        index.set_entry(&entry).unwrap();
        assert_eq!(index.entry(parent, b"n").unwrap(), Some(entry.clone()));
        let old = minicbor::to_vec((minicbor::bytes::ByteVec::from(b"n".to_vec()), child.0, stamp));
        let old = index.seal_row(ENTRY, &place(link, parent), &old.unwrap());
        index.with(|db| db.execute("UPDATE entry SET row = ?", [old])).unwrap();
        let listed = index.entries_after(parent, 0, 9).unwrap();
        assert_eq!(listed, [EntryRow { kind: None, ..entry }]);
        assert!(index.has_at_most(parent, 1).unwrap() && !index.has_at_most(parent, 0).unwrap());
    }
}
