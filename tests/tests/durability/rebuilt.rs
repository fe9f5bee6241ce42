//! R10: an index that is lost or damaged is made anew in place, and the tree is what it was, to the
//! last attribute, with what was fsynced and sent to nobody.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use rdrivefs_tests::portrait::{Portrait, assert_same, exact, told};
use rdrivefs_tests::world::{Device, Node, World, run, wait_until};

use crate::founder;

/// Bytes that no compressor makes shorter.
fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

/// A tree with something of everything.
fn furnish(a: &Device) {
    let deep = a.dir.join("deep/er");
    fs::create_dir_all(&deep).unwrap();
    for n in 0..10_usize {
        fs::write(deep.join(format!("f{n}")), noise(&format!("f{n}"), n * 90_000)).unwrap();
    }
    symlink("er/f1", a.dir.join("deep/link")).unwrap();
    fs::hard_link(deep.join("f2"), a.dir.join("also f2")).unwrap();
    set_attribute(&deep.join("f3"), "user.colour", b"blue");
    fs::set_permissions(deep.join("f4"), fs::Permissions::from_mode(0o640)).unwrap();
    let long_ago = std::time::UNIX_EPOCH + Duration::new(1_700_000_000, 5);
    let times = fs::FileTimes::new().set_modified(long_ago);
    fs::File::open(deep.join("f5")).unwrap().set_times(times).unwrap();
    fs::create_dir(a.dir.join("empty")).unwrap();
}

/// Changes of every kind, fsynced and not sent.
fn change(a: &Device) {
    let deep = a.dir.join("deep/er");
    fs::write(a.dir.join("unsent"), noise("unsent", 300_000)).unwrap();
    fs::write(a.dir.join("small"), b"not sent").unwrap();
    fs::rename(deep.join("f6"), a.dir.join("empty/was f6")).unwrap();
    fs::remove_file(deep.join("f7")).unwrap();
    let patched = fs::File::options().write(true).open(deep.join("f8")).unwrap();
    patched.write_all_at(b"patched", 100_000).unwrap();
    set_attribute(&deep.join("f3"), "user.colour", b"red");
    fs::set_permissions(&deep, fs::Permissions::from_mode(0o750)).unwrap();
    for name in ["unsent", "small", "deep/er/f8", "empty"] {
        fs::File::open(a.dir.join(name)).unwrap().sync_all().unwrap();
    }
}

/// Puts the files of a state back as they were.
fn copy_state(from: &Path, to: &Path) {
    drop(fs::remove_dir_all(to));
    let mut cp = std::process::Command::new("cp");
    assert_eq!(run(cp.arg("-a").arg(from).arg(to)).code, Some(0));
}

/// A device whose drive is sent, which changed much since, and whose daemon was killed.
fn left_dirty() -> (World, Node, Device, Portrait) {
    let (world, mut node, a) = founder();
    a.mount();
    furnish(&a);
    a.ok(&["sync"]);
    // The journal is freed behind what was sealed meanwhile: only the index knows of it.
    node.kill();
    fs::write(a.dir.join("sealed"), noise("sealed", 700_000)).unwrap();
    fs::write(a.dir.join("tiny"), b"in its row").unwrap();
    wait_until("all is sealed", || a.json(&["status"])["pending"]["dirty_bytes"] == 0);
    a.ok(&["unmount", "--now", a.dir_str()]);
    a.mount();
    change(&a);
    let before = exact(&a.dir);
    a.kill_daemon();
    (world, node, a, before)
}

fn refused(a: &Device, when: &str) {
    let said = a.run(&["mount", a.dir_str()]);
    assert_eq!(said.code, Some(3), "{when}: {said:?}");
    assert!(said.err.contains("doctor"), "{when}: {said:?}");
    let said = a.run(&["doctor"]);
    assert_eq!(said.code, Some(3), "{when}: {said:?}");
    assert!(said.out.contains("doctor --repair"), "{when}: {said:?}");
}

fn repaired(a: &Device, when: &str) {
    let said = a.run(&["doctor", "--repair", "--json"]);
    assert_eq!(said.code, Some(0), "{when}: {said:?}");
    let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let mended = checks.iter().find(|check| check["name"] == "index").unwrap();
    assert_eq!(mended["state"], "mended", "{when}: {mended}");
}

