//! One error for the floor: what failed, where, and what kind of failure it is.

use std::io::ErrorKind;

use rdrivefs_remote as remote;

/// The result of everything on this floor.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a filesystem call is refused; each has one errno on the floor above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each variant is the POSIX error of that name")]
pub enum Posix {
    NoEntry,
    Exists,
    NotDirectory,
    IsDirectory,
    NotEmpty,
    NameTooLong,
    Invalid,
    NoData,
    TooBig,
    TooManyLinks,
    NotPermitted,
    NoSpace,
    NotSupported,
    OutOfRange,
    NoSuchOffset,
    Stale,
    NoMemory,
}

/// What went wrong with a drive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A filesystem call that cannot be granted.
    #[error("{0:?}")]
    Posix(Posix),
    /// The passphrase is missing or wrong.
    #[error("locked: {0}")]
    Locked(&'static str),
    /// The recovery phrase is not one, or not this drive's.
    #[error("recovery phrase: {0}")]
    Phrase(String),
    /// A pairing code is none, or what came under it is not what it must be.
    #[error("pairing code: {0}")]
    Code(String),
    /// The person at the other device said no.
    #[error("the other device did not let this one in")]
    Declined,
    /// Another process holds the drive.
    #[error("the drive in {0} is in use by another process")]
    InUse(String),
    /// There is no drive where one was looked for.
    #[error("there is no drive in {0}")]
    NoDrive(String),
    /// There is a drive, and the index it had is gone: begun anew it would be an empty drive.
    #[error("the index {0} is missing or empty, and this drive had one")]
    IndexLost(String),
    /// There is a drive where a new one was to be made.
    #[error("there is a drive in {0} already")]
    DriveExists(String),
    /// Stored bytes of ours do not open: changed, cut short, or somebody else's.
    #[error("{what} is damaged: {why}")]
    Corrupt {
        /// The object, with its place.
        what: String,
        /// Which check failed.
        why: String,
    },
    /// A format this build does not know.
    #[error("{what} has format version {version}, which this build does not know")]
    UnknownVersion {
        /// The object, with its place.
        what: String,
        /// The version it claims.
        version: u64,
    },
    /// A setting that is unknown, of a wrong kind or out of range.
    #[error("{file}, line {line}: {why}")]
    Config {
        /// The file it stands in.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong, with the name of the key.
        why: String,
    },
    /// It would break a promise.
    #[error("refused: {0}")]
    Refused(String),
    /// No remote that could answer is configured or reachable.
    #[error("no remote could be reached: {0}")]
    NoRemote(String),
    /// The floor below failed.
    #[error(transparent)]
    Remote(#[from] remote::Error),
    /// The index database failed.
    #[error("index: {0}")]
    Index(#[from] rusqlite::Error),
    /// The local operating system refused.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the name of the object.
        what: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Whether the same request may succeed later without anyone changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Remote(e) => e.is_transient(),
            Self::NoRemote(_) => true,
            _ => false,
        }
    }

    /// The same once more, for others who waited for the same thing; none unless it is transient.
    pub fn again(&self) -> Option<Self> {
        use remote::Error as Remote;
        match self {
            Self::NoRemote(why) => Some(Self::NoRemote(why.clone())),
            Self::Remote(Remote::Unreachable(why)) => Some(Remote::Unreachable(why.clone()).into()),
            Self::Remote(Remote::TimedOut(ms)) => Some(Remote::TimedOut(*ms).into()),
            Self::Remote(Remote::Busy { retry_ms }) => {
                Some(Remote::Busy { retry_ms: *retry_ms }.into())
            }
            _ => None,
        }
    }

    /// Whether one side does not take what the other has: it would be the same again, and holds up
    /// nothing else.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Corrupt { .. } | Self::Refused(_) | Self::UnknownVersion { .. } => true,
            Self::Remote(e) => !e.is_transient(),
            _ => false,
        }
    }

    /// Whether bytes are provably wrong or gone.
    pub fn is_corrupt(&self) -> bool {
        match self {
            Self::Corrupt { .. } | Self::IndexLost(_) => true,
            Self::Remote(e) => e.is_corrupt() || e.is_missing(),
            _ => false,
        }
    }

    /// Wraps an I/O error with what was being done; a full disk or quota is [`Posix::NoSpace`]
    /// wherever it is met, since those who can make room ask for it.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Posix::NoSpace.into(),
            _ => Self::Io { what, source },
        }
    }

    /// An object of ours that does not open.
    pub fn corrupt(what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::Corrupt { what: what.into(), why: why.to_string() }
    }
}

impl From<Posix> for Error {
    fn from(posix: Posix) -> Self {
        Self::Posix(posix)
    }
}
