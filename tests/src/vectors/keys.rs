//! Readers of the formats that carry keys: phrase, keybag, wrap.

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use rdrivefs_remote::cbor;
use rdrivefs_remote::identity::{DriveId, PublicKey};
use rdrivefs_remote::member;
use rdrivefs_sync::keybag::{KdfCost, KdfRequest, Keybag, Secrets, Unlock, argon2id};
use rdrivefs_sync::keys::{Epoch, Phrase, Recipient, Root, WrapPublic, WrapSecret};
use rdrivefs_sync::seal::Key;

use super::case::{Case, unhex};

/// `input`: the text of a phrase.
pub(super) fn phrase(case: &Case) -> Result<String, String> {
    let text = String::from_utf8(case.bytes("input")).map_err(|_| "not UTF-8".to_owned())?;
    let root = Root::from(&Phrase::parse(&text).map_err(said)?);
    let recovery = root.recovery_key();
    Ok(format!(
        "root={} seed={} drive={} recovery_seed={} recovery_key={} signature={}",
        root.secret.public(),
        hex::encode(root.secret.seed()),
        root.drive(),
        hex::encode(root.recovery.seed().as_bytes()),
        blake3::hash(recovery.key.as_bytes()),
        recovery.signature,
    ))
}

/// `keys`: the file; `device_key`: the file beside it; `passphrase`: what is typed.
pub(super) fn keybag(case: &Case) -> Result<String, String> {
    let dir = tempfile::tempdir().expect("a directory for the case");
    let path = dir.path().join("keys");
    write_private(&path, &case.bytes("keys"));
    if let Some(key) = case.find("device_key") {
        write_private(&dir.path().join("device.key"), &unhex(key));
    }
    let passphrase = case.find("passphrase");
    let unlock = match passphrase {
        Some(text) => Unlock::Passphrase(text, KdfCost::DEFAULT, &stretched_once),
        None => Unlock::KeyFile,
    };
    let bag = Keybag::open(&path, &unlock);
    let place = format!("{}/", dir.path().display());
    let bag = bag.map_err(|e| said(e).replace(&place, ""))?;
    Ok(secrets(bag.secrets()))
}

fn secrets(secrets: &Secrets) -> String {
    let epochs: Vec<String> = secrets.epochs.iter().map(|e| hex::encode(e.id().0)).collect();
    format!(
        "drive={} device={} wrap={} number={} instance={} chunker={} local={} epochs={}",
        secrets.drive(),
        secrets.device.public(),
        hex::encode(secrets.wrap.seed().as_bytes()),
        secrets.number.0,
        secrets.instance,
        hex::encode(secrets.chunker.as_bytes()),
        hex::encode(secrets.local.as_bytes()),
        epochs.join(","),
    )
}

/// Argon2id as everywhere, but once for the cases that share passphrase, salt and cost.
fn stretched_once(request: &KdfRequest<'_>) -> rdrivefs_sync::Result<Key> {
    static KNOWN: LazyLock<Mutex<HashMap<String, Key>>> = LazyLock::new(Mutex::default);
    let KdfCost { memory_kib, passes, lanes } = request.cost;
    let name = format!(
        "{} {} {memory_kib} {passes} {lanes}",
        request.passphrase,
        hex::encode(request.salt)
    );
    if let Some(key) = KNOWN.lock().expect("no reader panics in here").get(&name) {
        return Ok(key.clone());
    }
    let key = argon2id(request)?;
    KNOWN.lock().expect("no reader panics in here").insert(name, key.clone());
    Ok(key)
}

fn write_private(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("the case is written");
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, private).expect("the case is private");
}

/// Either `wrap_key`, a public wrapping key; or `drive`, `record` (an epoch as members sign it),
/// `who` opens it and their `seed`, and where all wraps are to be checked a `recipient` a line:
/// `who/wrap key`.
pub(super) fn wrap(case: &Case) -> Result<String, String> {
    if let Some(key) = case.find("wrap_key") {
        let key = WrapPublic::decode(&unhex(key)).map_err(said)?;
        return Ok(format!("key={}", blake3::hash(key.as_bytes())));
    }
    let drive = DriveId(case.array("drive"));
    let record = case.bytes("record");
    let record: member::Epoch = cbor::decode("epoch", &record).map_err(|e| e.to_string())?;
    let secret = WrapSecret::from_seed(Key::from(case.array("seed")));
    let who = PublicKey(case.array("who"));
    let epoch = Epoch::open(drive, &record, &who, &secret).map_err(said)?;
    let recipients: Vec<_> = case.all("recipient").into_iter().map(recipient).collect();
    if !recipients.is_empty() {
        epoch.check_wraps(&record, &recipients).map_err(said)?;
    }
    let parents: Vec<String> = epoch.parents().map(|id| hex::encode(id.0)).collect();
    Ok(format!(
        "id={} parents={} log={} dedup={} names={} content={} chunker={}",
        hex::encode(epoch.id().0),
        parents.join(","),
        hex::encode(epoch.log_key().as_bytes()),
        hex::encode(epoch.dedup_key().as_bytes()),
        hex::encode(epoch.names_key().as_bytes()),
        hex::encode(epoch.content_key().as_bytes()),
        hex::encode(epoch.chunker_key().as_bytes()),
    ))
}

fn recipient(text: &str) -> Recipient {
    let (who, key) = text.split_once('/').expect("a recipient is who/wrap key");
    let who = PublicKey(unhex(who).try_into().expect("who has 32 bytes"));
    Recipient { who, key: WrapPublic::decode(&unhex(key)).expect("a true wrapping key") }
}

fn said(error: rdrivefs_sync::Error) -> String {
    error.to_string()
}
