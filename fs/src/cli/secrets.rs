//! Passphrases and phrases: asked for, read from files, never taken from an argument.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use rdrivefs_sync::Error;
use rdrivefs_sync::home::Home;
use rdrivefs_sync::keybag::{KdfCost, KdfRequest, Keybag, SALT_BYTES, Unlock, argon2id};
use rdrivefs_sync::keys::Phrase;
use rdrivefs_sync::seal::Key;
use zeroize::Zeroizing;

use crate::cli::args::Common;
use crate::failure::{Exit, Failure, Result};

/// Longest secret that is read: more is no passphrase.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// A passphrase, or that none is needed.
pub(super) type Passphrase = Option<Zeroizing<String>>;

/// The passphrase of a drive that exists, if it needs one.
pub(super) fn existing(home: &Home, common: &Common) -> Result<Passphrase> {
    if !home.has_drive() {
        return Err(Error::NoDrive(home.config_dir().display().to_string()).into());
    }
    if !Keybag::needs_passphrase(&home.keys_file())? {
        return Ok(None);
    }
    match &common.passphrase_file {
        Some(file) => read(file).map(Some),
        None => prompt("Passphrase: ").map(Some),
    }
}

/// A passphrase for a new drive.
pub(super) fn chosen(common: &Common, none: bool) -> Result<Passphrase> {
    new(common.passphrase_file.as_deref(), none)
}

/// A passphrase that is to hold from now on.
pub(super) fn new(file: Option<&Path>, none: bool) -> Result<Passphrase> {
    if none {
        return Ok(None);
    }
    if let Some(file) = file {
        return read(file).map(Some);
    }
    let first = prompt("New passphrase: ")?;
    if first.is_empty() {
        return Err(Failure::words("an empty passphrase protects nothing")
            .next("choose one, or say --no-passphrase"));
    }
    if prompt("Once more: ")? != first {
        return Err(Failure::words("the two are not the same").next("try again"));
    }
    Ok(Some(first))
}

/// Runs `work` with what opens the keys.
pub(super) fn with_unlock<T>(
    passphrase: &Passphrase,
    work: impl FnOnce(&Unlock<'_>) -> Result<T>,
) -> Result<T> {
    match passphrase {
        None => work(&Unlock::KeyFile),
        Some(passphrase) => {
            work(&Unlock::Passphrase(passphrase, KdfCost::DEFAULT, &stretch_elsewhere))
        }
    }
}

/// The phrase in a file, or on standard input.
pub(super) fn phrase(file: &Path) -> Result<Phrase> {
    Ok(Phrase::parse(&read(file)?)?)
}

/// Writes the phrase where only this user can read it.
pub(super) fn write_phrase(file: &Path, phrase: &Phrase) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let what = || Failure::io(format!("write the recovery phrase to {}", file.display()));
    let mut options = std::fs::OpenOptions::new();
    let mut out = options.write(true).create_new(true).mode(0o600).open(file).map_err(what())?;
    let words: Vec<&str> = phrase.words().collect();
    let text = Zeroizing::new(words.join(" "));
    out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n")).map_err(what())?;
    out.sync_all().map_err(what())
}

fn read(file: &Path) -> Result<Zeroizing<String>> {
    let what = || Failure::io(format!("read {}", file.display()));
    let mut text = Zeroizing::new(String::new());
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().take(SECRET_BYTES_MAX).read_to_string(&mut text),
        false => std::fs::File::open(file)
            .and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text)),
    };
    read.map_err(what())?;
    Ok(Zeroizing::new(text.trim_end_matches(['\n', '\r']).to_owned()))
}

pub(super) fn prompt(words: &str) -> Result<Zeroizing<String>> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Locked, "a passphrase is needed, and there is no terminal")
            .next("name a file with --passphrase-file, - for standard input"));
    }
    let typed = rpassword::prompt_password(words).map_err(Failure::io("ask for the passphrase"))?;
    Ok(Zeroizing::new(typed))
}

/// Stretches in a process of its own, whose memory goes with it.
fn stretch_elsewhere(request: &KdfRequest<'_>) -> rdrivefs_sync::Result<Key> {
    let io = || Error::io("stretch the passphrase");
    let own = std::env::current_exe().map_err(io())?;
    let mut child = Command::new(own)
        .arg("__stretch")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(io())?;
    let mut question = Zeroizing::new(Vec::new());
    for number in [request.cost.memory_kib, request.cost.passes, request.cost.lanes] {
        question.extend_from_slice(&number.to_le_bytes());
    }
    question.extend_from_slice(&request.salt);
    question.extend_from_slice(request.passphrase.as_bytes());
    child.stdin.take().expect("it is piped").write_all(&question).map_err(io())?;
    let mut key = Zeroizing::new(Vec::new());
    child.stdout.take().expect("it is piped").read_to_end(&mut key).map_err(io())?;
    let status = child.wait().map_err(io())?;
    let key: Option<[u8; 32]> = key.as_slice().try_into().ok().filter(|_| status.success());
    key.map(Key::from).ok_or(Error::Locked("the passphrase could not be stretched"))
}

/// The other side of it.
pub(super) fn stretch() -> Result<()> {
    let mut question = Zeroizing::new(Vec::new());
    let what = || Failure::io("stretch the passphrase");
    std::io::stdin().take(SECRET_BYTES_MAX).read_to_end(&mut question).map_err(what())?;
    let number = |at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(question.get(at..at + 4)?.try_into().ok()?))
    };
    let parsed = || -> Option<(KdfCost, [u8; SALT_BYTES], &str)> {
        let cost = KdfCost { memory_kib: number(0)?, passes: number(4)?, lanes: number(8)? };
        let salt = question.get(12..12 + SALT_BYTES)?.try_into().ok()?;
        Some((cost, salt, std::str::from_utf8(question.get(12 + SALT_BYTES..)?).ok()?))
    };
    let (cost, salt, passphrase) =
        parsed().ok_or_else(|| Failure::words("this command is rdrivefs' own"))?;
    let key = argon2id(&KdfRequest { passphrase, salt, cost })?;
    std::io::stdout().write_all(key.as_bytes()).map_err(what())
}
