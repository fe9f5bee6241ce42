//! Pairing: how a member of a drive lets another device in, by a code good for one.
//!
//! The code is a node's URL with its key, and 128 bits drawn for this one pairing. From them come
//! the name of a mailbox on the node and the key of two messages: the request of the device that
//! joins, with its public keys, and the answer of the one that lets it in. Whoever lacks the code can
//! make neither; each is bound to its direction, the mailbox and the node, the answer also to the
//! drive and to the very request. The secrets in an answer are wrapped to the key in the request
//! besides, so that a code that leaks later opens nothing that a node may have kept.
//!
//! ```text
//! code     = rdrive://HOST:PORT?key=K&pair=S C     S: secret, 32 digits; C: check of all, 8 digits
//! mailbox  = derive("rdrivefs v1 pairing mailbox", S)
//! key      = derive("rdrivefs v1 pairing", S)
//! request  = header(0) ‖ sealed(key, header ‖ mailbox ‖ K, [device, wrap key, name, signature])
//! answer   = header(1) ‖ drive 32 ‖ sealed(key, header ‖ mailbox ‖ K ‖ drive ‖ BLAKE3(request),
//!                [0, [wrap]] granted / [1, []] declined)
//! header   = magic RDRVPAIR ‖ u16 version 1 ‖ u16 suite 1 ‖ u8 direction ‖ 3 zero
//! ```
//!
//! man/rdrivefs-protocol.5, "PAIRING". Who may come in is decided above.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use minicbor::{Decode, Encode};
use rdrivefs_remote::cbor;
use rdrivefs_remote::entry::{Entry, Head, LogKind};
use rdrivefs_remote::env::Env;
use rdrivefs_remote::identity::{DriveId, PublicKey, SecretKey, Signature};
use rdrivefs_remote::link::NodeUrl;
use rdrivefs_remote::member::{Change, Deed};
use rdrivefs_remote::wire::{HEADS_MAX, MailboxId, PAIR_ANSWER_BYTES_MAX, PAIR_REQUEST_BYTES_MAX};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::id::DeviceNumber;
use crate::keybag::{Shared, WireShared};
use crate::keys::{WrapPublic, WrapSecret};
use crate::record::check_device_name;
use crate::seal::{self, Key};

/// The secret of a code: 128 bits, guessed only by asking the node.
const SECRET_BYTES: usize = 16;
/// The check of a code: one in four billion that was copied wrong passes for another.
const CHECK_BYTES: usize = 4;
/// What stands between the URL and the secret.
const PART: &str = "&pair=";
const MAGIC: &[u8; 8] = b"RDRVPAIR";
const VERSION: u16 = 1;
const SUITE: u16 = 1;
const HEADER_BYTES: usize = 16;
const DRIVE_BYTES: usize = 32;
const REQUEST: u8 = 0;
const ANSWER: u8 = 1;
const REQUEST_CONTEXT: &str = "rdrivefs v1 pairing request";
const ANSWER_CONTEXT: &str = "rdrivefs v1 pairing answer";
/// What the device that joins signs, so that nobody brings another's key.
const SIGNATURE_CONTEXT: &str = "rdrivefs/v1/pairing";

/// A one-time code: where to meet, and what only the two who meet know.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PairingCode {
    /// The node.
    pub node: NodeUrl,
    secret: Zeroizing<[u8; SECRET_BYTES]>,
}

/// A device that asks to be let in; its keys are those of whoever knows the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// Its identity.
    pub device: PublicKey,
    /// What epochs are to be wrapped to.
    pub wrap_key: WrapPublic,
    /// What it calls itself.
    pub name: String,
    /// The hash of the message, which the answer is bound to.
    hash: [u8; 32],
}

/// What a device is answered.
#[derive(Debug, Clone)]
pub enum JoinAnswer {
    /// It belongs to the drive now.
    Granted(Box<Grant>),
    /// A person said no.
    Declined,
}

