//! What a record may say: the bounds a reader enforces on records that came from elsewhere.
//!
//! A member's device may be broken or hostile. Nothing it says may escape its directory, pass for
//! another kind of thing or make a reader allocate without bound.

use super::{Content, Extent, Kind, Record, Source, TimeNs};
use crate::id::{FileId, VersionId};

/// As on every Linux filesystem.
pub const NAME_BYTES_MAX: usize = 255;
/// As on Linux (`PATH_MAX` less its NUL).
pub const TARGET_BYTES_MAX: usize = 4095;
/// As in Linux' `XATTR_NAME_MAX`.
pub const XATTR_NAME_BYTES_MAX: usize = 255;
/// As in Linux' `XATTR_SIZE_MAX`.
pub const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;
/// A file this small costs less inside its record than a chunk's entry beside it.
pub const INLINE_BYTES_MAX: usize = 512;
/// The largest chunk the cutter makes.
pub const CHUNK_BYTES_MAX: u32 = 4 << 20;
/// Above this a list is stored as chunks: a record stays below a tenth of a commit.
pub const EXTENTS_MAX: usize = 64 << 10;
/// More heads than a person's devices can make between two meetings.
pub const BASES_MAX: usize = 1024;
/// What the kernel's `loff_t` can say.
pub const SIZE_MAX: u64 = i64::MAX as u64;
/// A layer of the smallest chunks has a table far below this.
pub const TOC_BYTES_MAX: usize = 1 << 20;
/// Names of remotes and devices, addresses, rules: a line a person can read.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Longest name this build gives a device: it stands in a column of a table.
pub const DEVICE_NAME_BYTES_MAX: usize = 64;

type Check = Result<(), &'static str>;

impl Record {
    /// Whether it says nothing a record must not say.
    ///
    /// # Errors
    /// Which bound it breaks.
    pub fn check(&self) -> Check {
        match self {
            Self::File { file, kind, rdev, target, born } => {
                check_file(*file, *kind, *rdev, target)?;
                time(born)
            }
            Self::Attr { mode, mtime, atime, ctime, crtime, .. } => {
                must(mode.is_none_or(|mode| mode <= 0o7777), "a mode beyond the permission bits")?;
                [mtime, atime, ctime, crtime].into_iter().flatten().try_for_each(time)
            }
            Self::Xattr { name, value, .. } => check_xattr(name, value.as_deref()),
            Self::Link { link: _, parent: _, name, file } => {
                must(*file != FileId::ROOT, "a link to the root")?;
                check_name(name)
            }
            Self::Unlink { heads, .. } => check_versions(heads),
            Self::Version { bases, size, mtime, content, .. } => {
                check_versions(bases)?;
                time(mtime)?;
                content.check(*size)
            }
            Self::Layer { toc, .. } => must(toc.len() <= TOC_BYTES_MAX, "a table too long"),
            Self::Moved { from, to } => must(from != to, "a layer moved to itself"),
            Self::Held { .. } => Ok(()),
            Self::Remote { name, url, .. } => text(name).and(text(url)),
            Self::Device { name, .. } => text(name),
            Self::Policy { rule, .. } => text(rule),
        }
    }
}

impl Content {
    /// Whether it is the content of a file of `size` bytes.
    ///
    /// # Errors
    /// Which bound it breaks.
    pub fn check(&self, size: u64) -> Check {
        must(size <= SIZE_MAX, "a size beyond what a file can have")?;
        match self {
            Self::Inline(bytes) => {
                must(bytes.len() <= INLINE_BYTES_MAX, "too much content in a record")?;
                must(bytes.len() as u64 == size, "content and size differ")
            }
            Self::Extents(extents) => {
                must(check_extents(extents)? == size, "content and size differ")
            }
            Self::Listed { list, count } => {
                must(*count > EXTENTS_MAX as u64, "a short list stored as a long one")?;
                must(list.iter().all(|e| e.source != Source::Hole), "a hole in a list")?;
                check_extents(list).map(drop)
            }
        }
    }
}

