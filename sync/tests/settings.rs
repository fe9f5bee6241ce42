//! What a person sets in rdrivefs.toml acts: whole drives as a library, with nodes in this process.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::Duration;

use rdrivefs_sync::drive::Drive;
use rdrivefs_sync::home::Roots;
use rdrivefs_sync::id::Ino;
use rdrivefs_sync::keybag::Unlock;
use rdrivefs_sync::progress::Progress;
use rdrivefs_sync::remote::env::Env;
use rdrivefs_sync::remote::link::NodeUrl;
use rdrivefs_sync::remote::node::invite::{Invite, Invites};
use rdrivefs_sync::remote::node::place::Place;
use rdrivefs_sync::remote::node::{Config, Node};
use rdrivefs_sync::report::{DrivePath, Samples, VerifyPlan};
use rdrivefs_sync::tree::words::Caller;

const ME: Caller = Caller { uid: 1000, gid: 1000, umask: 0 };
const MIB: usize = 1 << 20;

/// Nodes, and a drive with these settings that knows them all.
struct World {
    drive: Option<Drive>,
    nodes: Vec<Node>,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

impl World {
    fn new(nodes: usize, settings: &str) -> Self {
        Self::on(tempfile::tempdir().unwrap(), nodes, settings)
    }

    /// As [`World::new`]; the drive lies in the folder `a` of `dir`.
    fn on(dir: tempfile::TempDir, nodes: usize, settings: &str) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let home = Roots::under(&dir.path().join("a")).home("default").unwrap();
        drop(Drive::create(&home, &Unlock::KeyFile, Env::real()).unwrap());
        std::fs::write(home.config_dir().join("rdrivefs.toml"), settings).unwrap();
        let drive = Drive::open(&home, &Unlock::KeyFile, Env::real()).unwrap();
        let node = |n: usize| {
            let store = dir.path().join(format!("node {n}"));
            let listen = "127.0.0.1:0".parse().unwrap();
            let config = Config { listen, ..Config::new(store.clone()) };
            let node = runtime.block_on(Node::start(config)).unwrap();
            let expires_ms = Env::real().wall_ms().0 + 60_000;
            let invite = Invite { quota: None, expires_ms };
            let invites = Invites::new(&Place::open(store).unwrap());
            let secret = invites.create(&invite, &Env::real()).unwrap();
            let url = NodeUrl { invite: Some(hex::encode(secret.0)), ..node.url() };
            drive.remote_add(&format!("node{n}"), &url).unwrap();
            node
        };
        let nodes = (0..nodes).map(node).collect();
        Self { drive: Some(drive), nodes, runtime, _dir: dir }
    }

    fn drive(&self) -> &Drive {
        self.drive.as_ref().unwrap()
    }

    fn sync(&self) {
        let report = self.drive().sync(None, &Progress::silent()).unwrap();
        assert!(report.agreed, "{report:?}");
    }

    fn audit(&self) {
        let samples = Samples::Count(688);
        let plan = VerifyPlan { samples, loss: 0.01, local: false, remote: None, path: None };
        let report = self.drive().verify(&plan, &Progress::silent()).unwrap();
        assert_eq!(report.failures, 0, "{report:?}");
    }

    /// Drops everything; whether all of it could go.
    fn evict(&self) -> bool {
        let all = [DrivePath(b"/".to_vec())];
        self.drive().evict(&all, false, &Progress::silent()).unwrap().kept.is_empty()
    }

    fn cached(&self) -> u64 {
        self.drive().status().unwrap().cache.bytes
    }

    /// How much of a file was not here.
    fn fetch(&self, path: &str) -> u64 {
        let path = [DrivePath(path.as_bytes().to_vec())];
        self.drive().fetch(&path, &Progress::silent()).unwrap().fetched_bytes
    }

    fn free(&self) -> u64 {
        let disk = self.drive().tree().statfs().unwrap();
        disk.bavail * u64::from(disk.bsize)
    }

    fn put(&self, name: &str, seed: u64, len: usize) -> Ino {
        let tree = self.drive().tree();
        let ino = tree.create(&ME, Ino::ROOT, name.as_bytes(), 0o644).unwrap().ino;
        for (n, part) in noise(seed, len).chunks(MIB).enumerate() {
            assert_eq!(tree.write(ino, (n * MIB) as u64, part).unwrap(), part.len());
        }
        ino
    }

    fn read(&self, ino: Ino) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let part = self.drive().tree().read(ino, bytes.len() as u64, MIB as u32).unwrap();
            if part.is_empty() {
                return bytes;
            }
            bytes.extend(part);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        drop(self.drive.take());
        let _inside = self.runtime.enter();
        self.nodes.clear();
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn took<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let began = Env::real().instant();
    let done = what();
    (done, Env::real().instant().since(began))
}

