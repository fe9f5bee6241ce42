//! A daemon whose system calls are counted and disturbed, by strace.
//!
//! `when=N` of strace counts in each thread, and each sort of call, by itself: the thread that first
//! comes to its N-th call of a sort is the one that is disturbed, and with errors others follow.
//! Only the calls that are named are looked at. (With `--seccomp-bpf` only those would stop the
//! process, and strace 6.1 would inject no signal.)

use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::daemon::tracer_of_all;
use crate::world::{Device, has_ended, program, run, wait_until};

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
    /// The daemon, where it is not strace that started it.
    daemon: Option<Child>,
    /// The calls that were looked at, a line each.
    log: PathBuf,
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
        Self::mount_with(device, std::slice::from_ref(fault), &[])
    }

    /// The same with several faults, and with these variables in the environment of the daemon.
    ///
    /// # Panics
    /// As [`Traced::mount`].
    pub fn mount_with(device: &Device, faults: &[Fault], variables: &[(&str, &str)]) -> Self {
        let log = device.home.with_extension("calls");
        let mut strace = strace(faults, &log);
        let strace = strace.arg(program("rdrivefs")).args(foreground(device));
        let strace = strace.env("RDRIVEFS_HOME", &device.home).envs(variables.iter().copied());
        let mut traced = Self { strace: silent(strace), daemon: None, log };
        traced.serves(device);
        traced
    }

    /// Mounts it undisturbed; from then on each thread's calls are counted and disturbed.
    ///
    /// # Panics
    /// When the daemon does not serve, or cannot be traced.
    pub fn attach(device: &Device, faults: &[Fault], variables: &[(&str, &str)]) -> Self {
        let mut daemon = device.command(&foreground(device));
        let daemon = silent(daemon.envs(variables.iter().copied()));
        let pid = daemon.id();
        let log = device.home.with_extension("calls");
        // What stands for the tracer until there is one.
        let first = silent(&mut Command::new("true"));
        let mut traced = Self { strace: first, daemon: Some(daemon), log };
        traced.serves(device);
        drop(traced.strace.wait());
        traced.strace = silent(strace(faults, &traced.log).args(["-p", &pid.to_string()]));
        wait_until("strace is attached", || traced.is_gone() || tracer_of_all(pid));
        traced
    }

    fn serves(&mut self, device: &Device) {
        let socket = device.home.join("run/default/socket");
        wait_until("the daemon serves or is gone", || {
            self.is_gone() || UnixStream::connect(&socket).is_ok()
        });
    }

    /// Whether the daemon has ended.
    ///
    /// # Panics
    /// When its process cannot be asked after.
    pub fn is_gone(&mut self) -> bool {
        let process = self.daemon.as_mut().unwrap_or(&mut self.strace);
        process.try_wait().expect("a child can be waited for").is_some()
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

    /// Whether a call was answered with an error; to be asked when it has ended.
    pub fn failed_a_call(&self) -> bool {
        let log = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log).contains("(INJECTED)")
    }

    /// Ends it as a loss of power would, unless it has ended.
    pub fn kill(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            drop(daemon.kill());
            drop(daemon.wait());
        }
        // Killing strace would let the daemon go on.
        let children = format!("/proc/{0}/task/{0}/children", self.strace.id());
        let children = std::fs::read_to_string(children).unwrap_or_default();
        for pid in children.split_whitespace() {
            drop(run(Command::new("kill").arg("-9").arg(pid)));
            let pid = pid.parse().expect("it is a number");
            wait_until("the daemon is gone", || has_ended(pid));
        }
        drop(self.strace.wait());
    }
}

/// The tracer, before it is told whom to trace.
fn strace(faults: &[Fault], log: &Path) -> Command {
    let mut strace = Command::new("strace");
    let calls: Vec<_> = faults.iter().map(|fault| &*fault.calls).collect();
    strace.args(["-f", "-qq", "-o"]).arg(log);
    strace.arg("-e").arg(format!("trace={}", calls.join(",")));
    for Fault { calls, what, when } in faults {
        strace.arg("-e").arg(format!("inject={calls}:{what}:when={when}"));
    }
    strace
}

fn foreground(device: &Device) -> [&str; 4] {
    ["--quiet", "mount", "-f", device.dir_str()]
}

fn silent(command: &mut Command) -> Child {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("it starts")
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.kill();
    }
}
