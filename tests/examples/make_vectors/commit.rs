//! Cases of commits.

use rdrivefs_remote::entry::{Entry, Head, Header, LogId, LogKind};
use rdrivefs_remote::env::WallMs;
use rdrivefs_remote::identity::{DriveId, PublicKey, SecretKey};
use rdrivefs_sync::keys::Epoch;
use rdrivefs_sync::record::{Commit, Content, Kind, LAMPORT_MAX, Record};
use rdrivefs_sync::seal;

use crate::record::{link, made, version};
use crate::{Folder, Inputs, flipped, hexed, seeded};

const DRIVE: DriveId = DriveId([7; 32]);
const CONTEXT: &str = "rdrivefs v1 commit";

fn author() -> SecretKey {
    SecretKey::from_seed([5; 32])
}

fn log(kind: LogKind, author: PublicKey) -> LogId {
    LogId { kind, author, instance: 0 }
}

fn first_header(epoch: &Epoch) -> Header {
    let log = log(LogKind::Commits, author().public());
    Header::after(DRIVE, &Head::empty(log), epoch.id().0)
}

fn commit(records: Vec<Record>) -> Commit {
    Commit { seen: Vec::new(), lamport: 1, wall_ms: WallMs(1_700_000_000_000), records }
}

fn file() -> Vec<Record> {
    vec![made(Kind::File, 0, b""), link(b"name"), version(5, Content::Inline(b"hello".to_vec()))]
}

fn head(byte: u8, kind: LogKind) -> Head {
    Head { log: log(kind, PublicKey([byte; 32])), number: 4, hash: [byte; 32] }
}

/// An entry around a body, and the key it is to be opened with.
fn inputs(epoch: &Epoch, header: Header, body: Vec<u8>) -> Inputs {
    let entry = Entry::sign(&author(), header, body.into()).expect("a header that decodes");
    let (key, parents) = epoch.parts();
    let mut inputs = vec![("drive", hexed(epoch.drive().0)), ("key", hexed(key.as_bytes()))];
    for (id, key) in parents {
        inputs.push(("parent", format!("{}/{}", hexed(id.0), hexed(key.as_bytes()))));
    }
    inputs.push(("entry", hexed(entry.encode())));
    inputs
}

pub(crate) fn write(folder: &Folder) {
    let env = seeded("commit");
    let epoch = Epoch::begin(DRIVE, &[], &env);
    valid(folder, &epoch);
    refused_places(folder, &epoch);
    refused_frames(folder, &epoch);
    refused_words(folder, &epoch);
}

fn valid(folder: &Folder, epoch: &Epoch) {
    let env = seeded("valid commits");
    let put = |name: &str, comment: &str, epoch: &Epoch, commit: &Commit, means: &str| {
        let header = first_header(epoch);
        let body = commit.seal(epoch, &header, &env).expect("it says nothing wrong");
        folder.valid(name, comment, inputs(epoch, header, body), means);
    };
    let plain = commit(file());
    put("file", "a file is made", epoch, &plain, "version");
    put("empty", "no records", epoch, &commit(Vec::new()), "records=[]");
    let many = (0..20).flat_map(|_| file()).collect();
    put("many", "sixty records", epoch, &commit(many), "file");
    let seen = vec![head(1, LogKind::Membership), head(9, LogKind::Membership)];
    let seen = [seen, vec![head(1, LogKind::Commits), head(3, LogKind::Commits)]].concat();
    let means = format!("seen=[00{}00000000/4/", "01".repeat(32));
    put("seen", "heads of other logs", epoch, &Commit { seen, ..plain.clone() }, &means);
    let last = Commit { lamport: LAMPORT_MAX, ..plain.clone() };
    put("lamport_max", "the last Lamport time", epoch, &last, "lamport=9007199254740991 ");
    let before = Commit { wall_ms: WallMs(0), ..plain.clone() };
    put("clock_zero", "a clock that was never set", epoch, &before, "wall_ms=0 ");
    let after = Commit { wall_ms: WallMs(u64::MAX), ..plain.clone() };
    put("clock_ahead", "a clock far ahead decides nothing", epoch, &after, "wall_ms=184467");
    let child = Epoch::begin(DRIVE, &[epoch], &env);
    put("child_epoch", "sealed in a later epoch", &child, &plain, "lamport=1 ");
    let other = Epoch::begin(DRIVE, &[], &env);
    let joined = Epoch::begin(DRIVE, &[epoch, &other], &env);
    put("joined_epoch", "sealed in an epoch of two parents", &joined, &plain, "lamport=1 ");

    let header = Header { number: 9, previous: [1; 32], ..first_header(epoch) };
    let later = Commit { lamport: 8, ..plain };
    let body = later.seal(epoch, &header, &env).expect("it says nothing wrong");
    let mut checked = inputs(epoch, header, body);
    folder.valid("later", "the ninth of a log", checked.clone(), "lamport=8 ");
    checked.extend(["3", "7", "5"].map(|n| ("seen", n.to_owned())));
    folder.valid("lamport", "one more than the largest seen", checked.clone(), "lamport=8 ");
    checked.pop();
    checked.pop();
    let comment = "a clock that jumps ahead";
    folder.refused("lamport_ahead", comment, checked.clone(), "time 8, where 4 comes next");
    checked.push(("seen", "8".to_owned()));
    folder.refused("lamport_behind", "a time that was there", checked, "where 9 comes next");
}

