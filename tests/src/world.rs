//! A small world on one machine: nodes and devices, run as the programs a person runs.
//!
//! Everything lies in one temporary folder. Whatever was started is ended and whatever was mounted
//! is unmounted when a value is dropped, also when a test fails; every wait is bounded.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest any single command may take; a hung mount must not hang the tests.
const COMMAND_MAX: Duration = Duration::from_secs(240);

/// A folder for everything, and the programs just built.
pub struct World {
    dir: tempfile::TempDir,
}

/// A running node.
pub struct Node {
    child: Child,
    /// Where its store lies.
    pub store: PathBuf,
    /// Where it listens: `127.0.0.1:PORT`.
    pub address: String,
    /// Its `rdrive://` URL.
    pub url: String,
}

/// A device: a home and a place to mount.
pub struct Device {
    /// Its `RDRIVEFS_HOME`.
    pub home: PathBuf,
    /// Its mount point.
    pub dir: PathBuf,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// A program of this workspace, built by `tests/run` before the tests.
///
/// # Panics
/// When it was not built.
pub fn program(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("a test knows its own path");
    let profile = here.ancestors().nth(2).expect("tests lie in PROFILE/deps");
    let program = profile.join(name);
    assert!(program.exists(), "{name} is not built: run `cargo build --workspace --bins`");
    program
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// An empty world.
    ///
    /// # Panics
    /// When there is no room for one.
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder can be made") }
    }

    /// A path in this world's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A node of that name, started.
    pub fn node(&self, name: &str) -> Node {
        Node::start(&self.path(name), "127.0.0.1:0")
    }

    /// A device of that name, with nothing in it yet.
    ///
    /// # Panics
    /// When its folders cannot be made.
    pub fn device(&self, name: &str) -> Device {
        let home = self.path(name);
        let dir = self.path(&format!("{name}-drive"));
        fs::create_dir_all(&dir).expect("a folder can be made");
        Device { home, dir }
    }

    /// A device with a drive of its own that knows `node` as `home`.
    pub fn founder(&self, name: &str, node: &Node) -> Device {
        let device = self.device(name);
        let phrase = self.path("phrase");
        let phrase = phrase.to_str().expect("temporary paths are text");
        device.ok(&["init", "--no-passphrase", "--recovery-file", phrase]);
        device.ok(&["remote", "add", "home", &node.invite()]);
        device
    }
}

impl Node {
    /// Starts a node over `store`, listening on `listen`.
    ///
    /// # Panics
    /// When it does not say its URL in time.
    pub fn start(store: &Path, listen: &str) -> Self {
        let node = Self::try_start(store, listen);
        node.unwrap_or_else(|| panic!("no URL: see {}", store.with_extension("log").display()))
    }

