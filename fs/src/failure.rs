//! Failures as a person meets them: what failed, why, what to do next, and an exit code.
//!
//! The one place where errors of the floors below become sentences and numbers. The codes are a
//! contract (man/rdrivefs.1, "EXIT STATUS") and never reused. A failure travels over the control
//! socket as it is, so that a command says the same whether a daemon did the work or not.

use std::fmt;
use std::io::ErrorKind;
use std::process::ExitCode;
use std::sync::LazyLock;

use rdrivefs_sync::error::Posix;
use rdrivefs_sync::remote::error::NoPairing;
use rdrivefs_sync::{Error, remote};
use serde::{Deserialize, Serialize};

use crate::mount::{KNOWN_OPTIONS, MountError};

/// What helps who gave a mount option that is none.
static KNOWN: LazyLock<String> = LazyLock::new(|| format!("known are: {KNOWN_OPTIONS}"));

/// The result of everything a command does.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// How a command ended; the numbers are the process's exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
#[repr(u8)]
pub enum Exit {
    /// It is done.
    Done = 0,
    /// It failed.
    Failed = 1,
    /// The words of the command line or of the configuration were wrong.
    Words = 2,
    /// Something is corrupt or missing.
    Damaged = 3,
    /// No remote could be reached.
    Unreachable = 4,
    /// Refused: it would break a promise.
    Refused = 5,
    /// Locked: the passphrase or the recovery phrase is missing or wrong.
    Locked = 6,
    /// Another process holds it.
    Busy = 7,
}

/// Why a command did not do its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The exit code.
    pub code: Exit,
    /// What failed and why.
    pub error: String,
    /// What to do next, where there is something.
    pub next: Option<String>,
}

impl Failure {
    /// A failure with nothing to advise.
    pub fn new(code: Exit, error: impl Into<String>) -> Self {
        Self { code, error: error.into(), next: None }
    }

    /// The words of the command line were wrong.
    pub fn words(error: impl Into<String>) -> Self {
        Self::new(Exit::Words, error)
    }

    /// The same failure with its next step.
    pub fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }

    /// The same failure with the object it is about.
    pub fn named(self, what: impl fmt::Display) -> Self {
        Self { error: format!("{what}: {}", self.error), ..self }
    }

    /// The local operating system refused.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |e| of_io(&what, &e)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        self.next.as_ref().map_or(Ok(()), |next| write!(f, "\n  {next}"))
    }
}

impl From<Exit> for u8 {
    fn from(exit: Exit) -> Self {
        exit as Self
    }
}

impl TryFrom<u8> for Exit {
    type Error = String;

    fn try_from(code: u8) -> Result<Self, String> {
        use Exit::{Busy, Damaged, Done, Failed, Locked, Refused, Unreachable, Words};
        let all = [Done, Failed, Words, Damaged, Unreachable, Refused, Locked, Busy];
        all.get(usize::from(code)).copied().ok_or_else(|| format!("exit code {code} is unknown"))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if let Error::Remote(inner) = &error {
            return of_remote(inner);
        }
        if let Error::Io { what, source } = &error {
            return of_io(what, source);
        }
        let (code, next) = explain(&error);
        let text = match &error {
            Error::Posix(posix) => posix_sentence(*posix).to_owned(),
            other => other.to_string(),
        };
        Self { code, error: text, next: next.map(str::to_owned) }
    }
}

impl From<remote::Error> for Failure {
    fn from(error: remote::Error) -> Self {
        of_remote(&error)
    }
}

