//! What files were: listed, and had back, on every device.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use rdrivefs_tests::world::{World, run, wait_until};

use crate::live::pair;

/// Long enough not to lie in its record, so that its bytes are in a layer.
fn long(word: &str) -> String {
    format!("{word} ").repeat(50_000)
}

#[test]
fn a_file_is_had_back_as_it_was_in_any_version() {
    let world = World::new();
    let node = world.node("node");
    let [a, b] = pair(&world, &node);
    let file = a.dir.join("report.txt");
    let path = file.to_str().unwrap();
    for word in ["one", "two", "three"] {
        fs::write(&file, long(word)).unwrap();
        a.ok(&["sync"]);
    }
    let versions = a.json(&["versions", path]);
    let ids: Vec<String> = versions
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["version"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 3, "{versions}");
    assert_eq!(versions[0]["present"], true);
    assert_eq!(versions[2]["size"], long("one").len());
    assert_eq!(versions[1]["bases"][0], ids[2], "each after the one before it");

    let mut open = fs::File::open(&file).unwrap();
    a.ok(&["restore", path]);
    assert_eq!(fs::read_to_string(&file).unwrap(), long("two"), "the one before");
    let mut held = String::new();
    std::io::Read::read_to_string(&mut open, &mut held).unwrap();
    assert_eq!(held, long("three"), "who had it open keeps what it had");
    a.ok(&["restore", &format!("{path}@{}", ids[2])]);
    assert_eq!(fs::read_to_string(&file).unwrap(), long("one"));
    let there = b.dir.join("report.txt");
    wait_until("it is so everywhere", || {
        fs::read_to_string(&there).is_ok_and(|s| s == long("one"))
    });

    // Nothing of the history went, and it is the same on every device.
    a.ok(&["sync"]);
    b.ok(&["sync"]);
    let after = b.json(&["versions", there.to_str().unwrap()]);
    assert_eq!(after.as_array().unwrap().len(), 5, "{after}");
    b.ok(&["restore", &format!("{}@{}", there.display(), ids[0])]);
    wait_until("it came back", || fs::read_to_string(&file).is_ok_and(|s| s == long("three")));
}

#[test]
fn a_version_that_is_not_there_is_refused_and_nothing_is_lost() {
    let world = World::new();
    let node = world.node("node");
    let a = world.founder("a", &node);
    a.mount();
    let file = a.dir.join("f");
    let path = file.to_str().unwrap();
    fs::write(&file, "told").unwrap();
    a.ok(&["sync"]);
    assert_eq!(a.run(&["restore", path]).code, Some(5), "there is none before it");
    assert_eq!(a.run(&["restore", &format!("{path}@9-9")]).code, Some(5));
    assert_eq!(a.run(&["restore", &format!("{path}@2001-01-01")]).code, Some(5));
    drop(node);
    fs::write(&file, "told to nobody").unwrap();
    let said = a.run(&["restore", path]);
    assert_eq!(said.code, Some(5), "what it holds would be lost: {said:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "told to nobody");
    let odd = a.dir.join("a@2h ago");
    fs::write(&odd, "a name of its own").unwrap();
    assert_eq!(a.json(&["versions", odd.to_str().unwrap()]), serde_json::json!([]));
}

/// Everything below a folder: paths, kinds, modes, and what files hold or links lead to. What goes
/// while it is looked at is not there.
fn tree(dir: &Path) -> Vec<(String, u32, Vec<u8>)> {
    let mut all = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(at) = left.pop() {
        for entry in fs::read_dir(&at).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            let held = match meta.file_type() {
                kind if kind.is_symlink() => {
                    fs::read_link(&path).map(|to| to.into_os_string().into_encoded_bytes())
                }
                kind if kind.is_dir() => Ok(Vec::new()),
                _ => fs::read(&path),
            };
            let Ok(held) = held else { continue };
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            all.push((name, meta.mode(), held));
            if meta.is_dir() {
                left.push(path);
            }
        }
    }
    all.sort();
    all
}