#[test]
fn r10_a_lost_index_is_made_anew_in_place_to_the_last_attribute() {
    let (world, mut node, a, before) = left_dirty();
    let (state, aside) = (a.home.join("state"), world.path("aside"));
    copy_state(&state, &aside);
    let index = state.join("default/index");
    let log = state.join("default/index-wal");
    let long = fs::metadata(&index).unwrap().len();
    let shorten = |len: u64| {
        fs::File::options().write(true).open(&index).unwrap().set_len(len).unwrap();
    };
    let turn_in_log = || {
        let mut bytes = fs::read(&log).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&log, bytes).unwrap();
    };
    let harms: [(&str, &dyn Fn()); 7] = [
        ("deleted", &|| fs::remove_file(&index).unwrap()),
        ("deleted with its log", &|| {
            fs::remove_file(&index).unwrap();
            fs::remove_file(&log).unwrap();
        }),
        ("empty", &|| shorten(0)),
        ("cut in half, without its log", &|| {
            shorten(long / 2);
            fs::remove_file(&log).unwrap();
        }),
        ("garbage", &|| fs::write(&index, vec![0x5a; 40_000]).unwrap()),
        ("its log deleted", &|| fs::remove_file(&log).unwrap()),
        ("a bit of its log turned", &turn_in_log),
    ];
    for (when, harm) in harms {
        harm();
        refused(&a, when);
        repaired(&a, when);
        a.mount();
        assert_same(&before, &exact(&a.dir), when);
        a.kill_daemon();
        copy_state(&aside, &state);
    }
    // And the drive goes on as the device it was.
    fs::remove_file(&index).unwrap();
    repaired(&a, "at the end");
    let left = fs::read_dir(state.join("default")).unwrap();
    let mut left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(left.any(|name| name.starts_with("index.damaged-")), "nothing was removed");
    node.kill_and_restart();
    a.mount();
    a.ok(&["sync"]);
    a.ok(&["verify", "--all"]);
    assert_same(&before, &exact(&a.dir), "sent");
    assert_eq!(a.json(&["status"])["devices"].as_array().map(Vec::len), Some(1));
}

