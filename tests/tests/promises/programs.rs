//! R22: programs that keep their data on the mount find it whole after a kill in their midst.
//!
//! What a program was told is durable must be there; what it was not told may be missing, but never
//! halved. git under kills stands in tests/tests/killed.rs.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rdrivefs_tests::daemon::{Bounded, kill_at_once};
use rdrivefs_tests::source_tree::copy_sources;
use rdrivefs_tests::world::{Device, World, assert_same_tree, run, wait_until};

use crate::{alone, text, user};

/// Whatever uses a mount whose daemon is dead ends by itself.
const SOON: Duration = Duration::from_secs(60);

/// Whether a program that a test needs is there; if not, that is said.
fn is_there(program: &str) -> bool {
    let there = run(Command::new("sh").args(["-c", "command -v \"$0\"", program])).code == Some(0);
    if !there {
        eprintln!("skipped: what {program} does (it is not installed)");
    }
    there
}

/// Lets a program write until it has confirmed so many lines and a moment more, then kills the
/// daemon under it. Returns what the program confirmed.
fn killed_under(world: &World, a: &Device, command: &mut Command, lines: usize) -> Vec<String> {
    let told = world.path("told");
    let file = fs::File::create(&told).unwrap();
    let mut program = Bounded::start(command.stdout(file).stderr(Stdio::null()));
    let pid = a.daemon().unwrap();
    let said = || fs::read_to_string(&told).unwrap();
    wait_until("the program has confirmed something", || {
        program.ended_within(Duration::ZERO).is_some() || said().lines().count() >= lines
    });
    std::thread::sleep(Duration::from_millis(30 + 17 * lines as u64));
    kill_at_once(pid);
    program.ends_within(SOON);
    let said = said();
    // The last line may be cut short.
    let whole = said.rfind('\n').map_or("", |end| &said[..end]);
    whole.lines().map(str::to_owned).collect()
}

fn sql(db: &Path, words: &str) -> String {
    let said = run(Command::new("sqlite3").args(["-bail", text(db), words]));
    assert_eq!(said.code, Some(0), "{words}: {said:?}");
    said.out.trim().to_owned()
}

/// Rows that are to be written: more than any machine commits before the kill.
const ROWS: usize = 20_000;

fn databases_survive(rounds: usize) {
    if !is_there("sqlite3") {
        return;
    }
    let world = World::new();
    let a = alone(&world);
    for mode in ["wal", "delete"] {
        a.mount();
        let db = a.dir.join(format!("{mode}.db"));
        let made = format!("PRAGMA journal_mode={mode}; CREATE TABLE t(n INTEGER PRIMARY KEY, b);");
        assert_eq!(sql(&db, &made), mode);
        let insert = "INSERT INTO t(b) VALUES(randomblob(3000)) RETURNING n;\n".repeat(ROWS);
        let words = world.path("words");
        fs::write(&words, format!("PRAGMA synchronous=FULL;\n{insert}")).unwrap();
        let read = format!(".read {}", text(&words));
        for round in 0..rounds {
            // Each line is told at once, or the kill comes after the last.
            let mut sqlite = Command::new("stdbuf");
            sqlite.args(["-oL", "sqlite3", "-bail", text(&db), &read]);
            let told = killed_under(&world, &a, &mut sqlite, 3 + round);
            a.mount();
            assert_eq!(sql(&db, "PRAGMA integrity_check;"), "ok", "{mode}, round {round}");
            assert!(told.len() < ROWS, "{mode}, round {round}: it was killed in the midst");
            // A row is returned before it is committed; the next one says that it was.
            if let Some(last) = told.iter().nth_back(1) {
                let found = sql(&db, &format!("SELECT count(*) FROM t WHERE n={last};"));
                assert_eq!(found, "1", "{mode}, round {round}: row {last} was committed");
            }
        }
        a.unmount();
    }
}

