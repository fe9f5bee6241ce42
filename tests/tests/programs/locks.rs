//! Locks, exclusive creation and appending, between processes.

use std::fs;
use std::time::Duration;

use crate::drive::{Drive, names, sh, shell};
use crate::peer::{compile, start_peer};
use rdrivefs_tests::peer::Peer;

/// How long somebody who must wait is watched.
const WATCHED: Duration = Duration::from_millis(300);

/// One kind of lock: exclusive, shared, waited for, given back, and gone with its holder.
fn locks_exclude(kind: &str) {
    let drive = Drive::new();
    let path = drive.path("locked");
    fs::write(&path, [b'x'; 100]).unwrap();
    let peer = compile(&drive);
    let start = || start_peer(&peer, &["lock", kind], &path);
    let (mut first, mut second, mut third) = (start(), start(), start());
    assert_eq!(first.ask("take"), "got");
    assert_eq!(second.ask("take"), "busy", "it is held");
    assert_eq!(second.ask("share"), "busy", "it is held alone");
    assert_eq!(first.ask("free"), "got");
    assert_eq!(second.ask("share"), "got", "it was given back");
    assert_eq!(third.ask("share"), "got", "it is shared");
    assert_eq!(first.ask("take"), "busy", "two share it");
    assert_eq!(third.ask("free"), "got");
    first.tell("wait");
    assert!(first.is_silent(WATCHED), "it waits while one holds it");
    assert_eq!(second.ask("free"), "got");
    assert_eq!(first.hear(), "got", "and is woken");
    third.tell("wait");
    assert!(third.is_silent(WATCHED));
    first.kill();
    assert_eq!(third.hear(), "got", "it goes with the death of its holder");
    drop(start());
    assert_eq!(second.ask("take"), "busy", "and with nobody else's");
}

#[test]
fn flock_excludes_wakes_and_dies_with_its_holder() {
    locks_exclude("flock");
}

#[test]
fn posix_locks_exclude_wake_and_die_with_their_holder() {
    locks_exclude("posix");
}

#[test]
fn open_file_locks_exclude_wake_and_die_with_their_holder() {
    locks_exclude("ofd");
}

#[test]
fn shells_count_together_under_a_lock() {
    let drive = Drive::new();
    let dir = drive.dir("count");
    fs::write(dir.join("n"), "0\n").unwrap();
    let work = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
        flock n.lock sh -c 'read n < n; echo $((n + 1)) > n'; done";
    let mut shells: Vec<_> = (0..4).map(|_| Peer::of(shell(work).current_dir(&dir))).collect();
    for shell in &mut shells {
        assert!(shell.end().success());
    }
    assert_eq!(fs::read_to_string(dir.join("n")).unwrap(), "60\n", "a count was lost");
}

#[test]
fn of_those_who_create_a_name_at_once_one_wins() {
    let drive = Drive::new();
    let peer = compile(&drive);
    let dir = drive.dir("race");
    let mut peers: Vec<_> =
        (0..3).map(|_| start_peer(&peer, &["exclusive", "200"], &dir)).collect();
    for peer in &mut peers {
        peer.tell("go");
    }
    let won: Vec<usize> = peers.iter_mut().map(|peer| peer.hear().parse().unwrap()).collect();
    assert_eq!(won.iter().sum::<usize>(), 200, "{won:?}");
    assert_eq!(names(&dir).len(), 200);
    // Folders, as lock directories are made.
    let work = "for i in $(seq 50); do mkdir d$i 2> /dev/null && echo $i; done; true";
    let mut shells: Vec<_> = (0..2).map(|_| Peer::of(shell(work).current_dir(&dir))).collect();
    let won: usize = shells.iter_mut().map(|shell| shell.rest().len()).sum();
    assert_eq!(won, 50, "each folder was made by one");
}

#[test]
fn those_who_append_to_one_file_keep_every_line() {
    let drive = Drive::new();
    let peer = compile(&drive);
    let log = drive.path("log");
    let start = |word| start_peer(&peer, &["append", word, "500"], &log);
    let mut peers = ["a", "b", "c"].map(start);
    for peer in &mut peers {
        peer.tell("go");
    }
    for peer in &mut peers {
        assert_eq!(peer.hear(), "done");
    }
    let read = || {
        let log = fs::read_to_string(&log).unwrap();
        let mut lines: Vec<_> = log.lines().map(str::to_owned).collect();
        lines.sort();
        lines.dedup();
        lines
    };
    let lines = read();
    assert_eq!(lines.len(), 1_500, "a line was overwritten");
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "a line is torn");
    for (word, lines) in ["a", "b", "c"].iter().zip(lines.chunks(500)) {
        let numbered = |(n, line): (usize, &String)| line.starts_with(&format!("{word} {n:06} "));
        assert!(lines.iter().enumerate().all(numbered), "the lines of {word}");
    }
    drive.remount();
    assert_eq!(read(), lines, "and after mounting again");
}

#[test]
fn pipes_and_sockets_join_processes() {
    let drive = Drive::new();
    let dir = drive.dir("pipes");
    sh(&dir, "mkfifo -m 640 p");
    let mut reader = Peer::of(shell("exec cat p").current_dir(&dir));
    sh(&dir, "echo through > p");
    assert_eq!(reader.rest(), ["through"]);
    let listener = std::os::unix::net::UnixListener::bind(dir.join("s")).unwrap();
    std::os::unix::net::UnixStream::connect(dir.join("s")).unwrap();
    assert_eq!(sh(&dir, "stat -c '%F %a' p; stat -c %F s"), "fifo 640\nsocket\n");
    drop(listener);
    drive.remount();
    assert_eq!(sh(&dir, "stat -c '%F %a' p; stat -c %F s"), "fifo 640\nsocket\n");
    let refused = std::os::unix::net::UnixStream::connect(dir.join("s")).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused, "nobody listens any more");
    let mut writer = Peer::of(shell("echo again > p").current_dir(&dir));
    assert_eq!(sh(&dir, "cat p"), "again\n");
    assert!(writer.end().success());
}
