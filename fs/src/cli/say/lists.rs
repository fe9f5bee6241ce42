//! Listings: `ls`, `layers`, `log` and the checks of `doctor`.

use serde_json::Value;

use super::value::{bytes, each, number, short, text};
use crate::cli::paint::{Paint, Style};
use crate::cli::table::{Cell, Table, number as right, word};
use crate::cli::units;

/// `ls`.
pub(super) fn entries(value: &Value, paint: Paint) -> String {
    let mut table = Table::default();
    for entry in each(value) {
        let kind = entry["kind"].as_str().unwrap_or("file");
        let size = if kind == "file" { bytes(&entry["size"]) } else { "-".into() };
        table.row([
            word(mode(kind, number(&entry["mode"]))).styled(Style::Dim),
            right(size),
            word(units::local(entry["mtime_secs"].as_i64().unwrap_or(0))).styled(Style::Dim),
            state(&entry["state"]),
            word(name(entry, kind)).styled(match kind {
                "directory" => Style::Head,
                _ => Style::Plain,
            }),
        ]);
    }
    table.lines(paint, "")
}

/// `layers`.
pub(super) fn layers(value: &Value, paint: Paint) -> String {
    let mut table = Table::with_head(&["offset", "bytes", "layer", "of", "here", "held by"]);
    for line in each(value) {
        let at = line["offset"].as_u64().map_or_else(|| "-".into(), |at| at.to_string());
        let held: Vec<_> = each(&line["held"]).map(|holder| text(&holder["remote"])).collect();
        let held = match held.is_empty() {
            true => word("nobody yet").styled(Style::Warn),
            false => word(held.join(", ")),
        };
        table.row([
            right(at),
            right(number(&line["len"]).to_string()),
            word(text(&line["layer"])),
            right(bytes(&line["layer_bytes"])),
            right(bytes(&line["cached_bytes"])),
            held,
        ]);
    }
    table.lines(paint, "")
}

/// `log`.
pub(super) fn log(value: &Value, paint: Paint) -> String {
    let heads = ["device", "number", "kind", "made", "records", "bytes", "hash"];
    let mut table = Table::with_head(&heads);
    for line in each(value) {
        let made =
            line["time_ms"].as_i64().map_or_else(|| "-".into(), |ms| units::local(ms / 1_000));
        table.row([
            word(match line["device_name"].as_str() {
                Some("") | None => short(&line["device"]),
                Some(_) => text(&line["device_name"]),
            }),
            right(units::count(number(&line["number"]))),
            word(text(&line["kind"])),
            word(made).styled(Style::Dim),
            right(units::count(number(&line["records"]))),
            right(bytes(&line["bytes"])),
            word(short(&line["hash"])).styled(Style::Dim),
        ]);
    }
    table.lines(paint, "")
}

/// `device list`.
pub(super) fn devices(value: &Value, paint: Paint, now_ms: u64) -> String {
    let heads = ["", "device", "fingerprint", "rights", "added by", "commits", "last"];
    let mut table = Table::with_head(&heads);
    for device in each(value) {
        let added_by = match device["added_by"].as_str() {
            None => "the phrase".into(),
            Some(key) => {
                let by = each(value).find(|other| other["key"] == key);
                by.map_or_else(|| short(&device["added_by"]), called)
            }
        };
        let rights = match (device["revoked"] == true, device["admin"] == true) {
            (true, _) => match number(&device["held_back"]) {
                0 => word("revoked").styled(Style::Bad),
                n => word(format!("revoked, {n} held back")).styled(Style::Bad),
            },
            (_, true) => word("admin"),
            _ => word("plain"),
        };
        let own = if device["this_device"] == true { " (this one)" } else { "" };
        let last = device["head_ms"].as_u64().map_or("-".into(), |at| units::ago(at, now_ms));
        table.row([
            right(number(&device["number"]).to_string()),
            word(format!("{}{own}", called(device))),
            word(text(&device["fingerprint"])).styled(Style::Dim),
            rights,
            word(added_by),
            right(units::count(number(&device["head"]))),
            word(last),
        ]);
    }
    table.lines(paint, "")
}

/// The name of a device, or the beginning of its key.
pub(super) fn called(device: &Value) -> String {
    match device["name"].as_str() {
        Some("") | None => short(&device["key"]),
        Some(_) => text(&device["name"]),
    }
}

/// `versions`.
pub(super) fn versions(value: &Value, paint: Paint) -> String {
    let mut table = Table::default();
    for line in each(value) {
        let now = if line["present"] == true { "now" } else { "" };
        let time = units::local(line["time_ms"].as_i64().unwrap_or_default() / 1_000);
        let size = bytes(&line["size"]);
        let device = format!("device {}", text(&line["device"]));
        table.row([word(text(&line["version"])), word(time), right(size), word(device), word(now)]);
    }
    table.lines(paint, "")
}

