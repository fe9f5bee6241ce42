//! Cases of keybags.

use std::path::Path;

use rdrivefs_remote::env::Env;
use rdrivefs_remote::identity::SecretKey;
use rdrivefs_sync::id::DeviceNumber;
use rdrivefs_sync::keybag::{KdfCost, Keybag, Secrets, Unlock, argon2id};
use rdrivefs_sync::keys::{Epoch, Phrase, Root, WrapSecret};
use rdrivefs_sync::seal::{self, Key};

use crate::{Folder, Inputs, flipped, hexed, seeded};

const CONTEXT: &str = "rdrivefs v1 keybag";
const HEADER: usize = 60;

/// A keybag on disk: the file, and the key file beside it if there is one.
#[derive(Clone)]
struct Files {
    keys: Vec<u8>,
    device_key: Option<Vec<u8>>,
}

fn secrets(env: &Env) -> Secrets {
    let root = Root::from(&Phrase::from_entropy(&[0; 32]));
    let first = Epoch::begin(root.drive(), &[], env);
    Secrets {
        root: root.secret.public(),
        recovery: root.recovery_key(),
        device: SecretKey::generate(env),
        wrap: WrapSecret::from_seed(Key::random(env)),
        number: DeviceNumber(1),
        instance: 0,
        chunker: first.chunker_key(),
        local: Key::random(env),
        epochs: vec![first],
    }
}

/// The same salt for all: the checker stretches a passphrase once.
fn create(secrets: Secrets, unlock: &Unlock<'_>) -> Files {
    let dir = tempfile::tempdir().expect("a directory for the case");
    let path = dir.path().join("keys");
    Keybag::create(&path, secrets, unlock, &seeded("keybag")).expect("a new keybag");
    let read = |path: &Path| std::fs::read(path).ok();
    let keys = read(&path).expect("it was just written");
    Files { keys, device_key: read(&dir.path().join("device.key")) }
}

fn inputs(files: &Files, passphrase: Option<&str>) -> Inputs {
    let mut inputs = vec![("keys", hexed(&files.keys))];
    inputs.extend(files.device_key.as_ref().map(|key| ("device_key", hexed(key))));
    inputs.extend(passphrase.map(|text| ("passphrase", text.to_owned())));
    inputs
}

/// Puts the checksum right, as an adversary would.
fn resummed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.truncate(bytes.len() - 32);
    let sum = blake3::hash(&bytes);
    bytes.extend_from_slice(sum.as_bytes());
    bytes
}

pub(crate) fn write(folder: &Folder) {
    valid(folder);
    refused_locks(folder);
    refused_bytes(folder);
    refused_secrets(folder);
}

fn valid(folder: &Folder) {
    let env = seeded("valid keybags");
    let put = |name: &str, comment: &str, text: &str, cost, means: &str| {
        let files = create(secrets(&env), &Unlock::Passphrase(text, cost, &argon2id));
        folder.valid(name, comment, inputs(&files, Some(text)), means);
    };
    put("passphrase", "the least cost", "correct horse", KdfCost::FLOOR, "number=1 ");
    put(
        "unicode",
        "a passphrase in UTF-8, as it is typed",
        "naïve 🐎",
        KdfCost::FLOOR,
        "number=1 ",
    );
    let lanes = KdfCost { lanes: 1, ..KdfCost::FLOOR };
    put("one_lane", "one lane", "correct horse", lanes, "number=1 ");
    let passes = KdfCost { passes: 4, ..KdfCost::FLOOR };
    put("four_passes", "a pass more", "correct horse", passes, "number=1 ");
    let file = |name: &str, comment: &str, change: &dyn Fn(&mut Secrets), means: &str| {
        let mut changed = secrets(&env);
        change(&mut changed);
        let files = create(changed, &Unlock::KeyFile);
        folder.valid(name, comment, inputs(&files, None), means);
    };
    file("key_file", "a key file opens it", &|_| {}, "instance=0 ");
    file("instance", "a later life", &|s| s.instance = u32::MAX, "instance=4294967295 ");
    file("number", "the last device", &|s| s.number = DeviceNumber(u16::MAX), "number=65535 ");
    let child = |s: &mut Secrets| s.epochs.push(Epoch::begin(s.drive(), &[&s.epochs[0]], &env));
    file("two_epochs", "an epoch and its child", &child, ",");
    let joined = |s: &mut Secrets| {
        child(s);
        child(s);
        s.epochs.push(Epoch::begin(s.drive(), &[&s.epochs[1], &s.epochs[2]], &env));
    };
    file("joined_epochs", "concurrent epochs and their child", &joined, ",");
    let many = |s: &mut Secrets| (0..50).for_each(|_| child(s));
    file("many_epochs", "fifty epochs", &many, ",");
    let files = create(secrets(&env), &Unlock::KeyFile);
    let comment = "a passphrase for a bag that a key file opens is not looked at";
    folder.valid("idle_passphrase", comment, inputs(&files, Some("x")), "number=1 ");
}

