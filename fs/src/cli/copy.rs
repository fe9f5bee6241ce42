//! Files into the drive, out of it, and away: put, get and rm.
//!
//! Where the drive is mounted the paths lead through the mount; else its tree is worked on itself.
//! Either way the same copier does the work, so that both keep the same and fail alike.

mod copier;
mod disk;
mod unfinished;
mod side;
mod tree;

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rdrivefs_sync::home::Home;
use rdrivefs_sync::report::DrivePath;
use rdrivefs_sync::tree::words::Kind;

use crate::cli::args::Common;
use crate::cli::{ask, bars, places, say};
use crate::failure::{Exit, Failure, Result};
use copier::{Copier, measure};
use disk::Disk;
use side::{STEP_BYTES, Side, existing};
use tree::{InTree, path_of};
use unfinished::Temporaries;

pub(super) use unfinished::any_killed;

/// The drive's side of a copy, and how its paths are written.
struct Inside<'a> {
    side: &'a dyn Side,
    mount: Option<&'a Path>,
    /// Where this computer keeps what it knows of the drive.
    state: &'a Path,
    common: &'a Common,
}

/// `put FILE… DEST`
pub(super) fn put(common: &Common, paths: &[PathBuf]) -> Result<()> {
    let (to, from) = paths.split_last().expect("clap asks for two");
    within(common, |inside| {
        let dest = inside.path(to)?;
        let folder = inside.side.is_folder(&dest) || ends_in_slash(to);
        only_one_unless(folder, from, to)?;
        let progress = bars::progress(common);
        let tell = |path: &Path, why: Option<&str>| told(common, path, why);
        if bars::is_wanted(common) {
            from.iter().for_each(|file| measure(&Disk, file, &progress));
        }
        let temps = Temporaries::inside(inside.state, inside.root())?;
        let mut copier = Copier::new((&Disk, inside.side), temps, &progress, &tell);
        for file in from {
            let target = target(&dest, folder, file)?;
            make_above(inside.side, &target)?;
            match is_stream(file) {
                true => copier.stream(&target, |take| read_input(take))?,
                false => {
                    not_into_itself(file, &target, inside.mount.is_some())?;
                    copier.copy(file, &target, true)?;
                }
            }
        }
        Ok(())
    })
}

/// `get PATH… DEST`
pub(super) fn get(common: &Common, paths: &[PathBuf]) -> Result<()> {
    let (to, from) = paths.split_last().expect("clap asks for two");
    within(common, |inside| {
        let from: Vec<PathBuf> =
            from.iter().map(|path| inside.path(path)).collect::<Result<_>>()?;
        if is_stream(to) {
            return from.iter().try_for_each(|path| write_output(inside.side, path));
        }
        let folder = Disk.is_folder(to);
        if !folder && ends_in_slash(to) {
            return Err(Failure::words(format!("{} is no folder", to.display()))
                .next("make it first, or leave the / at the end away"));
        }
        only_one_unless(folder, &from, to)?;
        let progress = bars::progress(common);
        let tell = |path: &Path, why: Option<&str>| told(common, path, why);
        if bars::is_wanted(common) {
            from.iter().for_each(|path| measure(inside.side, path, &progress));
        }
        let temps = Temporaries::outside();
        let mut copier = Copier::new((inside.side, &Disk), temps, &progress, &tell);
        for path in &from {
            let target = target(to, folder, path)?;
            not_into_itself(path, &target, inside.mount.is_some())?;
            copier.copy(path, &target, true)?;
        }
        Ok(())
    })
}

/// `rm PATH…`
pub(super) fn remove(common: &Common, paths: &[PathBuf]) -> Result<()> {
    within(common, |inside| {
        let paths: Vec<_> = paths.iter().map(|path| inside.path(path)).collect::<Result<_>>()?;
        for path in &paths {
            if path == Path::new("/") || Some(path.as_path()) == inside.mount {
                return Err(
                    Failure::words("the drive itself cannot be removed").next("name what is in it")
                );
            }
            existing(inside.side, path)?;
        }
        paths.iter().try_for_each(|path| {
            remove_all(inside.side, path)?;
            told(common, path, None);
            Ok(())
        })
    })
}

impl Inside<'_> {
    /// Where the paths of the drive begin.
    fn root(&self) -> &Path {
        self.mount.unwrap_or(Path::new("/"))
    }

    /// A path of the drive as this side takes it.
    fn path(&self, path: &Path) -> Result<PathBuf> {
        match self.mount {
            Some(mount) => {
                let inside = places::drive_path(path, self.common, Some(mount))?;
                Ok(through(mount, &inside))
            }
            None => {
                let common = Common { drive_path: true, ..self.common.clone() };
                Ok(path_of(&places::drive_path(path, &common, None)?))
            }
        }
    }
}

