//! A small process beside the daemon that breaks off the mount once the daemon is dead.
//!
//! A killed daemon whose thread waits in the kernel for its own mount cannot die: the kernel waits
//! for an answer that nobody gives any more, and with it everybody who uses the mount, unkillably.
//! The guard has nothing to do with the mount: it holds no descriptor of the device, stands in no
//! folder of it and hears no signal of a terminal or a service manager. It ends when the daemon has
//! ended, however that was.
//!
//! Must: it is told of the death of the daemon's *main thread*, which waits for nothing in the
//! kernel. A pipe would not tell: its end is as open as the device while the stuck thread lives. So
//! the guard is started by the main thread.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};

use super::connection::Connection;

/// How often the guard looks by itself, should it not have been told.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often it looks after it was told, until the system shows the death …
const LOOK_SOON: Duration = Duration::from_millis(10);
/// … and how many times.
const LOOKS_SOON: u32 = 500;

/// The daemon's end: the guard lives as long as the daemon, and is nobody's to wait for.
pub struct Guard(#[allow(dead_code, reason = "it is a process, and ours")] Child);

impl Guard {
    /// Starts `program __guard DAEMON MINOR POINT`. Must be called by the main thread.
    ///
    /// # Errors
    /// Of starting it.
    pub(super) fn start(program: &Path, point: &Path, connection: &Connection) -> io::Result<Self> {
        let guard = Command::new(program)
            .arg("__guard")
            .arg(std::process::id().to_string())
            .arg(connection.minor().to_string())
            .arg(point)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self(guard))
    }
}

/// The guard itself: waits until the process `daemon`, its parent, is dead, then breaks off the
/// mount on `point` whose device has that `minor` number.
///
/// # Errors
/// When the system does not tell of signals.
pub fn keep(daemon: u32, minor: u32, point: &Path) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut told = signal(SignalKind::user_defined1())?;
        // Listened to by nobody, so that they end nothing.
        let deaf = [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::quit(),
            SignalKind::terminate(),
            SignalKind::user_defined2(),
        ];
        let _deaf = deaf.map(signal);
        set_parent_process_death_signal(Some(Signal::USR1))?;
        let connection = Connection::numbered(minor, point);
        let mut soon = 0;
        while lives(daemon) {
            let wait = if soon > 0 { LOOK_SOON } else { LOOK_EVERY };
            soon = match tokio::time::timeout(wait, told.recv()).await {
                Ok(_) => LOOKS_SOON,
                Err(_) => soon.saturating_sub(1),
            };
        }
        connection.give_up();
        Ok(())
    })
}

/// Whether the main thread of our parent lives. One whose other threads hang is a zombie.
fn lives(daemon: u32) -> bool {
    let parent = getppid().map(|pid| pid.as_raw_nonzero().get());
    if parent.and_then(|pid| u32::try_from(pid).ok()) != Some(daemon) {
        return false;
    }
    let stat = fs::read_to_string(format!("/proc/{daemon}/stat")).unwrap_or_default();
    // The name in brackets may have brackets itself.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, Some('Z' | 'X' | 'x'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_living_parent_counts() {
        let parent = getppid().unwrap().as_raw_nonzero().get() as u32;
        assert!(lives(parent));
        assert!(!lives(std::process::id()), "that is not the parent");
    }
}
