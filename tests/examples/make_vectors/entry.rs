//! Cases of log entries.

use rdrivefs_remote::entry::{Entry, Head, Header, LogId, LogKind};
use rdrivefs_remote::identity::{DriveId, SecretKey};

use crate::{Folder, Inputs, flipped, hexed};

const CONTEXT: &str = "rdrivefs/v1/log";
/// Where the fields of an entry begin.
const FIELDS: [(&str, usize); 9] = [
    ("drive", 12),
    ("author", 45),
    ("instance", 77),
    ("number", 82),
    ("previous", 89),
    ("epoch", 121),
    ("body_length", 156),
    ("body", 157),
    ("kind", 44),
];
/// The order of the group that ed25519 works in, little-endian.
const ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn author() -> SecretKey {
    SecretKey::from_seed([5; 32])
}

fn header() -> Header {
    let log = LogId { kind: LogKind::Commits, author: author().public(), instance: 3 };
    Header::after(DriveId([7; 32]), &Head { log, number: 8, hash: [9; 32] }, [11; 32])
}

fn signed(header: Header, body: &[u8]) -> Vec<u8> {
    let entry = Entry::sign(&author(), header, body.to_vec().into());
    entry.expect("a header that decodes").encode().to_vec()
}

/// Signs whatever stands there, as somebody would who writes entries by hand.
fn resigned(mut bytes: Vec<u8>, context: &str) -> Vec<u8> {
    bytes.truncate(bytes.len() - 64);
    let signature = author().sign(context, &bytes);
    bytes.extend_from_slice(&signature.0);
    bytes
}

fn input(bytes: impl AsRef<[u8]>) -> Inputs {
    vec![("entry", hexed(bytes))]
}

pub(crate) fn write(folder: &Folder) {
    valid(folder);
    refused_forms(folder);
    refused_signatures(folder);
}

fn valid(folder: &Folder) {
    let put =
        |name: &str, comment: &str, change: &dyn Fn(&mut Header), body: &[u8], means: &str| {
            let mut header = header();
            change(&mut header);
            folder.valid(name, comment, input(signed(header, body)), means);
        };
    let same = |_: &mut Header| {};
    put("plain", "an entry in the middle of a log", &same, b"body", "body=626f6479");
    put("empty_body", "a body may be empty", &same, b"", "body= hash");
    put("long_body", "a body of 1000 bytes", &same, &[0xaa; 1000], "number=9 ");
    let first = |h: &mut Header| (h.number, h.previous) = (1, [0; 32]);
    put("first", "the first entry follows none", &first, b"x", "number=1 ");
    let second = |h: &mut Header| h.number = 2;
    put("second", "the second follows the first", &second, b"x", "number=2 ");
    let last = |h: &mut Header| h.number = u64::MAX;
    put("largest_number", "the largest number", &last, b"x", "number=18446744073709551615 ");
    let membership = |h: &mut Header| (h.log.kind, h.epoch) = (LogKind::Membership, [0; 32]);
    put("membership", "a log in the clear", &membership, b"x", "kind=membership ");
    let instance = |h: &mut Header| h.log.instance = u32::MAX;
    put("instance", "the last life of a device", &instance, b"x", "instance=4294967295 ");
    let zero = |h: &mut Header| h.log.instance = 0;
    put("first_instance", "the first life of a device", &zero, b"x", "instance=0 ");
    let drive = |h: &mut Header| h.drive = DriveId([0xff; 32]);
    put("drive", "of another drive", &drive, b"x", "drive=ffff");
    put("entry_in_body", "a body that is an entry", &same, &signed(header(), b"y"), "kind=commits");
}

