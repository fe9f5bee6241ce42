//! The doctor: what lies around the drive, then the drive itself, and what would mend what.
//!
//! It says something useful also where the drive cannot be opened: that is when it is called.

mod around;

use rdrivefs_sync::Error;
use rdrivefs_sync::drive::{Drive, Fault, MendedIndex, Origin};
use rdrivefs_sync::home::Home;
use rdrivefs_sync::remote::env::Env;
use rdrivefs_sync::report::{Check, CheckState};
use serde_json::{Value, json};

use crate::cli::args::Common;
use crate::cli::{ask, bars, places, say, secrets, units};
use crate::control::{self, Request, execute};
use crate::failure::{Exit, Failure, Result};

/// `doctor`
pub(super) fn doctor(common: &Common, repair: bool) -> Result<Exit> {
    let home = places::home(common)?;
    if !home.has_drive() && !home.index_file().exists() {
        return Err(Error::NoDrive(home.config_dir().display().to_string()).into());
    }
    let served = control::is_served(&home.socket());
    let mut checks = around::look(&home, repair, served);
    let request = Request::Doctor { repair };
    let failed = match checks.iter().any(|check| check.name == "keys") {
        true => None,
        false if served => {
            settle(&home, &mut checks, ask::ask_daemon(common, &home, request.clone()))
        }
        false => look_inside(common, &home, repair, &mut checks),
    };
    let damaged = checks.iter().any(|check| check.state == CheckState::Damaged);
    say::report(&request, &json!({ "checks": checks }), common);
    Ok(match failed {
        Some(code) if !damaged || code == Exit::Unreachable => code,
        _ if damaged => Exit::Damaged,
        _ => Exit::Done,
    })
}

/// Opens the drive, and mends its index first if that is what is wrong.
fn look_inside(
    common: &Common,
    home: &Home,
    repair: bool,
    checks: &mut Vec<Check>,
) -> Option<Exit> {
    let passphrase = match secrets::existing(home, common) {
        Err(failure) => return settle(home, checks, Err(failure)),
        Ok(passphrase) => passphrase,
    };
    let look = || {
        ask::with_drive_opened_by(&passphrase, home, |drive| {
            execute(drive, Request::Doctor { repair }, &bars::progress(common))
        })
    };
    let found = look();
    let Some((why, fault)) = index_damage(&found).filter(|_| repair) else {
        return settle(home, checks, found);
    };
    let mended = secrets::with_unlock(&passphrase, |unlock| {
        Ok(Drive::mend_index(home, unlock, &Env::real(), fault, &bars::progress(common))?)
    });
    match mended {
        Ok(mended) => {
            checks.extend(told(&why, &mended));
            settle(home, checks, look())
        }
        // What was found at first says more than that it could not be mended.
        Err(failure) if matches!(failure.code, Exit::Damaged | Exit::Refused) => {
            settle(home, checks, found)
        }
        Err(failure) => {
            settle(home, checks, found);
            settle(home, checks, Err(failure))
        }
    }
}

/// What is wrong with the index, as far as another one would mend it.
fn index_damage(found: &Result<Value>) -> Option<(String, Fault)> {
    match found {
        Err(failure) if failure.code == Exit::Damaged => {
            let fault = match part(&failure.error) {
                "index" => Fault::Lost,
                "journal" => Fault::Behind,
                _ => return None,
            };
            Some((failure.error.clone(), fault))
        }
        Err(_) => None,
        Ok(report) => {
            let bad = |check: &Check| check.state == CheckState::Damaged && check.name == "index";
            of_report(report).into_iter().find(bad).map(|check| (check.detail, Fault::Partial))
        }
    }
}

