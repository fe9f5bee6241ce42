//! Computers become devices of one drive by a code, with the programs a person runs.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use rdrivefs_sync::pairing::PairingCode;
use rdrivefs_sync::remote::env::Env;
use rdrivefs_tests::world::{Device, Node, Said, World, program, said};
use serde_json::Value;

/// A `device add` under way, ended with its test.
struct Adding {
    child: Child,
    out: BufReader<ChildStdout>,
    code: String,
}

impl Adding {
    /// On a device whose person says yes to whoever comes.
    fn start(device: &Device, more: &[&str]) -> Self {
        let args = [&["device", "add", "--yes", "--json"], more].concat();
        let mut adding = Self::of(&mut device.command(&args));
        let offer: Value = serde_json::from_str(&adding.line()).unwrap();
        adding.code = offer["code"].as_str().unwrap().to_owned();
        assert_eq!(offer["remote"], "home");
        adding
    }

    /// On a terminal; none where there is no `script` to make one.
    fn on_terminal(device: &Device) -> Option<Self> {
        if Command::new("script").arg("--version").output().is_err() {
            eprintln!("skipped: there is no script(1) to stand for a terminal");
            return None;
        }
        let mut command = Command::new("script");
        let rdrivefs = format!("{} device add", program("rdrivefs").display());
        command.env("RDRIVEFS_HOME", &device.home).args(["-qec", &rdrivefs, "/dev/null"]);
        let mut adding = Self::of(&mut command);
        while !adding.code.starts_with("rdrive://") {
            adding.code = adding.line().trim().to_owned();
        }
        Some(adding)
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out, code: String::new() }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.out.read_line(&mut line).unwrap(), 0, "it ended: {:?}", self.end());
        line
    }

    /// Reads until these words were said.
    fn until(&mut self, words: &str) {
        let mut said = Vec::new();
        while !String::from_utf8_lossy(&said).contains(words) {
            let mut byte = [0];
            self.out.read_exact(&mut byte).unwrap();
            said.push(byte[0]);
        }
    }

    fn answer(&mut self, words: &str) {
        self.child.stdin.as_mut().unwrap().write_all(words.as_bytes()).unwrap();
    }

    fn end(&mut self) -> Said {
        let (mut out, mut err) = (String::new(), String::new());
        drop(self.out.read_to_string(&mut out));
        let code = self.child.wait().unwrap().code();
        drop(self.child.stderr.take().unwrap().read_to_string(&mut err));
        Said { code, out, err }
    }
}

