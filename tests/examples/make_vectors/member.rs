//! Cases of membership.

use rdrivefs_remote::cbor;
use rdrivefs_remote::entry::{Entry, Head, Header, LogId, LogKind};
use rdrivefs_remote::identity::{DriveId, PublicKey, SecretKey};
use rdrivefs_remote::member::{
    Change, Deed, Epoch, EpochId, Last, Membership, RECOVERY, WRAP_KEY_BYTES, Wrap,
};

use crate::{Folder, Inputs, hexed};

/// A drive and the entries of its membership logs; device 0 is the root.
#[derive(Clone)]
struct World(Vec<Entry>);

fn key(device: u8) -> SecretKey {
    SecretKey::from_seed([device; 32])
}

fn id(device: u8) -> PublicKey {
    key(device).public()
}

fn root_log() -> LogId {
    LogId { kind: LogKind::Membership, author: id(0), instance: 0 }
}

fn drive() -> DriveId {
    DriveId::of(&id(0))
}

fn add(device: PublicKey, number: u16, admin: bool) -> Change {
    Change::Add { device, number, admin, wrap_key: vec![number as u8; WRAP_KEY_BYTES].into() }
}

fn revoke(device: u8) -> Change {
    revoke_lives(device, &[0])
}

fn revoke_lives(device: u8, instances: &[u32]) -> Change {
    let last = |instance: &u32| Last { instance: *instance, number: 7, hash: [device; 32] };
    Change::Revoke { device: id(device), last: instances.iter().map(last).collect() }
}

fn epoch(name: u8, parents: &[u8], devices: &[u8]) -> Epoch {
    let to = devices.iter().map(|device| id(*device)).chain([RECOVERY]);
    let mut wraps: Vec<Wrap> = to.map(|to| Wrap { to, sealed: vec![name; 9].into() }).collect();
    wraps.sort_by_key(|wrap| wrap.to);
    let parents = parents.iter().map(|name| EpochId([*name; 32])).collect();
    Epoch { id: EpochId([name; 32]), parents, wraps }
}

impl World {
    fn now(&self) -> Membership {
        Membership::replay(drive(), &id(0), &self.0).expect("entries of this drive")
    }

    /// A device makes a change, having seen everything.
    fn by(mut self, device: u8, change: Change) -> Self {
        self.0.push(self.now().sign(&key(device), 0, change).expect("a small change"));
        self
    }

    /// What both have, made without seeing each other's.
    fn and(mut self, other: Self) -> Self {
        let news: Vec<Entry> = other.0.into_iter().filter(|e| !self.0.contains(e)).collect();
        self.0.extend(news);
        self
    }

    /// The root signs a body of any kind, as the next entry of its log.
    fn body(mut self, body: Vec<u8>) -> Self {
        let log = root_log();
        let head = self.now().heads().iter().find(|head| head.log == log).copied();
        let header = Header::after(drive(), &head.unwrap_or(Head::empty(log)), [0; 32]);
        self.0.push(Entry::sign(&key(0), header, body.into()).expect("a small body"));
        self
    }

    /// The root makes a change having seen this.
    fn seeing(self, seen: Vec<Head>, change: Change) -> Self {
        self.body(cbor::encode(&Deed { seen, change }))
    }

    /// The heads of all logs but the root's.
    fn heads(&self) -> Vec<Head> {
        self.now().heads().iter().filter(|head| head.log != root_log()).copied().collect()
    }

    fn inputs(&self) -> Inputs {
        let mut inputs = vec![("drive", hexed(drive().0)), ("root", hexed(id(0).0))];
        inputs.extend(self.0.iter().map(|entry| ("entry", hexed(entry.encode()))));
        inputs
    }
}

/// The root added 1 and 2 as admins and 3 as a plain device.
fn family() -> World {
    let world = World(Vec::new()).by(0, add(id(1), 1, true)).by(0, add(id(2), 2, true));
    world.by(0, add(id(3), 3, false))
}

