//! Scrub: reads everything that is stored and compares it with its name: blobs with their proof
//! trees too, entries with their signatures and the entry before.
//!
//! It needs no lock and disturbs no node: blobs never change, so a file that is there is either
//! right or rotten, and one that goes away meanwhile was deleted.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::blob::BlobId;
use crate::entry::{Head, LogId};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::identity::DriveId;
use crate::logs::directory::{entry_path, read_entry, stored};
use crate::node::place::Place;
use crate::proof::Hasher;
use crate::store::directory::OUTBOARD_SUFFIX;

/// Bytes read in one step: large for the disk, small beside any rate.
const STEP_BYTES: usize = 256 << 10;

/// What a scrub found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Blobs read.
    pub blobs: u64,
    /// Log entries read.
    pub entries: u64,
    /// Bytes read, proof trees included.
    pub bytes: u64,
    /// What is not as it must be.
    pub damaged: Vec<Damage>,
}

/// One rotten object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The drive, by id.
    pub drive: String,
    /// The blob, or the log's name and the number of an entry.
    pub object: String,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// Reads the stores of all drives, at most so many bytes a second; `seen` is told of each blob.
///
/// # Errors
/// [`Error::Io`] when directories cannot be listed; what is wrong with a blob is in the report.
pub fn scrub(
    place: &Place,
    rate: Option<u64>,
    env: &Env,
    mut seen: impl FnMut(&Report),
) -> Result<Report> {
    let began = env.instant();
    let mut report = Report::default();
    let mut paced = |report: &Report| {
        seen(report);
        if let Some(rate) = rate.filter(|rate| *rate > 0) {
            let due = Duration::from_secs_f64(report.bytes as f64 / rate as f64);
            thread::sleep(due.saturating_sub(env.instant().since(began)));
        }
    };
    for space in list(&place.spaces())? {
        let drive = name(&space);
        for path in files(&space.join("blobs"))? {
            let Ok(id) = name(&path).parse::<BlobId>() else { continue };
            if let Some(why) = check(&path, &id, &mut report) {
                let object = id.to_string();
                report.damaged.push(Damage { drive: drive.clone(), object, path, why });
            }
            paced(&report);
        }
        check_logs(&space, &drive, &mut report, &mut paced)?;
    }
    Ok(report)
}

/// Reads every entry of a drive; `paced` is told of each.
fn check_logs(
    space: &Path,
    drive: &str,
    report: &mut Report,
    paced: &mut impl FnMut(&Report),
) -> Result<()> {
    let mut id = DriveId([0; 32]);
    if hex::decode_to_slice(drive, &mut id.0).is_err() || !space.join("logs").is_dir() {
        return Ok(());
    }
    let logs = space.join("logs");
    // The log, and the head so far; none behind a rotten entry, where the chain begins anew.
    let mut before: Option<(LogId, Option<Head>)> = None;
    for (log, number) in stored(&logs)? {
        let path = entry_path(&logs, &log, number);
        let head = match before {
            Some((of, head)) if of == log => head,
            _ => Some(Head::empty(log)),
        };
        let why = match read_entry(&logs, &id, &log, number) {
            Ok(entry) => {
                report.bytes += entry.encode().len() as u64;
                before = Some((log, Some(entry.head())));
                let follows = head.is_none_or(|head| entry.follows(&head).is_ok());
                (!follows).then(|| "it does not follow the entry before it".to_owned())
            }
            Err(e) => {
                before = Some((log, None));
                Some(e.to_string())
            }
        };
        report.entries += 1;
        if let Some(why) = why {
            let object = format!("{}/{number}", name(path.parent().unwrap_or(&logs)));
            report.damaged.push(Damage { drive: drive.to_owned(), object, path, why });
        }
        paced(report);
    }
    Ok(())
}

/// Blobs and bytes, proof trees and logs included, of one drive's directory.
///
/// # Errors
/// [`Error::Io`] when directories cannot be listed.
pub fn count(space: &Path) -> Result<(u64, u64)> {
    let (mut blobs, mut bytes) = (0, 0);
    for path in files(space)? {
        blobs += u64::from(name(&path).parse::<BlobId>().is_ok());
        bytes += fs::metadata(&path).map_or(0, |meta| meta.len());
    }
    Ok((blobs, bytes))
}

/// Whether the file at `path` is this blob and its proof tree stands beside it.
pub(super) fn is_sound(path: &Path, id: &BlobId) -> bool {
    check(path, id, &mut Report::default()).is_none()
}

/// What is wrong with one blob, if anything is.
fn check(path: &Path, id: &BlobId, report: &mut Report) -> Option<String> {
    match read(path, report) {
        Ok((found, _)) if found != *id => Some(format!("its bytes hash to {found}")),
        Ok((_, tree)) => {
            let beside = path.with_file_name(format!("{id}{OUTBOARD_SUFFIX}"));
            match fs::read(&beside) {
                Ok(stored) => {
                    report.bytes += stored.len() as u64;
                    (stored != tree).then(|| "its proof tree is damaged".to_owned())
                }
                // Gone both together means deleted in the meantime.
                Err(_) if !path.exists() => None,
                Err(e) => Some(format!("its proof tree cannot be read: {e}")),
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
        Err(e) => Some(e.to_string()),
    }
}

/// The id and the proof tree of what the file holds now.
fn read(path: &Path, report: &mut Report) -> std::io::Result<(BlobId, Vec<u8>)> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut hasher = Hasher::new(len);
    let mut step = vec![0; STEP_BYTES];
    let mut left = len;
    while left > 0 {
        let room = step.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let got = file.read(&mut step[..room])?;
        if got == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(&step[..got]);
        left -= got as u64;
    }
    report.blobs += 1;
    report.bytes += len;
    let (id, outboard) = hasher.finish().map_err(|e| std::io::Error::other(e.to_string()))?;
    Ok((id, outboard.encode()))
}

/// Every file below a directory.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        let (below, here): (Vec<_>, Vec<_>) = list(&dir)?.into_iter().partition(|p| p.is_dir());
        dirs.extend(below);
        found.extend(here);
    }
    Ok(found)
}

/// What is in a directory, sorted; nothing where there is none.
fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let io = || Error::io(format!("listing {}", dir.display()));
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io()(e)),
    };
    let mut paths =
        entries.map(|e| e.map(|e| e.path())).collect::<Result<Vec<_>, _>>().map_err(io())?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
