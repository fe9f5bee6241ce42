//! What publishing needs from the tree: what changed here, as it stands, and that it was told.

use std::sync::RwLockWriteGuard;

use crate::error::{Error, Posix, Result};
use crate::id::{FileId, Ino, LinkId, VersionId};
use crate::index::nodes::Pending;
use crate::record::{BASES_MAX, Stamp};
use crate::tree::core::Tree;
use crate::tree::node::{Field, Row};
use crate::tree::tomb::TombRow;
use crate::tree::xattrs::XattrRow;

/// Something that changed here and that no commit has told yet.
pub enum Draft {
    /// A file: attributes, content, or that it exists.
    Node(Box<NodeDraft>),
    /// An extended attribute.
    Xattr(XattrDraft),
    /// The place of a link.
    Link(LinkDraft),
    /// That a link is gone.
    Tomb(TombDraft),
}

/// A file that changed.
pub struct NodeDraft {
    /// Which.
    pub ino: Ino,
    /// As it is.
    pub row: Row,
}

/// An extended attribute that changed.
pub struct XattrDraft {
    /// Whose.
    pub ino: Ino,
    /// Its name.
    pub name: Vec<u8>,
    /// Its value; none when it was removed.
    pub value: Option<Vec<u8>>,
}

/// A link that was made or moved.
pub struct LinkDraft {
    /// Which.
    pub link: LinkId,
    /// The directory.
    pub parent: FileId,
    /// The name.
    pub name: Vec<u8>,
    /// The file.
    pub child: Ino,
}

/// A link that is gone.
pub struct TombDraft {
    /// Which.
    pub link: LinkId,
    /// The place that was seen.
    pub saw: Stamp,
    /// The versions that were seen.
    pub heads: Vec<VersionId>,
    /// The link that took its place, if one did.
    pub by: Option<LinkId>,
}

/// The tree held still while a commit is made of it.
pub struct Publishing<'a> {
    tree: &'a Tree,
    _alone: RwLockWriteGuard<'a, ()>,
}

impl Tree {
    /// Holds the tree still, everything written into the index.
    ///
    /// # Errors
    /// Of the index.
    pub fn publishing(&self) -> Result<Publishing<'_>> {
        let alone = self.alone();
        self.settle_touched()?;
        self.flush_alone()?;
        Ok(Publishing { tree: self, _alone: alone })
    }
}

