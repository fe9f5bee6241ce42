//! Conflicts: what stands where it does since two devices did not know of each other.
//!
//! Nobody has to settle them: everything is kept, and shown the same on every device. Whoever does
//! says by it what everybody is to have from now on.

use std::sync::Arc;

use crate::error::{Posix, Result};
use crate::id::{DeviceNumber, FileId, Ino, LinkId};
use crate::index::entries::EntryRow;
use crate::index::nodes::Pending;
use crate::record::TimeNs;
use crate::tree::core::Tree;
use crate::tree::node::Node;
use crate::tree::unsettled::{Place, Unsettled};

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
    /// All that stands so, in the order in which it came to be known.
    ///
    /// # Errors
    /// Of the index.
    pub fn conflicts(&self) -> Result<Vec<Conflict>> {
        let _gate = self.shared();
        let mut found = Vec::new();
        for link in self.index.unsettled_links()? {
            let row = Unsettled::of(&self.index, link)?;
            if let (Some(row), Some(entry)) = (row, self.index.link(link)?) {
                found.extend(self.conflict(&entry, &row)?);
            }
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
