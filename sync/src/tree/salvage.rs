//! What is written through a handle that was open when what was pulled took the file's names: a
//! newer version, a removal, or another file in its place.
//!
//! Such an inode is cut off: no name leads to it, and nobody else will ever see what it holds. When
//! it is let go (after the last close, or at the next start) and was written to, it becomes a file of
//! its own, beside the one that took its place, and is sealed and published like any other.

use std::sync::Arc;

use crate::error::{Error, Posix, Result};
use crate::id::{DeviceNumber, FileId, Ino};
use crate::journal::Position;
use crate::record::{Kind, Stamp, TimeNs};
use crate::tree::core::{Tree, lock};
use crate::tree::node::{Field, Node};
use crate::tree::op::Op;
use crate::tree::unsettled::Place;
use crate::tree::xattrs::XattrRow;
use crate::view::naming::{conflict_name, suffixed};

impl Tree {
    /// Gives content that was cut off a name, if it was written to; which, so that the kernel hears
    /// of it. The caller holds the gate, and no lock of names.
    pub(super) fn salvage(&self, ino: Ino) -> Result<Option<(Ino, Vec<u8>)>> {
        let node = match self.node(ino) {
            Err(Error::Posix(Posix::Stale)) => return Ok(None),
            node => node?,
        };
        let _names = lock(&self.names);
        let (place, mtime) = {
            let state = node.read();
            let due = state.row.is_cut_and_written() && !state.gone;
            match state.row.cut.clone().filter(|_| due) {
                None => return Ok(None),
                Some(place) => (place, state.row.mtime),
            }
        };
        let (parent, name) = self.free_place(&place, mtime)?;
        let (made, link, now) = (self.draw(), self.draw(), self.now());
        tracing::warn!(
            ?ino,
            "a file was written to while its name was taken elsewhere: it is kept beside"
        );
        let op = Op::Salvage { ino: ino.0, made, link, parent: parent.0, name: name.clone(), now };
        let at = self.append_reserved(&op.encode())?;
        self.applied(self.apply(&op, at))?;
        Ok(Some((parent, name)))
    }

    /// A free name beside what took the place.
    fn free_place(&self, place: &Place, at: TimeNs) -> Result<(Ino, Vec<u8>)> {
        let parent = match self.node(Ino::first(FileId(place.parent))) {
            Err(Error::Posix(Posix::Stale)) => Ino::ROOT,
            node => {
                let node = node?;
                let row = &node.read().row;
                let stands = row.kind == Kind::Directory && !row.links.is_empty();
                if stands { node.ino } else { Ino::ROOT }
            }
        };
        let name = conflict_name(&place.name, self.device, at);
        let (mut free, mut count) = (name.clone(), 1);
        while self.index.entry(parent, &free)?.is_some() {
            count += 1;
            free = suffixed(&name, &count.to_string());
        }
        Ok((parent, free))
    }

    /// Applies [`Op::Salvage`].
    #[allow(clippy::too_many_arguments, reason = "they are those of the record")]
    pub(super) fn salvaged(
        &self,
        ino: Ino,
        made: Ino,
        link: u64,
        parent: Ino,
        name: &[u8],
        now: TimeNs,
        at: Position,
    ) -> Result<()> {
        self.drawn(made.0);
        let old = self.node(ino)?;
        let mut row = old.read().row.clone();
        (row.links, row.hidden, row.heads, row.others) = Default::default();
        (row.cut, row.copy, row.told, row.nlink, row.changed) = (None, None, None, 0, 0);
        row.written = None;
        let nobody = Stamp { lamport: 0, device: DeviceNumber(0) };
        (row.stamps, row.version) = ([nobody; 4], nobody);
        for field in
            [Field::File, Field::Mode, Field::Uid, Field::Gid, Field::Mtime, Field::Content]
        {
            row.touch(field);
        }
        row.linked(link);
        let node = self.adopt(made, row);
        for (_, xattr) in self.index.xattrs(ino)? {
            let xattr = XattrRow::decode(&xattr)?;
            self.put_xattr(made, &xattr.name, xattr.value.as_deref())?;
        }
        self.put_entry(link, parent, name, made)?;
        self.touch_directory(parent, at, now, 0)?;
        self.staged_here(&node, at);
        let mut state = old.write();
        state.row.unwrite();
        state.position = state.position.max(at);
        self.dirtied(&old, &mut state);
        Ok(())
    }

    fn staged_here(&self, node: &Arc<Node>, at: Position) {
        let mut state = node.write();
        state.position = at;
        // As for a file opened from the index: `Node::new` takes what is staged for known.
        state.dirty_since = None;
        state.marked_staged = false;
        self.restaged(node, &mut state);
    }
}
