//! Cases of wraps and of the keys they are made out to.

use rdrivefs_remote::cbor;
use rdrivefs_remote::identity::{DriveId, PublicKey};
use rdrivefs_remote::member::{self, EpochId, RECOVERY};
use rdrivefs_sync::keys::{Epoch, PARENTS_MAX, Phrase, Recipient, Root, WrapSecret};
use rdrivefs_sync::seal::Key;

use crate::{Folder, Inputs, flipped, hexed, seeded};

const DRIVE: DriveId = DriveId([7; 32]);
/// Where the parts of a wrap begin.
const PARTS: [(&str, usize); 7] = [
    ("magic", 0),
    ("x25519", 12),
    ("ml_kem", 44),
    ("ml_kem_end", 1131),
    ("commitment", 1132),
    ("sealed", 1164),
    ("tag", 1196),
];

/// Somebody with a wrapping key.
struct Person {
    secret: WrapSecret,
    to: Recipient,
}

fn person(byte: u8) -> Person {
    let secret = WrapSecret::from_seed(Key::from([byte; 32]));
    let to = Recipient { who: PublicKey([byte; 32]), key: secret.public() };
    Person { secret, to }
}

fn recovery() -> Person {
    let root = Root::from(&Phrase::from_entropy(&[0; 32]));
    let to = Recipient::recovery(&root.recovery_key());
    Person { secret: root.recovery, to }
}

fn inputs(drive: DriveId, record: &member::Epoch, who: &Person) -> Inputs {
    vec![
        ("drive", hexed(drive.0)),
        ("record", hexed(cbor::encode(record))),
        ("who", hexed(who.to.who.0)),
        ("seed", hexed(who.secret.seed().as_bytes())),
    ]
}

/// As [`inputs`], all wraps to be checked against those who should have one.
fn checked(record: &member::Epoch, who: &Person, expected: &[&Person]) -> Inputs {
    let mut inputs = inputs(DRIVE, record, who);
    for person in expected {
        let key = hexed(person.to.key.as_bytes());
        inputs.push(("recipient", format!("{}/{key}", hexed(person.to.who.0))));
    }
    inputs
}

fn record(epoch: &Epoch, to: &[&Person]) -> member::Epoch {
    let recipients: Vec<Recipient> = to.iter().map(|person| person.to.clone()).collect();
    epoch.record(&recipients)
}

pub(crate) fn write(folder: &Folder) {
    valid(folder);
    refused_bytes(folder);
    refused_places(folder);
    refused_recipients(folder);
    keys(folder);
}

fn valid(folder: &Folder) {
    let env = seeded("valid wraps");
    let (a, b, phrase) = (person(1), person(2), recovery());
    let first = Epoch::begin(DRIVE, &[], &env);
    let one = record(&first, &[&a]);
    folder.valid("one", "one recipient", inputs(DRIVE, &one, &a), "parents= log");
    let all = record(&first, &[&b, &phrase, &a]);
    folder.valid("first_of_three", "three recipients", inputs(DRIVE, &all, &a), "id=");
    folder.valid("second_of_three", "the same epoch", inputs(DRIVE, &all, &b), "id=");
    folder.valid("recovery", "the phrase opens it too", inputs(DRIVE, &all, &phrase), "id=");
    folder.valid("checked", "nobody shut out", checked(&all, &a, &[&a, &b, &phrase]), "id=");
    let child = Epoch::begin(DRIVE, &[&first], &env);
    let means = format!("parents={} ", hexed(first.id().0));
    let next = record(&child, &[&a, &phrase]);
    folder.valid(
        "child",
        "an epoch with its parent's key inside",
        inputs(DRIVE, &next, &a),
        &means,
    );
    let expected = checked(&next, &phrase, &[&phrase, &a]);
    folder.valid("child_checked", "b was let out of it", expected, &means);
    let other = Epoch::begin(DRIVE, &[&first], &env);
    let joined = record(&Epoch::begin(DRIVE, &[&child, &other], &env), &[&a, &phrase]);
    folder.valid("joined", "a child of two concurrent epochs", inputs(DRIVE, &joined, &a), ",");
    let many: Vec<Epoch> = (0..PARENTS_MAX).map(|_| Epoch::begin(DRIVE, &[], &env)).collect();
    let many: Vec<&Epoch> = many.iter().collect();
    let most = record(&Epoch::begin(DRIVE, &many, &env), &[&phrase]);
    folder.valid("most_parents", "as many parents as may be", inputs(DRIVE, &most, &phrase), ",");
    let drive = DriveId([8; 32]);
    let elsewhere = record(&Epoch::begin(drive, &[], &env), &[&a]);
    folder.valid("other_drive", "an epoch of another drive", inputs(drive, &elsewhere, &a), "id=");
}

