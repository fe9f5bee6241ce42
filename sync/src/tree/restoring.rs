//! Restoring: a version that a file had becomes its content again, as a change made here.
//!
//! It arrives as a pulled version does, so that whoever has the file open keeps what they have, and
//! it is told as a version after the present one: nothing of the history goes.

use std::sync::Arc;

use crate::error::{Error, Posix, Result};
use crate::id::{FileId, Ino};
use crate::record::{Kind, TimeNs};
use crate::tree::core::{Tree, lock};
use crate::tree::extents::Extents;
use crate::tree::merging::Merging;
use crate::tree::node::{Field, Node, State};
use crate::tree::words::Change;

/// What a file is to hold.
pub struct Restored {
    /// Bytes.
    pub size: u64,
    /// When it was made.
    pub mtime: TimeNs,
    /// Where its bytes lie.
    pub extents: Extents,
}

impl Tree {
    /// The inode of a file that has a name.
    ///
    /// # Errors
    /// Of the index.
    pub fn present_ino(&self, file: FileId) -> Result<Option<Ino>> {
        let named = |node: &Arc<Node>| file == FileId::ROOT || !node.read().row.links.is_empty();
        Ok(self.present(file)?.filter(named).map(|node| node.ino))
    }
}

impl Merging<'_> {
    /// Lets a file that has a name hold this.
    ///
    /// # Errors
    /// [`Posix::NoEntry`] when there is none; [`Error::Refused`] when what it holds now is told
    /// nowhere yet and would be lost; of the index.
    pub fn restore(&mut self, file: FileId, to: Restored) -> Result<()> {
        let node = self.current(file)?.ok_or(Posix::NoEntry)?;
        {
            let row = &node.read().row;
            if row.kind != Kind::File || row.links.is_empty() {
                return Err(Posix::NoEntry.into());
            }
            if row.is_written() {
                return Err(Error::Refused(
                    "what it holds now is on no remote yet and would be lost; `rdrivefs sync` first"
                        .into(),
                ));
            }
        }
        // The kernel's references are counted before it is told anything, and told under this lock.
        let mut state = node.write();
        let node = match lock(&self.tree.references).contains_key(&node.ino) {
            false => node.clone(),
            true => {
                drop(state);
                let node = self.reincarnate(&node)?;
                return self.hold(&node, &mut node.write(), to);
            }
        };
        self.hold(&node, &mut state, to)
    }

    fn hold(&mut self, node: &Arc<Node>, state: &mut State, to: Restored) -> Result<()> {
        let row = &mut state.row;
        row.write_over();
        (row.size, row.mtime, row.extents) = (to.size, to.mtime, to.extents);
        row.ctime = self.tree.now();
        row.touch(Field::Content);
        row.touch(Field::Mtime);
        row.again = false;
        self.tree.restaged(node, state);
        self.tree.dirtied(node, state);
        self.changes.push(Change::Inode { ino: node.ino });
        Ok(())
    }
}
