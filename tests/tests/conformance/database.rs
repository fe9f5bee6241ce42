//! The sqlite3 shell with its database on the drive, in every journal mode, with and without mmap.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::bed::Bed;
use crate::child::{Ended, run};
use crate::tools::system;
use crate::verdict::Verdict;

const MODES: [&str; 5] = ["delete", "truncate", "persist", "wal", "memory"];

/// Bytes of the database that are mapped.
const MAPPED: [u64; 2] = [0, 64 << 20];

/// Rows that are written; a third of them is deleted again.
const ROWS: u64 = 400;

const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn sqlite_keeps_its_databases_whole() {
    let bed = Bed::new();
    let (program, folder) = (system("sqlite3"), bed.folder("sqlite"));
    let mut verdict = Verdict::new("sqlite");
    for mode in MODES {
        for mapped in MAPPED {
            let case = format!("{mode}-{mapped}");
            let file = folder.join(&case);
            let written = run(sqlite(&program, &file).arg(work(mode, mapped)), LIMIT);
            let good = written.well() && is_whole(&written) && written.text.starts_with(mode);
            // And so says another process.
            let check = "SELECT 'rows', count(*) FROM t; PRAGMA integrity_check;";
            let checked = run(sqlite(&program, &file).arg(check), LIMIT);
            let worse = if good { &checked } else { &written };
            verdict.program(&case, worse, good && is_whole(&checked), &["rror"]);
        }
    }
    bed.settle(&mut verdict);
    verdict.judge(MODES.len() * MAPPED.len());
}

fn sqlite(program: &Path, file: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg("-batch").arg(file);
    command
}

fn is_whole(ended: &Ended) -> bool {
    let rows = format!("rows|{}", ROWS - ROWS / 3);
    let lines: Vec<_> = ended.text.lines().collect();
    lines.ends_with(&[rows.as_str(), "ok"])
}

fn work(mode: &str, mapped: u64) -> String {
    format!(
        "PRAGMA journal_mode={mode};
         PRAGMA mmap_size={mapped};
         CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB, c TEXT);
         CREATE INDEX i ON t(c);
         BEGIN;
         WITH RECURSIVE s(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM s WHERE x < {ROWS})
             INSERT INTO t SELECT x, zeroblob(x % 4000), hex(x * 7919) FROM s;
         COMMIT;
         DELETE FROM t WHERE a % 3 = 0;
         UPDATE t SET c = c || 'z' WHERE a % 2;
         VACUUM;
         SELECT 'rows', count(*) FROM t;
         PRAGMA integrity_check;"
    )
}