/// Waits for something the background does.
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Env::real().instant();
    while !done() {
        let waited = Env::real().instant().since(began);
        assert!(waited.as_secs() < 40, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_upload_limit_holds_for_all_remotes_together() {
    let world = World::new(2, "[network]\nupload_limit = \"2MiB\"\n");
    world.put("file", 1, 3 * MIB);
    let ((), took) = took(|| world.sync());
    // Twice 3 MiB, of which the first 2 MiB pass at once; each by itself would take half a second.
    assert!((1_500..20_000).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn the_download_limit_holds_and_what_comes_in_pieces_is_whole() {
    let world = World::new(1, "[network]\ndownload_limit = \"1MiB\"\n");
    let file = world.put("file", 1, 3 * MIB);
    world.sync();
    world.audit();
    assert!(world.evict());
    let (bytes, took) = took(|| world.read(file));
    assert!(bytes == noise(1, 3 * MIB));
    assert!((1_500..20_000).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn a_cache_over_its_bound_shrinks_by_itself_and_pinned_files_stay() {
    let world = World::new(1, "cache_size = \"64MiB\"\n[verify]\nchallenges_per_day = 0\n");
    let mut files = Vec::new();
    for n in 0..3 {
        files.push(world.put(&format!("file{n}"), n, 30 * MIB));
        // So that no two files share a layer, and the first one's are the oldest.
        world.sync();
    }
    let pinned = [DrivePath(b"/file0".to_vec())];
    world.drive().pin(&pinned, true).unwrap();
    assert!(world.cached() > 90 * MIB as u64);
    world.drive().start();
    wait_until("the cache is small", || world.cached() <= 64 * MIB as u64);
    std::thread::sleep(Duration::from_secs(2));
    assert!(world.cached() > 30 * MIB as u64, "no more goes than has to");
    assert_eq!(world.fetch("/file0"), 0, "it is pinned");
    for (n, file) in files.iter().enumerate() {
        assert!(world.read(*file) == noise(n as u64, 30 * MIB));
    }
    wait_until("the cache is small again", || world.cached() <= 64 * MIB as u64);
}

#[test]
fn what_was_used_last_goes_last() {
    let world = World::new(1, "");
    let first = world.put("first", 1, 10 * MIB);
    world.sync();
    world.put("second", 2, 10 * MIB);
    world.sync();
    world.audit();
    world.read(first);
    let report = world.drive().evict_bytes(MIB as u64, false, &Progress::silent()).unwrap();
    assert!((MIB..14 * MIB).contains(&(report.evicted_bytes as usize)), "{report:?}");
    assert_eq!(world.fetch("/first"), 0);
    assert!(world.fetch("/second") >= MIB as u64);
}

#[test]
fn the_days_challenges_add_up_to_the_audit_that_evicting_needs() {
    let busy = World::new(1, "[verify]\nchallenges_per_day = 100000000\n");
    let idle = World::new(1, "[verify]\nchallenges_per_day = 0\n");
    for world in [&busy, &idle] {
        world.put("file", 1, 3 * MIB);
        world.sync();
        world.drive().start();
    }
    wait_until("everything may go", || busy.evict());
    assert!(!idle.evict(), "nobody audited");
}

#[test]
fn the_reserve_is_not_shown_as_free_and_a_tenth_of_the_disk_at_most() {
    let (none, much) =
        (World::new(0, "disk_reserve = 0"), World::new(0, "disk_reserve = \"900TiB\""));
    let disk = none.drive().tree().statfs().unwrap();
    let tenth = disk.blocks * u64::from(disk.bsize) / 10;
    let missing = none.free().saturating_sub(much.free());
    // Others use this disk too.
    assert!(missing.abs_diff(tenth) < tenth / 4, "{missing} of {tenth}");
}

/// A small disk, unmounted when dropped.
struct Disk(std::path::PathBuf);

impl Disk {
    fn new(at: std::path::PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let options = format!("size={size}");
        let mut mount = std::process::Command::new("mount");
        let said = mount.args(["-t", "tmpfs", "-o", &options, "none"]).arg(&at).output();
        said.is_ok_and(|said| said.status.success()).then_some(Self(at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(&self.0).output());
    }
}

#[test]
fn a_full_disk_does_not_keep_anybody_from_reading() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::new(dir.path().join("a"), "300M") else { return };
    let world = World::on(dir, 1, "");
    let file = world.put("file", 1, 20 * MIB);
    world.sync();
    world.audit();
    assert!(world.evict());
    let others = std::fs::write(disk.0.join("others"), vec![1; 300 * MIB]);
    assert!(others.is_err(), "the disk is full");
    assert!(world.read(file) == noise(1, 20 * MIB));
}

#[test]
fn a_disk_below_its_reserve_stops_writers_and_has_the_cache_shrink() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::new(dir.path().join("a"), "400M") else { return };
    let world = World::on(dir, 1, "");
    let file = world.put("file", 1, 120 * MIB);
    world.sync();
    let tree = world.drive().tree();
    tree.checkpoint().unwrap();
    let before = world.free();
    // Somebody else fills the disk to 10 MiB inside the 40 MiB of the reserve.
    let others = vec![1; before as usize + 10 * MIB];
    std::fs::write(disk.0.join("others"), others).unwrap();
    assert_eq!(world.free(), 0);
    let more = tree.create(&ME, Ino::ROOT, b"more", 0o644);
    let written = more.and_then(|more| {
        let part = noise(7, MIB);
        (0..20).try_for_each(|n| tree.write(more.ino, n * MIB as u64, &part).map(drop))
    });
    assert!(written.is_err_and(|e| e.to_string().to_lowercase().contains("space")));
    world.drive().start();
    wait_until("there is room", || world.free() > 0);
    assert!(world.cached() > 40 * MIB as u64, "no more goes than has to: 50 and some");
    assert!(world.read(file) == noise(1, 120 * MIB));
}
