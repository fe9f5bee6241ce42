use proptest::prelude::*;

use super::*;

/// Devices and the entries they made.
struct World {
    root: SecretKey,
    entries: Vec<Entry>,
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn id(seed: u8) -> PublicKey {
    key(seed).public()
}

fn add(seed: u8, number: u16, admin: bool) -> Change {
    let wrap_key = Bytes::from(vec![seed; WRAP_KEY_BYTES]);
    Change::Add { device: id(seed), number, admin, wrap_key }
}

fn revoke(seed: u8) -> Change {
    Change::Revoke {
        device: id(seed),
        last: vec![Last { instance: 0, number: 7, hash: [seed; 32] }],
    }
}

fn epoch(name: u8, parents: &[u8], to: &[u8]) -> Change {
    let mut wraps: Vec<Wrap> =
        to.iter().map(|seed| Wrap { to: id(*seed), sealed: vec![*seed; 9].into() }).collect();
    wraps.push(Wrap { to: RECOVERY, sealed: Bytes::from_static(b"for the phrase") });
    wraps.sort_by_key(|wrap| wrap.to);
    let mut parents: Vec<EpochId> = parents.iter().map(|name| EpochId([*name; 32])).collect();
    parents.sort_unstable();
    Change::Epoch(Epoch { id: EpochId([name; 32]), parents, wraps })
}

impl World {
    fn new() -> Self {
        Self { root: key(0), entries: Vec::new() }
    }

    fn drive(&self) -> DriveId {
        DriveId::of(&self.root.public())
    }

    fn of(&self, entries: &[Entry]) -> Membership {
        Membership::replay(self.drive(), &self.root.public(), entries).unwrap()
    }

    fn now(&self) -> Membership {
        self.of(&self.entries)
    }

    /// `seed` makes a change having seen all there is; 0 is the root.
    fn by(&mut self, seed: u8, change: Change) -> Entry {
        let entry = self.now().sign(&key(seed), 0, change).unwrap();
        self.entries.push(entry.clone());
        entry
    }

    /// `seed` makes a change having seen only `seen`.
    fn by_seeing(&mut self, seen: &[Entry], seed: u8, change: Change) -> Entry {
        let entry = self.of(seen).sign(&key(seed), 0, change).unwrap();
        self.entries.push(entry.clone());
        entry
    }

    /// `seed` signs a body of any kind as the first entry of a log of its own.
    fn raw(&mut self, seed: u8, instance: u32, body: Vec<u8>) -> Entry {
        let log = LogId { kind: LogKind::Membership, author: id(seed), instance };
        let header = Header::after(self.drive(), &Head::empty(log), [0; 32]);
        let entry = Entry::sign(&key(seed), header, body.into()).unwrap();
        self.entries.push(entry.clone());
        entry
    }

    fn why_void(&self, entry: &Entry) -> Option<&'static str> {
        self.now().voids().iter().find(|void| void.hash == entry.hash()).map(|void| void.why)
    }
}

/// The root added 1 and 2 as admins and 3 as a plain device.
fn family() -> World {
    let mut world = World::new();
    world.by(0, add(1, 1, true));
    world.by(0, add(2, 2, true));
    world.by(0, add(3, 3, false));
    world
}

#[test]
fn a_drive_begins_with_its_root() {
    let world = World::new();
    let none = world.now();
    assert!(none.members().is_empty() && none.epochs().is_empty() && none.voids().is_empty());
    assert!(none.is_admin(&id(0)) && !none.is_active(&id(0)));
    assert_eq!(none.next_number(), Some(1));
}

