//! A file as it was: `FILE@VERSION`, `FILE@TIME`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::cli::when;
use crate::control::Which;

/// `PATH`, `PATH@VERSION` or `PATH@TIME`. A file whose own name ends so is taken for itself.
pub(super) fn version_of(path: &Path) -> (PathBuf, Which) {
    let bytes = path.as_os_str().as_bytes();
    let whole = || (path.to_owned(), Which::Before);
    let Some(at) = bytes.iter().rposition(|b| *b == b'@') else { return whole() };
    let (file, Ok(said)) = (&bytes[..at], std::str::from_utf8(&bytes[at + 1..])) else {
        return whole();
    };
    let hex = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_hexdigit());
    let which = match (said.split_once('-'), when::moment_ms(said)) {
        (Some((device, number)), _) if hex(device) && hex(number) => Which::Id(said.to_owned()),
        (_, Ok(ms)) => Which::AtMs(ms),
        _ => return whole(),
    };
    if file.is_empty() || path.symlink_metadata().is_ok() {
        return whole();
    }
    (PathBuf::from(OsStr::from_bytes(file)), which)
}
