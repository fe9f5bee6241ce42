//! POSIX access control lists, as Linux keeps them in extended attributes.
//!
//! ```text
//! u32 version = 2, then for each entry: u16 tag, u16 permissions, u32 id
//! ```
//!
//! An access list and the mode say the same of owner, mask and others, so each follows the other;
//! a default list shapes what is made in a directory.

use crate::error::{Posix, Result};

/// The attribute of access lists.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute of default lists.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const ENTRY_BYTES: usize = 8;
const OWNER: u16 = 0x01;
const GROUP: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u16,
    perm: u16,
    id: u32,
}

/// The mode that an access list means, and whether the list says no more than the mode.
///
/// # Errors
/// [`Posix::Invalid`] when it is no list.
pub fn mode_of(acl: &[u8], mode: u32) -> Result<(u32, bool)> {
    let entries = parse(acl)?;
    let perm = |tag| entries.iter().find(|e| e.tag == tag).map(|e| u32::from(e.perm));
    let group = perm(MASK).or(perm(GROUP)).ok_or(Posix::Invalid)?;
    let owner = perm(OWNER).ok_or(Posix::Invalid)?;
    let other = perm(OTHER).ok_or(Posix::Invalid)?;
    let minimal = entries.iter().all(|e| matches!(e.tag, OWNER | GROUP | OTHER));
    Ok((mode & 0o7000 | owner << 6 | group << 3 | other, minimal))
}

/// An access list after a `chmod`.
///
/// # Errors
/// [`Posix::Invalid`] when it is no list.
pub fn with_mode(acl: &[u8], mode: u32) -> Result<Vec<u8>> {
    let mut entries = parse(acl)?;
    set_perms(&mut entries, |tag, _| match tag {
        OWNER => mode >> 6 & 7,
        OTHER => mode & 7,
        _ => mode >> 3 & 7,
    });
    Ok(encode(&entries))
}

/// Mode and access list of a file made with `mode` in a directory with this default list.
///
/// # Errors
/// [`Posix::Invalid`] when it is no list.
pub fn inherit(default: &[u8], mode: u32) -> Result<(u32, Option<Vec<u8>>)> {
    let mut entries = parse(default)?;
    set_perms(&mut entries, |tag, perm| match tag {
        OWNER => perm & (mode >> 6 & 7),
        OTHER => perm & mode & 7,
        _ => perm & (mode >> 3 & 7),
    });
    let access = encode(&entries);
    let (narrowed, minimal) = mode_of(&access, mode)?;
    Ok((narrowed, (!minimal).then_some(access)))
}

/// Sets the entries that the mode stands for: owner, others, and the mask or else the group.
fn set_perms(entries: &mut [Entry], perm: impl Fn(u16, u32) -> u32) {
    let has_mask = entries.iter().any(|e| e.tag == MASK);
    let group = if has_mask { MASK } else { GROUP };
    for entry in entries.iter_mut().filter(|e| [OWNER, OTHER, group].contains(&e.tag)) {
        entry.perm = perm(entry.tag, u32::from(entry.perm)) as u16;
    }
}

fn parse(acl: &[u8]) -> Result<Vec<Entry>> {
    let (version, rest) = acl.split_first_chunk::<4>().ok_or(Posix::Invalid)?;
    let (entries, tail) = rest.as_chunks::<ENTRY_BYTES>();
    if u32::from_le_bytes(*version) != VERSION || !tail.is_empty() {
        return Err(Posix::Invalid.into());
    }
    Ok(entries
        .iter()
        .map(|e| Entry {
            tag: u16::from_le_bytes([e[0], e[1]]),
            perm: u16::from_le_bytes([e[2], e[3]]),
            id: u32::from_le_bytes([e[4], e[5], e[6], e[7]]),
        })
        .collect())
}

fn encode(entries: &[Entry]) -> Vec<u8> {
    let mut out = VERSION.to_le_bytes().to_vec();
    for entry in entries {
        out.extend_from_slice(&entry.tag.to_le_bytes());
        out.extend_from_slice(&entry.perm.to_le_bytes());
        out.extend_from_slice(&entry.id.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: u32 = u32::MAX;

    fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let entries: Vec<_> = entries
            .iter()
            .map(|(tag, perm, id)| Entry { tag: *tag, perm: *perm, id: *id })
            .collect();
        encode(&entries)
    }

    #[test]
    fn a_list_and_a_mode_follow_each_other() {
        let acl =
            list(&[(1, 7, NONE), (2, 6, 1000), (4, 5, NONE), (0x10, 7, NONE), (0x20, 1, NONE)]);
        assert_eq!(mode_of(&acl, 0o2000).unwrap(), (0o2771, false));
        let narrowed = with_mode(&acl, 0o640).unwrap();
        assert_eq!(mode_of(&narrowed, 0).unwrap(), (0o640, false));
        let minimal = list(&[(1, 6, NONE), (4, 4, NONE), (0x20, 4, NONE)]);
        assert_eq!(mode_of(&minimal, 0).unwrap(), (0o644, true));
    }

    #[test]
    fn a_default_list_takes_the_place_of_the_umask() {
        let acl =
            list(&[(1, 7, NONE), (2, 7, 1000), (4, 5, NONE), (0x10, 7, NONE), (0x20, 5, NONE)]);
        let (mode, access) = inherit(&acl, 0o660).unwrap();
        assert_eq!(mode, 0o660);
        assert_eq!(mode_of(&access.unwrap(), 0).unwrap(), (0o660, false));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for bytes in [&b""[..], &[1, 0, 0, 0], &[2, 0, 0, 0, 9], &[2, 0, 0, 0]] {
            assert!(mode_of(bytes, 0).is_err(), "{bytes:?}");
        }
    }
}