/// The same, in its first epoch.
fn settled() -> World {
    family().by(0, Change::Epoch(epoch(10, &[], &[1, 2, 3])))
}

pub(crate) fn write(folder: &Folder) {
    valid(folder);
    valid_epochs(folder);
    refused_authors(folder);
    refused_bodies(folder);
    refused_changes(folder);
    refused_epochs(folder);
    refused_sets(folder);
}

fn valid(folder: &Folder) {
    let put = |name: &str, comment: &str, world: World, means: &str| {
        folder.valid(name, comment, world.inputs(), means);
    };
    put("nobody", "a drive that was just made", World(Vec::new()), "members=[] epochs=[] next=1");
    let one = World(Vec::new()).by(0, add(id(1), 1, true));
    put("first", "the first device", one, "/admin/");
    put("family", "three devices", family(), "next=4");
    put("by_admin", "an admin adds", family().by(2, add(id(4), 4, false)), "next=5");
    put("revoked", "the root revokes", family().by(0, revoke(3)), "/revoked:0.7.0303");
    put("revoked_by_admin", "an admin revokes", family().by(1, revoke(2)), "/revoked:0.7.0202");
    let none = Change::Revoke { device: id(3), last: Vec::new() };
    put("revoked_wholly", "no commit of it is accepted", family().by(0, none), "/revoked]");
    let lives = family().by(0, revoke_lives(3, &[0, 4]));
    put("revoked_lives", "one accepted commit of each life", lives, "/revoked:0.7.0303");
    let again = family().by(1, add(id(3), 9, false));
    put("new_number", "a restored device goes on with a new number", again, "9/");
    let demoted = family().by(0, add(id(1), 1, false));
    put("demoted", "an admin is one no more", demoted, "1/");
    let (left, right) =
        (family().by(1, add(id(4), 4, false)), family().by(2, add(id(5), 5, false)));
    put("concurrent", "two admins add at once", left.and(right), "next=6");
    let seen_then_left = family().by(1, add(id(4), 4, false)).by(0, revoke(1));
    put("kept", "what a revoked admin did before stays", seen_then_left, "4/");
}

fn valid_epochs(folder: &Folder) {
    let put = |name: &str, comment: &str, world: World, means: &str| {
        folder.valid(name, comment, world.inputs(), means);
    };
    let ten = "0a".repeat(32);
    put("epoch", "the first epoch", settled(), &format!("epochs=[{ten}]"));
    let child = settled().by(0, revoke(3)).by(1, Change::Epoch(epoch(11, &[10], &[1, 2])));
    put("child", "an epoch without the device that left", child, &format!("epochs=[{ten} 0b0b"));
    let left = settled().by(1, Change::Epoch(epoch(11, &[10], &[1, 2, 3])));
    let right = settled().by(2, Change::Epoch(epoch(12, &[10], &[1, 2, 3])));
    let both = left.and(right);
    put("two_epochs", "two epochs begun at once", both.clone(), &format!("epochs=[{ten} "));
    let joined = both.by(0, Change::Epoch(epoch(13, &[11, 12], &[1, 2, 3])));
    put("joined", "a child of both", joined, "0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d]");
}

fn refused_authors(folder: &Folder) {
    let put = |name: &str, comment: &str, world: World, why: &str| {
        folder.refused(name, comment, world.inputs(), why);
    };
    let never = "its author never was an admin; ";
    put("plain", "a plain device adds", family().by(3, add(id(4), 4, true)), never);
    put("stranger", "a stranger adds itself", family().by(9, add(id(9), 9, true)), never);
    let before = family().by(0, add(id(3), 3, true));
    let early = family().by(3, add(id(4), 4, false));
    let why = "its author was no admin; ";
    put("early", "before it was made an admin", before.and(early), why);
    let demoted = family().by(0, add(id(1), 1, false)).by(1, add(id(4), 4, false));
    put("demoted", "an admin that is one no more", demoted, why);
    let why = "its author was revoked; ";
    let cut = family().by(0, revoke(1));
    let concurrent = cut.clone().and(family().by(1, add(id(4), 4, true)));
    put("revoked", "an addition its author's revocation had not seen", concurrent, why);
    put("after", "by a revoked admin, who knows it", cut.by(1, add(id(4), 4, false)), why);
    let (one, two) = (family().by(1, revoke(2)), family().by(2, revoke(1)));
    put("mutual", "two admins revoke each other: one stands", one.and(two), why);
    let (root, admin) = (family().by(0, revoke(1)), family().by(1, revoke(2)));
    put("senior", "the root and an admin at once: the root's stands", root.and(admin), why);
}

