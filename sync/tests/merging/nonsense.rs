//! Records that no honest device makes: links of directories into files, into themselves, into what
//! nobody knows; tombstones of anything. They may have any effect but to stop merging.

use rdrivefs_sync::id::{DeviceNumber, FileId, LinkId, VersionId};
use rdrivefs_sync::record::{Stamp, TimeNs};
use rdrivefs_sync::tree::{Attributes, Merging, Version};

use super::devices::{World, tell};
use super::random::Rng;
use super::*;

const SEEDS: u64 = 6;

fn record(merging: &mut Merging<'_>, rng: &mut Rng, stamp: Stamp) {
    let born = TimeNs { secs: 0, nanos: 0 };
    let mut id = |count: usize| (rng.below(count) as u64) << 8 | 2 << 48;
    let (file, parent, link, version) = (FileId(id(7) + 256), id(8), id(9) + 256, id(9) + 256);
    let parent = if parent == 2 << 48 { FileId::ROOT } else { FileId(parent) };
    let name = [b"a", b"b", b"c"][rng.below(3)];
    match rng.below(8) {
        0 | 1 => {
            let kind = [Kind::Directory, Kind::Directory, Kind::File][rng.below(3)];
            merging.file(file, kind, 0, b"", born).unwrap();
        }
        2..=4 => merging.link(LinkId(link), parent, name, file, stamp).unwrap(),
        5 => {
            let saw = Stamp { lamport: rng.below(40) as u64, ..stamp };
            merging.unlink(LinkId(link), saw, &[VersionId(version)]).unwrap();
        }
        6 => {
            let bases = if rng.below(2) == 0 { vec![] } else { vec![VersionId(version + 256)] };
            let (id, extents) = (VersionId(version), Default::default());
            let version = Version { id, bases, size: 0, mtime: born, extents };
            merging.version(file, version, stamp).unwrap();
        }
        _ => {
            let set = Attributes { mode: Some(0o600), ..Attributes::default() };
            merging.attributes(file, &set, stamp).unwrap();
            merging.xattr(file, b"user.k", Some(name), stamp).unwrap();
        }
    }
}

#[test]
fn nonsense_of_a_member_stops_nothing() {
    for seed in 0..SEEDS {
        let world = World::new(1);
        let device = &world.devices[0];
        let mut rng = Rng(seed);
        for lamport in 1..40 {
            let mut merging = device.tree.merging().unwrap();
            let stamp = Stamp { lamport, device: DeviceNumber(2 + rng.below(2) as u16) };
            for _ in 0..rng.below(8) {
                record(&mut merging, &mut rng, stamp);
            }
            merging.finish().unwrap();
            tell(&device.tree);
            // Of what stands, everything can be used.
            put(&device.tree, ROOT, &format!("own {lamport}"), b"mine");
            device.publish();
        }
    }
}
