//! Layers in the index: their keys, the chunks in them by keyed id, and which remote holds them.
//!
//! A layer has a local number, so that an extent in a row takes a few bytes; in records it goes by
//! its blob id. The dedup table maps a keyed chunk id to the chunk; a condemned layer's chunks are
//! not in it.

use minicbor::{Decode, Encode};
use rdrivefs_remote::identity::DriveId;
use rusqlite::{OptionalExtension as _, params};

use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::env::WallMs;

use crate::chunk::ChunkId;
use crate::error::{Error, Result};
use crate::index::Index;
use crate::layer::{LAYER_BYTES_MAX, LayerReader, Sealed, Toc};
use crate::record::Record;
use crate::seal::Key;

/// What opens a layer.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(array)]
pub struct LayerSecret {
    /// Its key.
    #[n(0)]
    pub key: Key,
    /// The epoch bound into its seals.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub epoch: [u8; 32],
    /// The nonce in its header, bound into its seals.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub nonce: [u8; 24],
    /// Its encoded table of contents.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub toc: Vec<u8>,
}

/// A layer's number in this index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerNumber(pub i64);

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkPlace {
    /// The layer it was born in.
    pub layer: LayerNumber,
    /// Its number there.
    pub number: u32,
}

/// A layer as the index knows it.
#[derive(Debug, Clone)]
pub struct LayerRow {
    /// Its local number.
    pub number: LayerNumber,
    /// Its blob id.
    pub id: BlobId,
    /// Its length in bytes.
    pub len: u64,
    /// What opens it.
    pub secret: LayerSecret,
}

/// A remote's number in this index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteNumber(pub i64);

const ROW: &str = "layer";

/// The name under which the last number given out is kept.
const LAST: &str = "layers";

impl LayerSecret {
    /// What opens a layer that was just sealed.
    pub fn of(sealed: &Sealed, epoch: [u8; 32]) -> Self {
        let key = sealed.key.clone();
        Self { key, epoch, nonce: sealed.nonce, toc: sealed.toc.encode() }
    }

    /// What reads the layer.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the table of contents does not parse.
    pub fn reader(&self, drive: &DriveId) -> Result<LayerReader> {
        let toc = Toc::decode(&self.toc)?;
        Ok(LayerReader::new(self.key.clone(), toc, drive.0, self.epoch, self.nonce))
    }

    /// Whether a layer of `len` bytes can have this table of contents.
    ///
    /// # Errors
    /// [`Error::Corrupt`] with the rule that is broken.
    fn check(&self, len: u64) -> Result<()> {
        let end = Toc::decode(&self.toc)?.end().unwrap_or(u64::MAX);
        match end <= len && len <= LAYER_BYTES_MAX as u64 {
            true => Ok(()),
            false => Err(Error::corrupt("a layer", format!("it cannot have {len} bytes"))),
        }
    }

    fn encode(&self) -> Vec<u8> {
        minicbor::to_vec(self).expect("memory takes every write")
    }
}

impl LayerRow {
    /// The record that tells other devices of the layer.
    pub fn record(&self) -> Record {
        let LayerSecret { key, epoch, nonce, toc } = self.secret.clone();
        Record::Layer { id: self.id, len: self.len, key, epoch, nonce, toc }
    }
}

impl Index {
    /// Adds a layer and its chunks, in the order of their numbers; idempotent.
    ///
    /// # Errors
    /// Of the database.
    pub fn add_layer(
        &self,
        id: BlobId,
        len: u64,
        secret: &LayerSecret,
        chunks: &[ChunkId],
        published: bool,
    ) -> Result<LayerNumber> {
        if let Some(number) = self.layer_number(&id)? {
            return Ok(number);
        }
        secret.check(len)?;
        let row = self.seal_row(ROW, id.as_bytes(), &secret.encode());
        let number = self.draw_layer_number()?;
        self.with(|db| {
            db.prepare_cached("INSERT INTO layer VALUES (?, ?, ?, ?, ?)")?.execute(params![
                number.0,
                id.as_bytes(),
                len,
                published,
                row
            ])?;
            let mut insert = db.prepare_cached("INSERT OR REPLACE INTO chunk VALUES (?, ?, ?)")?;
            for (n, chunk) in chunks.iter().enumerate() {
                insert.execute(params![chunk.0, number.0, n])?;
            }
            Ok(number)
        })
    }

    /// A number that no layer ever had here, also none that was removed.
    fn draw_layer_number(&self) -> Result<LayerNumber> {
        let last = self.with(|db| {
            db.prepare_cached("SELECT coalesce(max(number), 0) FROM layer")?
                .query_row([], |row| row.get(0))
        })?;
        let number = self.number(LAST)?.unwrap_or(0).max(last) + 1;
        self.set_number(LAST, number)?;
        Ok(LayerNumber(number))
    }

