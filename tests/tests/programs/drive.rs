//! A drive that is mounted for one test, and the tools that are let loose on it.
//!
//! `Drive` is a device with a drive of its own, mounted by the real program; with a node where
//! bytes are to leave the machine. All of it is gone when the value is dropped, also on failure.
//! Tools run with one umask, one language and a git that reads no settings of this machine, so that
//! their words can be compared.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rdrivefs_tests::world::{Device, Node, Said, World, run};

/// What makes git answer alike everywhere. Nothing of it may outlive its command: a collection in
/// the background would hold the mount.
const GIT: [(&str, &str); 4] = [
    ("init.defaultBranch", "main"),
    ("protocol.file.allow", "always"),
    ("gc.autoDetach", "false"),
    ("maintenance.autoDetach", "false"),
];

/// A mounted drive. The device goes first: it unmounts.
pub struct Drive {
    /// Whose drive it is.
    pub device: Device,
    node: Option<Node>,
    world: World,
}

impl Drive {
    /// A drive without any remote, mounted.
    pub fn new() -> Self {
        Self::with("exec")
    }

    /// The same, mounted with `-o options`.
    pub fn with(options: &str) -> Self {
        let world = World::new();
        let device = world.device("a");
        let phrase = world.path("phrase");
        device.ok(&["init", "--no-passphrase", "--recovery-file", phrase.to_str().unwrap()]);
        device.ok(&["mount", device.dir_str(), "-o", options]);
        Self { device, node: None, world }
    }

    /// A mounted drive whose bytes a node keeps too.
    pub fn kept() -> Self {
        let world = World::new();
        let node = world.node("node");
        let device = world.founder("a", &node);
        device.mount();
        Self { device, node: Some(node), world }
    }

    /// A path on the drive.
    pub fn path(&self, name: &str) -> PathBuf {
        self.device.dir.join(name)
    }

    /// A new folder on the drive.
    pub fn dir(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// A new folder beside the drive, on the machine's own disk.
    pub fn outside(&self, name: &str) -> PathBuf {
        let dir = self.world.path(&format!("outside-{name}"));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Unmounts and mounts again, so that nothing is left but what is stored.
    pub fn remount(&self) {
        self.device.unmount();
        self.device.mount();
    }

    /// Kills the mount as a loss of power would, and mounts again.
    pub fn crash(&self) {
        self.device.kill_daemon();
        self.device.mount();
    }

    /// The same once all that was handed over is durable: an fsync of any file confirms what was
    /// done before it.
    pub fn crash_after_sync(&self) {
        fs::File::open(&self.device.dir).unwrap().sync_all().unwrap();
        self.crash();
    }

    /// Sends everything to the node, has it proven, and drops every local copy.
    pub fn evict(&self) {
        assert!(self.node.is_some(), "nobody else keeps these bytes");
        self.device.ok(&["sync"]);
        self.device.ok(&["verify", "--confidence", "99.9%", "--loss", "1%"]);
        let evicted = self.device.json(&["evict", self.device.dir_str()]);
        assert!(evicted["evicted_bytes"].as_u64().unwrap() > 0, "nothing was evicted: {evicted}");
        // What the kernel still holds of these files goes with the mount.
        self.remount();
    }
}

/// Runs a script, which must succeed; returns what it printed.
#[track_caller]
pub fn sh(dir: &Path, script: &str) -> String {
    let said = try_sh(dir, script);
    assert_eq!(said.code, Some(0), "{script}\n{}{}", said.out, said.err);
    said.out
}

/// Runs a script in `dir`.
pub fn try_sh(dir: &Path, script: &str) -> Said {
    run(shell(script).current_dir(dir))
}

/// The command that runs a script.
pub fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-euc", &format!("umask 022\n{script}")]).env("LC_ALL", "C");
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    command.env("GIT_CONFIG_COUNT", GIT.len().to_string());
    for (at, (key, value)) in GIT.iter().enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{at}"), key);
        command.env(format!("GIT_CONFIG_VALUE_{at}"), value);
    }
    for who in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{who}_NAME"), "t").env(format!("GIT_{who}_EMAIL"), "t@t");
    }
    command
}

/// Longest that a program may work; a slow disk under many syncs is no fault.
const WORK_MAX: Duration = Duration::from_secs(200);

/// Waits for something that takes as long as the disk lets it.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let pause = Duration::from_millis(20);
    for _ in 0..WORK_MAX.as_millis() / pause.as_millis() {
        if done() {
            return;
        }
        std::thread::sleep(pause);
    }
    panic!("waited in vain until {what}");
}

/// Whether a tool is missing, saying so and what is left out.
pub fn missing(tools: &[&str], promise: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let here = |tool: &str| std::env::split_paths(&path).any(|dir| dir.join(tool).exists());
    let gone: Vec<_> = tools.iter().filter(|tool| !here(tool)).collect();
    if !gone.is_empty() {
        eprintln!("SKIPPED, as this machine has no {gone:?}: {promise}");
    }
    !gone.is_empty()
}

/// Bytes that no compressor makes smaller, the same for the same seed.
pub fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A number below `end` that depends on the seed alone.
pub fn pick(seed: &str, end: usize) -> usize {
    let hash = blake3::hash(seed.as_bytes());
    let eight: [u8; 8] = hash.as_bytes()[..8].try_into().unwrap();
    usize::try_from(u64::from_le_bytes(eight) % end as u64).unwrap()
}

/// The names in a folder, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Panics unless an operation failed in just this way.
#[track_caller]
pub fn fails<T: std::fmt::Debug>(
    result: Result<T, impl Into<std::io::Error>>,
    errno: rustix::io::Errno,
    what: &str,
) {
    match result {
        Ok(value) => panic!("{what}: it worked ({value:?}), and should be {errno:?}"),
        Err(error) => {
            let error = error.into();
            assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "{what}: {error}");
        }
    }
}
