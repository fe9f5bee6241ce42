//! New keys for a drive, and a new lock for those of one device.

use std::fs;

use rdrivefs_tests::world::{World, wait_until};

use crate::live::pair;

#[test]
fn a_new_epoch_is_begun_while_both_devices_run() {
    let world = World::new();
    let node = world.node("node");
    let [a, b] = pair(&world, &node);
    fs::write(a.dir.join("before"), "old key").unwrap();
    wait_until("it came", || fs::read(b.dir.join("before")).is_ok_and(|read| read == b"old key"));
    let begun = a.json(&["key", "rotate"]);
    let epoch = begun["epoch"].as_str().unwrap();
    assert_eq!(begun["remotes"][0]["agreed"], true, "{begun}");
    fs::write(a.dir.join("after"), "new key").unwrap();
    wait_until("it came", || fs::read(b.dir.join("after")).is_ok_and(|read| read == b"new key"));
    fs::write(b.dir.join("answer"), "new key too").unwrap();
    let came = || fs::read(a.dir.join("answer")).is_ok_and(|read| read == b"new key too");
    wait_until("the answer came", came);
    for device in [&a, &b] {
        assert_eq!(device.json(&["key", "show"])["epoch"], epoch);
    }
    let log = b.ok(&["log", "--json"]);
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains(epoch), "the answer was sealed with it: {last}");
    // The phrase alone opens all of it.
    let c = world.device("c");
    let phrase = world.path("phrase");
    let phrase = phrase.to_str().unwrap();
    c.ok(&["init", "--no-passphrase", "--recover", phrase, "--remote", &node.url]);
    c.mount();
    for (name, content) in [("before", "old key"), ("after", "new key"), ("answer", "new key too")]
    {
        assert_eq!(fs::read_to_string(c.dir.join(name)).unwrap(), content);
    }
}

#[test]
fn a_revoked_device_hears_nothing_more_and_is_heard_no_more() {
    let world = World::new();
    let node = world.node("node");
    let [a, b] = pair(&world, &node);
    fs::write(b.dir.join("before"), "of b").unwrap();
    wait_until("it came", || fs::read(a.dir.join("before")).is_ok_and(|read| read == b"of b"));
    let number = b.json(&["key", "show"])["device_number"].to_string();
    assert_eq!(a.run(&["device", "revoke", "99"]).code, Some(5), "there is none");
    assert_eq!(b.run(&["device", "revoke", &number]).code, Some(5), "not the one one sits at");
    let epoch = b.json(&["key", "show"])["epoch"].clone();
    let revoked = a.json(&["device", "revoke", &number]);
    assert_eq!(revoked["remotes"][0]["agreed"], true, "{revoked}");
    assert_ne!(revoked["epoch"], epoch);
    fs::write(a.dir.join("secret"), "not for b").unwrap();
    fs::write(b.dir.join("late"), "too late").unwrap();
    a.ok(&["sync"]);
    assert_ne!(b.run(&["sync", "--timeout", "20s"]).code, Some(0), "the node cuts it off");
    a.ok(&["sync"]);
    assert!(!b.dir.join("secret").exists() && !a.dir.join("late").exists());
    assert_eq!(b.json(&["key", "show"])["epoch"], epoch, "it was not let into the new one");
    assert_eq!(fs::read(a.dir.join("before")).unwrap(), b"of b", "what was merged stays");
    assert_eq!(fs::read(b.dir.join("late")).unwrap(), b"too late", "nothing of its own is lost");
    let list = a.json(&["device", "list"]);
    let gone = list.as_array().unwrap().iter().find(|device| device["revoked"] == true);
    assert_eq!(gone.unwrap()["number"].to_string(), number);
}

#[test]
fn the_passphrase_is_changed_and_only_the_new_one_opens() {
    let world = World::new();
    let a = world.device("a");
    let file = |name: &str, words: &str| {
        let path = world.path(name);
        fs::write(&path, words).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (old, new) = (file("old", "one"), file("new", "another"));
    let phrase = world.path("phrase");
    let phrase = phrase.to_str().unwrap();
    a.ok(&["init", "--passphrase-file", &old, "--recovery-file", phrase]);
    let relock = |known: &str, args: &[&str]| {
        let all = ["key", "passphrase", "--passphrase-file", known];
        a.run(&[&all[..], args].concat())
    };
    assert_eq!(relock(&new, &["--new-passphrase-file", &new]).code, Some(6), "not the old one");
    assert_eq!(relock(&old, &["--new-passphrase-file", &new]).code, Some(0));
    let show = |known: &str| a.run(&["key", "show", "--passphrase-file", known]).code;
    assert_eq!((show(&old), show(&new)), (Some(6), Some(0)));
    a.ok(&["mount", a.dir_str(), "--passphrase-file", &new]);
    assert_eq!(relock(&new, &["--no-passphrase"]).code, Some(7), "its daemon has the keys");
    a.unmount();
    assert_eq!(relock(&new, &["--no-passphrase"]).code, Some(0));
    assert_eq!(a.json(&["key", "show"])["kept_under"], "key_file");
}

#[test]
fn the_words_of_the_phrase_can_be_tried() {
    let world = World::new();
    let node = world.node("node");
    let a = world.founder("a", &node);
    let phrase = world.path("phrase");
    let right = phrase.to_str().unwrap();
    assert_eq!(a.json(&["key", "recovery", "test", right])["right"], true);
    let other = world.device("other");
    let wrong = world.path("wrong");
    let wrong = wrong.to_str().unwrap();
    other.ok(&["init", "--no-passphrase", "--recovery-file", wrong]);
    let said = a.run(&["key", "recovery", "test", wrong]);
    assert_eq!(said.code, Some(1), "{said:?}");
    fs::write(wrong, "no phrase at all").unwrap();
    assert_ne!(a.run(&["key", "recovery", "test", wrong]).code, Some(0));
}
