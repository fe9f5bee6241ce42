//! R09: whatever ends a daemon or is left by one, one process at a time writes a drive.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rdrivefs_tests::work::Work;
use rdrivefs_tests::world::{Device, wait_for_end};

use crate::{founder, signal};

/// Everything in a home's directory of that name, with its bytes.
fn bytes_below(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect();
    all.sort();
    all
}

fn refused_as_busy(a: &Device) {
    for words in [&["mount", a.dir_str()][..], &["ls"], &["sync"]] {
        let said = a.run(words);
        assert_eq!(said.code, Some(7), "{words:?}: {said:?}");
    }
}

/// A signal is an unmount: all that was written, synced or not, is there, and no dead mount stays.
#[test]
fn r09_a_signal_ends_the_daemon_with_everything_written() {
    let (_world, _node, a) = founder();
    for (n, name) in ["TERM", "HUP", "INT"].into_iter().enumerate() {
        a.mount();
        let pid = a.daemon().unwrap();
        fs::write(a.dir.join(name), name.repeat(100_000)).unwrap();
        signal(pid, name);
        wait_for_end(pid);
        assert_eq!(fs::read_dir(&a.dir).unwrap().count(), 0, "{name}: nothing is mounted any more");
        a.mount();
        assert_eq!(fs::read_dir(&a.dir).unwrap().count(), n + 1);
        assert!(fs::read_to_string(a.dir.join(name)).unwrap() == name.repeat(100_000), "{name}");
        a.unmount();
    }
}

/// While many write: what was promised is there.
#[test]
fn r09_a_signal_at_work_takes_nothing_that_was_promised() {
    let (_world, _node, a) = founder();
    a.mount();
    let work = Work::new(&a.dir, 3, 9).unwrap();
    for name in ["TERM", "HUP"] {
        let pid = a.daemon().unwrap();
        work.run(usize::MAX, || {
            std::thread::sleep(std::time::Duration::from_millis(400));
            signal(pid, name);
            wait_for_end(pid);
        });
        a.mount();
        work.check(name);
        assert!(work.promised() > 0, "there was load");
    }
}

/// A process of somebody else's.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The lock is the kernel's, not a file's: neither what stands in the file, nor the number of a
/// process that lives, nor a socket that somebody else listens on makes a difference.
#[test]
fn r09_what_a_dead_daemon_left_locks_nobody_out() {
    let (_world, _node, a) = founder();
    a.mount();
    fs::write(a.dir.join("f"), b"kept").unwrap();
    fs::File::open(a.dir.join("f")).unwrap().sync_all().unwrap();
    a.kill_daemon();
    let own = std::process::id().to_string();
    fs::write(a.home.join("state/default/lock"), own).unwrap();
    let socket = a.home.join("run/default/socket");
    drop(fs::remove_file(&socket));
    drop(UnixListener::bind(&socket).unwrap());
    assert!(socket.exists(), "a socket without a listener");
    a.mount();
    assert_eq!(fs::read(a.dir.join("f")).unwrap(), b"kept");
}

/// Somebody holds the lock: nobody else writes, not even a byte, until it is let go.
#[test]
fn r09_while_the_lock_is_held_nobody_else_writes() {
    let (_world, _node, a) = founder();
    a.mount();
    fs::write(a.dir.join("f"), b"kept").unwrap();
    a.kill_daemon();
    let journal = a.home.join("state/default/journal");
    let before = bytes_below(&journal);
    let holder = Command::new("flock")
        .arg(a.home.join("state/default/lock"))
        .args(["sh", "-c", "echo held; exec sleep 600"])
        .stdout(Stdio::piped())
        .spawn();
    let mut holder = Other(holder.unwrap());
    let mut line = String::new();
    BufReader::new(holder.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    refused_as_busy(&a);
    assert!(bytes_below(&journal) == before, "the journal is as it was");
    // flock(1) waits for its child, which has the lock too.
    let children = format!("/proc/{0}/task/{0}/children", holder.0.id());
    for pid in fs::read_to_string(children).unwrap().split_whitespace() {
        signal(pid.parse().unwrap(), "KILL");
    }
    drop(holder);
    a.mount();
    assert_eq!(fs::read(a.dir.join("f")).unwrap(), b"kept");
}