fn refused_bytes(folder: &Folder) {
    let env = seeded("refused wraps");
    let a = person(1);
    let good = record(&Epoch::begin(DRIVE, &[], &env), &[&a]);
    let with = |sealed: Vec<u8>| {
        let mut bad = good.clone();
        bad.wraps[0].sealed = sealed.into();
        inputs(DRIVE, &bad, &a)
    };
    let sealed = good.wraps[0].sealed.to_vec();
    let same = "a wrapped key is damaged: it does not open";
    for (name, at) in PARTS {
        let comment = format!("a bit changed: {name}");
        folder.refused(&format!("bit_{name}"), &comment, with(flipped(&sealed, at)), same);
    }
    for (name, at) in [("version", 8), ("suite", 10)] {
        let mut bad = sealed.clone();
        bad[at] = 2;
        let comment = format!("a {name} that is not known");
        folder.refused(name, &comment, with(bad), "format version 2");
    }
    folder.refused("empty", "no bytes", with(Vec::new()), same);
    folder.refused("header_alone", "twelve bytes", with(sealed[..12].to_vec()), same);
    let cut = sealed[..sealed.len() - 1].to_vec();
    folder.refused("cut", "the last byte is missing", with(cut), same);
    folder.refused("trailing", "a byte more", with([&sealed[..], &[0]].concat()), same);
    let with_x = |x: [u8; 32]| {
        let mut bad = sealed.clone();
        bad[12..44].copy_from_slice(&x);
        with(bad)
    };
    let comment = "an X25519 message that makes every secret zero";
    folder.refused("s59_zero_x25519", comment, with_x([0; 32]), same);
    let mut order_8 = hex::decode(ORDER_8).expect("hexadecimal");
    folder.refused("s59_order_8", "one of order 8", with_x(take(&order_8)), same);
    order_8[31] |= 0x80;
    folder.refused("s59_high_bit", "the same, its unused bit set", with_x(take(&order_8)), same);
}

fn refused_places(folder: &Folder) {
    let env = seeded("misplaced wraps");
    let (a, b) = (person(1), person(2));
    let (old, new) = (Epoch::begin(DRIVE, &[], &env), Epoch::begin(DRIVE, &[], &env));
    let (replayed, good) = (record(&old, &[&a, &b]), record(&new, &[&a, &b]));
    let same = "it does not open";
    let elsewhere = inputs(DriveId([8; 32]), &good, &a);
    folder.refused("drive", "in another drive", elsewhere, same);
    let mut bad = good.clone();
    bad.id = old.id();
    folder.refused("s11_id", "under the id of another epoch", inputs(DRIVE, &bad, &a), same);
    let mut bad = good.clone();
    bad.wraps = replayed.wraps;
    folder.refused("s11_replayed", "wraps of an older epoch", inputs(DRIVE, &bad, &a), same);
    let mut bad = good.clone();
    bad.wraps[0].sealed = good.wraps[1].sealed.clone();
    folder.refused("swapped", "the wrap of somebody else", inputs(DRIVE, &bad, &a), same);
    let wrong = Person { secret: b.secret.clone(), to: a.to.clone() };
    folder.refused("other_seed", "another wrapping key", inputs(DRIVE, &good, &wrong), same);
    let stranger = inputs(DRIVE, &good, &person(3));
    folder.refused("stranger", "not wrapped to this device", stranger, "not wrapped to this key");
    let mut bad = good.clone();
    bad.parents = vec![old.id()];
    folder.refused(
        "parent_more",
        "a parent whose key is not inside",
        inputs(DRIVE, &bad, &a),
        "parents",
    );

    let child = record(&Epoch::begin(DRIVE, &[&old, &new], &env), &[&a]);
    let mut bad = child.clone();
    bad.parents.reverse();
    folder.refused("parents_order", "parents not in order", inputs(DRIVE, &bad, &a), "parents");
    let mut bad = child.clone();
    bad.parents.pop();
    folder.refused("parent_less", "a parent left out", inputs(DRIVE, &bad, &a), "parents");
    let mut bad = child;
    bad.parents[1] = EpochId([0xff; 32]);
    let comment = "another parent: not what the id commits to";
    folder.refused("parent_other", comment, inputs(DRIVE, &bad, &a), "not the one its id names");
}