impl Drop for Adding {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// `init --join -`, with the code on standard input.
fn start_join(device: &Device, code: &str) -> Child {
    let mut command = device.command(&["init", "--no-passphrase", "--join", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(format!("{code}\n").as_bytes()).unwrap();
    child
}

fn join(device: &Device, code: &str) -> Said {
    said(&start_join(device, code).wait_with_output().unwrap())
}

#[track_caller]
fn says(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, Some(code), "{said:?}");
    for words in words {
        let all = format!("{}{}", said.out, said.err);
        assert!(all.contains(words), "{words:?} is not in {said:?}");
    }
    assert!(!said.err.contains("panicked"), "{said:?}");
}

fn founder() -> (World, Node, Device) {
    let world = World::new();
    let node = world.node("node");
    let a = world.founder("a", &node);
    (world, node, a)
}

fn fingerprint(device: &Device) -> String {
    device.json(&["key", "show"])["device_fingerprint"].as_str().unwrap().to_owned()
}

/// Lets `b` in by the word of `a`.
fn pair(a: &Device, b: &Device) -> Value {
    let mut adding = Adding::start(a, &[]);
    says(&join(b, &adding.code), 0, &[&fingerprint(a), &fingerprint(b)]);
    let joined = serde_json::from_str(&adding.line()).unwrap();
    says(&adding.end(), 0, &[]);
    joined
}

#[test]
fn two_computers_pair_and_have_one_drive() {
    let (world, _node, a) = founder();
    let b = world.device("b");
    a.mount();
    fs::write(a.dir.join("from-a"), b"A writes").unwrap();
    a.ok(&["sync"]);
    let joined = pair(&a, &b);
    assert_eq!(joined["number"], 2, "{joined}");
    assert_eq!(joined["fingerprint"], fingerprint(&b));
    assert_eq!((&joined["admin"], &joined["this_device"]), (&true.into(), &false.into()));
    assert_eq!(b.json(&["remote", "list"])[0]["name"], "home", "the remote it met at is there");

    b.mount();
    assert_eq!(fs::read(b.dir.join("from-a")).unwrap(), b"A writes");
    fs::write(b.dir.join("from-b"), b"B writes").unwrap();
    b.ok(&["sync"]);
    a.ok(&["sync"]);
    assert_eq!(fs::read(a.dir.join("from-b")).unwrap(), b"B writes", "a runs, and takes it in");
    fs::write(a.dir.join("from-a"), b"A writes again").unwrap();
    a.ok(&["sync"]);
    b.ok(&["sync"]);
    assert_eq!(fs::read(b.dir.join("from-a")).unwrap(), b"A writes again");

    a.ok(&["device", "name", "desk"]);
    b.ok(&["device", "name", "first"]);
    b.ok(&["device", "name", "laptop"]);
    for device in [&a, &b, &a] {
        device.ok(&["sync"]);
    }
    for (device, own) in [(&a, 0), (&b, 1)] {
        let list = device.json(&["device", "list"]);
        assert_eq!(list.as_array().unwrap().len(), 2, "{list}");
        let called = |n: usize| list[n]["name"].as_str().unwrap();
        assert_eq!((called(0), called(1)), ("desk", "laptop"), "{list}");
        assert_eq!(list[own]["this_device"], true);
        assert_eq!(list[1 - own]["this_device"], false);
        assert_eq!(list[0]["added_by"], Value::Null);
        assert_eq!(list[1]["added_by"], list[0]["key"]);
        assert_eq!(list[1]["fingerprint"], fingerprint(&b));
        assert!(list[1]["head"].as_u64().unwrap() > 0, "{list}");
        assert!(list[1]["head_ms"].as_u64().unwrap() > 1_700_000_000_000, "{list}");
        let words = device.ok(&["device", "list"]);
        assert!(words.contains("(this one)") && words.contains("laptop"), "{words}");
        let log = device.json(&["log", "--device", "2"]);
        assert_eq!(log[0]["device_name"], "laptop", "{log}");
    }
    let status = a.ok(&["status"]);
    assert!(status.contains("2 laptop"), "{status}");
}

#[test]
fn a_device_that_was_let_in_lets_others_in_without_a_mount() {
    let (world, _node, a) = founder();
    let (b, c) = (world.device("b"), world.device("c"));
    pair(&a, &b);
    let file = world.path("file");
    fs::write(&file, b"C writes").unwrap();
    let joined = pair(&b, &c);
    assert_eq!(joined["number"], 3, "{joined}");
    c.ok(&["put", file.to_str().unwrap(), "/from-c"]);
    c.ok(&["sync"]);
    for device in [&a, &b] {
        device.ok(&["sync"]);
        let list = device.json(&["device", "list"]);
        assert_eq!(list.as_array().unwrap().len(), 3, "{list}");
        assert_eq!(list[2]["added_by"], list[1]["key"], "{list}");
        let out = world.path("out");
        device.ok(&["get", "/from-c", out.to_str().unwrap()]);
        assert_eq!(fs::read(&out).unwrap(), b"C writes");
    }
    // What it calls itself is told without anybody asking it to.
    assert_ne!(a.json(&["device", "list"])[2]["name"], "");
}

#[test]
fn codes_that_are_garbled_wrong_expired_or_used_are_refused_each_in_its_own_words() {
    let (world, node, a) = founder();
    let (b, c) = (world.device("b"), world.device("c"));
    let mut adding = Adding::start(&a, &["--expires", "1500ms"]);
    let code = adding.code.clone();
    for garbled in [&code[..code.len() - 1], &code.replace("key=", "key=0"), "nonsense"] {
        says(&join(&b, garbled), 2, &["pairing code:", "rdrivefs device add"]);
    }
    let swapped = if code.ends_with('0') { "1" } else { "0" };
    let garbled = format!("{}{swapped}", &code[..code.len() - 1]);
    says(&join(&b, &garbled), 2, &["changed on the way"]);
    let other = PairingCode::draw(&node.url.parse().unwrap(), &Env::real());
    says(&join(&b, &other.to_string()), 5, &["no pairing waits there", "print another"]);
    says(&adding.end(), 5, &["the code has expired", "print another"]);
    says(&join(&b, &code), 5, &["the code has expired", "print another"]);

    let mut adding = Adding::start(&a, &[]);
    says(&join(&b, &adding.code), 0, &[]);
    says(&adding.end(), 0, &[]);
    says(&join(&c, &adding.code), 5, &["another device has used the code", "print another"]);
    assert_eq!(a.json(&["device", "list"]).as_array().unwrap().len(), 2);
    assert!(!c.run(&["device", "list"]).out.contains("this one"), "no drive was left behind");
    pair(&a, &c);
    says(&c.run(&["init", "--join", &code]), 1, &["there is a drive"]);
    says(&a.run(&["device", "add", "--remote", "nowhere", "--yes"]), 5, &["no remote named"]);
    says(&a.run(&["device", "name", ""]), 5, &["1 to 64 bytes"]);
}

#[test]
fn whoever_is_not_confirmed_stays_outside() {
    let (world, _node, a) = founder();
    let b = world.device("b");
    says(&a.run(&["device", "add"]), 2, &["there is no terminal", "--yes"]);
    let Some(mut adding) = Adding::on_terminal(&a) else { return };
    let joining = start_join(&b, &adding.code);
    adding.until("[y/N]");
    adding.answer("n\n");
    says(&adding.end(), 5, &["not let in", "device add"]);
    let joined = said(&joining.wait_with_output().unwrap());
    says(&joined, 5, &["did not let this one in"]);
    assert_eq!(a.json(&["device", "list"]).as_array().unwrap().len(), 1);
    assert_eq!(a.json(&["log"]).as_array().unwrap().len(), 2, "nothing was signed");
    let c = world.device("c");
    says(&join(&c, &adding.code), 5, &["another device has used the code"]);

    let mut adding = Adding::on_terminal(&a).unwrap();
    let joining = start_join(&c, &adding.code);
    adding.until("[y/N]");
    adding.answer("y\n");
    says(&adding.end(), 0, &["is device 2 of this drive now"]);
    says(&said(&joining.wait_with_output().unwrap()), 0, &["next: rdrivefs mount"]);
}

#[test]
fn a_node_that_is_killed_in_between_ends_it_and_nobody_is_added() {
    let (world, mut node, a) = founder();
    let b = world.device("b");
    let mut adding = Adding::start(&a, &[]);
    node.kill_and_restart();
    says(&join(&b, &adding.code), 5, &["no pairing waits there", "restarted"]);
    let end = adding.end();
    assert!(matches!(end.code, Some(4 | 5)), "{end:?}");
    assert!(end.err.contains("\n  "), "it says what to do next: {end:?}");

    if let Some(mut adding) = Adding::on_terminal(&a) {
        let joining = start_join(&b, &adding.code);
        adding.until("[y/N]");
        node.kill();
        let joined = said(&joining.wait_with_output().unwrap());
        says(&joined, 4, &["check that the node runs"]);
        adding.answer("y\n");
        says(&adding.end(), 4, &["check that the node runs"]);
        let (store, address) = (node.store.clone(), node.address.clone());
        node = Node::start(&store, &address);
        assert_eq!(a.json(&["device", "list"]).as_array().unwrap().len(), 1);
    }
    pair(&a, &b);
    a.ok(&["sync"]);
    drop(node);
}

/// Neither the code nor what it opens can be read by others of this computer, or by the node.
#[test]
fn s44_the_secret_of_a_code_stays_out_of_logs_and_of_the_node() {
    let (world, node, a) = founder();
    let b = world.device("b");
    a.mount();
    let mut adding = Adding::start(&a, &["-vv"]);
    let secret = adding.code.split("&pair=").nth(1).unwrap()[..32].to_owned();
    let cmdline = fs::read(format!("/proc/{}/cmdline", adding.child.id())).unwrap();
    assert!(!String::from_utf8_lossy(&cmdline).contains(&secret));
    let joined = join(&b, &adding.code);
    says(&joined, 0, &[]);
    assert!(!joined.err.contains(&secret) && !joined.out.contains(&secret));
    let end = adding.end();
    assert!(!end.err.contains(&secret), "{end:?}");
    for place in [&node.store, &a.home, &b.home, &node.store.with_extension("log")] {
        let mut grep = Command::new("grep");
        let found = grep.args(["-rlF", &secret]).arg(place).output().unwrap();
        assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
    }
}
