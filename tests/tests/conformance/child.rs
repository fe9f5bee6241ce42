//! A program of somebody else's, run to its end or to a limit.
//!
//! It gets no standard input, a bare environment and a process group of its own; the group is
//! killed when the program has ended, when its time is over, and when the test fails. What it says
//! goes to a file and not to a pipe, so that nothing waits for a grandchild that holds one open.

use std::io::{Read as _, Seek as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Time in which a killed program must be gone; one that waits in a dead mount may not be.
const GONE_MAX: Duration = Duration::from_secs(20);

/// How a program ended and all it said.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none when a signal or the limit ended it.
    pub code: Option<i32>,
    /// Standard output and standard error, as they came.
    pub text: String,
}

impl Ended {
    /// Whether it ended by itself and well.
    pub fn well(&self) -> bool {
        self.code == Some(0)
    }

    /// How it ended, with the first line that `telling` picks, or else the last words.
    pub fn why(&self, telling: &[&str]) -> String {
        let line = self.text.lines().find(|line| telling.iter().any(|word| line.contains(word)));
        let said = line.unwrap_or_else(|| last_words(&self.text));
        match self.code {
            Some(code) => format!("exit code {code}: {said}"),
            None => format!("killed by a signal or at its limit: {said}"),
        }
    }
}

/// Runs `command` for at most `limit`; of its environment only a PATH of its own is kept.
pub fn run(command: &mut Command, limit: Duration) -> Ended {
    let mut output = tempfile::tempfile().unwrap();
    let path = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, path)| path);
    let path = path.map_or_else(path_of_tests, ToOwned::to_owned);
    command.env_clear().env("PATH", path).env("HOME", "/nonexistent").env("LC_ALL", "C");
    command.current_dir("/").stdin(Stdio::null());
    command.stdout(output.try_clone().unwrap()).stderr(output.try_clone().unwrap());
    std::os::unix::process::CommandExt::process_group(command, 0);
    let child = command.spawn().unwrap_or_else(|e| panic!("{command:?} starts: {e}"));
    let mut group = Group(child);
    let code = group.wait(limit).and_then(|status| status.code());
    drop(group);
    output.rewind().unwrap();
    let mut bytes = Vec::new();
    output.read_to_end(&mut bytes).unwrap();
    Ended { code, text: String::from_utf8_lossy(&bytes).into_owned() }
}

/// The time that limits are measured by.
#[allow(clippy::disallowed_methods, reason = "tests wait in the real world")]
pub fn now() -> Instant {
    Instant::now()
}

struct Group(Child);

impl Group {
    fn wait(&mut self, limit: Duration) -> Option<std::process::ExitStatus> {
        let end = now() + limit;
        while now() < end {
            if let Some(status) = self.0.try_wait().unwrap() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _gone_already = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        self.wait(GONE_MAX);
    }
}

fn path_of_tests() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin:/usr/sbin:/sbin".into())
}

fn last_words(text: &str) -> &str {
    let text = text.trim();
    let start = text.char_indices().rev().nth(300).map_or(0, |(at, _)| at);
    &text[start..]
}

#[test]
fn a_program_that_hangs_is_killed_with_its_children() {
    let script = "echo begun; sleep 1000 & echo $!; wait";
    let ended = run(Command::new("sh").args(["-c", script]), Duration::from_secs(2));
    assert_eq!(ended.code, None, "{ended:?}");
    let mut lines = ended.text.lines();
    assert_eq!(lines.next(), Some("begun"));
    let child = format!("/proc/{}/exe", lines.next().unwrap());
    rdrivefs_tests::world::wait_until("the child is gone", || std::fs::read_link(&child).is_err());
}
