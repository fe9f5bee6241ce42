//! R19: a file is found again by its handle as long as it is there, also after mounting again, and
//! a handle never leads to another file; so an NFS server can serve a mount.
//!
//! Who opens files by handle must be root.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rdrivefs_tests::compiled::compiled;
use rdrivefs_tests::world::{Device, Said, World, assert_same_tree, run};

use crate::{alone, noise, text};

/// The program that `handle.c` is; none, said why, where nobody may use it.
fn program(world: &World) -> Option<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root opens files by their handles");
        return None;
    }
    Some(compiled(&world.path(""), "handle", include_str!("handle.c")))
}

/// Handles of a mount.
struct Handles<'a> {
    program: &'a Path,
    a: &'a Device,
}

impl Handles<'_> {
    fn of(&self, name: &str) -> String {
        let said = run(Command::new(self.program).arg("of").arg(self.a.dir.join(name)));
        assert_eq!(said.code, Some(0), "{name}: {said:?}");
        said.out.trim().to_owned()
    }

    fn by(&self, what: &str, handle: &str) -> Said {
        run(Command::new(self.program).args([what, self.a.dir_str(), handle]))
    }

    #[track_caller]
    fn leads_to(&self, handle: &str, bytes: &str) {
        let said = self.by("read", handle);
        assert_eq!((said.code, &*said.out), (Some(0), bytes), "{said:?}");
    }

    #[track_caller]
    fn is_stale(&self, handle: &str) {
        let said = self.by("read", handle);
        assert_eq!((said.code, said.err.trim()), (Some(1), "ESTALE"), "{handle}: {said:?}");
    }
}

#[test]
fn r19_a_handle_opens_the_same_file_after_mounting_again() {
    let world = World::new();
    let Some(program) = program(&world) else { return };
    let a = alone(&world);
    a.mount();
    let handles = Handles { program: &program, a: &a };
    fs::create_dir_all(a.dir.join("deep/er/still")).unwrap();
    let mut files = BTreeMap::new();
    for n in 0..40 {
        let name = format!("{}f{n}", ["", "deep/", "deep/er/", "deep/er/still/"][n % 4]);
        fs::write(a.dir.join(&name), &name).unwrap();
        files.insert(name.clone(), (handles.of(&name), a.dir.join(&name)));
    }
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let inodes: BTreeMap<_, _> =
        files.iter().map(|(name, (_, path))| (name.clone(), inode(path))).collect();
    let (root, still) = (handles.of(""), handles.of("deep/er/still"));
    fs::hard_link(a.dir.join("f0"), a.dir.join("deep/also")).unwrap();
    assert_eq!(handles.of("deep/also"), files["f0"].0, "two names of one file, one handle");
    for ending in ["unmounted", "killed"] {
        match ending {
            "unmounted" => a.unmount(),
            _ => a.kill_daemon(),
        }
        a.mount();
        // By handle first: the kernel knows of nothing but the root.
        let said = handles.by("path", &still);
        assert_eq!(said.out.trim(), text(&a.dir.join("deep/er/still")), "{ending}: {said:?}");
        for (name, (handle, path)) in &files {
            handles.leads_to(handle, name);
            assert_eq!(inode(path), inodes[name], "{ending}: {name} has its number still");
            assert_eq!(handles.of(name), *handle, "{ending}: {name}");
        }
        assert!(handles.by("list", &root).out.contains("deep\n"), "{ending}");
    }
    let (moved, lost) = (&files["f4"].0, &files["f8"].0);
    fs::rename(a.dir.join("f4"), a.dir.join("deep/er/moved")).unwrap();
    fs::rename(a.dir.join("f12"), a.dir.join("f8")).unwrap();
    fs::remove_file(a.dir.join("f0")).unwrap();
    for when in ["at once", "mounted again"] {
        handles.leads_to(moved, "f4");
        handles.leads_to(&files["f12"].0, "f12");
        handles.leads_to(&files["f0"].0, "f0");
        handles.is_stale(lost);
        a.unmount();
        a.mount();
        println!("{when}");
    }
    fs::remove_dir_all(a.dir.join("deep")).unwrap();
    for name in files.keys().filter(|name| name.starts_with("deep")) {
        let said = handles.by("read", &files[name].0);
        assert_eq!((said.code, said.err.trim()), (Some(1), "ESTALE"), "{name}: {said:?}");
    }
    handles.is_stale(&still);
}

