//! What two devices did to the same file, each without the other: kept, listed, settled.

use std::fs;
use std::path::Path;

use rdrivefs_tests::world::{Device, Node, World, wait_until};

use crate::live::pair;

/// Names of a folder and what they hold.
fn shown(dir: &Path) -> Vec<(String, String)> {
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read_to_string(entry.path()).unwrap_or_default())
        })
        .collect();
    all.sort();
    all
}

/// Both edit `f.txt` while the node is away, the second later than the first.
fn disagree(node: &mut Node, [a, b]: &[Device; 2]) {
    fs::write(a.dir.join("f.txt"), "before").unwrap();
    wait_until("it came", || fs::read(b.dir.join("f.txt")).is_ok_and(|read| read == b"before"));
    node.kill();
    fs::write(a.dir.join("f.txt"), "of a").unwrap();
    fs::write(b.dir.join("f.txt"), "of b").unwrap();
    node.kill_and_restart();
    agree([a, b]);
    assert_eq!(shown(&a.dir).len(), 2, "{:?}", shown(&a.dir));
}

fn agree([a, b]: [&Device; 2]) {
    wait_until("both show the same", || {
        a.run(&["sync"]);
        b.run(&["sync"]);
        shown(&a.dir) == shown(&b.dir)
    });
}

#[test]
fn a_conflict_is_listed_alike_and_settled_for_all() {
    for keep in ["mine", "theirs", "both"] {
        let world = World::new();
        let mut node = world.node("node");
        let devices = pair(&world, &node);
        disagree(&mut node, &devices);
        let [a, b] = &devices;
        let listed = a.json(&["conflicts"]);
        assert_eq!(listed, b.json(&["conflicts"]), "the same on both");
        assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
        assert_eq!(listed[0]["dispute"], "content");
        assert_eq!(listed[0]["beside"], "/f.txt");
        assert_eq!(a.json(&["status"])["conflicts"], 1);
        let copy = listed[0]["path"].as_str().unwrap();
        assert!(copy.starts_with("/f (conflict, "), "{copy}");

        let path = a.dir.join(&copy[1..]);
        a.ok(&["conflicts", "resolve", path.to_str().unwrap(), "--keep", keep]);
        agree([a, b]);
        wait_until("it is settled everywhere", || {
            [a, b].iter().all(|device| device.json(&["conflicts"]) == serde_json::json!([]))
        });
        let one = |content: &str| vec![("f.txt".to_owned(), content.to_owned())];
        let versions = b.json(&["versions", b.dir.join("f.txt").to_str().unwrap()]);
        assert!(versions.as_array().unwrap().len() >= 3, "it has its past still: {versions}");
        match keep {
            "mine" => assert_eq!(shown(&b.dir), one("of a")),
            "theirs" => assert_eq!(shown(&b.dir), one("of b")),
            _ => {
                let mut held: Vec<_> = shown(&b.dir).into_iter().map(|(_, held)| held).collect();
                held.sort();
                assert_eq!(held, ["of a", "of b"]);
            }
        }
    }
}

#[test]
fn what_is_in_no_conflict_is_not_settled() {
    let world = World::new();
    let node = world.node("node");
    let a = world.founder("a", &node);
    a.mount();
    fs::write(a.dir.join("f"), "alone").unwrap();
    let path = a.dir.join("f");
    let said = a.run(&["conflicts", "resolve", path.to_str().unwrap(), "--keep", "mine"]);
    assert_eq!(said.code, Some(5), "{said:?}");
    assert_eq!(fs::read(&path).unwrap(), b"alone");
}
