//! The bits of a mode that lend a file's rights to whoever runs it, and when they go.
//!
//! With HANDLE_KILLPRIV_V2 the kernel leaves it to us to take them away at a write, a truncation or
//! a change of owner. The rules are those of Linux' local filesystems.

use fuser::Request;

use super::core::words::{Attr, Kind, SetAttr};

const SET_USER: u32 = 0o4000;
const SET_GROUP: u32 = 0o2000;
const GROUP_RUNS: u32 = 0o0010;

/// Who changes a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changer {
    uid: u32,
    gid: u32,
    /// The thread that waits for the answer; 0 where the kernel cannot name it here.
    thread: u32,
}

impl Changer {
    pub(super) fn of(req: &Request) -> Self {
        Self { uid: req.uid(), gid: req.gid(), thread: req.pid() }
    }

    /// Whether it may do what an owner may not. The kernel tells no capabilities, so root may.
    fn is_root(self) -> bool {
        self.uid == 0
    }

    /// Whether it belongs to a group; whoever cannot be looked at does not.
    fn is_in(self, group: u32) -> bool {
        if self.is_root() || self.gid == group {
            return true;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.thread));
        let status = status.unwrap_or_default();
        let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"));
        groups.is_some_and(|groups| groups.split_whitespace().any(|id| id.parse() == Ok(group)))
    }
}

/// Whether loans end with a change of attributes. fuser does not pass on whether the caller may
/// keep them through a truncation, so everybody but root is taken not to.
pub(super) fn end_with(set: &SetAttr, by: Changer) -> bool {
    let owner = set.uid.is_some() || set.gid.is_some();
    let truncated = set.size.is_some() && !by.is_root();
    owner || truncated || changes_nothing(set)
}

/// The kernel asks for this when a change of owner changes none, and before it allocates or copies
/// for somebody who must not keep loans.
fn changes_nothing(set: &SetAttr) -> bool {
    let SetAttr { mode, uid, gid, size, atime, mtime, ctime: _, crtime } = *set;
    let numbers = [mode, uid, gid].iter().all(Option::is_none) && size.is_none();
    numbers && [atime, mtime, crtime].iter().all(Option::is_none)
}

/// The mode without loans, where it has any. The group's bit on a file the group cannot run marks
/// mandatory locks: who belongs to the group leaves it.
pub(super) fn without(attr: &Attr, by: Changer) -> Option<u32> {
    let mut left = attr.mode & !SET_USER;
    if left & SET_GROUP != 0 && (left & GROUP_RUNS != 0 || !by.is_in(attr.gid)) {
        left &= !SET_GROUP;
    }
    (attr.kind != Kind::Directory && left != attr.mode).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::super::core::words::TimeNs;
    use super::*;

    fn file(kind: Kind, mode: u32, gid: u32) -> Attr {
        let time = TimeNs { secs: 0, nanos: 0 };
        let (atime, mtime, ctime, crtime) = (time, time, time, time);
        let (ino, size, blocks) = (rdrivefs_sync::id::Ino::ROOT, 0, 0);
        let (nlink, uid, rdev, generation) = (1, 0, 0, 0);
        Attr {
            ino,
            kind,
            mode,
            nlink,
            uid,
            gid,
            rdev,
            size,
            blocks,
            atime,
            mtime,
            ctime,
            crtime,
            generation,
        }
    }

    #[test]
    fn a_group_that_cannot_run_a_file_keeps_its_bit_from_others_alone() {
        let left =
            |kind, mode, gid| without(&file(kind, mode, 7), Changer { uid: 1, gid, thread: 0 });
        assert_eq!(left(Kind::File, 0o6755, 7), Some(0o755));
        assert_eq!(left(Kind::File, 0o2644, 7), None);
        assert_eq!(left(Kind::File, 0o2644, 8), Some(0o644));
        assert_eq!(left(Kind::Socket, 0o4644, 8), Some(0o644));
        assert_eq!(left(Kind::File, 0o755, 8), None);
        assert_eq!(left(Kind::Directory, 0o6755, 8), None);
    }

    #[test]
    fn a_request_that_changes_nothing_ends_loans() {
        let root = Changer { uid: 0, gid: 0, thread: 0 };
        let time = TimeNs { secs: 0, nanos: 0 };
        let nothing = SetAttr { ctime: Some(time), ..SetAttr::default() };
        assert!(end_with(&nothing, root));
        for set in [
            SetAttr { mtime: Some(time), ..nothing },
            SetAttr { atime: Some(time), ..nothing },
            SetAttr { size: Some(1), ..nothing },
        ] {
            assert!(!end_with(&set, root), "{set:?}");
        }
    }
}
