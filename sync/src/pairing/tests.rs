use rdrivefs_remote::member::Membership;

use super::*;
use crate::keys::{Epoch, Phrase, Root};

struct Two {
    code: PairingCode,
    drive: DriveId,
    shared: Shared,
    added: Entry,
    device: SecretKey,
    wrap: WrapSecret,
    request: Bytes,
}

/// A code, the device that came with it, and the entry that adds it.
fn two() -> Two {
    let env = Env::real();
    let node = format!("rdrive://example.org:7480?key={}", "ab".repeat(32)).parse().unwrap();
    let code = PairingCode::draw(&node, &env);
    let root = Root::from(&Phrase::generate(&env));
    let epoch = Epoch::begin(root.drive(), &[], &env);
    let child = Epoch::begin(root.drive(), &[&epoch], &env);
    let shared = Shared {
        root: root.secret.public(),
        recovery: root.recovery_key(),
        chunker: epoch.chunker_key(),
        epochs: vec![epoch, child],
    };
    let device = SecretKey::generate(&env);
    let wrap = WrapSecret::from_seed(Key::random(&env));
    let request = JoinRequest::seal(&code, &device, &wrap, "laptop", &env).unwrap();
    let membership = Membership::replay(root.drive(), &shared.root, &[]).unwrap();
    let wrap_key = Bytes::copy_from_slice(wrap.public().as_bytes());
    let change = Change::Add { device: device.public(), number: 7, admin: true, wrap_key };
    let added = membership.sign(&root.secret, 0, change).unwrap();
    Two { code, drive: root.drive(), shared, added, device, wrap, request }
}

impl Two {
    fn granted(&self) -> JoinAnswer {
        let seen = vec![self.added.head()];
        let (shared, added) = (self.shared.clone(), self.added.clone());
        let grant = Grant::new(shared, added, seen, "home".into()).unwrap();
        JoinAnswer::Granted(Box::new(grant))
    }

    fn sealed(&self, answer: &JoinAnswer) -> Bytes {
        let request = JoinRequest::open(&self.code, &self.request).unwrap();
        answer.seal(&self.code, &request, &self.drive, &Env::real()).unwrap()
    }

    fn open(&self, message: &[u8]) -> Result<JoinAnswer> {
        let own = self.device.public();
        JoinAnswer::open(&self.code, &self.request, &own, &self.wrap, message)
    }
}

#[test]
fn a_code_comes_back_and_any_change_of_it_is_seen_before_anybody_is_asked() {
    let code = two().code;
    let text = code.to_string();
    assert_eq!(format!(" {text}\n").parse::<PairingCode>().unwrap(), code);
    assert!(!format!("{code:?}").contains(&text[text.len() - 40..]), "logs do not see the secret");
    for at in 0..text.len() {
        let mut other = text.clone().into_bytes();
        other[at] = if other[at] == b'3' { b'4' } else { b'3' };
        let other = String::from_utf8(other).unwrap();
        assert!(matches!(other.parse::<PairingCode>(), Err(Error::Code(_))), "{other}");
        assert!(text[..at].parse::<PairingCode>().is_err());
    }
    for other in [String::new(), text.to_uppercase(), format!("{text}0"), code.node.to_string()] {
        assert!(matches!(other.parse::<PairingCode>(), Err(Error::Code(_))), "{other}");
    }
    let json = serde_json::to_string(&code).unwrap();
    assert_eq!(serde_json::from_str::<PairingCode>(&json).unwrap(), code);
    assert!(serde_json::from_str::<PairingCode>("\"rdrive://x\"").is_err());
}

#[test]
fn a_request_opens_under_its_code_alone_and_brings_the_keys_of_who_made_it() {
    let two = two();
    let read = JoinRequest::open(&two.code, &two.request).unwrap();
    assert_eq!((read.device, read.name.as_str()), (two.device.public(), "laptop"));
    assert_eq!(read.wrap_key, two.wrap.public());
    let other = PairingCode::draw(&two.code.node, &Env::real());
    assert!(matches!(JoinRequest::open(&other, &two.request), Err(Error::Code(_))));
    let mut elsewhere = two.code.clone();
    elsewhere.node.key = PublicKey([7; 32]);
    assert!(matches!(JoinRequest::open(&elsewhere, &two.request), Err(Error::Code(_))));
    for at in 0..two.request.len() {
        let mut bytes = two.request.to_vec();
        bytes[at] ^= 1;
        assert!(JoinRequest::open(&two.code, &bytes).is_err(), "byte {at}");
        assert!(JoinRequest::open(&two.code, &two.request[..at]).is_err());
    }
    let long = vec![0; PAIR_REQUEST_BYTES_MAX + 1];
    assert!(JoinRequest::open(&two.code, &long).unwrap_err().to_string().contains("too long"));
    for name in ["", " ", "a\nb", &"x".repeat(65)] {
        let sealed = JoinRequest::seal(&two.code, &two.device, &two.wrap, name, &Env::real());
        assert!(matches!(sealed, Err(Error::Refused(_))), "{name:?}");
    }
}

