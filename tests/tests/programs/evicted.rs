//! Programs on files whose bytes are not on this machine: they notice nothing of it.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};

use crate::copy::{assert_same, describe, make_tree};
use crate::drive::{Drive, missing, noise, sh};
use crate::peer::{compile, start_peer};

#[test]
fn evicted_programs_run_and_evicted_files_map_seek_and_grow() {
    let drive = Drive::kept();
    let dir = drive.dir("e");
    fs::copy("/bin/cat", dir.join("cat")).unwrap();
    fs::write(dir.join("script"), "#!/bin/sh\ncat \"$0\" | wc -l\n").unwrap();
    fs::set_permissions(dir.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut want = noise("evicted", 3 << 20);
    fs::write(dir.join("mapped"), &want).unwrap();
    fs::write(dir.join("grown"), &want).unwrap();
    sh(&dir, "printf x > holes && truncate -s 8M holes && printf y >> holes");
    drive.evict();
    assert_eq!(sh(&dir, "./script"), "2\n", "a script");
    assert_eq!(sh(&dir, "./cat script | tail -1"), "cat \"$0\" | wc -l\n", "a program");
    let peer = compile(&drive);
    let mut map = start_peer(&peer, &["map", &want.len().to_string()], &dir.join("mapped"));
    for at in [0, 1 << 20, want.len() - 1] {
        assert_eq!(map.ask(&format!("get {at}")), want[at].to_string(), "mapped at {at}");
    }
    assert_eq!(map.ask("set 5 7"), "ok");
    map.kill();
    want[5] = 7;
    assert!(fs::read(dir.join("mapped")).unwrap() == want, "written through a mapping");
    want[5] = noise("evicted", 6)[5];
    let file = File::options().write(true).open(dir.join("grown")).unwrap();
    file.write_all_at(b"middle", 2 << 20).unwrap();
    want[2 << 20..(2 << 20) + 6].copy_from_slice(b"middle");
    file.set_len(2_900_000).unwrap();
    want.truncate(2_900_000);
    assert!(fs::read(dir.join("grown")).unwrap() == want, "written in the middle and cut");
    sh(&dir, "cp --sparse=always holes h && cmp holes h && tail -c 1 h | grep -q y");
    drop(file);
    drive.evict();
    assert!(fs::read(dir.join("grown")).unwrap() == want, "sent, proven and evicted once more");
}

#[test]
fn an_evicted_tree_is_the_same_to_every_tool() {
    let drive = Drive::kept();
    let tree = drive.dir("tree");
    make_tree(&tree);
    let want = describe(&tree);
    drive.evict();
    assert_same(&describe(&tree), &want, "by its description");
    drive.evict();
    let own = drive.outside("own");
    sh(
        &own,
        &format!("cp -a {} copy && diff -r --no-dereference -x fifo {0} copy", tree.display()),
    );
    assert_same(&describe(&own.join("copy")), &want, "copied back");
    assert_eq!(
        sh(&tree, "grep -rlE '^#!/bin/sh' --exclude=fifo . | sort"),
        "./dir 0/exe-hard\n./exe\n"
    );
}

#[test]
fn git_and_sqlite_work_on_what_was_evicted() {
    let drive = Drive::kept();
    let repo = drive.dir("repo");
    sh(&repo, "git init -q");
    for round in 0..3 {
        for n in 0..30 {
            fs::write(repo.join(format!("f{n}")), noise(&format!("{round}/{n}"), 20_000)).unwrap();
        }
        sh(&repo, &format!("git add -A && git commit -qm c{round}"));
    }
    let sqlite = !missing(&["sqlite3"], "SQLite on a database that was evicted");
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)";
    if sqlite {
        let fill = format!("INSERT INTO t {rows} SELECT hex(randomblob(50)), i FROM n");
        sh(&drive.device.dir, &format!("sqlite3 db 'CREATE TABLE t(w, i); {fill}'"));
    }
    drive.evict();
    assert_eq!(sh(&repo, "git status --porcelain"), "");
    sh(&repo, "git fsck --strict && git checkout -q HEAD~1 && git checkout -q main");
    sh(&repo, "echo x > f0 && git commit -qam more && git gc -q --prune=now");
    if sqlite {
        let ask = "PRAGMA journal_mode=wal; DELETE FROM t WHERE i % 2; PRAGMA integrity_check;
            SELECT count(*) FROM t";
        assert_eq!(sh(&drive.device.dir, &format!("sqlite3 db '{ask}'")), "wal\nok\n2500\n");
    }
    drive.evict();
    sh(&repo, "git fsck --strict && git log -p --stat | cat > /dev/null");
    assert_eq!(sh(&repo, "git status --porcelain && cat f0"), "x\n");
}