/// `conflicts`.
pub(super) fn conflicts(value: &Value, paint: Paint) -> String {
    let mut table = Table::default();
    for conflict in each(value) {
        let (path, other) = (text(&conflict["path"]), text(&conflict["beside"]));
        let what = match conflict["dispute"].as_str() {
            Some("content") => format!("another version of {other}"),
            Some("name") => format!("lost its name to {other}"),
            Some("place") => "could not be where it was moved to".to_owned(),
            _ => "was removed on another device".to_owned(),
        };
        let device = format!("device {}", text(&conflict["device"]));
        table.row([word(path), word(what), word(device)]);
    }
    match table.lines(paint, "") {
        none if none.is_empty() => "Nothing is in conflict.\n".to_owned(),
        lines => lines,
    }
}

/// `doctor`.
pub(super) fn checks(value: &Value, paint: Paint) -> String {
    let mut table = Table::default();
    for check in each(&value["checks"]) {
        let state = text(&check["state"]);
        let style = match state.as_str() {
            "fine" => Style::Good,
            "damaged" => Style::Bad,
            _ => Style::Warn,
        };
        let name = text(&check["name"]);
        table.row([word(state).styled(style), word(name), word(text(&check["detail"]))]);
        if check["mend"].is_string() {
            let mend = format!("→ {}", text(&check["mend"]));
            table.row([word(""), word(""), word(mend)]);
        }
    }
    table.lines(paint, "")
}

fn name(entry: &Value, kind: &str) -> String {
    let path = text(&entry["path"]);
    match kind {
        "directory" if path != "/" => format!("{path}/"),
        "symlink" => format!("{path} -> {}", text(&entry["target"])),
        _ => path,
    }
}

/// How far the content has come, and whether it is here.
fn state(state: &Value) -> Cell {
    let Some(stage) = state["stage"].as_str() else { return word("") };
    let mut words = stage.to_owned();
    if state["cached"] == false {
        words.push_str(", away");
    }
    if state["pinned"] == true {
        words.push_str(", pinned");
    }
    word(words).styled(match stage {
        "proven" => Style::Good,
        "pushed" => Style::Plain,
        _ => Style::Warn,
    })
}

/// The mode as `ls -l` writes it.
fn mode(kind: &str, mode: u64) -> String {
    let mut out = String::from(match kind {
        "directory" => 'd',
        "symlink" => 'l',
        "fifo" => 'p',
        "socket" => 's',
        "char_device" => 'c',
        "block_device" => 'b',
        _ => '-',
    });
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        out.push(if bits & 4 > 0 { 'r' } else { '-' });
        out.push(if bits & 2 > 0 { 'w' } else { '-' });
        out.push(match (mode & special > 0, bits & 1 > 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn modes_are_written_as_ls_writes_them() {
        assert_eq!(mode("directory", 0o1777), "drwxrwxrwt");
        assert_eq!(mode("file", 0o4755), "-rwsr-xr-x");
        assert_eq!(mode("file", 0o2640), "-rw-r-S---");
        assert_eq!(mode("symlink", 0o777), "lrwxrwxrwx");
    }

    #[test]
    fn a_listing_shows_mode_size_time_state_and_escaped_name() {
        let state = json!({ "stage": "pushed", "cached": false, "pinned": true });
        let said = entries(
            &json!([
                { "path": "/d", "kind": "directory", "size": 3, "mode": 0o755, "mtime_secs": 0,
                  "state": null },
                { "path": "/d/a\n", "kind": "file", "size": 1536, "mode": 0o644, "mtime_secs": 0,
                  "state": state },
                { "path": "/l", "kind": "symlink", "size": 1, "mode": 0o777, "mtime_secs": 0,
                  "target": "d", "state": null },
            ]),
            Paint::none(),
        );
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 3, "{said}");
        assert!(lines[0].starts_with("drwxr-xr-x        -  ") && lines[0].ends_with("  /d/"));
        assert!(lines[1].starts_with("-rw-r--r--  1.5 KiB  "), "{said}");
        assert!(lines[1].ends_with("pushed, away, pinned  /d/a\\x0a"), "{said}");
        assert!(lines[2].ends_with("  /l -> d"), "{said}");
    }

    #[test]
    fn devices_are_called_by_their_names_and_else_by_their_keys() {
        let device = |number: u64, name: &str, added_by: Option<&str>| {
            json!({ "number": number, "name": name, "key": format!("{number}{number}ff"),
                "fingerprint": "0000-1111", "admin": number < 3, "added_by": added_by,
                "this_device": number == 1, "revoked": number == 3, "head": 7, "head_ms": 1_000 })
        };
        let list =
            [device(1, "desk", None), device(2, "", Some("11ff")), device(3, "c", Some("9"))];
        let said = devices(&json!(list), Paint::none(), 61_000);
        let lines: Vec<&str> = said.lines().collect();
        assert!(
            lines[1].contains("1  desk (this one)  0000-1111    admin    the phrase"),
            "{said}"
        );
        assert!(lines[2].contains("2  22ff") && lines[2].contains("admin    desk"), "{said}");
        assert!(lines[3].contains("revoked  9"), "{said}");
    }

    #[test]
    fn checks_say_their_mend_below() {
        let value = json!({ "checks": [
            { "name": "index", "state": "fine", "detail": "whole", "mend": null },
            { "name": "cache", "state": "damaged", "detail": "bad", "mend": "drop it" }] });
        let said = checks(&value, Paint::none());
        assert_eq!(said, "fine     index  whole\ndamaged  cache  bad\n                → drop it\n");
    }
}
