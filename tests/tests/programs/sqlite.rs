//! SQLite on a drive: its locks, its shared memory, its journals, its trust in fsync.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rdrivefs_tests::world::run;
use rusqlite::Connection;

use crate::drive::{Drive, missing, sh, shell, wait_for};
use rdrivefs_tests::peer::Peer;

/// Rows that each of two writers adds, one a transaction.
const ROWS: i64 = 40;

/// Rows of a transaction that is to be there whole or not at all.
const WHOLE: i64 = 300;

fn open(path: &Path, mode: &str) -> Connection {
    let db = Connection::open(path).unwrap();
    db.busy_timeout(Duration::from_secs(60)).unwrap();
    let set: String =
        db.query_row(&format!("PRAGMA journal_mode={mode}"), [], |row| row.get(0)).unwrap();
    assert_eq!(set, mode);
    db
}

#[track_caller]
fn assert_sound(db: &Connection) {
    let answer: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(answer, "ok");
}

fn count(db: &Connection, what: &str) -> i64 {
    db.query_row(&format!("SELECT {what} FROM t"), [], |row| row.get(0)).unwrap()
}

/// Two processes of the shell of SQLite write, while this one reads, in another library of it.
fn two_write_and_one_reads(mode: &str) {
    let drive = Drive::new();
    let path = drive.path("db");
    let db = open(&path, mode);
    db.execute_batch("CREATE TABLE t(w, i)").unwrap();
    let script = drive.outside("sql");
    let mut writers = Vec::new();
    for writer in ["a", "b"] {
        let mut sql = String::from(".timeout 60000\n");
        for row in 0..ROWS {
            sql += &format!("BEGIN IMMEDIATE; INSERT INTO t VALUES('{writer}', {row}); COMMIT;\n");
        }
        std::fs::write(script.join(writer), sql).unwrap();
        let work = format!("sqlite3 -bail {} < {}/{writer}", path.display(), script.display());
        writers.push(Peer::of(&mut shell(&work)));
    }
    let mut seen = 0;
    wait_for("both have written", || {
        let rows = count(&db, "count(*)");
        assert!(rows >= seen, "a reader went back in time, from {seen} to {rows}");
        seen = rows;
        seen == 2 * ROWS
    });
    for writer in &mut writers {
        assert!(writer.end().success(), "{:?}", writer.rest());
    }
    assert_eq!(count(&db, "count(DISTINCT w || i)"), 2 * ROWS, "each row once");
    assert_sound(&db);
    db.execute_batch("PRAGMA mmap_size=1000000; DELETE FROM t WHERE i % 2; VACUUM").unwrap();
    drop(db);
    drive.remount();
    let db = open(&path, mode);
    assert_sound(&db);
    assert_eq!(count(&db, "count(*)"), ROWS);
}

#[test]
fn sqlite_in_wal_mode_takes_two_writers_and_a_reader() {
    if !missing(&["sqlite3"], "SQLite in WAL mode, from two processes") {
        two_write_and_one_reads("wal");
    }
}

#[test]
fn sqlite_with_a_rollback_journal_takes_two_writers_and_a_reader() {
    if !missing(&["sqlite3"], "SQLite with a rollback journal, from two processes") {
        two_write_and_one_reads("delete");
    }
}

/// The statements of a writer that never ends by itself, and says the number of each commit.
fn endless(dir: &Path, first: usize) -> Command {
    let rows = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {WHOLE})"
    );
    let script = format!(
        "i={first}; (echo '.timeout 60000'; echo 'PRAGMA synchronous=EXTRA;' 'PRAGMA cache_size=5;'
        while :; do
            echo \"BEGIN; INSERT INTO t {rows} SELECT hex(randomblob(100)), $i FROM n; COMMIT;\"
            echo \"SELECT 'done', $i;\"; i=$((i + 1))
        done) | exec sqlite3 -bail db"
    );
    let mut command = shell(&script);
    command.current_dir(dir);
    command
}

