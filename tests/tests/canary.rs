//! No name, content, attribute or secret lies readable anywhere but in the mounted folder.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rdrivefs_tests::world::{Device, Node, World};

const NAME: &str = "canary-name-7f3a9c";
const FOLDER: &str = "canary-folder-51e0";
const CONTENT: &str = "canary-content-c0ffee-93";
const LINK: &str = "canary-link-target-8d";
const XATTR: &str = "user.canary-attr-4b";
const VALUE: &str = "canary-value-2e77";
const PASSPHRASE: &str = "canary passphrase 6d1f";

struct Watch {
    words: Vec<Vec<u8>>,
}

impl Watch {
    fn new(phrase: &Path) -> Self {
        let phrase = fs::read_to_string(phrase).unwrap();
        let words: Vec<_> =
            phrase.split_whitespace().filter(|w| w.chars().all(char::is_alphabetic)).collect();
        assert!(words.len() >= 24, "{} words", words.len());
        let last = words[words.len() - 24..].join(" ");
        let three = words[words.len() - 3..].join(" ");
        let fixed = [NAME, FOLDER, CONTENT, LINK, XATTR, VALUE, PASSPHRASE];
        let words = fixed.into_iter().map(str::to_owned).chain([last, three]);
        Self { words: words.map(String::into_bytes).collect() }
    }

    /// The first secret in the file, if it holds any.
    fn finds(&self, path: &Path) -> Option<String> {
        let bytes = fs::read(path).ok()?;
        let is_in = |word: &&Vec<u8>| bytes.windows(word.len()).any(|w| w == **word);
        self.words.iter().find(is_in).map(|w| String::from_utf8_lossy(w).into_owned())
    }

    fn assert_silent(&self, places: &[&Path]) {
        let files: Vec<_> = places.iter().flat_map(|place| below(place)).collect();
        assert!(files.len() > 5, "{files:?}");
        for file in files {
            assert_eq!(self.finds(&file), None, "in {}", file.display());
        }
    }

    fn assert_process_silent(&self, pid: u32) {
        for what in ["cmdline", "environ"] {
            assert_eq!(self.finds(Path::new(&format!("/proc/{pid}/{what}"))), None, "{what}");
        }
    }
}

fn below(dir: &Path) -> Vec<PathBuf> {
    if dir.is_file() {
        return vec![dir.to_owned()];
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(below(&entry.path())),
            false if entry.file_type().unwrap().is_file() => found.push(entry.path()),
            false => {}
        }
    }
    found
}

fn sing(a: &Device, folder: &str) {
    let folder = a.dir.join(folder);
    fs::create_dir(&folder).unwrap();
    let path = folder.join(NAME);
    let mut file = fs::File::create(&path).unwrap();
    for _ in 0..2_000 {
        file.write_all(CONTENT.as_bytes()).unwrap();
    }
    file.sync_all().unwrap();
    fs::write(folder.join("tiny"), CONTENT).unwrap();
    std::os::unix::fs::symlink(LINK, folder.join("link")).unwrap();
    let set = rustix::fs::setxattr(&path, XATTR, VALUE.as_bytes(), rustix::fs::XattrFlags::empty());
    set.unwrap();
}

fn founder(world: &World, node: &Node) -> (Device, PathBuf) {
    let a = world.device("a");
    let (pass, phrase) = (world.path("pass"), world.path("phrase"));
    fs::write(&pass, PASSPHRASE).unwrap();
    let [pass, text] = [&pass, &phrase].map(|p| p.to_str().unwrap());
    a.ok(&["init", "--passphrase-file", pass, "--recovery-file", text]);
    a.ok(&["remote", "add", "home", &node.invite(), "--passphrase-file", pass]);
    a.ok(&["mount", a.dir_str(), "--passphrase-file", pass]);
    (a, phrase)
}

#[test]
fn no_secret_is_readable_after_a_sync_nor_after_a_kill() {
    let world = World::new();
    let node = world.node("node");
    let (a, phrase) = founder(&world, &node);
    let watch = Watch::new(&phrase);
    assert!(watch.finds(&phrase).is_some(), "the watch sees what is there");
    let log = node.store.with_extension("log");
    let places = [a.home.as_path(), &node.store, &log];

    sing(&a, FOLDER);
    assert!(watch.finds(&a.dir.join(FOLDER).join(NAME)).is_some());
    watch.assert_silent(&places);
    a.ok(&["sync"]);
    watch.assert_silent(&places);
    watch.assert_process_silent(a.daemon().unwrap());
    watch.assert_process_silent(node.pid());

    sing(&a, "canary-folder-51e0-again");
    let mut half = fs::File::create(a.dir.join(FOLDER).join("half-written")).unwrap();
    half.write_all(CONTENT.repeat(50_000).as_bytes()).unwrap();
    a.kill_daemon();
    drop(half);
    watch.assert_silent(&places);
}
