//! The command line as a person meets it: what each command says, refuses, keeps and mends.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rdrivefs_tests::world::{Device, Node, Said, World, program, run, wait_until};

#[track_caller]
fn says(said: &Said, code: i32, words: &[&str]) {
    assert_eq!(said.code, Some(code), "{said:?}");
    for words in words {
        let all = format!("{}{}", said.out, said.err);
        assert!(all.contains(words), "{words:?} is not in {said:?}");
    }
    assert!(!said.err.contains("panicked"), "{said:?}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn founder() -> (World, Node, Device) {
    let world = World::new();
    let node = world.node("node");
    let a = world.founder("a", &node);
    (world, node, a)
}

fn alone() -> (World, Device) {
    let world = World::new();
    let a = world.device("a");
    a.ok(&["init", "--no-passphrase", "--recovery-file", text(&world.path("phrase"))]);
    (world, a)
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

/// A child that is ended with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn unmount_sends_what_is_here_to_whoever_answers() {
    let (_world, mut node, a) = founder();
    a.mount();
    fs::write(a.dir.join("f"), noise(300_000)).unwrap();
    says(&a.run(&["unmount", a.dir_str()]), 0, &[]);
    let status = a.json(&["status"]);
    assert_eq!(status["pending"]["dirty_bytes"], 0, "{status}");
    assert_eq!(status["pending"]["push_bytes"], 0, "{status}");
    assert!(status["remotes"][0]["bytes"].as_u64().unwrap() > 290_000, "{status}");

    a.mount();
    node.kill();
    fs::write(a.dir.join("g"), noise(100_000)).unwrap();
    let begun = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let said = a.run(&["unmount"]);
    says(&said, 0, &["home did not get everything", "next mount"]);
    let took = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap() - begun;
    assert!(took.as_secs() < 9, "a node that is away holds nothing up: {took:?}");
    a.mount();
    assert_eq!(fs::read(a.dir.join("g")).unwrap(), noise(100_000));
    let said = a.run(&["unmount", "--now"]);
    says(&said, 0, &[]);
    assert!(!said.err.contains("home"), "nobody was asked: {said:?}");
}

#[test]
fn unmount_names_who_is_in_the_way_and_other_folders() {
    let (world, a) = alone();
    a.mount();
    fs::write(a.dir.join("f"), b"x").unwrap();
    let open = fs::File::open(a.dir.join("f")).unwrap();
    let own = format!("({})", std::process::id());
    says(&a.run(&["unmount"]), 7, &["is in use, by", &own, "close what has files open"]);
    assert_eq!(fs::read(a.dir.join("f")).unwrap(), b"x", "it is still there");
    drop(open);
    let other = world.path("other");
    fs::create_dir(&other).unwrap();
    says(
        &a.run(&["unmount", text(&other)]),
        2,
        &["is not where this drive is mounted", a.dir_str()],
    );
    says(&a.run(&["unmount", a.dir_str()]), 0, &[]);
    says(&a.run(&["unmount", a.dir_str()]), 1, &["not mounted"]);
}

#[test]
fn status_says_what_is_pending_and_watch_says_it_again() {
    let (_world, _node, a) = founder();
    a.mount();
    fs::write(a.dir.join("f"), noise(200_000)).unwrap();
    a.ok(&["sync"]);
    let status = a.json(&["status"]);
    assert_eq!(status["tree"]["bytes"], 200_000, "{status}");
    let sent = status["remotes"][0]["bytes"].as_u64().unwrap();
    assert!(sent >= 200_000, "{status}");
    assert_eq!(status["tree"]["layer_bytes"], sent);
    assert_eq!(status["pending"]["unproven_bytes"], sent);
    assert_eq!(status["cache"]["layers"], 1);
    assert!(status["devices"][0]["head_ms"].as_u64().unwrap() > 1_700_000_000_000, "{status}");
    says(&a.run(&["status"]), 0, &["mounted", "sent and not proven yet", "not yet", "(this one)"]);
    a.ok(&["verify"]);
    let status = a.json(&["status"]);
    assert_eq!(status["pending"]["unproven_bytes"], 0, "{status}");
    assert!(status["cache"]["proven_bytes"].as_u64().unwrap() >= 200_000, "{status}");
    assert_eq!(a.json(&["ls"])[1]["state"]["stage"], "proven");

    for path in
        [&["status", "--watch", "--json"][..], &["status", a.dir_str(), "--watch", "--json"]]
    {
        let mut child = Ended(a.command(path).stdout(Stdio::piped()).spawn().unwrap());
        let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        fs::write(a.dir.join(format!("g{}", path.len())), b"more").unwrap();
        let second = lines.next().unwrap().unwrap();
        assert_ne!(first, second);
        for line in [first, second] {
            serde_json::from_str::<serde_json::Value>(&line).unwrap();
        }
    }
}

/// Everything a copy should keep, one line a name, in order.
fn shape(dir: &Path) -> String {
    let mut find = Command::new("find");
    find.arg(".").args(["-printf", "%p %y %m %n %l "]);
    find.args(["!", "-type", "l", "-printf", "%T@ ", "-o", "-true"]).args(["-printf", "\n"]);
    let said = run(find.current_dir(dir));
    assert_eq!(said.code, Some(0), "{said:?}");
    let mut lines: Vec<_> = said.out.lines().map(str::to_owned).collect();
    lines.sort();
    let xattr = run(Command::new("getfattr").args(["-d", "-m", "user", "f"]).current_dir(dir));
    lines.join("\n") + &xattr.out
}

fn sample(dir: &Path) {
    fs::create_dir_all(dir.join("empty")).unwrap();
    fs::write(dir.join("f"), noise(200_000)).unwrap();
    fs::set_permissions(dir.join("f"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::hard_link(dir.join("f"), dir.join("hard")).unwrap();
    std::os::unix::fs::symlink("f", dir.join("soft")).unwrap();
    fs::write(dir.join(std::ffi::OsStr::from_bytes(b"odd\xff\n")), b"odd").unwrap();
    fs::File::create(dir.join("hole")).unwrap().set_len(30 << 20).unwrap();
    drop(run(Command::new("setfattr").args(["-n", "user.k", "-v", "v"]).arg(dir.join("f"))));
    fs::set_permissions(dir.join("empty"), fs::Permissions::from_mode(0o750)).unwrap();
    for name in ["f", "empty", "soft", "."] {
        let mut touch = Command::new("touch");
        touch.args(["-h", "-d", "2001-02-03 04:05:06.789"]).arg(dir.join(name));
        assert_eq!(run(&mut touch).code, Some(0));
    }
}

fn copies_keep_everything(world: &World, a: &Device, inside: &dyn Fn(&str) -> String) {
    let (from, back) = (world.path("from"), world.path("back"));
    sample(&from);
    a.ok(&["put", text(&from), &inside("new/deep/tree")]);
    a.ok(&["get", &inside("new/deep/tree"), text(&back)]);
    assert_eq!(shape(&from), shape(&back));
    assert_eq!(fs::read(back.join("f")).unwrap(), noise(200_000));
    assert_eq!(fs::read(back.join("hole")).unwrap(), vec![0; 30 << 20]);
    assert!(fs::metadata(back.join("hole")).unwrap().blocks() < 100, "a hole stays one");

    let two = [text(&from.join("f")).to_owned(), text(&from.join("soft")).to_owned()];
    says(&a.run(&["put", &two[0], &two[1], &inside("none")]), 2, &["is no folder"]);
    a.ok(&["put", &two[0], &two[1], &inside("new")]);
    let got = world.path("got");
    says(&a.run(&["get", &inside("new/f"), &inside("new/soft"), text(&got)]), 2, &["is no folder"]);
    fs::create_dir(&got).unwrap();
    a.ok(&["get", &inside("new/f"), &inside("new/soft"), text(&got)]);
    assert_eq!(fs::read_link(got.join("soft")).unwrap(), Path::new("f"));
    says(&a.run(&["get", &inside("new/gone"), text(&got)]), 1, &["new/gone: no such file"]);
    says(&a.run(&["put", "/nowhere/x", &inside("new/x")]), 1, &["/nowhere/x: no such file"]);
    says(&a.run(&["rm", &inside("new/gone")]), 1, &["new/gone: no such file"]);
    says(&a.run(&["rm", &inside("")]), 2, &["the drive itself"]);

    let mut put = a.command(&["put", "-", &inside("stream")]);
    let mut put = Ended(put.stdin(Stdio::piped()).spawn().unwrap());
    put.0.stdin.take().unwrap().write_all(b"streamed").unwrap();
    assert!(put.0.wait().unwrap().success());
    assert_eq!(a.ok(&["get", &inside("stream"), "-"]), "streamed");

    // It can be opened, and reading it fails: nothing of it may be there, and the old file stays.
    says(&a.run(&["put", "/proc/self/mem", &inside("stream")]), 1, &["/proc/self/mem"]);
    assert_eq!(a.ok(&["get", &inside("stream"), "-"]), "streamed");
    a.ok(&["rm", &inside("new"), &inside("stream")]);
    let left = a.json(&["ls"]);
    assert_eq!(left.as_array().unwrap().len(), 1, "only the root is left: {left}");
}

#[test]
fn put_get_and_rm_keep_everything_without_a_mount() {
    let (world, a) = alone();
    copies_keep_everything(&world, &a, &|path| format!("/{path}"));
}

#[test]
fn put_get_and_rm_keep_everything_through_the_mount() {
    let (world, a) = alone();
    a.mount();
    let dir = a.dir_str().to_owned();
    copies_keep_everything(&world, &a, &|path| format!("{dir}/{path}"));
    fs::create_dir(a.dir.join("d")).unwrap();
    let into = a.dir.join("d/e");
    says(&a.run(&["put", text(&a.dir.join("d")), text(&into)]), 2, &["into itself"]);
}

#[test]
fn a_get_that_fails_leaves_what_was_there() {
    let (world, mut node, a) = founder();
    a.mount();
    fs::write(a.dir.join("f"), noise(3 << 20)).unwrap();
    a.ok(&["sync"]);
    a.ok(&["verify"]);
    a.ok(&["evict", a.dir_str()]);
    a.unmount();
    node.kill();
    let out = world.path("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("f"), b"old").unwrap();
    says(&a.run(&["get", "/f", text(&out)]), 4, &["/f"]);
    assert_eq!(fs::read(out.join("f")).unwrap(), b"old");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "no half file is left beside it");
}

#[test]
fn ls_is_a_good_lister_of_any_name() {
    let (_world, a) = alone();
    a.mount();
    fs::create_dir(a.dir.join("d")).unwrap();
    fs::write(a.dir.join("d/f"), vec![0; 1536]).unwrap();
    let odd = a.dir.join(std::ffi::OsStr::from_bytes(b"odd\xff\x1b[31m"));
    fs::write(odd, b"x").unwrap();
    std::os::unix::fs::symlink("d/f", a.dir.join("link")).unwrap();
    let said = a.ok(&["ls"]);
    for words in ["drwx", "  /d/\n", "1.5 KiB", " /d/f\n", " /link -> d/f", r"/odd\xff\x1b[31m"] {
        assert!(said.contains(words), "{words:?} in {said}");
    }
    assert!(!a.ok(&["ls", a.dir_str(), "--depth", "1"]).contains("/d/f\n"));
    let listed = a.json(&["ls"]);
    let name = |entry: &serde_json::Value| entry["path"].as_str().unwrap().to_owned();
    let names: Vec<String> = listed.as_array().unwrap().iter().map(name).collect();
    assert!(names.contains(&"/odd\\xff\u{1b}[31m".to_owned()), "{names:?}");
    let closed = format!("{} ls --depth 9 | true", program("rdrivefs").display());
    let said = run(Command::new("sh").env("RDRIVEFS_HOME", &a.home).args(["-c", &closed]));
    assert_eq!(said.err, "", "who reads has had enough");
    assert!(a.ok(&["ls", "--color", "always"]).contains("\x1b["));
    assert!(!a.ok(&["ls", "--color", "never"]).contains("\x1b["));
    a.unmount();
    assert!(a.ok(&["ls", "/d"]).contains("/d/f"), "a path of the drive, where nothing is mounted");
}

#[test]
fn paths_outside_the_mount_and_paths_that_are_not_there_are_named() {
    let (_world, _node, a) = founder();
    a.mount();
    for command in ["ls", "verify", "evict", "fetch", "pin", "status", "layers"] {
        let said = a.run(&[command, "/etc"]);
        says(&said, 2, &["/etc does not lie in the drive mounted on", "--drive-path"]);
        let gone = a.dir.join("gone");
        says(&a.run(&[command, text(&gone)]), 1, &["/gone: no such file or directory"]);
    }
    a.unmount();
    for command in ["verify", "evict", "fetch"] {
        says(&a.run(&[command, "/etc"]), 2, &["not mounted", "--drive-path"]);
    }
}

#[test]
fn a_bad_mount_option_is_named_with_those_there_are() {
    let (_world, a) = alone();
    let said = a.run(&["mount", a.dir_str(), "-o", "ro,allowother"]);
    says(&said, 2, &["'allowother'", "known are:", "allow_other", "nonempty"]);
}

#[test]
fn the_next_step_is_on_standard_error_unless_quiet() {
    let world = World::new();
    let a = world.device("a");
    let phrase = world.path("phrase");
    let said = a.run(&["init", "--no-passphrase", "--recovery-file", text(&phrase)]);
    says(&said, 0, &["next: rdrivefs remote add"]);
    assert_eq!(said.out, "");
    let said = a.run(&["mount", a.dir_str()]);
    says(&said, 0, &["mounted on", a.dir_str(), "next: rdrivefs remote add"]);
    assert_eq!(said.out, "");
    a.unmount();
    let said = a.run(&["-q", "mount", a.dir_str()]);
    assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""), "quiet is quiet");
}

#[test]
fn who_comes_back_is_told_what_came_back_and_what_is_next() {
    let (world, node, a) = founder();
    a.mount();
    fs::write(a.dir.join("f"), noise(10)).unwrap();
    a.unmount();
    let b = world.device("b");
    let phrase = world.path("phrase");
    let words = ["init", "--no-passphrase", "--recover", text(&phrase), "--remote", &node.url];
    let said = b.run(&words);
    says(&said, 0, &["is back with 2 files", "next: rdrivefs mount"]);
    assert_eq!(said.out, "");
}

fn cached(a: &Device) -> Vec<PathBuf> {
    let folders = fs::read_dir(a.home.join("cache/default")).unwrap().flatten();
    let files = folders.flat_map(|f| fs::read_dir(f.path()).unwrap().flatten());
    files.map(|f| f.path()).filter(|f| f.extension().is_some_and(|e| e == "layer")).collect()
}

fn check<'a>(report: &'a serde_json::Value, name: &str, state: &str) -> &'a serde_json::Value {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|c| c["name"] == name && c["state"] == state);
    found.unwrap_or_else(|| panic!("no {state} {name} in {report:#}"))
}

