//! While two devices run, each sees what is done on the other; while nothing is done, neither does
//! anything.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rdrivefs_sync::remote::env::Env;
use rdrivefs_tests::peer::Peer;
use rdrivefs_tests::world::{Device, Node, World, run, wait_until};

/// Within this a change is seen on another device.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// What an idle daemon may take of one core, and how long that is measured: the engine asks each
/// remote for news every 30 s.
const IDLE_SHARE: f64 = 0.005;
const IDLE_FOR: Duration = Duration::from_secs(35);

/// Ticks of `/proc/PID/stat` a second.
const TICKS: f64 = 100.0;

/// Two devices of one drive, mounted.
pub(crate) fn pair(world: &World, node: &Node) -> [Device; 2] {
    let a = world.founder("a", node);
    a.mount();
    a.ok(&["sync"]);
    let b = world.device("b");
    let phrase = world.path("phrase");
    let phrase = phrase.to_str().unwrap();
    b.ok(&["init", "--no-passphrase", "--recover", phrase, "--remote", &node.url]);
    b.mount();
    [a, b]
}

/// Something that is done on one device and seen on another.
struct Deed {
    what: &'static str,
    do_it: fn(&Path),
    is_seen: fn(&Path) -> bool,
}

const DEEDS: [Deed; 12] = [
    Deed {
        what: "a file is made",
        do_it: |dir| fs::write(dir.join("a"), "one").unwrap(),
        is_seen: |dir| reads(dir, "a", "one"),
    },
    Deed {
        what: "a file is rewritten",
        do_it: |dir| fs::write(dir.join("a"), "another").unwrap(),
        is_seen: |dir| reads(dir, "a", "another"),
    },
    Deed {
        what: "a directory is made",
        do_it: |dir| fs::create_dir(dir.join("d")).unwrap(),
        is_seen: |dir| dir.join("d").is_dir(),
    },
    Deed {
        what: "a file is moved into it",
        do_it: |dir| fs::rename(dir.join("a"), dir.join("d/b")).unwrap(),
        is_seen: |dir| reads(dir, "d/b", "another") && !dir.join("a").exists(),
    },
    Deed {
        what: "the directory is renamed",
        do_it: |dir| fs::rename(dir.join("d"), dir.join("e")).unwrap(),
        is_seen: |dir| reads(dir, "e/b", "another") && !dir.join("d").exists(),
    },
    Deed {
        what: "its mode is set",
        do_it: |dir| {
            fs::set_permissions(dir.join("e/b"), fs::Permissions::from_mode(0o640)).unwrap();
        },
        is_seen: |dir| mode(dir, "e/b") == Some(0o640),
    },
    Deed {
        what: "an attribute is set",
        do_it: |dir| attribute(&["-n", "user.k", "-v", "v"], &dir.join("e/b")),
        is_seen: |dir| {
            let get = ["-n", "user.k", "--only-values"];
            let said = run(Command::new("getfattr").args(get).arg(dir.join("e/b")));
            said.out == "v"
        },
    },
    Deed {
        what: "it gets a second name",
        do_it: |dir| fs::hard_link(dir.join("e/b"), dir.join("c")).unwrap(),
        is_seen: |dir| fs::metadata(dir.join("c")).is_ok_and(|meta| meta.nlink() == 2),
    },
    Deed {
        what: "a link leads to it",
        do_it: |dir| symlink("c", dir.join("s")).unwrap(),
        is_seen: |dir| reads(dir, "s", "another"),
    },
    Deed {
        what: "it is saved by rename",
        do_it: |dir| {
            fs::write(dir.join(".c.tmp"), "saved").unwrap();
            fs::rename(dir.join(".c.tmp"), dir.join("c")).unwrap();
        },
        is_seen: |dir| reads(dir, "c", "saved") && reads(dir, "e/b", "another"),
    },
    Deed {
        what: "files are removed",
        do_it: |dir| ["c", "s", "e/b"].iter().for_each(|f| fs::remove_file(dir.join(f)).unwrap()),
        is_seen: |dir| fs::read_dir(dir.join("e")).is_ok_and(|mut left| left.next().is_none()),
    },
    Deed {
        what: "the last directory is removed",
        do_it: |dir| fs::remove_dir(dir.join("e")).unwrap(),
        is_seen: |dir| fs::read_dir(dir).is_ok_and(|mut left| left.next().is_none()),
    },
];

