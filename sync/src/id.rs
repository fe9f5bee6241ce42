//! The numbers things go by: files, links, versions, inodes.
//!
//! A device draws files, links and versions from one counter of its own, so that no two devices
//! ever make the same id: device number (16 bits), counter (40), eight zero bits.

use std::fmt;

/// The number of one device instance within a drive; never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceNumber(pub u16);

/// The number of no device: ids below it are derived, the same on every device.
pub(crate) const DERIVED: DeviceNumber = DeviceNumber(0x7fff);

/// A file of the drive: a regular file, directory, symlink or special file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// A name in a directory: survives moves, dies with its tombstone. Its value is also the cookie
/// by which a listing continues.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// One version of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionId(pub u64);

/// An inode number: the file id, and in the low eight bits a local incarnation that moves on when
/// a pulled version replaces what the kernel holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ino(pub u64);

const COUNTER_BITS: u32 = 40;
const INCARNATION_BITS: u32 = 8;

impl FileId {
    /// The root directory of every drive.
    pub const ROOT: Self = Self(0);
}

impl Ino {
    /// The root directory, by the number the kernel fixes for it.
    pub const ROOT: Self = Self(1);

    /// The first incarnation of a file.
    pub fn first(file: FileId) -> Self {
        if file == FileId::ROOT { Self::ROOT } else { Self(file.0) }
    }

    /// The file behind the inode.
    pub fn file(self) -> FileId {
        FileId(self.0 & !((1 << INCARNATION_BITS) - 1))
    }

    /// The next incarnation of the same file, wrapping round.
    pub fn next(self) -> Self {
        let low = (self.0 + 1) & ((1 << INCARNATION_BITS) - 1);
        Self(self.file().0 | low)
    }
}

/// The `count`-th number device `device` draws.
///
/// # Panics
/// When a device has drawn 2⁴⁰ numbers: more than a file a microsecond for twelve days and nights
/// every day of a year; a new instance starts afresh.
pub fn draw(device: DeviceNumber, count: u64) -> u64 {
    assert!(count < 1 << COUNTER_BITS, "a device instance draws at most 2^40 ids");
    u64::from(device.0) << (COUNTER_BITS + INCARNATION_BITS) | count << INCARNATION_BITS
}

macro_rules! hex_debug {
    ($($type:ident),*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:x})", stringify!($type), self.0)
            }
        }
    )*};
}

hex_debug!(FileId, LinkId, VersionId, Ino);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incarnations_stay_with_their_file() {
        let file = FileId(draw(DeviceNumber(7), 42));
        let ino = Ino::first(file);
        assert_eq!(ino.next().file(), file);
        assert_ne!(ino.next(), ino);
        let mut round = ino;
        (0..256).for_each(|_| round = round.next());
        assert_eq!(round, ino);
        assert_eq!(Ino::ROOT.file(), FileId::ROOT);
    }
}
