//! Words out: reports for people, or their JSON document.

mod deeds;
mod lists;
mod status;
mod value;
mod work;

use std::io::{ErrorKind, Write as _};

use rdrivefs_sync::home::Home;
use rdrivefs_sync::keys::Phrase;
use rdrivefs_sync::remote::env::Env;
use rdrivefs_sync::report::{DeviceInfo, Joiner, PairingOffer};
use serde_json::Value;

use crate::cli::args::Common;
use crate::cli::paint::Paint;
use crate::cli::units;
use crate::control::Request;
use crate::failure::{Failure, Result};

/// Prints to standard output. Who reads it may have seen enough, as `head` has: then there is no
/// more to do, and nothing has failed.
pub(super) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => eprintln!("rdrivefs: standard output: {e}"),
        Ok(()) => {}
    }
}

/// Says what to do next, or what happened by the way.
pub(super) fn hint(common: &Common, words: &str) {
    if !common.quiet {
        eprintln!("{words}");
    }
}

/// Tells of a new drive; a phrase that no file took is shown this once.
pub(super) fn founded(common: &Common, home: &Home, phrase: Option<&Phrase>, next: &str) {
    let words: Option<Vec<&str>> = phrase.map(|phrase| phrase.words().collect());
    if common.json {
        let report = serde_json::json!({ "drive": home.name(), "recovery_phrase": words });
        print(&format!("{report}\n"));
    } else if let Some(words) = words {
        let mut text = String::from(
            "The recovery phrase of this drive, shown this once. Write it down on paper:\n\n",
        );
        for (n, line) in words.chunks(6).enumerate() {
            text.push_str(&format!("  {:>2}  {}\n", n * 6 + 1, line.join(" ")));
        }
        text.push_str(
            "\nWith it and one remote the drive can be had back; without it nobody can help.\n",
        );
        print(&text);
    }
    hint(common, next);
}

/// Tells the code of a pairing, alone on its line.
pub(super) fn offered(common: &Common, offer: &PairingOffer) {
    if common.json {
        let report = serde_json::to_string(offer).expect("a report is plain data");
        return print(&format!("{report}\n"));
    }
    let left = units::span(offer.expires_ms.saturating_sub(Env::real().wall_ms().0));
    hint(
        common,
        &format!(
            "This code lets one device in within {left}. On the other computer:\n  \
             rdrivefs init --join -     and give it the code"
        ),
    );
    print(&format!("{}\n", offer.code));
}

/// Asks whether to let a device in.
pub(super) fn confirmed(joiner: &Joiner) -> Result<bool> {
    eprint!(
        "{} asks to be let in. It must show this fingerprint, or it is another:\n  {}\nLet it in? \
         [y/N] ",
        joiner.name, joiner.fingerprint
    );
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(Failure::io("read the answer"))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Tells of the device that was let in.
pub(super) fn joined(common: &Common, device: &DeviceInfo) {
    if common.json {
        let report = serde_json::to_string(device).expect("a report is plain data");
        return print(&format!("{report}\n"));
    }
    let DeviceInfo { name, number, fingerprint, .. } = device;
    print(&format!("{name} is device {number} of this drive now: {fingerprint}\n"));
}

/// Says what came of a request.
pub(super) fn report(request: &Request, value: &Value, common: &Common) {
    match common.json {
        true => print(&format!("{value}\n")),
        false => print(&words(request, value, Paint::out(common), Env::real().wall_ms().0)),
    }
}

fn words(request: &Request, value: &Value, paint: Paint, now_ms: u64) -> String {
    match request {
        Request::Status => status::status(value, paint, now_ms),
        Request::StatusOf { .. } => status::path(value, paint),
        Request::RemoteList => status::remotes(value, paint, now_ms),
        Request::RemoteAdd { .. } | Request::RemoteTrust { .. } => {
            status::remotes(&Value::Array(vec![value.clone()]), paint, now_ms)
        }
        Request::Sync { .. } => work::sync(value, paint),
        Request::Verify { .. } => work::verify(value, paint),
        Request::Evict { .. } => work::evict(value),
        Request::Fetch { .. } => work::fetch(value),
        Request::Pin { .. } => work::pins(value),
        Request::List { .. } => lists::entries(value, paint),
        Request::Layers { .. } => lists::layers(value, paint),
        Request::Log { .. } => lists::log(value, paint),
        Request::DeviceList => lists::devices(value, paint, now_ms),
        Request::DeviceName { .. } => {
            lists::devices(&Value::Array(vec![value.clone()]), paint, now_ms)
        }
        Request::Versions { .. } => lists::versions(value, paint),
        Request::Conflicts => lists::conflicts(value, paint),
        Request::Restore { .. } => deeds::restored(value),
        Request::Rewind { .. } | Request::Undelete { .. } => deeds::rewound(value, paint),
        Request::Resolve { .. } => deeds::resolved(value),
        Request::KeyRotate => deeds::rotated(value, paint),
        Request::DeviceRevoke { .. } => deeds::revoked(value, paint),
        Request::Doctor { .. } => lists::checks(value, paint),
        _ => work::fields(value, ""),
    }
}
