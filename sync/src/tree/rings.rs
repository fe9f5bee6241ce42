//! Rings: directories that moves made at once put into each other.
//!
//! Everything is first put where its record says, wherever that is; then every ring is cut at the
//! link that was moved last, whose directory stands in the root. So it does not matter in which
//! order the moves came to be known.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::error::Result;
use crate::id::{FileId, Ino, LinkId};
use crate::index::entries::EntryRow;
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
    /// in it too. What is found on the way is kept as long as nothing comes any more.
    pub(super) fn in_use(&mut self, dir: Ino) -> Result<bool> {
        if let Some(known) = self.used.as_ref().and_then(|used| used.get(&dir)) {
            return Ok(*known);
        }
        let (mut left, mut above) = (vec![dir], HashMap::from([(dir, dir)]));
        while let Some(at) = left.pop() {
            if !self.has_life(at, &mut above, &mut left)? {
                continue;
            }
            if let Some(used) = &mut self.used {
                let mut at = at;
                while used.insert(at, true).is_none() {
                    at = above[&at];
                }
            }
            return Ok(true);
        }
        if let Some(used) = &mut self.used {
            used.extend(above.keys().map(|dir| (*dir, false)));
        }
        Ok(false)
    }

    /// Whether something in a directory lives by itself; other directories in it are to be looked
    /// into.
    fn has_life(
        &mut self,
        at: Ino,
        above: &mut HashMap<Ino, Ino>,
        left: &mut Vec<Ino>,
    ) -> Result<bool> {
        let file = at.file();
        let mut links: Vec<_> = self.coming.get(&at).into_iter().flatten().copied().collect();
        links.extend(self.outside()?.iter().filter(|(_, to)| **to == file).map(|(id, _)| *id));
        let mut after = 0;
        loop {
            for link in links {
                let Some(entry) = self.entry(link)? else { continue };
                if self.lives_alone(&entry)? {
                    return Ok(true);
                }
                if let Entry::Vacant(new) = above.entry(entry.child) {
                    new.insert(at);
                    left.push(entry.child);
                }
            }
            let entries = self.tree.index.entries_after(at, after, STEP)?;
            let Some(last) = entries.last() else { return Ok(false) };
            after = last.link.0;
            links = entries.into_iter().map(|entry| entry.link).collect();
        }
    }

    /// Whether a link that stands lives whatever is in what it leads to.
    fn lives_alone(&self, entry: &EntryRow) -> Result<bool> {
        let kind = match entry.kind {
            Some(kind) => kind,
            None => self.tree.kind(entry.child)?,
        };
        // Files that are dead went before.
        if kind != Kind::Directory || self.tree.index.is_pending(Pending::Link(entry.link.0))? {
            return Ok(true);
        }
        if self.used.as_ref().is_some_and(|used| used.get(&entry.child) == Some(&true)) {
            return Ok(true);
        }
        let tomb = TombRow::of(&self.tree.index, entry.link)?;
        Ok(tomb.is_none_or(|tomb| entry.stamp > tomb.saw))
    }
}

/// Entries read at once: mostly the first tells.
const STEP: usize = 64;