/// Whether each stretch lies inside a chunk; gives the length of all together.
///
/// # Errors
/// Which bound is broken.
pub(super) fn check_extents(extents: &[Extent]) -> Result<u64, &'static str> {
    must(extents.len() <= EXTENTS_MAX, "too many extents")?;
    let mut total = 0_u64;
    for extent in extents {
        must(extent.len > 0, "an empty extent")?;
        if let Source::Chunk { skip, .. } = extent.source {
            let room = u64::from(CHUNK_BYTES_MAX.saturating_sub(skip));
            must(extent.len <= room, "an extent beyond its chunk")?;
        }
        total = total.checked_add(extent.len).ok_or("extents beyond every size")?;
    }
    Ok(total)
}

fn check_file(file: FileId, kind: Kind, rdev: u32, target: &[u8]) -> Check {
    must(file != FileId::ROOT, "the root made again")?;
    let device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
    must(device || rdev == 0, "a device number on what is no device")?;
    if kind != Kind::Symlink {
        return must(target.is_empty(), "a target on what is no symlink");
    }
    must(!target.is_empty() && target.len() <= TARGET_BYTES_MAX, "a target of a wrong length")?;
    must(!target.contains(&0), "a NUL in a target")
}

fn check_name(name: &[u8]) -> Check {
    must(!name.is_empty() && name.len() <= NAME_BYTES_MAX, "a name of a wrong length")?;
    must(name != b"." && name != b"..", "a name that means a directory")?;
    must(!name.contains(&b'/') && !name.contains(&0), "a name with a slash or a NUL")
}

fn check_xattr(name: &[u8], value: Option<&[u8]>) -> Check {
    let len = name.len();
    must(len > 0 && len <= XATTR_NAME_BYTES_MAX, "an xattr name of a wrong length")?;
    must(!name.contains(&0), "a NUL in an xattr name")?;
    let len = value.map_or(0, <[u8]>::len);
    must(len <= XATTR_VALUE_BYTES_MAX, "an xattr value too long")
}

/// Sets are written in ascending order, each once: one spelling.
fn check_versions(versions: &[VersionId]) -> Check {
    must(versions.len() <= BASES_MAX, "too many versions named")?;
    must(versions.is_sorted_by(|a, b| a < b), "versions not in ascending order")
}

fn time(time: &TimeNs) -> Check {
    must(time.nanos < 1_000_000_000, "a second of more than 10^9 nanoseconds")
}

fn text(text: &str) -> Check {
    must(text.len() <= TEXT_BYTES_MAX, "a text too long")?;
    must(!text.chars().any(char::is_control), "a control character in a text")
}

/// Whether this build would call a device so.
///
/// # Errors
/// Which bound it breaks.
pub fn check_device_name(name: &str) -> Check {
    let fits = !name.trim().is_empty() && name.len() <= DEVICE_NAME_BYTES_MAX;
    must(fits, "a name has 1 to 64 bytes")?;
    text(name)
}

fn must(holds: bool, otherwise: &'static str) -> Check {
    if holds { Ok(()) } else { Err(otherwise) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::LinkId;

    fn link(name: &[u8]) -> Record {
        let (link, parent, file) = (LinkId(256), FileId::ROOT, FileId(256));
        Record::Link { link, parent, name: name.to_vec(), file }
    }

    #[test]
    fn names_stay_in_their_directory() {
        assert!(link(b"...").check().is_ok());
        assert!(link(&[0xff; 255]).check().is_ok());
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0", &[b'x'; 256]] {
            assert!(link(bad).check().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn content_must_fill_the_size() {
        let chunk =
            Source::Chunk { layer: rdrivefs_remote::blob::BlobId([0; 32]), number: 0, skip: 5 };
        let extent = Extent { len: 7, source: chunk };
        assert!(Content::Extents(vec![extent]).check(7).is_ok());
        assert!(Content::Extents(vec![extent]).check(8).is_err());
        let long = Extent { len: u64::from(CHUNK_BYTES_MAX) - 4, source: chunk };
        assert!(Content::Extents(vec![long]).check(long.len).is_err());
        assert!(Content::EMPTY.check(0).is_ok());
        assert!(Content::EMPTY.check(1).is_err());
        let hole = Extent { len: u64::MAX, source: Source::Hole };
        assert!(Content::Extents(vec![hole, hole]).check(5).is_err());
    }
}