#[test]
fn what_was_removed_is_had_back_with_all_below_it() {
    let world = World::new();
    let node = world.node("node");
    let [a, b] = pair(&world, &node);
    let dir = a.dir.join("album/summer");
    fs::create_dir_all(dir.join("deeper")).unwrap();
    fs::write(dir.join("one"), long("one")).unwrap();
    fs::write(dir.join("deeper/two"), "two").unwrap();
    fs::set_permissions(dir.join("deeper/two"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("one", dir.join("link")).unwrap();
    fs::hard_link(dir.join("one"), dir.join("deeper/also")).unwrap();
    a.ok(&["sync"]);
    let before = tree(&a.dir.join("album"));
    wait_until("it is everywhere", || tree(&b.dir.join("album")) == before);
    fs::remove_dir_all(a.dir.join("album")).unwrap();
    a.ok(&["sync"]);
    wait_until("it went everywhere", || !b.dir.join("album").exists());
    let path = b.dir.join("album");
    b.ok(&["undelete", path.to_str().unwrap()]);
    assert_eq!(tree(&path), before);
    let inode = |name: &str| fs::metadata(path.join("summer").join(name)).unwrap().ino();
    assert_eq!(inode("one"), inode("deeper/also"), "one file by two names still");
    wait_until("it is back everywhere", || {
        a.dir.join("album").exists() && tree(&a.dir.join("album")) == before
    });
    assert_eq!(b.run(&["undelete", path.to_str().unwrap()]).code, Some(5), "it is there");
    let never = b.dir.join("never");
    assert_eq!(b.run(&["undelete", never.to_str().unwrap()]).code, Some(5));
}

#[test]
fn a_drive_is_taken_back_to_what_it_was_and_forth_again() {
    let world = World::new();
    let node = world.node("node");
    let [a, b] = pair(&world, &node);
    for n in 0..30 {
        fs::create_dir_all(a.dir.join(format!("d{}", n % 5))).unwrap();
        fs::write(a.dir.join(format!("d{}/f{n}", n % 5)), long(&n.to_string())).unwrap();
    }
    fs::hard_link(a.dir.join("d0/f0"), a.dir.join("hard")).unwrap();
    a.ok(&["sync"]);
    b.ok(&["sync"]);
    let good = tree(&a.dir);
    let now = || {
        let pause = || std::thread::sleep(std::time::Duration::from_millis(50));
        pause();
        let said = run(Command::new("date").args(["-u", "+%FT%T.%3NZ"])).out.trim().to_owned();
        pause();
        said
    };
    let then = now();
    // Whatever may happen to files in an hour.
    for n in 0..30 {
        let path = a.dir.join(format!("d{}/f{n}", n % 5));
        match n % 3 {
            0 => fs::write(&path, "ENCRYPTED, PAY").unwrap(),
            1 => fs::remove_file(&path).unwrap(),
            _ => fs::rename(&path, a.dir.join(format!("d{}/moved{n}", (n + 1) % 5))).unwrap(),
        }
    }
    fs::rename(a.dir.join("d4"), a.dir.join("d3/d4")).unwrap();
    fs::write(a.dir.join("README.ransom"), "pay").unwrap();
    fs::hard_link(a.dir.join("d0/f0"), a.dir.join("d0/another")).unwrap();
    fs::create_dir(a.dir.join(".rewinding-")).unwrap();
    fs::set_permissions(a.dir.join("d0"), fs::Permissions::from_mode(0o700)).unwrap();
    a.ok(&["sync"]);
    let bad = tree(&a.dir);
    let bad_time = now();
    a.ok(&["rewind", "--to", &then]);
    assert_eq!(tree(&a.dir), good);
    let same = |dir: &Path| fs::metadata(dir.join("hard")).unwrap().ino();
    assert_eq!(same(&a.dir), fs::metadata(a.dir.join("d0/f0")).unwrap().ino(), "one file still");
    wait_until("it is so everywhere", || tree(&b.dir) == good);
    b.ok(&["rewind", "--to", &bad_time]);
    assert_eq!(tree(&b.dir), bad, "and forth again");
    let folder = b.dir.join("d0");
    b.ok(&["rewind", folder.to_str().unwrap(), "--to", &then]);
    let below = |all: &[(String, u32, Vec<u8>)]| {
        let own = all.iter().filter(|(name, ..)| name.starts_with("d0"));
        own.cloned().collect::<Vec<_>>()
    };
    assert_eq!(below(&tree(&b.dir)), below(&good), "a folder alone");
    assert!(b.dir.join("README.ransom").exists(), "the rest is as it was");
}