fn refused_recipients(folder: &Folder) {
    let env = seeded("recipients");
    let (a, b, c, phrase) = (person(1), person(2), person(3), recovery());
    let epoch = Epoch::begin(DRIVE, &[], &env);
    let all = [&a, &b, &phrase];
    let put = |name: &str, comment: &str, record: &member::Epoch, why: &str| {
        folder.refused(name, comment, checked(record, &a, &all), why);
    };
    let out = record(&epoch, &[&a, &b]);
    put("s05_phrase_out", "the phrase is shut out", &out, "shuts out the recovery phrase");
    put("s05_member_out", "a member is shut out", &record(&epoch, &[&a, &phrase]), "shuts out");
    let extra = record(&epoch, &[&a, &b, &c, &phrase]);
    put("s05_stranger_in", "somebody else is let in", &extra, "lets in");
    let to = Recipient { who: RECOVERY, key: c.to.key.clone() };
    let forged = record(&epoch, &[&a, &b, &Person { secret: c.secret.clone(), to }]);
    put("s05_phrase_forged", "the phrase's wrap is for another", &forged, "hands the recovery");
    let mut twice = record(&epoch, &all);
    twice.wraps.push(twice.wraps[2].clone());
    put("twice", "a recipient named twice", &twice, "twice");
    let mut dead = record(&epoch, &all);
    dead.wraps[2].sealed = flipped(&dead.wraps[2].sealed, 1190).into();
    put("dead_wrap", "a member's wrap that would not open", &dead, "something else");
}

fn keys(folder: &Folder) {
    let put = |name: &str, comment: &str, key: &[u8], why: &str| {
        folder.refused(name, comment, vec![("wrap_key", hexed(key))], why);
    };
    let good = *person(1).to.key.as_bytes();
    folder.valid("key", "a public wrapping key", vec![("wrap_key", hexed(good))], "key=");
    let with_x = |x: [u8; 32]| [&x[..], &good[32..]].concat();
    let prime = take(&hex::decode(PRIME).expect("hexadecimal"));
    let mut more = prime;
    more[0] += 9;
    let mut high = [0; 32];
    (high[0], high[31]) = (9, 0x80);
    let mut one = [0; 32];
    one[0] = 1;
    let (mut minus, x25519) = (prime, "X25519 half");
    minus[0] -= 1;
    put("s59_key_zero", "an X25519 key of zero", &with_x([0; 32]), x25519);
    put("s59_key_one", "one of order 4", &with_x(one), x25519);
    put("s59_key_minus", "one less than the prime", &with_x(minus), x25519);
    let order_8 = take(&hex::decode(ORDER_8).expect("hexadecimal"));
    put("s59_key_order_8", "one of order 8", &with_x(order_8), x25519);
    put("s59_key_prime", "zero, spelt as the prime", &with_x(prime), x25519);
    put("s59_key_again", "nine, spelt beyond the prime", &with_x(more), x25519);
    put("s59_key_high", "nine, with the unused bit set", &with_x(high), x25519);
    let mut modulus = good;
    modulus[32..35].copy_from_slice(&[0xff; 3]);
    put("key_modulus", "an ML-KEM coefficient beyond its modulus", &modulus, "ML-KEM half");
    put("key_cut", "a byte missing", &good[1..], "wrong length");
    put("key_long", "a byte more", &[&good[..], &[0]].concat(), "wrong length");
    put("key_classic", "an X25519 key alone", &good[..32], "wrong length");
}

/// A point of order 8 on Curve25519, and the field's prime, little-endian.
const ORDER_8: &str = "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800";
const PRIME: &str = "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";

fn take(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().expect("32 bytes")
}
