//! What can go wrong with a mount, in sentences that say what to do next.

use std::io;
use std::path::{Path, PathBuf};

/// Why a folder could not be mounted, or not be unmounted.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the sentences say what the fields are")]
pub enum MountError {
    #[error("mount option '{option}': {why}")]
    Option { option: String, why: String },
    #[error("{point} cannot be made: the folder around it does not exist")]
    NoParent { point: PathBuf },
    #[error("{point} is not a folder")]
    NotDirectory { point: PathBuf },
    #[error("{point} is not empty; choose an empty folder, or cover it with -o nonempty")]
    NotEmpty { point: PathBuf },
    #[error("{point} has a mount on it already ({kind}); unmount it first")]
    Taken { point: PathBuf, kind: String },
    #[error("{point} and the drive's own files in {state} would lie inside each other")]
    InsideItself { point: PathBuf, state: PathBuf },
    #[error("{point} is in use; close what has files open in it")]
    Busy { point: PathBuf },
    #[error("/dev/fuse cannot be opened ({source}); is the kernel module 'fuse' loaded?")]
    NoFuse { source: io::Error },
    #[error("fusermount3 cannot be run ({source}); install the package 'fuse3'")]
    NoHelper { source: io::Error },
    #[error("fusermount3 refused: {why}")]
    Helper { why: String },
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

impl MountError {
    pub(super) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
