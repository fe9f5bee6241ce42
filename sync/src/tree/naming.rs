//! Who of those who want one name has it, and what the others are called.
//!
//! The latest link wins, and what is not told yet will be later than all. The others stand beside
//! it, under names that say who made them and when; the same on every device.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::id::{FileId, Ino, LinkId};
use crate::index::entries::EntryRow;
use crate::index::nodes::Pending;
use crate::record::Stamp;
use crate::tree::merging::Merging;
use crate::tree::unsettled::{Place, Unsettled};
use crate::view::naming::{free_name, plain_name};

/// Links in the order in which they would win a name, the winner last; copies never win.
type Claims = BTreeMap<Weight, EntryRow>;

/// No copy, not told yet, when, which.
type Weight = (bool, bool, Stamp, LinkId);

impl Merging<'_> {
    /// Gives a name to the winner, and names beside it to the others.
    pub(super) fn arrange(&mut self, place: &Place) -> Result<()> {
        let parent = Ino::first(FileId(place.parent));
        let claims = self.claims(parent, place)?;
        let names = self.names(parent, &place.name, &claims)?;
        let mut changed = Vec::new();
        for (((original, ..), entry), name) in claims.iter().zip(names) {
            let wins = *original && name == place.name;
            self.settle_row(entry.link, place, wins)?;
            if self.unshown.contains_key(&entry.link) || entry.name != name {
                changed.push((entry, name));
            }
        }
        // All go before any comes: what is written into a place must find it free.
        for (entry, _) in &changed {
            if self.unshown.remove(&entry.link).is_none() {
                self.tree.index.remove_entry(entry.link)?;
                self.entry_changed(entry);
            }
        }
        for (entry, name) in changed {
            let entry = EntryRow { name, ..entry.clone() };
            self.tree.index.set_entry(&entry)?;
            self.entry_changed(&entry);
        }
        // Who lost a name and has a longer one than it needs takes this, if it is free now.
        let shorter = plain_name(&place.name);
        self.places.extend(shorter.map(|name| Place { parent: place.parent, name }));
        Ok(())
    }

    /// Who wants a place. Who stands there and wants another is sent to look for a new one.
    fn claims(&mut self, parent: Ino, place: &Place) -> Result<Claims> {
        let mut links = self.tree.index.unsettled_at(parent.file(), &place.name)?;
        if let Some(entry) = self.tree.index.entry(parent, &place.name)? {
            match Unsettled::of(&self.tree.index, entry.link)? {
                Some(row) if row.place != *place && links.is_empty() => {}
                Some(row) if row.place != *place => {
                    self.tree.index.remove_entry(entry.link)?;
                    self.entry_changed(&entry);
                    self.unshown.insert(entry.link, entry);
                    self.places.insert(row.place);
                }
                Some(_) => {}
                None => links.push(entry.link),
            }
        }
        let mut claims = Claims::new();
        for link in links {
            let Some(entry) = self.entry(link)?.filter(|entry| entry.parent == parent) else {
                continue;
            };
            let row = Unsettled::of(&self.tree.index, link)?;
            let original = row.is_none_or(|row| row.copy.is_none());
            let pending = self.tree.index.is_pending(Pending::Link(link.0))?;
            claims.insert((original, pending, entry.stamp, link), entry);
        }
        Ok(claims)
    }

    /// The names of those who want one, in their order.
    fn names(&mut self, parent: Ino, name: &[u8], claims: &Claims) -> Result<Vec<Vec<u8>>> {
        let mut taken = BTreeSet::new();
        let mut names = Vec::with_capacity(claims.len());
        let winner = claims.keys().next_back().filter(|(original, ..)| *original).copied();
        for (weight, entry) in claims {
            if Some(*weight) == winner {
                names.push(name.to_vec());
                continue;
            }
            let (device, at) = self.made_by(entry)?;
            let beside = free_name(name, device, at, entry.link, |name| {
                Ok::<_, Error>(taken.contains(name) || self.is_taken(parent, name, claims)?)
            })?;
            taken.insert(beside.clone());
            names.push(beside);
        }
        Ok(names)
    }

    /// Whether a name belongs to somebody outside this group.
    fn is_taken(&self, parent: Ino, name: &[u8], claims: &Claims) -> Result<bool> {
        let entry = self.tree.index.entry(parent, name)?;
        Ok(entry.is_some_and(|entry| claims.values().all(|claim| claim.link != entry.link)))
    }

    /// Which device made what a link leads to, and when: of a copy the version, of others the file.
    fn made_by(
        &mut self,
        entry: &EntryRow,
    ) -> Result<(crate::id::DeviceNumber, crate::record::TimeNs)> {
        let node = self.tree.node(entry.child)?;
        let row = &node.read().row;
        let at = if row.copy.is_some() { row.mtime } else { row.crtime };
        Ok((entry.stamp.device, at))
    }

    /// Notes that a link has the name it wants, or has not.
    fn settle_row(&self, link: LinkId, place: &Place, wins: bool) -> Result<()> {
        let index = &self.tree.index;
        match Unsettled::of(index, link)? {
            Some(row) if wins && row.moved.is_none() && !row.kept => index.remove_unsettled(link),
            None if !wins => {
                let place = place.clone();
                Unsettled { place, moved: None, kept: false, copy: None }.keep(index, link)
            }
            _ => Ok(()),
        }
    }
}