/// Numbers are never used again, however many files come and go under the same name.
#[test]
fn r19_a_handle_never_leads_to_another_file() {
    let world = World::new();
    let Some(program) = program(&world) else { return };
    let a = alone(&world);
    a.mount();
    let handles = Handles { program: &program, a: &a };
    let mut gone = Vec::new();
    for round in 0..3 {
        for n in 0..10 {
            let name = format!("f{n}");
            fs::write(a.dir.join(&name), format!("{round} {n}")).unwrap();
            gone.push(handles.of(&name));
            fs::remove_file(a.dir.join(&name)).unwrap();
        }
        gone.iter().for_each(|handle| handles.is_stale(handle));
        match round {
            0 => a.unmount(),
            _ => a.kill_daemon(),
        }
        a.mount();
        gone.iter().for_each(|handle| handles.is_stale(handle));
    }
    fs::write(a.dir.join("here"), "here").unwrap();
    let here = handles.of("here");
    handles.leads_to(&here, "here");
    // The kind, the number as two words and the generation, as the kernel writes them.
    let (kind, hex) = here.split_once(':').unwrap();
    assert_eq!(hex.len(), 24, "{here}");
    for at in (0..24).step_by(2) {
        let byte = u8::from_str_radix(&hex[at..at + 2], 16).unwrap() ^ 1;
        handles.is_stale(&format!("{kind}:{}{byte:02x}{}", &hex[..at], &hex[at + 2..]));
    }
    for number in ["00000000", "ffffffff", "00000001"] {
        handles.is_stale(&format!("{kind}:{number}{number}00000000"));
    }
    handles.leads_to(&here, "here");
}

fn opened_at_once(rounds: u32) {
    let world = World::new();
    let Some(program) = program(&world) else { return };
    let a = alone(&world);
    a.mount();
    let handles = Handles { program: &program, a: &a };
    let said = handles.by("gone", &rounds.to_string());
    assert_eq!(said.code, Some(0), "{said:?}");
}

/// The kernel gives an inode back later than it asks anew: what has no name is gone in between too.
#[test]
fn r19_the_handle_of_a_removed_file_is_stale_at_once() {
    opened_at_once(2_000);
}

#[test]
#[ignore = "long: 200,000 files, some minutes"]
fn r19_long_the_handle_of_a_removed_file_is_stale_at_once() {
    opened_at_once(200_000);
}

/// What a pulled version replaced is another inode; its handle shows the old one or nothing.
#[test]
fn r19_the_handle_of_a_replaced_version_shows_no_other_file() {
    let world = World::new();
    let Some(program) = program(&world) else { return };
    let node = world.node("node");
    let a = world.founder("a", &node);
    a.mount();
    fs::write(a.dir.join("f"), "old").unwrap();
    let handles = Handles { program: &program, a: &a };
    let old = handles.of("f");
    a.ok(&["sync"]);
    let b = world.device("b");
    let phrase = world.path("phrase");
    b.ok(&["init", "--no-passphrase", "--recover", text(&phrase), "--remote", &node.url]);
    b.mount();
    fs::write(b.dir.join("f"), "new").unwrap();
    b.ok(&["sync"]);
    a.ok(&["sync"]);
    for when in ["at once", "mounted again"] {
        assert_eq!(fs::read_to_string(a.dir.join("f")).unwrap(), "new", "{when}");
        handles.leads_to(&handles.of("f"), "new");
        let said = handles.by("read", &old);
        let shown = (said.code, &*said.out, said.err.trim());
        let fine = [(Some(0), "old", ""), (Some(0), "new", ""), (Some(1), "", "ESTALE")];
        assert!(fine.contains(&shown), "{when}: {said:?}");
        println!("{when}: {shown:?}");
        a.unmount();
        a.mount();
    }
}