fn refused_forms(folder: &Folder) {
    let good = signed(header(), b"body");
    let put = |name: &str, comment: &str, bytes: &[u8], why: &str| {
        folder.refused(name, comment, input(bytes), why);
    };
    put("empty", "no bytes", &[], "too short");
    put("header_alone", "cut behind the header", &good[..153], "too short");
    put("cut", "the last byte is missing", &good[..good.len() - 1], "length of its body");
    put("cut_body", "cut to the least length", &good[..221], "length of its body");
    put("trailing", "a byte behind the end", &[&good[..], &[0]].concat(), "length of its body");
    put("doubled", "two entries as one", &[&good[..], &good].concat(), "length of its body");
    put("magic", "another magic", &resigned(flipped(&good, 7), CONTEXT), "wrong magic");
    let numbers = [("version_0", 8, 0), ("version_2", 8, 2), ("version_257", 9, 1)];
    for (name, at, byte) in numbers.into_iter().chain([("suite_0", 10, 0), ("suite_2", 10, 2)]) {
        let mut bytes = good.clone();
        bytes[at] = byte;
        let comment = "a version or suite that is not known, rightly signed";
        put(name, comment, &resigned(bytes, CONTEXT), "unknown version");
    }
    let set = |at: usize, with: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + with.len()].copy_from_slice(with);
        resigned(bytes, CONTEXT)
    };
    put("kind_2", "a kind of log that is not known", &set(44, &[2]), "unknown kind");
    put("number_0", "numbers count from 1", &set(81, &[0; 8]), "count from 1");
    let one = [1, 0, 0, 0, 0, 0, 0, 0];
    put("first_after", "a first entry that follows another", &set(81, &one), "follows another");
    put("orphan", "a later entry that follows none", &set(89, &[0; 32]), "follows none");
    put("length_less", "a body said to be shorter", &set(153, &[3]), "length of its body");
    put("length_more", "a body said to be longer", &set(153, &[5]), "length of its body");
    put("length_huge", "a body of 4 GiB", &set(153, &[0xff; 4]), "length of its body");
}

fn refused_signatures(folder: &Folder) {
    let good = signed(header(), b"body");
    for (name, at) in FIELDS {
        let comment = format!("{name} changed after it was signed");
        let why = match name {
            "author" | "kind" => "",
            "body_length" => "length",
            _ => "signature",
        };
        folder.refused(&format!("changed_{name}"), &comment, input(flipped(&good, at)), why);
    }
    let put = |name: &str, comment: &str, bytes: Vec<u8>| {
        folder.refused(name, comment, input(bytes), "not authentic");
    };
    let (end, start) = (good.len(), good.len() - 64);
    put("signature_r", "another R", flipped(&good, start));
    put("signature_s", "another S", flipped(&good, start + 32));
    put("s08_recovery", "signed as a recovery key", resigned(good.clone(), "rdrivefs/v1/recovery"));
    put("s08_no_context", "signed for no purpose", resigned(good.clone(), ""));
    let mut malleable = good.clone();
    add(&mut malleable[start + 32..], &ORDER);
    put("s59_malleable", "S and the group's order added: not the one spelling", malleable);
    let mut zero = good.clone();
    zero[start..end].fill(0);
    put("zero_signature", "a signature of zeros", zero.clone());
    // A key of small order verifies a signature over anything unless it is refused as such.
    let mut identity = [0; 32];
    identity[0] = 1;
    zero[45..77].copy_from_slice(&identity);
    zero[start..start + 32].copy_from_slice(&identity);
    put("s59_small_order", "an author of small order, for whom this would verify", zero.clone());
    let mut misspelt = [0xff; 32];
    (misspelt[0], misspelt[31]) = (0xee, 0x7f);
    zero[45..77].copy_from_slice(&misspelt);
    put("s59_misspelt_author", "the same author, not in canonical spelling", zero);
    let other = signed(Header { number: 10, ..header() }, b"body");
    let moved = [&good[..start], &other[other.len() - 64..]].concat();
    put("moved_signature", "the signature of another entry", moved);
}

fn add(number: &mut [u8], to: &[u8]) {
    let mut carry = 0;
    for (digit, more) in number.iter_mut().zip(to) {
        let sum = u16::from(*digit) + u16::from(*more) + carry;
        *digit = sum as u8;
        carry = sum >> 8;
    }
}