/// The last commit that the writer has told of, after some of them.
fn last_told(writer: &mut Peer, commits: usize) -> usize {
    let number = |line: String| line.strip_prefix("done|")?.parse::<usize>().ok();
    let mut last = 0;
    for _ in 0..commits {
        let line = writer.hear();
        last = number(line).unwrap_or(last);
    }
    last
}

#[test]
fn sqlite_whose_writer_is_killed_comes_back_whole() {
    if missing(&["sqlite3"], "SQLite after the death of a writer") {
        return;
    }
    let drive = Drive::new();
    let dir = drive.dir("db");
    open(&dir.join("db"), "delete").execute_batch("CREATE TABLE t(w, i)").unwrap();
    for (mode, round) in [("delete", 1), ("wal", 2)] {
        drop(open(&dir.join("db"), mode));
        let mut writer = Peer::of(&mut endless(&dir, round * 1_000_000));
        let told = last_told(&mut writer, 4);
        kill_writers(&dir);
        drop(writer);
        let db = open(&dir.join("db"), mode);
        assert_sound(&db);
        assert_eq!(count(&db, "count(*)") % WHOLE, 0, "a transaction is there in part, in {mode}");
        assert!(
            count(&db, "max(i)") >= i64::try_from(told).unwrap(),
            "a commit is gone, in {mode}"
        );
    }
}

/// Ends the shells of SQLite that work in a folder, where they stand.
fn kill_writers(dir: &Path) {
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let is = |what: &str| std::fs::read_link(process.path().join(what)).unwrap_or_default();
        if is("cwd") == dir && is("exe").ends_with("sqlite3") {
            run(Command::new("kill").arg("-9").arg(process.file_name()));
        }
    }
}

#[test]
fn what_sqlite_has_committed_survives_the_death_of_the_mount() {
    if missing(&["sqlite3"], "SQLite after the death of the mount") {
        return;
    }
    let drive = Drive::new();
    let dir = drive.dir("db");
    open(&dir.join("db"), "delete").execute_batch("CREATE TABLE t(w, i)").unwrap();
    for (mode, round) in [("delete", 1), ("wal", 2), ("wal", 3)] {
        drop(open(&dir.join("db"), mode));
        let mut writer = Peer::of(&mut endless(&dir, round * 1_000_000));
        let mut told = last_told(&mut writer, 4);
        drive.device.kill_daemon();
        for line in writer.rest() {
            let number = line.strip_prefix("done|").and_then(|number| number.parse().ok());
            told = number.unwrap_or(told);
        }
        drop(writer);
        drive.device.mount();
        let db = open(&dir.join("db"), mode);
        assert_sound(&db);
        assert_eq!(count(&db, "count(*)") % WHOLE, 0, "a transaction is there in part, in {mode}");
        assert!(
            count(&db, "max(i)") >= i64::try_from(told).unwrap(),
            "a commit is gone, in {mode}"
        );
    }
}

#[test]
fn sqlite_backs_up_dumps_and_attaches() {
    if missing(&["sqlite3"], "SQLite's own backup on a drive") {
        return;
    }
    let drive = Drive::new();
    let dir = drive.dir("db");
    sh(&dir, "sqlite3 a 'CREATE TABLE t(w, i); CREATE INDEX x ON t(w)'");
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)";
    sh(&dir, &format!("sqlite3 a \"INSERT INTO t {rows} SELECT hex(randomblob(20)), i FROM n\""));
    sh(&dir, "sqlite3 a '.backup b' && sqlite3 a .dump > dump && sqlite3 c < dump");
    sh(&dir, "sqlite3 b .dump | cmp - dump && sqlite3 c .dump | cmp - dump");
    let both = "ATTACH 'b' AS b; BEGIN; DELETE FROM t; DELETE FROM b.t WHERE i > 1; COMMIT;";
    sh(&dir, &format!("sqlite3 a \"{both}\" && rm c"));
    assert_eq!(
        sh(&dir, "sqlite3 a 'SELECT count(*) FROM t' && sqlite3 b 'SELECT count(*) FROM t'"),
        "0\n1\n"
    );
    assert_eq!(sh(&dir, "ls"), "a\nb\ndump\n", "no journal is left");
}
