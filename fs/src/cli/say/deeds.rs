//! What was changed for a person: files had back, conflicts settled, keys and members.

use std::fmt::Write as _;

use serde_json::Value;

use super::value::{each, number, text};
use crate::cli::paint::{Paint, Style};
use crate::cli::units::{local, things};

/// `restore`.
pub(super) fn restored(value: &Value) -> String {
    let version = &value["version"];
    format!(
        "{} holds again what it held in version {}, told {}\n",
        text(&value["path"]),
        text(&version["version"]),
        local(version["time_ms"].as_i64().unwrap_or(0) / 1_000),
    )
}

/// `rewind`, `undelete`.
pub(super) fn rewound(value: &Value, paint: Paint) -> String {
    let time = local(value["to_ms"].as_i64().unwrap_or(0) / 1_000);
    let count = |key: &str| number(&value[key]);
    let mut out = format!("{} is as it was {time}\n", text(&value["path"]));
    let _ = writeln!(
        out,
        "{} made again, {} moved back, {} with other contents, {} removed",
        things(count("made"), "name"),
        count("moved"),
        count("contents"),
        count("removed"),
    );
    for kept in each(&value["kept"]) {
        let line = format!("{} was written meanwhile and is kept", text(kept));
        let _ = writeln!(out, "{}", paint.paint(Style::Warn, &line));
    }
    out
}

/// `conflicts resolve`.
pub(super) fn resolved(value: &Value) -> String {
    let mut out = String::new();
    for (key, word) in [("kept", "kept"), ("removed", "removed")] {
        for path in each(&value[key]) {
            let _ = writeln!(out, "{word} {}", text(path));
        }
    }
    out
}

/// `key rotate`.
pub(super) fn rotated(value: &Value, paint: Paint) -> String {
    format!("what is written from now on is sealed with a new key\n{}", told(value, paint))
}

/// `device revoke`.
pub(super) fn revoked(value: &Value, paint: Paint) -> String {
    format!(
        "device {} ({}) belongs to the drive no more; of it {} count\n{}",
        number(&value["device_number"]),
        text(&value["device_fingerprint"]),
        things(number(&value["accepted"]), "commit"),
        told(value, paint),
    )
}

/// Which remotes know.
fn told(value: &Value, paint: Paint) -> String {
    let mut out = String::new();
    for remote in each(&value["remotes"]) {
        let name = text(&remote["name"]);
        let (style, line) = match remote["error"].as_str() {
            None => (Style::Good, format!("{name} knows")),
            Some(why) => (Style::Warn, format!("{name} is told later: {why}")),
        };
        let _ = writeln!(out, "{}", paint.paint(style, &line));
    }
    out
}