impl Publishing<'_> {
    /// What changed, after one of them, in a fixed order; what is gone meanwhile comes without a
    /// draft.
    ///
    /// # Errors
    /// Of the index.
    pub fn drafts(
        &self,
        after: Option<Pending>,
        limit: usize,
    ) -> Result<Vec<(Pending, Option<Draft>)>> {
        let pending = self.tree.index.pending(after, limit)?;
        pending.into_iter().map(|pending| Ok((pending, self.draft(pending)?))).collect()
    }

    /// Whether another device can have the whole content of a file: nothing is in the journal.
    ///
    /// # Errors
    /// Of the index.
    pub fn row(&self, ino: Ino) -> Result<Row> {
        Ok(self.tree.node(ino)?.read().row.clone())
    }

    /// Whether something is still to be told.
    ///
    /// # Errors
    /// Of the index.
    pub fn is_pending(&self, pending: Pending) -> Result<bool> {
        self.tree.index.is_pending(pending)
    }

    /// The id and the bases of the version that a file's content is told as: a new one after its
    /// head, or the head itself.
    pub fn name_version(&self, row: &Row) -> (VersionId, Vec<VersionId>) {
        match row.heads.first().filter(|_| row.again) {
            Some(head) => (VersionId(*head), Vec::new()),
            None => (VersionId(self.tree.draw()), row.heads()),
        }
    }

    /// Notes that a commit of this stamp told it; of content, as this version.
    ///
    /// # Errors
    /// Of the index.
    pub fn told(
        &self,
        pending: Pending,
        stamp: Stamp,
        version: Option<VersionId>,
        content_withheld: bool,
    ) -> Result<()> {
        match pending {
            Pending::Node(ino) => self.told_node(ino, stamp, version, content_withheld),
            Pending::Xattr(ino, hash) => self.told_xattr(ino, &hash, stamp),
            Pending::Link(link) => self.told_link(LinkId(link), stamp),
            Pending::Tomb(link) => self.told_tomb(LinkId(link)),
        }?;
        if !content_withheld {
            self.tree.index.set_pending(pending, false)?;
        }
        Ok(())
    }

    /// Takes back what is pending about something that is gone.
    ///
    /// # Errors
    /// Of the index.
    pub fn drop_pending(&self, pending: Pending) -> Result<()> {
        self.tree.index.set_pending(pending, false)
    }

    /// Ends it: what was told is in the index, durably.
    ///
    /// # Errors
    /// Of the index.
    pub fn finish(self) -> Result<()> {
        self.tree.flush_alone()?;
        self.tree.index.make_durable()
    }

    fn draft(&self, pending: Pending) -> Result<Option<Draft>> {
        let index = &self.tree.index;
        Ok(match pending {
            Pending::Node(ino) => {
                let row = match self.row(ino) {
                    // It went, and nobody needs to be told what it was.
                    Err(Error::Posix(Posix::Stale)) => None,
                    row => Some(row?).filter(|row| ino == Ino::ROOT || !row.links.is_empty()),
                };
                row.map(|row| Draft::Node(Box::new(NodeDraft { ino, row })))
            }
            Pending::Xattr(ino, hash) => {
                let row = index.xattr(ino, &hash)?.map(|row| XattrRow::decode(&row)).transpose()?;
                row.map(|row| Draft::Xattr(XattrDraft { ino, name: row.name, value: row.value }))
            }
            Pending::Link(link) => index.link(LinkId(link))?.map(|entry| {
                let (parent, child) = (entry.parent.file(), entry.child);
                Draft::Link(LinkDraft { link: entry.link, parent, name: entry.name, child })
            }),
            Pending::Tomb(link) => {
                let Some(tomb) = TombRow::of(index, LinkId(link))? else { return Ok(None) };
                let mut heads: Vec<_> = tomb.heads.iter().copied().map(VersionId).collect();
                heads.sort_unstable();
                heads.dedup();
                heads.truncate(BASES_MAX);
                let by = self.successor(&tomb)?;
                Some(Draft::Tomb(TombDraft { link: LinkId(link), saw: tomb.saw, heads, by }))
            }
        })
    }

    fn told_node(
        &self,
        ino: Ino,
        stamp: Stamp,
        version: Option<VersionId>,
        content_withheld: bool,
    ) -> Result<()> {
        let node = self.tree.node(ino)?;
        let mut state = node.write();
        for field in [Field::Mode, Field::Uid, Field::Gid, Field::Mtime] {
            if state.row.is_changed(field) {
                state.row.stamps[field as usize] = stamp;
            }
        }
        let kept = state.row.changed & 1 << Field::Content as u8;
        state.row.changed = if content_withheld { kept } else { 0 };
        if let Some(version) = version {
            let row = &mut state.row;
            row.heads = vec![version.0];
            (row.version, row.written) = (stamp, Some(row.mtime));
            (row.again, row.told) = (false, None);
            row.stamps[Field::Mtime as usize] = stamp;
        }
        self.tree.dirtied(&node, &mut state);
        Ok(())
    }

    fn told_xattr(&self, ino: Ino, hash: &[u8; 16], stamp: Stamp) -> Result<()> {
        let Some(row) = self.tree.index.xattr(ino, hash)? else { return Ok(()) };
        let row = XattrRow { stamp, ..XattrRow::decode(&row)? };
        self.tree.index.set_xattr(ino, hash, Some(&row.encode()))
    }

    /// The link that stands in the place of a dead one, however often it was replaced since.
    fn successor(&self, tomb: &TombRow) -> Result<Option<LinkId>> {
        let mut by = tomb.by.map(LinkId);
        while let Some(link) = by {
            match TombRow::of(&self.tree.index, link)?.filter(TombRow::is_untold) {
                Some(next) => by = next.by.map(LinkId),
                None => break,
            }
        }
        Ok(by)
    }

    /// Nobody asks any more for those who stood in its place and were never told.
    fn told_tomb(&self, link: LinkId) -> Result<()> {
        let index = &self.tree.index;
        let mut by = TombRow::of(index, link)?.and_then(|tomb| tomb.by);
        while let Some(link) = by.map(LinkId) {
            let Some(tomb) = TombRow::of(index, link)?.filter(TombRow::is_untold) else { break };
            index.remove_tomb(link)?;
            by = tomb.by;
        }
        Ok(())
    }

    fn told_link(&self, link: LinkId, stamp: Stamp) -> Result<()> {
        let Some(mut entry) = self.tree.index.link(link)? else { return Ok(()) };
        entry.stamp = stamp;
        self.tree.index.set_entry(&entry)
    }
}
