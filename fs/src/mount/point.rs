//! The folder a drive is mounted on: whether it may be, and what a dead mount left on it.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::attach::{KIND, detach};
use super::error::MountError;
use super::options::Options;

/// Dead mounts that may lie on each other before it is taken for something else.
const DEAD_MAX: usize = 16;

/// Makes `dir` ready to be mounted on, or says why it cannot be; `state` are the directories the
/// drive itself lives in, none of which may lie inside the mount, nor the mount inside them.
pub(super) fn prepare(
    dir: &Path,
    options: &Options,
    state: &[PathBuf],
) -> Result<PathBuf, MountError> {
    let point = resolve(dir)?;
    for own in state.iter().filter_map(|own| own.canonicalize().ok()) {
        if own.starts_with(&point) || point.starts_with(&own) {
            return Err(MountError::InsideItself { point, state: own });
        }
    }
    if let Some(kind) = mounted(&point)? {
        return Err(MountError::Taken { point, kind });
    }
    match std::fs::read_dir(&point).map(|mut entries| entries.next().is_some()) {
        Ok(true) if !options.nonempty => Err(MountError::NotEmpty { point }),
        Ok(_) => Ok(point),
        Err(e) if e.kind() == ErrorKind::NotADirectory => Err(MountError::NotDirectory { point }),
        Err(source) => Err(MountError::io("reading the mount point", &point)(source)),
    }
}

/// The absolute path of the folder, made if it is missing and freed if a dead mount lies on it.
fn resolve(dir: &Path) -> Result<PathBuf, MountError> {
    for _ in 0..DEAD_MAX {
        match dir.canonicalize().and_then(|point| probe(&point).map(|()| point)) {
            Ok(point) => return Ok(point),
            Err(e) if is_dead(&e) => heal(&beside(dir)?)?,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let point = beside(dir)?;
                std::fs::create_dir(&point)
                    .map_err(MountError::io("making the mount point", &point))?;
            }
            Err(source) => return Err(MountError::io("looking at the mount point", dir)(source)),
        }
    }
    Err(MountError::Taken { point: dir.into(), kind: "dead mounts that do not go away".into() })
}

/// The path of a folder that cannot be looked at, by way of its parent.
fn beside(dir: &Path) -> Result<PathBuf, MountError> {
    let name = dir.file_name().ok_or_else(|| MountError::NoParent { point: dir.into() })?;
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let parent = parent.canonicalize().map_err(|_| MountError::NoParent { point: dir.into() })?;
    Ok(parent.join(name))
}

/// Takes away a mount of ours whose program has died.
fn heal(point: &Path) -> Result<(), MountError> {
    match mounted(point)? {
        Some(kind) if kind == KIND => {
            tracing::warn!(point = %point.display(), "taking away what a dead mount left");
            detach(point, true)
        }
        kind => {
            let kind = kind.unwrap_or_else(|| "a filesystem that does not answer".into());
            Err(MountError::Taken { point: point.into(), kind })
        }
    }
}

/// Whether a mount lies on `point` whose program has gone.
pub fn is_dead_mount(point: &Path) -> bool {
    probe(point).is_err_and(|e| is_dead(&e))
}

/// Takes away the mounts of ours on `point` whose programs have gone.
///
/// # Errors
/// When one is of another kind, or does not go away.
pub fn clear_dead(point: &Path) -> Result<(), MountError> {
    for _ in 0..DEAD_MAX {
        if !is_dead_mount(point) {
            return Ok(());
        }
        heal(point)?;
    }
    Err(MountError::Taken { point: point.into(), kind: "dead mounts that do not go away".into() })
}

/// Asks the filesystem at `point` for an answer: attributes may come from the kernel's memory even
/// when nobody serves it, this does not.
pub(super) fn probe(point: &Path) -> std::io::Result<()> {
    Ok(rustix::fs::statfs(point).map(drop)?)
}

/// Whether a mount answers that its program is gone.
pub(super) fn is_dead(error: &std::io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    matches!(errno, Some(Errno::NOTCONN | Errno::CONNABORTED))
}

/// The kind of filesystem mounted on top of `point`, if one is.
pub(super) fn mounted(point: &Path) -> Result<Option<String>, MountError> {
    Ok(mounted_as(point)?.map(|(kind, _)| kind))
}

/// The same with the minor number of its device, which no other mount has while it lives.
pub(super) fn mounted_as(point: &Path) -> Result<Option<(String, u32)>, MountError> {
    const TABLE: &str = "/proc/self/mountinfo";
    let table = std::fs::read(TABLE)
        .map_err(MountError::io("reading the table of mounts", Path::new(TABLE)))?;
    Ok(topmost(&table, point))
}

fn topmost(table: &[u8], point: &Path) -> Option<(String, u32)> {
    table.split(|b| *b == b'\n').rev().find_map(|line| {
        let mut fields = line.split(|b| *b == b' ');
        let device = std::str::from_utf8(fields.nth(2)?).ok()?;
        let on = unescape(fields.nth(1)?);
        if Path::new(&on) != point {
            return None;
        }
        let kind = fields.skip_while(|field| field != b"-").nth(1)?;
        let minor = device.split_once(':')?.1.parse().ok()?;
        Some((OsStr::from_bytes(kind).to_string_lossy().into_owned(), minor))
    })
}

/// A path of the table of mounts, in which blanks and backslashes are written in octal.
fn unescape(field: &[u8]) -> OsString {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_mount_is_found_under_an_escaped_name() {
        let table = b"22 1 8:1 / / rw - ext4 /dev/sda rw\n\
            40 22 0:5 / /a\\040b rw,nosuid shared:7 - tmpfs tmpfs rw\n\
            41 40 0:6 / /a\\040b rw - fuse.rdrivefs rdrivefs rw\n";
        assert_eq!(topmost(table, Path::new("/a b")).unwrap(), ("fuse.rdrivefs".into(), 6));
        assert_eq!(topmost(table, Path::new("/")).unwrap(), ("ext4".into(), 1));
        assert_eq!(topmost(table, Path::new("/a")), None);
    }

    #[test]
    fn a_folder_is_made_but_not_its_parents() {
        let root = tempfile::tempdir().unwrap();
        let point = root.path().join("Drive");
        let made = prepare(&point, &Options::default(), &[]).unwrap();
        assert!(made.is_dir());
        let deep = prepare(&root.path().join("a/b"), &Options::default(), &[]);
        assert!(matches!(deep, Err(MountError::NoParent { .. })));
    }

    #[test]
    fn a_full_folder_a_file_and_a_state_directory_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let full = root.path().join("full");
        std::fs::create_dir_all(full.join("state/deep")).unwrap();
        std::fs::write(full.join("file"), b"x").unwrap();
        let options = Options::default();
        let refused = |dir: &Path, state: &[PathBuf]| prepare(dir, &options, state).unwrap_err();
        assert!(matches!(refused(&full, &[]), MountError::NotEmpty { .. }));
        assert!(matches!(refused(&full.join("file"), &[]), MountError::NotDirectory { .. }));
        let state = [full.join("state")];
        assert!(matches!(refused(&full, &state), MountError::InsideItself { .. }));
        let deep = full.join("state/deep");
        assert!(matches!(refused(&deep, &state), MountError::InsideItself { .. }));
        let covering = options.clone().parse("nonempty").unwrap();
        assert!(prepare(&full, &covering, &[]).is_ok());
    }
}
