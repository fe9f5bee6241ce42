//! Words out: reports for people, or their JSON document; bars for long work.

use std::collections::HashMap;
use std::io::IsTerminal as _;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use rdrivefs_sync::home::Home;
use rdrivefs_sync::keys::Phrase;
use rdrivefs_sync::report::{Phase, ProgressEvent};
use serde_json::Value;

use crate::cli::args::Common;
use crate::control::Request;

/// Bars on standard error, if it is a terminal.
pub(super) struct Bars {
    all: Option<MultiProgress>,
    bars: HashMap<Phase, ProgressBar>,
}

impl Bars {
    pub(super) fn new(common: &Common) -> Self {
        let wanted = std::io::stderr().is_terminal() && !common.quiet;
        Self { all: wanted.then(MultiProgress::new), bars: HashMap::new() }
    }

    pub(super) fn show(&mut self, event: &ProgressEvent) {
        let Some(all) = &self.all else { return };
        let bar = self.bars.entry(event.phase).or_insert_with(|| {
            let style = "{prefix:8} {wide_bar} {pos}/{len} {msg} {eta}";
            let style = ProgressStyle::with_template(style).expect("the template is right");
            let name = format!("{:?}", event.phase).to_lowercase();
            all.add(ProgressBar::new(0)).with_style(style).with_prefix(name)
        });
        bar.set_length(event.total_items.max(event.done_items));
        bar.set_position(event.done_items);
        bar.set_message(bytes(event.done_bytes));
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.bars.values().for_each(ProgressBar::finish_and_clear);
    }
}

/// Tells of a new drive; a phrase that no file took is shown this once.
pub(super) fn founded(common: &Common, home: &Home, phrase: Option<&Phrase>) {
    if common.json {
        let words: Option<Vec<&str>> = phrase.map(|phrase| phrase.words().collect());
        println!("{}", serde_json::json!({ "drive": home.name(), "recovery_phrase": words }));
        return;
    }
    if let Some(phrase) = phrase {
        println!("The recovery phrase of this drive, shown this once. Write it down on paper:\n");
        let words: Vec<&str> = phrase.words().collect();
        for (n, line) in words.chunks(6).enumerate() {
            println!("  {:>2}  {}", n * 6 + 1, line.join(" "));
        }
        println!("\nWith it and one remote the drive can be had back; without it nobody can help.");
    }
    if !common.quiet {
        eprintln!("The drive {} is ready; next: rdrivefs remote add NAME URL", home.name());
    }
}

/// Says what came of a request.
pub(super) fn report(request: &Request, value: &Value, common: &Common) {
    if common.json {
        println!("{value}");
        return;
    }
    match request {
        Request::Status => status(value),
        Request::Sync { .. } => sync(value),
        Request::Verify { .. } => verify(value),
        Request::Evict { .. } => evict(value),
        Request::List { .. } => list(value),
        Request::RemoteList => each(value, remote),
        Request::Layers { .. } => each(value, |line| {
            let at = line["offset"].as_u64().map_or_else(|| "-".into(), |n| n.to_string());
            println!("{} {at:>12} {:>10} {}", text(&line["layer"]), line["len"], held(line));
        }),
        Request::Log { .. } => each(value, |line| {
            let device = text(&line["device"]);
            let device: String = device.chars().take(12).collect();
            let hash: String = text(&line["hash"]).chars().take(16).collect();
            println!(
                "{device} {:>6} {:<10} {hash} {:>6} records",
                line["number"],
                text(&line["kind"]),
                line["records"]
            );
        }),
        Request::Doctor => each(&value["checks"], |check| {
            println!(
                "{:<10} {:<16} {}",
                text(&check["state"]),
                text(&check["name"]),
                text(&check["detail"])
            );
            if let Some(mend) = check["mend"].as_str() {
                println!("{:27} {mend}", "");
            }
        }),
        _ => fields(value, ""),
    }
}