fn refused_places(folder: &Folder, epoch: &Epoch) {
    let env = seeded("refused places");
    let header = first_header(epoch);
    let body = commit(file()).seal(epoch, &header, &env).expect("it says nothing wrong");
    let put = |name: &str, comment: &str, change: &dyn Fn(&mut Header), why: &str| {
        let mut header = header.clone();
        change(&mut header);
        folder.refused(name, comment, inputs(epoch, header, body.clone()), why);
    };
    let second = |h: &mut Header| (h.number, h.previous) = (2, [1; 32]);
    put("number", "moved to another place in its log", &second, "moved from");
    put("instance", "moved to another log", &|h| h.log.instance = 1, "moved from");
    put("drive", "moved to another drive", &|h| h.drive = DriveId([8; 32]), "of this drive");
    let membership = |h: &mut Header| h.log.kind = LogKind::Membership;
    put("kind", "in a log of another kind", &membership, "no commit");
    put("epoch", "said to be of another epoch", &|h| h.epoch = [1; 32], "another epoch");
    put("no_epoch", "said to be in the clear", &|h| h.epoch = [0; 32], "another epoch");
    let parts = [
        ("nonce", 0),
        ("commitment", 24),
        ("sealed", 56),
        ("last", body.len() - 17),
        ("tag", body.len() - 1),
    ];
    for (name, at) in parts {
        let comment = format!("a bit of the body changed: {name}");
        let inputs = inputs(epoch, header.clone(), flipped(&body, at));
        folder.refused(&format!("bit_{name}"), &comment, inputs, "the bytes were changed");
    }
    for (name, bytes) in [("empty", &body[..0]), ("short", &body[..71]), ("cut", &body[..100])] {
        let inputs = inputs(epoch, header.clone(), bytes.to_vec());
        folder.refused(&format!("body_{name}"), "a body cut short", inputs, "the bytes were");
    }
    let longer = [&body[..], &[0]].concat();
    let longer = inputs(epoch, header.clone(), longer);
    folder.refused("body_longer", "a body with a byte more", longer, "the bytes were");
    // S34: what the cipher would open, under a commitment to another key.
    let other = Epoch::begin(DRIVE, &[], &env);
    let header = first_header(epoch);
    let aad = [&b"rdrivefs/v1/commit"[..], &header.encode()].concat();
    let nonce = *body.first_chunk().expect("a body begins with a nonce");
    let stranger = seal::Committed::of(CONTEXT, &other.log_key(), &nonce, &aad);
    let mut salamander = body.clone();
    salamander[24..56].copy_from_slice(&stranger.commitment);
    let comment = "sealed under one key, committed to another";
    folder.refused("s34_commitment", comment, inputs(epoch, header, salamander), "another key");
}

