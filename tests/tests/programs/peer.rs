//! The other process: `peer.c`, compiled for a test, told lines and heard in lines.
//!
//! Every wait for it is bounded, and it is killed with the value that stands for it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::drive::{Drive, sh, wait_for};

/// Longest that a peer may think; a machine under load is slow, a lost wake-up is forever.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// Compiles the peer beside the drive.
pub fn compile(drive: &Drive) -> PathBuf {
    let dir = drive.outside("peer");
    std::fs::write(dir.join("peer.c"), include_str!("peer.c")).unwrap();
    sh(&dir, "cc -O1 -Wall -Werror -o peer peer.c");
    dir.join("peer")
}

/// A running process that answers in lines.
pub struct Peer {
    child: Child,
    to: ChildStdin,
    from: Receiver<String>,
}

impl Peer {
    /// Starts the program that [`compile`] made.
    pub fn start(program: &Path, args: &[&str], path: &Path) -> Self {
        Self::of(Command::new(program).args(args).arg(path))
    }

    /// Starts any program that talks in lines.
    pub fn of(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let to = child.stdin.take().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (send, from) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, to, from }
    }

    /// Tells it a line.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.to, "{line}").unwrap();
    }

    /// Its next line.
    #[track_caller]
    pub fn hear(&mut self) -> String {
        match self.from.recv_timeout(ANSWER_MAX) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("no answer in {ANSWER_MAX:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("it ended: {:?}", self.end()),
        }
    }

    /// Tells it a line and hears the answer.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear()
    }

    /// Whether it says nothing for a while.
    pub fn is_silent(&mut self, time: Duration) -> bool {
        // One that has ended says nothing either.
        matches!(self.from.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }

    /// Every line up to its end.
    pub fn rest(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Ok(line) = self.from.recv_timeout(ANSWER_MAX) {
            lines.push(line);
        }
        lines
    }

    /// How it ended by itself.
    pub fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the peer ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Kills it.
    pub fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.kill();
    }
}
