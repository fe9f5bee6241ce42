//! The tables of the index.

/// The version of the schema; another one is refused.
pub(super) const VERSION: i64 = 2;

/// Everything, in the order it is made.
pub(super) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS node (ino INTEGER PRIMARY KEY, row BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS xattr (
        ino INTEGER NOT NULL, hash BLOB NOT NULL, row BLOB NOT NULL,
        PRIMARY KEY (ino, hash)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS orphan (ino INTEGER PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS staged (ino INTEGER PRIMARY KEY);
    CREATE TABLE IF NOT EXISTS pending (
        kind INTEGER NOT NULL, id INTEGER NOT NULL, hash BLOB NOT NULL,
        PRIMARY KEY (kind, id, hash)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS tomb (link INTEGER PRIMARY KEY, row BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS unsettled (
        link INTEGER PRIMARY KEY, parent INTEGER NOT NULL, hash BLOB NOT NULL, row BLOB NOT NULL);
    CREATE INDEX IF NOT EXISTS unsettled_place ON unsettled (parent, hash);
    CREATE TABLE IF NOT EXISTS entry (
        link INTEGER PRIMARY KEY, parent INTEGER NOT NULL, hash BLOB NOT NULL, row BLOB NOT NULL);
    CREATE UNIQUE INDEX IF NOT EXISTS entry_name ON entry (parent, hash);
    CREATE INDEX IF NOT EXISTS entry_order ON entry (parent, link);
    CREATE TABLE IF NOT EXISTS layer (
        number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, len INTEGER NOT NULL,
        published INTEGER NOT NULL, row BLOB NOT NULL);
    CREATE INDEX IF NOT EXISTS layer_unpublished ON layer (number) WHERE published = 0;
    CREATE TABLE IF NOT EXISTS chunk (
        id BLOB PRIMARY KEY, layer INTEGER NOT NULL, number INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS held (
        remote INTEGER NOT NULL, layer INTEGER NOT NULL, at_ms INTEGER NOT NULL,
        PRIMARY KEY (remote, layer)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS held_layer ON held (layer);
    CREATE TABLE IF NOT EXISTS remote (number INTEGER PRIMARY KEY AUTOINCREMENT, row BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS audit (
        remote INTEGER NOT NULL, at_ms INTEGER NOT NULL, samples INTEGER NOT NULL,
        failures INTEGER NOT NULL, bytes INTEGER NOT NULL, whole INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS damaged (
        remote INTEGER NOT NULL, layer INTEGER NOT NULL, at_ms INTEGER NOT NULL, offset INTEGER,
        PRIMARY KEY (remote, layer)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS audit_newest ON audit (remote);
    CREATE TABLE IF NOT EXISTS device (key BLOB PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS log (
        log BLOB NOT NULL, number INTEGER NOT NULL, hash BLOB NOT NULL,
        applied INTEGER NOT NULL, lamport INTEGER NOT NULL, entry BLOB NOT NULL,
        PRIMARY KEY (log, number));
    CREATE INDEX IF NOT EXISTS log_unapplied ON log (log, number) WHERE applied = 0;";