/// Seals what a member could write by hand.
fn framed(epoch: &Epoch, framed: &[u8]) -> Inputs {
    let header = first_header(epoch);
    let aad = [&b"rdrivefs/v1/commit"[..], &header.encode()].concat();
    let env = seeded("frames");
    let body = seal::seal_committed(CONTEXT, &epoch.log_key(), &env, &aad, framed);
    inputs(epoch, header, body)
}

fn frame(plain: &[u8]) -> Vec<u8> {
    let frame = zstd::bulk::compress(plain, 3).expect("memory takes every write");
    [&(plain.len() as u32).to_le_bytes()[..], &frame].concat()
}

fn refused_frames(folder: &Folder, epoch: &Epoch) {
    let put = |name: &str, comment: &str, bytes: &[u8], why: &str| {
        folder.refused(name, comment, framed(epoch, bytes), why);
    };
    let good = frame(&commit(file()).encode());
    put("frame_none", "not even a length", &good[..3], "no length");
    put("frame_empty", "a length and nothing else", &good[..4], "not one frame");
    put("frame_cut", "a frame cut short", &good[..good.len() - 1], "not one frame");
    put("frame_trailing", "a byte behind the frame", &[&good[..], &[0]].concat(), "not one frame");
    put("frame_two", "two frames", &[&good[..], &good[4..]].concat(), "not one frame");
    put("frame_magic", "not zstd", &flipped(&good, 4), "not one frame");
    let mut longer = good.clone();
    longer[0] += 1;
    put("length_more", "a length one too large", &longer, "length is not");
    let mut shorter = good.clone();
    shorter[0] -= 1;
    put("length_less", "a length one too small", &shorter, "does not decompress");
    let bomb = frame(&vec![0; (16 << 20) + 1]);
    put("bomb", "16 MiB and a byte of zeros", &bomb, "too long");
    let mut hidden = bomb;
    hidden[..4].copy_from_slice(&100_u32.to_le_bytes());
    put("bomb_hidden", "the same, said to be 100 bytes", &hidden, "does not decompress");
    put(
        "zeros",
        "a megabyte of zeros, no commit",
        &frame(&vec![0; 1 << 20]),
        "not that of a commit",
    );
}

fn refused_words(folder: &Folder, epoch: &Epoch) {
    let put = |name: &str, comment: &str, commit: &Commit, why: &str| {
        folder.refused(name, comment, framed(epoch, &frame(&commit.encode())), why);
    };
    let good = commit(file());
    let lamport = |lamport| Commit { lamport, ..good.clone() };
    put("lamport_zero", "a Lamport time of zero", &lamport(0), "out of range");
    put("lamport_huge", "a time that would win for ever", &lamport(LAMPORT_MAX + 1), "range");
    let seen = |seen| Commit { seen, ..good.clone() };
    let (a, b) = (head(1, LogKind::Commits), head(2, LogKind::Commits));
    put("seen_order", "heads not in order", &seen(vec![b, a]), "ascending");
    put("seen_twice", "a log seen twice", &seen(vec![a, a]), "ascending");
    put("seen_empty", "an empty log seen", &seen(vec![Head::empty(a.log)]), "empty log");
    put(
        "bad_record",
        "a record that leaves its directory",
        &commit(vec![link(b"..")]),
        "directory",
    );
    let plain = good.encode();
    let raw = |name: &str, comment: &str, plain: &[u8], why: &str| {
        folder.refused(name, comment, framed(epoch, &frame(plain)), why);
    };
    raw("cbor_cut", "CBOR cut short", &plain[..plain.len() - 1], "not that of a commit");
    raw("cbor_trailing", "a byte behind it", &[&plain[..], &[0]].concat(), "one encoding");
    raw("cbor_nothing", "no CBOR", &[], "not that of a commit");
    let wide = [&[plain[0], plain[1], 24, 1][..], &plain[3..]].concat();
    raw("cbor_wide", "a time in two bytes", &wide, "one encoding");
    let more = [&[plain[0] + 1][..], &plain[1..], &[0]].concat();
    raw("cbor_more", "a field more", &more, "not that of a commit");
}
