//! What goes wrong is refused with the code of the contract, a sentence, and nothing lost.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rdrivefs_tests::world::{Device, Node, Said, World, run};

/// The code, a sentence, and where it is promised a next step.
#[track_caller]
fn fails(said: &Said, code: i32, next: bool) {
    assert_eq!(said.code, Some(code), "{said:?}");
    let words = format!("{}{}", said.out, said.err);
    assert!(words.trim().len() > 15, "no sentence: {said:?}");
    assert!(!words.contains("panicked"), "{said:?}");
    assert!(!next || words.lines().count() > 1, "no next step: {said:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn file(world: &World, name: &str, bytes: &[u8]) -> PathBuf {
    let path = world.path(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn founder() -> (World, Node, Device) {
    let world = World::new();
    let node = world.node("node");
    let a = world.founder("a", &node);
    (world, node, a)
}

fn only(dir: &Path, begins: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    all.filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with(begins)).collect()
}

fn flip(path: &Path, from: usize, step: usize) {
    let mut bytes = fs::read(path).unwrap();
    for at in (from..bytes.len()).step_by(step) {
        bytes[at] ^= 0x55;
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_wrong_passphrase_is_locked_and_the_right_one_opens() {
    let world = World::new();
    let a = world.device("a");
    let right = file(&world, "right", b"a long enough passphrase\n");
    let wrong = file(&world, "wrong", b"another long passphrase\n");
    let phrase = world.path("phrase");
    a.ok(&["init", "--passphrase-file", text(&right), "--recovery-file", text(&phrase)]);
    fails(&a.run(&["ls", "--passphrase-file", text(&wrong)]), 6, true);
    fails(&a.run(&["mount", a.dir_str(), "--passphrase-file", text(&wrong)]), 6, true);
    a.ok(&["ls", "--passphrase-file", text(&right)]);
}

#[test]
fn a_wrong_phrase_is_locked() {
    let (world, node, _a) = founder();
    let b = world.device("b");
    let init = |phrase: &Path| {
        b.run(&["init", "--no-passphrase", "--recover", text(phrase), "--remote", &node.url])
    };
    let good = fs::read_to_string(world.path("phrase")).unwrap();
    fails(&init(&file(&world, "nonsense", b"these are not the words")), 6, true);
    let mut words: Vec<_> = good.split_whitespace().collect();
    words.swap(0, 1);
    fails(&init(&file(&world, "swapped", words.join(" ").as_bytes())), 6, true);
    let c = world.device("c");
    let other = world.path("other-phrase");
    c.ok(&["init", "--no-passphrase", "--recovery-file", text(&other)]);
    fails(&init(&other), 6, true);
    let said = init(&world.path("phrase"));
    assert_eq!(said.code, Some(0), "after all the wrong ones the right one works: {said:?}");
}

#[test]
fn another_key_than_the_urls_is_refused() {
    let world = World::new();
    let (node, other) = (world.node("node"), world.node("other"));
    let a = world.device("a");
    a.ok(&["init", "--no-passphrase", "--recovery-file", text(&world.path("phrase"))]);
    let key = |url: &str| url.split("key=").nth(1).unwrap()[..64].to_owned();
    let url = node.invite().replace(&key(&node.url), &key(&other.url));
    fails(&a.run(&["remote", "add", "home", &url]), 5, true);
    a.ok(&["remote", "add", "home", &node.invite()]);
}

#[test]
fn a_node_that_is_away_loses_nothing() {
    let (_world, mut node, a) = founder();
    a.mount();
    a.ok(&["sync"]);
    node.kill();
    fs::write(a.dir.join("while away"), b"kept").unwrap();
    fails(&a.run(&["sync", "--timeout", "5s"]), 4, true);
    assert_eq!(fs::read(a.dir.join("while away")).unwrap(), b"kept");
    a.unmount();
    a.mount();
    assert_eq!(fs::read(a.dir.join("while away")).unwrap(), b"kept");
    node.kill_and_restart();
    a.ok(&["sync"]);
    a.ok(&["verify", "--all"]);
}

#[test]
fn an_invite_works_once() {
    let world = World::new();
    let node = world.node("node");
    let invite = node.invite();
    let (a, b) = (world.device("a"), world.device("b"));
    a.ok(&["init", "--no-passphrase", "--recovery-file", text(&world.path("phrase-a"))]);
    b.ok(&["init", "--no-passphrase", "--recovery-file", text(&world.path("phrase-b"))]);
    a.ok(&["remote", "add", "home", &invite]);
    fails(&b.run(&["remote", "add", "home", &invite]), 1, true);
    b.ok(&["remote", "add", "home", &node.invite()]);
}

#[test]
fn a_newer_keys_file_is_left_alone() {
    let (_world, _node, a) = founder();
    let keys = a.home.join("config/default/keys");
    let good = fs::read(&keys).unwrap();
    let mut newer = good.clone();
    newer[8] = 99;
    fs::write(&keys, &newer).unwrap();
    fails(&a.run(&["ls"]), 1, true);
    assert_eq!(fs::read(&keys).unwrap(), newer, "it is not written over");
    fs::write(&keys, &good).unwrap();
    a.ok(&["ls"]);
}

#[test]
fn a_damaged_index_is_named_and_put_back_works() {
    let (_world, _node, a) = founder();
    a.mount();
    fs::write(a.dir.join("f"), b"content").unwrap();
    a.ok(&["sync"]);
    a.unmount();
    let index = a.home.join("state/default/index");
    let good = fs::read(&index).unwrap();
    flip(&index, 0, 64);
    fails(&a.run(&["ls"]), 3, true);
    fs::write(&index, good).unwrap();
    assert!(a.ok(&["ls"]).contains('f'));
}

#[test]
fn a_journal_damaged_before_what_was_confirmed_is_named() {
    let (_world, _node, a) = founder();
    a.mount();
    for i in 0..200 {
        fs::write(a.dir.join(format!("f{i}")), b"content").unwrap();
    }
    fs::File::open(&a.dir).unwrap().sync_all().unwrap();
    a.kill_daemon();
    let logs = only(&a.home.join("state/default/journal"), "log-");
    assert!(!logs.is_empty());
    let good: Vec<_> = logs.iter().map(|log| (log, fs::read(log).unwrap())).collect();
    for log in &logs {
        // One byte: what follows still opens, and says that this was confirmed.
        flip(log, 5_000, usize::MAX);
    }
    let said = a.run(&["mount", a.dir_str()]);
    if said.code == Some(0) {
        // The index stood past the damage already, so nothing of it was needed.
        assert_eq!(fs::read_dir(&a.dir).unwrap().count(), 200);
        return;
    }
    fails(&said, 3, true);
    for (log, bytes) in good {
        fs::write(log, bytes).unwrap();
    }
    a.mount();
    assert_eq!(fs::read_dir(&a.dir).unwrap().count(), 200);
}

#[test]
fn a_mount_point_must_be_free_and_outside_of_the_state() {
    let (world, _node, a) = founder();
    let full = world.path("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), b"x").unwrap();
    fails(&a.run(&["mount", text(&full)]), 1, false);
    fails(&a.run(&["mount", text(&world.path("no/such/parent"))]), 1, true);
    fails(&a.run(&["mount", text(&a.home)]), 5, true);
    a.mount();
    assert_eq!(fs::read(full.join("mine")).unwrap(), b"x");
    let c = world.device("c");
    c.ok(&["init", "--no-passphrase", "--recovery-file", text(&world.path("phrase-c"))]);
    fails(&c.run(&["mount", a.dir_str()]), 7, false);
    fails(&a.run(&["mount", text(&world.path("second"))]), 7, true);
}

#[test]
fn what_is_not_proven_is_not_evicted() {
    let (_world, _node, a) = founder();
    a.mount();
    fs::write(a.dir.join("f"), vec![3; 100_000]).unwrap();
    a.ok(&["sync"]);
    fails(&a.run(&["evict", a.dir_str()]), 5, false);
    assert_eq!(fs::read(a.dir.join("f")).unwrap(), vec![3; 100_000]);
}

#[test]
fn wrong_words_and_a_home_without_a_drive() {
    let (world, _node, a) = founder();
    fails(&a.run(&["frobnicate"]), 2, true);
    fails(&a.run(&["verify", "--samples", "many"]), 2, true);
    fails(&a.run(&["remote", "add", "x", "rdrive://nonsense"]), 2, false);
    let nobody = world.device("nobody");
    for words in [["sync"], ["status"], ["ls"]] {
        fails(&nobody.run(&words), 1, true);
    }
}

/// A small disk, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn new(at: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        let said = run(mount.args(["-t", "tmpfs", "-o", &options, "none"]).arg(&at));
        (said.code == Some(0)).then_some(Self(at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(run(Command::new("umount").arg("-l").arg(&self.0)));
    }
}

#[test]
fn a_full_disk_reaches_the_writer_and_room_lets_it_go_on() {
    let world = World::new();
    let Some(_disk) = Disk::new(world.path("a"), "400M") else { return };
    let a = world.device("a");
    a.ok(&["init", "--no-passphrase", "--recovery-file", text(&world.path("phrase"))]);
    a.mount();
    let write = |name: &str, mib: &str| {
        let to = format!("of={}", text(&a.dir.join(name)));
        let count = format!("count={mib}");
        let words = ["30", "dd", "if=/dev/urandom", &to, "bs=1M", &count, "conv=fsync"];
        run(Command::new("timeout").args(words))
    };
    fs::write(a.dir.join("small"), b"before").unwrap();
    let said = write("big", "600");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("No space left"), "{said:?}");
    assert_eq!(fs::read(a.dir.join("small")).unwrap(), b"before");
    fs::remove_file(a.dir.join("big")).unwrap();
    let mut said = write("again", "4");
    for _ in 0..10 {
        if said.code == Some(0) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(500));
        said = write("again", "4");
    }
    assert_eq!(said.code, Some(0), "writing works again: {said:?}");
}

#[test]
fn a_full_node_says_so_and_nothing_is_lost() {
    let world = World::new();
    let Some(_disk) = Disk::new(world.path("disk"), "8M") else { return };
    let node = Node::start(&world.path("disk/store"), "127.0.0.1:0");
    let a = world.founder("a", &node);
    a.mount();
    let mut bytes = vec![0; 20 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    fs::write(a.dir.join("big"), &bytes).unwrap();
    fails(&a.run(&["sync", "--timeout", "15s"]), 1, true);
    assert!(fs::read(a.dir.join("big")).unwrap() == bytes);
    let more =
        Command::new("mount").args(["-o", "remount,size=64M"]).arg(world.path("disk")).output();
    assert!(more.unwrap().status.success());
    a.ok(&["sync"]);
    a.ok(&["verify", "--all"]);
}
