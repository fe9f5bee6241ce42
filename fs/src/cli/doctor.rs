//! The doctor: what lies around the drive, then the drive itself, and what would mend what.
//!
//! It says something useful also where the drive cannot be opened: that is when it is called.

mod around;

use rdrivefs_sync::Error;
use rdrivefs_sync::home::Home;
use rdrivefs_sync::report::{Check, CheckState};
use serde_json::{Value, json};

use crate::cli::args::Common;
use crate::cli::{ask, places, say};
use crate::control::{self, Request};
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
    let opened = match checks.iter().any(|check| check.name == "keys") {
        true => Ok(json!({ "checks": [] })),
        false => ask::ask(common, &home, request.clone()),
    };
    let failed = match opened {
        Ok(report) => {
            checks.extend(of_report(&report));
            None
        }
        Err(failure) => {
            checks.push(explain(&home, &failure));
            Some(failure.code)
        }
    };
    let damaged = checks.iter().any(|check| check.state == CheckState::Damaged);
    say::report(&request, &json!({ "checks": checks }), common);
    Ok(if damaged { Exit::Damaged } else { failed.unwrap_or(Exit::Done) })
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
    format!(
        "first copy {} somewhere safe: {unsent}. If a backup of it is newer than the last change, \
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
