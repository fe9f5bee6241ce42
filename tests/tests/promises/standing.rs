//! R13: programs can ask of any file how far it has come, by the attribute `user.rdrivefs.state`.
//! It is there for those who ask by name; nothing lists, copies or keeps it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use rdrivefs_tests::world::{Device, World, run, wait_until};
use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;

use crate::{noise, text};

const NAME: &str = "user.rdrivefs.state";

/// What the attribute says.
#[track_caller]
fn state(path: &Path) -> String {
    let mut value = [0; 64];
    let len = getxattr(path, NAME, &mut value[..]).unwrap();
    String::from_utf8(value[..len].to_vec()).unwrap()
}

/// The same in the words of `ls`.
fn listed(a: &Device, name: &str) -> String {
    let path = a.dir.join(name);
    let list = a.json(&["ls", text(&path)]);
    let state = &list[0]["state"];
    let mut words = state["stage"].as_str().unwrap().to_owned();
    for word in ["cached", "pinned"] {
        if state[word] == true {
            words = format!("{words} {word}");
        }
    }
    words
}

/// Sealing begins a moment after the last write, so it may be over on a machine that pauses.
fn seen_dirty(path: &Path) -> bool {
    (0..20).any(|n| {
        fs::write(path, noise(&format!("f{n}"), 700_000)).unwrap();
        let state = state(path);
        assert!(["dirty cached", "sealed cached"].contains(&&*state), "{state}");
        state == "dirty cached"
    })
}

#[test]
fn r13_a_file_tells_how_far_it_has_come() {
    let world = World::new();
    let mut node = world.node("node");
    let a = world.founder("a", &node);
    a.mount();
    a.ok(&["sync"]);
    node.kill();
    let (dir, file) = (a.dir.join("dir"), a.dir.join("dir/f"));
    fs::create_dir(&dir).unwrap();
    assert!(seen_dirty(&file), "what was just written is dirty");
    assert!(["dirty cached", "sealed cached"].contains(&&*state(&dir)));
    wait_until("it is sealed", || state(&file) == "sealed cached");
    let told = |words: &str| {
        assert_eq!((&*state(&file), &*listed(&a, "dir/f")), (words, words));
        for above in [&dir, &a.dir] {
            assert_eq!(state(above), words, "of {}", above.display());
        }
    };
    told("sealed cached");
    node.kill_and_restart();
    a.ok(&["sync"]);
    told("pushed cached");
    a.ok(&["verify", "--all"]);
    told("proven cached");
    a.ok(&["evict", a.dir_str()]);
    told("proven");
    a.ok(&["pin", text(&dir)]);
    assert_eq!((state(&file), state(&dir)), ("proven pinned".into(), "proven pinned".into()));
    assert_eq!((listed(&a, "dir/f"), state(&a.dir)), ("proven pinned".into(), "proven".into()));
    a.ok(&["fetch", text(&dir)]);
    assert_eq!(state(&file), "proven cached pinned");
    // An empty directory lags behind nothing.
    let empty = a.dir.join("empty");
    fs::create_dir(&empty).unwrap();
    a.ok(&["sync"]);
    assert_eq!(state(&empty), "pushed cached");
    assert_eq!(state(&a.dir), "proven cached", "what has no content holds nobody up");
}

/// What the kernel holds of an open file is dirty, though the daemon has not heard of it.
#[test]
fn r13_what_is_written_and_not_handed_over_is_dirty() {
    let world = World::new();
    let node = world.node("node");
    let a = world.founder("a", &node);
    a.mount();
    let path = a.dir.join("f");
    fs::write(&path, noise("f", 300_000)).unwrap();
    a.ok(&["sync"]);
    assert_eq!(state(&path), "pushed cached");
    let mut open = File::options().append(true).open(&path).unwrap();
    open.write_all(&noise("more", 100_000)).unwrap();
    let told = state(&path);
    assert!(["dirty cached", "sealed cached"].contains(&&*told), "{told}");
    assert_eq!(fs::metadata(&path).unwrap().len(), 400_000);
    assert!(fs::read(&path).unwrap().ends_with(&noise("more", 100_000)));
}

#[test]
fn r13_the_state_is_read_only_and_in_no_list() {
    let world = World::new();
    let node = world.node("node");
    let a = world.founder("a", &node);
    a.mount();
    let (file, dir) = (a.dir.join("f"), a.dir.join("d"));
    fs::write(&file, noise("f", 100_000)).unwrap();
    fs::create_dir(&dir).unwrap();
    for path in [&file, &dir] {
        for flags in [XattrFlags::empty(), XattrFlags::CREATE, XattrFlags::REPLACE] {
            assert_eq!(setxattr(path, NAME, b"proven", flags), Err(Errno::PERM));
        }
        assert_eq!(removexattr(path, NAME), Err(Errno::PERM));
        setxattr(path, "user.rdrivefs.states", b"any", XattrFlags::empty()).unwrap();
        let mut list = [0; 256];
        let len = listxattr(path, &mut list[..]).unwrap();
        assert_eq!(&list[..len], b"user.rdrivefs.states\0");
        // It asks for the length first.
        let said = run(Command::new("getfattr").args(["--only-values", "-n", NAME]).arg(path));
        assert_eq!(said.out, state(path), "{said:?}");
        assert_eq!(getxattr(path, NAME, &mut [0; 3][..]), Err(Errno::RANGE));
    }
    // Copied with all attributes that it lists, to the drive and away from it.
    let copy = a.dir.join("copy");
    let said = run(Command::new("cp").arg("-a").arg(&file).arg(&copy));
    assert_eq!((said.code, &*said.err), (Some(0), ""), "{said:?}");
    let said = run(Command::new("getfattr").args(["-d", "-m", "-"]).arg(&copy));
    assert!(said.out.contains("user.rdrivefs.states") && !said.out.contains("state="), "{said:?}");
    // The device that comes by way of the remote has its own.
    a.ok(&["sync"]);
    let b = world.device("b");
    let phrase = world.path("phrase");
    b.ok(&["init", "--no-passphrase", "--recover", text(&phrase), "--remote", &node.url]);
    b.mount();
    // It asks the node itself.
    wait_until("it knows that the node has it", || state(&b.dir.join("f")) == "pushed");
    assert_eq!(state(&file), "pushed cached");
}
