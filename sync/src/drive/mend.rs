//! Mending an index that is lost or damaged: what is damaged is set aside, never removed, and a new
//! one takes its place, whole, at once. Killed at any time it can be begun again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rdrivefs_remote::env::Env;

use crate::error::{Error, Result};
use crate::home::{Home, Lock, remove_file};
use crate::id::DeviceNumber;
use crate::index::{APPLIED, Index, with_ending};
use crate::keybag::{Keybag, Secrets, Unlock};
use crate::progress::Progress;

use super::parts::{Drive, runtime};
use super::rebuild::{self, Rebuilt};

/// What belongs to a database, the database first: without it nobody takes the rest for one.
const ENDINGS: [&str; 3] = ["", "-wal", "-shm"];

/// What became of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MendedIndex {
    /// What is left of the damaged one, if anything was.
    pub aside: Option<PathBuf>,
    /// Where the new one comes from.
    pub origin: Origin,
}

/// What is wrong with an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It does not open.
    Lost,
    /// The journal does not go back to where it stands.
    Behind,
    /// It opens, so what was not sent can be, and some of it is damaged.
    Partial,
}

/// Where an index was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Its spare: nothing is missing.
    Spare,
    /// The logs on remotes: nothing is missing that was sent.
    Remotes {
        /// Those that answered, by name.
        from: Vec<String>,
        /// Those that did not, with why.
        silent: Vec<String>,
        /// The first log that was refused, in words.
        refused: Option<String>,
        /// The number under which this device goes on.
        number: u16,
        /// When this device made the last commit that was found there.
        sent_ms: Option<u64>,
        /// Where the journal lies that nothing can be built on.
        journal: PathBuf,
    },
}

impl Drive {
    /// Puts another index in the place of one that is lost or damaged, while nobody has the drive
    /// open: its spare, which stands where the index stood when it was last made durable, and the
    /// journal has what came since. Where there is no whole spare of one that is lost, one that is
    /// made of what the remotes have; the journal cannot be applied to that, and is set aside.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Locked`]; [`Error::IndexLost`] when there is nothing to make one
    /// of; [`Error::NoRemote`] when no remote answers; [`Error::Refused`] when the spare is no newer
    /// than an index that is behind. Nothing was changed then.
    pub fn mend_index(
        home: &Home,
        unlock: &Unlock<'_>,
        env: &Env,
        fault: Fault,
        progress: &Progress,
    ) -> Result<MendedIndex> {
        let lock = home.lock()?;
        let mut keybag = Keybag::open(&home.keys_file(), unlock)?;
        let new = with_ending(&home.index_file(), ".new");
        match from_spare(home, &new, keybag.secrets(), env) {
            Ok(()) => {}
            Err(e) if e.is_corrupt() && fault == Fault::Lost => {
                let rebuilt = ask_remotes(home, &new, keybag.secrets(), env, progress)?;
                keybag.update(env, |secrets| *secrets = rebuilt.secrets.clone())?;
                return finish(home, unlock, env, lock, rebuilt, progress);
            }
            Err(e) => return Err(e),
        }
        let stands = |path: &Path| {
            let index = Index::reopen(path, &keybag.secrets().local, env.clone())?;
            Ok::<_, Error>(index.number(APPLIED)?.unwrap_or(0))
        };
        if fault == Fault::Behind && stands(&new)? <= stands(&home.index_file())? {
            remove(&new)?;
            return Err(Error::Refused("the spare of the index is no newer".into()));
        }
        let aside = set_aside(&home.index_file(), env)?;
        name(&new, home)?;
        Ok(MendedIndex { aside, origin: Origin::Spare })
    }
}

fn ask_remotes(
    home: &Home,
    new: &Path,
    old: &Secrets,
    env: &Env,
    progress: &Progress,
) -> Result<Rebuilt> {
    let runtime = runtime()?;
    let rebuilt = rebuild::from_remotes(home, new, old, env, runtime.handle(), progress);
    if rebuilt.is_err() {
        remove(new)?;
    }
    rebuilt
}

