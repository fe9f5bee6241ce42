//! What is done with keys at the terminal: a new passphrase, a look whether the phrase is right.

use std::path::Path;

use rdrivefs_sync::home::Home;
use rdrivefs_sync::keys::{Phrase, Root};

use crate::cli::args::Common;
use crate::cli::{ask, places, say, secrets};
use crate::control::{self, Request};
use crate::failure::{Exit, Failure, Result};

/// `key passphrase`: the file with the keys is sealed anew.
pub(super) fn passphrase(common: &Common, none: bool, new: Option<&Path>) -> Result<()> {
    let home = places::home(common)?;
    if control::is_served(&home.socket()) {
        // The daemon would seal them under the old one again when a key is added.
        return Err(Failure::new(Exit::Busy, "the drive is mounted")
            .next("`rdrivefs unmount`, then this again"));
    }
    let old = secrets::existing(&home, common)?;
    let new = secrets::new(new, none)?;
    ask::with_drive_opened_by(&old, &home, |drive| {
        secrets::with_unlock(&new, |unlock| Ok(drive.relock(unlock)?))
    })?;
    let kept = if new.is_some() { "passphrase" } else { "key_file" };
    if common.json {
        say::print(&format!("{}\n", serde_json::json!({ "kept_under": kept })));
    }
    say::hint(
        common,
        match new {
            Some(_) => "The keys of this device open with the new passphrase.",
            None => {
                "The keys of this device open without a passphrase: whoever reads this disk has them."
            }
        },
    );
    Ok(())
}

/// `key recovery test`: whether these words are this drive's phrase.
pub(super) fn recovery_test(common: &Common, file: Option<&Path>) -> Result<()> {
    let home = places::home(common)?;
    let phrase = match file {
        Some(file) => secrets::phrase(file)?,
        None => Phrase::parse(&secrets::prompt("Recovery phrase: ")?)?,
    };
    let drive = Root::from(&phrase).drive().to_string();
    if drive != drive_id(common, &home)? {
        return Err(Failure::new(Exit::Failed, "these words are the phrase of another drive").next(
            "look for the right ones; while this device has the drive, copy what is in it to a new \
             one if they are lost",
        ));
    }
    if common.json {
        say::print(&format!("{}\n", serde_json::json!({ "right": true, "drive_id": drive })));
    }
    say::hint(common, "These words are this drive's recovery phrase.");
    Ok(())
}

fn drive_id(common: &Common, home: &Home) -> Result<String> {
    let shown = ask::ask(common, home, Request::KeyShow)?;
    Ok(shown["drive_id"].as_str().unwrap_or_default().to_owned())
}
