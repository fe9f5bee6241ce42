//! Cases of pairing: codes, requests and answers. What is to be refused is put together here from
//! the manual, not by the code that reads it.

use bytes::Bytes;
use minicbor::Encoder;
use rdrivefs_remote::entry::{Entry, Head};
use rdrivefs_remote::env::Env;
use rdrivefs_remote::identity::{DriveId, PublicKey, SecretKey};
use rdrivefs_remote::link::NodeUrl;
use rdrivefs_remote::member::{Change, Membership};
use rdrivefs_sync::keybag::Shared;
use rdrivefs_sync::keys::{Epoch, Phrase, Root, WrapSecret};
use rdrivefs_sync::pairing::{Grant, JoinAnswer, JoinRequest, PairingCode};
use rdrivefs_sync::seal::{self, Key};

use crate::{Folder, Inputs, flipped, hexed, seeded};

const REQUEST: &str = "rdrivefs v1 pairing request";
const ANSWER: &str = "rdrivefs v1 pairing answer";
const REQUEST_HEADER: &[u8; 16] = b"RDRVPAIR\x01\0\x01\0\0\0\0\0";
const ANSWER_HEADER: &[u8; 16] = b"RDRVPAIR\x01\0\x01\0\x01\0\0\0";

/// The two who meet.
struct Two {
    code: PairingCode,
    root: Root,
    shared: Shared,
    device: SecretKey,
    wrap: WrapSecret,
    request: Bytes,
    env: Env,
}

fn node(host: &str) -> NodeUrl {
    let url = format!("rdrive://{host}:7480?key={}", "3b".repeat(32));
    url.parse().expect("a URL")
}

fn two() -> Two {
    let env = seeded("pairing");
    let code = PairingCode::draw(&node("example.org"), &env);
    let root = Root::from(&Phrase::from_entropy(&[0; 32]));
    let epoch = Epoch::begin(root.drive(), &[], &env);
    let shared = Shared {
        root: root.secret.public(),
        recovery: root.recovery_key(),
        chunker: epoch.chunker_key(),
        epochs: vec![epoch],
    };
    let (device, wrap) = (SecretKey::generate(&env), WrapSecret::from_seed(Key::random(&env)));
    let request = JoinRequest::seal(&code, &device, &wrap, "laptop", &env).expect("a request");
    Two { code, root, shared, device, wrap, request, env }
}

impl Two {
    fn key(&self) -> Key {
        Key::derive("rdrivefs v1 pairing", &[&self.secret()])
    }

    fn secret(&self) -> Vec<u8> {
        let text = self.code.to_string();
        let digits = text.split("&pair=").nth(1).expect("a code has a secret");
        hex::decode(&digits[..32]).expect("digits")
    }

    /// What messages are bound to beside their header.
    fn place(&self) -> Vec<u8> {
        [&self.code.mailbox().0[..], &self.code.node.key.0].concat()
    }

    fn added(&self, device: PublicKey, number: u16) -> Entry {
        let membership = Membership::replay(self.root.drive(), &self.shared.root, &[]);
        let wrap_key = Bytes::copy_from_slice(self.wrap.public().as_bytes());
        let change = Change::Add { device, number, admin: true, wrap_key };
        membership.expect("nobody").sign(&self.root.secret, 0, change).expect("an entry")
    }

    fn answer_of(&self, shared: Shared, added: Entry, seen: Vec<Head>, remote: &str) -> Bytes {
        let grant = Grant::new(shared, added, seen, remote.to_owned()).expect("it adds somebody");
        self.sealed(&JoinAnswer::Granted(Box::new(grant)))
    }

    fn sealed(&self, answer: &JoinAnswer) -> Bytes {
        let request = JoinRequest::open(&self.code, &self.request).expect("a request");
        answer.seal(&self.code, &request, &self.root.drive(), &self.env).expect("an answer")
    }

    fn granted(&self) -> Bytes {
        let added = self.added(self.device.public(), 2);
        let seen = vec![added.head()];
        self.answer_of(self.shared.clone(), added, seen, "home")
    }

    fn request_of(&self, header: &[u8], place: &[u8], plain: &[u8]) -> Vec<u8> {
        let bound = [header, place].concat();
        [header, &seal::seal_committed(REQUEST, &self.key(), &self.env, &bound, plain)].concat()
    }

    fn plain_request(&self, device: &SecretKey, wrap: &[u8], name: &str) -> Vec<u8> {
        let signed = [&self.code.mailbox().0[..], wrap, name.as_bytes()].concat();
        let signature = self.device.sign("rdrivefs/v1/pairing", &signed);
        let mut e = Encoder::new(Vec::new());
        let written = e
            .array(4)
            .and_then(|e| e.bytes(&device.public().0)?.bytes(wrap)?.str(name)?.bytes(&signature.0));
        written.expect("memory takes every write");
        e.into_writer()
    }

