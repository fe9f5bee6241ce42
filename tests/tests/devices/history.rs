//! What files were: listed, and had back, on every device.

use std::fs;

use rdrivefs_tests::world::{World, wait_until};

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
    a.ok(&["restore", &format!("{path}@{}", &ids[2][..8])]);
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
    assert_eq!(a.run(&["restore", &format!("{path}@00000000")]).code, Some(5));
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