/// The code and the next step of each error of the middle floor.
fn explain(error: &Error) -> (Exit, Option<&'static str>) {
    match error {
        Error::Posix(Posix::NoSpace) => (
            Exit::Failed,
            Some("free some space on this disk, or run `rdrivefs evict --free SIZE`"),
        ),
        Error::Locked(_) => (
            Exit::Locked,
            Some("give the passphrase at the prompt, or name a file with --passphrase-file"),
        ),
        Error::Phrase(_) => (
            Exit::Locked,
            Some("compare it with what was written down: 24 words, the same node as before"),
        ),
        Error::Code(_) => (
            Exit::Words,
            Some("copy it whole, or print another on a device of the drive: `rdrivefs device add`"),
        ),
        Error::Declined => {
            (Exit::Refused, Some("compare the fingerprints there, and try again with a new code"))
        }
        Error::InUse(_) => (
            Exit::Busy,
            Some("wait for the other rdrivefs to end, or unmount the drive: `rdrivefs unmount`"),
        ),
        Error::NoDrive(_) => (
            Exit::Failed,
            Some("make one with `rdrivefs init`, or name another with --drive or RDRIVEFS_HOME"),
        ),
        Error::DriveExists(_) => (
            Exit::Failed,
            Some("use it as it is, or name another with --drive NAME or RDRIVEFS_HOME"),
        ),
        Error::IndexLost(_) => (
            Exit::Damaged,
            Some(
                "`rdrivefs doctor --repair` puts another in its place; where it cannot, move this \
                 drive's directories away, keep them for what was not sent, and come back from \
                 the phrase and a node: `rdrivefs init --recover FILE --remote URL`",
            ),
        ),
        Error::Corrupt { .. } => {
            (Exit::Damaged, Some("run `rdrivefs doctor` to see what can be mended"))
        }
        Error::UnknownVersion { .. } => {
            (Exit::Failed, Some("a newer rdrivefs wrote it: install that version"))
        }
        Error::Config { .. } => {
            (Exit::Words, Some("correct that line; rdrivefs.toml(5) lists every key"))
        }
        Error::Refused(_) => (Exit::Refused, None),
        Error::NoRemote(_) => (
            Exit::Unreachable,
            Some("see `rdrivefs remote list`; add one with `rdrivefs remote add NAME URL`"),
        ),
        Error::Index(_) => {
            (Exit::Failed, Some("run `rdrivefs doctor` to see whether the index is damaged"))
        }
        _ => (Exit::Failed, None),
    }
}

fn of_remote(error: &remote::Error) -> Failure {
    use remote::Error as Remote;
    let (code, next) = match error {
        Remote::Missing(_) | Remote::Corrupt { .. } | Remote::Forged(_) => {
            (Exit::Damaged, Some("run `rdrivefs verify` to see what else that remote lost"))
        }
        Remote::Malformed { .. } => {
            (Exit::Damaged, Some("the other side may not be an rdrivefs-node, or a broken one"))
        }
        Remote::NodeKeyChanged { .. } => (
            Exit::Refused,
            Some(
                "somebody may stand between: ask the node's keeper for its fingerprint, and only \
                 then `rdrivefs remote trust NAME FINGERPRINT`",
            ),
        ),
        Remote::Refused(_) => {
            (Exit::Failed, Some("ask the node's keeper to allow this drive, or for a new invite"))
        }
        Remote::Pairing(NoPairing::Unknown) => (
            Exit::Refused,
            Some(
                "it may be an old one, or the node was restarted: print another on a device of \
                 the drive with `rdrivefs device add`",
            ),
        ),
        Remote::Pairing(_) => {
            (Exit::Refused, Some("print another on a device of the drive: `rdrivefs device add`"))
        }
        Remote::Quota { .. } => {
            (Exit::Failed, Some("ask the node's keeper for more room, or add another remote"))
        }
        Remote::Full => (Exit::Failed, Some("free some space there, or add another remote")),
        Remote::UnknownVersion { .. } => {
            (Exit::Failed, Some("the other side is newer: install that version here too"))
        }
        Remote::Unreachable(_) | Remote::TimedOut(_) | Remote::Busy { .. } => (
            Exit::Unreachable,
            Some("check that the node runs and that UDP to its port gets through"),
        ),
        Remote::Io { what, source } => return of_io(what, source),
        _ => (Exit::Failed, None),
    };
    Failure { code, error: error.to_string(), next: next.map(str::to_owned) }
}

fn of_io(what: &str, error: &std::io::Error) -> Failure {
    let next = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Some("the disk is full: free some space, or run `rdrivefs evict --free SIZE`")
        }
        ErrorKind::PermissionDenied => Some("run it as the owner of that file"),
        ErrorKind::ReadOnlyFilesystem => Some("that filesystem is mounted read-only"),
        _ => None,
    };
    let failure = Failure::new(Exit::Failed, format!("{what}: {error}"));
    Failure { next: next.map(str::to_owned), ..failure }
}

impl From<MountError> for Failure {
    fn from(error: MountError) -> Self {
        let code = match &error {
            MountError::Option { .. } => Exit::Words,
            MountError::Taken { .. } | MountError::Busy { .. } => Exit::Busy,
            MountError::InsideItself { .. } => Exit::Refused,
            _ => Exit::Failed,
        };
        let next = match &error {
            MountError::Option { .. } => Some(KNOWN.as_str()),
            MountError::Busy { .. } => Some("close what has files open there, then unmount again"),
            MountError::NoParent { .. } => Some("make that folder first, or mount elsewhere"),
            MountError::InsideItself { .. } => {
                Some("mount elsewhere, or put RDRIVEFS_HOME outside the folder")
            }
            _ => None,
        };
        Self { code, error: error.to_string(), next: next.map(str::to_owned) }
    }
}

