//! What devices did not agree on, listed and settled.

use crate::error::{Error, Posix, Result};
use crate::id::Ino;
use crate::progress::Progress;
use crate::record::Kind;
use crate::report::{Conflict, Dispute, DrivePath, Keep, ResolveReport};
use crate::state::Event;
use crate::tree::node::Field;
use crate::tree::words::Rename;
use crate::tree::{self, Restored};

use super::parts::Drive;

/// One side of a conflict over content or a name.
struct Side {
    at: (Ino, Vec<u8>),
    path: DrivePath,
    mine: bool,
}

impl Drive {
    /// All that stands where it does since two devices did not know of each other.
    ///
    /// # Errors
    /// Of the index.
    pub fn conflicts(&self) -> Result<Vec<Conflict>> {
        self.parts.tree.flush()?;
        let found = self.parts.tree.conflicts()?;
        found.iter().map(|conflict| self.told(conflict)).filter_map(Result::transpose).collect()
    }

    /// Settles what is in conflict at a path, which may be that of either side.
    ///
    /// # Errors
    /// [`Error::Refused`] when nothing is, or when it is not clear which side is meant; of the index.
    pub fn resolve(
        &self,
        path: &DrivePath,
        keep: Keep,
        progress: &Progress,
    ) -> Result<ResolveReport> {
        // What stands there now is told before any of it goes.
        self.settle(progress)?;
        let mut sides = Vec::new();
        let mut disputes = Vec::new();
        for conflict in self.parts.tree.conflicts()? {
            let Some(told) = self.told(&conflict)? else { continue };
            if told.path == *path || told.beside.as_ref() == Some(path) {
                disputes.push(told.dispute);
                self.sides(conflict, told, &mut sides);
            }
        }
        if sides.is_empty() {
            return Err(Error::Refused(format!("nothing is in conflict at {path}")));
        }
        let one_sided = disputes.iter().any(|d| matches!(d, Dispute::Place | Dispute::Removal));
        if keep == Keep::Both || one_sided {
            return self.keep_all(&sides);
        }
        for side in &sides {
            self.check_may_go(side)?;
        }
        let content = disputes.iter().all(|dispute| *dispute == Dispute::Content);
        let kept = self.keep_one(sides, keep == Keep::Mine, content, path)?;
        self.tell(Event::Sealed);
        Ok(kept)
    }

    fn check_may_go(&self, side: &Side) -> Result<()> {
        let tree = &self.parts.tree;
        let row = tree.row(tree.lookup(side.at.0, &side.at.1)?.ino)?;
        if row.kind == Kind::Directory {
            return Err(Error::Refused(format!(
                "{} is a directory; say --keep both, and move what belongs together by hand",
                side.path
            )));
        }
        if row.is_changed(Field::Content) {
            return Err(Error::Refused(format!(
                "what {} holds is on no remote yet and would be lost; `rdrivefs sync` first",
                side.path
            )));
        }
        Ok(())
    }

    fn sides(&self, conflict: tree::Conflict, told: Conflict, sides: &mut Vec<Side>) {
        let own = self.secrets().number;
        if let (Some(at), Some(path)) = (conflict.beside, told.beside)
            && !sides.iter().any(|side| side.path == path)
        {
            sides.insert(0, Side { at, path, mine: conflict.by == Some(own) });
        }
        sides.push(Side { at: conflict.at, path: told.path, mine: conflict.device == own });
    }

    /// Everything stays, on every device for good: what lost its name under one that does not say so.
    fn keep_all(&self, sides: &[Side]) -> Result<ResolveReport> {
        let tree = &self.parts.tree;
        let mut report = ResolveReport::default();
        for Side { at: (dir, name), path, .. } in sides {
            let kept = tree.kept_name(*dir, name)?;
            match &kept {
                Some(kept) => {
                    tree.rename((*dir, name), (*dir, kept), Rename::NoReplace)?;
                    tree.tell_done(*dir, name);
                    tree.tell_done(*dir, kept);
                }
                None => match tree.settle_at(*dir, name) {
                    // The one that won is in no dispute.
                    Err(Error::Posix(Posix::NoEntry)) => {}
                    settled => settled?,
                },
            }
            let shown = match kept {
                Some(kept) => tree.path_in(*dir, &kept)?.map_or_else(|| path.clone(), DrivePath),
                None => path.clone(),
            };
            report.kept.push(shown);
        }
        tree.flush()?;
        self.tell(Event::Sealed);
        Ok(report)
    }

