//! Files mapped into memory: shared between processes, seen by read and write, cut while mapped.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;

use rustix::fs::{Advice, fadvise};

use crate::drive::{Drive, noise};
use crate::peer::{compile, start_peer};

/// A signal for who reads a page that a file has no more.
const SIGBUS: i32 = 7;

fn forget(file: &File) {
    fadvise(file, 0, None, Advice::DontNeed).unwrap();
}

#[test]
fn a_mapping_is_shared_between_processes_and_with_read_and_write() {
    let drive = Drive::new();
    let path = drive.path("mapped");
    fs::write(&path, [0; 16_384]).unwrap();
    let peer = compile(&drive);
    let start = || start_peer(&peer, &["map", "16384"], &path);
    let (mut a, mut b) = (start(), start());
    assert_eq!((a.ask("set 5 77"), b.ask("get 5")), ("ok".into(), "77".into()), "b sees a's");
    assert_eq!((b.ask("set 9000 99"), a.ask("get 9000")), ("ok".into(), "99".into()), "a sees b's");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    file.write_all_at(b"Z", 100).unwrap();
    assert_eq!(a.ask("get 100"), "90", "a mapping sees a write");
    let byte = |at| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        byte[0]
    };
    assert_eq!((a.ask("set 200 55"), byte(200)), ("ok".into(), 55), "a read sees a mapping");
    assert_eq!(a.ask("sync"), "ok");
    forget(&file);
    assert_eq!(byte(9000), 99, "what was synced is stored");
    fs::rename(&path, drive.path("moved")).unwrap();
    assert_eq!((b.ask("set 300 44"), byte(300)), ("ok".into(), 44), "it follows a rename");
    assert_eq!((a.ask("drop"), b.ask("drop")), ("ok".into(), "ok".into()));
    drop((a, b, file));
    drive.remount();
    let kept = fs::read(drive.path("moved")).unwrap();
    assert_eq!([5, 100, 200, 300, 9000].map(|at| kept[at]), [77, 90, 55, 44, 99], "for good");
}

#[test]
fn what_is_written_through_a_mapping_is_stored_like_any_other() {
    let drive = Drive::new();
    let path = drive.path("mapped");
    let size: u64 = 3_000_001;
    File::create(&path).unwrap().set_len(size).unwrap();
    let peer = compile(&drive);
    let mut map = start_peer(&peer, &["map", &size.to_string()], &path);
    let mut want = vec![0; usize::try_from(size).unwrap()];
    let some = noise("mapped", 400);
    for (step, value) in some.iter().enumerate() {
        let at = (step * 7_919 * 13) % want.len();
        want[at] = *value;
        assert_eq!(map.ask(&format!("set {at} {value}")), "ok");
    }
    *want.last_mut().unwrap() = 200;
    assert_eq!(map.ask(&format!("set {} 200", size - 1)), "ok");
    // Not one msync: the end of the process is enough.
    map.kill();
    assert!(fs::read(&path).unwrap() == want);
    let file = File::open(&path).unwrap();
    file.sync_all().unwrap();
    forget(&file);
    assert!(fs::read(&path).unwrap() == want, "from the drive");
    let mut map = start_peer(&peer, &["map", &size.to_string()], &path);
    assert_eq!(map.ask(&format!("get {}", size - 1)), "200", "mapped again");
    drop((map, file));
    drive.crash();
    assert!(fs::read(&path).unwrap() == want, "after fsync and the death of the mount");
}

#[test]
fn a_file_cut_while_it_is_mapped_ends_where_it_was_cut() {
    let drive = Drive::new();
    let path = drive.path("mapped");
    fs::write(&path, [b'a'; 20_000]).unwrap();
    let peer = compile(&drive);
    let mut map = start_peer(&peer, &["map", "20000"], &path);
    assert_eq!(map.ask("get 19999"), "97");
    let file = File::options().read(true).write(true).open(&path).unwrap();
    file.set_len(5_000).unwrap();
    assert_eq!(["get 0", "get 4999", "get 5001"].map(|ask| map.ask(ask)), ["97", "97", "0"]);
    map.tell("get 12288");
    assert_eq!(map.end().signal(), Some(SIGBUS), "there is nothing to read");
    file.set_len(20_000).unwrap();
    let mut want = vec![b'a'; 5_000];
    want.resize(20_000, 0);
    assert!(fs::read(&path).unwrap() == want, "what grew again is zero");
    let mut map = start_peer(&peer, &["map", "20000"], &path);
    assert_eq!(map.ask("get 12288"), "0");
    assert_eq!(map.ask("set 12288 9"), "ok");
    drop(map);
    file.sync_all().unwrap();
    forget(&file);
    want[12_288] = 9;
    assert!(fs::read(&path).unwrap() == want);
}
