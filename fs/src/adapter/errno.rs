//! The one place where an error becomes an errno.

use fuser::Errno;
use rdrivefs_sync::error::Posix;
use rdrivefs_sync::{Error, remote};

/// The errno of `error`; what is not the caller's doing is logged, since an errno says so little.
pub(super) fn errno(op: &'static str, error: &Error) -> Errno {
    if !matches!(error, Error::Posix(_)) {
        tracing::error!(op, %error, "a filesystem call failed");
    }
    match error {
        Error::Posix(posix) => of_posix(*posix),
        // "Network is unreachable" tells whoever reads an evicted file offline what to do.
        Error::NoRemote(_) => Errno::ENETUNREACH,
        Error::Remote(e) => of_remote(e),
        Error::Io { source, .. } => of_io(source),
        Error::Refused(_) => Errno::EPERM,
        // A drive that is mounted is unlocked and there; these come from elsewhere, or are news.
        Error::Locked(_)
        | Error::Phrase(_)
        | Error::InUse(_)
        | Error::NoDrive(_)
        | Error::DriveExists(_)
        | Error::IndexLost(_)
        | Error::Corrupt { .. }
        | Error::UnknownVersion { .. }
        | Error::Index(_) => Errno::EIO,
        _ => Errno::EIO,
    }
}

fn of_posix(posix: Posix) -> Errno {
    match posix {
        Posix::NoEntry => Errno::ENOENT,
        Posix::Exists => Errno::EEXIST,
        Posix::NotDirectory => Errno::ENOTDIR,
        Posix::IsDirectory => Errno::EISDIR,
        Posix::NotEmpty => Errno::ENOTEMPTY,
        Posix::NameTooLong => Errno::ENAMETOOLONG,
        Posix::Invalid => Errno::EINVAL,
        Posix::NoData => Errno::ENODATA,
        // The kernel refuses oversized attributes itself, so what is too big is a file.
        Posix::TooBig => Errno::EFBIG,
        Posix::TooManyLinks => Errno::EMLINK,
        Posix::NotPermitted => Errno::EPERM,
        Posix::NoSpace => Errno::ENOSPC,
        // ENOSYS would make the kernel stop asking for the whole mount.
        Posix::NotSupported => Errno::EOPNOTSUPP,
        Posix::OutOfRange => Errno::ERANGE,
        Posix::NoSuchOffset => Errno::ENXIO,
        Posix::Stale => Errno::ESTALE,
        Posix::NoMemory => Errno::ENOMEM,
    }
}

fn of_remote(error: &remote::Error) -> Errno {
    match error {
        remote::Error::Unreachable(_) => Errno::ENETUNREACH,
        remote::Error::TimedOut(_) | remote::Error::Busy { .. } => Errno::ETIMEDOUT,
        remote::Error::Io { source, .. } => of_io(source),
        _ => Errno::EIO,
    }
}

fn of_io(error: &std::io::Error) -> Errno {
    use rustix::io::Errno as Os;
    match error.raw_os_error().map(Os::from_raw_os_error) {
        // A full disk under the journal is a full disk to the writer.
        Some(Os::NOSPC | Os::DQUOT) => Errno::ENOSPC,
        Some(Os::NOMEM) => Errno::ENOMEM,
        _ => Errno::EIO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_no_space_and_damage_is_an_io_error() {
        let full = std::io::Error::from_raw_os_error(Errno::ENOSPC.code());
        assert_eq!(errno("write", &Error::io("journal")(full)).code(), Errno::ENOSPC.code());
        assert_eq!(errno("read", &Error::corrupt("layer", "tag")).code(), Errno::EIO.code());
        assert_eq!(errno("lookup", &Posix::NoEntry.into()).code(), Errno::ENOENT.code());
    }
}
