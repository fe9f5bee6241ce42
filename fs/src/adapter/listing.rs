//! Directory listings, a page at a time.
//!
//! The core's cookies are persistent, so that a listing goes on where it was, whatever was made or
//! removed meanwhile, and a directory handle holds nothing. `.` and `..` come first; the offset the
//! kernel sees is the cookie moved up to make room for them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use fuser::{Generation, ReplyDirectory, ReplyDirectoryPlus};
use rdrivefs_sync::Result;
use rdrivefs_sync::id::Ino;

use super::convert::{file_attr, file_type, node};
use super::core::Core;
use super::core::words::{Attr, Entry};

/// Offsets taken by `.` and `..`.
const DOTS: u64 = 2;
/// Entries asked of the core at a time: about what fits the 32 KiB that `getdents` asks for.
const PAGE_ENTRIES: usize = 160;

/// A reply that takes entries until it is full.
pub(super) trait Listing {
    /// Whether the entry still fitted. `dot` marks `.` and `..`, which the kernel does not count.
    fn add(&mut self, offset: u64, name: &[u8], attr: &Attr, dot: bool) -> bool;
}

impl Listing for ReplyDirectory {
    fn add(&mut self, offset: u64, name: &[u8], attr: &Attr, _dot: bool) -> bool {
        let name = OsStr::from_bytes(name);
        !Self::add(self, node(attr.ino), offset, file_type(attr.kind), name)
    }
}

/// A listing with attributes: each entry in it is a lookup that the kernel will give back.
pub(super) struct Plus<'a, C> {
    pub(super) reply: ReplyDirectoryPlus,
    pub(super) core: &'a C,
    pub(super) ttl: &'a Duration,
}

impl<C: Core> Listing for Plus<'_, C> {
    fn add(&mut self, offset: u64, name: &[u8], attr: &Attr, dot: bool) -> bool {
        // What the page says may be old by now; see `State::told`. Who went meanwhile is left out.
        let told = if dot { Ok(*attr) } else { self.core.attr_told(attr.ino) };
        let Ok(attr) = told else { return true };
        let (name, generation) = (OsStr::from_bytes(name), Generation(attr.generation));
        let stat = file_attr(&attr);
        let full = self.reply.add(node(attr.ino), offset, name, self.ttl, &stat, generation);
        if full && !dot {
            self.core.forget(attr.ino, 1);
        }
        !full
    }
}

/// Fills `listing` with what follows `offset`.
pub(super) fn fill<C: Core>(
    core: &C,
    dir: Ino,
    offset: u64,
    listing: &mut impl Listing,
) -> Result<()> {
    if offset < 1 && !listing.add(1, b".", &core.attr(dir)?, true) {
        return Ok(());
    }
    if offset < DOTS && !listing.add(DOTS, b"..", &core.attr(core.parent(dir)?)?, true) {
        return Ok(());
    }
    let mut after = offset.saturating_sub(DOTS);
    loop {
        let page = core.list(dir, after, PAGE_ENTRIES)?;
        // A page may lack entries that went meanwhile; only an empty one is the end.
        if page.is_empty() {
            return Ok(());
        }
        for Entry { cookie, name, attr } in &page {
            if !listing.add(cookie + DOTS, name, attr, false) {
                return Ok(());
            }
            after = *cookie;
        }
    }
}