/// Does `work` through the mount, or on the tree, once what killed copies left is out of the way.
fn within(common: &Common, work: impl FnOnce(&Inside<'_>) -> Result<()>) -> Result<()> {
    let home: Home = places::home(common)?;
    let state = &home.state_dir();
    let work = |inside: &Inside<'_>| {
        unfinished::sweep(state, inside.root(), inside.side);
        work(inside)
    };
    if let Some(mount) = ask::mounted_on(&home) {
        return work(&Inside { side: &Disk, mount: Some(&mount), state, common });
    }
    ask::with_drive(common, &home, |drive| {
        work(&Inside { side: &InTree(drive.tree()), mount: None, state, common })
    })
}

fn through(mount: &Path, path: &DrivePath) -> PathBuf {
    let below = path.0.strip_prefix(b"/").unwrap_or(&path.0);
    match below {
        b"" => mount.to_owned(),
        below => mount.join(std::ffi::OsStr::from_bytes(below)),
    }
}

fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn ends_in_slash(path: &Path) -> bool {
    path.as_os_str().as_bytes().ends_with(b"/")
}

fn only_one_unless(folder: bool, from: &[PathBuf], to: &Path) -> Result<()> {
    if folder || from.len() == 1 {
        return Ok(());
    }
    let why = format!("{} is no folder, and several files are to go there", to.display());
    Err(Failure::words(why).next("name a folder that exists as the last path"))
}

/// Where something goes: into the folder under its own name, or to the very path.
fn target(to: &Path, folder: bool, from: &Path) -> Result<PathBuf> {
    match (folder, is_stream(from)) {
        (false, _) => Ok(to.to_owned()),
        (true, true) => Err(Failure::words("standard input has no name of its own")
            .next("say which file in that folder it is to become")),
        // `.` and `..` mean what is in them.
        (true, false) => Ok(from.file_name().map_or_else(|| to.to_owned(), |name| to.join(name))),
    }
}

/// A folder copied into itself would never end.
fn not_into_itself(from: &Path, to: &Path, both_here: bool) -> Result<()> {
    let real = |path: &Path| path.canonicalize().ok();
    if !both_here {
        return Ok(());
    }
    let above = to.parent().and_then(real).zip(to.file_name()).map(|(dir, name)| dir.join(name));
    match (real(from), above) {
        (Some(from), Some(to)) if to.starts_with(&from) => {
            Err(Failure::words(format!("{} cannot be copied into itself", from.display())))
        }
        _ => Ok(()),
    }
}

/// Makes the folders above a path of the drive that are missing.
fn make_above(side: &dyn Side, path: &Path) -> Result<()> {
    let missing = |above: &&Path| !side.is_folder(above);
    let above: Vec<&Path> = path.ancestors().skip(1).take_while(missing).collect();
    above.into_iter().rev().try_for_each(|folder| side.make_folder(folder))
}

fn read_input(take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut input = std::io::stdin().lock();
    let mut buffer = vec![0; STEP_BYTES];
    loop {
        match input.read(&mut buffer).map_err(Failure::io("read standard input"))? {
            0 => return Ok(()),
            n => take(&buffer[..n])?,
        }
    }
}

fn write_output(side: &dyn Side, path: &Path) -> Result<()> {
    if existing(side, path)?.kind == Kind::Directory {
        return Err(Failure::new(Exit::Failed, format!("{} is a folder", path.display()))
            .next("only files can go to standard output"));
    }
    let mut out = std::io::stdout().lock();
    let mut write = |bytes: &[u8]| match out.write_all(bytes) {
        // Who reads it has had enough.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.map_err(Failure::io("write to standard output")),
    };
    side.read(path, &mut write)?;
    out.flush().map_err(Failure::io("write to standard output"))
}

fn remove_all(side: &dyn Side, path: &Path) -> Result<()> {
    let folder = existing(side, path)?.kind == Kind::Directory;
    if folder {
        for name in side.names(path)? {
            let path = path.join(name);
            match remove_all(side, &path) {
                // Somebody else was faster.
                Err(_) if side.meta(&path)?.is_none() => {}
                removed => removed?,
            }
        }
    }
    side.remove(path, folder)
}

/// With `-v` every file is named; what was left out always is.
fn told(common: &Common, path: &Path, why: Option<&str>) {
    match why {
        Some(why) => say::hint(common, &format!("{}: {why}", path.display())),
        None if common.verbose > 0 => eprintln!("{}", path.display()),
        None => {}
    }
}
