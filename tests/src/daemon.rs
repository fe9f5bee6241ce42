//! Processes that a test starts, stops, freezes and looks at from outside.
//!
//! A program that uses a mount may come to hang in the kernel, and a test that hung with it would
//! clean up nothing. So whatever may hang runs as a process of its own, is waited for within a bound
//! and ended with the value that stands for it; and a mount can be broken off by the kernel's own
//! switch, which frees everybody who waits in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::world::{Device, has_ended, run, state, wait_until};

/// Where the kernel has the switches of FUSE mounts.
const SWITCHES: &str = "/sys/fs/fuse/connections";

/// The number of a request in FUSE's protocol.
pub type Opcode = u32;

/// A child that is killed with this value, at the latest.
pub struct Bounded {
    child: Child,
    what: String,
}

impl Bounded {
    /// Starts a command.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        let child = command.stdin(Stdio::null()).spawn();
        Self { child: child.unwrap_or_else(|e| panic!("{what}: {e}")), what }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it SIGKILL, and does not wait.
    pub fn kill(&mut self) {
        drop(self.child.kill());
    }

    /// Its exit code (none: a signal ended it), if it ends in time.
    ///
    /// # Panics
    /// When the system does not know it.
    pub fn ended_within(&mut self, limit: Duration) -> Option<Option<i32>> {
        let end = now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return Some(status.code());
            }
            if now() > end {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its exit code; it must end in time.
    ///
    /// # Panics
    /// When it does not, with what the kernel has it wait for.
    pub fn ends_within(&mut self, limit: Duration) -> Option<i32> {
        let ended = self.ended_within(limit);
        ended.unwrap_or_else(|| {
            let pid = self.pid();
            let state = state(pid);
            let place = fs::read_to_string(format!("/proc/{pid}/stack")).unwrap_or_default();
            panic!("{} is still there after {limit:?}, in state {state:?}: {place}", self.what)
        })
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        drop(self.child.kill());
        // One that cannot be killed must not take the test with it.
        let _stays = self.ended_within(Duration::from_secs(5)).is_none();
    }
}

/// A process that is stopped until this value is dropped.
pub struct Frozen(u32);

impl Frozen {
    /// Stops it, and waits until it is.
    ///
    /// # Panics
    /// When it cannot be stopped.
    pub fn new(pid: u32) -> Self {
        signal(pid, Signal::STOP);
        wait_until("it is stopped", || state(pid) == Some('T'));
        Self(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        signal(self.0, Signal::CONT);
    }
}

/// Sends a signal; one that is gone does not mind.
///
/// # Panics
/// When the number is none of a process.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("it is a process");
    let _gone = kill_process(pid, signal).is_err();
}

/// Kills at once and waits until the process has ended with all its threads.
///
/// # Panics
/// When it stays.
pub fn kill_at_once(pid: u32) {
    signal(pid, Signal::KILL);
    wait_until("the killed process is gone", || has_ended(pid));
}

/// The most memory a process has had, in bytes.
pub fn peak_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let kib = line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(u64::MAX >> 10);
    kib << 10
}

/// The kernel's switch that breaks off a mount. A test that fails uses it, lest it leave behind what
/// hangs.
pub struct Switch(PathBuf);

impl Switch {
    /// That of the mount on `dir`.
    ///
    /// # Panics
    /// When nothing is mounted there, or the kernel does not show it.
    pub fn of(dir: &Path) -> Self {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("the table can be read");
        let on = dir.to_str();
        let line = table.lines().rev().find(|line| line.split(' ').nth(4) == on);
        let minor = line.and_then(|line| line.split(' ').nth(2)?.split(':').nth(1));
        let minor = minor.unwrap_or_else(|| panic!("nothing is mounted on {}", dir.display()));
        if !Path::new(SWITCHES).join(minor).exists() {
            run(Command::new("mount").args(["-t", "fusectl", "fusectl", SWITCHES]));
        }
        let path = Path::new(SWITCHES).join(minor).join("abort");
        assert!(path.exists(), "{} is not there", path.display());
        Self(path)
    }

