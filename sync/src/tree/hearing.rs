//! Hearing of what changed without a call of the kernel, and where in the tree it shows.

use std::time::Duration;

use crate::error::{Error, Posix, Result};
use crate::id::{Ino, LinkId};
use crate::tree::core::Tree;
use crate::tree::news::NewsSince;
use crate::tree::words::Change;

impl Tree {
    /// What came from elsewhere since `from`, waiting a while for the first of it; without it, the
    /// moment to ask from.
    pub fn news(&self, from: Option<u64>, wait: Duration) -> NewsSince {
        self.news.after(from, wait)
    }

    /// Tells the kernel that attributes of a file were set without it.
    pub fn tell_attributes(&self, ino: Ino) {
        self.tell(Change::Attributes { ino });
    }

    /// Tells the kernel that something was done to a name without it.
    pub fn tell_done(&self, dir: Ino, name: &[u8]) {
        self.tell(Change::Entry { parent: dir, name: name.to_vec() });
        self.tell(Change::Attributes { ino: dir });
    }

    /// Where a change shows: names from the root down, each after a slash. None where it shows
    /// nowhere any more.
    ///
    /// # Errors
    /// Of the index.
    pub fn places(&self, change: &Change) -> Result<Vec<Vec<u8>>> {
        match change {
            Change::Entry { parent, name } => {
                Ok(self.path_in(*parent, name)?.into_iter().collect())
            }
            Change::Inode { ino } | Change::Attributes { ino } => {
                let row = match self.row(*ino) {
                    Err(Error::Posix(Posix::Stale)) => return Ok(Vec::new()),
                    row => row?,
                };
                let mut places = Vec::new();
                for link in row.links {
                    let Some(entry) = self.index.link(LinkId(link))? else { continue };
                    places.extend(self.path_in(entry.parent, &entry.name)?);
                }
                Ok(places)
            }
        }
    }

    /// The path of a name in a directory: names from the root down, each after a slash. None when
    /// the directory is gone.
    ///
    /// # Errors
    /// Of the index.
    pub fn path_in(&self, dir: Ino, name: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.path(dir)?.map(|dir| [&dir[..], b"/", name].concat()))
    }

    /// The path of a directory, empty for the root.
    fn path(&self, dir: Ino) -> Result<Option<Vec<u8>>> {
        let (mut names, mut at) = (Vec::new(), dir);
        while at != Ino::ROOT {
            let row = match self.row(at) {
                Err(Error::Posix(Posix::Stale)) => return Ok(None),
                row => row?,
            };
            let Some(link) = row.links.first() else { return Ok(None) };
            let Some(entry) = self.index.link(LinkId(*link))? else { return Ok(None) };
            names.push(entry.name);
            at = entry.parent;
        }
        Ok(Some(names.iter().rev().flat_map(|name| [b"/", &name[..]].concat()).collect()))
    }
}
