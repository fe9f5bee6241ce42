//! Whatever is killed at whatever moment, what was promised is there afterwards.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rdrivefs_tests::source_tree::copy_sources;
use rdrivefs_tests::world::{World, assert_same_tree, run};

fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn git(dir: &Path, args: &[&str]) {
    let mut git = Command::new("git");
    git.args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]);
    git.args(["-c", "core.fsync=all", "-c", "gc.auto=0"]);
    let said = run(git.arg("-C").arg(dir).args(args));
    assert_eq!(said.code, Some(0), "git {args:?}: {said:?}");
}

/// Writes and syncs files until it is told to end or the mount dies; returns when it has ended.
fn load(dir: &Path, round: usize, end: &AtomicBool, synced: &Mutex<Vec<(String, usize)>>) {
    for i in 0.. {
        if end.load(Ordering::Relaxed) {
            return;
        }
        let (name, len) = (format!("r{round}-f{i}"), 1 + (i * 7_919) % 200_000);
        let Ok(mut file) = fs::File::create(dir.join(&name)) else { return };
        if file.write_all(&noise(&name, len)).and_then(|()| file.sync_all()).is_err() {
            return;
        }
        synced.lock().unwrap().push((name, len));
    }
}

#[test]
fn a_killed_mount_comes_back_with_all_that_was_synced() {
    let world = World::new();
    let node = world.node("node");
    let a = world.founder("a", &node);
    a.mount();
    let repo = a.dir.join("repo");
    copy_sources(&repo, 60);
    git(&repo, &["init", "-q"]);
    git(&repo, &["add", "-A", "-f"]);
    git(&repo, &["commit", "-qm", "all"]);
    let synced = Mutex::new(Vec::new());
    for round in 0..4 {
        let end = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| load(&a.dir, round, &end, &synced));
            thread::sleep(Duration::from_millis(300 + 150 * round as u64));
            a.kill_daemon();
            end.store(true, Ordering::Relaxed);
        });
        a.mount();
        for (name, len) in synced.lock().unwrap().iter() {
            let read = fs::read(a.dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(read == noise(name, *len), "{name} of {len} bytes is not what was synced");
        }
        git(&repo, &["fsck", "--strict"]);
    }
    assert!(synced.lock().unwrap().len() > 4, "there was load");
    a.ok(&["sync"]);
    a.ok(&["verify", "--all"]);
}

#[test]
fn a_node_killed_over_and_over_ends_with_everything() {
    let world = World::new();
    let mut node = world.node("node");
    let a = world.founder("a", &node);
    a.mount();
    for i in 0..40 {
        let name = format!("f{i}");
        fs::write(a.dir.join(&name), noise(&name, 500_000)).unwrap();
    }
    for round in 0..5 {
        let mut sync = a.command(&["sync", "--timeout", "10s"]);
        let mut sync = sync.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(40 + 60 * round));
        node.kill_and_restart();
        sync.wait().unwrap();
    }
    a.ok(&["sync"]);
    a.ok(&["verify", "--all"]);
    let b = world.device("b");
    let phrase = world.path("phrase");
    let phrase = phrase.to_str().unwrap();
    b.ok(&["init", "--no-passphrase", "--recover", phrase, "--remote", &node.url]);
    b.mount();
    assert_same_tree(&a.dir, &b.dir);
    assert_eq!(fs::read_dir(&b.dir).unwrap().count(), 40);
}