fn refused_locks(folder: &Folder) {
    let env = seeded("refused locks");
    let unlock = Unlock::Passphrase("correct horse", KdfCost::FLOOR, &argon2id);
    let bag = create(secrets(&env), &unlock);
    let put = |name: &str, comment: &str, files: &Files, passphrase: Option<&str>, why: &str| {
        folder.refused(name, comment, inputs(files, passphrase), why);
    };
    put("wrong", "a wrong passphrase", &bag, Some("correct house"), "locked: wrong passphrase");
    put("case", "capitals count", &bag, Some("Correct horse"), "locked: wrong passphrase");
    put("missing", "no passphrase", &bag, None, "locked: a passphrase is needed");
    let set = |at: usize, with: &[u8]| {
        let mut keys = bag.keys.clone();
        keys[at..at + with.len()].copy_from_slice(with);
        Files { keys: resummed(keys), device_key: None }
    };
    let costs = [
        ("memory_low", "63 MiB", 16, (64 << 10) - 1),
        ("memory_zero", "no memory", 16, 0),
        ("memory_high", "a KiB more than 1 GiB", 16, (1 << 20) + 1),
        ("memory_all", "4 TiB", 16, u32::MAX),
        ("passes_low", "two passes", 20, 2),
        ("passes_high", "eleven passes", 20, 11),
        ("lanes_zero", "no lanes", 24, 0),
        ("lanes_high", "seventeen lanes", 24, 17),
    ];
    for (name, what, at, value) in costs {
        let comment = format!("{what}: refused before it is paid");
        let bad = set(at, &u32::to_le_bytes(value));
        put(&format!("s14_{name}"), &comment, &bad, Some("correct horse"), "refused: a passphrase");
    }
    let dearer = set(20, &[4]);
    let comment = "another cost, within the bounds, than it was sealed with";
    put("s14_cost_changed", comment, &dearer, Some("correct horse"), "wrong passphrase");
    put("s14_salt", "another salt", &set(28, &[0; 4]), Some("correct horse"), "wrong passphrase");
    let lock_2 = set(12, &[2]);
    put("s14_lock", "a lock that is not known", &lock_2, Some("correct horse"), "no known kind");
    let reserved = set(13, &[1]);
    put("s14_reserved", "a byte that must be zero", &reserved, Some("x"), "no known kind");
    let mixed = set(12, &[0]);
    put("s14_mixed", "a key file with a cost", &mixed, Some("x"), "no known kind");
    let by_file = create(secrets(&env), &Unlock::KeyFile);
    let downgraded = Files { device_key: by_file.device_key, ..set(12, &[0; 16]) };
    let comment = "the passphrase taken off the header: a key file does not open it";
    put("s14_downgrade", comment, &downgraded, None, "not this drive's");
}