/// Puts what the remotes gave in the place of what was here.
fn finish(
    home: &Home,
    unlock: &Unlock<'_>,
    env: &Env,
    lock: Lock,
    rebuilt: Rebuilt,
    progress: &Progress,
) -> Result<MendedIndex> {
    let aside = set_aside(&home.index_file(), env)?;
    set_aside(&home.spare_dir().join("index"), env)?;
    let journal = other_name(&home.journal_dir(), env);
    if home.journal_dir().exists() {
        let what = "set the journal aside";
        fs::rename(home.journal_dir(), &journal).map_err(Error::io(what))?;
    }
    name(&with_ending(&home.index_file(), ".new"), home)?;
    // From here on it is told what was done, whatever comes.
    let (sent_ms, refused) = match apply(home, unlock, env, lock, rebuilt.before, progress) {
        Ok(sent_ms) => (sent_ms, None),
        Err(e) => (None, Some(e.to_string())),
    };
    let origin = Origin::Remotes {
        from: rebuilt.from,
        silent: rebuilt.silent,
        refused: rebuilt.refused.or(refused),
        number: rebuilt.secrets.number.0,
        sent_ms,
        journal,
    };
    Ok(MendedIndex { aside, origin })
}

/// Applies what the new index has of all logs; returns when the device that was `before` made its
/// last commit there.
fn apply(
    home: &Home,
    unlock: &Unlock<'_>,
    env: &Env,
    lock: Lock,
    before: DeviceNumber,
    progress: &Progress,
) -> Result<Option<u64>> {
    let drive = Drive::open_locked(home, unlock, env.clone(), lock)?;
    let applied = drive.parts.merger.apply_all(progress);
    let before = drive.devices()?.into_iter().find(|device| device.number == before.0);
    drive.shutdown()?;
    applied.map(|_| before.and_then(|device| device.head_ms))
}

/// Whether an index lies aside: what nobody needs else may be needed by it.
pub(super) fn is_any_aside(home: &Home) -> bool {
    let Ok(files) = fs::read_dir(home.state_dir()) else { return true };
    let aside = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b"index.damaged-");
    files.flatten().any(|file| aside(&file.file_name()))
}

/// Makes an index of what lies in the spare, and opens all of it once.
fn from_spare(home: &Home, new: &Path, secrets: &Secrets, env: &Env) -> Result<()> {
    let spare = home.spare_dir().join("index");
    remove(new)?;
    if !spare.exists() {
        return Err(Error::IndexLost(home.index_file().display().to_string()));
    }
    // The spare itself stays as it is until all is done.
    for ending in &ENDINGS[..2] {
        let from = with_ending(&spare, ending);
        if from.exists() {
            let what = format!("copy {}", from.display());
            fs::copy(&from, with_ending(new, ending)).map_err(Error::io(what))?;
        }
    }
    let whole = || {
        let index = Index::reopen(new, &secrets.local, env.clone())?;
        index.check_whole()?;
        index.checkpoint()
    };
    if let Err(e) = whole() {
        remove(new)?;
        return Err(e);
    }
    let synced = File::open(new).and_then(|file| file.sync_all());
    synced.map_err(Error::io("sync the new index"))
}

/// Removes a database that nobody needs.
fn remove(path: &Path) -> Result<()> {
    ENDINGS.iter().try_for_each(|ending| remove_file(&with_ending(path, ending)))
}

/// Gives what is left of a database another name.
fn set_aside(index: &Path, env: &Env) -> Result<Option<PathBuf>> {
    let dir = index.parent().expect("an index lies in a directory");
    let aside = other_name(index, env);
    for ending in ENDINGS {
        let from = with_ending(index, ending);
        if from.exists() {
            let what = format!("set {} aside", from.display());
            fs::rename(&from, with_ending(&aside, ending)).map_err(Error::io(what))?;
            // A log must never be left beside an index that it does not belong to.
            sync_dir(dir)?;
        }
    }
    Ok(ENDINGS.iter().any(|ending| with_ending(&aside, ending).exists()).then_some(aside))
}

fn other_name(path: &Path, env: &Env) -> PathBuf {
    with_ending(path, &format!(".damaged-{}", env.wall_ms().0 / 1_000))
}

fn name(new: &Path, home: &Home) -> Result<()> {
    fs::rename(new, home.index_file()).map_err(Error::io("name the index"))?;
    sync_dir(&home.state_dir())
}

fn sync_dir(dir: &Path) -> Result<()> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(Error::io(format!("sync {}", dir.display())))
}