/// All that a device needs to be one of the drive.
#[derive(Debug, Clone)]
pub struct Grant {
    /// What every device of the drive knows.
    pub shared: Shared,
    /// The membership entry that adds the device.
    pub added: Entry,
    /// The number it gives.
    pub number: DeviceNumber,
    /// The heads of logs that the node has shown to who lets the device in: it must show no less.
    pub seen: Vec<Head>,
    /// What the node is called on the other device.
    pub remote: String,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct WireRequest {
    #[n(0)]
    device: PublicKey,
    #[cbor(n(1), with = "minicbor::bytes")]
    wrap_key: Vec<u8>,
    #[n(2)]
    name: String,
    #[n(3)]
    signature: Signature,
}

#[derive(Encode, Decode)]
#[cbor(array)]
enum WireAnswer {
    #[n(0)]
    Granted(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    #[n(1)]
    Declined,
}

#[derive(Encode, Decode)]
#[cbor(array)]
struct WireGrant {
    #[n(0)]
    shared: WireShared,
    #[cbor(n(1), with = "minicbor::bytes")]
    added: Vec<u8>,
    #[n(2)]
    seen: Vec<Head>,
    #[n(3)]
    remote: String,
}

impl PairingCode {
    /// A fresh code for a meeting on this node.
    pub fn draw(node: &NodeUrl, env: &Env) -> Self {
        Self { node: node.without_invite(), secret: Zeroizing::new(env.random()) }
    }

    /// Where the messages lie.
    pub fn mailbox(&self) -> MailboxId {
        MailboxId(*Key::derive("rdrivefs v1 pairing mailbox", &[&self.secret[..]]).as_bytes())
    }

    fn key(&self) -> Key {
        Key::derive("rdrivefs v1 pairing", &[&self.secret[..]])
    }

    /// Tells a code that was copied wrong before anybody is asked.
    fn check(&self) -> [u8; CHECK_BYTES] {
        let mut hasher = blake3::Hasher::new_derive_key("rdrivefs v1 pairing check");
        hasher.update(&self.secret[..]).update(self.node.to_string().as_bytes());
        *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer")
    }

    /// What a message is bound to.
    fn bound(&self, direction: u8, more: &[&[u8]]) -> Vec<u8> {
        let mailbox = self.mailbox();
        let place: [&[u8]; 3] = [&header(direction), &mailbox.0, &self.node.key.0];
        [&place[..], more].concat().concat()
    }

    fn signed(&self, wrap_key: &[u8], name: &str) -> Vec<u8> {
        [&self.mailbox().0[..], wrap_key, name.as_bytes()].concat()
    }
}

impl FromStr for PairingCode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let bad = |why: &str| Error::Code(why.to_owned());
        let (url, pair) = text.rsplit_once(PART).ok_or_else(|| bad("it has no secret"))?;
        let node: NodeUrl = url.parse().map_err(|e: rdrivefs_remote::Error| bad(&e.to_string()))?;
        let mut digits = Zeroizing::new([0; SECRET_BYTES + CHECK_BYTES]);
        hex::decode_to_slice(pair, &mut digits[..])
            .map_err(|_| bad("its secret is cut or garbled"))?;
        let (secret, check) = digits.split_first_chunk().expect("it is longer");
        let code = Self { node, secret: Zeroizing::new(*secret) };
        if code.check() != *check || code.to_string() != text {
            return Err(bad("something in it was changed on the way"));
        }
        Ok(code)
    }
}

impl fmt::Display for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (secret, check) = (hex::encode(&self.secret[..]), hex::encode(self.check()));
        write!(f, "{}{PART}{secret}{check}", self.node)
    }
}

impl fmt::Debug for PairingCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairingCode({}…)", self.node)
    }
}

impl From<PairingCode> for String {
    fn from(code: PairingCode) -> Self {
        code.to_string()
    }
}