fn refused_bytes(folder: &Folder) {
    let env = seeded("refused bytes");
    let good = create(secrets(&env), &Unlock::KeyFile);
    let put = |name: &str, comment: &str, keys: Vec<u8>, why: &str| {
        let files = Files { keys, ..good.clone() };
        folder.refused(name, comment, inputs(&files, None), why);
    };
    let (keys, len) = (&good.keys, good.keys.len());
    put("empty", "no bytes", Vec::new(), "length");
    put("header_alone", "cut behind the header", keys[..HEADER].to_vec(), "length");
    put("cut", "the last byte is missing", keys[..len - 1].to_vec(), "checksum");
    put("trailing", "a byte more", [&keys[..], &[0]].concat(), "checksum");
    put("magic", "another magic", resummed(flipped(keys, 0)), "no keybag");
    put("version", "a version that is not known", resummed(flipped(keys, 9)), "format version 257");
    let mut suite = keys.clone();
    suite[10] = 2;
    put("suite", "a suite that is not known", resummed(suite), "format version 2");
    let parts = [("nonce", 60), ("commitment", 84), ("sealed", 116), ("tag", len - 33)];
    for (name, at) in parts {
        put(&format!("rot_{name}"), "a bit rotted", flipped(keys, at), "checksum");
        let why = if at < 116 { "not this drive's" } else { "does not open" };
        let comment = "a bit changed, and the checksum with it";
        put(&format!("bit_{name}"), comment, resummed(flipped(keys, at)), why);
    }
    put("rot_checksum", "a bit of the checksum rotted", flipped(keys, len - 1), "checksum");

    let key = good.device_key.as_ref().expect("a key file opens it");
    let file = |name: &str, comment: &str, device_key: Option<Vec<u8>>, why: &str| {
        let files = Files { device_key, ..good.clone() };
        folder.refused(name, comment, inputs(&files, None), why);
    };
    file("key_file_missing", "no key file", None, "locked: the key file is missing");
    file("key_file_other", "another key", Some(flipped(key, 43)), "not this drive's");
    file("key_file_magic", "another magic", Some(flipped(key, 7)), "no key file");
    file("key_file_cut", "a byte missing", Some(key[..43].to_vec()), "no key file");
    file("key_file_long", "a byte more", Some([&key[..], &[0]].concat()), "no key file");
    file("key_file_version", "a version not known", Some(flipped(key, 9)), "format version 257");
}

/// Seals other words under the same lock.
fn resealed(files: &Files, change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Files {
    let header = &files.keys[..HEADER];
    let file = &files.device_key.as_ref().expect("a key file opens it")[12..];
    let key = Key::derive("rdrivefs v1 keybag key file", &[file, &header[28..]]);
    let boxed = &files.keys[HEADER..files.keys.len() - 32];
    let plain = seal::open_committed(CONTEXT, &key, header, boxed).expect("it opens");
    let boxed = seal::seal_committed(CONTEXT, &key, &seeded("reseal"), header, &change(plain));
    let keys = [header, &boxed, &[0; 32]].concat();
    Files { keys: resummed(keys), ..files.clone() }
}

fn refused_secrets(folder: &Folder) {
    let env = seeded("refused secrets");
    let good = create(secrets(&env), &Unlock::KeyFile);
    let put = |name: &str, comment: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>, why: &str| {
        folder.refused(name, comment, inputs(&resealed(&good, change), None), why);
    };
    // 8a, then 58 20 before each of drive (3) and root (37), then 82 59 04c0 and recovery's key.
    put("drive", "a drive that is not the root's", &|p| flipped(&p, 5), "not its drive's");
    put("recovery", "a wrapping key the root did not sign", &|p| flipped(&p, 75), "vouch");
    let weak = |mut p: Vec<u8>| {
        p[73..105].fill(0);
        p
    };
    put("recovery_weak", "a key of recovery that is none", &weak, "no key of recovery");
    put("signature", "another signature of the root", &|p| flipped(&p, 1300), "vouch");
    put("cbor_cut", "cut short", &|p| p[..p.len() - 1].to_vec(), "not that of keys");
    put("cbor_trailing", "a byte behind", &|p| [&p[..], &[0]].concat(), "one encoding");
    put("cbor_empty", "nothing inside", &|_| Vec::new(), "not that of keys");
    let none = |p: Vec<u8>| {
        // The list of one epoch: 81 82 58 20 key 80.
        [&p[..p.len() - 37], &[0x80]].concat()
    };
    put("no_epoch", "no epoch", &none, "out of range");
}
