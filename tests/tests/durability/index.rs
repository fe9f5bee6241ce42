//! R10: the index is lost or damaged. It is never begun anew under a drive that had one: that would
//! be an empty drive, and the journal and the node would say otherwise. The way back is the phrase.

use std::fs;
use std::path::{Path, PathBuf};

use rdrivefs_tests::world::{Device, Node, World, assert_same_tree, disk_bytes, run};

use crate::founder;

fn furnish(a: &Device) {
    let deep = a.dir.join("deep/er");
    fs::create_dir_all(&deep).unwrap();
    for n in 0..12_usize {
        let mut bytes = vec![0; n * 90_000];
        blake3::Hasher::new().update(&[n as u8]).finalize_xof().fill(&mut bytes);
        fs::write(deep.join(format!("f{n}")), bytes).unwrap();
    }
    std::os::unix::fs::symlink("er/f1", a.dir.join("deep/link")).unwrap();
    fs::hard_link(deep.join("f2"), a.dir.join("also f2")).unwrap();
}

/// A device whose drive is sent, and whose daemon was killed with something unsent.
fn left_dirty() -> (World, Node, Device, PathBuf) {
    let (world, node, a) = founder();
    a.mount();
    furnish(&a);
    let copy = world.path("copy");
    a.ok(&["sync"]);
    let mut cp = std::process::Command::new("cp");
    assert_eq!(run(cp.arg("-a").arg(&a.dir).arg(&copy)).code, Some(0));
    fs::write(a.dir.join("unsent"), b"not sent").unwrap();
    fs::File::open(a.dir.join("unsent")).unwrap().sync_all().unwrap();
    a.kill_daemon();
    (world, node, a, copy)
}

/// The files of the state, put aside and back.
fn copy_state(from: &Path, to: &Path) {
    drop(fs::remove_dir_all(to));
    let mut cp = std::process::Command::new("cp");
    assert_eq!(run(cp.arg("-a").arg(from).arg(to)).code, Some(0));
}

fn refused_as_damaged(a: &Device, when: &str) {
    for words in [&["mount", a.dir_str()][..], &["ls"], &["status"]] {
        let said = a.run(words);
        assert_eq!(said.code, Some(3), "{when}, {words:?}: {said:?}");
        assert!(said.err.contains("index"), "{when}: {said:?}");
    }
    let said = a.run(&["doctor"]);
    let words = format!("{}{}", said.out, said.err);
    assert_eq!(said.code, Some(3), "{when}: {said:?}");
    assert!(words.contains("init --recover"), "{when}: {said:?}");
}

#[test]
fn r10_a_lost_index_is_never_begun_anew_and_the_phrase_brings_all_back() {
    let (world, node, a, copy) = left_dirty();
    let (state, aside) = (a.home.join("state"), world.path("aside"));
    copy_state(&state, &aside);
    let index = state.join("default/index");
    let log = state.join("default/index-wal");
    let long = fs::metadata(&index).unwrap().len();
    let shorten = |len: u64| {
        fs::File::options().write(true).open(&index).unwrap().set_len(len).unwrap();
    };
    let without_log = || drop(fs::remove_file(&log));
    let harms: [(&str, &dyn Fn()); 6] = [
        ("deleted", &|| fs::remove_file(&index).unwrap()),
        ("deleted with its log", &|| {
            fs::remove_file(&index).unwrap();
            without_log();
        }),
        ("empty", &|| shorten(0)),
        ("empty, without its log", &|| {
            shorten(0);
            without_log();
        }),
        ("cut in half, without its log", &|| {
            shorten(long / 2);
            without_log();
        }),
        ("garbage", &|| fs::write(&index, vec![0x5a; 40_000]).unwrap()),
    ];
    for (when, harm) in harms {
        harm();
        refused_as_damaged(&a, when);
        copy_state(&aside, &state);
    }
    // All of it put back, nothing is missing.
    a.mount();
    assert_eq!(fs::read(a.dir.join("unsent")).unwrap(), b"not sent");
    a.unmount();
    // Without any copy: the way that the refusal names.
    fs::remove_file(&index).unwrap();
    let said = a.run(&["mount", a.dir_str()]);
    assert!(said.err.contains("init --recover"), "{said:?}");
    let b = world.device("b");
    let phrase = world.path("phrase");
    let phrase = phrase.to_str().unwrap();
    b.ok(&["init", "--no-passphrase", "--recover", phrase, "--remote", &node.url]);
    b.mount();
    // It was unmounted in order meanwhile, so it was sent.
    assert_eq!(fs::read(b.dir.join("unsent")).unwrap(), b"not sent");
    fs::remove_file(b.dir.join("unsent")).unwrap();
    assert_same_tree(&copy, &b.dir);
}

/// A journal that is gone under an index that stands on it.
#[test]
fn r10_a_lost_journal_is_named() {
    let (world, _node, a, _copy) = left_dirty();
    let (state, aside) = (a.home.join("state"), world.path("aside"));
    copy_state(&state, &aside);
    fs::remove_dir_all(state.join("default/journal")).unwrap();
    let said = a.run(&["mount", a.dir_str()]);
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.err.contains("journal"), "{said:?}");
    copy_state(&aside, &state);
    a.mount();
    assert_eq!(fs::read(a.dir.join("unsent")).unwrap(), b"not sent");
}

/// The cache is what it is called.
#[test]
fn r10_a_deleted_cache_comes_back_from_the_node() {
    let (world, _node, a) = founder();
    a.mount();
    furnish(&a);
    a.ok(&["sync"]);
    let copy = world.path("copy");
    copy_state(&a.dir, &copy);
    a.unmount();
    assert!(disk_bytes(&a.home.join("cache")) > 1 << 20, "there is something to lose");
    fs::remove_dir_all(a.home.join("cache")).unwrap();
    a.mount();
    assert_same_tree(&copy, &a.dir);
    fs::write(a.dir.join("after"), vec![1; 500_000]).unwrap();
    a.ok(&["sync"]);
    a.ok(&["verify", "--all"]);
    assert!(fs::read(a.dir.join("after")).unwrap() == vec![1; 500_000]);
}