/// Bytes turned in the middle: who reads them is refused, the doctor finds them, and mends them
/// once nobody has the drive.
#[test]
fn r10_a_damaged_index_is_reported_and_made_anew() {
    let (_world, _node, a) = founder();
    a.mount();
    furnish(&a);
    for n in 0..300 {
        fs::write(a.dir.join(format!("empty/{n}")), noise("n", 200)).unwrap();
    }
    a.ok(&["sync"]);
    let before = exact(&a.dir);
    a.unmount();
    let index = a.home.join("state/default/index");
    let mut bytes = fs::read(&index).unwrap();
    for at in (4_096 + 600..bytes.len()).step_by(4_096) {
        bytes[at..at + 2_000].iter_mut().for_each(|byte| *byte ^= 0x55);
    }
    fs::write(&index, bytes).unwrap();
    let said = a.run(&["mount", a.dir_str()]);
    if said.code == Some(0) {
        let listed =
            fs::read_dir(a.dir.join("empty")).and_then(|all| all.collect::<Result<Vec<_>, _>>());
        let read = listed.map(|all| all.len());
        assert!(read.is_err(), "damage is an error, not another folder: {read:?}");
        let said = a.run(&["doctor", "--repair"]);
        assert_eq!(said.code, Some(3), "{said:?}");
        assert!(said.out.contains("unmount"), "{said:?}");
        a.kill_daemon();
    } else {
        assert_eq!(said.code, Some(3), "{said:?}");
    }
    let said = a.run(&["doctor"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    repaired(&a, "turned bytes");
    a.mount();
    assert_same(&before, &exact(&a.dir), "turned bytes");
}

#[test]
fn r10_a_rebuild_that_is_killed_is_begun_again() {
    let (world, _node, a, before) = left_dirty();
    let (state, aside) = (a.home.join("state"), world.path("aside"));
    copy_state(&state, &aside);
    for ms in [2, 8, 15, 25, 40, 60, 90, 130] {
        fs::remove_file(state.join("default/index")).unwrap();
        let mut doctor = a.command(&["doctor", "--repair"]);
        let doctor = doctor.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut doctor = doctor.spawn().unwrap();
        sleep(Duration::from_millis(ms));
        drop(doctor.kill());
        doctor.wait().unwrap();
        a.ok(&["doctor", "--repair", "--quiet"]);
        a.mount();
        assert_same(&before, &exact(&a.dir), &format!("killed after {ms} ms"));
        a.kill_daemon();
        copy_state(&aside, &state);
    }
}

/// What was sent comes back; what was not is named.
#[test]
fn r10_of_a_deleted_cache_what_was_not_sent_is_named() {
    let (_world, mut node, a) = founder();
    a.mount();
    furnish(&a);
    a.ok(&["sync"]);
    node.kill();
    for name in ["lost", "empty/lost too"] {
        fs::write(a.dir.join(name), noise(name, 600_000)).unwrap();
    }
    wait_until("all is sealed", || a.json(&["status"])["pending"]["dirty_bytes"] == 0);
    a.ok(&["unmount", "--now", a.dir_str()]);
    fs::remove_dir_all(a.home.join("cache")).unwrap();
    node.kill_and_restart();
    let said = a.run(&["doctor", "--repair"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.out.contains("/lost") && said.out.contains("/empty/lost too"), "{said:?}");
    assert!(!said.out.contains("/deep/er/f"), "nothing that was sent: {said:?}");
    a.mount();
    for n in 0..10_usize {
        let path: PathBuf = a.dir.join(format!("deep/er/f{n}"));
        assert!(fs::read(&path).unwrap() == noise(&format!("f{n}"), n * 90_000), "{path:?}");
    }
    assert!(fs::read(a.dir.join("lost")).is_err());
}

/// Every file below, with its bytes.
fn bytes_below(dir: &Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let (mut all, mut left) = (std::collections::BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(path) = left.pop() {
        match path.is_dir() {
            true => left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path())),
            false => drop(all.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    all
}

/// The index and its spare are gone: what was sent comes back in place, under a new number; what was
/// not is said to be missing. Without an answer of a remote nothing is changed.
#[test]
fn r10_without_index_and_spare_the_remotes_bring_back_what_was_sent() {
    let (world, mut node, a) = founder();
    a.mount();
    furnish(&a);
    a.ok(&["sync"]);
    let before = told(&a.dir);
    node.kill();
    fs::write(a.dir.join("unsent"), b"not sent").unwrap();
    fs::File::open(a.dir.join("unsent")).unwrap().sync_all().unwrap();
    a.kill_daemon();
    let state = a.home.join("state/default");
    for name in ["index", "index-wal", "spare/index", "spare/index-wal"] {
        drop(fs::remove_file(state.join(name)));
    }
    let homes = [a.home.join("state"), a.home.join("config"), a.home.join("cache")];
    let was = homes.each_ref().map(|dir| bytes_below(dir));
    let said = a.run(&["doctor", "--repair"]);
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(homes.each_ref().map(|dir| bytes_below(dir)) == was, "nothing was changed");
    node.kill_and_restart();
    let said = a.run(&["doctor", "--repair"]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.out.contains("made anew from what the remotes have (home)"), "{said:?}");
    assert!(said.out.contains("was sent to none of them"), "{said:?}");
    let journal = fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name());
    let mut journal = journal.filter(|name| name.to_string_lossy().starts_with("journal.damaged-"));
    assert!(journal.next().is_some(), "the journal is set aside");
    a.mount();
    assert_same(&before, &told(&a.dir), "what was sent");
    // It goes on, and another device sees both lives of it as one.
    fs::write(a.dir.join("after"), noise("after", 200_000)).unwrap();
    fs::remove_file(a.dir.join("deep/er/f9")).unwrap();
    a.ok(&["sync"]);
    a.ok(&["verify", "--all"]);
    let now = told(&a.dir);
    let b = world.device("b");
    let phrase = world.path("phrase");
    let phrase = phrase.to_str().unwrap();
    b.ok(&["init", "--no-passphrase", "--recover", phrase, "--remote", &node.url]);
    b.mount();
    assert_same(&now, &told(&b.dir), "another device");
    let said = a.run(&["doctor"]);
    assert_eq!(said.code, Some(0), "{said:?}");
}