fn status(value: &Value) {
    println!("drive    {} ({})", text(&value["drive"]), text(&value["drive_id"]));
    match value["mount"]["dir"].as_str() {
        Some(dir) => println!("mounted  {dir} by process {}", value["mount"]["pid"]),
        None => println!("mounted  nowhere"),
    }
    let pending = &value["pending"];
    println!("files    {}", value["tree"]["files"]);
    println!("cache    {}", size(&value["cache"]["bytes"]));
    println!(
        "pending  {} in {} files to seal, {} in {} layers to push",
        size(&pending["dirty_bytes"]),
        pending["dirty_files"],
        size(&pending["push_bytes"]),
        pending["push_layers"],
    );
    each(&value["remotes"], remote);
    each(&value["devices"], |device| {
        println!("device   {} {}", device["number"], text(&device["key"]));
    });
}

fn remote(value: &Value) {
    println!(
        "remote   {} {}: {} in {} layers, {}",
        text(&value["name"]),
        text(&value["health"]),
        size(&value["bytes"]),
        value["layers"],
        text(&value["url"]),
    );
    if let Some(error) = value["error"].as_str() {
        println!("         {error}");
    }
}

fn sync(value: &Value) {
    println!(
        "sent {} in {} layers and {} commits; received {} commits, {}",
        size(&value["pushed_bytes"]),
        value["pushed_layers"],
        value["pushed_commits"],
        value["pulled_commits"],
        size(&value["pulled_bytes"]),
    );
    each(&value["remotes"], |remote| {
        let verdict = if remote["agreed"] == true { "in step" } else { "not in step" };
        let why = remote["error"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
        println!("{} {verdict}{why}", text(&remote["name"]));
    });
}

fn verify(value: &Value) {
    each(&value["targets"], |target| {
        let name = target["remote"].as_str().unwrap_or("the cache");
        println!(
            "{name}: {} challenges, {} failed, over {}",
            target["samples"],
            target["failures"],
            size(&target["bytes"]),
        );
        let unseen = target["unseen"].as_f64().unwrap_or(1.0) * 100.0;
        let loss = value["loss"].as_f64().unwrap_or(0.0) * 100.0;
        println!(
            "  had it lost {loss}%, this run would have missed it with probability {unseen:.3}%"
        );
        if let Some(error) = target["error"].as_str() {
            println!("  {error}");
        }
    });
    each(&value["damaged"], |damaged| {
        println!("damaged: {} {}", text(&damaged["object"]), text(&damaged["why"]));
        each(&damaged["files"], |file| println!("  {}", text(file)));
    });
}

fn evict(value: &Value) {
    let would = if value["dry_run"] == true { "would free" } else { "freed" };
    println!(
        "{would} {} in {} layers, after {} fresh challenges",
        size(&value["evicted_bytes"]),
        value["evicted_layers"],
        value["challenges"],
    );
    each(&value["kept"], |kept| {
        let what = kept["path"].as_str().or(kept["layer"].as_str()).unwrap_or("?");
        println!(
            "kept {what} ({}): {} {}",
            size(&kept["bytes"]),
            text(&kept["reason"]),
            text(&kept["detail"])
        );
    });
    let unproven = |kept: &Value| kept["reason"] == "not_proven" || kept["reason"] == "not_pushed";
    if value["kept"].as_array().is_some_and(|all| all.iter().any(unproven)) {
        println!("next: rdrivefs sync, then rdrivefs verify, then try again");
    }
}

fn list(value: &Value) {
    each(value, |entry| {
        let state = entry["state"]["stage"].as_str().unwrap_or("");
        let mark = if entry["kind"] == "directory" { "/" } else { "" };
        println!("{:>12} {state:<7} {}{mark}", entry["size"].to_string(), text(&entry["path"]));
    });
}

fn held(line: &Value) -> String {
    let held = line["held"].as_array().into_iter().flatten();
    held.map(|holder| text(&holder["remote"])).collect::<Vec<_>>().join(",")
}

fn fields(value: &Value, indent: &str) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::Object(_) | Value::Array(_) => {
                        println!("{indent}{key}");
                        fields(value, &format!("{indent}  "));
                    }
                    value => println!("{indent}{key:<20} {}", text(value)),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| fields(value, indent)),
        value => println!("{indent}{}", text(value)),
    }
}

fn each(list: &Value, say: impl Fn(&Value)) {
    list.as_array().into_iter().flatten().for_each(say);
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn size(value: &Value) -> String {
    bytes(value.as_u64().unwrap_or(0))
}

/// A number of bytes as people read it.
fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[unit]) }
}