    /// Breaks the mount off.
    pub fn press(&self) {
        // It is gone with its mount.
        drop(fs::write(&self.0, "1"));
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.press();
        }
    }
}

/// Records what a process asks of the system, until it is dropped or the process ends.
pub struct Recorder {
    strace: Bounded,
    out: PathBuf,
}

impl Recorder {
    /// Attaches `strace` with these arguments to a process; none where that is not possible, which
    /// is said.
    ///
    /// # Panics
    /// When it neither attaches nor says why.
    pub fn attach(pid: u32, args: &[&str], out: &Path) -> Option<Self> {
        let said = out.with_extension("said");
        let errors = fs::File::create(&said).expect("a file can be made");
        let mut command = Command::new("strace");
        command.args(["-f", "-q", "-o"]).arg(out).args(args).args(["-p", &pid.to_string()]);
        if run(Command::new("sh").args(["-c", "command -v strace"])).code != Some(0) {
            eprintln!("skipped: what only strace sees (strace is not installed)");
            return None;
        }
        let mut strace = Bounded::start(command.stderr(errors).stdout(Stdio::null()));
        let mut ended = false;
        wait_until("strace is attached", || {
            ended = strace.ended_within(Duration::ZERO).is_some();
            ended || tracer_of_all(pid)
        });
        if ended {
            let why = fs::read_to_string(&said).unwrap_or_default();
            eprintln!("skipped: what only strace sees ({})", why.trim());
            return None;
        }
        Some(Self { strace, out: out.to_owned() })
    }

    /// Detaches and returns what was recorded, a call a line.
    ///
    /// # Panics
    /// When strace does not let go.
    pub fn finish(mut self) -> Vec<String> {
        signal(self.strace.pid(), Signal::INT);
        self.strace.ends_within(Duration::from_secs(30));
        let text = fs::read(&self.out).expect("strace wrote a file");
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
    }

    /// Attaches to a daemon to see the requests the kernel sends it.
    pub fn of_requests(device: &Device, out: &Path) -> Option<Self> {
        let pid = device.daemon().expect("a daemon serves the mount");
        Self::attach(pid, &["-e", "trace=read,readv", "-xx", "-s", "8"], out)
    }

    /// The kinds of requests that were read from the device, as [`Recorder::of_requests`] saw them.
    pub fn requests(self) -> BTreeSet<Opcode> {
        self.finish().iter().filter_map(|line| opcode(line)).collect()
    }
}

/// The request in a line such as `12 read(7, "\x50\x00\x00\x00\x10\x00\x00\x00"..., N) = 80`: its
/// length, which the result says too, and its number.
fn opcode(line: &str) -> Option<Opcode> {
    let (call, result) = line.rsplit_once(" = ")?;
    let bytes: Vec<u8> = call
        .split("\\x")
        .skip(1)
        .filter_map(|hex| u8::from_str_radix(hex.get(..2)?, 16).ok())
        .collect();
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let len: u32 = result.split_whitespace().next()?.parse().ok()?;
    (word(0)? == len && len >= 40).then(|| word(4)).flatten()
}

/// Whether every thread of a process is traced.
pub(crate) fn tracer_of_all(pid: u32) -> bool {
    let traced = |status: String| {
        status.lines().any(|l| l.starts_with("TracerPid:\t") && !l.ends_with("\t0"))
    };
    let mut tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.all(|task| fs::read_to_string(task.path().join("status")).is_ok_and(traced))
}

/// How long something took.
pub fn time<T>(job: impl FnOnce() -> T) -> (T, Duration) {
    let begun = now();
    let done = job();
    (done, begun.elapsed())
}

#[allow(clippy::disallowed_methods, reason = "tests wait in the real world")]
fn now() -> Instant {
    Instant::now()
}