    /// An answer whose body is `plain`.
    fn raw_answer(&self, drive: &DriveId, plain: &[u8]) -> Vec<u8> {
        let hash = blake3::hash(&self.request);
        let bound = [&ANSWER_HEADER[..], &self.place()[..], &drive.0, hash.as_bytes()].concat();
        let sealed = seal::seal_committed(ANSWER, &self.key(), &self.env, &bound, plain);
        [&ANSWER_HEADER[..], &drive.0, &sealed].concat()
    }

    fn requesting(&self, request: &[u8]) -> Inputs {
        vec![("code", self.code.to_string()), ("request", hexed(request))]
    }

    fn answering(&self, answer: &[u8]) -> Inputs {
        let mut inputs = self.requesting(&self.request);
        inputs.push(("answer", hexed(answer)));
        inputs.push(("device", hexed(self.device.seed())));
        inputs.push(("wrap", hexed(self.wrap.seed().as_bytes())));
        inputs
    }
}

pub(crate) fn write(folder: &Folder) {
    let two = two();
    codes(folder, &two);
    requests(folder, &two);
    answers(folder, &two);
    refused_answers(folder, &two);
}

fn codes(folder: &Folder, two: &Two) {
    let code = |text: String| vec![("code", text)];
    let good = two.code.to_string();
    folder.valid("code", "a code", code(good.clone()), "mailbox=");
    let blanks = format!("  {good} ");
    folder.valid("code_blanks", "blanks around it do not count", code(blanks), "mailbox=");
    for (name, host) in [("v4", "127.0.0.1"), ("v6", "[::1]")] {
        let drawn = PairingCode::draw(&node(host), &two.env).to_string();
        folder.valid(&format!("code_{name}"), "an address", code(drawn), "mailbox=");
    }
    let refused = |name: &str, comment: &str, text: String, why: &str| {
        folder.refused(&format!("code_{name}"), comment, code(text), why);
    };
    refused("cut", "its last digit is gone", good[..good.len() - 1].into(), "cut or garbled");
    refused("longer", "a digit more", format!("{good}0"), "cut or garbled");
    refused("upper", "capital digits", good.to_uppercase(), "no secret");
    let (url, pair) = good.split_once("&pair=").expect("a code has a secret");
    refused("url", "a URL and no secret", url.into(), "no secret");
    refused("digits", "no digits", format!("{url}&pair={}", "x".repeat(40)), "cut or garbled");
    let capital = format!("{url}&pair={}", pair.to_uppercase());
    refused("capital", "capital digits in the secret", capital, "changed");
    refused("host", "another host", good.replace("example", "examble"), "changed");
    refused("key", "another key", good.replacen("3b", "3c", 1), "changed");
    let other = if pair.starts_with('0') { '1' } else { '0' };
    refused("secret", "another secret", format!("{url}&pair={other}{}", &pair[1..]), "changed");
    let twice = format!("{url}&invite={}&pair={pair}", "01".repeat(16));
    refused("invite", "an invite besides", twice, "changed");
    refused("scheme", "of another scheme", good.replace("rdrive:", "http:"), "rdrive://");
}

fn requests(folder: &Folder, two: &Two) {
    folder.valid("request", "a request", two.requesting(&two.request), "name=laptop");
    let wrap = two.wrap.public();
    let made = |name: &str| {
        let plain = two.plain_request(&two.device, wrap.as_bytes(), name);
        two.requesting(&two.request_of(REQUEST_HEADER, &two.place(), &plain))
    };
    folder.valid("request_by_hand", "one made from the manual", made("desk"), "name=desk");
    let longest = "n".repeat(64);
    folder.valid("request_long_name", "the longest name", made(&longest), "name=nnn");
    folder.valid("request_unicode", "a name in UTF-8", made("büro 🦀"), "name=büro");
    let refused = |name: &str, comment: &str, bytes: &[u8], why: &str| {
        folder.refused(&format!("request_{name}"), comment, two.requesting(bytes), why);
    };
    let good = &two.request[..];
    for (name, at, why) in [
        ("magic", 0, "none"),
        ("version", 8, "version"),
        ("suite", 10, "version"),
        ("direction", 12, "other way"),
        ("zero", 15, "other way"),
        ("nonce", 16, "not made with it"),
        ("commitment", 40, "not made with it"),
        ("sealed", 72, "not made with it"),
        ("tag", good.len() - 1, "not made with it"),
    ] {
        refused(name, "a bit of it flipped", &flipped(good, at), why);
    }
    refused("cut", "cut in its header", &good[..15], "cut short");
    refused("nothing", "nothing", &[], "cut short");
    refused("short", "its end is gone", &good[..good.len() - 1], "not made with it");
    refused("huge", "longer than any", &vec![0; 4097], "too long");
    let place = |mailbox: &[u8], key: &[u8]| [mailbox, key].concat();
    let plain = two.plain_request(&two.device, wrap.as_bytes(), "desk");
    let of = |place: &[u8], plain: &[u8]| two.request_of(REQUEST_HEADER, place, plain);
    let elsewhere = of(&place(&[1; 32], &two.code.node.key.0), &plain);
    refused("mailbox", "of another mailbox", &elsewhere, "not made with it");
    let elsewhere = of(&place(&two.code.mailbox().0, &[1; 32]), &plain);
    refused("node", "of another node", &elsewhere, "not made with it");
    let here = two.place();
    let other = SecretKey::from_seed([5; 32]);
    let stolen = two.plain_request(&other, wrap.as_bytes(), "desk");
    refused("signature", "the key of somebody else", &of(&here, &stolen), "signature");
    let short = two.plain_request(&two.device, &wrap.as_bytes()[1..], "desk");
    refused("wrap_key", "a wrapping key cut short", &of(&here, &short), "wrapping key");
    let long = "n".repeat(65);
    let names = [("no_name", ""), ("blank", "  "), ("control", "a\u{7}"), ("long", &long)];
    for (name, text) in names {
        let plain = two.plain_request(&two.device, wrap.as_bytes(), text);
        refused(name, "a name that is none", &of(&here, &plain), "a message of pairing");
    }
    let trailing = [&plain[..], &[0]].concat();
    refused("trailing", "a byte behind it", &of(&here, &trailing), "follow its end");
}

