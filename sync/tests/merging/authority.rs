//! Keys and members change while devices are apart.

use bytes::Bytes;
use rdrivefs_sync::id::{DeviceNumber, Ino};
use rdrivefs_sync::index::LAMPORT;
use rdrivefs_sync::index::devices::DeviceName;
use rdrivefs_sync::record::{Commit, Record};
use rdrivefs_sync::remote::entry::{Entry, Head, Header};
use rdrivefs_sync::remote::env::{Env, WallMs};
use rdrivefs_sync::remote::member::{Change, EpochId};

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

/// The next commit of a device, which says whatever one likes.
fn commit(of: &Device, records: Vec<Record>) -> Bytes {
    let (secrets, own) = (of.keyring.secrets(), of.log.own());
    let mut seen = of.index.heads_applied().unwrap();
    seen.retain(|head| head.log != own);
    let lamport = of.index.number(LAMPORT).unwrap().unwrap_or(0).cast_unsigned() + 1;
    let commit = Commit { seen, lamport, wall_ms: WallMs(0), records };
    let head = of.index.head(&own).unwrap().unwrap_or(Head::empty(own));
    let header = Header::after(secrets.drive(), &head, secrets.epoch().id().0);
    let body = commit.seal(secrets.epoch(), &header, &Env::real()).unwrap();
    Entry::sign(&secrets.device, header, body.into()).unwrap().encode()
}

fn epoch(device: &Device) -> EpochId {
    device.keyring.secrets().epoch().id()
}

fn entry_epoch(device: &Device) -> EpochId {
    let head = device.index.head(&device.log.own()).unwrap().unwrap();
    let (bytes, _) = device.index.entries(&head.log, head.number, 1).unwrap().remove(0);
    let entry = Entry::from_bytes(bytes).unwrap();
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

#[test]
fn an_epoch_that_opens_for_nobody_stops_nobody() {
    let world = World::new(3);
    let [a, b, c] = [&world.devices[0], &world.devices[1], &world.devices[2]];
    meet(&[a, b, c]);
    let mut record = b.keyring.next_epoch(&b.log.membership()).unwrap();
    for wrap in &mut record.wraps {
        wrap.sealed = vec![7; wrap.sealed.len()].into();
    }
    b.authority.change(|_| Ok(Change::Epoch(record))).unwrap();
    meet(&[a, b, c]);
    assert_eq!(a.log.membership().epochs().len(), 2, "it is there, and nothing is sealed in it");
    assert!(!a.authority.attend().unwrap(), "and nothing is due for it");
    let before = epoch(a);
    a.authority.revoke(&b.key()).unwrap();
    put(&a.tree, Ino::ROOT, "secret", b"not for b");
    meet(&[a, c]);
    b.hear_all(a);
    b.merge();
    assert_ne!(epoch(a), before);
    assert_eq!(epoch(c), epoch(a));
    assert_eq!(said(c, "secret").unwrap(), b"not for b");
    assert!(said(b, "secret").is_none());
}

#[test]
fn more_epochs_side_by_side_than_one_can_follow_are_joined_in_turn() {
    let world = World::new(2);
    let [a, b] = [&world.devices[0], &world.devices[1]];
    meet(&[a, b]);
    for _ in 0..20 {
        let record = b.keyring.next_epoch(&b.log.membership()).unwrap();
        b.authority.change(|_| Ok(Change::Epoch(record))).unwrap();
    }
    put(&b.tree, Ino::ROOT, "b", b"in one of them");
    meet(&[a, b]);
    meet(&[a, b]);
    assert_eq!(said(a, "b").unwrap(), b"in one of them");
    assert_eq!(a.keyring.secrets().newest_epochs().count(), 1);
    assert_eq!(epoch(a), epoch(b));
}

#[test]
fn nobody_says_what_another_device_is_called() {
    let world = World::new(2);
    let [a, b] = [&world.devices[0], &world.devices[1]];
    let named = |name: &str| DeviceName { name: name.to_owned(), stamp: None };
    a.index.set_device_name(&a.key(), &named("laptop")).unwrap();
    a.publish();
    meet(&[a, b]);
    let shown = |at: &Device| at.index.device_name(&a.key()).unwrap().unwrap().name;
    assert_eq!(shown(b), "laptop");
    let lie = Record::Device {
        device: a.key(),
        number: DeviceNumber(a.number),
        name: "stolen phone".to_owned(),
    };
    a.log.accept(commit(b, vec![lie])).unwrap();
    a.merge();
    let applied = a.index.heads_applied().unwrap();
    assert!(applied.iter().any(|head| head.log == b.log.own()), "the commit itself counts");
    assert_eq!(shown(a), "laptop");
}