/// Whether a program that the NFS test needs is missing, saying so.
fn no_nfs_here() -> bool {
    let tools = ["ganesha.nfsd", "rpcbind", "nfs-cp", "nfs-cat", "nfs-ls", "unshare", "ip"];
    let find = |tool: &&str| run(Command::new("sh").args(["-c", "command -v $0", tool]));
    let mut missing: Vec<_> = tools.iter().filter(|tool| find(tool).code != Some(0)).collect();
    let plugins = run(Command::new("sh").args(["-c", "ls /usr/lib/*/ganesha/libfsalvfs.so"]));
    if plugins.code != Some(0) {
        missing.push(&"nfs-ganesha-vfs");
    }
    if !missing.is_empty() {
        println!("skipped: an NFS server over a mount ({missing:?} missing)");
        return true;
    }
    let spaces = ["--mount", "--net", "--pid", "--fork", "--mount-proc", "true"];
    let said = run(Command::new("unshare").args(spaces));
    if said.code != Some(0) {
        println!("skipped: an NFS server over a mount (no namespaces here: {})", said.err.trim());
    }
    said.code != Some(0)
}

/// Serves the mount by NFS; copies `portion` in and everything out.
fn by_nfs(world: &World, a: &Device, portion: &Path, out: &Path) {
    let scratch = world.path("nfs");
    fs::create_dir_all(&scratch).unwrap();
    let script = scratch.join("nfs.sh");
    fs::write(&script, include_str!("nfs.sh")).unwrap();
    let mut serve = Command::new("timeout");
    serve.args(["-k", "5", "120", "unshare", "--mount", "--net", "--pid", "--fork"]);
    serve.args(["--kill-child", "--mount-proc", "bash"]).arg(&script).arg(&a.dir);
    let said = run(serve.arg(portion).arg(out).arg(&scratch));
    let log = fs::read_to_string(scratch.join("log")).unwrap_or_default();
    let end = &log[log.len().saturating_sub(2_000)..];
    assert_eq!(said.code, Some(0), "{said:?}\nthe server said {end}");
}

#[test]
fn r19_an_nfs_server_serves_a_mount() {
    if no_nfs_here() {
        return;
    }
    let world = World::new();
    let a = alone(&world);
    a.mount();
    let [first, second, out] = ["first", "second", "out"].map(|name| world.path(name));
    for dir in [&first, &second, &out, &a.dir] {
        fs::create_dir_all(dir.join("deep/er")).unwrap();
    }
    for (n, len) in [0, 1, 4_096, 70_001, 3_000_000, 9_000_000].into_iter().enumerate() {
        let name = format!("{}f{n}", ["", "deep/", "deep/er/"][n % 3]);
        fs::write(first.join(&name), noise(&name, len)).unwrap();
    }
    by_nfs(&world, &a, &first, &out);
    assert_same_tree(&first, &a.dir);
    assert_same_tree(&first, &out);
    let listing = fs::read_to_string(world.path("nfs/listing")).unwrap();
    assert!(listing.contains("9000000 deep/er/f5"), "{listing}");
    let listing = fs::read_to_string(world.path("nfs/listing-4")).unwrap();
    assert!(listing.contains("9000000 deep/er/f5"), "by NFS 4: {listing}");
    // Mounted again and served again, all is there, and more can come.
    a.unmount();
    a.mount();
    for n in 0..30 {
        fs::write(second.join(format!("deep/g{n}")), noise(&format!("g{n}"), 10_000 + n)).unwrap();
    }
    by_nfs(&world, &a, &second, &out);
    let all = run(Command::new("cp").arg("-a").arg(second.join(".")).arg(&first));
    assert_eq!(all.code, Some(0), "{all:?}");
    assert_same_tree(&first, &a.dir);
    assert_same_tree(&first, &out);
}
