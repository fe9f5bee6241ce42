//! What files were: listed, and had back.

use rdrivefs_remote::env::WallMs;

use crate::error::{Error, Result};
use crate::history::{History, Past};
use crate::id::FileId;
use crate::merge::extents_of;
use crate::progress::Progress;
use crate::report::{DrivePath, RestoreReport, RewindReport, VersionLine};
use crate::rewind::Rewind;
use crate::state::Event;
use crate::tree::Restored;
use crate::view::View;
use crate::walk::resolve;

use super::parts::Drive;

/// Which version is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The one before the present one.
    Before,
    /// The one with this id, as `versions` shows it.
    Id(String),
    /// The one that was there at this moment.
    At(WallMs),
}

impl Drive {
    /// Every version of the file at a path, the latest first.
    ///
    /// # Errors
    /// [`Posix::NoEntry`](crate::error::Posix) when there is no file; of the index.
    pub fn versions(&self, path: &DrivePath, progress: &Progress) -> Result<Vec<VersionLine>> {
        let (file, present) = self.present_version(path)?;
        let mut versions = self.history().versions(file, progress)?;
        versions.reverse();
        Ok(versions.iter().map(|past| self.version_line(past, present.as_deref())).collect())
    }

    /// Lets the file at a path hold what it held in a version, which becomes the latest one.
    ///
    /// # Errors
    /// [`Error::Refused`] when no such version is known, or when what the file holds now is on no
    /// remote yet; of the index.
    pub fn restore(
        &self,
        path: &DrivePath,
        which: &Which,
        progress: &Progress,
    ) -> Result<RestoreReport> {
        // What it holds now is told before something else takes its place.
        self.settle(progress)?;
        let (file, present) = self.present_version(path)?;
        let versions = self.history().versions(file, progress)?;
        let past = chosen(versions, which, present.as_deref(), path)?;
        let line = self.version_line(&past, present.as_deref());
        let extents = extents_of(&self.parts.index, past.content)?;
        let mut merging = self.parts.tree.merging()?;
        let to = Restored { size: past.size, mtime: past.mtime, extents };
        let restored = merging.restore(file, to);
        merging.finish()?;
        restored?;
        self.tell(Event::Sealed);
        Ok(RestoreReport { path: path.clone(), version: line })
    }

    /// Takes the drive, or what is at a path, back to what it was at a moment.
    ///
    /// # Errors
    /// [`Error::Refused`] when something there is on no remote yet and would be lost; of the index.
    pub fn rewind(
        &self,
        path: &DrivePath,
        moment: WallMs,
        progress: &Progress,
    ) -> Result<RewindReport> {
        if moment > self.parts.env.wall_ms() {
            return Err(Error::Refused("that moment is yet to come".into()));
        }
        self.settle(progress)?;
        self.parts.tree.flush()?;
        if self.parts.index.has_pending()? {
            return Err(Error::Refused(
                "what is here now is on no remote yet and could not be had back; `rdrivefs sync` first"
                    .into(),
            ));
        }
        let then = self.history().view_at(moment, progress)?;
        let Some(then) = then else {
            return Err(Error::Refused("the drive began later than that".into()));
        };
        let named = path.0.iter().any(|b| *b != b'/');
        if named && then.lookup(&path.0).is_none() && self.check_path(path).is_err() {
            return Err(Error::Refused(format!("there is nothing at {path}, nor was there then")));
        }
        self.take_back(path, &then, moment, progress)
    }

    /// Has back what was removed from a path last.
    ///
    /// # Errors
    /// [`Error::Refused`] when something is there, or never was; of the index.
    pub fn undelete(&self, path: &DrivePath, progress: &Progress) -> Result<RewindReport> {
        if self.check_path(path).is_ok() {
            return Err(Error::Refused(format!(
                "{path} is there; `rdrivefs rewind` takes it back"
            )));
        }
        self.settle(progress)?;
        let name = path.0.rsplit(|b| *b == b'/').next().unwrap_or_default();
        let history = self.history();
        for moment in history.removals(name, progress)? {
            let then = history.view_at(moment, progress)?;
            if let Some(then) = then.filter(|then| then.lookup(&path.0).is_some()) {
                return self.take_back(path, &then, moment, progress);
            }
        }
        Err(Error::Refused(format!("nothing is known to have been at {path}")))
    }

    fn take_back(
        &self,
        path: &DrivePath,
        then: &View,
        moment: WallMs,
        progress: &Progress,
    ) -> Result<RewindReport> {
        let rewind = Rewind::new(&self.parts.tree, &self.parts.index, then);
        let done = rewind.path(&path.0, progress)?;
        self.tell(Event::Sealed);
        Ok(RewindReport { path: path.clone(), to_ms: moment.0, ..done })
    }

    fn history(&self) -> History {
        let parts = &self.parts;
        let (index, log) = (parts.index.clone(), parts.log.clone());
        History::new(index, self.keyring.clone(), log, parts.env.wall_ms())
    }

    /// The file at a path, and the version it shows.
    fn present_version(&self, path: &DrivePath) -> Result<(FileId, Option<String>)> {
        let ino = resolve(&self.parts.tree, path)?;
        let row = self.parts.tree.row(ino)?;
        let head = row.heads.first().filter(|_| !row.is_changed(crate::tree::node::Field::Content));
        Ok((ino.file(), head.map(|id| shown(*id))))
    }

    fn version_line(&self, past: &Past, present: Option<&str>) -> VersionLine {
        let version = shown(past.id.0);
        let membership = self.parts.log.membership();
        VersionLine {
            present: present == Some(&version[..]),
            version,
            device: membership.device(&past.device).map_or(0, |member| member.number),
            time_ms: past.at.0,
            mtime_ms: past.mtime.secs.saturating_mul(1_000)
                + i64::from(past.mtime.nanos / 1_000_000),
            size: past.size,
            bases: past.bases.iter().map(|id| shown(id.0)).collect(),
        }
    }
}

fn chosen(
    versions: Vec<Past>,
    which: &Which,
    present: Option<&str>,
    path: &DrivePath,
) -> Result<Past> {
    let mut versions = versions.into_iter().rev();
    let found = match which {
        Which::Before => versions.find(|past| Some(&shown(past.id.0)[..]) != present),
        Which::At(at) => versions.find(|past| past.at <= *at),
        Which::Id(id) => versions.find(|past| shown(past.id.0) == *id),
    };
    found.ok_or_else(|| Error::Refused(format!("no such version of {path} is known")))
}

/// The id of a version as people see it: who drew it, and the how manieth it was.
fn shown(id: u64) -> String {
    format!("{:x}-{:x}", id >> 48, id << 16 >> 24)
}