#[test]
fn s06_nobody_brings_anothers_key_even_with_the_code() {
    let two = two();
    let mine = SecretKey::generate(&Env::real());
    let wrap_key = two.wrap.public().as_bytes().to_vec();
    let signature = mine.sign(SIGNATURE_CONTEXT, &two.code.signed(&wrap_key, "laptop"));
    let wire =
        WireRequest { device: two.device.public(), wrap_key, name: "laptop".into(), signature };
    let (bound, plain) = (two.code.bound(REQUEST, &[]), cbor::encode(&wire));
    let key = two.code.key();
    let sealed = seal::seal_committed(REQUEST_CONTEXT, &key, &Env::real(), &bound, &plain);
    let message = [&header(REQUEST)[..], &sealed].concat();
    let refused = JoinRequest::open(&two.code, &message).unwrap_err();
    assert!(refused.to_string().contains("signature"), "{refused}");
}

#[test]
fn an_answer_opens_for_the_device_it_was_made_for_and_nowhere_else() {
    let two = two();
    let message = two.sealed(&two.granted());
    let JoinAnswer::Granted(grant) = two.open(&message).unwrap() else { panic!("it was granted") };
    assert_eq!((grant.number, grant.remote.as_str()), (DeviceNumber(7), "home"));
    assert_eq!(grant.shared.epochs, two.shared.epochs);
    assert_eq!(grant.shared.chunker, two.shared.chunker);
    assert_eq!((grant.seen, grant.added), (vec![two.added.head()], two.added.clone()));
    let declined = two.sealed(&JoinAnswer::Declined);
    assert!(matches!(two.open(&declined), Ok(JoinAnswer::Declined)));
    for at in 0..message.len() {
        let mut bytes = message.to_vec();
        bytes[at] ^= 1;
        assert!(two.open(&bytes).is_err(), "byte {at}");
    }
    // A node that plays one side's message to itself, or another's to this one.
    assert!(two.open(&two.request).unwrap_err().to_string().contains("the other way"));
    assert!(JoinRequest::open(&two.code, &message).is_err());
    let other = Two { request: self::two().request, ..self::two() };
    assert!(matches!(other.open(&message), Err(Error::Code(_))));
    let own = two.device.public();
    let asked_twice =
        JoinRequest::seal(&two.code, &two.device, &two.wrap, "laptop", &Env::real()).unwrap();
    let opened = JoinAnswer::open(&two.code, &asked_twice, &own, &two.wrap, &message);
    assert!(matches!(opened, Err(Error::Code(_))), "bound to the very request");
}

#[test]
fn the_code_alone_opens_no_secret_of_the_drive() {
    let two = two();
    let message = two.sealed(&two.granted());
    let thief = WrapSecret::from_seed(Key::from([9; 32]));
    let own = two.device.public();
    let opened = JoinAnswer::open(&two.code, &two.request, &own, &thief, &message);
    assert!(opened.unwrap_err().to_string().contains("does not open"));
}

#[test]
fn what_is_granted_must_be_of_one_drive_and_to_this_device() {
    let (two, other) = (two(), two());
    let grant = |shared: &Shared, added: &Entry, remote: &str, seen: Vec<Head>| {
        let remote = remote.to_owned();
        let grant = Grant::new(shared.clone(), added.clone(), seen, remote).unwrap();
        two.open(&two.sealed(&JoinAnswer::Granted(Box::new(grant))))
    };
    let head = two.added.head();
    assert!(grant(&two.shared, &two.added, "home", Vec::new()).is_ok());
    for refused in [
        grant(&other.shared, &two.added, "home", Vec::new()),
        grant(&two.shared, &other.added, "home", Vec::new()),
        grant(&two.shared, &two.added, "a\u{1b}b", Vec::new()),
        grant(&two.shared, &two.added, "home", vec![head, head]),
    ] {
        assert!(refused.unwrap_err().is_corrupt());
    }
}
