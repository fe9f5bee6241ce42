//! How the drive, a path of it, and its remotes stand, in words.

use std::fmt::Write as _;

use serde_json::Value;

use super::lists::called;
use super::value::{bytes, each, number, short, text};
use crate::cli::paint::{Paint, Style};
use crate::cli::table::{Cell, Table, number as right, word};
use crate::cli::units::{ago, count, things};

/// `status`.
pub(super) fn status(value: &Value, paint: Paint, now_ms: u64) -> String {
    let mut table = Table::default();
    let mut line = |head: &str, rest: String| {
        table.row([word(head).styled(Style::Head), word(rest)]);
    };
    line("drive", format!("{} ({})", text(&value["drive"]), short(&value["drive_id"])));
    line("mounted", mounted(&value["mount"], now_ms));
    line("files", files(&value["tree"]));
    line("cache", cache(&value["cache"]));
    line("pending", pending(&value["pending"]));
    let conflicts = number(&value["conflicts"]);
    if conflicts > 0 {
        line("conflicts", format!("{}: see `rdrivefs conflicts`", things(conflicts, "file")));
    }
    let own = &value["device"]["number"];
    let mut head = "devices";
    for device in each(&value["devices"]) {
        line(head, one_device(device, device["number"] == *own, now_ms));
        head = "";
    }
    let mut out = table.lines(paint, "");
    if each(&value["remotes"]).next().is_none() {
        let none = "no remote yet: this is the only copy; `rdrivefs remote add NAME URL`";
        let _ = writeln!(out, "{}", paint.paint(Style::Warn, none));
        return out;
    }
    out.push('\n');
    out.push_str(&remotes(&value["remotes"], paint, now_ms));
    out
}

/// `remote list`, and the remotes of a status.
pub(super) fn remotes(list: &Value, paint: Paint, now_ms: u64) -> String {
    let heads = ["remote", "health", "holds", "layers", "proven", "last seen", "address"];
    let mut table = Table::with_head(&heads);
    for remote in each(list) {
        table.row([
            word(text(&remote["name"])),
            health(remote),
            right(bytes(&remote["bytes"])),
            right(count(number(&remote["layers"]))),
            proven(remote, now_ms),
            word(when(&remote["seen_ms"], now_ms, "not yet")),
            word(address(&remote["url"])),
        ]);
    }
    let mut out = table.lines(paint, "");
    for remote in each(list) {
        if let Some(error) = remote["error"].as_str() {
            let line = format!("{}: {error}", text(&remote["name"]));
            let _ = writeln!(out, "{}", paint.paint(Style::Bad, &line));
        }
    }
    out
}

/// `status PATH`.
pub(super) fn path(value: &Value, paint: Paint) -> String {
    let total = number(&value["bytes"]);
    let share = |name: &str| {
        let part = number(&value[name]);
        let percent = if total == 0 { 100 } else { u128::from(part) * 100 / u128::from(total) };
        format!("{} ({percent}%)", bytes(&value[name]))
    };
    let mut table = Table::default();
    let mut line = |head: &str, rest: String| {
        table.row([word(head).styled(Style::Head), word(rest)]);
    };
    let pinned = if value["pinned"] == true { ", pinned" } else { "" };
    line("path", format!("{} ({}{pinned})", text(&value["path"]), text(&value["kind"])));
    let files = things(number(&value["files"]), "entry").replace("entrys", "entries");
    line("holds", format!("{} in {files}", bytes(&value["bytes"])));
    line("dirty", share("dirty_bytes"));
    line("sealed", share("sealed_bytes"));
    line("pushed", share("pushed_bytes"));
    line("proven", share("proven_bytes"));
    line("here", share("cached_bytes"));
    table.lines(paint, "")
}

fn mounted(mount: &Value, now_ms: u64) -> String {
    match mount["dir"].as_str() {
        Some(_) => format!(
            "{} by process {}, {}",
            text(&mount["dir"]),
            mount["pid"],
            when(&mount["since_ms"], now_ms, "?")
        ),
        None => "nowhere".into(),
    }
}

fn files(tree: &Value) -> String {
    let size = match tree["bytes"].as_u64() {
        Some(_) => format!(" with {}", bytes(&tree["bytes"])),
        None => String::new(),
    };
    let layers = bytes(&tree["layer_bytes"]);
    format!("{}{size}; {layers} sealed", count(number(&tree["files"])))
}

fn cache(cache: &Value) -> String {
    let max = match cache["bytes_max"].as_u64() {
        Some(_) => format!(" of {}", bytes(&cache["bytes_max"])),
        None => String::new(),
    };
    let layers = things(number(&cache["layers"]), "layer");
    let proven = bytes(&cache["proven_bytes"]);
    format!("{}{max} in {layers}; {proven} proven elsewhere", bytes(&cache["bytes"]))
}

fn pending(pending: &Value) -> String {
    let mut parts = Vec::new();
    let mut part = |n: u64, words: String| parts.extend((n > 0).then_some(words));
    let dirty = number(&pending["dirty_files"]);
    let files = things(dirty, "file");
    part(dirty, format!("{} in {files} to seal", bytes(&pending["dirty_bytes"])));
    let layers = number(&pending["push_layers"]);
    let words = format!("{} in {} to send", bytes(&pending["push_bytes"]), things(layers, "layer"));
    part(layers, words);
    let commits = number(&pending["commits"]);
    part(commits, format!("{} to commit", things(commits, "change")));
    let unproven = number(&pending["unproven_bytes"]);
    part(unproven, format!("{} sent and not proven yet", bytes(&pending["unproven_bytes"])));
    if parts.is_empty() { "nothing".into() } else { parts.join(", ") }
}

