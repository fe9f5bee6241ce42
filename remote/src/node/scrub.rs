//! Scrub: reads everything that is stored and compares it with its name and its proof tree.
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
use crate::env::Env;
use crate::error::{Error, Result};
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
    /// The blob.
    pub blob: String,
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
    for space in list(&place.spaces())? {
        let drive = name(&space);
        let mut dirs = vec![space.join("blobs")];
        while let Some(dir) = dirs.pop() {
            for path in list(&dir)? {
                if path.is_dir() {
                    dirs.push(path);
                    continue;
                }
                let Ok(id) = name(&path).parse::<BlobId>() else { continue };
                if let Some(why) = check(&path, &id, &mut report) {
                    let blob = id.to_string();
                    report.damaged.push(Damage { drive: drive.clone(), blob, path, why });
                }
                seen(&report);
                if let Some(rate) = rate.filter(|rate| *rate > 0) {
                    let due = Duration::from_secs_f64(report.bytes as f64 / rate as f64);
                    thread::sleep(due.saturating_sub(env.instant().since(began)));
                }
            }
        }
    }
    Ok(report)
}

/// Blobs and bytes, proof trees and logs included, of one drive's directory.
///
/// # Errors
/// [`Error::Io`] when directories cannot be listed.
pub fn count(space: &Path) -> Result<(u64, u64)> {
    let (mut blobs, mut bytes) = (0, 0);
    let mut dirs = vec![space.to_owned()];
    while let Some(dir) = dirs.pop() {
        for path in list(&dir)? {
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            blobs += u64::from(name(&path).parse::<BlobId>().is_ok());
            bytes += fs::metadata(&path).map_or(0, |meta| meta.len());
        }
    }
    Ok((blobs, bytes))
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
