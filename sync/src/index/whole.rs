//! Whether an index is whole: every page by SQLite's own word, and every sealed row by its seal.

use rusqlite::types::Value;

use crate::error::{Error, Result};
use crate::index::Index;

/// Tables with sealed rows, and what of a row is its key: numbers and blobs, in their order.
const SEALED: [(&str, &str); 8] = [
    ("node", "SELECT ino, NULL, row FROM node"),
    ("xattr", "SELECT ino, hash, row FROM xattr"),
    ("entry", "SELECT link, parent, row FROM entry"),
    ("tomb", "SELECT link, NULL, row FROM tomb"),
    ("unsettled", "SELECT link, NULL, row FROM unsettled"),
    ("layer", "SELECT id, NULL, row FROM layer"),
    ("remote", "SELECT NULL, NULL, row FROM remote"),
    ("device", "SELECT key, NULL, row FROM device"),
];

impl Index {
    /// Looks at every page and opens every row.
    ///
    /// # Errors
    /// [`Error::Corrupt`] naming what is damaged first; of the database.
    pub fn check_whole(&self) -> Result<()> {
        let told: String =
            self.with(|db| db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)))?;
        if told != "ok" {
            return Err(Error::corrupt("the index", told));
        }
        SEALED.into_iter().try_for_each(|(table, query)| self.check_table(table, query))
    }

    fn check_table(&self, table: &str, query: &str) -> Result<()> {
        let bad = self.with(|db| {
            let mut query = db.prepare(query)?;
            let mut rows = query.query([])?;
            while let Some(row) = rows.next()? {
                let key: Vec<u8> = (0..2)
                    .map(|at| row.get(at).map(bytes_of))
                    .collect::<rusqlite::Result<Vec<_>>>()?
                    .concat();
                if let Err(e) = self.open_row(table, &key, &row.get::<_, Vec<u8>>(2)?) {
                    return Ok(Some(e));
                }
            }
            Ok(None)
        })?;
        bad.map_or(Ok(()), Err)
    }
}

fn bytes_of(value: Value) -> Vec<u8> {
    match value {
        Value::Integer(number) => number.to_le_bytes().to_vec(),
        Value::Blob(bytes) => bytes,
        _ => Vec::new(),
    }
}
