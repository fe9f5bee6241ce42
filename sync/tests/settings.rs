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
        let dir = tempfile::tempdir().unwrap();
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

    fn evict(&self) {
        let all = [DrivePath(b"/".to_vec())];
        let report = self.drive().evict(&all, false, &Progress::silent()).unwrap();
        assert_eq!(report.kept, [], "{report:?}");
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
    world.evict();
    let (bytes, took) = took(|| world.read(file));
    assert!(bytes == noise(1, 3 * MIB));
    assert!((1_500..20_000).contains(&took.as_millis()), "{took:?}");
}
