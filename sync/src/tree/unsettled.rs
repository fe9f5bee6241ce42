//! Links that do not stand plainly where their records put them.
//!
//! Such a link is *displaced* (its name was won by another, or its directory cannot hold it), it
//! leads to a *copy* (the losing side of a concurrent edit, which no record tells of), or it is
//! *kept* against a tombstone. Every device finds the same, so nobody publishes it, until somebody
//! touches it: then it is told as what it is by then.

use minicbor::{Decode, Encode};

use crate::error::{Error, Result};
use crate::id::{DeviceNumber, FileId, LinkId, VersionId};
use crate::index::Index;
use crate::record::TimeNs;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
pub(super) struct Place {
    /// The directory's file.
    #[n(0)]
    pub(super) parent: u64,
    /// The name.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) name: Vec<u8>,
}

/// How a link is unsettled.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct Unsettled {
    /// The place it would have if it were won.
    #[n(0)]
    pub(super) place: Place,
    /// Where its record puts it, if it cannot be there.
    #[n(1)]
    pub(super) moved: Option<Place>,
    /// There is a tombstone that does not count.
    #[n(2)]
    pub(super) kept: bool,
    /// The file and the version that it leads to a copy of.
    #[n(3)]
    pub(super) copy: Option<CopyOf>,
}

/// What a copy is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub(super) struct CopyOf {
    /// The file.
    #[n(0)]
    pub(super) file: u64,
    /// Its version.
    #[n(1)]
    pub(super) version: u64,
}

impl Unsettled {
    pub(super) fn of(index: &Index, link: LinkId) -> Result<Option<Self>> {
        let Some(row) = index.unsettled(link)? else { return Ok(None) };
        let row = minicbor::decode(&row)
            .map_err(|e| Error::corrupt("a row of the index table unsettled", e))?;
        Ok(Some(row))
    }

    pub(super) fn keep(&self, index: &Index, link: LinkId) -> Result<()> {
        let row = minicbor::to_vec(self).expect("memory takes every write");
        index.set_unsettled(link, (FileId(self.place.parent), &self.place.name), &row)
    }
}

/// Device number of no device: ids below it are derived, the same on every device.
const DERIVED: DeviceNumber = DeviceNumber(0x7fff);

/// The file that a losing version becomes.
pub(super) fn copy_file(version: VersionId) -> FileId {
    FileId(derive("rdrivefs v1 conflict copy file", version))
}

/// The link that leads to it.
pub(super) fn copy_link(version: VersionId) -> LinkId {
    LinkId(derive("rdrivefs v1 conflict copy link", version))
}

fn derive(what: &str, version: VersionId) -> u64 {
    let hash = blake3::derive_key(what, &version.0.to_le_bytes());
    let count = u64::from_le_bytes(hash[..8].try_into().expect("8 bytes")) >> 24;
    crate::id::draw(DERIVED, count)
}

/// The name of what lost its name: who made it, and on which day.
pub(super) fn conflict_name(name: &[u8], device: DeviceNumber, at: TimeNs) -> Vec<u8> {
    suffixed(name, &format!("conflict, {}, {}", device.0, day(at)))
}

/// The same for several of one day.
pub(super) fn conflict_name_of(name: &[u8], device: DeviceNumber, at: TimeNs, id: u64) -> Vec<u8> {
    suffixed(name, &format!("conflict, {}, {}, {id:x}", device.0, day(at)))
}

/// A name with a remark before its extension, cut to what a name may have.
pub(super) fn suffixed(name: &[u8], remark: &str) -> Vec<u8> {
    let remark = format!(" ({remark})").into_bytes();
    let dot = name.iter().rposition(|b| *b == b'.').filter(|at| *at > 0).unwrap_or(name.len());
    let (stem, extension) = match name.split_at(dot) {
        (_, long) if long.len() > EXTENSION_BYTES_MAX => (name, &b""[..]),
        parts => parts,
    };
    let room = 255_usize.saturating_sub(remark.len() + extension.len());
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
