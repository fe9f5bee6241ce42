//! Unmounting: what is here goes to the remotes that answer, then the folder is let go.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rdrivefs_sync::home::Home;
use serde_json::Value;

use crate::cli::args::Common;
use crate::cli::{ask, places, say, users};
use crate::control::{self, Request};
use crate::failure::{Exit, Failure, Result};
use crate::mount::{clear_dead, is_dead_mount};

/// How often it is looked whether the daemon has let the drive go, and how many times.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOOKS_MAX: usize = 6_000;

/// Unmounts, waiting until all is durable on this computer and, without `now`, until the remotes
/// that answer have what was made here.
pub(super) fn unmount(common: &Common, dir: Option<&Path>, now: bool) -> Result<()> {
    let home = places::home(common)?;
    if !control::is_served(&home.socket()) {
        return unmount_dead(&home, dir);
    }
    let point = ask::mounted_on(&home);
    if let (Some(dir), Some(point)) = (dir, &point) {
        only_here(dir, point)?;
    }
    if !now {
        settle(common, &home, point.as_deref());
    }
    ask::ask_daemon(common, &home, Request::Unmount).map_err(|failure| match &point {
        Some(point) if failure.code == Exit::Busy => busy(point, failure),
        _ => failure,
    })?;
    let_go(&home)
}

/// The folder a person names must be the one this drive is mounted on.
fn only_here(dir: &Path, point: &Path) -> Result<()> {
    let named = places::real(dir)?;
    if named == point || dir.canonicalize().is_ok_and(|dir| dir == point) {
        return Ok(());
    }
    Err(Failure::words(format!(
        "{} is not where this drive is mounted; that is {}",
        dir.display(),
        point.display()
    ))
    .next("name that folder or none; another drive is named with --drive or RDRIVEFS_HOME"))
}

/// Sends what is here to the remotes that answer. Whatever goes wrong with that holds up nothing:
/// it goes on at the next mount.
fn settle(common: &Common, home: &Home, point: Option<&Path>) {
    // The kernel hands over what programs have written and not synced.
    if let Some(Ok(folder)) = point.map(std::fs::File::open) {
        let _told_elsewhere = rustix::fs::syncfs(folder);
    }
    match ask::ask_daemon(common, home, Request::Settle) {
        Ok(report) => tell_rest(common, &report),
        Err(failure) => {
            say::hint(common, &format!("not everything was sent: {}", failure.error));
        }
    }
}

fn tell_rest(common: &Common, report: &Value) {
    for remote in report["remotes"].as_array().into_iter().flatten() {
        if let (false, Some(name)) = (remote["agreed"] == true, remote["name"].as_str()) {
            let why = remote["error"].as_str().unwrap_or("it did not answer");
            let line =
                format!("{name} did not get everything ({why}); that goes on at the next mount");
            say::hint(common, &line);
        }
    }
}

fn busy(point: &Path, failure: Failure) -> Failure {
    let users = users::of(point);
    let who = match users.is_empty() {
        true => String::new(),
        false => format!(", by {}", users.join(", ")),
    };
    let error = format!("{} is in use{who}", point.display());
    Failure { error, ..failure }
        .next("close what has files open there or stands in that folder, then unmount again")
}

/// The daemon lets the drive go when everything is written.
fn let_go(home: &Home) -> Result<()> {
    for _ in 0..LOOKS_MAX {
        if home.lock().is_ok() {
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err(Failure::new(Exit::Busy, "it is unmounted, and still being written to disk")
        .next("wait a little before shutting down"))
}

/// A mount whose daemon is gone.
fn unmount_dead(home: &Home, dir: Option<&Path>) -> Result<()> {
    let dir = match dir {
        Some(dir) => places::real(dir)?,
        None => match left_on(home) {
            Some(dir) => dir,
            None => places::configured(home)?,
        },
    };
    if !is_dead_mount(&dir) {
        let error = format!("this drive is not mounted, nor is a dead mount on {}", dir.display());
        return Err(Failure::new(Exit::Failed, error).next("see `rdrivefs status`"));
    }
    clear_dead(&dir)?;
    drop(std::fs::remove_file(note_of(home)));
    Ok(())
}

/// Where the drive's daemon notes the folder it serves, so that others find it when it has died.
fn note_of(home: &Home) -> PathBuf {
    home.run_dir().join("mounted")
}

/// Notes the folder.
pub(super) fn note(home: &Home, point: &Path) -> Result<()> {
    let bytes = point.as_os_str().as_bytes();
    std::fs::write(note_of(home), bytes).map_err(Failure::io("note where the drive is mounted"))
}

/// It was left in order.
pub(super) fn forget(home: &Home) {
    drop(std::fs::remove_file(note_of(home)));
}

/// The folder that the last daemon served and did not leave in order.
pub(super) fn left_on(home: &Home) -> Option<PathBuf> {
    let bytes = std::fs::read(note_of(home)).ok()?;
    let text = std::ffi::OsStr::from_bytes(&bytes);
    Some(PathBuf::from(text)).filter(|dir| dir.is_absolute())
}