impl TryFrom<String> for PairingCode {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl JoinRequest {
    /// The message of a device that holds these keys.
    ///
    /// # Errors
    /// [`Error::Refused`] for a name that is none.
    pub fn seal(
        code: &PairingCode,
        device: &SecretKey,
        wrap: &WrapSecret,
        name: &str,
        env: &Env,
    ) -> Result<Bytes> {
        check_device_name(name).map_err(|why| Error::Refused(why.into()))?;
        let wrap_key = wrap.public().as_bytes().to_vec();
        let signature = device.sign(SIGNATURE_CONTEXT, &code.signed(&wrap_key, name));
        let (device, name) = (device.public(), name.to_owned());
        let plain = cbor::encode(&WireRequest { device, wrap_key, name, signature });
        let bound = code.bound(REQUEST, &[]);
        let sealed = seal::seal_committed(REQUEST_CONTEXT, &code.key(), env, &bound, &plain);
        Ok([&header(REQUEST)[..], &sealed].concat().into())
    }

    /// Reads what lay in the mailbox of a code.
    ///
    /// # Errors
    /// [`Error::Code`] when it does not open under it; [`Error::Corrupt`] and
    /// [`Error::UnknownVersion`] when it says what no request may say.
    pub fn open(code: &PairingCode, message: &[u8]) -> Result<Self> {
        let sealed = behind_header(message, REQUEST, PAIR_REQUEST_BYTES_MAX)?;
        let bound = code.bound(REQUEST, &[]);
        let plain = opened(REQUEST_CONTEXT, code, &bound, sealed)?;
        let wire: WireRequest = cbor::decode("pairing", &plain)?;
        check_device_name(&wire.name).map_err(bad)?;
        wire.device.check()?;
        let signed = code.signed(&wire.wrap_key, &wire.name);
        wire.device.verify(SIGNATURE_CONTEXT, &signed, &wire.signature)?;
        let wrap_key = WrapPublic::decode(&wire.wrap_key)?;
        let hash = *blake3::hash(message).as_bytes();
        Ok(Self { device: wire.device, wrap_key, name: wire.name, hash })
    }
}

impl JoinAnswer {
    /// The message that answers `request`, from a device of `drive`.
    ///
    /// # Errors
    /// [`Error::Refused`] when the drive has more epochs than a mailbox holds.
    pub fn seal(
        &self,
        code: &PairingCode,
        request: &JoinRequest,
        drive: &DriveId,
        env: &Env,
    ) -> Result<Bytes> {
        let wire = match self {
            Self::Declined => WireAnswer::Declined,
            Self::Granted(grant) => {
                // A vector that grew would leave its old bytes behind.
                let mut plain = Zeroizing::new(Vec::with_capacity(PAIR_ANSWER_BYTES_MAX));
                minicbor::encode(WireGrant::of(grant), &mut *plain).expect("memory takes it");
                let bound = wrap_bound(code, drive, &request.device);
                WireAnswer::Granted(request.wrap_key.wrap(env, &bound, &plain))
            }
        };
        let bound = code.bound(ANSWER, &[&drive.0, &request.hash]);
        let plain = cbor::encode(&wire);
        let sealed = seal::seal_committed(ANSWER_CONTEXT, &code.key(), env, &bound, &plain);
        let message = [&header(ANSWER)[..], &drive.0, &sealed].concat();
        if message.len() > PAIR_ANSWER_BYTES_MAX {
            return Err(Error::Refused(
                "the drive has more epochs than a pairing hands over: use its recovery phrase"
                    .into(),
            ));
        }
        Ok(message.into())
    }

    /// Reads what came back for `request`, as the device that made it with these keys.
    ///
    /// # Errors
    /// As [`JoinRequest::open`].
    pub fn open(
        code: &PairingCode,
        request: &[u8],
        device: &PublicKey,
        wrap: &WrapSecret,
        message: &[u8],
    ) -> Result<Self> {
        let rest = behind_header(message, ANSWER, PAIR_ANSWER_BYTES_MAX)?;
        let (drive, sealed) = rest.split_first_chunk::<DRIVE_BYTES>().ok_or_else(cut)?;
        let bound = code.bound(ANSWER, &[drive, blake3::hash(request).as_bytes()]);
        let plain = opened(ANSWER_CONTEXT, code, &bound, sealed)?;
        let sealed = match cbor::decode("pairing", &plain)? {
            WireAnswer::Declined => return Ok(Self::Declined),
            WireAnswer::Granted(sealed) => sealed,
        };
        let drive = DriveId(*drive);
        let plain = wrap.unwrap(&wrap_bound(code, &drive, device), &sealed)?;
        let wire: WireGrant = cbor::decode("pairing", &plain)?;
        wire.checked(drive, device, wrap).map(|grant| Self::Granted(Box::new(grant)))
    }
}

impl Grant {
    /// The grant that the membership entry `added` completes.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when it adds nobody.
    pub fn new(shared: Shared, added: Entry, seen: Vec<Head>, remote: String) -> Result<Self> {
        let (_, number, _) = addition(&added)?;
        Ok(Self { shared, added, number, seen, remote })
    }