#[test]
fn every_change_is_seen_elsewhere_within_two_seconds() {
    let world = World::new();
    let node = world.node("node");
    let ([a, b], env) = (pair(&world, &node), Env::real());
    for [from, to] in [[&a, &b], [&b, &a]] {
        for deed in &DEEDS {
            (deed.do_it)(&from.dir);
            let begun = env.instant();
            wait_until(deed.what, || (deed.is_seen)(&to.dir));
            let took = env.instant().since(begun);
            println!("{}: {} ms", deed.what, took.as_millis());
            assert!(took <= SEEN_WITHIN, "{}: {took:?}", deed.what);
        }
    }
}

#[test]
fn an_idle_drive_writes_nothing_and_takes_no_time() {
    let world = World::new();
    let node = world.node("node");
    let [a, b] = pair(&world, &node);
    fs::write(a.dir.join("f"), vec![7; 300_000]).unwrap();
    wait_until("it is there", || fs::read(b.dir.join("f")).is_ok_and(|f| f.len() == 300_000));
    let daemons = [&a, &b].map(|device| device.daemon().unwrap());
    // Behind the last change comes what makes it durable.
    std::thread::sleep(Duration::from_secs(12));
    let before = daemons.map(|pid| (written(pid), ticks(pid)));
    std::thread::sleep(IDLE_FOR);
    for (pid, (bytes, used)) in daemons.into_iter().zip(before) {
        assert_eq!(written(pid) - bytes, 0, "bytes written for nothing");
        let share = (ticks(pid) - used) / TICKS / IDLE_FOR.as_secs_f64();
        println!("{:.2} % of a core", share * 100.0);
        assert!(share < IDLE_SHARE, "{:.2} % of a core", share * 100.0);
    }
}

/// The kernel tells no watcher of what came from elsewhere: the stream of events does.
#[test]
fn programs_hear_of_what_another_device_changes() {
    let world = World::new();
    let node = world.node("node");
    let [a, b] = pair(&world, &node);
    fs::create_dir(a.dir.join("d")).unwrap();
    wait_until("it is there", || b.dir.join("d").is_dir());
    let mut watch = Peer::of(&mut b.command(&["status", "--watch", "--json"]));
    let mut hear = |event: &str, path: &str, gone: bool| {
        let heard = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["event"] == event && line["path"] == path && line["gone"] == gone
        };
        while !heard(&watch.hear()) {}
    };
    let mut n = 0;
    // The stream begins at some moment after the program has started.
    wait_until("the stream has begun", || {
        n += 1;
        fs::write(a.dir.join("d/f"), format!("{n}")).unwrap();
        wait_until("it came", || reads(&b.dir, "d/f", &n.to_string()));
        n > 3
    });
    hear("changed", "/d/f", false);
    fs::rename(a.dir.join("d"), a.dir.join("e")).unwrap();
    hear("changed", "/d", true);
    hear("changed", "/e", false);
    fs::remove_file(a.dir.join("e/f")).unwrap();
    hear("changed", "/e/f", true);
}

fn reads(dir: &Path, name: &str, content: &str) -> bool {
    fs::read_to_string(dir.join(name)).is_ok_and(|read| read == content)
}

fn mode(dir: &Path, name: &str) -> Option<u32> {
    Some(fs::metadata(dir.join(name)).ok()?.mode() & 0o7777)
}

fn attribute(args: &[&str], path: &Path) {
    let said = run(Command::new("setfattr").args(args).arg(path));
    assert_eq!(said.code, Some(0), "{said:?}");
}

/// Bytes that a process has written to disks.
fn written(pid: u32) -> u64 {
    let io = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap();
    line.parse().unwrap()
}

/// Ticks that a process has run.
fn ticks(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
}