/// What was mended, and what could not be.
fn told(why: &str, mended: &MendedIndex) -> Vec<Check> {
    let aside = mended.aside.as_ref().map_or(String::new(), |aside| {
        format!("; what was left of it is set aside as {}", aside.display())
    });
    let check = |name: &str, state, detail, mend: Option<&str>| Check {
        name: name.into(),
        state,
        detail,
        mend: mend.map(str::to_owned),
    };
    let Origin::Remotes { from, silent, refused, number, sent_ms, journal } = &mended.origin else {
        let detail = format!("{why}: made anew from its spare{aside}");
        return vec![check("index", CheckState::Mended, detail, None)];
    };
    let from = from.join(", ");
    let detail = format!(
        "{why}: made anew from what the remotes have ({from}), under the device number \
         {number}{aside}"
    );
    let mut checks = vec![check("index", CheckState::Mended, detail, None)];
    let since = match sent_ms {
        Some(ms) => format!("after {}", units::local((*ms / 1_000).cast_signed())),
        None => "here".into(),
    };
    let lost = format!(
        "what was written {since} and was sent to none of them is not in it; its journal is set \
         aside as {}",
        journal.display()
    );
    let mend = "write it anew from a copy; keep what is set aside until you have it all";
    checks.push(check("journal", CheckState::Damaged, lost, Some(mend)));
    for silent in silent {
        let mend = "what only that remote has comes with the next sync";
        checks.push(check("remotes", CheckState::Warning, silent.clone(), Some(mend)));
    }
    if let Some(refused) = refused {
        let mend = "see `rdrivefs log` and the other devices";
        checks.push(check("drive", CheckState::Warning, refused.clone(), Some(mend)));
    }
    checks
}

/// Adds what was found; the code of what kept it from being found.
fn settle(home: &Home, checks: &mut Vec<Check>, found: Result<Value>) -> Option<Exit> {
    match found {
        Ok(report) => {
            checks.extend(of_report(&report));
            None
        }
        Err(failure) => {
            checks.push(explain(home, &failure));
            Some(failure.code)
        }
    }
}

fn of_report(report: &Value) -> Vec<Check> {
    serde_json::from_value(report["checks"].clone()).unwrap_or_default()
}

/// Why the drive could not be looked into, and what to do about it.
fn explain(home: &Home, failure: &Failure) -> Check {
    let (name, state) = match failure.code {
        Exit::Damaged => (part(&failure.error), CheckState::Damaged),
        Exit::Busy => ("lock", CheckState::Warning),
        Exit::Locked => ("keys", CheckState::Warning),
        Exit::Words => ("config", CheckState::Damaged),
        _ => ("drive", CheckState::Warning),
    };
    let detail = match failure.code {
        Exit::Busy => match around::holder(home) {
            Some(pid) => format!("{}: process {pid}", failure.error),
            None => failure.error.clone(),
        },
        _ => failure.error.clone(),
    };
    let mend = match failure.code {
        Exit::Damaged => Some(way_back(home, name)),
        _ => failure.next.clone(),
    };
    Check { name: name.into(), state, detail, mend }
}

fn part(error: &str) -> &'static str {
    let known = ["journal", "index", "keybag", "cache"];
    // A path may have any word in it.
    let error = error.split('/').next().unwrap_or_default();
    match known.into_iter().find(|part| error.contains(part)) {
        Some("keybag") => "keys",
        Some(part) => part,
        None => "drive",
    }
}

/// What to do when the drive does not open, safest first.
fn way_back(home: &Home, part: &str) -> String {
    let state = home.state_dir();
    let unsent = match part {
        "journal" => "what was written since the last sync may be lost",
        _ => "what was not sent yet lies in the journal there",
    };
    let first = match part {
        "index" => {
            "`rdrivefs doctor --repair` puts another in its place, if it can. If it cannot, "
        }
        _ => "",
    };
    format!(
        "{first}first copy {} somewhere safe: {unsent}. If a backup of it is newer than the last change, \
         put it back. Else come back from the phrase and a remote, under another RDRIVEFS_HOME: \
         `rdrivefs init --recover FILE --remote URL`",
        state.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdrivefs_sync::home::Roots;

    fn explained(failure: Failure) -> Check {
        let home = Roots::under(std::path::Path::new("/nowhere")).home("d").unwrap();
        explain(&home, &failure)
    }

    #[test]
    fn what_keeps_a_drive_closed_is_named_with_the_way_back() {
        for (what, name) in [
            ("the index /s/index", "index"),
            ("the index /srv/journal/index", "index"),
            ("journal segment 3", "journal"),
            ("keybag", "keys"),
            ("a row", "drive"),
        ] {
            let check = explained(Error::corrupt(what, "tag").into());
            assert_eq!((check.name.as_str(), check.state), (name, CheckState::Damaged));
            assert!(check.mend.unwrap().contains("init --recover"));
        }
        let check = explained(Error::InUse("/s".into()).into());
        assert_eq!((check.name.as_str(), check.state), ("lock", CheckState::Warning));
        assert!(check.mend.is_some());
    }
}
