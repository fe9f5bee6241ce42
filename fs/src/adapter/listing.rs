//! Directory listings, a page at a time.
//!
//! The core's cookies are persistent, so that a listing goes on where it was, whatever was made or
//! removed meanwhile, and a directory handle holds nothing. `.` and `..` come first; the offset the
//! kernel sees is the cookie moved up to make room for them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fuser::{FileType, Generation, ReplyDirectory, ReplyDirectoryPlus};
use rdrivefs_sync::Result;
use rdrivefs_sync::id::Ino;

use super::convert::{file_attr, file_type, node};
use super::core::Core;
use super::core::words::{Attr, Entry, Name};
use super::reply::TTL;

/// Offsets taken by `.` and `..`.
const DOTS: u64 = 2;
/// Entries asked of the core at a time: about what fits the 32 KiB that `getdents` asks for.
pub(super) const PAGE_ENTRIES: usize = 160;

/// A plain listing: what each name leads to, and nothing of how it is.
///
/// The offset the kernel sees counts `.` and `..`; see [`fill`].
pub(super) fn fill<C: Core>(
    core: &C,
    dir: Ino,
    offset: u64,
    reply: &mut ReplyDirectory,
) -> Result<()> {
    if offset < 1 && reply.add(node(dir), 1, FileType::Directory, ".") {
        return Ok(());
    }
    if offset < DOTS && reply.add(node(core.parent(dir)?), DOTS, FileType::Directory, "..") {
        return Ok(());
    }
    let mut after = offset.saturating_sub(DOTS);
    loop {
        let page = core.list_names(dir, after, PAGE_ENTRIES)?;
        // A page may lack entries that went meanwhile; only an empty one is the end.
        if page.is_empty() {
            return Ok(());
        }
        for Name { cookie, name, ino, kind } in &page {
            let name = OsStr::from_bytes(name);
            if reply.add(node(*ino), cookie + DOTS, file_type(*kind), name) {
                return Ok(());
            }
            after = *cookie;
        }
    }
}

/// A listing with attributes: each entry in it but the dots is a lookup that the kernel will give
/// back.
pub(super) fn fill_plus<C: Core>(
    core: &C,
    dir: Ino,
    offset: u64,
    reply: &mut ReplyDirectoryPlus,
) -> Result<()> {
    let mut add = |offset, name: &[u8], attr: &Attr| {
        let (name, generation) = (OsStr::from_bytes(name), Generation(attr.generation));
        reply.add(node(attr.ino), offset, name, &TTL, &file_attr(attr), generation)
    };
    if offset < 1 && add(1, b".", &core.attr(dir)?) {
        return Ok(());
    }
    if offset < DOTS && add(DOTS, b"..", &core.attr(core.parent(dir)?)?) {
        return Ok(());
    }
    let mut after = offset.saturating_sub(DOTS);
    loop {
        let page = core.list(dir, after, PAGE_ENTRIES)?;
        if page.is_empty() {
            return Ok(());
        }
        for Entry { cookie, name, attr } in &page {
            // What the page says may be old by now; see `State::told`. Who went is left out.
            if let Ok(attr) = core.attr_told(attr.ino)
                && add(cookie + DOTS, name, &attr)
            {
                core.forget(attr.ino, 1);
                return Ok(());
            }
            after = *cookie;
        }
    }
}
