//! Asking a drive: its daemon where it is mounted, else the drive itself, opened for the while.

use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use rdrivefs_sync::drive::Drive;
use rdrivefs_sync::home::Home;
use rdrivefs_sync::remote::env::Env;
use rdrivefs_sync::report::DrivePath;
use serde_json::Value;

use crate::cli::args::Common;
use crate::cli::{bars, secrets};
use crate::control::{self, Request, execute};
use crate::failure::Result;

/// Asks the daemon, or opens the drive.
pub(super) fn ask(common: &Common, home: &Home, request: Request) -> Result<Value> {
    if control::is_served(&home.socket()) {
        return ask_daemon(common, home, request);
    }
    with_drive(common, home, |drive| execute(drive, request, &bars::progress(common)))
}

/// Asks the daemon, showing how far it has come.
pub(super) fn ask_daemon(common: &Common, home: &Home, request: Request) -> Result<Value> {
    let mut bars = bars::Bars::new(common);
    control::ask(&home.socket(), request, &mut |event| bars.show(&event))
}

/// Opens the drive for some work.
pub(super) fn with_drive<T>(
    common: &Common,
    home: &Home,
    work: impl FnOnce(&Drive) -> Result<T>,
) -> Result<T> {
    with_drive_opened_by(&secrets::existing(home, common)?, home, work)
}

/// The same with a passphrase that was asked for before.
pub(super) fn with_drive_opened_by<T>(
    passphrase: &secrets::Passphrase,
    home: &Home,
    work: impl FnOnce(&Drive) -> Result<T>,
) -> Result<T> {
    let drive =
        secrets::with_unlock(passphrase, |unlock| Ok(Drive::open(home, unlock, Env::real())?))?;
    let done = work(&drive)?;
    drive.shutdown()?;
    Ok(done)
}

/// Where the drive is mounted, if its daemon runs.
pub(super) fn mounted_on(home: &Home) -> Option<PathBuf> {
    let answer = control::ask(&home.socket(), Request::MountPoint, &mut |_| ()).ok()?;
    let dir: DrivePath = serde_json::from_value(answer["dir"].clone()).ok()?;
    Some(PathBuf::from(std::ffi::OsString::from_vec(dir.0)))
}