fn answers(folder: &Folder, two: &Two) {
    folder.valid("granted", "let in", two.answering(&two.granted()), "number=2 remote=home");
    let declined = two.sealed(&JoinAnswer::Declined);
    folder.valid("declined", "not let in", two.answering(&declined), "declined");
    let by_hand = two.raw_answer(&two.root.drive(), &[0x82, 1, 0x80]);
    folder.valid("declined_by_hand", "made from the manual", two.answering(&by_hand), "declined");
    let added = || two.added(two.device.public(), u16::MAX);
    let nothing = two.answer_of(two.shared.clone(), added(), Vec::new(), "büro");
    folder.valid("last_number", "no heads, the last number", two.answering(&nothing), "seen=0");
    let mut shared = two.shared.clone();
    for _ in 0..20 {
        let last = shared.epochs.last().expect("there is one");
        shared.epochs.push(Epoch::begin(two.root.drive(), &[last], &two.env));
    }
    let many = two.answer_of(shared, added(), Vec::new(), "home");
    folder.valid("many_epochs", "many epochs", two.answering(&many), ",");
}

fn refused_answers(folder: &Folder, two: &Two) {
    let refused = |name: &str, comment: &str, bytes: &[u8], why: &str| {
        folder.refused(&format!("answer_{name}"), comment, two.answering(bytes), why);
    };
    let good = &two.granted()[..];
    for (name, at, why) in [
        ("magic", 7, "none"),
        ("version", 9, "version"),
        ("direction", 12, "other way"),
        ("drive", 16, "not made with it"),
        ("nonce", 48, "not made with it"),
        ("commitment", 72, "not made with it"),
        ("tag", good.len() - 1, "not made with it"),
    ] {
        refused(name, "a bit of it flipped", &flipped(good, at), why);
    }
    refused("cut", "cut in the drive", &good[..47], "cut short");
    refused("own", "the request itself, sent back", &two.request, "other way");
    let drive = two.root.drive();
    refused("kind", "neither yes nor no", &two.raw_answer(&drive, &[0x82, 2, 0x80]), "malformed");
    let empty = two.raw_answer(&drive, &[0x82, 0, 0x81, 0x40]);
    refused("wrap", "a wrap that is none", &empty, "does not open");
    let mut inputs = two.answering(good);
    inputs.retain(|(name, _)| *name != "wrap");
    inputs.push(("wrap", hexed([9; 32])));
    folder.refused("answer_s06_code_alone", "without the device's key", inputs, "does not open");
    let again = JoinRequest::seal(&two.code, &two.device, &two.wrap, "laptop", &two.env);
    let mut inputs = two.answering(good);
    inputs.retain(|(name, _)| *name != "request");
    inputs.push(("request", hexed(again.expect("a request"))));
    folder.refused("answer_request", "to another request", inputs, "not made with it");
    let added = || two.added(two.device.public(), 2);
    let other = Root::from(&Phrase::from_entropy(&[1; 32]));
    let epochs = vec![Epoch::begin(other.drive(), &[], &two.env)];
    let (root, recovery) = (other.secret.public(), other.recovery_key());
    let foreign = Shared { root, recovery: recovery.clone(), epochs, ..two.shared.clone() };
    let foreign = two.answer_of(foreign, added(), Vec::new(), "home");
    refused("foreign", "the keys of another drive", &foreign, "another drive");
    let shared = Shared { recovery, ..two.shared.clone() };
    let forged = two.answer_of(shared, added(), Vec::new(), "home");
    refused("recovery", "a recovery key that the root does not vouch for", &forged, "vouch");
    let somebody = two.added(SecretKey::from_seed([5; 32]).public(), 2);
    let somebody = two.answer_of(two.shared.clone(), somebody, Vec::new(), "home");
    refused("somebody", "an entry that adds somebody else", &somebody, "another device");
    let head = added().head();
    let unsorted = two.answer_of(two.shared.clone(), added(), vec![head, head], "home");
    refused("heads", "one head twice", &unsorted, "not in order");
    let unnamed = two.answer_of(two.shared.clone(), added(), Vec::new(), "");
    refused("remote", "a remote without a name", &unnamed, "1 to 64 bytes");
}
