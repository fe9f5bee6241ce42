//! Names: who of those who want one has it, and what the others are called.
//!
//! The latest link has it. The others stand beside it under names that say who made them and when.
//! Only the very same bytes are one name: what differs by case or by Unicode form stands apart.

use std::collections::BTreeMap;

use crate::id::{DERIVED, DeviceNumber, FileId, LinkId, VersionId};
use crate::record::{Kind, NAME_BYTES_MAX, Stamp, TimeNs};
use crate::view::words::Named;

/// Who wants a name.
pub(super) struct Claim {
    pub(super) stamp: Stamp,
    pub(super) link: LinkId,
    pub(super) file: FileId,
    pub(super) kind: Kind,
    /// The moment its other name speaks of: a file was made, the version of a copy written.
    pub(super) at: TimeNs,
    pub(super) named: Named,
}

impl Claim {
    fn is_copy(&self) -> bool {
        matches!(self.named, Named::Copy { .. })
    }

    /// The order in which a name is won, the winner last; copies never win.
    fn weight(&self) -> (bool, Stamp, LinkId) {
        (!self.is_copy(), self.stamp, self.link)
    }
}

/// Gives out the names of one directory: who has which, and whether it is the one it wanted.
pub(super) fn arrange(claims: BTreeMap<Vec<u8>, Vec<Claim>>) -> BTreeMap<Vec<u8>, (Claim, bool)> {
    let mut names = BTreeMap::new();
    let mut left = Vec::new();
    for (name, mut group) in claims {
        group.sort_by_key(Claim::weight);
        if let Some(winner) = group.pop_if(|last| !last.is_copy()) {
            names.insert(name.clone(), (winner, true));
        }
        left.push((name, group));
    }
    // All winners have theirs before anybody looks for another.
    for (name, group) in left {
        for claim in group {
            let beside = free(&name, &claim, |name| names.contains_key(name));
            names.insert(beside, (claim, false));
        }
    }
    names
}

fn free(name: &[u8], claim: &Claim, is_taken: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    free_name(name, claim.stamp.device, claim.at, claim.link, |name| Ok::<_, ()>(is_taken(name)))
        .expect("it asks nobody who could fail")
}

/// The first name beside `name` that is free.
pub(crate) fn free_name<E>(
    name: &[u8],
    device: DeviceNumber,
    at: TimeNs,
    link: LinkId,
    is_taken: impl Fn(&[u8]) -> Result<bool, E>,
) -> Result<Vec<u8>, E> {
    let mut beside = conflict_name(name, device, at);
    if is_taken(&beside)? {
        beside = conflict_name_of(name, device, at, link.0);
    }
    let (plain, mut count) = (beside.clone(), 1);
    while is_taken(&beside)? {
        count += 1;
        beside = suffixed(&plain, &count.to_string());
    }
    Ok(beside)
}

/// The file that a losing version becomes.
pub(crate) fn copy_file(version: VersionId) -> FileId {
    FileId(derive("rdrivefs v1 conflict copy file", version))
}

/// The link that leads to it.
pub(crate) fn copy_link(version: VersionId) -> LinkId {
    LinkId(derive("rdrivefs v1 conflict copy link", version))
}

fn derive(what: &str, version: VersionId) -> u64 {
    let hash = blake3::derive_key(what, &version.0.to_le_bytes());
    let count = u64::from_le_bytes(hash[..8].try_into().expect("8 bytes")) >> 24;
    crate::id::draw(DERIVED, count)
}

/// The name of what lost its name: who made it, and on which day.
pub(crate) fn conflict_name(name: &[u8], device: DeviceNumber, at: TimeNs) -> Vec<u8> {
    suffixed(name, &format!("conflict, {}, {}", device.0, day(at)))
}

/// The same for several of one day.
pub(crate) fn conflict_name_of(name: &[u8], device: DeviceNumber, at: TimeNs, id: u64) -> Vec<u8> {
    suffixed(name, &format!("conflict, {}, {}, {id:x}", device.0, day(at)))
}

/// The name of which this may be what a loser of it is called.
pub(crate) fn plain_name(name: &[u8]) -> Option<Vec<u8>> {
    let remark = b" (conflict, ";
    let start = name.windows(remark.len()).rposition(|part| part == remark)?;
    let end = name.iter().rposition(|b| *b == b')').filter(|end| *end > start)?;
    Some([&name[..start], &name[end + 1..]].concat()).filter(|name| !name.is_empty())
}

/// What a loser is called by whom wants it to stay: its name without the word.
pub(crate) fn kept_name(name: &[u8]) -> Option<Vec<u8>> {
    let remark = b" (conflict, ";
    let start = name.windows(remark.len()).rposition(|part| part == remark)?;
    Some([&name[..start], b" (", &name[start + remark.len()..]].concat())
}

/// The name of what cannot be where a record puts it.
pub(crate) fn moved_name(name: &[u8], device: DeviceNumber) -> Vec<u8> {
    suffixed(name, &format!("moved, {}", device.0))
}

/// A name with a remark before its extension, cut to what a name may have.
pub(crate) fn suffixed(name: &[u8], remark: &str) -> Vec<u8> {
    let remark = format!(" ({remark})").into_bytes();
    let dot = name.iter().rposition(|b| *b == b'.').filter(|at| *at > 0).unwrap_or(name.len());
    let (stem, extension) = match name.split_at(dot) {
        (_, long) if long.len() > EXTENSION_BYTES_MAX => (name, &b""[..]),
        parts => parts,
    };
    let room = NAME_BYTES_MAX.saturating_sub(remark.len() + extension.len());
    let mut end = stem.len().min(room);
    // A character is not cut in two: the name would be none for who wants UTF-8.
    while end < stem.len() && end > 0 && stem[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    [&stem[..end], &remark, extension].concat()
}

/// What is taken for an extension: longer ones are part of the name.
const EXTENSION_BYTES_MAX: usize = 32;

/// The day of a moment, in UTC, as `2026-11-25`.
fn day(at: TimeNs) -> String {
    // Howard Hinnant's civil_from_days, in years that begin in March.
    let days = at.secs.div_euclid(86_400) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar() {
        for (secs, expected) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (951_782_400, "2000-02-29"),
            (1_764_115_199, "2025-11-25"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(day(TimeNs { secs, nanos: 0 }), expected);
        }
    }

    #[test]
    fn a_name_keeps_its_extension_and_its_bounds() {
        let device = DeviceNumber(2);
        let at = TimeNs { secs: 0, nanos: 0 };
        assert_eq!(conflict_name(b"a.txt", device, at), b"a (conflict, 2, 1970-01-01).txt");
        assert_eq!(conflict_name(b".rc", device, at), b".rc (conflict, 2, 1970-01-01)");
        let long = "ä".repeat(127);
        let name = conflict_name(long.as_bytes(), device, at);
        assert!(name.len() <= 255 && std::str::from_utf8(&name).is_ok());
        assert!(conflict_name(&[b'.'; 255], device, at).len() <= 255);
    }

    #[test]
    fn derived_ids_are_positive_and_no_devices() {
        for id in [copy_file(VersionId(7)).0, copy_link(VersionId(7)).0] {
            assert!(id.cast_signed() > 0 && id >> 48 == 0x7fff && id & 0xff == 0);
        }
        assert_ne!(copy_file(VersionId(7)).0, copy_link(VersionId(7)).0);
    }
}
