//! The real program: its words, its exit codes, kill -9, SIGTERM, a full disk, its memory.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Drive, blob, body, eventually, noise};
use rdrivefs_remote::blob::BlobId;
use rdrivefs_remote::env::Env;
use rdrivefs_remote::link::{Link, NodeUrl};
use rdrivefs_remote::store::Store;
use rdrivefs_remote::{Error, proof};

const PROGRAM: &str = env!("CARGO_BIN_EXE_rdrivefs-node");
/// A layer of the largest size.
const LAYER_BYTES: usize = 16 << 20;

/// A node in a process of its own, killed when dropped.
struct Program {
    child: Child,
    url: NodeUrl,
}

impl Program {
    fn serve(store: &Path, more: &[&str]) -> Self {
        Self::serve_at(store, "127.0.0.1:0", more)
    }

    fn serve_at(store: &Path, listen: &str, more: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["serve", "--quiet", "--store"])
            .arg(store)
            .args(["--listen", listen])
            .args(more)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().parse().unwrap_or_else(|e| panic!("{e}: {line}"));
        Self { child, url }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The most memory it ever had, in MiB.
    fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(store: &Path, words: &[&str]) -> Output {
    Command::new(PROGRAM).args(words).env("RDRIVEFS_NODE_STORE", store).output().unwrap()
}

fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(output: &Output, code: i32, words: &[&str]) {
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    for word in words {
        assert!(told.contains(word), "{word:?} in {told}");
    }
}

#[test]
fn keys_invites_and_lists() {
    let dir = tempfile::tempdir().unwrap();
    let drive = Drive::new();
    let root = drive.root.public().to_string();
    let key = json(&run(dir.path(), &["key", "--json"]));
    assert_eq!(key["key"].as_str().unwrap().len(), 64);
    assert_eq!(key["fingerprint"].as_str().unwrap().len(), 39);
    assert!(key["url"].as_str().unwrap().ends_with(key["key"].as_str().unwrap()));

    let invite = json(&run(dir.path(), &["invite", "--quota", "1G", "--expires", "1h", "--json"]));
    let url: NodeUrl = invite["url"].as_str().unwrap().parse().unwrap();
    assert!(url.invite.is_some() && invite["quota_bytes"] == 1u64 << 30);

    let allowed = json(&run(dir.path(), &["allow", &root, "--quota", "10M", "--json"]));
    assert_eq!(allowed["drive"], drive.id().to_string());
    let list = json(&run(dir.path(), &["list", "--json"]));
    assert_eq!(list["drives"][0]["key"], root);
    assert_eq!(
        (&list["drives"][0]["quota_bytes"], &list["invites"]),
        (&10485760.into(), &1.into())
    );
    json(&run(dir.path(), &["deny", &root, "--json"]));
    refused(&run(dir.path(), &["deny", &root]), 1, &["not authorised", "list"]);
    refused(&run(dir.path(), &["allow", "xyz"]), 2, &["64"]);
    refused(&run(dir.path(), &["fly"]), 2, &[]);
    let shell = run(dir.path(), &["completions", "bash"]);
    assert!(String::from_utf8_lossy(&shell.stdout).contains("rdrivefs-node"));
}

#[test]
fn what_is_busy_foreign_or_damaged_is_said_with_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::serve(dir.path(), &[]);
    let listen = format!("127.0.0.1:{}", program.url.port);
    let again = run(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
    refused(&again, 7, &["locking the store", "stop it first"]);
    let other = tempfile::tempdir().unwrap();
    let taken = run(other.path(), &["serve", "--listen", &listen]);
    refused(&taken, 7, &["binding UDP", "--listen"]);
    let key = json(&run(dir.path(), &["key", "--json"]));
    assert_eq!(key["url"], program.url.to_string(), "the URL of the node that runs");
    assert_eq!(json(&run(dir.path(), &["status", "--json"]))["running"], true);
    program.kill();
    assert_eq!(json(&run(dir.path(), &["status", "--json"]))["running"], false);

    std::fs::write(dir.path().join("format"), "rdrivefs-node store 9\n").unwrap();
    let newer = run(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
    refused(&newer, 1, &["unknown version 9", "install that version"]);
    std::fs::write(dir.path().join("format"), "rdrivefs-node store 1\n").unwrap();
    std::fs::write(dir.path().join("node.key"), "nonsense").unwrap();
    let broken = run(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
    refused(&broken, 3, &["node key", "copy"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invite_made_while_the_node_runs_works_and_status_shows_it() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::serve(dir.path(), &["--quota", "1G"]);
    let mut drive = Drive::new();
    let device = drive.add_device();
    let made = json(&run(dir.path(), &["invite", "--json"]));
    let url: NodeUrl = made["url"].as_str().unwrap().parse().unwrap();
    assert_eq!(url.without_invite(), program.url);
    let link = drive.link(&url, &device).await.unwrap();
    let (id, bytes) = blob(1, 100_000);
    link.put(id, body(&bytes)).await.unwrap();
    assert_eq!(link.space().await.unwrap().quota, Some(1 << 30));
    let status = json(&run(dir.path(), &["status", "--json"]));
    assert_eq!(status["spaces"][0]["blobs"], 1);
    assert_eq!(status["spaces"][0]["devices"], 1);
    assert_eq!(status["connections"][0]["device"], device.public().to_string());
    assert_eq!(status["bytes_in"], 100_000);
    program.kill();
    assert_eq!(json(&run(dir.path(), &["status", "--json"]))["spaces"][0]["blobs"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn scrub_names_rot() {
    let dir = tempfile::tempdir().unwrap();
    let mut drive = Drive::new();
    drive.allow(dir.path(), "");
    let program = Program::serve(dir.path(), &[]);
    let device = drive.add_device();
    let link = drive.link(&program.url, &device).await.unwrap();
    let mut ids = Vec::new();
    for seed in 0..3 {
        let (id, bytes) = blob(seed, 100_000);
        link.put(id, body(&bytes)).await.unwrap();
        ids.push(id);
    }
    let clean = json(&run(dir.path(), &["scrub", "--rate", "100M", "--json"]));
    assert_eq!((&clean["blobs"], clean["damaged"].as_array().unwrap().len()), (&3.into(), 0));
    assert_eq!(clean["entries"], 1);
    let rotten = find(dir.path(), &ids[1].to_string()).unwrap();
    let mode = std::os::unix::fs::MetadataExt::mode(&rotten.metadata().unwrap());
    assert_eq!(mode & 0o077, 0, "nobody else's to read");
    flip(&rotten, 50_000);
    flip(&find(dir.path(), &format!("{:016x}", 1)).unwrap(), 200);
    flip(&find(dir.path(), &format!("{}.obao4", ids[2])).unwrap(), 100);
    let output = run(dir.path(), &["scrub", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let named: Vec<_> = report["damaged"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["object"].as_str().unwrap())
        .collect();
    assert_eq!(named.len(), 3);
    assert!(named.iter().any(|name| name.starts_with("m-") && name.ends_with("-0/1")));
    assert!(named.contains(&ids[1].to_string().as_str()), "{report}");
    assert!(named.contains(&ids[2].to_string().as_str()), "{report}");
    let said = run(dir.path(), &["scrub"]);
    assert!(String::from_utf8_lossy(&said.stdout).contains(rotten.to_str().unwrap()));
}

fn find(dir: &Path, name: &str) -> Option<std::path::PathBuf> {
    std::fs::read_dir(dir).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() { find(&path, name) } else { path.ends_with(name).then_some(path) }
    })
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    let mut permissions = std::fs::metadata(path).unwrap().permissions();
    #[allow(clippy::permissions_set_readonly_false, reason = "blobs may be read-only files")]
    permissions.set_readonly(false);
    std::fs::set_permissions(path, permissions).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Kill -9 while eight writers put: what was acknowledged is there and whole, what was not is
/// absent or whole, and the same link goes on with the next process.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_during_puts_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let drive = Drive::new();
    drive.allow(dir.path(), "");
    let mut program = Program::serve(dir.path(), &[]);
    let listen = format!("127.0.0.1:{}", program.url.port);
    let link = Arc::new(drive.link(&program.url, &drive.root).await.unwrap());
    let next = Arc::new(AtomicU64::new(0));
    let mut acknowledged: Vec<(BlobId, u64, usize)> = Vec::new();
    let mut kills = 0;
    let env = Env::real();
    let began = env.instant();
    while kills < 12 && (kills < 10 || env.instant().since(began) < Duration::from_secs(20)) {
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..8 {
            writers.spawn(write_until_broken(link.clone(), next.clone()));
        }
        tokio::time::sleep(Duration::from_millis(120 + 37 * kills)).await;
        program.kill();
        kills += 1;
        // The next process tells the old connection that it is dead.
        program = Program::serve_at(dir.path(), &listen, &[]);
        acknowledged.extend(writers.join_all().await.into_iter().flatten());
        check(&link, &acknowledged).await;
    }
    eprintln!("{kills} kills, {} blobs acknowledged", acknowledged.len());
    assert!(kills >= 10 && !acknowledged.is_empty());
    assert!(json(&run(dir.path(), &["scrub", "--json"]))["damaged"].as_array().unwrap().is_empty());
    // The client resumes: what broke off goes through the second time.
    let (id, bytes) = blob(1 << 40, 300_000);
    link.put(id, body(&bytes)).await.unwrap();
}

async fn write_until_broken(link: Arc<Link>, next: Arc<AtomicU64>) -> Vec<(BlobId, u64, usize)> {
    let mut done = Vec::new();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        let len = 1000 + usize::try_from(seed * 7919 % 700_000).unwrap();
        let (id, bytes) = blob(seed, len);
        // A stream cannot be sent again by the link itself: an error is the node's death.
        let stream =
            rdrivefs_remote::store::Body::stream(len as u64, Box::new(std::io::Cursor::new(bytes)));
        match link.put(id, stream).await {
            Ok(()) => done.push((id, seed, len)),
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                return done;
            }
        }
    }
}

async fn check(link: &Link, acknowledged: &[(BlobId, u64, usize)]) {
    let ids: Vec<_> = acknowledged.iter().map(|(id, ..)| *id).collect();
    let found = link.has(&ids).await.unwrap();
    for ((id, seed, len), found) in acknowledged.iter().zip(found) {
        assert_eq!(found, Some(*len as u64), "blob {id} of seed {seed} was acknowledged");
    }
    let listed = link.list(None, usize::MAX).await.unwrap();
    assert!(listed.len() >= ids.len());
    // All that is listed is whole; the newest are the ones a crash could have hurt.
    let newest: std::collections::HashSet<_> = ids.iter().rev().take(40).collect();
    for held in listed.iter().filter(|h| newest.contains(&h.id) || !ids.contains(&h.id)) {
        let slice = link.get(held.id, 0..held.len).await.unwrap();
        proof::verify(&held.id, held.len, 0..held.len, slice).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_and_ends_well() {
    let dir = tempfile::tempdir().unwrap();
    let drive = Drive::new();
    drive.allow(dir.path(), "");
    let mut program = Program::serve(dir.path(), &[]);
    let link = Arc::new(drive.link(&program.url, &drive.root).await.unwrap());
    let (id, bytes) = blob(1, 4 << 20);
    let (mut feed, source) = tokio::io::duplex(64 << 10);
    let put = tokio::spawn({
        let link = link.clone();
        let body = rdrivefs_remote::store::Body::stream(4 << 20, Box::new(source));
        async move { link.put(id, body).await }
    });
    use tokio::io::AsyncWriteExt as _;
    feed.write_all(&bytes[..1 << 20]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    program.signal(rustix::process::Signal::TERM);
    tokio::time::sleep(Duration::from_millis(100)).await;
    feed.write_all(&bytes[1 << 20..]).await.unwrap();
    put.await.unwrap().unwrap();
    let mut ended = None;
    eventually(Duration::from_secs(10), async || {
        ended = program.child.try_wait().unwrap();
        ended.is_some()
    })
    .await;
    assert!(ended.unwrap().success());
    assert!(!dir.path().join("node.sock").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_pass_through_bounded_memory() {
    let dir = tempfile::tempdir().unwrap();
    let drive = Drive::new();
    drive.allow(dir.path(), "");
    let program = Program::serve(dir.path(), &[]);
    let link = Arc::new(drive.link(&program.url, &drive.root).await.unwrap());
    let layers: Vec<_> = (0..8).map(|seed| blob(seed, LAYER_BYTES)).collect();
    for round in 0..2 {
        let mut work = tokio::task::JoinSet::new();
        for (id, bytes) in layers.clone() {
            let link = link.clone();
            work.spawn(async move {
                if round == 0 {
                    link.put(id, body(&bytes)).await.unwrap();
                } else {
                    let len = bytes.len() as u64;
                    let slice = link.get(id, 0..len).await.unwrap();
                    proof::verify(&id, len, 0..len, slice).unwrap();
                }
            });
        }
        work.join_all().await;
        eprintln!("after round {round}: peak {} MiB", program.peak_mib());
    }
    let peak = program.peak_mib();
    eprintln!("peak of the node: {peak} MiB");
    assert!(peak <= 100, "{peak} MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_hurts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=24m,mode=0700", "none"])
        .arg(dir.path())
        .output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: mounting a small tmpfs needs root");
        return;
    }
    let outcome = tokio::spawn(fill(dir.path().to_owned())).await;
    let _ = Command::new("umount").args(["-l"]).arg(dir.path()).status();
    outcome.unwrap();
}

async fn fill(store: std::path::PathBuf) {
    let drive = Drive::new();
    drive.allow(&store, "");
    let program = Program::serve(&store, &["--retain", "0"]);
    let link = drive.link(&program.url, &drive.root).await.unwrap();
    let mut kept = Vec::new();
    let full = loop {
        let (id, bytes) = blob(kept.len() as u64, 3 << 20);
        match link.put(id, body(&bytes)).await {
            Ok(()) => kept.push(id),
            Err(error) => break error,
        }
        assert!(kept.len() < 20, "24 MiB hold no more than 7 such blobs");
    };
    assert!(matches!(full, Error::Full), "{full}");
    assert!(kept.len() >= 3);
    let listed = link.list(None, 100).await.unwrap();
    assert_eq!(listed.len(), kept.len(), "nothing partial");
    for id in &kept {
        let slice = link.get(*id, 0..3 << 20).await.unwrap();
        proof::verify(id, 3 << 20, 0..3 << 20, slice).unwrap();
    }
    link.delete(kept[0]).await.expect("deleting works on a full disk");
    let (id, bytes) = (BlobId::of(&noise(99, 2 << 20)), noise(99, 2 << 20));
    link.put(id, body(&bytes)).await.unwrap();
    program.kill();
    let program = Program::serve(&store, &["--retain", "0"]);
    let link = drive.link(&program.url, &drive.root).await.unwrap();
    assert_eq!(link.list(None, 100).await.unwrap().len(), kept.len());
}