fn one_device(device: &Value, own: bool, now_ms: u64) -> String {
    let name = called(device);
    let own = if own { " (this one)" } else { "" };
    let revoked = if device["revoked"] == true { ", revoked" } else { "" };
    let last = match device["head"].as_u64() {
        Some(0) | None => "no commit yet".into(),
        Some(head) => {
            format!(
                "{}, the last {}",
                things(head, "commit"),
                when(&device["head_ms"], now_ms, "?")
            )
        }
    };
    format!("{} {name}{own}{revoked}: {last}", device["number"])
}

fn health(remote: &Value) -> Cell {
    let health = text(&remote["health"]);
    let style = match health.as_str() {
        "up" => Style::Good,
        "unknown" => Style::Dim,
        "down" => Style::Warn,
        _ => Style::Bad,
    };
    let words = match remote["rtt_ms"].as_f64() {
        Some(ms) if health == "up" => format!("{health}, {ms:.0} ms"),
        _ => health,
    };
    word(words).styled(style)
}

fn proven(remote: &Value, now_ms: u64) -> Cell {
    match (number(&remote["failures"]), remote["proven_ms"].as_u64()) {
        (0, Some(at)) => word(ago(at, now_ms)).styled(Style::Good),
        (0, None) => word("not yet").styled(Style::Warn),
        (failed, _) => word(format!("{} failed", count(failed))).styled(Style::Bad),
    }
}

fn when(at: &Value, now_ms: u64, never: &str) -> String {
    at.as_u64().map_or_else(|| never.to_owned(), |at| ago(at, now_ms))
}

/// The URL without its key, which the fingerprint in the JSON tells better.
fn address(url: &Value) -> String {
    let url = text(url);
    url.split('?').next().unwrap_or(&url).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn full() -> Value {
        json!({
            "drive": "work", "drive_id": "aabbccddeeff00112233", "device": {"number": 1},
            "mount": {"dir": "/home/me/Drive", "pid": 42, "since_ms": 1_000},
            "tree": {"files": 1234, "bytes": 2048, "layer_bytes": 1024},
            "cache": {"bytes": 4096, "bytes_max": 8192, "proven_bytes": 1024, "layers": 1},
            "pending": {"dirty_bytes": 10, "dirty_files": 1, "push_bytes": 2048, "push_layers": 2,
                        "unproven_bytes": 512, "commits": 0},
            "remotes": [
                {"name": "home", "health": "up", "rtt_ms": 1.6, "bytes": 1024, "layers": 3,
                 "proven_ms": 60_000, "failures": 0, "seen_ms": 120_000, "error": null,
                 "url": "rdrive://h:7480?key=00"},
                {"name": "friend", "health": "distrusted", "bytes": 0, "layers": 0,
                 "proven_ms": null, "failures": 2, "seen_ms": null, "error": "it lied",
                 "url": "rdrive://f:7480?key=00"}],
            "conflicts": 0,
            "devices": [{"name": "", "key": "0123456789abcdef", "number": 1, "revoked": false,
                         "head": 3, "head_ms": 60_000}],
        })
    }

    #[test]
    fn a_status_says_everything_that_is_pending_and_how_each_remote_does() {
        let said = status(&full(), Paint::none(), 120_000);
        for words in [
            "drive    work (aabbccddeeff)",
            "mounted  /home/me/Drive by process 42, 1 min ago",
            "files    1,234 with 2.0 KiB; 1.0 KiB sealed",
            "cache    4.0 KiB of 8.0 KiB in 1 layer; 1.0 KiB proven elsewhere",
            "10 B in 1 file to seal, 2.0 KiB in 2 layers to send, 512 B sent and not proven yet",
            "devices  1 0123456789ab (this one): 3 commits, the last 1 min ago",
            "home    up, 2 ms    1.0 KiB       3  1 min ago  just now   rdrive://h:7480",
            "friend  distrusted      0 B       0  2 failed   not yet",
            "friend: it lied",
        ] {
            assert!(said.contains(words), "{words} in:\n{said}");
        }
        assert!(!said.contains('\x1b'));
    }

    #[test]
    fn a_drive_without_remotes_or_work_says_so() {
        let mut value = full();
        value["remotes"] = json!([]);
        value["mount"] = Value::Null;
        value["tree"]["bytes"] = Value::Null;
        value["pending"] = json!({});
        let said = status(&value, Paint::none(), 0);
        for words in ["mounted  nowhere", "pending  nothing", "only copy", "1,234; 1.0 KiB"] {
            assert!(said.contains(words), "{words} in:\n{said}");
        }
    }

    #[test]
    fn a_path_says_how_far_each_byte_has_come() {
        let value = json!({
            "path": "/a", "kind": "directory", "files": 2, "bytes": 1000, "dirty_bytes": 0,
            "sealed_bytes": 1000, "pushed_bytes": 500, "proven_bytes": 0, "cached_bytes": 1000,
            "pinned": true });
        let said = path(&value, Paint::none());
        for words in ["/a (directory, pinned)", "1000 B in 2 entries", "pushed  500 B (50%)"] {
            assert!(said.contains(words), "{words} in:\n{said}");
        }
    }
}