    /// Forgets a layer and its chunks.
    ///
    /// # Errors
    /// Of the database.
    pub fn remove_layer(&self, layer: LayerNumber) -> Result<()> {
        const STATEMENTS: [&str; 4] = [
            "DELETE FROM chunk WHERE layer = ?",
            "DELETE FROM held WHERE layer = ?",
            "DELETE FROM damaged WHERE layer = ?",
            "DELETE FROM layer WHERE number = ?",
        ];
        self.with(|db| {
            STATEMENTS.iter().try_for_each(|statement| {
                db.prepare_cached(statement)?.execute([layer.0]).map(drop)
            })
        })
    }

    /// The chunk with this content, if the drive has one.
    ///
    /// # Errors
    /// Of the database.
    pub fn chunk(&self, id: &ChunkId) -> Result<Option<ChunkPlace>> {
        self.with(|db| {
            db.prepare_cached("SELECT layer, number FROM chunk WHERE id = ?")?
                .query_row([id.0], |row| {
                    Ok(ChunkPlace { layer: LayerNumber(row.get(0)?), number: row.get(1)? })
                })
                .optional()
        })
    }

    /// The local number of a layer.
    ///
    /// # Errors
    /// Of the database.
    pub fn layer_number(&self, id: &BlobId) -> Result<Option<LayerNumber>> {
        self.with(|db| {
            db.prepare_cached("SELECT number FROM layer WHERE id = ?")?
                .query_row([id.as_bytes()], |row| Ok(LayerNumber(row.get(0)?)))
                .optional()
        })
    }

    /// A layer, whole.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when there is none or its row does not open; of the database.
    pub fn layer(&self, number: LayerNumber) -> Result<LayerRow> {
        let row = self.layer_if_any(number)?;
        row.ok_or_else(|| Error::corrupt("index", format!("no layer {}", number.0)))
    }

    /// A layer, whole; none when there is none, or none any more.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when its row does not open; of the database.
    pub fn layer_if_any(&self, number: LayerNumber) -> Result<Option<LayerRow>> {
        let found = self.with(|db| {
            db.prepare_cached("SELECT id, len, row FROM layer WHERE number = ?")?
                .query_row([number.0], |row| {
                    Ok((row.get::<_, [u8; 32]>(0)?, row.get(1)?, row.get::<_, Vec<u8>>(2)?))
                })
                .optional()
        })?;
        let Some((id, len, row)) = found else { return Ok(None) };
        let plain = self.open_row(ROW, &id, &row)?;
        let secret = minicbor::decode(&plain)
            .map_err(|e| Error::corrupt(format!("index row of layer {}", number.0), e))?;
        Ok(Some(LayerRow { number, id: BlobId(id), len, secret }))
    }

    /// Layers `remote` does not hold yet, oldest first.
    ///
    /// # Errors
    /// Of the database.
    pub fn layers_to_push(
        &self,
        remote: RemoteNumber,
        after: LayerNumber,
        limit: usize,
    ) -> Result<Vec<(LayerNumber, BlobId, u64)>> {
        self.layers_where(
            "number > ?2 AND NOT EXISTS (SELECT 1 FROM held WHERE remote = ?1 AND layer = number)",
            remote,
            after,
            limit,
        )
    }