    /// As [`Node::start`], for a store on which it may refuse to run.
    ///
    /// # Panics
    /// When it cannot be started at all, or says what is no URL.
    pub fn try_start(store: &Path, listen: &str) -> Option<Self> {
        let mut child = Command::new(program("rdrivefs-node"))
            .args(["serve", "--listen", listen, "--store"])
            .arg(store)
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log_file(&store.with_extension("log"))))
            .spawn()
            .expect("the node starts");
        let mut url = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
        out.read_line(&mut url).expect("a node says its URL first");
        if url.is_empty() {
            drop(child.wait());
            return None;
        }
        let url = url.trim().to_owned();
        assert!(url.starts_with("rdrive://"), "not a URL: {url:?}");
        let address = url.trim_start_matches("rdrive://").split('?').next().expect("an address");
        Some(Self { child, store: store.to_owned(), address: address.to_owned(), url })
    }

    /// A one-time URL.
    pub fn invite(&self) -> String {
        let mut command = Command::new(program("rdrivefs-node"));
        command.arg("invite").arg("--store").arg(&self.store);
        let said = run(&mut command);
        assert_eq!(said.code, Some(0), "{said:?}");
        said.out.trim().to_owned()
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as a loss of power would, and starts it again where it was.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        let (store, address) = (self.store.clone(), self.address.clone());
        *self = Self::start(&store, &address);
    }

    /// Kills it.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Device {
    /// Runs `rdrivefs` as this device.
    pub fn run(&self, args: &[&str]) -> Said {
        run(&mut self.command(args))
    }

    /// The command, for those who want to start it otherwise.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("rdrivefs"));
        command.env("RDRIVEFS_HOME", &self.home).args(args);
        command
    }

    /// Runs `rdrivefs`, which must succeed; returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn ok(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!(said.code, Some(0), "rdrivefs {args:?}: {said:?}");
        said.out
    }

    /// Runs `rdrivefs … --json`, which must succeed.
    ///
    /// # Panics
    /// When it fails or prints no JSON.
    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let args: Vec<_> = args.iter().copied().chain(["--json"]).collect();
        let out = self.ok(&args);
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{args:?} printed {out:?}: {e}"))
    }

    /// Mounts the drive in the background.
    pub fn mount(&self) {
        self.ok(&["mount", self.dir_str()]);
    }

    /// Unmounts it, waiting until all is durable here.
    pub fn unmount(&self) {
        self.ok(&["unmount", self.dir_str()]);
    }

    /// The mount point as text.
    ///
    /// # Panics
    /// When it is none.
    pub fn dir_str(&self) -> &str {
        self.dir.to_str().expect("temporary paths are text")
    }

    /// The process that serves the mount, if there is one.
    pub fn daemon(&self) -> Option<u32> {
        let status = self.run(&["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&status.out).ok()?;
        status["mount"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
    }

    /// Kills the process that serves the mount as a loss of power would.
    ///
    /// # Panics
    /// When there is none.
    pub fn kill_daemon(&self) {
        let pid = self.daemon().expect("a daemon serves the mount");
        run(Command::new("kill").arg("-9").arg(pid.to_string()));
        wait_until("the daemon is gone", || has_ended(pid));
    }

    /// Disk bytes of the local cache.
    pub fn cache_bytes(&self) -> u64 {
        disk_bytes(&self.home.join("cache"))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(pid) = self.daemon() {
            drop(self.run(&["unmount", "--now", self.dir_str()]));
            if !has_ended(pid) {
                drop(run(Command::new("kill").arg("-9").arg(pid.to_string())));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        if mounts.lines().any(|line| line.split(' ').nth(1) == self.dir.to_str()) {
            drop(run(Command::new("umount").arg("-l").arg(&self.dir)));
        }
    }
}

/// Runs a command to its end, or kills it when it takes too long.
///
/// # Panics
/// When it cannot be started or takes too long.
pub fn run(command: &mut Command) -> Said {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|e| panic!("{command:?} starts: {e}"));
    let mut out = child.stdout.take().expect("it is piped");
    let mut err = child.stderr.take().expect("it is piped");
    let out = std::thread::spawn(move || read_all(&mut out));
    let err = std::thread::spawn(move || read_all(&mut err));
    let end = now() + COMMAND_MAX;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if now() > end {
            drop(child.kill());
            panic!("{command:?} did not end in {COMMAND_MAX:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |thread: std::thread::JoinHandle<String>| thread.join().expect("it was read");
    Said { code: status.code(), out: text(out), err: text(err) }
}

/// Waits for something that must come.
///
/// # Panics
/// When it does not come in time.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let end = now() + Duration::from_secs(30);
    while !done() {
        assert!(now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until a process that leaves in order has ended: it may have to seal 256 MiB before, on a
/// disk that others use, and to give open files twenty seconds.
///
/// # Panics
/// When it does not end.
pub fn wait_for_end(pid: u32) {
    let end = now() + COMMAND_MAX;
    while !has_ended(pid) {
        assert!(now() < end, "process {pid} does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process has ended with all its threads, so that it holds nothing any more. Whoever
/// inherited it may take a second or two to ask how, and nobody need wait for that.
pub fn has_ended(pid: u32) -> bool {
    let threads = |task: fs::ReadDir| task.count();
    match state(pid) {
        Some('Z' | 'X') => fs::read_dir(format!("/proc/{pid}/task")).map_or(0, threads) <= 1,
        state => state.is_none(),
    }
}

/// The letter the system shows for a process: R, S, D, T, Z; none when there is none.
pub fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Whether `diff -r` finds two trees equal, with links, modes of files and contents.
///
/// # Panics
/// With what differs.
pub fn assert_same_tree(a: &Path, b: &Path) {
    let mut diff = Command::new("diff");
    let said = run(diff.args(["-r", "--no-dereference"]).arg(a).arg(b));
    let start: String = said.out.chars().take(2_000).collect();
    assert_eq!(said.code, Some(0), "{start}{}", said.err);
}

/// Disk bytes of everything below `dir`.
pub fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            match meta.is_dir() {
                true => folders.push(entry.path()),
                false => bytes += meta.blocks() * 512,
            }
        }
    }
    bytes
}

/// What a finished process of somebody else's said.
pub fn said(output: &Output) -> Said {
    Said {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

#[allow(clippy::disallowed_methods, reason = "tests wait in the real world")]
fn now() -> Instant {
    Instant::now()
}

fn read_all(from: &mut impl std::io::Read) -> String {
    let mut bytes = Vec::new();
    drop(std::io::Read::read_to_end(from, &mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn log_file(path: &Path) -> fs::File {
    fs::File::options().create(true).append(true).open(path).expect("a log can be written")
}
