//! Rings: directories that moves made at once put into each other.
//!
//! Everything is first put where its record says, wherever that is; then every ring is cut at the
//! link that was moved last, whose directory stands in the root. So it does not matter in which
//! order the moves came to be known.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::Result;
use crate::id::{FileId, Ino, LinkId};
use crate::index::nodes::Pending;
use crate::record::{Kind, Stamp};
use crate::tree::merging::Merging;
use crate::tree::tomb::TombRow;
use crate::tree::unsettled::Unsettled;

/// What decides which of two links is the later: what is not told yet will be later than all.
type Weight = (bool, Stamp, LinkId);

impl Merging<'_> {
    /// Tries again what could not be where its record puts it, and cuts the rings there are then.
    pub(super) fn untie(&mut self) -> Result<()> {
        if self.came.is_empty() {
            return Ok(());
        }
        for link in self.outside()?.keys().copied().collect::<Vec<_>>() {
            if self.tree.index.is_pending(Pending::Link(link.0))? {
                continue;
            }
            let Some(register) = self.register(link)? else { continue };
            self.withdraw(link)?;
            self.stand(link, &register)?;
            self.touched.insert(FileId(register.child));
        }
        while let Some(dir) = self.came.pop_first() {
            let Some(newest) = self.newest_of_ring(dir)? else { continue };
            if let Some(register) = self.register(newest)? {
                self.withdraw(newest)?;
                self.stand_outside(newest, &register)?;
                self.touched.insert(FileId(register.child));
            }
        }
        Ok(())
    }

    /// If a directory lies in itself, the latest of the links on the way round.
    fn newest_of_ring(&mut self, dir: FileId) -> Result<Option<LinkId>> {
        let (mut at, mut way, mut seen) = (dir, Vec::new(), BTreeSet::new());
        while at != FileId::ROOT && seen.insert(at) {
            let Some(node) = self.current(at)? else { return Ok(None) };
            let (link, above) = {
                let row = &node.read().row;
                (row.links.first().copied().map(LinkId), Ino(row.parent).file())
            };
            let Some(link) = link else { return Ok(None) };
            way.push(link);
            at = above;
            if at == dir {
                return self.newest(&way).map(Some);
            }
        }
        Ok(None)
    }

    fn newest(&self, links: &[LinkId]) -> Result<LinkId> {
        let mut newest: Option<Weight> = None;
        for link in links {
            let Some(entry) = self.entry(*link)? else { continue };
            let pending = self.tree.index.is_pending(Pending::Link(link.0))?;
            newest = newest.max(Some((pending, entry.stamp, *link)));
        }
        Ok(newest.map_or(links[0], |(_, _, link)| link))
    }

    /// Links that are in the root since they cannot be where their records put them, with the
    /// directories they were to be in.
    pub(super) fn outside(&mut self) -> Result<&mut BTreeMap<LinkId, FileId>> {
        let outside = match self.outside.take() {
            Some(known) => known,
            None => {
                let index = &self.tree.index;
                let mut outside = BTreeMap::new();
                for link in index.unsettled_in(FileId::ROOT)? {
                    let moved = Unsettled::of(index, link)?.and_then(|row| row.moved);
                    outside.extend(moved.map(|place| (link, FileId(place.parent))));
                }
                outside
            }
        };
        Ok(self.outside.insert(outside))
    }

    /// Whether something that lives is in a directory, as far as records say: what was cut off is
    /// in it too.
    pub(super) fn in_use(&mut self, dir: Ino) -> Result<bool> {
        let (mut left, mut seen) = (vec![dir], BTreeSet::from([dir]));
        while let Some(at) = left.pop() {
            let file = at.file();
            let here = self.coming.get(&at).into_iter().flatten().copied();
            let mut links: Vec<_> = here.collect();
            links.extend(self.outside()?.iter().filter(|(_, to)| **to == file).map(|(id, _)| *id));
            for link in links {
                if self.keeps(link, &mut seen, &mut left)? {
                    return Ok(true);
                }
            }
            let mut after = 0;
            loop {
                let entries = self.tree.index.entries_after(at, after, STEP)?;
                let Some(last) = entries.last() else { break };
                after = last.link.0;
                for entry in entries {
                    if self.keeps(entry.link, &mut seen, &mut left)? {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }

    /// Whether a link that stands lives by itself; directories that do not are to be looked into.
    fn keeps(
        &mut self,
        link: LinkId,
        seen: &mut BTreeSet<Ino>,
        left: &mut Vec<Ino>,
    ) -> Result<bool> {
        let Some(entry) = self.entry(link)? else { return Ok(false) };
        let kind = match entry.kind {
            Some(kind) => kind,
            None => self.tree.kind(entry.child)?,
        };
        // Files that are dead went before.
        if kind != Kind::Directory || self.tree.index.is_pending(Pending::Link(link.0))? {
            return Ok(true);
        }
        let tomb = TombRow::of(&self.tree.index, link)?;
        if tomb.is_none_or(|tomb| entry.stamp > tomb.saw) {
            return Ok(true);
        }
        if seen.insert(entry.child) {
            left.push(entry.child);
        }
        Ok(false)
    }
}

/// Entries read at once: mostly the first tells.
const STEP: usize = 64;