    /// Layers `remote` should hold, oldest first: those it is known to, and those it was caught
    /// without.
    ///
    /// # Errors
    /// Of the database.
    pub fn layers_owed(
        &self,
        remote: RemoteNumber,
        after: LayerNumber,
        limit: usize,
    ) -> Result<Vec<(LayerNumber, BlobId, u64)>> {
        self.layers_where(
            "number > ?2 AND (EXISTS (SELECT 1 FROM held WHERE remote = ?1 AND layer = number)
             OR EXISTS (SELECT 1 FROM damaged WHERE remote = ?1 AND layer = number))",
            remote,
            after,
            limit,
        )
    }

    /// Layers `remote` is known to hold, oldest first.
    ///
    /// # Errors
    /// Of the database.
    pub fn layers_held(
        &self,
        remote: RemoteNumber,
        after: LayerNumber,
        limit: usize,
    ) -> Result<Vec<(LayerNumber, BlobId, u64)>> {
        self.layers_where(
            "number > ?2 AND EXISTS (SELECT 1 FROM held WHERE remote = ?1 AND layer = number)",
            remote,
            after,
            limit,
        )
    }

    /// How many layers, and bytes, lie behind no remote at all yet.
    ///
    /// # Errors
    /// Of the database.
    pub fn unpushed(&self) -> Result<(u64, u64)> {
        self.with(|db| {
            db.prepare_cached(
                "SELECT count(*), coalesce(sum(len), 0) FROM layer
                 WHERE number NOT IN (SELECT layer FROM held)",
            )?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
        })
    }

    /// The remotes that hold a layer.
    ///
    /// # Errors
    /// Of the database.
    pub fn holders(&self, layer: LayerNumber) -> Result<Vec<RemoteNumber>> {
        self.with(|db| {
            db.prepare_cached("SELECT remote FROM held WHERE layer = ? ORDER BY remote")?
                .query_map([layer.0], |row| Ok(RemoteNumber(row.get(0)?)))?
                .collect()
        })
    }

    /// Notes that `remote` acknowledged a layer as durable, whatever was found before.
    ///
    /// # Errors
    /// Of the database.
    pub fn set_held(&self, remote: RemoteNumber, layer: LayerNumber, at: WallMs) -> Result<()> {
        self.with(|db| {
            // A layer that was collected while it was on its way is nobody's, and what a remote
            // that was removed holds does not count.
            db.prepare_cached(
                "INSERT OR REPLACE INTO held SELECT ?1, number, ?2 FROM layer WHERE number = ?3
                 AND EXISTS (SELECT 1 FROM remote WHERE number = ?1)",
            )?
            .execute(params![remote.0, at.0, layer.0])?;
            db.prepare_cached("DELETE FROM damaged WHERE remote = ? AND layer = ?")?
                .execute(params![remote.0, layer.0])
                .map(drop)
        })
    }

    /// Layers no commit has named yet and some remote holds, oldest first.
    ///
    /// # Errors
    /// Of the database.
    pub fn layers_nameable(&self, limit: usize) -> Result<Vec<LayerNumber>> {
        self.with(|db| {
            db.prepare_cached(
                "SELECT number FROM layer WHERE published = 0
                 AND number IN (SELECT layer FROM held) ORDER BY 1 LIMIT ?",
            )?
            .query_map([limit], |row| Ok(LayerNumber(row.get(0)?)))?
            .collect()
        })
    }

    /// The blob id of a layer if a commit names it.
    ///
    /// # Errors
    /// Of the database.
    pub fn layer_published(&self, layer: LayerNumber) -> Result<Option<BlobId>> {
        self.with(|db| {
            db.prepare_cached("SELECT id FROM layer WHERE number = ? AND published = 1")?
                .query_row([layer.0], |row| Ok(BlobId(row.get(0)?)))
                .optional()
        })
    }

    /// Layers no commit has named yet, oldest first.
    ///
    /// # Errors
    /// Of the database.
    pub fn layers_unpublished(&self, limit: usize) -> Result<Vec<LayerNumber>> {
        self.with(|db| {
            db.prepare_cached("SELECT number FROM layer WHERE published = 0 ORDER BY 1 LIMIT ?")?
                .query_map([limit], |row| Ok(LayerNumber(row.get(0)?)))?
                .collect()
        })
    }

    /// Notes that a commit names the layer.
    ///
    /// # Errors
    /// Of the database.
    pub fn set_layer_published(&self, layer: LayerNumber) -> Result<()> {
        self.with(|db| {
            db.prepare_cached("UPDATE layer SET published = 1 WHERE number = ?")?
                .execute([layer.0])
                .map(drop)
        })
    }

    /// All layers, oldest first.
    ///
    /// # Errors
    /// Of the database.
    pub fn layers_all(&self, after: LayerNumber, limit: usize) -> Result<Vec<LayerNumber>> {
        self.with(|db| {
            db.prepare_cached("SELECT number FROM layer WHERE number > ? ORDER BY 1 LIMIT ?")?
                .query_map(params![after.0, limit], |row| Ok(LayerNumber(row.get(0)?)))?
                .collect()
        })
    }

    fn layers_where(
        &self,
        condition: &str,
        remote: RemoteNumber,
        after: LayerNumber,
        limit: usize,
    ) -> Result<Vec<(LayerNumber, BlobId, u64)>> {
        let query =
            format!("SELECT number, id, len FROM layer WHERE {condition} ORDER BY number LIMIT ?3");
        self.with(|db| {
            db.prepare_cached(&query)?
                .query_map(params![remote.0, after.0, limit], |row| {
                    Ok((LayerNumber(row.get(0)?), BlobId(row.get(1)?), row.get(2)?))
                })?
                .collect()
        })
    }
}