fn doctor(a: &Device, code: i32, args: &[&str]) -> serde_json::Value {
    let said = a.run(&[&["doctor", "--json"], args].concat());
    assert_eq!(said.code, Some(code), "{said:?}");
    serde_json::from_str(&said.out).unwrap()
}

#[test]
fn the_doctor_mends_what_is_safe_and_names_each() {
    let (_world, _node, a) = founder();
    a.mount();
    fs::write(a.dir.join("f"), noise(300_000)).unwrap();
    a.unmount();
    let report = doctor(&a, 0, &[]);
    for name in ["modes", "mount", "disk", "index", "files", "journal", "cache", "clock"] {
        check(&report, name, "fine");
    }
    check(&report, "remote home", "fine");

    let state = a.home.join("state/default");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    let socket = a.home.join("run/default/socket");
    drop(UnixListener::bind(&socket).unwrap());
    let layer = cached(&a).pop().unwrap();
    let new = layer.with_extension("new");
    fs::write(&new, b"half").unwrap();
    let mut bytes = fs::read(&layer).unwrap();
    bytes[1_000] ^= 1;
    fs::write(&layer, bytes).unwrap();
    let stray = layer.with_file_name(format!("{}.layer", "00".repeat(32)));
    fs::write(&stray, b"nobody's").unwrap();
    assert_eq!(run(Command::new("touch").args(["-d", "2001-01-01"]).arg(&stray)).code, Some(0));

    let report = doctor(&a, 3, &[]);
    let damaged = check(&report, "cache", "damaged");
    assert!(damaged["detail"].as_str().unwrap().contains("/f"), "{damaged}");
    for name in ["modes", "socket", "left-overs", "cache"] {
        let warned = check(&report, name, "warning");
        assert!(warned["mend"].as_str().unwrap().contains("--repair"), "{warned}");
    }
    assert!(stray.exists() && layer.exists(), "without --repair nothing is touched");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    drop(fs::remove_file(&socket));
    drop(UnixListener::bind(&socket).unwrap());
    fs::write(&new, b"half").unwrap();

    let report = doctor(&a, 0, &["--repair"]);
    for name in ["modes", "socket", "left-overs", "cache"] {
        check(&report, name, "mended");
    }
    assert_eq!(fs::metadata(&state).unwrap().mode() & 0o777, 0o700);
    assert!(!socket.exists() && !new.exists() && !stray.exists() && !layer.exists());
    doctor(&a, 0, &[]);
    a.mount();
    assert_eq!(fs::read(a.dir.join("f")).unwrap(), noise(300_000), "a remote had it");
}

