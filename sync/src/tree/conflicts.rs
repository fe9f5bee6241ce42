//! Conflicts: what stands where it does since two devices did not know of each other.
//!
//! Nobody has to settle them: everything is kept, and shown the same on every device. Whoever does
//! says by it what everybody is to have from now on.

use std::sync::Arc;

use crate::error::{Error, Posix, Result};
use crate::id::{DeviceNumber, FileId, Ino, LinkId, VersionId};
use crate::index::entries::EntryRow;
use crate::index::nodes::Pending;
use crate::record::TimeNs;
use crate::tree::core::Tree;
use crate::tree::node::Node;
use crate::tree::unsettled::{Place, Unsettled};
use crate::view::naming::{copy_file, kept_name, plain_name, suffixed};

/// What devices did not agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dispute {
    /// The content of a file: this is the version that lost.
    Content,
    /// A name: this is what lost it.
    Name,
    /// Where a directory is: it could not be where it was moved to.
    Place,
    /// Whether it is to be there: it was removed on one device and changed on another.
    Removal,
}

/// One thing that stands where it does since devices did not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// On what.
    pub dispute: Dispute,
    /// The directory it is in, and its name there.
    pub at: (Ino, Vec<u8>),
    /// The same of what it lost to, where there is such a thing.
    pub beside: Option<(Ino, Vec<u8>)>,
    /// The device that made it as it is.
    pub device: DeviceNumber,
    /// The device that made what it lost to as that is.
    pub by: Option<DeviceNumber>,
    /// When it was last changed.
    pub mtime: TimeNs,
    /// Bytes.
    pub size: u64,
}

impl Tree {
    /// All that stands so: what no record tells of, and the copies that were told and not touched.
    ///
    /// # Errors
    /// Of the index.
    pub fn conflicts(&self) -> Result<Vec<Conflict>> {
        let _gate = self.shared();
        let mut found = Vec::new();
        let mut add = |conflict: Result<Option<Conflict>>| match conflict {
            // What goes meanwhile is in no conflict.
            Err(Error::Posix(Posix::Stale)) => Ok(()),
            conflict => conflict.map(|conflict| found.extend(conflict)),
        };
        for link in self.index.unsettled_links()? {
            let row = Unsettled::of(&self.index, link)?;
            if let (Some(row), Some(entry)) = (row, self.index.link(link)?) {
                add(self.conflict(&entry, &row))?;
            }
        }
        for ino in self.index.derived_nodes()? {
            add(self.told_copy(ino))?;
        }
        Ok(found)
    }

    /// From now on this stands where it does because somebody wants it so.
    ///
    /// # Errors
    /// [`Posix::NoEntry`] when there is nothing, or nothing in dispute; of the index.
    pub fn settle_at(&self, dir: Ino, name: &[u8]) -> Result<()> {
        let _gate = self.alone();
        self.flush_alone()?;
        let entry = self.index.entry(dir, name)?.ok_or(Posix::NoEntry)?;
        let row = Unsettled::of(&self.index, entry.link)?.ok_or(Posix::NoEntry)?;
        match row.copy {
            Some(copy) => {
                self.own_copy(&self.node(entry.child)?)?;
                self.forget_other(copy)?;
            }
            None => {
                self.index.remove_unsettled(entry.link)?;
                self.index.set_pending(Pending::Link(entry.link.0), true)?;
            }
        }
        self.flush_alone()
    }

    /// The name, free in its directory, under which what lost is kept for good; none of what has its
    /// name for another reason.
    ///
    /// # Errors
    /// Of the index.
    pub fn kept_name(&self, dir: Ino, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(plain) = kept_name(name) else { return Ok(None) };
        let (mut kept, mut count) = (plain.clone(), 1);
        while self.index.entry(dir, &kept)?.is_some() {
            count += 1;
            kept = suffixed(&plain, &count.to_string());
        }
        Ok(Some(kept))
    }

    /// A copy of a version that lost, of which a record tells, and which nobody touched since.
    fn told_copy(&self, ino: Ino) -> Result<Option<Conflict>> {
        let Ok(node) = self.node(ino) else { return Ok(None) };
        let (link, mtime, size) = {
            let row = &node.read().row;
            let of_version =
                row.heads.first().is_some_and(|v| copy_file(VersionId(*v)) == ino.file());
            let touched = row.copy.is_some() || row.is_written() || !of_version;
            let [link] = row.links[..] else { return Ok(None) };
            if touched {
                return Ok(None);
            }
            (link, row.mtime, row.size)
        };
        let Some(entry) = self.index.link(LinkId(link))? else { return Ok(None) };
        let Some((plain, device)) = plain_name(&entry.name).zip(loser(&entry.name)) else {
            return Ok(None);
        };
        let beside = self.index.entry(entry.parent, &plain)?;
        let by = match &beside {
            Some(beside) => Some(self.node(beside.child)?.read().row.version.device),
            None => None,
        };
        let beside = beside.map(|beside| (beside.parent, beside.name));
        let at = (entry.parent, entry.name);
        Ok(Some(Conflict { dispute: Dispute::Content, at, beside, device, by, mtime, size }))
    }

    fn conflict(&self, entry: &EntryRow, row: &Unsettled) -> Result<Option<Conflict>> {
        let node = self.node(entry.child)?;
        let wanted = Place { parent: entry.parent.file().0, name: entry.name.clone() };
        let displaced = row.place != wanted;
        let (dispute, beside) = match (row.copy, &row.moved) {
            (Some(copy), _) => {
                let of = self.present(FileId(copy.file))?;
                let of = of.filter(|of| !of.read().row.links.is_empty());
                (Dispute::Content, of)
            }
            (None, Some(_)) => (Dispute::Place, None),
            (None, None) if displaced => (Dispute::Name, self.at_place(&row.place)?),
            (None, None) if row.kept => (Dispute::Removal, None),
            (None, None) => return Ok(None),
        };
        let beside_at = match &beside {
            Some(of) => self.first_name(of)?,
            None => None,
        };
        let version = |node: &Arc<Node>| node.read().row.version.device;
        let by = beside.as_ref().map(|of| match dispute {
            Dispute::Content => version(of),
            _ => of.read().row.stamps[0].device,
        });
        let (mtime, size) = {
            let row = &node.read().row;
            (row.mtime, row.size)
        };
        let device = if row.copy.is_some() { version(&node) } else { entry.stamp.device };
        let at = (entry.parent, entry.name.clone());
        Ok(Some(Conflict { dispute, at, beside: beside_at, device, by, mtime, size }))
    }

    fn at_place(&self, place: &Place) -> Result<Option<Arc<Node>>> {
        let Some(dir) = self.present(FileId(place.parent))? else { return Ok(None) };
        let entry = self.index.entry(dir.ino, &place.name)?;
        entry.map(|entry| self.node(entry.child)).transpose()
    }

    fn first_name(&self, node: &Node) -> Result<Option<(Ino, Vec<u8>)>> {
        let first = node.read().row.links.iter().min().copied().map(LinkId);
        let Some(first) = first else { return Ok(None) };
        let entry = self.entry_of(first)?;
        Ok(Some((entry.parent, entry.name)))
    }
}

/// The device that made what has this name because it lost.
fn loser(name: &[u8]) -> Option<DeviceNumber> {
    let name = String::from_utf8_lossy(name);
    let (number, _) = name.rsplit_once("(conflict, ")?.1.split_once(',')?;
    number.parse().ok().map(DeviceNumber)
}
