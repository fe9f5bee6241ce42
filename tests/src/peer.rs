//! Another process, told lines and heard in lines.
//!
//! Every wait for it is bounded, and it is killed with the value that stands for it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::world::wait_until;

/// Longest that a peer may think; a machine under load is slow, a lost wake-up is forever.
const ANSWER_MAX: Duration = Duration::from_secs(120);

/// A running process that answers in lines.
pub struct Peer {
    child: Child,
    to: ChildStdin,
    from: Receiver<String>,
}

impl Peer {
    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn of(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let to = child.stdin.take().expect("it is piped");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
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
    ///
    /// # Panics
    /// When it does not listen any more.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.to, "{line}").expect("it listens");
    }

    /// Its next line.
    ///
    /// # Panics
    /// When none comes in time.
    #[track_caller]
    pub fn hear(&mut self) -> String {
        match self.from.recv_timeout(ANSWER_MAX) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("no answer in {ANSWER_MAX:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("it ended: {:?}", self.end()),
        }
    }

    /// Tells it a line and hears the answer.
    ///
    /// # Panics
    /// As both.
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
    ///
    /// # Panics
    /// When it does not end.
    pub fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the peer ends", || {
            status = self.child.try_wait().expect("it is a child of ours");
            status.is_some()
        });
        status.expect("it was waited for")
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
