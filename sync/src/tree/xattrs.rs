//! Extended attributes, access lists among them.

use minicbor::bytes::ByteVec;

use crate::error::{Error, Posix, Result};
use crate::id::Ino;
use crate::record::{Kind, Stamp, TimeNs};
use crate::tree::acl;
use crate::tree::core::{Tree, lock};
use crate::tree::op::{Attrs, Op};
use crate::tree::words::SetXattr;

/// Longest name, as Linux has it.
const NAME_BYTES_MAX: usize = 255;

/// Longest value, as Linux has it.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// What names begin with, beside those of access lists.
const SPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// The longest value that goes, with its name, into one record of the journal.
const RECORD_BYTES_MAX: usize = 60 << 10;

/// An extended attribute as the index has it: removed ones stay until that is published.
pub(super) struct XattrRow {
    pub(super) name: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
    pub(super) stamp: Stamp,
}

impl XattrRow {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let (name, value, stamp): (ByteVec, Option<ByteVec>, Stamp) = minicbor::decode(bytes)
            .map_err(|e| Error::corrupt("a row of the index table xattr", e))?;
        Ok(Self { name: name.into(), value: value.map(Into::into), stamp })
    }

    pub(super) fn encode(self) -> Vec<u8> {
        let row = (ByteVec::from(self.name), self.value.map(ByteVec::from), self.stamp);
        minicbor::to_vec(row).expect("memory takes every write")
    }
}

impl Tree {
    /// The value of an extended attribute.
    ///
    /// # Errors
    /// [`Posix::NoData`] when there is none; for a name that none can have, as in
    /// [`Tree::set_xattr`].
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        self.xattr_value(ino, name)?.ok_or_else(|| missing(name))
    }

    /// The names of all extended attributes.
    ///
    /// # Errors
    /// Of the index.
    pub fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for (_, row) in self.index.xattrs(ino)? {
            let row = XattrRow::decode(&row)?;
            if row.value.is_some() {
                names.push(row.name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Sets an extended attribute; an access list sets the mode as well.
    ///
    /// # Errors
    /// Those of `setxattr(2)`.
    pub fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], how: SetXattr) -> Result<()> {
        check_name(name)?;
        check_value(value)?;
        let _gate = self.shared();
        let _names = lock(&self.names);
        // Must: nothing is recorded about a file that is gone.
        let node = self.node(ino)?;
        let there = self.xattr_value(ino, name)?.is_some();
        match how {
            SetXattr::Create if there => return Err(Posix::Exists.into()),
            SetXattr::Replace if !there => return Err(Posix::NoData.into()),
            _ => {}
        }
        let now = self.now();
        if name == acl::DEFAULT && self.kind(ino)? != Kind::Directory {
            return Err(Posix::NotPermitted.into());
        }
        if name != acl::ACCESS {
            return self.record_xattr(ino, name, Some(value.to_vec()), now);
        }
        let mode = node.read().row.mode;
        let (mode, minimal) = acl::mode_of(value, mode)?;
        // A list that says no more than the mode is none; one that is there goes.
        let access = if minimal { there.then(Vec::new) } else { Some(value.to_vec()) };
        let (mode, ctime) = (Some(mode), Some(now));
        let attrs = Attrs { ino: ino.0, mode, ctime, access, ..Attrs::default() };
        self.carry_out(&Op::Attr(Box::new(attrs)))
    }

    /// Removes an extended attribute. An access list that is not there is one that says no more
    /// than the mode: to remove it is no mistake, and changes nothing.
    ///
    /// # Errors
    /// [`Posix::NoData`] when there is none; for a name that none can have, as in
    /// [`Tree::set_xattr`].
    pub fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        let _gate = self.shared();
        let _names = lock(&self.names);
        match self.xattr_value(ino, name)? {
            Some(_) => self.record_xattr(ino, name, None, self.now()),
            None if name == acl::ACCESS || name == acl::DEFAULT => Ok(()),
            None => Err(missing(name)),
        }
    }

    fn record_xattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: Option<Vec<u8>>,
        now: TimeNs,
    ) -> Result<()> {
        if let Some(value) = value.as_ref().filter(|value| value.len() > RECORD_BYTES_MAX) {
            let places = self.journal.stage(ino.0, value)?;
            let op = Op::LongXattr { ino: ino.0, name: name.to_vec(), places, now };
            let Op::LongXattr { places, .. } = &op else { unreachable!("it was just made") };
            let at = self.append_naming(&op.encode(), places)?;
            return self.applied_to_file(self.xattr_set(ino, name, Some(value), at, now));
        }
        let op = Op::Xattr { ino: ino.0, name: name.to_vec(), value, now };
        let at = self.append(&op.encode())?.position;
        self.applied_to_file(self.apply(&op, at))
    }

    pub(super) fn default_acl(&self, ino: Ino) -> Result<Option<Vec<u8>>> {
        self.xattr_value(ino, acl::DEFAULT)
    }

    pub(super) fn access_acl(&self, ino: Ino) -> Result<Option<Vec<u8>>> {
        self.xattr_value(ino, acl::ACCESS)
    }

    fn xattr_value(&self, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let row = self.index.xattr(ino, &self.index.xattr_hash(ino, name))?;
        Ok(row.map(|row| XattrRow::decode(&row)).transpose()?.and_then(|row| row.value))
    }
}

/// Lets a name pass that Linux' local filesystems have; theirs are the errors of the others.
fn check_name(name: &[u8]) -> Result<()> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(Posix::OutOfRange.into());
    }
    if name == acl::ACCESS || name == acl::DEFAULT {
        return Ok(());
    }
    match SPACES.iter().find_map(|space| name.strip_prefix(*space)) {
        Some(b"") => Err(Posix::Invalid.into()),
        Some(_) => Ok(()),
        None => Err(Posix::NotSupported.into()),
    }
}

/// Why nothing of that name is there.
fn missing(name: &[u8]) -> Error {
    check_name(name).err().unwrap_or(Posix::NoData.into())
}

fn check_value(value: &[u8]) -> Result<()> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(Posix::NoSpace.into());
    }
    Ok(())
}
