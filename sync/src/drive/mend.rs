//! Mending an index that is lost or damaged: what is damaged is set aside, never removed, and a new
//! one takes its place, whole, at once. Killed at any time it can be begun again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rdrivefs_remote::env::Env;

use crate::error::{Error, Result};
use crate::home::{Home, remove_file};
use crate::index::{APPLIED, Index, with_ending};
use crate::keybag::{Keybag, Secrets, Unlock};

use super::parts::Drive;

/// What belongs to a database, the database first: without it nobody takes the rest for one.
const ENDINGS: [&str; 3] = ["", "-wal", "-shm"];

/// What became of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MendedIndex {
    /// What is left of the damaged one, if anything was.
    pub aside: Option<PathBuf>,
}

impl Drive {
    /// Puts another index in the place of one that is lost or damaged, while nobody has the drive
    /// open: its spare, which stands where the index stood when it was last made durable; the journal
    /// has what came since.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Locked`]; [`Error::IndexLost`] when there is no spare either,
    /// [`Error::Corrupt`] when it is damaged too; [`Error::Refused`] when it is no newer than an index
    /// that must have gone back in time, since the journal before it is gone: `behind`. Nothing was
    /// changed then.
    pub fn mend_index(
        home: &Home,
        unlock: &Unlock<'_>,
        env: &Env,
        behind: bool,
    ) -> Result<MendedIndex> {
        let _lock = home.lock()?;
        let keybag = Keybag::open(&home.keys_file(), unlock)?;
        let secrets = keybag.secrets();
        let new = with_ending(&home.index_file(), ".new");
        from_spare(home, &new, secrets, env)?;
        let stands = |path: &Path| {
            let index = Index::reopen(path, &secrets.local, env.clone())?;
            Ok::<_, Error>(index.number(APPLIED)?.unwrap_or(0))
        };
        if behind && stands(&new)? <= stands(&home.index_file())? {
            remove(&new)?;
            return Err(Error::Refused("the spare of the index is no newer".into()));
        }
        let aside = set_aside(home, env)?;
        fs::rename(&new, home.index_file()).map_err(Error::io("name the index"))?;
        sync_dir(&home.state_dir())?;
        Ok(MendedIndex { aside })
    }
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

/// Gives what is left of the index another name.
fn set_aside(home: &Home, env: &Env) -> Result<Option<PathBuf>> {
    let index = home.index_file();
    let seconds = env.wall_ms().0 / 1_000;
    let aside = with_ending(&index, &format!(".damaged-{seconds}"));
    for ending in ENDINGS {
        let from = with_ending(&index, ending);
        if from.exists() {
            let what = format!("set {} aside", from.display());
            fs::rename(&from, with_ending(&aside, ending)).map_err(Error::io(what))?;
        }
        // A log must never be left beside an index that it does not belong to.
        sync_dir(&home.state_dir())?;
    }
    Ok(ENDINGS.iter().any(|ending| with_ending(&aside, ending).exists()).then_some(aside))
}

fn sync_dir(dir: &Path) -> Result<()> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(Error::io(format!("sync {}", dir.display())))
}
