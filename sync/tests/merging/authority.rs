//! Keys and members change while devices are apart.

use rdrivefs_sync::id::Ino;
use rdrivefs_sync::remote::member::EpochId;

use crate::devices::{Device, World, put, read};

fn said(device: &Device, name: &str) -> Option<Vec<u8>> {
    let found = device.tree.lookup(Ino::ROOT, name.as_bytes()).ok()?;
    Some(read(&device.tree, found.ino))
}

/// Everybody gets everything, and does what is due.
fn meet(devices: &[&Device]) {
    for _ in 0..4 {
        for to in devices {
            devices.iter().for_each(|from| to.hear_all(from));
            to.merge();
            to.authority.attend().unwrap();
            to.publish();
        }
    }
}

fn epoch(device: &Device) -> EpochId {
    device.keyring.secrets().epoch().id()
}

fn entry_epoch(device: &Device) -> EpochId {
    let head = device.index.head(&device.log.own()).unwrap().unwrap();
    let (bytes, _) = device.index.entries(&head.log, head.number, 1).unwrap().remove(0);
    let entry = rdrivefs_sync::remote::entry::Entry::from_bytes(bytes).unwrap();
    EpochId(entry.header().epoch)
}

#[test]
fn a_new_epoch_seals_what_comes_after_it_on_every_device() {
    let world = World::new(2);
    let [a, b] = [&world.devices[0], &world.devices[1]];
    meet(&[a, b]);
    let before = epoch(b);
    a.authority.rotate().unwrap();
    put(&a.tree, Ino::ROOT, "new", b"sealed anew");
    meet(&[a, b]);
    assert_eq!(said(b, "new").unwrap(), b"sealed anew");
    assert_ne!(epoch(b), before);
    assert_eq!(epoch(a), epoch(b));
    put(&b.tree, Ino::ROOT, "answer", b"so is this");
    meet(&[a, b]);
    assert_eq!(entry_epoch(b), epoch(a));
    assert_eq!(said(a, "answer").unwrap(), b"so is this");
}

#[test]
fn epochs_begun_apart_are_followed_by_one_of_both() {
    let world = World::new(3);
    let [a, b, c] = [&world.devices[0], &world.devices[1], &world.devices[2]];
    meet(&[a, b, c]);
    for (device, name) in [(a, "a"), (b, "b"), (c, "c")] {
        device.authority.rotate().unwrap();
        put(&device.tree, Ino::ROOT, name, name.as_bytes());
        device.publish();
    }
    meet(&[a, b, c]);
    for device in [a, b, c] {
        for name in ["a", "b", "c"] {
            assert_eq!(said(device, name).unwrap(), name.as_bytes());
        }
        assert_eq!(epoch(device), epoch(a));
        let membership = device.log.membership();
        assert_eq!(membership.newest_epochs().count(), 1);
        assert_eq!(membership.newest_epochs().next().unwrap().parents.len(), 3);
    }
}

#[test]
fn a_revoked_device_opens_nothing_new_and_adds_nothing_more() {
    let world = World::new(3);
    let [a, b, c] = [&world.devices[0], &world.devices[1], &world.devices[2]];
    put(&b.tree, Ino::ROOT, "before", b"of b");
    meet(&[a, b, c]);
    let old = epoch(b);
    a.authority.revoke(&b.keyring.secrets().device.public()).unwrap();
    put(&b.tree, Ino::ROOT, "late", b"too late");
    b.publish();
    put(&a.tree, Ino::ROOT, "secret", b"not for b");
    meet(&[a, c]);
    c.hear_all(b);
    c.merge();
    b.hear_all(a);
    b.merge();
    assert_eq!(said(c, "before").unwrap(), b"of b");
    assert_eq!(said(c, "secret").unwrap(), b"not for b");
    assert!(said(c, "late").is_none(), "what it made after it was revoked");
    assert_ne!(epoch(c), old);
    assert_eq!(epoch(c), epoch(a));
    assert_eq!(epoch(b), old);
    assert!(said(b, "secret").is_none(), "what was sealed without it");
    assert!(b.authority.rotate().is_err());
}

#[test]
fn what_another_had_merged_of_a_revoked_device_counts_everywhere() {
    let world = World::new(3);
    let [a, b, c] = [&world.devices[0], &world.devices[1], &world.devices[2]];
    meet(&[a, b, c]);
    put(&b.tree, Ino::ROOT, "b", b"heard by c alone");
    b.publish();
    c.hear_all(b);
    c.merge();
    put(&c.tree, Ino::ROOT, "c", b"made in sight of it");
    c.publish();
    a.authority.revoke(&b.keyring.secrets().device.public()).unwrap();
    put(&b.tree, Ino::ROOT, "later", b"heard by nobody");
    b.publish();
    meet(&[a, c]);
    a.hear_all(b);
    a.merge();
    for device in [a, c] {
        assert_eq!(said(device, "b").unwrap(), b"heard by c alone");
        assert_eq!(said(device, "c").unwrap(), b"made in sight of it");
        assert!(said(device, "later").is_none());
    }
}