#[test]
fn the_doctor_leaves_the_last_copy_alone() {
    let (_world, mut node, a) = founder();
    a.mount();
    fs::write(a.dir.join("f"), noise(300_000)).unwrap();
    a.unmount();
    node.kill();
    let layer = cached(&a).pop().unwrap();
    let mut bytes = fs::read(&layer).unwrap();
    bytes[1_000] ^= 1;
    fs::write(&layer, bytes).unwrap();
    let report = doctor(&a, 3, &["--repair"]);
    check(&report, "cache", "damaged");
    check(&report, "remote home", "warning");
    assert!(layer.exists());
}

#[test]
fn the_doctor_helps_where_the_drive_does_not_open() {
    let (_world, a) = alone();
    a.mount();
    fs::write(a.dir.join("f"), b"x").unwrap();
    a.kill_daemon();
    says(&a.run(&["doctor"]), 0, &["a dead mount lies on", a.dir_str(), "--repair"]);
    check(&doctor(&a, 0, &["--repair"]), "mount", "mended");
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(a.dir_str()));
    a.mount();
    a.kill_daemon();
    says(&a.run(&["unmount"]), 0, &[]);
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(a.dir_str()), "it was known where the dead daemon had mounted it");

    let state = a.home.join("state/default");
    let mut holder = Command::new("flock");
    let holder = holder.arg("-o").arg(state.join("lock")).args(["-c", "echo held; exec cat"]);
    let holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = Ended(holder.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(holder.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let report = doctor(&a, 7, &[]);
    let lock = check(&report, "lock", "warning")["detail"].as_str().unwrap().to_owned();
    assert!(lock.contains(&format!("process {}", holder.0.id())), "{lock}");
    drop(holder);

    let index = state.join("index");
    fs::write(&index, vec![7; 8192]).unwrap();
    let report = doctor(&a, 3, &[]);
    let damaged = check(&report, "index", "damaged");
    assert!(damaged["mend"].as_str().unwrap().contains("init --recover"), "{damaged}");
    let keys = a.home.join("config/default/keys");
    fs::write(&keys, b"no keys").unwrap();
    check(&doctor(&a, 3, &[]), "keys", "damaged");
}

#[test]
fn a_new_node_key_is_taken_only_on_the_word_of_its_keeper() {
    let (_world, mut node, a) = founder();
    a.mount();
    fs::write(a.dir.join("f"), noise(100_000)).unwrap();
    a.ok(&["sync"]);
    a.unmount();
    let fingerprint = |node: &Node| {
        let mut key = Command::new(program("rdrivefs-node"));
        let said = run(key.args(["key", "--json", "--store"]).arg(&node.store));
        let key: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        key["fingerprint"].as_str().unwrap().to_owned()
    };
    let old = fingerprint(&node);
    node.kill();
    fs::remove_file(node.store.join("node.key")).unwrap();
    node.kill_and_restart();
    let new = fingerprint(&node);
    assert_ne!(old, new);

    says(&a.run(&["sync"]), 1, &["node key changed"]);
    says(&a.run(&["remote", "trust", "home", &new[..new.len() - 1]]), 2, &["rdrivefs-node key"]);
    says(&a.run(&["remote", "trust", "home", &old]), 5, &[&new, "not the one named"]);
    says(&a.run(&["remote", "trust", "nobody", &new]), 5, &["no remote named nobody"]);
    says(&a.run(&["sync"]), 1, &["node key changed"]);
    says(&a.run(&["remote", "trust", "home", &new]), 0, &[]);
    let synced = a.json(&["sync"]);
    assert_eq!(synced["agreed"], true, "{synced}");
    assert_eq!(synced["pushed_layers"], 0, "what it holds is not sent again: {synced}");
    assert_eq!(a.json(&["verify"])["failures"], 0);
}

#[test]
fn packaging_installs_programs_pages_and_completions() {
    let world = World::new();
    let bin = program("rdrivefs").parent().unwrap().to_owned();
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut install = Command::new(top.join("packaging/install"));
    install.arg("--destdir").arg(world.path("root")).arg("--bin").arg(bin);
    assert_eq!(run(install.args(["--prefix", "/usr"])).code, Some(0));
    let root = world.path("root/usr");
    for (file, words) in [
        ("share/bash-completion/completions/rdrivefs", "unmount"),
        ("share/zsh/site-functions/_rdrivefs", "#compdef rdrivefs"),
        ("share/fish/vendor_completions.d/rdrivefs.fish", "unmount"),
        ("share/bash-completion/completions/rdrivefs-node", "serve"),
        ("share/man/man1/rdrivefs.1", ".Nm rdrivefs"),
        ("share/systemd/user/rdrivefs.service", "ExecStart=/usr/bin/rdrivefs mount -f"),
    ] {
        let text = fs::read_to_string(root.join(file)).unwrap();
        assert!(text.contains(words), "{file}");
    }
    assert!(root.join("bin/rdrivefs-node").exists());
    wait_until("it runs", || {
        run(Command::new(root.join("bin/rdrivefs")).arg("-V")).code == Some(0)
    });
}