fn refused_bodies(folder: &Folder) {
    let put = |name: &str, comment: &str, world: World, why: &str| {
        folder.refused(name, comment, world.inputs(), why);
    };
    let unknown = "not a change that this build knows; ";
    let world = || family().by(1, add(id(5), 5, false)).by(2, add(id(6), 6, false));
    let (seen, change) = (world().heads(), || add(id(4), 4, false));
    let deed = cbor::encode(&Deed { seen: seen.clone(), change: change() });
    put("empty", "an empty body", world().body(Vec::new()), unknown);
    put("trailing", "a byte behind the change", world().body([&deed[..], &[0]].concat()), unknown);
    put("cut", "a change cut short", world().body(deed[..deed.len() - 1].to_vec()), unknown);
    // A deed of no heads and a change of kind 99.
    let kind = vec![0x82, 0x80, 0x82, 24, 99, 0x80];
    put("kind", "a change of a kind that is not known", world().body(kind), unknown);
    let order = "what it saw is out of order; ";
    let put_seen = |name: &str, comment: &str, seen: Vec<Head>, why: &str| {
        put(name, comment, world().seeing(seen, change()), why);
    };
    put_seen("seen_order", "heads not in order", vec![seen[1], seen[0]], order);
    put_seen("seen_twice", "a head named twice", vec![seen[0], seen[0]], order);
    let own = Head { log: root_log(), number: 1, hash: [1; 32] };
    put_seen("seen_own", "its own log among those seen", vec![own], order);
    put_seen("seen_empty", "an empty log seen", vec![Head { number: 0, ..seen[0] }], order);
    let kind = Head { log: LogId { kind: LogKind::Commits, ..seen[0].log }, ..seen[0] };
    put_seen("seen_commits", "a log of commits seen", vec![kind], order);
    let missing = "an entry it follows is missing; ";
    let mut gap = family().by(1, change()).by(1, add(id(5), 5, false));
    gap.0.remove(3);
    put("gap", "the entry before it is not there", gap, missing);
    let other = Head { hash: [1; 32], ..seen[0] };
    put_seen("unseen", "an entry it saw is not there", vec![other], missing);
    let other = Head { number: 2, ..seen[0] };
    put_seen("number", "an entry it saw has another number", vec![other], missing);
}

fn refused_changes(folder: &Folder) {
    let put = |name: &str, comment: &str, change: Change, why: &str| {
        folder.refused(name, comment, family().by(1, change).inputs(), &format!("{why}; "));
    };
    let no_device = "no device can have this key";
    put("root_device", "the root as a device", add(id(0), 4, true), no_device);
    put("recovery_device", "recovery as a device", add(RECOVERY, 4, true), no_device);
    let mut one = [0; 32];
    one[0] = 1;
    put("s59_small_order", "a key of small order", add(PublicKey(one), 4, true), no_device);
    put("no_key", "bytes that are no key", add(PublicKey([0xff; 32]), 4, true), no_device);
    for (name, len) in [("short", WRAP_KEY_BYTES - 1), ("long", WRAP_KEY_BYTES + 1)] {
        let wrap_key = vec![4; len].into();
        let change = Change::Add { device: id(4), number: 4, admin: false, wrap_key };
        let comment = format!("a wrapping key a byte too {name}");
        put(&format!("wrap_key_{name}"), &comment, change, "its wrapping key has the wrong length");
    }
    put("taken", "another device's number", add(id(4), 3, false), "another device has this number");
    put("nobody", "a stranger revoked", revoke(9), "it revokes no device of the drive");
    let why = "its last commits are out of order";
    put("last_order", "the last commits descend", revoke_lives(3, &[4, 0]), why);
    put("last_twice", "two last commits of one log", revoke_lives(3, &[4, 4]), why);
    put("revoke_root", "the root revoked", revoke(0), "it revokes no device of the drive");
    let back = family().by(0, revoke(3)).by(1, add(id(3), 8, false)).inputs();
    let why = "a revoked device does not come back; ";
    folder.refused("back", "a revoked device added again", back, why);
}