#[test]
fn devices_join_and_leave() {
    let mut world = family();
    world.by(1, add(4, 4, false));
    world.by(4, add(5, 5, false));
    world.by(2, revoke(3));
    let now = world.now();
    let numbers: Vec<u16> = now.members().iter().map(|member| member.number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert!(now.is_active(&id(4)) && !now.is_active(&id(3)) && now.device(&id(5)).is_none());
    assert!(now.is_admin(&id(1)) && !now.is_admin(&id(4)));
    let last = vec![Last { instance: 0, number: 7, hash: [3; 32] }];
    assert_eq!(now.device(&id(3)).unwrap().revoked, Some(Revoked { last }));
    assert_eq!(now.next_number(), Some(5), "what a stranger gave away is free");
}

#[test]
fn a_device_goes_on_with_a_new_number_and_other_rights() {
    let mut world = family();
    world.by(0, add(1, 9, false));
    let now = world.now();
    let member = now.device(&id(1)).unwrap();
    assert_eq!((member.number, member.admin), (9, false));
    let late = world.by(1, add(4, 4, false));
    assert_eq!(world.why_void(&late), Some("its author was no admin"));
    let stolen = world.by(2, add(5, 1, false));
    assert_eq!(world.why_void(&stolen), Some("another device has this number"));
}

#[test]
fn epochs_follow_one_another() {
    let mut world = family();
    world.by(0, epoch(1, &[], &[1, 2, 3]));
    let seen = world.entries.clone();
    world.by_seeing(&seen, 1, epoch(2, &[1], &[1, 2, 3]));
    world.by_seeing(&seen, 2, epoch(3, &[1], &[1, 2, 3]));
    world.by(0, revoke(3));
    world.by(1, epoch(4, &[2, 3], &[1, 2]));
    let now = world.now();
    let names: Vec<u8> = now.epochs().iter().map(|epoch| epoch.id.0[0]).collect();
    assert_eq!((names[0], names[3]), (1, 4));
    assert_eq!(now.voids(), []);
}

#[test]
fn who_joins_while_an_epoch_begins_is_known_to_be_shut_out() {
    let mut world = family();
    world.by(0, epoch(1, &[], &[1, 2, 3]));
    world.by(1, add(4, 4, false));
    assert!(
        !world.now().is_shut_out(&id(4), &EpochId([1; 32])),
        "who added it had the key to give"
    );
    let seen = world.entries.clone();
    world.by_seeing(&seen, 2, epoch(2, &[1], &[1, 2, 3, 4]));
    world.by_seeing(&seen, 1, add(5, 5, false));
    let now = world.now();
    assert!(
        now.is_shut_out(&id(5), &EpochId([2; 32])) && !now.is_shut_out(&id(4), &EpochId([2; 32]))
    );
    world.by(0, epoch(3, &[2], &[1, 2, 3, 4, 5]));
    let now = world.now();
    assert!(!now.is_shut_out(&id(5), &EpochId([3; 32])));
    assert_eq!(now.newest_epochs().map(|epoch| epoch.id.0[0]).collect::<Vec<_>>(), [3]);
}

#[test]
fn whoever_revokes_a_device_again_had_merged_more_of_it() {
    let mut world = family();
    let last = |instance, number| Last { instance, number, hash: [3; 32] };
    let revoke = |last| Change::Revoke { device: id(3), last };
    let seen = world.entries.clone();
    world.by_seeing(&seen, 1, revoke(vec![last(0, 7), last(1, 2)]));
    world.by_seeing(&seen, 2, revoke(vec![last(0, 9), last(2, 1)]));
    world.by(1, revoke(vec![last(0, 8)]));
    let now = world.now();
    let accepted = &now.device(&id(3)).unwrap().revoked.as_ref().unwrap().last;
    assert_eq!(*accepted, [last(0, 9), last(1, 2), last(2, 1)]);
}

#[test]
fn what_is_concurrent_with_its_signers_revocation_is_void() {
    let mut world = family();
    let before = world.by(1, add(4, 4, true));
    let seen = world.entries.clone();
    world.by(0, revoke(1));
    let concurrent = world.by_seeing(&seen, 1, add(5, 5, false));
    let after = world.by(1, add(6, 6, false));
    let vengeance = world.by_seeing(&seen, 1, revoke(2));
    assert_eq!(world.why_void(&before), None, "the root had seen it");
    for void in [concurrent, after, vengeance] {
        assert_eq!(world.why_void(&void), Some("its author was revoked"));
    }
    assert!(world.now().is_active(&id(2)) && world.now().is_active(&id(4)));
}

#[test]
fn of_two_who_revoke_each_other_the_senior_stays() {
    let mut world = family();
    world.by(2, add(4, 0, true));
    let seen = world.entries.clone();
    world.by_seeing(&seen, 4, revoke(2));
    world.by_seeing(&seen, 2, revoke(4));
    let now = world.now();
    assert!(now.is_active(&id(2)) && !now.is_active(&id(4)), "low numbers do not make seniors");
}

#[test]
fn the_root_outranks_all_even_when_a_junior_spoke_before_it() {
    let mut world = family();
    world.by(1, add(4, 4, true));
    let seen = world.entries.clone();
    // 4 revokes 3; the root sees it and revokes 1; 1 pretends to have revoked 4 before all that.
    world.by_seeing(&seen, 4, revoke(3));
    world.by(0, revoke(1));
    let forged = world.by_seeing(&seen, 1, revoke(4));
    assert_eq!(world.why_void(&forged), Some("its author was revoked"));
    let now = world.now();
    assert!(now.is_active(&id(4)) && !now.is_active(&id(3)) && !now.is_active(&id(1)));
}

#[test]
fn who_had_seen_their_revocation_has_no_say_however_senior() {
    let mut world = family();
    world.by(1, add(4, 4, true));
    world.by(4, revoke(1));
    let late = world.by(1, revoke(4));
    assert_eq!(world.why_void(&late), Some("its author was revoked"));
    assert!(world.now().is_active(&id(4)));
}

#[test]
fn a_fork_is_weighed_like_any_two_branches() {
    let mut world = family();
    let seen = world.entries.clone();
    let one = world.by_seeing(&seen, 1, add(4, 4, false));
    let two = world.by_seeing(&seen, 1, add(5, 5, false));
    assert_eq!((one.number, one.previous), (two.number, two.previous));
    let now = world.now();
    assert!(now.is_active(&id(4)) && now.is_active(&id(5)));
    let heads = now.heads().iter().filter(|head| head.log.author == id(1)).count();
    assert_eq!(heads, 1);
}

#[test]
fn strangers_and_gaps_stop_nobody() {
    let mut world = family();
    let good = world.now();
    let own = add(8, 8, true);
    let stranger = world.raw(7, 0, cbor::encode(&Deed { seen: vec![], change: own }));
    assert_eq!(world.why_void(&stranger), Some("its author never was an admin"));
    let gap = Head { log: good.heads()[0].log, number: 99, hash: [9; 32] };
    let deed = Deed { seen: vec![gap], change: add(9, 9, false) };
    let hanging = world.raw(2, 0, cbor::encode(&deed));
    assert_eq!(world.why_void(&hanging), Some("an entry it follows is missing"));
    let now = world.now();
    assert_eq!((now.members(), now.heads()), (good.members(), good.heads()));
    let next = world.by(1, add(4, 4, false));
    assert_eq!(world.why_void(&next), None, "an honest device did not build on them");
}

#[test]
fn a_chain_without_its_beginning_says_nothing() {
    let world = family();
    let now = world.of(&world.entries[1..]);
    assert!(now.members().is_empty());
    assert_eq!(now.voids().len(), 2);
}

#[test]
fn refused_entries_of_other_drives_and_logs() {
    let world = family();
    let replay = |root: u8, drive| Membership::replay(drive, &id(root), &world.entries);
    assert!(matches!(replay(1, world.drive()), Err(Error::Forged(_))), "another root");
    assert!(
        matches!(replay(1, DriveId::of(&id(1))), Err(Error::Malformed { .. })),
        "another drive"
    );
    let log = LogId { kind: LogKind::Commits, author: id(0), instance: 0 };
    let header = Header::after(world.drive(), &Head::empty(log), [0; 32]);
    let commit = Entry::sign(&key(0), header, Bytes::new()).unwrap();
    let mixed = Membership::replay(world.drive(), &id(0), &[commit]);
    assert!(matches!(mixed, Err(Error::Malformed { .. })), "a commit");
}

#[test]
fn refused_numbers_beyond_the_bound() {
    let mut world = World::new();
    let body = cbor::encode(&Deed { seen: vec![], change: add(1, 1, false) });
    for instance in 0..=u32::try_from(graph::ENTRIES_MAX).unwrap() {
        world.raw(0, instance, body.clone());
    }
    let all = Membership::replay(world.drive(), &id(0), &world.entries);
    assert!(matches!(all, Err(Error::Malformed { .. })));
    world.of(&world.entries[1..]);
}

/// Each of these changes nothing, for the reason beside it.
#[test]
fn refused_changes_are_void_with_their_reason() {
    let long_key = Change::Add {
        device: id(4),
        number: 4,
        admin: false,
        wrap_key: vec![0; WRAP_KEY_BYTES + 1].into(),
    };
    let with = |device: PublicKey| match add(4, 4, false) {
        Change::Add { number, admin, wrap_key, .. } => {
            Change::Add { device, number, admin, wrap_key }
        }
        _ => unreachable!(),
    };
    let mut small_order = [0; 32];
    small_order[0] = 1;
    let edit = |change: Change, edit: fn(&mut Epoch)| match change {
        Change::Epoch(mut epoch) => {
            edit(&mut epoch);
            Change::Epoch(epoch)
        }
        other => other,
    };
    let second = || epoch(2, &[1], &[1, 2, 3]);
    let cases: Vec<(u8, Change, &str)> = vec![
        (3, add(4, 4, false), "its author was no admin"),
        (3, revoke(1), "its author was no admin"),
        (1, add(4, 3, false), "another device has this number"),
        (1, long_key, "its wrapping key has the wrong length"),
        (1, with(id(0)), "no device can have this key"),
        (1, with(RECOVERY), "no device can have this key"),
        (1, with(PublicKey(small_order)), "no device can have this key"),
        (1, with(PublicKey([0xff; 32])), "no device can have this key"),
        (1, revoke(4), "it revokes no device of the drive"),
        (1, revoke(0), "it revokes no device of the drive"),
        (1, epoch(1, &[1], &[1, 2, 3]), "another epoch has this id"),
        (1, epoch(2, &[], &[1, 2, 3]), "it does not follow the epochs before it"),
        (1, epoch(2, &[3], &[1, 2, 3]), "it does not follow the epochs before it"),
        (1, epoch(2, &[1, 3], &[1, 2, 3]), "it does not follow the epochs before it"),
        (1, epoch(2, &[1, 1], &[1, 2, 3]), "its parents are out of order"),
        (1, epoch(2, &[1], &[1, 2]), "it shuts someone out"),
        (1, epoch(2, &[1], &[1, 2, 3, 4]), "it is wrapped to a stranger"),
        (1, edit(second(), |e| e.wraps.reverse()), "its wraps are out of order"),
        (1, epoch(2, &[1], &[1, 2, 3, 3]), "its wraps are out of order"),
        (1, edit(second(), |e| drop(e.wraps.remove(0))), "it shuts someone out"),
        (
            1,
            edit(second(), |e| e.wraps[1].sealed = vec![0; WRAP_BYTES_MAX + 1].into()),
            "a wrap has an impossible length",
        ),
        (1, edit(second(), |e| e.wraps[1].sealed.clear()), "a wrap has an impossible length"),
    ];
    for (author, change, why) in cases {
        let mut world = family();
        world.by(0, epoch(1, &[], &[1, 2, 3]));
        let before = world.now();
        let said = format!("{author} {change:?}");
        let entry = world.by(author, change);
        let why = if author == 3 { "its author never was an admin" } else { why };
        assert_eq!(world.why_void(&entry), Some(why), "{said}");
        let now = world.now();
        assert_eq!((now.members(), now.epochs()), (before.members(), before.epochs()));
    }
}

#[test]
fn a_revoked_device_does_not_come_back() {
    let mut world = family();
    world.by(0, revoke(3));
    let again = world.by(0, add(3, 9, false));
    assert_eq!(world.why_void(&again), Some("a revoked device does not come back"));
    let wrapped = world.by(0, epoch(1, &[], &[1, 2, 3]));
    assert_eq!(world.why_void(&wrapped), Some("it is wrapped to a stranger"));
}

#[test]
fn refused_bodies_are_void() {
    let world = family();
    let heads = world.now().heads().to_vec();
    let own = Head { log: LogId { author: id(1), instance: 5, ..heads[0].log }, ..heads[0] };
    let commits = Head { log: LogId { kind: LogKind::Commits, ..heads[0].log }, ..heads[0] };
    let zero = Head { number: 0, ..heads[0] };
    let deed = |seen: Vec<Head>| cbor::encode(&Deed { seen, change: add(4, 4, false) });
    let good = deed(heads.clone());
    let mut unknown = cbor::encode(&Deed { seen: vec![], change: revoke(3) });
    assert_eq!(unknown[3], 1);
    unknown[3] = 9; // the number of the variant
    let cases: [(&str, Vec<u8>); 10] = [
        ("nothing", vec![]),
        ("one byte", vec![0xff]),
        ("truncated", good[..good.len() - 1].to_vec()),
        ("trailing byte", [&good[..], &[0]].concat()),
        ("indefinite length", [&[0x9f][..], &good[1..], &[0xff]].concat()),
        ("unknown change", unknown),
        ("seen twice", deed(vec![heads[0], heads[0]])),
        ("own log seen", deed(vec![own])),
        ("commit log seen", deed(vec![commits])),
        ("number zero seen", deed(vec![zero])),
    ];
    for (name, body) in cases {
        let mut world = family();
        let entry = world.raw(1, 5, body);
        assert!(world.why_void(&entry).is_some(), "{name}");
        assert!(world.now().device(&id(4)).is_none(), "{name}");
    }
    let mut world = family();
    let entry = world.raw(1, 5, good);
    assert_eq!(world.why_void(&entry), None, "the same without a fault holds");
}

#[derive(Debug, Clone)]
enum Act {
    Add { by: u8, device: u8, admin: bool },
    Revoke { by: u8, device: u8 },
    Epoch { by: u8, name: u8 },
}

fn acts() -> impl Strategy<Value = Vec<(Act, Vec<bool>)>> {
    let act = prop_oneof![
        4 => (0..6u8, 1..6u8, any::<bool>())
            .prop_map(|(by, device, admin)| Act::Add { by, device, admin }),
        3 => (0..6u8, 1..6u8).prop_map(|(by, device)| Act::Revoke { by, device }),
        1 => (0..6u8, 1..6u8).prop_map(|(by, name)| Act::Epoch { by, name }),
    ];
    // Each act is made having seen a part of what was made before it.
    prop::collection::vec((act, prop::collection::vec(prop::bool::weighted(0.8), 14)), 1..14)
}

fn made(acts: &[(Act, Vec<bool>)]) -> World {
    let mut world = World::new();
    for (act, mask) in acts {
        let zipped = world.entries.iter().zip(mask);
        let seen: Vec<Entry> = zipped.filter(|(_, seen)| **seen).map(|(e, _)| e.clone()).collect();
        let (by, change) = match act {
            Act::Add { by, device, admin } => (*by, add(*device, (*device).into(), *admin)),
            Act::Revoke { by, device } => (*by, revoke(*device)),
            Act::Epoch { by, name } => {
                let view = world.of(&seen);
                let active = (1..6).filter(|seed| view.is_active(&id(*seed)));
                let parents: Vec<u8> = view.epochs().iter().map(|epoch| epoch.id.0[0]).collect();
                (*by, epoch(*name, &parents, &active.collect::<Vec<_>>()))
            }
        };
        world.by_seeing(&seen, by, change);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_order_and_repetition_of_entries_do_not_matter(
        acts in acts(),
        order in any::<prop::sample::Index>(),
        keys in prop::collection::vec(any::<u64>(), 28),
    ) {
        let world = made(&acts);
        let mut twice = [&world.entries[..], &world.entries[..]].concat();
        let mut keyed: Vec<(u64, Entry)> = keys.into_iter().cycle().zip(twice.drain(..)).collect();
        keyed.sort_by_key(|(key, _)| *key);
        keyed.rotate_left(order.index(world.entries.len()));
        let shuffled: Vec<Entry> = keyed.into_iter().map(|(_, entry)| entry).collect();
        prop_assert_eq!(world.of(&shuffled), world.now());
    }

    /// What must hold of any membership, told without the way it is computed.
    #[test]
    fn a_membership_is_sound(acts in acts()) {
        let world = made(&acts);
        let now = world.now();
        let entries: std::collections::BTreeMap<_, _> =
            world.entries.iter().map(|entry| (entry.hash(), entry)).collect();
        let void = |entry: &&Entry| now.voids().iter().any(|void| void.hash == entry.hash());
        let valid: Vec<&Entry> = entries.values().copied().filter(|e| !void(e)).collect();
        prop_assert_eq!(valid.len() + now.voids().len(), entries.len());
        let change = |e: &Entry| cbor::decode::<Deed>("deed", e.body()).unwrap().change;
        let by_root = |e: &Entry| e.log.author == id(0);
        for entry in &world.entries {
            prop_assert!(by_root(entry) || now.device(&entry.log.author).is_some() || void(&entry));
        }
        for member in now.members() {
            let adds = |e: &&&Entry| matches!(change(e), Change::Add { device, .. } if device == member.device);
            prop_assert!(valid.iter().any(|e| adds(&e)));
            let revokes = |e: &&&Entry| matches!(change(e), Change::Revoke { device, .. } if device == member.device);
            prop_assert_eq!(member.revoked.is_some(), valid.iter().any(|e| revokes(&e)));
        }
        // What the root says of a device that it had seen added always holds.
        for entry in world.entries.iter().filter(|e| by_root(e)) {
            if let Change::Revoke { device, .. } = change(entry) {
                prop_assert!(void(&entry) || !now.is_active(&device));
            }
        }
        let numbers: std::collections::BTreeSet<u16> =
            now.members().iter().map(|member| member.number).collect();
        prop_assert_eq!(numbers.len(), now.members().len());
    }
}