    /// One side takes the name that was fought for, and the others go.
    /// Where content was fought for the file stays what it is, with its versions.
    fn keep_one(
        &self,
        mut sides: Vec<Side>,
        mine: bool,
        content: bool,
        path: &DrivePath,
    ) -> Result<ResolveReport> {
        let wanted: Vec<usize> = (0..sides.len()).filter(|n| sides[*n].mine == mine).collect();
        let [stays] = wanted[..] else {
            let whose = if mine { "this device" } else { "another device" };
            let why = if wanted.is_empty() { "no side" } else { "more than one side" };
            return Err(Error::Refused(format!(
                "{why} of the conflict at {path} is of {whose}; remove what is not to stay"
            )));
        };
        let stays = sides.remove(stays);
        let mut report = ResolveReport::default();
        let mut place = stays.path.clone();
        for (n, side) in sides.iter().enumerate() {
            // The first of them stands under the name that all want, unless it is the one that stays.
            if n == 0 && stays.path != side.path && self.is_winner(side)? {
                if content {
                    self.take_content(&stays, side)?;
                    self.parts.tree.unlink(stays.at.0, &stays.at.1)?;
                } else {
                    let to = (side.at.0, &side.at.1[..]);
                    self.parts.tree.rename((stays.at.0, &stays.at.1), to, Rename::Replace)?;
                }
                self.parts.tree.tell_done(stays.at.0, &stays.at.1);
                self.parts.tree.tell_done(side.at.0, &side.at.1);
                place.clone_from(&side.path);
            } else {
                self.parts.tree.unlink(side.at.0, &side.at.1)?;
                self.parts.tree.tell_done(side.at.0, &side.at.1);
            }
            report.removed.push(side.path.clone());
        }
        report.removed.retain(|path| *path != place);
        report.kept.push(place);
        self.parts.tree.flush()?;
        Ok(report)
    }

    /// The file of one side holds what that of the other holds.
    fn take_content(&self, from: &Side, to: &Side) -> Result<()> {
        let tree = &self.parts.tree;
        let row = tree.row(tree.lookup(from.at.0, &from.at.1)?.ino)?;
        let file = tree.lookup(to.at.0, &to.at.1)?.ino.file();
        let content = Restored { size: row.size, mtime: row.mtime, extents: row.extents };
        let mut merging = tree.merging()?;
        let taken = merging.restore(file, content);
        merging.finish()?;
        taken
    }

    fn is_winner(&self, side: &Side) -> Result<bool> {
        let disputed = self.parts.tree.conflicts()?;
        Ok(!disputed.iter().any(|conflict| conflict.at == side.at))
    }

    fn told(&self, conflict: &tree::Conflict) -> Result<Option<Conflict>> {
        let path = |at: &(Ino, Vec<u8>)| self.parts.tree.path_in(at.0, &at.1);
        let Some(own) = path(&conflict.at)? else { return Ok(None) };
        let beside = match &conflict.beside {
            Some(at) => path(at)?,
            None => None,
        };
        let mtime = conflict.mtime;
        Ok(Some(Conflict {
            dispute: match conflict.dispute {
                tree::Dispute::Content => Dispute::Content,
                tree::Dispute::Name => Dispute::Name,
                tree::Dispute::Place => Dispute::Place,
                tree::Dispute::Removal => Dispute::Removal,
            },
            path: DrivePath(own),
            beside: beside.map(DrivePath),
            device: conflict.device.0,
            by: conflict.by.map(|device| device.0),
            mtime_ms: mtime.secs.saturating_mul(1_000) + i64::from(mtime.nanos / 1_000_000),
            size: conflict.size,
        }))
    }
}
