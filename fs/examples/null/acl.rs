//! Access lists as `system.posix_acl_*` holds them: what they make of a mode, and a mode of them.

use rdrivefs_sync::Result;
use rdrivefs_sync::error::Posix;

pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";
const VERSION: [u8; 4] = 2u32.to_le_bytes();
const OWNER: u16 = 1;
const GROUP: u16 = 4;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// Entries of (tag, permissions, id).
pub(crate) struct Acl(Vec<(u16, u16, [u8; 4])>);

impl Acl {
    pub(crate) fn parse(value: &[u8]) -> Result<Self> {
        let entries = value.strip_prefix(&VERSION).ok_or(Posix::Invalid)?;
        let (entries, []) = entries.as_chunks::<8>() else { return Err(Posix::Invalid.into()) };
        let entry = |e: &[u8; 8]| {
            let number = |at: usize| u16::from_le_bytes([e[at], e[at + 1]]);
            (number(0), number(2), [e[4], e[5], e[6], e[7]])
        };
        Ok(Self(entries.iter().map(entry).collect()))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let entry = |(tag, perm, id): &(u16, u16, [u8; 4])| {
            [&tag.to_le_bytes()[..], &perm.to_le_bytes(), id].concat()
        };
        VERSION.into_iter().chain(self.0.iter().flat_map(entry)).collect()
    }

    /// Whether it says no more than a mode does.
    pub(crate) fn is_mode(&self) -> bool {
        self.0.len() <= 3
    }

    fn group(&self) -> u16 {
        if self.0.iter().any(|entry| entry.0 == MASK) { MASK } else { GROUP }
    }

    /// The nine permission bits it stands for.
    pub(crate) fn mode(&self) -> u32 {
        let group = self.group();
        let part = |tag, shift: u32| {
            let found = self.0.iter().find(|entry| entry.0 == tag);
            found.map_or(0, |entry| u32::from(entry.1) << shift)
        };
        part(OWNER, 6) | part(group, 3) | part(OTHER, 0)
    }

    /// Brings its permissions to those of `mode`, or only takes away what `mode` lacks.
    pub(crate) fn set_mode(&mut self, mode: u32, mask: bool) {
        let group = self.group();
        for (tag, perm, _) in &mut self.0 {
            let shift = match *tag {
                OWNER => 6,
                OTHER => 0,
                tag if tag == group => 3,
                _ => continue,
            };
            let bits = (mode >> shift & 7) as u16;
            *perm = if mask { *perm & bits } else { bits };
        }
    }
}
