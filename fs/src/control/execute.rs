//! Carrying out a request on an open drive: one function, whoever asked.

use std::time::Duration;

use rdrivefs_sync::drive::{Drive, Named, Which as Past};
use rdrivefs_sync::progress::Progress;
use rdrivefs_sync::remote::env::WallMs;
use serde_json::{Value, json};

use crate::control::request::{Half, Request, Which};
use crate::failure::{Failure, Result};

/// Longest wait for news: who waits holds up the end of the process.
const NEWS_WAIT_MAX_MS: u64 = 1_000;

/// Does what was asked and returns the report as its JSON document.
///
/// # Errors
/// What went wrong, as a person should read it.
pub fn execute(drive: &Drive, request: Request, progress: &Progress) -> Result<Value> {
    for path in request.paths() {
        drive.check_path(path).map_err(|e| Failure::from(e).named(path))?;
    }
    match request {
        Request::Status => document(drive.status()?),
        Request::StatusOf { path } => document(drive.status_of(&path)?),
        Request::Sync { half, timeout_ms } => {
            let timeout = timeout_ms.map(Duration::from_millis);
            document(match half {
                Half::Sync => drive.sync(timeout, progress)?,
                Half::Push => drive.push(timeout, progress)?,
                Half::Pull => drive.pull(timeout, progress)?,
            })
        }
        Request::Verify { plan } => document(drive.verify(&plan, progress)?),
        Request::Evict { paths, free_bytes, dry_run } => document(match free_bytes {
            Some(bytes) => drive.evict_bytes(bytes, dry_run, progress)?,
            None => drive.evict(&paths, dry_run, progress)?,
        }),
        Request::Fetch { paths } => document(drive.fetch(&paths, progress)?),
        Request::Pin { paths, pinned } => document(drive.pin(&paths, pinned)?),
        Request::Layers { path } => document(drive.layers(path.as_ref())?),
        Request::Log { device } => document(drive.log(device.as_deref())?),
        Request::KeyShow
        | Request::KeyRotate
        | Request::DeviceRevoke { .. }
        | Request::DeviceList
        | Request::DeviceName { .. }
        | Request::PairOpen { .. }
        | Request::PairWait { .. }
        | Request::PairAnswer { .. } => of_members(drive, request, progress),
        Request::Versions { .. }
        | Request::Restore { .. }
        | Request::Rewind { .. }
        | Request::Undelete { .. }
        | Request::Conflicts
        | Request::Resolve { .. } => of_the_past(drive, request, progress),
        Request::Doctor { repair } => document(drive.doctor(repair, progress)?),
        Request::RemoteAdd { name, url } => {
            let url = url.parse().map_err(|e| {
                Failure::words(format!("{e}"))
                    .next("the node prints its URL: rdrive://HOST:PORT?key=…")
            })?;
            drive.remote_add(&name, &url)?;
            document(drive.remote_ask(&name)?)
        }
        Request::RemoteTrust { name, key } => {
            let named = Named::parse(&key).ok_or_else(|| {
                Failure::words(format!("{key} is no whole key nor fingerprint"))
                    .next("the node's keeper sees both: `rdrivefs-node key`")
            })?;
            drive.remote_trust(&name, &named)?;
            document(drive.remote_ask(&name)?)
        }
        Request::Settle => document(drive.settle(progress)?),
        Request::RemoteList => document(drive.remote_list()?),
        Request::RemoteRemove { name } => {
            drive.remote_remove(&name)?;
            Ok(json!({ "removed": name }))
        }
        Request::List { path, depth } => document(drive.list(&path, depth)?),
        Request::News { from, wait_ms } => {
            document(drive.news(from, Duration::from_millis(wait_ms.min(NEWS_WAIT_MAX_MS)))?)
        }
        Request::MountPoint | Request::Unmount => Err(Failure::words("this drive is not mounted")),
    }
}

/// Keys, and who has them.
fn of_members(drive: &Drive, request: Request, progress: &Progress) -> Result<Value> {
    match request {
        Request::KeyShow => document(drive.key_show()),
        Request::KeyRotate => document(drive.key_rotate(progress)?),
        Request::DeviceRevoke { device } => document(drive.device_revoke(&device, progress)?),
        Request::DeviceList => document(drive.devices()?),
        Request::DeviceName { name } => document(drive.name_device(&name)?),
        Request::PairOpen { remote, lifetime_ms } => {
            document(drive.pair_open(remote.as_deref(), lifetime_ms)?)
        }
        Request::PairWait { remote, code, timeout_ms } => {
            document(drive.pair_wait(&remote, &code, timeout_ms)?)
        }
        Request::PairAnswer { remote, code, device, granted } => {
            let Some(Named::Key(device)) = Named::parse(&device) else {
                return Err(Failure::words(format!("{device} is no device's key")));
            };
            if granted {
                return document(drive.pair_grant(&remote, &code, &device, progress)?);
            }
            drive.pair_decline(&remote, &code, &device)?;
            Ok(json!({ "declined": device.to_string() }))
        }
        other => unreachable!("{other:?} is carried out elsewhere"),
    }
}

/// What was, and what devices made of it apart.
fn of_the_past(drive: &Drive, request: Request, progress: &Progress) -> Result<Value> {
    match request {
        Request::Versions { path } => document(drive.versions(&path, progress)?),
        Request::Restore { path, which } => {
            let which = match which {
                Which::Before => Past::Before,
                Which::Id(id) => Past::Id(id),
                Which::AtMs(ms) => Past::At(WallMs(ms)),
            };
            document(drive.restore(&path, &which, progress)?)
        }
        Request::Rewind { path, to_ms } => {
            document(drive.rewind(&path, WallMs(to_ms), progress)?)
        }
        Request::Undelete { path } => document(drive.undelete(&path, progress)?),
        Request::Conflicts => document(drive.conflicts()?),
        Request::Resolve { path, keep } => document(drive.resolve(&path, keep, progress)?),
        other => unreachable!("{other:?} is carried out elsewhere"),
    }
}

fn document(report: impl serde::Serialize) -> Result<Value> {
    Ok(serde_json::to_value(report).expect("reports are plain data"))
}
