//! What work did: `sync`, `verify`, `evict` and their like.

use std::fmt::Write as _;

use serde_json::Value;

use super::value::{bytes, each, number, text};
use crate::cli::paint::{Paint, Style};
use crate::cli::units::things;

/// `sync`, `push`, `pull`.
pub(super) fn sync(value: &Value, paint: Paint) -> String {
    let mut out = format!(
        "sent {} in {} and {}; received {}, {}\n",
        bytes(&value["pushed_bytes"]),
        things(number(&value["pushed_layers"]), "layer"),
        things(number(&value["pushed_commits"]), "commit"),
        things(number(&value["pulled_commits"]), "commit"),
        bytes(&value["pulled_bytes"]),
    );
    for remote in each(&value["remotes"]) {
        let name = text(&remote["name"]);
        let line = match (remote["agreed"] == true, remote["error"].as_str()) {
            (true, _) => paint.paint(Style::Good, &format!("{name} in step")),
            (false, why) => {
                let why = why.map(|why| format!(": {why}")).unwrap_or_default();
                paint.paint(Style::Bad, &format!("{name} not in step{why}"))
            }
        };
        let _ = writeln!(out, "{line}");
    }
    if let unread @ 1.. = number(&value["unread_files"]) {
        let line = format!(
            "{} cannot be sealed: the journal's copy is damaged, see `rdrivefs doctor`",
            things(unread, "file")
        );
        let _ = writeln!(out, "{}", paint.paint(Style::Bad, &line));
    }
    out
}

/// `verify`.
pub(super) fn verify(value: &Value, paint: Paint) -> String {
    let mut out = String::new();
    for target in each(&value["targets"]) {
        let name = target["remote"].as_str().unwrap_or("the cache");
        let failures = number(&target["failures"]);
        let line = format!(
            "{name}: {}, {failures} failed, over {}",
            things(number(&target["samples"]), "challenge"),
            bytes(&target["bytes"]),
        );
        let style = if failures > 0 { Style::Bad } else { Style::Good };
        let unseen = target["unseen"].as_f64().unwrap_or(1.0) * 100.0;
        let loss = value["loss"].as_f64().unwrap_or(0.0) * 100.0;
        let _ = writeln!(out, "{}", paint.paint(style, &line));
        let _ = writeln!(
            out,
            "  had it lost {loss}%, this run would have missed it with probability {unseen:.3}%"
        );
        if target["error"].is_string() {
            let _ = writeln!(out, "  {}", text(&target["error"]));
        }
    }
    for damaged in each(&value["damaged"]) {
        let mut line = format!("damaged: {} {}", text(&damaged["object"]), text(&damaged["why"]));
        if let many @ 2.. = number(&damaged["failures"]) {
            let _ = write!(line, ", in {many} challenges");
        }
        let _ = writeln!(out, "{}", paint.paint(Style::Bad, &line));
        for file in each(&damaged["files"]) {
            let _ = writeln!(out, "  {}", text(file));
        }
    }
    out
}

/// `evict`.
pub(super) fn evict(value: &Value) -> String {
    let would = if value["dry_run"] == true { "would free" } else { "freed" };
    let mut out = format!(
        "{would} {} in {}, after {}\n",
        bytes(&value["evicted_bytes"]),
        things(number(&value["evicted_layers"]), "layer"),
        things(number(&value["challenges"]), "fresh challenge"),
    );
    for kept in each(&value["kept"]) {
        let what = if kept["path"].is_string() { &kept["path"] } else { &kept["layer"] };
        let (size, reason) = (bytes(&kept["bytes"]), text(&kept["reason"]));
        let line = format!("kept {} ({size}): {reason} {}", text(what), text(&kept["detail"]));
        let _ = writeln!(out, "{}", line.trim_end());
    }
    let unproven = |kept: &Value| kept["reason"] == "not_proven" || kept["reason"] == "not_pushed";
    if each(&value["kept"]).any(unproven) {
        out.push_str("next: rdrivefs sync, then rdrivefs verify, then try again\n");
    }
    out
}

/// `fetch`.
pub(super) fn fetch(value: &Value) -> String {
    let files = things(number(&value["files"]), "file");
    format!("{files} here now; {} came from remotes\n", bytes(&value["fetched_bytes"]))
}

/// `pin`, `unpin`.
pub(super) fn pins(value: &Value) -> String {
    let mut out = String::new();
    for path in each(&value["pinned"]) {
        let _ = writeln!(out, "{}", text(path));
    }
    let _ = writeln!(out, "{} pinned in all", bytes(&value["bytes"]));
    out
}

/// Any other report: its fields, one a line.
pub(super) fn fields(value: &Value, indent: &str) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                if value.is_object() || value.is_array() {
                    let _ = writeln!(out, "{indent}{key}");
                    out.push_str(&fields(value, &format!("{indent}  ")));
                } else {
                    let shown = if value.is_null() { "-".into() } else { text(value) };
                    let _ = writeln!(out, "{indent}{key:<20} {shown}");
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| out.push_str(&fields(value, indent))),
        value => drop(writeln!(out, "{indent}{}", text(value))),
    }
    out
}