/// What a refused filesystem call means to a person.
fn posix_sentence(posix: Posix) -> &'static str {
    match posix {
        Posix::NoEntry => "no such file or directory",
        Posix::Exists => "it exists already",
        Posix::NotDirectory => "not a directory",
        Posix::IsDirectory => "it is a directory",
        Posix::NotEmpty => "the directory is not empty",
        Posix::NameTooLong => "the name is too long",
        Posix::Invalid => "invalid argument",
        Posix::NoData => "no such attribute",
        Posix::TooBig => "too big",
        Posix::TooManyLinks => "too many links",
        Posix::NotPermitted => "not permitted",
        Posix::NoSpace => "no space left",
        Posix::NotSupported => "not supported",
        Posix::OutOfRange => "out of range",
        Posix::NoSuchOffset => "no such offset",
        Posix::Stale => "the file is gone",
        Posix::NoMemory => "out of memory",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdrivefs_sync::remote::blob::BlobId;

    fn code(error: Error) -> u8 {
        Failure::from(error).code.into()
    }

    #[test]
    fn codes_are_those_of_the_contract() {
        let far = |error: remote::Error| code(error.into());
        assert_eq!(code(Error::NoDrive("x".into())), 1);
        assert_eq!(code(Error::DriveExists("x".into())), 1);
        assert_eq!(code(Posix::NoSpace.into()), 1);
        let config = Error::Config { file: "f".into(), line: 3, why: "w".into() };
        assert_eq!(code(config), 2);
        assert_eq!(code(Error::corrupt("index", "tag")), 3);
        assert_eq!(code(Error::IndexLost("x".into())), 3);
        assert_eq!(far(remote::Error::Missing(BlobId::of(b"x"))), 3);
        assert_eq!(far(remote::Error::Corrupt { id: BlobId::of(b"x"), offset: 1 }), 3);
        assert_eq!(code(Error::NoRemote("x".into())), 4);
        assert_eq!(far(remote::Error::Unreachable("x".into())), 4);
        assert_eq!(far(remote::Error::TimedOut(1)), 4);
        assert_eq!(code(Error::Refused("x".into())), 5);
        let changed = remote::Error::NodeKeyChanged { pinned: "a".into(), shown: "b".into() };
        assert_eq!(far(changed), 5);
        for why in [NoPairing::Unknown, NoPairing::Expired, NoPairing::Used] {
            assert_eq!(far(remote::Error::Pairing(why)), 5);
        }
        assert_eq!(code(Error::Declined), 5);
        assert_eq!(code(Error::Code("x".into())), 2);
        assert_eq!(code(Error::Locked("x")), 6);
        assert_eq!(code(Error::Phrase("x".into())), 6);
        assert_eq!(code(Error::InUse("x".into())), 7);
        let busy = MountError::Busy { point: "/d".into() };
        assert_eq!(u8::from(Failure::from(busy).code), 7);
    }

    #[test]
    fn what_a_person_can_mend_says_how() {
        for error in [
            Error::Locked("x"),
            Error::Phrase("x".into()),
            Error::InUse("x".into()),
            Error::NoDrive("x".into()),
            Error::IndexLost("x".into()),
            Error::corrupt("x", "y"),
            Error::NoRemote("x".into()),
            Error::UnknownVersion { what: "x".into(), version: 9 },
            remote::Error::Full.into(),
            remote::Error::Pairing(NoPairing::Used).into(),
            Error::Code("x".into()),
            Error::Declined,
            Error::io("x")(ErrorKind::StorageFull.into()),
        ] {
            assert!(Failure::from(error).next.is_some());
        }
    }

    #[test]
    fn a_failure_survives_the_socket_and_unknown_codes_are_refused() {
        let failure = Failure::words("no").next("yes");
        let json = serde_json::to_string(&failure).unwrap();
        assert_eq!(json, r#"{"code":2,"error":"no","next":"yes"}"#);
        assert_eq!(serde_json::from_str::<Failure>(&json).unwrap(), failure);
        assert!(serde_json::from_str::<Failure>(&json.replace('2', "8")).is_err());
    }
}