fn refused_epochs(folder: &Folder) {
    let put = |name: &str, comment: &str, epoch: Epoch, why: &str| {
        let world = settled().by(1, Change::Epoch(epoch));
        folder.refused(name, comment, world.inputs(), &format!("{why}; "));
    };
    let good = || epoch(11, &[10], &[1, 2, 3]);
    let taken = "another epoch has this id";
    put("epoch_id", "an id that is taken", epoch(10, &[10], &[1, 2, 3]), taken);
    let before = "it does not follow the epochs before it";
    put("epoch_first", "a second first epoch", epoch(11, &[], &[1, 2, 3]), before);
    put("epoch_parent", "a parent nobody knows", epoch(11, &[9, 10], &[1, 2, 3]), before);
    let parents = "its parents are out of order";
    put("parents_twice", "a parent twice", epoch(11, &[10, 10], &[1, 2, 3]), parents);
    put("parents_order", "parents not in order", epoch(11, &[10, 9], &[1, 2, 3]), parents);
    let mut swapped = good();
    swapped.wraps.swap(1, 2);
    put("wraps_order", "wraps not in order", swapped, "its wraps are out of order");
    let mut twice = good();
    twice.wraps.push(twice.wraps[3].clone());
    put("wraps_twice", "somebody wrapped to twice", twice, "its wraps are out of order");
    for (name, len) in [("empty", 0), ("long", 4097)] {
        let mut odd = good();
        odd.wraps[0].sealed = vec![1; len].into();
        let comment = format!("a wrap of {len} bytes");
        put(&format!("wrap_{name}"), &comment, odd, "a wrap has an impossible length");
    }
    let out = "it shuts someone out";
    put("s05_member_out", "a member shut out", epoch(11, &[10], &[1, 2]), out);
    let mut phrase = good();
    phrase.wraps.retain(|wrap| wrap.to != RECOVERY);
    put("s05_phrase_out", "the phrase shut out", phrase, out);
    let stranger = "it is wrapped to a stranger";
    put("s05_stranger_in", "a stranger let in", epoch(11, &[10], &[1, 2, 3, 9]), stranger);
    let left = settled().by(0, revoke(3)).by(1, Change::Epoch(good())).inputs();
    folder.refused("s05_revoked_in", "a revoked device let in", left, stranger);
}

fn refused_sets(folder: &Folder) {
    let mut inputs = family().inputs();
    inputs[1].1 = hexed(id(1).0);
    let why = "not authentic: the root is not this drive's";
    folder.refused("root", "another root", inputs, why);
    let mut inputs = family().inputs();
    (inputs[0].1, inputs[1].1) = (hexed(DriveId::of(&id(1)).0), hexed(id(1).0));
    folder.refused("drive", "entries of another drive", inputs, "belongs to another drive");
    let log = LogId { kind: LogKind::Commits, ..root_log() };
    let header = Header::after(drive(), &Head::empty(log), [1; 32]);
    let commit = Entry::sign(&key(0), header, b"x".to_vec().into()).expect("a small body");
    let mut inputs = family().inputs();
    inputs.push(("entry", hexed(commit.encode())));
    folder.refused("commit", "a commit among them", inputs, "belongs to another kind of log");
}