    /// The device that lets in.
    pub fn enroller(&self) -> PublicKey {
        self.added.log.author
    }
}

impl WireGrant {
    fn of(grant: &Grant) -> Self {
        Self {
            shared: WireShared::of(&grant.shared),
            added: grant.added.encode().to_vec(),
            seen: grant.seen.clone(),
            remote: grant.remote.clone(),
        }
    }

    /// The grant, if it is one of `drive` to this device.
    fn checked(self, drive: DriveId, device: &PublicKey, wrap: &WrapSecret) -> Result<Grant> {
        let shared = self.shared.opened().map_err(bad)?;
        let added = Entry::from_bytes(Bytes::from(self.added))?;
        if DriveId::of(&shared.root) != drive || added.drive != drive {
            return Err(bad("it is of another drive than it says"));
        }
        let (who, number, wrap_key) = addition(&added)?;
        if who != *device || wrap_key != wrap.public().as_bytes()[..] {
            return Err(bad("it adds another device"));
        }
        let ascending = self.seen.is_sorted_by(|a, b| a.log < b.log);
        if !ascending || self.seen.len() > HEADS_MAX {
            return Err(bad("its heads are not in order, or too many"));
        }
        check_device_name(&self.remote).map_err(bad)?;
        Ok(Grant { shared, added, number, seen: self.seen, remote: self.remote })
    }
}

/// Whom a membership entry adds, by which number and wrapping key.
fn addition(entry: &Entry) -> Result<(PublicKey, DeviceNumber, Bytes)> {
    let deed: Deed = cbor::decode("membership entry", entry.body())?;
    match deed.change {
        Change::Add { device, number, wrap_key, .. } if entry.log.kind == LogKind::Membership => {
            Ok((device, DeviceNumber(number), wrap_key))
        }
        _ => Err(bad("its entry adds nobody")),
    }
}

fn wrap_bound(code: &PairingCode, drive: &DriveId, device: &PublicKey) -> Vec<u8> {
    [SIGNATURE_CONTEXT.as_bytes(), &drive.0, &code.mailbox().0, &device.0].concat()
}

fn opened(
    context: &'static str,
    code: &PairingCode,
    bound: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>> {
    let opened = seal::open_committed(context, &code.key(), bound, sealed);
    let other =
        |_| Error::Code("what came back was not made with it: the node may be lying".into());
    opened.map(Zeroizing::new).map_err(other)
}

fn header(direction: u8) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10..12].copy_from_slice(&SUITE.to_le_bytes());
    header[12] = direction;
    header
}

/// What stands behind the header of a message of this direction.
fn behind_header(message: &[u8], direction: u8, max: usize) -> Result<&[u8]> {
    if message.len() > max {
        return Err(bad("it is too long"));
    }
    let (head, rest) = message.split_first_chunk::<HEADER_BYTES>().ok_or_else(cut)?;
    if head[..8] != *MAGIC {
        return Err(bad("it is none"));
    }
    for (at, known) in [(8, VERSION), (10, SUITE)] {
        let version = u16::from_le_bytes([head[at], head[at + 1]]);
        if version != known {
            let what = "a message of pairing".to_owned();
            return Err(Error::UnknownVersion { what, version: version.into() });
        }
    }
    if *head != header(direction) {
        return Err(bad("it goes the other way"));
    }
    Ok(rest)
}

fn cut() -> Error {
    bad("it is cut short")
}

fn bad(why: &str) -> Error {
    Error::corrupt("a message of pairing", why)
}

#[cfg(test)]
mod tests;