#[test]
fn r22_sqlite_in_both_journal_modes_loses_no_committed_row() {
    databases_survive(2);
}

#[test]
#[ignore = "long: databases under a hundred kills"]
fn r22_long_sqlite_in_both_journal_modes_loses_no_committed_row() {
    databases_survive(50);
}

fn saves_survive(rounds: usize) {
    let world = World::new();
    let (a, user) = (alone(&world), user(&world));
    for round in 0..rounds {
        a.mount();
        let path = a.dir.join("document");
        let mut save = Command::new(&user);
        save.args(["save", text(&path), "100000"]);
        let told = killed_under(&world, &a, &mut save, 3 + round % 7);
        a.mount();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 70_000, "the old or the new, never a part");
        let version: usize = std::str::from_utf8(&bytes[..8]).unwrap().parse().unwrap();
        let confirmed: usize = told.last().map_or(0, |last| last.parse().unwrap());
        assert!(version >= confirmed, "version {version} after {confirmed} was saved");
        let fill = b'a' + (version % 26) as u8;
        assert!(bytes[32..].iter().all(|byte| *byte == fill), "two versions in one file");
        kill_at_once(a.daemon().unwrap());
    }
}

#[test]
fn r22_a_saved_document_is_the_old_or_the_new_one() {
    saves_survive(3);
}

#[test]
#[ignore = "long: documents under a hundred kills"]
fn r22_long_a_saved_document_is_the_old_or_the_new_one() {
    saves_survive(100);
}

#[test]
fn r22_rsync_killed_and_run_again_makes_the_trees_alike() {
    if !is_there("rsync") {
        return;
    }
    let world = World::new();
    let a = alone(&world);
    let from = world.path("from");
    copy_sources(&from, 300);
    let source = format!("{}/", text(&from));
    let to = a.dir.join("to");
    for lines in [20, 120] {
        a.mount();
        let mut rsync = Command::new("rsync");
        rsync.args(["-a", "--out-format=%n", "--outbuf=L", &source]).arg(&to);
        killed_under(&world, &a, &mut rsync, lines);
    }
    a.mount();
    // What the killed one was about to rename is in the way of nobody, and goes with `--delete`.
    let mut again = Command::new("rsync");
    let said = run(again.args(["-a", "--checksum", "--delete", &source]).arg(&to));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_same_tree(&from, &to);
    let mut compared = Command::new("rsync");
    let said = run(compared.args(["-ain", "--checksum", "--delete", &source]).arg(&to));
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""), "nothing is left to do: {said:?}");
}

/// As editors save that keep a copy: the old one is renamed away, the new one written in its place.
#[test]
fn r22_an_editor_that_keeps_a_backup_leaves_one_of_both() {
    if !is_there("vim") {
        return;
    }
    let world = World::new();
    let a = alone(&world);
    a.mount();
    let path = a.dir.join("text.txt");
    fs::write(&path, "zero\n".repeat(30_000)).unwrap();
    fs::File::open(&path).unwrap().sync_all().unwrap();
    for (round, word) in ["one", "two", "three"].into_iter().enumerate() {
        let change = format!("%s/.*/{word}/");
        let mut vim = Command::new("vim");
        vim.args(["-es", "-u", "NONE", "-i", "NONE", "-c", "set backup bsk= backupcopy=no fsync"]);
        vim.args(["-c", &change, "-c", "wq", text(&path)]).env("TERM", "dumb");
        let said = run(&mut vim);
        assert_eq!(said.code, Some(0), "{said:?}");
        kill_at_once(a.daemon().unwrap());
        a.mount();
        let whole = |name: &str, word: &str| {
            fs::read_to_string(a.dir.join(name))
                .is_ok_and(|t| t == format!("{word}\n").repeat(30_000))
        };
        let before = ["zero", "one", "two"][round];
        assert!(whole("text.txt", word), "what vim has saved, as it syncs");
        assert!(whole("text.txt~", before), "and what was there before");
    }
}
