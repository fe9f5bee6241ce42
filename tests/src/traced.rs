//! A daemon whose system calls are counted and disturbed, by strace.
//!
//! `when=N` of strace counts in each thread by itself: the thread that first comes to its N-th call
//! of these is the one that is disturbed, and with errors others follow. Only the calls that are
//! named are looked at. (With `--seccomp-bpf` only those would stop the process, and strace 6.1
//! would inject no signal.)

use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::world::{Device, program, run, wait_until};

/// What happens at which calls.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Calls, with commas between them.
    pub calls: String,
    /// What strace does: `signal=SIGKILL`, `error=EIO`.
    pub what: &'static str,
    /// At which of them: `5`, `5+`, `3..9+2`.
    pub when: String,
}

/// A daemon in the foreground under strace.
pub struct Traced {
    strace: Child,
}

/// Whether this machine lets us do so; else it is said why.
pub fn can_trace() -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=write"]);
    strace.args(["-e", "inject=write:signal=SIGKILL:when=1", "echo", "killed"]);
    match strace.output() {
        Err(e) => println!("skipped: strace cannot be run: {e}"),
        Ok(output) if output.status.signal() != Some(9) => {
            println!("skipped: strace may not trace here: {output:?}");
        }
        Ok(_) => return true,
    }
    false
}

impl Traced {
    /// Mounts the drive of a device so; returns when the folder is usable, or the daemon is gone.
    ///
    /// # Panics
    /// When neither comes about.
    pub fn mount(device: &Device, fault: &Fault) -> Self {
        let Fault { calls, what, when } = fault;
        let strace = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e"])
            .arg(format!("trace={calls}"))
            .arg("-e")
            .arg(format!("inject={calls}:{what}:when={when}"))
            .arg(program("rdrivefs"))
            .args(["--quiet", "mount", "-f", device.dir_str()])
            .env("RDRIVEFS_HOME", &device.home)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace starts");
        let mut traced = Self { strace };
        let socket = device.home.join("run/default/socket");
        wait_until("the daemon serves or is gone", || {
            traced.is_gone() || UnixStream::connect(&socket).is_ok()
        });
        traced
    }

    /// Whether the daemon has ended.
    ///
    /// # Panics
    /// When its process cannot be asked after.
    pub fn is_gone(&mut self) -> bool {
        self.strace.try_wait().expect("a child can be waited for").is_some()
    }

    /// Waits until it has ended by itself; whether it was killed.
    ///
    /// # Panics
    /// When it does not end.
    pub fn was_killed(&mut self) -> bool {
        wait_until("the daemon has ended", || self.is_gone());
        // strace ends as what it traced.
        self.strace.wait().expect("it has ended").signal() == Some(9)
    }

    /// Ends it as a loss of power would, unless it has ended.
    pub fn kill(&mut self) {
        // Killing strace would let the daemon go on.
        let children = format!("/proc/{0}/task/{0}/children", self.strace.id());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        for pid in children.split_whitespace() {
            drop(run(Command::new("kill").arg("-9").arg(pid)));
            wait_until("the daemon is gone", || !Path::new(&format!("/proc/{pid}")).exists());
        }
        drop(self.strace.wait());
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.kill();
    }
}
