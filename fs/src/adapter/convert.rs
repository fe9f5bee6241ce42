//! The kernel's words in the core's, and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use rdrivefs_sync::id::Ino;
use rdrivefs_sync::remote::env::Env;

use super::core::words::{Attr, Kind, TimeNs};

/// What `stat` gives as the block to copy by; the kernel takes it for the block of its page cache.
const STAT_BLOCK_BYTES: u32 = 4096;
const MODE_BITS: u32 = 0o7777;

pub(super) fn ino(node: INodeNo) -> Ino {
    Ino(node.0)
}

pub(super) fn node(ino: Ino) -> INodeNo {
    INodeNo(ino.0)
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: node(attr.ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: system_time(attr.crtime),
        kind: file_type(attr.kind),
        perm: (attr.mode & MODE_BITS) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: STAT_BLOCK_BYTES,
        flags: 0,
    }
}

/// The answer that lets the kernel remember that a name is not there: inode zero.
pub(super) fn nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: STAT_BLOCK_BYTES,
        flags: 0,
    }
}

pub(super) fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// The kind in the type bits of a mode, as `mknod` has them.
pub(super) fn kind(mode: u32) -> Option<Kind> {
    use rustix::fs::FileType as Type;
    match Type::from_raw_mode(mode) {
        Type::RegularFile => Some(Kind::File),
        Type::Fifo => Some(Kind::Fifo),
        Type::Socket => Some(Kind::Socket),
        Type::CharacterDevice => Some(Kind::CharDevice),
        Type::BlockDevice => Some(Kind::BlockDevice),
        _ => None,
    }
}

/// The permission bits of a mode.
pub(super) fn permissions(mode: u32) -> u32 {
    mode & MODE_BITS
}

pub(super) fn system_time(time: TimeNs) -> SystemTime {
    let whole = Duration::from_secs(time.secs.unsigned_abs());
    let second =
        if time.secs < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    second
        .and_then(|second| second.checked_add(Duration::from_nanos(time.nanos.into())))
        .unwrap_or(UNIX_EPOCH)
}

/// A time as fuser 0.18 decodes it: it subtracts the nanoseconds of a time before 1970 where they
/// should be added, so that seconds and nanoseconds are those of the distance, taken apart.
pub(super) fn time(decoded: SystemTime) -> TimeNs {
    let (sign, distance) = match decoded.duration_since(UNIX_EPOCH) {
        Ok(after) => (1, after),
        Err(before) => (-1, before.duration()),
    };
    let secs = i64::try_from(distance.as_secs()).unwrap_or(i64::MAX);
    TimeNs { secs: sign * secs, nanos: distance.subsec_nanos() }
}

pub(super) fn time_or_now(env: &Env, time_or_now: TimeOrNow) -> TimeNs {
    match time_or_now {
        TimeOrNow::SpecificTime(decoded) => time(decoded),
        TimeOrNow::Now => {
            let ns = env.wall_ns();
            let nanos = u32::try_from(ns % 1_000_000_000).expect("a remainder below a billion");
            TimeNs { secs: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX), nanos }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        let time = TimeNs { secs: -2, nanos: 800_000_000 };
        let before = UNIX_EPOCH.duration_since(system_time(time)).unwrap();
        assert_eq!(before, Duration::from_millis(1200));
    }
}
